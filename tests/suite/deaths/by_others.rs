//! Processes that somebody else ends, or tries to.

use std::fs;

use libtest_mimic::{Failed, Trial};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use whodunit_containers::{Container, DaemonConfig, Pod};

use super::{Death, about_deaths, container_death, hear_nth, hear_numbers, mortal, process_death};
use crate::Outcome;
use crate::report::{expect, expect_eq};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        about_deaths("deaths::a_stop_that_is_obeyed_is_no_kill", obeyed),
        about_deaths("deaths::an_init_without_a_handler_ignores_a_stop", unkillable),
        about_deaths("deaths::a_stop_that_is_caught_is_seen_before_the_kill", too_slow),
        about_deaths("deaths::a_signal_of_long_ago_does_not_decide_an_exit", long_ago),
        about_deaths("deaths::a_blocked_signal_decides_when_it_is_let_in", blocked),
        about_deaths("deaths::a_parent_that_kills_is_named_by_every_road", by_parent),
        about_deaths("deaths::a_sender_that_is_gone_before_its_victim_is_named", by_sibling),
        about_deaths("deaths::a_session_is_told_from_the_container_s_own", by_session),
        about_deaths("deaths::another_container_of_the_namespace_is_named", by_other_container),
        about_deaths("deaths::a_process_of_the_machine_is_named", by_host),
        about_deaths("deaths::a_parent_s_end_that_kills_is_the_parent_s", by_parents_end),
        about_deaths("deaths::a_cgroup_that_is_killed_names_who_wrote", by_cgroup_kill),
        about_deaths("deaths::the_rest_dies_of_its_init", by_init),
    ]
}

/// Lets a container play under a daemon that was there first.
fn play(how: &[&str], act: impl FnOnce(&DaemonConfig, &Pod, &mut Container) -> Outcome) -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let mut container = mortal(&pod, how).start()?;
    act(&config, &pod, &mut container)
}

/// Waits for the end of a container and for its record.
fn end(config: &DaemonConfig, container: &mut Container, code: i32) -> Result<Death, Failed> {
    expect_eq("what the runtime was told", &container.wait()?.code(), &Some(code))?;
    let death = container_death(config, container.id())?;
    death.expect_sound()?;
    death.expect_seen_from_birth()?;
    Ok(death)
}

/// The name that the kernel has of this process, which is what a record says of it.
fn own_name() -> Result<String, Failed> {
    Ok(fs::read_to_string(format!("/proc/{}/comm", std::process::id()))?.trim().to_owned())
}

fn obeyed() -> Outcome {
    play(&["obey", "15"], |config, _, app| {
        app.hear("ready 1")?;
        app.kill("TERM")?;
        let death = end(config, app, 0)?;
        death.expect_exited(0)?;
        let signal = death.fact("signal")?;
        for (field, expected) in [
            ("number", json!(15)),
            ("result", json!("delivered")),
            ("delivered", json!(true)),
            ("disposition", json!("handler")),
            ("relation", json!("runtime")),
            ("way", json!("kill")),
            ("si_code", json!(0)),
        ] {
            expect_eq(field, &signal[field], &expected)?;
        }
        expect_eq("sender", &signal["sender"]["comm"], &json!("runc"))
    })
}

fn unkillable() -> Outcome {
    play(&["pause"], |config, _, app| {
        app.hear("ready 1")?;
        app.kill("TERM")?;
        app.kill("KILL")?;
        let death = end(config, app, 128 + 9)?;
        death.expect_killed(9)?;
        death.expect_decided("kill", "runtime", Some("runc"))?;
        let ignored = death.facts("signal")[0];
        expect_eq("number", &ignored["number"], &json!(15))?;
        expect_eq("result", &ignored["result"], &json!("ignored"))?;
        expect_eq("disposition", &ignored["disposition"], &json!("unkillable-init"))
    })
}

fn too_slow() -> Outcome {
    play(&["handle", "15"], |config, _, app| {
        app.hear("ready 1")?;
        app.kill("TERM")?;
        app.kill("KILL")?;
        let death = end(config, app, 128 + 9)?;
        death.expect_killed(9)?;
        let caught = death.facts("signal")[0];
        expect_eq("number", &caught["number"], &json!(15))?;
        expect_eq("disposition", &caught["disposition"], &json!("handler"))?;
        expect_eq("result", &caught["result"], &json!("delivered"))?;
        let words = death.facts("memory").len();
        expect(format!("its words at the stop and at its end: {:#}", death.0), words >= 1)
    })
}

fn long_ago() -> Outcome {
    play(&["outlive", "15", "5"], |config, _, app| {
        app.hear("ready 1")?;
        app.kill("TERM")?;
        app.tell("go")?;
        let death = end(config, app, 5)?;
        death.expect_exited(5)?;
        expect_eq("signals", &death.facts("signal").len(), &1)
    })
}

fn blocked() -> Outcome {
    play(&["run", "block", "15"], |config, _, app| {
        let victim = hear_numbers(app, "ready")?[0].to_string();
        app.exec(&["/mortal", "send", "kill", &victim, "15"])?;
        app.tell("go")?;
        let buried = hear_numbers(app, "buried")?;
        expect_eq("what the parent was told", &buried[1], &15)?;
        let death = process_death(config, app, buried[0])?;
        death.expect_sound()?;
        death.expect_killed(15)?;
        death.expect_decided("kill", "exec-session", Some("mortal"))?;
        expect_eq("disposition", &death.deciding()?["disposition"], &json!("blocked"))
    })
}

fn by_parent() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let roads = [("kill", 0), ("group", 0), ("queue", -1), ("thread", -6), ("pidfd", 0)];
    let start = |(road, _): (&str, i32)| mortal(&pod, &["parent", road, "15"]).start();
    let apps: Vec<Container> = roads.into_iter().map(start).collect::<Result<_, _>>()?;
    for (app, (road, code)) in apps.iter().zip(roads) {
        let buried = hear_numbers(app, "buried")?;
        expect_eq("what the parent was told", &buried[1], &15)?;
        let death = process_death(&config, app, buried[0])?;
        death.expect_sound()?;
        death.expect_killed(15)?;
        death.expect_decided(road, "parent", Some("mortal"))?;
        let signal = death.deciding()?;
        expect_eq("si_code", &signal["si_code"], &json!(code))?;
        expect_eq("sender's pid", &signal["sender"]["pid"], &json!(app.pid()))?;
    }
    Ok(())
}

fn by_sibling() -> Outcome {
    play(&["sibling", "15"], |config, _, app| {
        let killer = hear_numbers(app, "buried")?;
        expect_eq("how the killer ended", &killer[1], &0)?;
        let victim = hear_nth(app, "buried", 1)?;
        expect_eq("how the victim ended", &victim[1], &15)?;
        let death = process_death(config, app, victim[0])?;
        death.expect_sound()?;
        death.expect_killed(15)?;
        death.expect_decided("kill", "same-container", Some("killer"))?;
        let parents = &death.deciding()?["sender"]["ancestry"];
        expect_eq("parent of the sender", &parents[0]["pid"], &json!(app.pid()))
    })
}

fn by_session() -> Outcome {
    play(&["run", "pause"], |config, _, app| {
        let victim = hear_numbers(app, "ready")?[0];
        let line = format!("/mortal send kill {victim} 9; true");
        app.exec_shell(&line)?;
        let buried = hear_numbers(app, "buried")?;
        expect_eq("what the parent was told", &buried[1], &9)?;
        let death = process_death(config, app, victim)?;
        death.expect_sound()?;
        death.expect_killed(9)?;
        death.expect_decided("kill", "exec-session", Some("mortal"))?;
        let parents = &death.deciding()?["sender"]["ancestry"];
        expect_eq("the session's shell", &parents[0]["comm"], &json!("sh"))
    })
}

fn by_other_container() -> Outcome {
    play(&["run", "pause"], |config, pod, app| {
        let victim = hear_numbers(app, "ready")?[0];
        let killer = mortal(pod, &["send", "kill", &victim.to_string(), "15"])
            .pid_namespace_of(app)
            .run()?;
        let buried = hear_numbers(app, "buried")?;
        expect_eq("what the parent was told", &buried[1], &15)?;
        let death = process_death(config, app, victim)?;
        death.expect_sound()?;
        death.expect_killed(15)?;
        death.expect_decided("kill", "other-container", Some("mortal"))?;
        let sender = &death.deciding()?["sender"];
        expect_eq("container of the sender", &sender["container"], &json!(killer.id))
    })
}

fn by_host() -> Outcome {
    play(&["pause"], |config, _, app| {
        app.hear("ready 1")?;
        let pid = Pid::from_raw(app.pid() as i32).expect("a process has a number");
        kill_process(pid, Signal::KILL)?;
        let death = end(config, app, 128 + 9)?;
        death.expect_killed(9)?;
        death.expect_decided("kill", "host-process", Some(&own_name()?))?;
        let sender = &death.deciding()?["sender"];
        expect_eq("sender's pid", &sender["pid"], &json!(std::process::id()))?;
        expect_eq("container of the sender", &sender["container"], &json!(null))
    })
}

fn by_parents_end() -> Outcome {
    play(&["parent-death", "15"], |config, _, app| {
        app.hear("ready 1")?;
        let victim = hear_numbers(app, "victim")?[0];
        app.tell("go")?;
        let ended = hear_nth(app, "buried", 1)?;
        expect_eq("who was ended, and how", &ended, &vec![victim, 15])?;
        let death = process_death(config, app, victim)?;
        death.expect_sound()?;
        death.expect_killed(15)?;
        death.expect_decided("parent-death", "parent", Some("middle"))?;
        expect_eq("origin", &death.deciding()?["origin"], &json!("kernel"))
    })
}

fn by_cgroup_kill() -> Outcome {
    play(&["pause"], |config, _, app| {
        let file = app.cgroup_folder().join("cgroup.kill");
        if !file.exists() {
            // Linux 5.14.
            return Ok(());
        }
        app.hear("ready 1")?;
        fs::write(&file, "1")?;
        let death = end(config, app, 128 + 9)?;
        death.expect_killed(9)?;
        death.expect_decided("cgroup-kill", "cgroup-kill", Some(&own_name()?))?;
        expect_eq("origin", &death.deciding()?["origin"], &json!("kernel"))?;
        let writer = &death.fact("cgroup-kill")?["writer"];
        expect_eq("who wrote", &writer["pid"], &json!(std::process::id()))
    })
}

fn by_init() -> Outcome {
    play(&["run", "pause"], |config, _, app| {
        let victim = hear_numbers(app, "ready")?[0];
        app.kill("KILL")?;
        end(config, app, 128 + 9)?.expect_killed(9)?;
        let death = process_death(config, app, victim)?;
        death.expect_sound()?;
        death.expect_killed(9)?;
        death.expect_decided("namespace-teardown", "namespace-teardown", None)?;
        let init = death.fact("init-died")?;
        expect_eq("the init", &init["init"]["pid"], &json!(app.pid()))?;
        expect_eq("how it ended", &init["status"]["signal"], &json!(9))
    })
}

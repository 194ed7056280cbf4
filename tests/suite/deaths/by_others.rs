//! Processes that somebody else ends, or tries to.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use whodunit_containers::{Container, DaemonConfig, Hierarchies, Pod};

use super::claim::Claim;
use super::{end, hear_nth, hear_numbers, mortal, own_name, play, process_death};
use crate::Outcome;
use crate::report::expect_eq;

pub(super) fn claims() -> Vec<Claim> {
    vec![
        Claim::new(
            "deaths::a_blocked_signal_decides_when_it_is_let_in",
            &["killed-by-exec"],
            blocked,
        ),
        Claim::new(
            "deaths::a_parent_that_kills_is_named_by_every_road",
            &["killed-by-parent"],
            by_parent,
        ),
        Claim::new(
            "deaths::a_child_that_kills_its_parent_is_named",
            &["killed-by-child"],
            by_child,
        ),
        Claim::new(
            "deaths::a_sender_that_is_gone_before_its_victim_is_named",
            &["killed-by-same-container"],
            by_sibling,
        ),
        Claim::new(
            "deaths::a_session_is_told_from_the_container_s_own",
            &["killed-by-exec"],
            by_session,
        ),
        Claim::new(
            "deaths::another_container_of_the_namespace_is_named",
            &["killed-by-other-container"],
            by_other_container,
        ),
        Claim::new(
            "deaths::a_process_of_the_machine_is_named",
            &["killed-by-host-process"],
            by_host,
        ),
        Claim::new(
            "deaths::a_kill_without_a_stop_is_the_runtime_s",
            &["killed-by-runtime"],
            by_runtime,
        ),
        Claim::new(
            "deaths::a_parent_s_end_that_kills_is_the_parent_s",
            &["parent-death-signal"],
            by_parents_end,
        ),
        Claim::new(
            "deaths::a_cgroup_that_is_killed_names_who_wrote",
            &["cgroup-kill"],
            by_cgroup_kill,
        )
        .needing(lacks_cgroup_kill),
        Claim::new(
            "deaths::the_rest_dies_of_its_init",
            &["init-died", "killed-by-runtime"],
            by_init,
        ),
    ]
}

fn lacks_cgroup_kill() -> Option<&'static str> {
    let is_there = Hierarchies::find().is_ok_and(|found| {
        // The top of a hierarchy has none: somebody's below it.
        let entries = fs::read_dir(found.unified).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().join("cgroup.kill")).any(|file| file.exists())
    });
    (!is_there).then_some("cgroups of this kernel have no `cgroup.kill` (Linux 5.14)")
}

fn blocked() -> Outcome {
    play(
        |pod| mortal(pod, &["run", "block", "15"]),
        |config, _, app| {
            let victim = hear_numbers(app, "ready")?[0].to_string();
            app.exec(&["/mortal", "send", "kill", &victim, "15"])?;
            app.tell("go")?;
            let buried = hear_numbers(app, "buried")?;
            expect_eq("what the parent was told", &buried[1], &15)?;
            let death = process_death(config, app, buried[0])?;
            death.expect_sound()?;
            death.expect_killed(15)?;
            death.expect_decided("kill", "exec-session", Some("mortal"))?;
            death.expect_verdict("killed-by-exec", 90..=97, &["signal 15"])?;
            expect_eq("disposition", &death.deciding()?["disposition"], &json!("blocked"))
        },
    )
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
        death.expect_verdict("killed-by-parent", 95..=99, &["signal 15"])?;
        death.expect_told(&format!("mortal (pid {})", app.pid()))?;
        let signal = death.deciding()?;
        expect_eq("si_code", &signal["si_code"], &json!(code))?;
        expect_eq("sender's pid", &signal["sender"]["pid"], &json!(app.pid()))?;
    }
    Ok(())
}

fn by_child() -> Outcome {
    play(
        |pod| mortal(pod, &["run", "child", "15"]),
        |config, _, app| {
            let buried = hear_numbers(app, "buried")?;
            expect_eq("what the parent was told", &buried[1], &15)?;
            let death = process_death(config, app, buried[0])?;
            death.expect_sound()?;
            death.expect_killed(15)?;
            death.expect_decided("kill", "child", Some("child"))?;
            death.expect_verdict("killed-by-child", 95..=99, &["signal 15"])
        },
    )
}

fn by_runtime() -> Outcome {
    play(
        |pod| mortal(pod, &["pause"]),
        |config, _, app| {
            app.hear("ready 1")?;
            app.kill("KILL")?;
            let death = end(config, app, 128 + 9)?;
            death.expect_killed(9)?;
            death.expect_decided("kill", "runtime", Some("runc"))?;
            death.expect_verdict("killed-by-runtime", 90..=97, &["signal 9"])
        },
    )
}

fn by_sibling() -> Outcome {
    play(
        |pod| mortal(pod, &["sibling", "15"]),
        |config, _, app| {
            let killer = hear_numbers(app, "buried")?;
            expect_eq("how the killer ended", &killer[1], &0)?;
            let victim = hear_nth(app, "buried", 1)?;
            expect_eq("how the victim ended", &victim[1], &15)?;
            let death = process_death(config, app, victim[0])?;
            death.expect_sound()?;
            death.expect_killed(15)?;
            death.expect_decided("kill", "same-container", Some("killer"))?;
            death.expect_verdict("killed-by-same-container", 95..=99, &["signal 15"])?;
            death.expect_told("killer")?;
            let parents = &death.deciding()?["sender"]["ancestry"];
            expect_eq("parent of the sender", &parents[0]["pid"], &json!(app.pid()))
        },
    )
}

fn by_session() -> Outcome {
    play(
        |pod| mortal(pod, &["run", "pause"]),
        |config, _, app| {
            let victim = hear_numbers(app, "ready")?[0];
            let line = format!("/mortal send kill {victim} 9; true");
            app.exec_shell(&line)?;
            let buried = hear_numbers(app, "buried")?;
            expect_eq("what the parent was told", &buried[1], &9)?;
            let death = process_death(config, app, victim)?;
            death.expect_sound()?;
            death.expect_killed(9)?;
            death.expect_decided("kill", "exec-session", Some("mortal"))?;
            death.expect_verdict("killed-by-exec", 90..=97, &["signal 9"])?;
            let parents = &death.deciding()?["sender"]["ancestry"];
            expect_eq("the session's shell", &parents[0]["comm"], &json!("sh"))
        },
    )
}

fn by_other_container() -> Outcome {
    play(
        |pod| mortal(pod, &["run", "pause"]),
        |config, pod, app| {
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
            death.expect_verdict("killed-by-other-container", 95..=99, &["signal 15"])?;
            let sender = &death.deciding()?["sender"];
            expect_eq("container of the sender", &sender["container"], &json!(killer.id))
        },
    )
}

fn by_host() -> Outcome {
    play(
        |pod| mortal(pod, &["pause"]),
        |config, _, app| {
            app.hear("ready 1")?;
            let pid = Pid::from_raw(app.pid() as i32).expect("a process has a number");
            kill_process(pid, Signal::KILL)?;
            let death = end(config, app, 128 + 9)?;
            death.expect_killed(9)?;
            death.expect_decided("kill", "host-process", Some(&own_name()?))?;
            death.expect_verdict("killed-by-host-process", 95..=99, &["signal 9"])?;
            let sender = &death.deciding()?["sender"];
            expect_eq("sender's pid", &sender["pid"], &json!(std::process::id()))?;
            expect_eq("container of the sender", &sender["container"], &json!(null))
        },
    )
}

fn by_parents_end() -> Outcome {
    play(
        |pod| mortal(pod, &["parent-death", "15"]),
        |config, _, app| {
            app.hear("ready 1")?;
            let victim = hear_numbers(app, "victim")?[0];
            app.tell("go")?;
            let ended = hear_nth(app, "buried", 1)?;
            expect_eq("who was ended, and how", &ended, &vec![victim, 15])?;
            let death = process_death(config, app, victim)?;
            death.expect_sound()?;
            death.expect_killed(15)?;
            death.expect_decided("parent-death", "parent", Some("middle"))?;
            death.expect_verdict("parent-death-signal", 95..=99, &["signal 15"])?;
            expect_eq("origin", &death.deciding()?["origin"], &json!("kernel"))
        },
    )
}

fn by_cgroup_kill() -> Outcome {
    play(
        |pod| mortal(pod, &["pause"]),
        |config, _, app| {
            app.hear("ready 1")?;
            fs::write(app.cgroup_folder().join("cgroup.kill"), "1")?;
            let death = end(config, app, 128 + 9)?;
            death.expect_killed(9)?;
            death.expect_decided("cgroup-kill", "cgroup-kill", Some(&own_name()?))?;
            expect_eq("origin", &death.deciding()?["origin"], &json!("kernel"))?;
            death.expect_verdict("cgroup-kill", 95..=99, &["cgroup-kill", "signal 9"])?;
            death.expect_told(&format!("{} (pid {})", own_name()?, std::process::id()))?;
            let writer = &death.fact("cgroup-kill")?["writer"];
            expect_eq("who wrote", &writer["pid"], &json!(std::process::id()))
        },
    )
}

fn by_init() -> Outcome {
    play(
        |pod| mortal(pod, &["run", "pause"]),
        |config, _, app| {
            let victim = hear_numbers(app, "ready")?[0];
            app.kill("KILL")?;
            let init = end(config, app, 128 + 9)?;
            init.expect_killed(9)?;
            init.expect_verdict("killed-by-runtime", 90..=97, &["signal 9"])?;
            let death = process_death(config, app, victim)?;
            death.expect_sound()?;
            death.expect_killed(9)?;
            death.expect_decided("namespace-teardown", "namespace-teardown", None)?;
            death.expect_verdict("init-died", 95..=99, &["init-died", "signal 9"])?;
            let init = death.fact("init-died")?;
            expect_eq("the init", &init["init"]["pid"], &json!(app.pid()))?;
            expect_eq("how it ended", &init["status"]["signal"], &json!(9))
        },
    )
}

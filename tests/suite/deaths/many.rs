//! Many deaths, quick ones, and what stays on record of them.

use serde_json::json;
use whodunit_containers::{DaemonConfig, Pod};

use super::claim::Claim;
use super::{await_death, container_death, hear_numbers, history, mortal, process_death};
use crate::Outcome;
use crate::report::{expect, expect_eq};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        Claim::new(
            "deaths::five_hundred_at_once_are_all_on_record",
            &["killed-by-parent"],
            five_hundred,
        ),
        Claim::new(
            "deaths::a_flood_of_files_costs_no_death",
            &["killed-by-parent"],
            beside_a_flood,
        ),
        Claim::new(
            "deaths::a_container_of_a_moment_is_on_record",
            &["application-error"],
            a_moment,
        ),
        Claim::new(
            "deaths::a_process_from_before_the_daemon_is_said_to_be",
            &["killed-by-exec", "killed-by-runtime"],
            from_before,
        ),
        Claim::new("deaths::a_reused_number_inherits_no_signal", &["application-error"], reused),
        Claim::new(
            "deaths::the_history_outlives_a_killed_daemon",
            &["application-error"],
            outlives,
        ),
    ]
}

/// Waits until so many deaths by SIGKILL of the children of a container's first process are on record, each right.
fn expect_killed_children(config: &DaemonConfig, id: &str, init: u32, count: usize) -> Outcome {
    let of_it = |death: &&super::Death| death.is_in(id) && death["subject"] == "process";
    await_death(config, &format!("{count} deaths"), |_| {
        history(config).iter().filter(of_it).count() >= count
    })?;
    let all = history(config);
    let deaths: Vec<&super::Death> = all.iter().filter(of_it).collect();
    expect_eq("deaths on record", &deaths.len(), &count)?;
    let mut seen = std::collections::HashSet::new();
    for death in deaths {
        death.expect_sound()?;
        death.expect_killed(9)?;
        death.expect_decided("kill", "parent", Some("mortal"))?;
        death.expect_verdict("killed-by-parent", 95..=99, &["signal 9"])?;
        expect_eq("sender", &death.deciding()?["sender"]["pid"], &json!(init))?;
        seen.insert(death["process"]["pid"].as_u64());
    }
    expect_eq("processes, each once", &seen.len(), &count)
}

fn five_hundred() -> Outcome {
    const COUNT: usize = 250;
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    // Two containers at once: the history has a share for each.
    let start = || mortal(&pod, &["storm", &COUNT.to_string()]).start();
    let mut apps = [start()?, start()?];
    for app in &mut apps {
        app.hear("ready 1")?;
        app.tell("go")?;
    }
    for app in &apps {
        let killed = hear_numbers(app, "killed")?;
        expect_eq("killed, as their parent was told", &killed[0], &(COUNT as u64))?;
        expect_killed_children(&config, app.id(), app.pid(), COUNT)?;
    }
    Ok(())
}

fn beside_a_flood() -> Outcome {
    const COUNT: usize = 250;
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let mut flood = mortal(&pod, &["files", "/tmp", "200000"]).start()?;
    let start = || mortal(&pod, &["storm", &COUNT.to_string()]).start();
    let mut apps = [start()?, start()?, start()?, start()?];
    flood.hear("ready 1")?;
    flood.tell("go")?;
    for app in &mut apps {
        app.hear("ready 1")?;
        app.tell("go")?;
    }
    for app in &apps {
        let killed = hear_numbers(app, "killed")?;
        expect_eq("killed, as their parent was told", &killed[0], &(COUNT as u64))?;
    }
    for app in &apps {
        expect_killed_children(&config, app.id(), app.pid(), COUNT)?;
    }
    flood.hear("done 200000")?;
    Ok(())
}

fn a_moment() -> Outcome {
    let dead = super::die_each(&[&["exit", "3"]])?;
    let (death, told) = &dead[0];
    expect_eq("what the runtime was told", told, &3)?;
    death.expect_exited(3)?;
    death.expect_verdict("application-error", 95..=99, &[])?;
    let executed = death.fact("executed")?["before_ns"].as_u64().unwrap_or(u64::MAX);
    expect(format!("it lived for a moment, not for {executed} ns"), executed < 1_000_000_000)
}

fn from_before() -> Outcome {
    let pod = Pod::new("deaths")?;
    let mut app = mortal(&pod, &["run", "pause"]).start()?;
    let victim = hear_numbers(&app, "ready")?[0];
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    app.exec(&["/mortal", "send", "kill", &victim.to_string(), "9"])?;
    let death = process_death(&config, &app, victim)?;
    death.expect_sound()?;
    death.expect_killed(9)?;
    death.expect_decided("kill", "exec-session", Some("mortal"))?;
    expect("it says so", death.unseen().contains(&"started-before-daemon"))?;
    death.expect_verdict("killed-by-exec", 90..=97, &["signal 9"])?;
    expect_eq("exe, read from /proc", &death["process"]["exe"], &json!("/mortal"))?;
    app.kill("KILL")?;
    expect_eq("what the runtime was told", &app.wait()?.code(), &Some(128 + 9))?;
    let death = container_death(&config, app.id())?;
    death.expect_killed(9)?;
    death.expect_decided("kill", "runtime", Some("runc"))?;
    expect("it says so", death.unseen().contains(&"started-before-daemon"))?;
    // That nobody asked it to stop before is a claim about what was not seen.
    death.expect_verdict("killed-by-runtime", 80..=89, &["signal 9"])
}

fn reused() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let app = mortal(&pod, &["reuse", "15"]).capabilities(&["CAP_SYS_ADMIN"]).start()?;
    let pid = hear_numbers(&app, "reused")?[0];
    let death = await_death(&config, "the second process of that number", |death| {
        death.is_in(app.id())
            && death["process"]["namespace_pid"] == pid
            && death["status"]["code"] == 5
    })?;
    death.expect_sound()?;
    death.expect_exited(5)?;
    death.expect_verdict("application-error", 95..=99, &[])?;
    expect_eq("signals", &death.facts("signal").len(), &0)
}

fn outlives() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let daemon = config.start()?;
    let first = mortal(&pod, &["exit", "1"]).run()?;
    let before = container_death(&config, &first.id)?;
    daemon.kill9()?;
    let _daemon = config.start()?;
    let second = mortal(&pod, &["exit", "2"]).run()?;
    container_death(&config, &second.id)?.expect_exited(2)?;
    let after = container_death(&config, &first.id)?;
    after.expect_verdict("application-error", 95..=99, &[])?;
    expect_eq("the record of before", &after.record, &before.record)?;
    expect_eq("its explanation", &after.explanation, &before.explanation)
}

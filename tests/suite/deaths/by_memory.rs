//! Processes that the kernel kills for want of memory. The witness is the memory controller's own count of kills.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};
use serde_json::json;
use whodunit_containers::{Container, DaemonConfig, Hierarchies, Pod};

use super::{about_deaths, container_death, hear_numbers, mortal, process_death};
use crate::Outcome;
use crate::report::{expect, expect_eq};

const LIMIT: u64 = 32 << 20;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        about_deaths("deaths::memory_at_the_container_s_own_limit_is_told", own_limit),
        about_deaths("deaths::memory_at_the_pod_s_limit_is_told", pod_limit),
        about_deaths("deaths::a_victim_that_did_not_ask_for_the_memory_is_told", bystander),
        about_deaths("deaths::two_containers_at_once_keep_their_own_deaths", two_at_once),
    ]
}

/// The folder of a cgroup in the hierarchy that has the memory controller.
fn memory_folder(cgroup_path: &str) -> Result<PathBuf, Failed> {
    let hierarchies = Hierarchies::find()?;
    let has_it = |root: &&PathBuf| root.join("memory.usage_in_bytes").exists();
    let root = hierarchies.legacy.iter().find(has_it).unwrap_or(&hierarchies.unified);
    Ok(root.join(cgroup_path.trim_start_matches('/')))
}

/// How many processes of a cgroup the kernel killed for want of memory, as the kernel counts.
fn kills(folder: &Path) -> Result<u64, Failed> {
    let v2 = fs::read_to_string(folder.join("memory.events"));
    let text = v2.or_else(|_| fs::read_to_string(folder.join("memory.oom_control")))?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
    count.ok_or_else(|| format!("no count of kills in {text:?}").into())
}

fn own_limit() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let mut app = mortal(&pod, &["eat"]).memory_bytes(LIMIT).start()?;
    app.hear("ready 1")?;
    app.tell("go")?;
    expect_eq("what the runtime was told", &app.wait()?.code(), &Some(128 + 9))?;
    let folder = memory_folder(&app.cgroup_path())?;
    expect_eq("kills, as the kernel counts", &kills(&folder)?, &1)?;
    expect_own(&config, &app)
}

fn expect_own(config: &DaemonConfig, app: &Container) -> Outcome {
    let death = container_death(config, app.id())?;
    death.expect_sound()?;
    death.expect_seen_from_birth()?;
    death.expect_killed(9)?;
    death.expect_decided("oom", "kernel", None)?;
    let kill = death.fact("oom-kill")?;
    for (field, expected) in [
        ("is_self", json!(true)),
        ("scope", json!("own")),
        ("limit_bytes", json!(LIMIT)),
        ("cgroup_path", json!(app.cgroup_path())),
        ("group_kill", json!(false)),
    ] {
        expect_eq(field, &kill[field], &expected)?;
    }
    expect_eq("kills of this container", &death.facts("oom-kill").len(), &1)?;
    expect_eq("victim", &kill["victim"]["pid"], &json!(app.pid()))?;
    expect_eq("trigger", &kill["trigger"]["pid"], &json!(app.pid()))?;
    let memory = death.fact("memory")?;
    expect_eq("limit, as the cgroup says", &memory["limit"]["at"], &json!(LIMIT))?;
    expect_eq("kills, as the cgroup says", &memory["events_oom_kill"], &json!(1))
}

fn pod_limit() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let folder = memory_folder(&pod.cgroup_path())?;
    let file = ["memory.limit_in_bytes", "memory.max"].map(|name| folder.join(name));
    let Some(file) = file.iter().find(|file| file.exists()) else {
        // A hierarchy whose upper cgroups do not hand the controller on.
        return Ok(());
    };
    fs::write(file, LIMIT.to_string())?;
    let mut app = mortal(&pod, &["eat"]).start()?;
    app.hear("ready 1")?;
    app.tell("go")?;
    expect_eq("what the runtime was told", &app.wait()?.code(), &Some(128 + 9))?;
    let death = container_death(&config, app.id())?;
    death.expect_sound()?;
    death.expect_killed(9)?;
    death.expect_decided("oom", "kernel", None)?;
    let kill = death.fact("oom-kill")?;
    expect_eq("scope", &kill["scope"], &json!("ancestor"))?;
    expect_eq("limit", &kill["limit_bytes"], &json!(LIMIT))?;
    expect_eq("cgroup", &kill["cgroup_path"], &json!(pod.cgroup_path()))
}

fn bystander() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let mut app = mortal(&pod, &["starve", "8"]).memory_bytes(LIMIT).start()?;
    let victim = hear_numbers(&app, "victim")?[0];
    app.tell("go")?;
    app.hear("survived 1")?;
    let death = process_death(&config, &app, victim)?;
    death.expect_sound()?;
    death.expect_killed(9)?;
    death.expect_decided("oom", "kernel", None)?;
    let kill = death.fact("oom-kill")?;
    expect_eq("is_self", &kill["is_self"], &json!(true))?;
    expect_eq("victim", &kill["victim"]["comm"], &json!("victim"))?;
    expect_eq("trigger", &kill["trigger"]["pid"], &json!(app.pid()))?;
    // The first process lived on; its own record has the child that was taken from it.
    app.tell("go")?;
    expect_eq("what the runtime was told", &app.wait()?.code(), &Some(0))?;
    let death = container_death(&config, app.id())?;
    death.expect_exited(0)?;
    let child = death.fact("child-exited")?;
    expect_eq("child", &child["child"]["comm"], &json!("victim"))?;
    expect_eq("oom_killed", &child["oom_killed"], &json!(true))?;
    expect_eq("is_self", &death.fact("oom-kill")?["is_self"], &json!(false))
}

fn two_at_once() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let start = || mortal(&pod, &["eat"]).memory_bytes(LIMIT).start();
    let mut apps = [start()?, start()?];
    for app in &apps {
        app.hear("ready 1")?;
    }
    for app in &mut apps {
        app.tell("go")?;
    }
    for app in &mut apps {
        expect_eq("what the runtime was told", &app.wait()?.code(), &Some(128 + 9))?;
    }
    let mut times = Vec::new();
    for app in &apps {
        expect_own(&config, app)?;
        times.extend(container_death(&config, app.id())?.0["time_ns"].as_u64());
    }
    let apart = times[0].abs_diff(times[1]);
    expect(format!("both in one second, not {apart} ns apart"), apart < 1_000_000_000)
}

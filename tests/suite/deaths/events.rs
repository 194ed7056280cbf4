//! Events of processes for plugins that ask for them.

use std::path::{Path, PathBuf};

use libtest_mimic::Failed;
use serde_json::{Value, json};
use whodunit_containers::condition::{PATIENCE, wait_for, wait_until};
use whodunit_containers::daemon::call_limit;
use whodunit_containers::{Container, DaemonConfig, Pod};

use super::claim::Claim;
use super::{by_memory, hear_numbers, mortal, process_death, stops};
use crate::Outcome;
use crate::report::{expect, expect_eq};

const LIMIT: u64 = 32 << 20;

pub(super) fn claims() -> Vec<Claim> {
    vec![
        Claim::new("deaths::events_reach_the_plugin_that_asks_for_them", &[], live)
            .needing(|| by_memory::lacks_memory_limits().or_else(stops::lacks_cpu_limits)),
        Claim::new("deaths::a_second_program_tells_nothing_twice", &[], told_once),
    ]
}

/// The table of an event log with that name, and where it writes.
fn event_log(config: &DaemonConfig, name: &str, events: &str) -> (String, PathBuf) {
    let path = config.folder().join(format!("{name}.jsonl"));
    let table = format!(
        "[[plugin]]\nname = {name:?}\nsource = \"builtin:event-log\"\n{events}\n\
         limits = {{ call = {:?} }}\n[plugin.outputs]\nlog = {{ file = {:?} }}\n",
        call_limit(),
        path.display().to_string()
    );
    (table, path)
}

/// The events of a container, in their order.
fn events_of(log: &Path, container: &Container) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().skip(1).filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|event| event["container"] == container.id()).collect()
}

/// Waits for the events of a container, until those are among them that fit, each behind the one before. Gives these.
fn await_events(
    log: &Path,
    container: &Container,
    expected: &[(&str, Value)],
) -> Result<Vec<Value>, Failed> {
    // What is expected of an event is a part of it.
    let fits = |event: &Value, kind: &str, part: &Value| {
        let fields = part.as_object().into_iter().flatten();
        event["kind"] == kind && fields.into_iter().all(|(key, value)| event[key] == *value)
    };
    let find = || {
        let mut rest = events_of(log, container).into_iter();
        let found = expected.iter().map_while(|(kind, part)| rest.find(|it| fits(it, kind, part)));
        let found: Vec<Value> = found.collect();
        (found.len() == expected.len()).then_some(found)
    };
    wait_for(PATIENCE, find).ok_or_else(|| {
        let all = Value::from(events_of(log, container));
        format!("there are not these, one after the other: {expected:#?}, among {all:#}").into()
    })
}

/// With a second program behind each, as kernels have it that keep something from the first (Linux 6.19).
fn told_once() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let (table, log) = event_log(&config, "log", "events = [\"processes\"]");
    let config = config.more_toml(&format!("[capture]\nbackup = \"always\"\n{table}"));
    let daemon = config.start()?;
    let mut parent = mortal(&pod, &["parent", "queue", "15"]).start()?;
    let buried = hear_numbers(&parent, "buried")?;
    let child = process_death(&config, &parent, buried[0])?["process"]["pid"].clone();
    parent.kill("KILL")?;
    parent.wait()?;
    await_events(&log, &parent, &[("process-exited", json!({"pid": parent.pid()}))])?;
    drop(daemon);
    let events = events_of(&log, &parent);
    let count = |pid: &Value, kind: &str| {
        events.iter().filter(|it| it["pid"] == *pid && it["kind"] == kind).count()
    };
    for kind in ["process-forked", "signal-generated", "signal-delivered", "process-exited"] {
        expect_eq(&format!("{kind} of {child} in {events:#?}"), &count(&child, kind), &1)?;
    }
    let itself = json!(parent.pid());
    let programs = events.iter().filter(|it| it["pid"] == itself && it["path"] == "/mortal");
    expect_eq(&format!("its programs in {events:#?}"), &programs.count(), &1)
}

fn live() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let (asks, asked) = event_log(&config, "asks", "events = [\"processes\"]");
    let (asks_not, unasked) = event_log(&config, "asks-not", "");
    let config = config.more_toml(&format!("{asks}{asks_not}"));
    let daemon = config.start()?;

    let starved = mortal(&pod, &["toil", "15"]).cpu_percent(10).start()?;
    let mut eater = mortal(&pod, &["eat"]).memory_bytes(LIMIT).start()?;
    let parent = mortal(&pod, &["parent", "queue", "15"]).start()?;
    let buried = hear_numbers(&parent, "buried")?;
    expect_eq("what the parent was told", &buried[1], &15)?;
    eater.hear("ready 1")?;
    eater.tell("go")?;
    expect_eq("what the runtime was told", &eater.wait()?.code(), &Some(128 + 9))?;

    let child = process_death(&config, &parent, buried[0])?["process"]["pid"].clone();
    let itself = json!(parent.pid());
    let by = json!({"pid": itself, "process": "mortal", "container": parent.id()});
    let found = await_events(
        &asked,
        &parent,
        &[
            ("process-executed", json!({"pid": itself, "path": "/mortal"})),
            ("process-forked", json!({"pid": child, "by": by})),
            (
                "signal-generated",
                json!({
                    "pid": child, "by": by, "signal": 15, "si_code": -1,
                    "result": "delivered", "disposition": "default",
                }),
            ),
            // The kernel delivers what ends a process as SIGKILL.
            ("signal-delivered", json!({"pid": child, "signal": 9})),
            ("process-exited", json!({"pid": child, "signal": 15})),
        ],
    )?;
    let times: Vec<u64> =
        found.iter().filter_map(|event| event["time"].as_str()?.parse().ok()).collect();
    expect(format!("times of them: {times:?}"), times.len() == 5 && times.is_sorted())?;

    let itself = json!(eater.pid());
    let by = json!({"pid": itself, "process": "mortal", "container": eater.id()});
    let kill = json!({
        "pid": itself, "by": by, "path": eater.cgroup_path(), "limit_bytes": LIMIT,
    });
    await_events(&asked, &eater, &[("oom-kill", kill), ("process-exited", json!({"signal": 9}))])?;

    // The first window may begin before the container's program.
    let number = |event: &Value, key: &str| event[key].as_u64().unwrap_or_default();
    let throttled = || -> Vec<Value> {
        let events = events_of(&asked, &starved).into_iter();
        events.filter(|event| event["kind"] == "cpu-throttled").collect()
    };
    let is_most = |it: &Value| number(it, "throttled_ns") * 2 > number(it, "window_ns");
    expect(
        format!("a window throttled for most of it: {:#}", Value::from(throttled())),
        wait_until(PATIENCE, || throttled().iter().any(is_most)),
    )?;
    let is_within =
        |it: &Value| number(it, "throttled_ns") <= number(it, "window_ns") + 200_000_000;
    expect(
        format!("no longer throttled than the time is: {:#}", Value::from(throttled())),
        throttled().iter().all(is_within),
    )?;

    daemon.stop()?;
    let kinds = |log: &Path| -> Vec<String> {
        let events = events_of(log, &parent);
        events.iter().filter_map(|event| event["kind"].as_str().map(str::to_owned)).collect()
    };
    let is_of_process = |kind: &String| kind.starts_with("process-") || kind.starts_with("signal-");
    let (asked, unasked) = (kinds(&asked), kinds(&unasked));
    expect(format!("nothing else than asked for: {asked:?}"), asked.iter().all(is_of_process))?;
    expect(
        format!("nothing of processes where nobody asked: {unasked:?}"),
        unasked.contains(&"container-started".to_owned()) && !unasked.iter().any(is_of_process),
    )
}

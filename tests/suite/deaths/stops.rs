//! Containers that are asked to stop, and do or do not.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use whodunit_containers::condition::{PATIENCE, wait_until};
use whodunit_containers::{Container, Hierarchies, daemon};

use super::claim::Claim;
use super::{end, hear_nth, hear_numbers, mortal, own_name, play, process_death};
use crate::Outcome;
use crate::report::{expect, expect_eq};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        Claim::new("deaths::a_stop_that_is_obeyed_is_no_kill", &["stopped-in-time"], obeyed),
        Claim::new(
            "deaths::a_stop_that_ends_with_an_error_is_no_kill",
            &["stopped-with-error"],
            with_error,
        ),
        Claim::new(
            "deaths::a_stop_by_anybody_else_is_a_request",
            &["stopped-on-request"],
            on_request,
        ),
        Claim::new(
            "deaths::a_signal_of_long_ago_does_not_decide_an_exit",
            &["application-error"],
            long_ago,
        ),
        Claim::new(
            "deaths::an_init_without_a_handler_ignores_a_stop",
            &["grace-exceeded-no-handler"],
            unkillable,
        ),
        Claim::new(
            "deaths::a_stop_that_is_ignored_is_seen_before_the_kill",
            &["grace-exceeded-ignored"],
            ignored,
        ),
        Claim::new(
            "deaths::a_stop_that_is_held_back_is_seen_before_the_kill",
            &["grace-exceeded-blocked"],
            held_back,
        ),
        Claim::new(
            "deaths::a_stop_that_is_caught_is_seen_before_the_kill",
            &["grace-exceeded-slow"],
            too_slow,
        ),
        Claim::new(
            "deaths::a_container_without_cpu_cannot_stop",
            &["grace-exceeded-starved"],
            starved,
        )
        .needing(lacks_cpu_limits),
        Claim::new(
            "deaths::a_process_that_hangs_is_not_explained_away",
            &["grace-exceeded"],
            hangs,
        ),
        Claim::new(
            "verdicts::why_tells_of_a_container_that_does_not_hear_sigterm",
            &["grace-exceeded-no-handler"],
            told,
        ),
    ]
}

pub(super) fn lacks_cpu_limits() -> Option<&'static str> {
    let is_there = Hierarchies::find().is_ok_and(|found| {
        let v2 = fs::read_to_string(found.unified.join("cgroup.controllers")).unwrap_or_default();
        v2.split_whitespace().any(|controller| controller == "cpu")
            || found.legacy.iter().any(|root| root.join("cpu.cfs_quota_us").exists())
    });
    (!is_there).then_some("no cgroup hierarchy of this machine limits CPU")
}

fn obeyed() -> Outcome {
    play(
        |pod| mortal(pod, &["obey", "15"]),
        |config, _, app| {
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
            expect_eq("sender", &signal["sender"]["comm"], &json!("runc"))?;
            death.expect_verdict("stopped-in-time", 95..=99, &["signal 15"])
        },
    )
}

fn with_error() -> Outcome {
    play(
        |pod| mortal(pod, &["outlive", "15", "5"]),
        |config, _, app| {
            app.hear("ready 1")?;
            app.kill("TERM")?;
            app.tell("go")?;
            let death = end(config, app, 5)?;
            death.expect_exited(5)?;
            expect_eq("signals", &death.facts("signal").len(), &1)?;
            death.expect_verdict("stopped-with-error", 85..=95, &["signal 15"])
        },
    )
}

fn on_request() -> Outcome {
    play(
        |pod| mortal(pod, &["obey", "15"]),
        |config, _, app| {
            app.hear("ready 1")?;
            app.exec(&["/mortal", "send", "kill", "1", "15"])?;
            let death = end(config, app, 0)?;
            death.expect_exited(0)?;
            expect_eq("relation", &death.fact("signal")?["relation"], &json!("exec-session"))?;
            death.expect_verdict("stopped-on-request", 85..=95, &["signal 15"])
        },
    )
}

fn long_ago() -> Outcome {
    play(
        |pod| mortal(pod, &["outlive", "15", "5"]),
        |config, _, app| {
            app.hear("ready 1")?;
            app.exec(&["/mortal", "send", "kill", "1", "15"])?;
            // Longer than anything that follows from the signal takes: this is about time that passes, so it must.
            sleep(Duration::from_millis(2_500));
            app.tell("go")?;
            let death = end(config, app, 5)?;
            death.expect_exited(5)?;
            expect_eq("signals", &death.facts("signal").len(), &1)?;
            death.expect_verdict("application-error", 80..=90, &[])?;
            death.expect_told("SIGTERM had come from mortal")
        },
    )
}

/// The container's record after the runtime asked it to stop and then killed it, as a runtime does that waited in vain.
fn stopped_in_vain(
    how: &[&str],
    disposition: &str,
    result: &str,
    verdict: &str,
    sure: std::ops::RangeInclusive<u64>,
) -> Outcome {
    play(
        |pod| mortal(pod, how),
        |config, _, app| {
            app.hear("ready 1")?;
            app.kill("TERM")?;
            app.kill("KILL")?;
            let death = end(config, app, 128 + 9)?;
            death.expect_killed(9)?;
            death.expect_decided("kill", "runtime", Some("runc"))?;
            let stop = death.facts("signal")[0];
            expect_eq("number", &stop["number"], &json!(15))?;
            expect_eq("result", &stop["result"], &json!(result))?;
            expect_eq("disposition", &stop["disposition"], &json!(disposition))?;
            let words = death.facts("memory").len();
            expect(
                format!("its words at the stop and at its end: {:#}", death.record),
                words >= 1,
            )?;
            death.expect_verdict(verdict, sure, &["signal 15", "signal 9"])
        },
    )
}

fn unkillable() -> Outcome {
    let verdict = "grace-exceeded-no-handler";
    stopped_in_vain(&["pause"], "unkillable-init", "ignored", verdict, 95..=99)
}

fn ignored() -> Outcome {
    let verdict = "grace-exceeded-ignored";
    stopped_in_vain(&["ignore", "15"], "ignored", "ignored", verdict, 95..=99)
}

fn held_back() -> Outcome {
    let verdict = "grace-exceeded-blocked";
    stopped_in_vain(&["block", "15"], "blocked", "delivered", verdict, 85..=95)
}

fn too_slow() -> Outcome {
    let verdict = "grace-exceeded-slow";
    stopped_in_vain(&["handle", "15"], "handler", "delivered", verdict, 85..=95)
}

fn starved() -> Outcome {
    play(
        |pod| mortal(pod, &["toil", "15"]).cpu_percent(10),
        |config, _, app| {
            app.hear("ready 1")?;
            app.kill("TERM")?;
            // The time that it would have had: ten periods of its CPU limit, of each of which it gets a tenth.
            sleep(Duration::from_secs(1));
            app.kill("KILL")?;
            let death = end(config, app, 128 + 9)?;
            death.expect_killed(9)?;
            death.expect_decided("kill", "runtime", Some("runc"))?;
            let throttled = death.fact("throttled")?;
            let number = |field: &str| throttled[field].as_u64().unwrap_or_default();
            expect(
                format!("throttled for most of the time: {throttled:#}"),
                number("throttled_ns") * 2 > number("window_ns")
                    && number("window_ns") > 900_000_000,
            )?;
            let verdict = "grace-exceeded-starved";
            death.expect_verdict(verdict, 85..=95, &["signal 15", "throttled", "signal 9"])
        },
    )
}

/// The only other process of a container, as this machine numbers it, once it is in that state.
pub(super) fn child_in_state(container: &Container, state: char) -> Result<Pid, Failed> {
    let processes = fs::read_to_string(container.cgroup_folder().join("cgroup.procs"))?;
    let mut numbers = processes.lines().filter_map(|line| line.parse().ok());
    let child = numbers.find(|pid: &i32| *pid != container.pid() as i32);
    let child = child.ok_or_else(|| format!("no child in {processes:?}"))?;
    let is_in_state = || {
        fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| {
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(state))
        })
    };
    expect(
        format!("the process {child} comes to the state {state}"),
        wait_until(PATIENCE, is_in_state),
    )?;
    Pid::from_raw(child).ok_or_else(|| "a process has a number".into())
}

fn hangs() -> Outcome {
    play(
        |pod| mortal(pod, &["run", "stop"]),
        |config, _, app| {
            let victim = hear_numbers(app, "ready")?[0];
            let pid = child_in_state(app, 'T')?;
            kill_process(pid, Signal::TERM)?;
            kill_process(pid, Signal::KILL)?;
            expect_eq("who was ended, and how", &hear_nth(app, "buried", 0)?, &vec![victim, 9])?;
            let death = process_death(config, app, victim)?;
            death.expect_sound()?;
            death.expect_killed(9)?;
            death.expect_decided("kill", "host-process", Some(&own_name()?))?;
            expect_eq("disposition", &death.facts("signal")[0]["disposition"], &json!("default"))?;
            death.expect_verdict("grace-exceeded", 80..=90, &["signal 15", "signal 9"])
        },
    )
}

fn told() -> Outcome {
    play(
        |pod| mortal(pod, &["pause"]),
        |config, _, app| {
            app.hear("ready 1")?;
            app.kill("TERM")?;
            app.kill("KILL")?;
            let verdict = "grace-exceeded-no-handler";
            let death = end(config, app, 128 + 9)?;
            death.expect_verdict(verdict, 95..=99, &["signal 15", "signal 9"])?;
            let mut why = Command::new(daemon::binary()?);
            let told = why.args(["why", app.id(), "--config"]).arg(config.toml_path()).output()?;
            let text = String::from_utf8_lossy(&told.stdout);
            expect(format!("`why` ends well: {told:?}"), told.status.success())?;
            for expected in
                [verdict, "SIGTERM from runc (pid ", "SIGKILL from runc (pid ", "what to do"]
            {
                expect(format!("`why` says {expected:?}: {text}"), text.contains(expected))?;
            }
            Ok(())
        },
    )
}

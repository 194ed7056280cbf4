//! What the shipped explainer makes of deaths of known cause, and how `whodunit why` tells it.

use std::process::Command;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use whodunit_containers::condition::{PATIENCE, wait_for};
use whodunit_containers::{Container, DaemonConfig, Pod, daemon};

use super::about_deaths;
use crate::Outcome;
use crate::report::{expect, expect_eq};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        about_deaths("verdicts::an_exit_is_the_program_s_own_doing", exits),
        about_deaths("verdicts::a_stop_in_time_is_not_a_kill", stop_in_time),
        about_deaths("verdicts::why_tells_of_a_container_that_does_not_hear_sigterm", deaf),
        about_deaths("verdicts::a_kill_without_a_stop_is_the_runtime_s", kill_at_once),
    ]
}

/// A shell that waits for ever, and that a signal reaches soon.
const WAITS: &str = "while :; do sleep 0.1; done";

/// Waits for the explanation of a container's death.
fn explanation(config: &DaemonConfig, id: &str) -> Result<Value, Failed> {
    let is_it = |line: &Value| {
        line["death"]["container"]["runtime_id"] == id && line["death"]["subject"] == "container"
    };
    let found = wait_for(PATIENCE, || {
        let text = std::fs::read_to_string(config.state_dir().join("deaths.jsonl")).ok()?;
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(is_it)
    });
    let line = found.ok_or_else(|| Failed::from(format!("no death of {id} is on record")))?;
    Ok(line["explanation"].clone())
}

/// The verdict, at least that sure, resting on so many pieces of evidence.
fn expect_verdict(explanation: &Value, verdict: &str, confidence: u64, rests_on: usize) -> Outcome {
    let told = format!("{explanation:#}");
    expect_eq("verdict", &explanation["verdict"], &Value::from(verdict))
        .map_err(|_| told.clone())?;
    expect(
        format!("confidence of at least {confidence}: {told}"),
        explanation["confidence"].as_u64().is_some_and(|it| it >= confidence),
    )?;
    let count = explanation["rests_on"].as_array().map(Vec::len);
    expect_eq("rests_on", &count, &Some(rests_on)).map_err(|_| told.into())
}

fn exits() -> Outcome {
    let pod = Pod::new("verdicts")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    for (script, verdict, confidence) in [
        ("exit 0", "clean-exit", 95),
        ("exit 3", "application-error", 90),
        // By the shell's convention only, so less sure.
        ("/no/such/program", "not-found", 60),
    ] {
        let app = pod.container("app").shell(script).run()?;
        expect_verdict(&explanation(&config, &app.id)?, verdict, confidence, 0)?;
    }
    Ok(())
}

fn stop_in_time() -> Outcome {
    let pod = Pod::new("verdicts")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let script = format!("trap 'exit 0' TERM; echo up; {WAITS}");
    let mut app = started(&pod, &script)?;
    app.kill("TERM")?;
    expect_eq("what the runtime was told", &app.wait()?.code(), &Some(0))?;
    expect_verdict(&explanation(&config, app.id())?, "stopped-in-time", 90, 1)
}

fn deaf() -> Outcome {
    let pod = Pod::new("verdicts")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let mut app = started(&pod, &format!("echo up; {WAITS}"))?;
    app.kill("TERM")?;
    app.kill("KILL")?;
    app.wait()?;
    let verdict = "grace-exceeded-no-handler";
    expect_verdict(&explanation(&config, app.id())?, verdict, 90, 2)?;
    let mut why = Command::new(daemon::binary()?);
    let told = why.args(["why", app.id(), "--config"]).arg(config.toml_path()).output()?;
    let text = String::from_utf8_lossy(&told.stdout);
    expect(format!("`why` ends well: {told:?}"), told.status.success())?;
    for expected in [verdict, "SIGTERM from runc (pid ", "SIGKILL from runc (pid ", "what to do"] {
        expect(format!("`why` says {expected:?}: {text}"), text.contains(expected))?;
    }
    Ok(())
}

fn kill_at_once() -> Outcome {
    let pod = Pod::new("verdicts")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let mut app = started(&pod, &format!("echo up; {WAITS}"))?;
    app.kill("KILL")?;
    app.wait()?;
    expect_verdict(&explanation(&config, app.id())?, "killed-by-runtime", 85, 1)
}

/// A container whose shell has said that it is up.
fn started(pod: &Pod, script: &str) -> Result<Container, Failed> {
    let app = pod.container("app").shell(script).start()?;
    app.hear("up")?;
    Ok(app)
}

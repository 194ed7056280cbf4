//! What the running daemon says of itself at its control socket.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use whodunit_containers::condition::{PATIENCE, wait_for};
use whodunit_containers::daemon::binary;
use whodunit_containers::{DaemonConfig, Pod};

use crate::discovery::{let_work, worker};
use crate::report::{expect, expect_eq};
use crate::{Outcome, about_capture, about_containers};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        about_capture("status::it_says_what_is_watched_and_counted_between_ticks", says_all),
        about_capture("status::only_root_may_use_the_control_socket", only_root),
        about_capture("status::a_request_that_is_none_is_refused_in_a_sentence", odd_requests),
        about_containers("status::without_a_daemon_it_says_so", without_a_daemon),
    ]
}

/// No tick but the first: what the status counts, it asked for.
const NO_TICKS: Duration = Duration::from_secs(3600);

/// Asks the daemon with that state folder, as a user does.
pub(crate) fn whodunit_status(state: &Path, format: &str) -> Result<Output, Failed> {
    let mut command = Command::new(binary()?);
    command.args(["status", "--output", format, "--state-dir"]).arg(state);
    Ok(command.output()?)
}

fn state_dir(config: &DaemonConfig) -> PathBuf {
    config.folder().join("state")
}

fn status_of(config: &DaemonConfig) -> Result<Value, Failed> {
    let output = whodunit_status(&state_dir(config), "json")?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn says_all() -> Outcome {
    let pod = Pod::new("status")?;
    let mut container = worker(
        pod.container("app").file("/etc/one", "", 0o644).file("/etc/two", "", 0o644),
        "cat /etc/one /etc/two /etc/one /proc/version",
    )
    .start()?;
    let config = DaemonConfig::for_pod(&pod)?.interval(NO_TICKS);
    let daemon = config.start()?;
    let_work(&mut container)?;
    // At rest everything is accounted for: the program, two files, a repeat, and one that is excluded, whatever else
    // is counted as a use of a file.
    let mut last = Value::Null;
    let found = wait_for(PATIENCE, || {
        last = status_of(&config).ok()?;
        let app = last["containers"].as_array()?.iter().find(|it| it["name"] == container.id())?;
        let counter = |name: &str| app["counters"][name].as_u64().unwrap_or(0);
        let seen = counter("received") + counter("setup");
        let accounted = counter("admitted") + counter("excluded") + counter("duplicate");
        let is_whole = seen == accounted && counter("admitted") >= 3;
        (is_whole && counter("excluded") >= 1 && counter("duplicate") >= 1).then(|| app.clone())
    });
    let app = found.ok_or_else(|| format!("the status never counts it: {last:#}"))?;
    expect_eq("runtime id", &app["runtime_id"], &Value::from(container.id()))?;
    expect("it has a last event", app["last_event"].is_string())?;
    let probes = last["probes"].as_array().ok_or("no probes")?;
    // One of the exact tier may be missing, and says why.
    let mut well = probes.iter().map(|it| match it["tier"].as_str() {
        Some("exact") => it["live"] != it["reason"].is_string(),
        _ => it["live"] == true,
    });
    expect(format!("probes are live: {probes:?}"), well.all(|well| well))?;
    expect_eq("state of the plugin", &last["plugins"][0]["state"], &Value::from("running"))?;
    expect_eq("name of the plugin", &last["plugins"][0]["name"], &Value::from("report"))?;
    expect_eq("pid", &last["daemon"]["pid"], &Value::from(daemon.pid()))?;
    let resident = last["daemon"]["resident_bytes"].as_u64().unwrap_or(0);
    expect(format!("{resident} bytes are resident"), resident > 1 << 20)?;

    let table = whodunit_status(&state_dir(&config), "table")?;
    let table = String::from_utf8(table.stdout)?;
    for words in [container.id(), "report", "running", "files", "live", "watches scope pod"] {
        expect(format!("{words:?} stands in {table}"), table.contains(words))?;
    }
    daemon.stop()?;
    let gone = !state_dir(&config).join("control.sock").exists();
    expect("the socket goes with the daemon", gone)
}

fn only_root() -> Outcome {
    let pod = Pod::new("status")?;
    let _container = pod.container("app").start()?;
    let config = DaemonConfig::for_pod(&pod)?.interval(NO_TICKS);
    let _daemon = config.start()?;
    let socket = state_dir(&config).join("control.sock");
    let mode = fs::metadata(&socket)?.permissions().mode();
    expect_eq("mode", &format!("{:o}", mode & 0o7777), &"600".to_owned())?;
    // Opened to everybody by mistake, it still asks the kernel who the peer is.
    fs::set_permissions(config.folder(), Permissions::from_mode(0o755))?;
    fs::set_permissions(state_dir(&config), Permissions::from_mode(0o755))?;
    // In a folder of its own: the build's may not be reachable for others.
    let program = config.folder().join("whodunit");
    fs::copy(binary()?, &program)?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    let ask = || {
        Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
            .arg(&program)
            .args(["status", "--state-dir"])
            .arg(state_dir(&config))
            .output()
    };
    let refused = ask()?;
    expect_eq("exit code by the mode of the file", &refused.status.code(), &Some(77))?;
    fs::set_permissions(&socket, Permissions::from_mode(0o666))?;
    let refused = ask()?;
    expect_eq("exit code by the peer's user", &refused.status.code(), &Some(1))?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    expect(format!("the reason is said in {said}"), said.contains("only root"))
}

fn odd_requests() -> Outcome {
    let pod = Pod::new("status")?;
    let _container = pod.container("app").start()?;
    let config = DaemonConfig::for_pod(&pod)?.interval(NO_TICKS);
    let _daemon = config.start()?;
    let mut stream = UnixStream::connect(state_dir(&config).join("control.sock"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut ask = |request: &str| -> Result<Value, Failed> {
        stream.write_all(request.as_bytes())?;
        let mut line = String::new();
        reader.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    };
    for request in
        ["nonsense\n", "{\"command\":\"explode\"}\n", "{\"command\":\"status\",\"x\":1}\n"]
    {
        let answer = ask(request)?;
        let said = answer["error"].as_str().unwrap_or_default();
        expect(format!("{request:?} is refused: {answer}"), said.contains("does not know"))?;
    }
    let answer = ask("{\"command\":\"status\"}\n")?;
    expect("the connection goes on", answer["ok"]["daemon"]["pid"].is_u64())?;
    let answer = ask(&format!("{}\n", "x".repeat(70_000)))?;
    let said = answer["error"].as_str().unwrap_or_default();
    expect(format!("a long line is refused: {answer}"), said.contains("longer than"))
}

fn without_a_daemon() -> Outcome {
    let folder = tempfile::tempdir()?;
    let output = whodunit_status(folder.path(), "table")?;
    expect_eq("exit code", &output.status.code(), &Some(1))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let folder = folder.path().display().to_string();
    expect(format!("{folder} is named in {said}"), said.contains(&folder))
}

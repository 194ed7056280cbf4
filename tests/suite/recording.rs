//! Recordings of real containers, and what plugins make of them without a kernel.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use whodunit_containers::daemon::binary;
use whodunit_containers::{Container, DaemonConfig, DaemonError, Pod};

use crate::discovery::{let_work, worker};
use crate::report::{Report, execs, expect, expect_eq, last_report, repository};
use crate::slim::record_redis;
use crate::{Outcome, about_capture, about_containers};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        about_capture("recording::a_replay_reports_what_the_daemon_reported", replay_equals_run),
        about_capture("recording::a_replay_is_the_same_every_time", replay_is_deterministic),
        about_capture("recording::a_death_is_explained_again_from_a_recording", deaths_again),
        about_capture("recording::a_killed_recorder_leaves_what_it_had_written", killed_recorder),
        about_capture("recording::a_recording_ends_after_its_time", ends_after_its_time),
        about_containers("recording::a_file_that_is_no_recording_is_refused", no_recording),
        about_containers("recording::a_capture_of_redis_gives_its_golden_report", golden),
        about_capture("recording::a_plugin_that_blocks_runs_in_a_replay_and_in_no_daemon", blocks),
        about_containers("recording::the_example_of_a_script_has_what_its_readers_need", example),
        about_containers("recording::a_plugin_that_is_inspected_says_who_it_is", inspect),
    ]
}

/// The program with these arguments, with a cache of its own.
pub(crate) fn whodunit<S: AsRef<std::ffi::OsStr>>(
    cache: &Path,
    arguments: &[S],
) -> Result<Output, Failed> {
    let mut command = Command::new(binary()?);
    command.args(arguments).stdin(Stdio::null()).env("XDG_CACHE_HOME", cache);
    Ok(command.output()?)
}

/// Standard output of a command that succeeds.
pub(crate) fn said<S: AsRef<std::ffi::OsStr>>(
    cache: &Path,
    arguments: &[S],
) -> Result<Vec<u8>, Failed> {
    let output = whodunit(cache, arguments)?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(format!("it succeeds, and said: {complaint}"), output.status.success())?;
    Ok(output.stdout)
}

/// What `plugin run` prints of the last report of the shipped reporter.
fn last_of_builtin(cache: &Path, recording: &Path) -> Result<Vec<u8>, Failed> {
    let recording = recording.as_os_str();
    let arguments: [&std::ffi::OsStr; 6] = [
        "plugin".as_ref(),
        "run".as_ref(),
        "builtin:report-json".as_ref(),
        "--events".as_ref(),
        recording,
        "--last".as_ref(),
    ];
    said(cache, &arguments)
}

/// A pod with a container that reads two files, one of them twice, and looks for a third.
fn pod_at_work() -> Result<(Pod, Container), Failed> {
    let pod = Pod::new("recording")?;
    let app = pod.container("app").file("/etc/app.conf", "", 0o644).file("/srv/data", "", 0o644);
    let work = "cat /etc/app.conf; cat /etc/app.conf /srv/data; cat /etc/missing";
    let app = worker(app, work).start()?;
    Ok((pod, app))
}

fn record(config: &DaemonConfig, app: &mut Container) -> Outcome {
    let daemon = config.start()?;
    let_work(app)?;
    let exit = daemon.stop()?;
    expect_eq(&format!("exit code, of {exit}"), &exit.code(), &Some(0))
}

/// Makes a recording of `pod_at_work` while a daemon watches too, and gives that daemon's report.
fn recorded_and_reported(recording: &Path) -> Result<(Container, Report), Failed> {
    let (pod, mut app) = pod_at_work()?;
    let watching = DaemonConfig::for_pod(&pod)?;
    let recorder = DaemonConfig::for_pod(&pod)?.recording_to(recording);
    let daemon = watching.start()?;
    record(&recorder, &mut app)?;
    let report = last_report(&watching, daemon)?;
    Ok((app, report))
}

/// A process that fails while it is recorded is explained by a plugin later, and by a whole replay.
fn deaths_again() -> Outcome {
    let folder = tempfile::tempdir()?;
    let recording = folder.path().join("death.recording");
    let pod = Pod::new("recorded-death")?;
    let mut app = worker(pod.container("app"), "sh -c 'exit 3'").start()?;
    let config = DaemonConfig::for_pod(&pod)?.recording_to(&recording);
    record(&config, &mut app)?;
    let arguments = [
        "plugin".as_ref(),
        "run".as_ref(),
        "builtin:death-explainer".as_ref(),
        "--events".as_ref(),
        recording.as_os_str(),
    ];
    let explanation: Value = serde_json::from_slice(&said(folder.path(), &arguments)?)?;
    expect_eq("verdict of `plugin run`", &explanation["verdict"], &"application-error".into())?;

    let toml = folder.path().join("replay.toml");
    let lines = folder.path().join("deaths.jsonl");
    std::fs::write(
        &toml,
        format!(
            "[daemon]\ncache_dir = {:?}\n[deaths]\nfile = {lines:?}\n\
             [[plugin]]\nname = \"why\"\nsource = \"builtin:death-explainer\"\n",
            folder.path().join("cache")
        ),
    )?;
    let arguments: [&std::ffi::OsStr; 4] =
        ["replay".as_ref(), recording.as_os_str(), "-c".as_ref(), toml.as_os_str()];
    said(folder.path(), &arguments)?;
    let death: Value = serde_json::from_str(&std::fs::read_to_string(&lines)?)?;
    expect_eq("code", &death["death"]["status"]["code"], &3.into())?;
    expect_eq("verdict", &death["explanation"]["verdict"], &"application-error".into())
}

fn replay_equals_run() -> Outcome {
    let folder = tempfile::tempdir()?;
    let recording = folder.path().join("app.recording");
    let (app, report) = recorded_and_reported(&recording)?;
    let entry = report.container(&app)?;
    entry.expect_files(&["/bin/busybox", "/etc/app.conf", "/srv/data"])?;
    entry.expect_list("missing", &["/etc/missing"])?;

    let replayed = last_of_builtin(folder.path(), &recording)?;
    let replayed = Report::check(serde_json::from_slice(&replayed)?)?;
    let entry = replayed.container(&app)?;
    entry.expect_files(&["/bin/busybox", "/etc/app.conf", "/srv/data"])?;
    entry.expect_list("missing", &["/etc/missing"])?;
    // Four opens, and three programs.
    entry.expect_events(4 + execs(3))?;
    entry.expect_nothing_lost()?;

    // The whole host half, with the outputs of a TOML.
    let toml = folder.path().join("replay.toml");
    let out = folder.path().join("report.json");
    let text = format!(
        "[daemon]\ncache_dir = {:?}\n[[plugin]]\nname = \"report\"\nsource = \"builtin:report-json\"\n\
         outputs = {{ report = {{ file = {out:?} }} }}\n",
        folder.path().join("cache")
    );
    std::fs::write(&toml, text)?;
    let arguments: [OsString; 4] =
        ["replay".into(), recording.into(), "--config".into(), toml.into()];
    said(folder.path(), &arguments)?;
    let written: Value = serde_json::from_slice(&std::fs::read(&out)?)?;
    expect_eq("reports", &written, &replayed.0)
}

/// The capture of a redis at work, as it was recorded once, and what the shipped reporter makes of it.
/// `WHODUNIT_BLESS=1` writes the report anew; where there is no recording, it makes one first.
fn golden() -> Outcome {
    let captures = repository().join("tests/captures");
    let (recording, golden) = (captures.join("redis.recording"), captures.join("redis.json"));
    let bless = std::env::var_os("WHODUNIT_BLESS").is_some_and(|value| value == "1");
    if bless && !recording.exists() {
        std::fs::create_dir_all(&captures)?;
        record_redis(&recording)?;
    }
    let cache = tempfile::tempdir()?;
    let report: Value = serde_json::from_slice(&last_of_builtin(cache.path(), &recording)?)?;
    if bless {
        std::fs::write(&golden, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    let expected: Value = serde_json::from_slice(&std::fs::read(&golden)?)?;
    expect_eq(&format!("the report; {} has", golden.display()), &report, &expected)?;
    // It is of what it says that it is of: no empty report equals another.
    let containers = report["containers"].as_array().into_iter().flatten();
    let lists = |it: &Value, path: &str| {
        it["files"].as_array().into_iter().flatten().any(|file| *file == *path)
    };
    let redis: Vec<&Value> = containers.filter(|it| lists(it, REDIS_SERVER)).collect();
    expect_eq("containers that ran redis", &redis.len(), &1)?;
    expect_eq("events lost", &redis[0]["lost_total"], &Value::from(0))
}

/// `overflow = "block"`: a replay hands over every event, through a filter too, and a daemon that would have to
/// wait does not start.
fn blocks() -> Outcome {
    let folder = tempfile::tempdir()?;
    let lines = folder.path().join("lines.jsonl");
    let plugins = format!(
        "[[plugin]]\nname = \"paths\"\nsource = \"builtin:path-filter\"\noverflow = \"block\"\n\
         [[plugin.config.rules]]\nprefix = \"/nowhere\"\naction = \"drop\"\n\
         [[plugin]]\nname = \"slow\"\nsource = \"builtin:jsonl\"\noverflow = \"block\"\n\
         outputs = {{ events = {{ lines = {lines:?} }} }}\n"
    );
    let toml = folder.path().join("replay.toml");
    let cache = folder.path().join("cache");
    std::fs::write(&toml, format!("[daemon]\ncache_dir = {cache:?}\n{plugins}"))?;
    let recording = repository().join("plugins/examples/example.recording");
    let arguments: [&std::ffi::OsStr; 4] =
        ["replay".as_ref(), recording.as_os_str(), "-c".as_ref(), toml.as_os_str()];
    said(folder.path(), &arguments)?;
    let handed_over = std::fs::read_to_string(&lines)?;
    expect_eq("events", &handed_over.lines().count(), &39)?;

    let pod = Pod::new("blocks")?;
    let config = DaemonConfig::for_pod(&pod)?.more_toml(&plugins);
    let Err(DaemonError::Ended { exit }) = config.start() else {
        return Err("a daemon that would wait for a plugin starts".into());
    };
    let complaint = exit.complaints().join(" ");
    expect(complaint.clone(), complaint.contains("is for `whodunit replay`"))
}

/// What filters and explainers of `plugin new` are tried on: a script that reads its bytecode and fails with the
/// code 78. `WHODUNIT_BLESS=1` records it where it is not there.
fn example() -> Outcome {
    let recording = repository().join("plugins/examples/script.recording");
    let bless = std::env::var_os("WHODUNIT_BLESS").is_some_and(|value| value == "1");
    if bless && !recording.exists() {
        let pod = Pod::new("example")?;
        let files = ["/srv/main.py", "/srv/__pycache__/main.pyc", "/etc/main.toml"];
        let app = files.iter().fold(pod.container("script"), |app, file| app.file(file, "", 0o644));
        let work = format!("sh -c 'cat {}; exit 78'", files.join(" "));
        let mut app = worker(app, &work).start()?;
        record(&DaemonConfig::for_pod(&pod)?.recording_to(&recording), &mut app)?;
    }
    let cache = tempfile::tempdir()?;
    let run = |plugin: &str| {
        let arguments = ["plugin".as_ref(), "run".as_ref(), plugin.as_ref(), "--events".as_ref()];
        said(cache.path(), &[&arguments[..], &[recording.as_os_str()]].concat())
    };
    let lines = String::from_utf8(run("builtin:jsonl")?)?;
    let read = lines.lines().filter(|line| line.contains("main.pyc\"")).count();
    expect_eq("events about bytecode", &read, &1)?;
    let explanation: Value = serde_json::from_slice(&run("builtin:death-explainer")?)?;
    expect_eq("verdict", &explanation["verdict"], &"application-error".into())
}

/// Where the server lies in Debian's package: `redis-server` is a link to it.
const REDIS_SERVER: &str = "/usr/bin/redis-check-rdb";

fn replay_is_deterministic() -> Outcome {
    let folder = tempfile::tempdir()?;
    let recording = folder.path().join("app.recording");
    recorded_and_reported(&recording)?;
    let first = last_of_builtin(folder.path(), &recording)?;
    for _ in 0..3 {
        let again = last_of_builtin(folder.path(), &recording)?;
        expect("each replay gives the same bytes", again == first)?;
    }
    Ok(())
}

fn killed_recorder() -> Outcome {
    let folder = tempfile::tempdir()?;
    let recording = folder.path().join("app.recording");
    let (pod, mut app) = pod_at_work()?;
    let recorder = DaemonConfig::for_pod(&pod)?.recording_to(&recording);
    let daemon = recorder.start()?;
    let_work(&mut app)?;
    // What is written is there a second later at most: wait until a replay shows it.
    let shown =
        whodunit_containers::condition::wait_for(whodunit_containers::condition::PATIENCE, || {
            let report = last_of_builtin(folder.path(), &recording).ok()?;
            let report = Report::check(serde_json::from_slice(&report).ok()?).ok()?;
            report.container(&app).ok()?.expect_files(&FILES).ok()
        });
    expect("the running recorder's file has the files of the container", shown.is_some())?;
    daemon.kill9()?;
    // Half a block at its end is what a crash of the machine leaves.
    let mut bytes = std::fs::read(&recording)?;
    bytes.extend([0x40, 0, 0, 0, 0x40, 0, 0, 0, 1, 2]);
    std::fs::write(&recording, bytes)?;
    let report = last_of_builtin(folder.path(), &recording)?;
    let report = Report::check(serde_json::from_slice(&report)?)?;
    report.container(&app)?.expect_files(&FILES)
}

const FILES: [&str; 3] = ["/bin/busybox", "/etc/app.conf", "/srv/data"];

fn ends_after_its_time() -> Outcome {
    let folder = tempfile::tempdir()?;
    let recording = folder.path().join("short.recording");
    let (pod, _app) = pod_at_work()?;
    let toml = DaemonConfig::for_cgroups(&[pod.cgroup_path()])?;
    std::fs::write(folder.path().join("record.toml"), toml.toml())?;
    let arguments: [OsString; 7] = [
        "record".into(),
        "-o".into(),
        recording.clone().into(),
        "--duration".into(),
        "300ms".into(),
        "-c".into(),
        folder.path().join("record.toml").into(),
    ];
    let output = whodunit(folder.path(), &arguments)?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    expect_eq(&format!("exit code; it said {complaint}"), &output.status.code(), &Some(0))?;
    expect(format!("it counts: {complaint}"), complaint.contains(" events of 1 containers"))
}

fn no_recording() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("no.recording");
    std::fs::write(&file, "{}")?;
    let arguments: [OsString; 5] = [
        "plugin".into(),
        "run".into(),
        "builtin:report-json".into(),
        "--events".into(),
        file.into(),
    ];
    let output = whodunit(folder.path(), &arguments)?;
    expect_eq("exit code", &output.status.code(), &Some(1))?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    expect(
        format!("one sentence with the way out: {complaint}"),
        complaint.contains("no.recording") && complaint.contains("`whodunit record -o FILE`"),
    )
}

fn inspect() -> Outcome {
    let folder = tempfile::tempdir()?;
    let arguments = ["plugin", "inspect", "builtin:report-json", "--output", "json"];
    let passport: Value = serde_json::from_slice(&said(folder.path(), &arguments)?)?;
    let contract = "whodunit:plugin@0.1.0";
    for (key, expected) in [
        ("name", Value::from("report-json")),
        ("version", Value::from("0.1.0")),
        ("role", Value::from("reporter")),
        ("contract", Value::from(contract)),
        ("spoken", Value::from(contract)),
        ("wants", Value::Array(Vec::new())),
        ("accepted", Value::from(true)),
        ("refusal", Value::Null),
    ] {
        expect_eq(key, &passport[key], &expected)?;
    }
    expect_eq("length of the hash", &passport["sha256"].as_str().map(str::len), &Some(64))?;
    let list = said(folder.path(), &["plugin", "list"])?;
    let list = String::from_utf8_lossy(&list).into_owned();
    expect(format!("it is listed in {list}"), list.contains("builtin:report-json"))
}

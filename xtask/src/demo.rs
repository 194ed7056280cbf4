//! `cargo xtask demo`: the daemon at work on a pod of real containers.
//!
//! Three containers run when the daemon starts, one of them in a cgroup that it made inside its own; a
//! fourth one starts later. Each uses files of its own. The report must name exactly those files, each
//! with its container; if it does not, the demo fails and says where. In the end a container dies: it is
//! asked to stop, does not hear that, and is killed; `whodunit why` must say so. Containers, cgroups and
//! temporary folders go away in every case, an interrupt included.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use whodunit_containers::condition::{PATIENCE, wait_until};
use whodunit_containers::{
    Container, ContainerError, DaemonConfig, DaemonError, Pod, find_program,
};

use crate::setup::{self, Purpose, SetupError};
use crate::workspace::{CargoError, Workspace};

/// Names the daemon to show, instead of one that is built.
const BINARY_VARIABLE: &str = "WHODUNIT_BIN";

/// The exit code of a program that an interrupt ended, as shells give it.
const INTERRUPTED: u8 = 130;

/// The name of the cgroup that one container makes inside its own.
const NESTED: &str = "inner.slice/job.service";

/// Why the demo did not show what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// Something is missing and cannot be installed.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The daemon could not be built.
    #[error(transparent)]
    Cargo(#[from] CargoError),
    /// A container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The daemon.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// An interrupt would leave everything behind.
    #[error("the demo cannot listen to signals: {0}")]
    Signals(io::Error),
    /// The daemon ended and nobody had told it to.
    #[error("the daemon ended by itself: {0}")]
    Ended(String),
    /// The daemon ended with an error when it was told to stop.
    #[error("the daemon did not stop in order: {0}")]
    Stop(String),
    /// The report could not be left.
    #[error("the report cannot be written to {}: {cause}", path.display())]
    Report {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The report is not what it should be.
    #[error("the report {} is not what it should be: {}", path.display(), problems.join("; "))]
    Wrong {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it, in words.
        problems: Vec<String>,
    },
    /// The death is not explained as it should be.
    #[error("`whodunit why` does not say {expected}, but: {said}")]
    Unexplained {
        /// The verdict.
        expected: &'static str,
        /// What it says.
        said: String,
    },
    /// Somebody does not want to see it.
    #[error("interrupted")]
    Interrupted,
}

/// A container of the demo: what it runs, and what the report must say of it.
struct Scene {
    name: &'static str,
    /// A program beside busybox' shell, by the name of the busybox command that it is.
    program: Option<&'static str>,
    /// What its shell does once it is told to go.
    script: &'static str,
    /// Its files, with their content.
    content: &'static [(&'static str, &'static str)],
    /// What the report must list, sorted.
    files: &'static [&'static str],
}

/// The three that run when the daemon starts. The last one is nested.
const EARLY: [Scene; 3] = [
    Scene {
        name: "web",
        program: None,
        script: "cat /etc/web.conf /srv/index.html",
        content: &[("/etc/web.conf", "listen 80\n"), ("/srv/index.html", "<h1>whodunit</h1>\n")],
        files: &["/bin/busybox", "/etc/web.conf", "/srv/index.html"],
    },
    Scene {
        name: "checksums",
        program: Some("sha256sum"),
        script: "/usr/bin/sha256sum /data/first /data/second",
        content: &[("/data/first", "1\n"), ("/data/second", "2\n")],
        files: &["/data/first", "/data/second", "/usr/bin/sha256sum"],
    },
    Scene {
        name: "nested",
        program: Some("wc"),
        script: "/usr/bin/wc -l /jobs/monday /jobs/tuesday",
        content: &[("/jobs/monday", "sweep\n"), ("/jobs/tuesday", "mop\ndust\n")],
        files: &["/jobs/monday", "/jobs/tuesday", "/usr/bin/wc"],
    },
];

/// The one that starts while the daemon runs.
const LATE: Scene = Scene {
    name: "late",
    program: Some("grep"),
    script: "/usr/bin/grep -c answer /etc/late.conf",
    content: &[("/etc/late.conf", "answer = 42\n")],
    // Its shell is in it: the daemon sees it from its first program on.
    files: &["/bin/busybox", "/etc/late.conf", "/usr/bin/grep"],
};

/// What the container that dies runs: a shell as its first process, which has no handler for SIGTERM.
const STUBBORN: &str = "echo up; while :; do sleep 1; done";
/// How long it gets to stop, as a runtime would give it (30 seconds of Kubernetes are long in a demo).
const GRACE: Duration = Duration::from_secs(2);
/// What its death must be explained as.
const VERDICT: &str = "grace-exceeded-no-handler";

/// Builds the daemon where nobody named one, then shows it.
pub(crate) fn run(workspace: &Workspace, report: Option<PathBuf>) -> Result<ExitCode, DemoError> {
    let daemon = match env::var_os(BINARY_VARIABLE) {
        Some(named) => {
            setup::run(&[Purpose::Containers])?;
            PathBuf::from(named)
        }
        None => {
            setup::run(&[Purpose::Build, Purpose::Containers])?;
            workspace.build_daemon()?
        }
    };
    let report = report.unwrap_or_else(|| workspace.root.join("report.json"));
    let interrupted = listen()?;
    match show(&daemon, &report, &interrupted) {
        Err(_) if interrupted.load(Ordering::Relaxed) => {
            eprintln!("interrupted: containers, cgroups and temporary folders are removed");
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(error) => Err(error),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

/// A flag that is set by an interrupt, so that every value still goes in order.
fn listen() -> Result<Arc<AtomicBool>, DemoError> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(DemoError::Signals)?;
    }
    Ok(flag)
}

fn show(binary: &Path, report_path: &Path, interrupted: &AtomicBool) -> Result<(), DemoError> {
    let go_on = || match interrupted.load(Ordering::Relaxed) {
        true => Err(DemoError::Interrupted),
        false => Ok(()),
    };
    // Values are dropped in reverse order: the daemon, then the containers, then the pod.
    let pod = Pod::new("demo")?;
    println!("pod {}", pod.cgroup_path());
    let mut containers = Vec::new();
    for scene in &EARLY {
        go_on()?;
        let container = scene.start(&pod)?;
        println!("  started {:<20} pid {}", container.id(), container.pid());
        containers.push(container);
    }
    if let Some(container) = containers.last() {
        container.nest(NESTED)?;
        println!("  moved   {:<20} to {NESTED}, inside its own cgroup", container.id());
    }

    go_on()?;
    let config = DaemonConfig::for_pod(&pod)?.binary(binary).interval(Duration::from_secs(1));
    let mut daemon = config.start()?;
    println!("  whodunit runs            pid {}, in the same pod", daemon.pid());
    go_on()?;
    let late = LATE.start(&pod)?;
    println!("  started {:<20} pid {}, while whodunit watches", late.id(), late.pid());
    containers.push(late);
    for container in &mut containers {
        container.tell("go")?;
        hear(container, interrupted)?;
    }
    println!("  every container has used its files");
    let shows = shows(&containers);
    // A report that never fits is shown as it is, with what is wrong with it.
    let fits = |report| problems(&report, &shows).is_empty();
    wait_until(PATIENCE, || {
        interrupted.load(Ordering::Relaxed)
            || daemon.ended().is_some()
            || daemon.report().is_ok_and(fits)
    });
    go_on()?;
    if daemon.ended().is_some() {
        return Err(DemoError::Ended(daemon.await_end()?.to_string()));
    }
    let report_error = |cause| DemoError::Report { path: report_path.to_owned(), cause };
    fs::copy(config.report_path(), report_path).map_err(report_error)?;
    let report = whodunit_containers::daemon::read_report(report_path)?;
    println!("\n{}", summary(&report));
    println!("report: {}", report_path.display());
    let problems = problems(&report, &shows);
    if !problems.is_empty() {
        return Err(DemoError::Wrong { path: report_path.to_owned(), problems });
    }

    let story = show_death(binary, &config, &pod, interrupted);
    go_on()?;
    println!("{}", story?);
    let exit = daemon.stop()?;
    match exit.status.success() {
        true => Ok(()),
        false => Err(DemoError::Stop(exit.to_string())),
    }
}

/// Lets a container die as containers do whose first process does not hear SIGTERM, and gives what
/// `whodunit why` says of it.
fn show_death(
    binary: &Path,
    config: &DaemonConfig,
    pod: &Pod,
    interrupted: &AtomicBool,
) -> Result<String, DemoError> {
    let is_over = || interrupted.load(Ordering::Relaxed);
    let mut stubborn = pod.container("stubborn").shell(STUBBORN).start()?;
    stubborn.hear("up")?;
    println!("\n  started {:<20} pid {}", stubborn.id(), stubborn.pid());
    stubborn.kill("TERM")?;
    println!(
        "  asked   {:<20} to stop: SIGTERM, with {} s to do so",
        stubborn.id(),
        GRACE.as_secs()
    );
    if !wait_until(GRACE, || is_over() || !stubborn.is_running()) {
        stubborn.kill("KILL")?;
        println!("  killed  {:<20} because it had not", stubborn.id());
    }
    stubborn.wait()?;
    let why = || -> Result<String, DemoError> {
        let mut command = Command::new(binary);
        command.args(["why", stubborn.id(), "--last", "1", "--config"]).arg(config.toml_path());
        let said = command.output().map_err(|cause| DemoError::Unexplained {
            expected: VERDICT,
            said: cause.to_string(),
        })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(text(if said.status.success() { &said.stdout } else { &said.stderr }))
    };
    let is_explained = |said: &String| said.contains(VERDICT);
    wait_until(PATIENCE, || is_over() || why().as_ref().is_ok_and(is_explained));
    let said = why()?;
    if !is_explained(&said) {
        return Err(DemoError::Unexplained { expected: VERDICT, said });
    }
    Ok(format!("\n# whodunit why {}\n{said}", stubborn.id()))
}

impl Scene {
    fn start(&self, pod: &Pod) -> Result<Container, ContainerError> {
        let mut builder = pod
            .container(self.name)
            .shell(&format!("read go; {}; echo done; read stay", self.script));
        for (path, text) in self.content {
            builder = builder.file(path, text, 0o644);
        }
        if let Some(program) = self.program {
            let missing = ContainerError::Missing { program: "busybox", package: "busybox-static" };
            let busybox = find_program("busybox").ok_or(missing)?;
            builder = builder.copy(busybox, format!("/usr/bin/{program}"));
        }
        builder.start()
    }
}

/// Waits until the container has done its work.
fn hear(container: &Container, interrupted: &AtomicBool) -> Result<(), DemoError> {
    let done = || container.stdout().lines().any(|line| line == "done");
    wait_until(PATIENCE, || interrupted.load(Ordering::Relaxed) || done());
    if interrupted.load(Ordering::Relaxed) {
        return Err(DemoError::Interrupted);
    }
    // Where it is not done by now, this says so.
    Ok(container.hear("done")?)
}

/// What the report must show: each container's identity and files.
struct Show {
    id: String,
    cgroup_path: String,
    cgroup_id: String,
    files: &'static [&'static str],
    first_exec_seen: bool,
}

fn shows(containers: &[Container]) -> Vec<Show> {
    let early = EARLY.iter().map(|scene| (scene, false));
    let scenes = early.chain([(&LATE, true)]);
    containers
        .iter()
        .zip(scenes)
        .map(|(container, (scene, first_exec_seen))| Show {
            id: container.id().to_owned(),
            cgroup_path: container.cgroup_path(),
            cgroup_id: container.cgroup_id().to_string(),
            files: scene.files,
            first_exec_seen,
        })
        .collect()
}

/// What a report says that it should not, or does not say and should.
fn problems(report: &Value, shows: &[Show]) -> Vec<String> {
    let mut problems = Vec::new();
    let entries = list(&report["containers"]);
    for show in shows {
        match entries.iter().find(|entry| entry["name"] == *show.id) {
            Some(entry) => problems.extend(show.problems(entry)),
            None => problems.push(format!("{} is not in it", show.id)),
        }
    }
    for entry in entries.iter().chain(list(&report["ended_containers"])) {
        if !shows.iter().any(|show| entry["name"] == *show.id) {
            problems.push(format!("{} is in it and is no container of the demo", entry["name"]));
        }
    }
    if report["dropped_events"] != 0 {
        problems.push(format!("dropped_events is {}", report["dropped_events"]));
    }
    problems
}

impl Show {
    fn problems(&self, entry: &Value) -> Vec<String> {
        let expected = [
            ("cgroup_path", Value::from(self.cgroup_path.as_str())),
            ("cgroup_id", Value::from(self.cgroup_id.as_str())),
            ("files", Value::from(self.files)),
            ("unique_files", Value::from(self.files.len())),
            ("first_exec_seen", Value::from(self.first_exec_seen)),
        ];
        expected
            .into_iter()
            .filter(|(key, value)| entry[key] != *value)
            .map(|(key, value)| format!("{key} of {} is {}, not {value}", self.id, entry[key]))
            .collect()
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The report for people.
fn summary(report: &Value) -> String {
    let mut lines = vec![format!(
        "{:<20} {:>5} {:>7}  {}",
        "CONTAINER", "FILES", "EVENTS", "FIRST PROGRAM SEEN"
    )];
    for entry in list(&report["containers"]) {
        let name = entry["name"].as_str().unwrap_or_default();
        let seen = match entry["first_exec_seen"].as_bool() {
            Some(true) => "yes",
            _ => "no, it ran before whodunit",
        };
        let [files, events] = ["unique_files", "total_events"].map(|key| entry[key].to_string());
        lines.push(format!("{name:<20} {files:>5} {events:>7}  {seen}"));
        let files = list(&entry["files"]).iter().filter_map(Value::as_str);
        lines.extend(files.map(|file| format!("    {file}")));
    }
    lines.push(format!(
        "{} events in all, {} dropped",
        report["total_events"], report["dropped_events"]
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn show() -> Show {
        Show {
            id: "late-1".into(),
            cgroup_path: "/pod/late-1".into(),
            cgroup_id: "77".into(),
            files: LATE.files,
            first_exec_seen: true,
        }
    }

    fn report() -> Value {
        json!({
            "containers": [{
                "name": "late-1", "cgroup_path": "/pod/late-1", "cgroup_id": "77",
                "files": LATE.files, "unique_files": 3, "total_events": 3, "first_exec_seen": true,
            }],
            "ended_containers": [], "total_events": 3, "dropped_events": 0,
        })
    }

    fn check(change: impl FnOnce(&mut Value), expected: &str) {
        let mut report = report();
        change(&mut report);
        let found = problems(&report, &[show()]).join("; ");
        assert!(found.contains(expected), "{found:?} does not contain {expected:?}");
    }

    #[test]
    fn a_right_report_has_no_problems() {
        assert_eq!(problems(&report(), &[show()]), Vec::<String>::new());
    }

    #[test]
    fn every_wrong_report_is_told() {
        check(|report| report["containers"] = json!([]), "late-1 is not in it");
        check(|report| report["containers"][0]["files"][0] = "/x".into(), "files of late-1 is");
        check(
            |report| report["containers"][0]["first_exec_seen"] = false.into(),
            "first_exec_seen of late-1 is false, not true",
        );
        check(|report| report["dropped_events"] = 1.into(), "dropped_events is 1");
        check(
            |report| report["ended_containers"] = json!([{ "name": "whodunit" }]),
            "is no container of the demo",
        );
        check(|report| *report = Value::Null, "late-1 is not in it");
    }

    #[test]
    fn the_files_of_every_scene_are_sorted_as_in_a_report() {
        for scene in EARLY.iter().chain([&LATE]) {
            assert!(scene.files.is_sorted(), "{}", scene.name);
        }
    }

    #[test]
    fn the_summary_names_containers_and_files() {
        let text = summary(&report());
        for expected in ["late-1", "/etc/late.conf", "yes", "3 events in all, 0 dropped"] {
            assert!(text.contains(expected), "{text}");
        }
    }
}

//! What the daemon may do: with exactly the capabilities that are listed everything works, and without one of them something
//! does not, and says so.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use whodunit_containers::daemon::binary;
use whodunit_containers::{Container, Daemon, DaemonConfig, Pod, find_program};

use crate::deaths::container_death;
use crate::discovery::{let_work, worker};
use crate::http::{LISTEN, address, get};
use crate::names::write_bundle;
use crate::report::{expect, expect_eq, last_report, lists};
use crate::status::whodunit_status;
use crate::{Outcome, about_capture, machine, needing};

/// The exit code where the kernel does not let the daemon do its work.
const NO_PERMISSION: i32 = 77;
/// The capabilities that are listed, as `setpriv` names them.
const LISTED: [&str; 4] = ["bpf", "perfmon", "dac_read_search", "sys_ptrace"];
/// The user whose folders nobody else may enter.
const USER: u32 = 1000;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        about_capture("privileges::with_exactly_the_listed_ones_everything_works", exactly),
        about_capture("privileges::of_everything_what_is_left_is_enough", everything),
        needing(
            "privileges::too_little_locked_memory_is_said",
            machine::lacks_for_locked_maps,
            locked_memory,
        ),
    ];
    for without in LISTED {
        trials.push(needing(
            format!("privileges::without_cap_{without}_something_is_missing_and_said"),
            machine::lacks_for_capture,
            move || one_less(without),
        ));
    }
    trials
}

/// Executes the daemon as root with these capabilities and no others, and without a limit of locked memory, as the shipped
/// unit does: maps count against it before Linux 5.11.
fn only(capabilities: &[&str]) -> Vec<String> {
    limited("unlimited", capabilities)
}

/// The same with so many KiB of locked memory.
fn limited(kilobytes: &str, capabilities: &[&str]) -> Vec<String> {
    let added: String = capabilities.iter().map(|it| format!(",+{it}")).collect();
    // A machine that does not let its root lift it has to be one where it does not count.
    let set = format!("ulimit -l {kilobytes}");
    let lift = format!("if ({set}) 2> /dev/null; then {set}; fi; exec \"$0\" \"$@\"");
    // By its path: busybox's shell takes a program of its own before one of that name.
    let setpriv = find_program("setpriv").unwrap_or_else(|| "setpriv".into());
    let setpriv = setpriv.to_string_lossy();
    [
        "/bin/sh",
        "-c",
        &lift,
        &setpriv,
        "--inh-caps",
        "-all",
        "--bounding-set",
        &format!("-all{added}"),
    ]
    .map(str::to_owned)
    .into()
}

fn locked_memory() -> Outcome {
    let scene = Scene::new()?;
    let exit = scene.config()?.wrapped(&limited("64", &LISTED)).run()?;
    expect_eq(&format!("exit code of {exit}"), &exit.code(), &Some(NO_PERMISSION))?;
    let said = exit.complaints().join(" ");
    let names_it = said.contains("65536 bytes") && said.contains("CAP_SYS_RESOURCE");
    expect(format!("it names the limit and what lifts it: {said}"), names_it)
}

/// A container with capabilities of its own, whose files need every capability that reading needs: a link at the top, and one
/// in a folder that is another user's alone.
struct Scene {
    pod: Pod,
    host: tempfile::TempDir,
    container: Container,
}

impl Scene {
    fn new() -> Result<Scene, Failed> {
        let pod = Pod::new("privileges")?;
        let builder = pod
            .container("app")
            .file("/etc/used", "", 0o644)
            .folder("/home/own")
            .symlink("/way", "/etc")
            .symlink("/home/own/way", "/etc")
            .user(USER);
        let container = worker(builder, "cat /way/used; cat /home/own/way/used").start()?;
        let home = container.root().join("home/own");
        chown(&home, Some(USER), Some(USER))?;
        fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let host = tempfile::tempdir()?;
        write_bundle(host.path(), container.id(), "web")?;
        Ok(Scene { pod, host, container })
    }

    fn config(&self) -> Result<DaemonConfig, Failed> {
        let config = DaemonConfig::for_pod(&self.pod)?.host_root(self.host.path());
        Ok(config.more_toml(LISTEN))
    }
}

/// Whether the report lists a symbolic link that was crossed.
fn has_link(report: &Value, path: &str) -> bool {
    let containers = report["containers"].as_array().into_iter().flatten();
    containers
        .flat_map(|container| container["links"].as_array().into_iter().flatten())
        .any(|link| link["path"] == path)
}

/// What the kernel says of every thread of a daemon.
fn confined(daemon: &Daemon<'_>) -> Outcome {
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{}/task", daemon.pid()))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).unwrap_or_default().to_owned()
        };
        // `SECCOMP_MODE_FILTER`.
        expect_eq(&format!("Seccomp of {}", field("Name:")), &field("Seccomp:").as_str(), &"2")?;
        expect_eq("NoNewPrivs", &field("NoNewPrivs:").as_str(), &"1")?;
        threads += 1;
    }
    expect("there are threads", threads > 3)
}

fn exactly() -> Outcome {
    let scene = Scene::new()?;
    let config = scene.config()?.wrapped(&only(&LISTED));
    works(scene, &config)
}

fn everything() -> Outcome {
    let scene = Scene::new()?;
    let config = scene.config()?;
    works(scene, &config)
}

/// Everything that the daemon does, once it has given up what it does not need.
fn works(mut scene: Scene, config: &DaemonConfig) -> Outcome {
    let mut daemon = config.start()?;
    confined(&daemon)?;
    let status = status_of(config)?;
    let probes = status["probes"].as_array().ok_or("no probes")?;
    let dead: Vec<&Value> = probes
        .iter()
        .filter(|probe| probe["live"] == false && probe["tier"] == "base")
        .map(|probe| &probe["name"])
        .collect();
    expect_eq("probes that do not run", &dead, &Vec::new())?;
    expect_eq("missing", &status["daemon"]["missing_capabilities"], &Value::Array(Vec::new()))?;
    let_work(&mut scene.container)?;
    daemon.wait_report("the files by the name of the bundle, and both links", |report| {
        lists(report, "web", "files", "/etc/used")
            && has_link(report, "/way")
            && has_link(report, "/home/own/way")
    })?;

    // A plugin is replaced under way.
    let reloaded = Command::new(binary()?)
        .args(["plugin", "reload", "report", "--state-dir"])
        .arg(config.state_dir())
        .output()?;
    let said = String::from_utf8_lossy(&reloaded.stderr).into_owned();
    expect(format!("a plugin is reloaded: {said}"), reloaded.status.success())?;
    let status = status_of(config)?;
    expect_eq("swaps", &status["plugins"][0]["swaps"], &Value::from(1))?;

    // And a container dies, with its last words.
    scene.container.kill("KILL")?;
    let death = container_death(config, scene.container.id())?;
    for kind in ["signal", "memory", "cpu", "pids"] {
        expect(format!("its {kind} is on record: {death:?}"), !death.facts(kind).is_empty())?;
    }
    last_report(config, daemon).map(drop)
}

fn status_of(config: &DaemonConfig) -> Result<Value, Failed> {
    Ok(serde_json::from_slice(&whodunit_status(&config.state_dir(), "json")?.stdout)?)
}

fn one_less(without: &str) -> Outcome {
    let left: Vec<&str> = LISTED.into_iter().filter(|it| *it != without).collect();
    let wrapper = only(&left);
    let name = format!("CAP_{}", without.to_uppercase());
    doctor_says(&wrapper, &name)?;
    let mut scene = Scene::new()?;
    let config = scene.config()?.wrapped(&wrapper);
    if matches!(without, "bpf" | "perfmon") {
        let exit = config.run()?;
        expect_eq(&format!("exit code of {exit}"), &exit.code(), &Some(NO_PERMISSION))?;
        let said = exit.complaints().join(" ");
        return expect(format!("it names {name}: {said}"), said.contains(&name));
    }
    let mut daemon = config.start()?;
    daemon.await_log("what is missing", |line| {
        line["level"] == "WARN"
            && line["capability"] == name.as_str()
            && line["without"].is_string()
    })?;
    let missing = status_of(&config)?["daemon"]["missing_capabilities"].clone();
    expect_eq("missing ones", &missing[0]["capability"], &Value::from(name.as_str()))?;
    let ready = get(&address(&mut daemon)?, "/readyz")?;
    expect_eq("it is ready all the same", &ready.status, &200)?;
    expect("its notes name it", ready.body.contains(&name))?;
    let_work(&mut scene.container)?;
    let report = daemon.wait_report("the files, which need nothing but BPF", |report| {
        lists(report, "web", "files", "/etc/used")
            && lists(report, "web", "executed", "/bin/busybox")
    })?;
    let links: BTreeSet<&str> =
        ["/way", "/home/own/way"].into_iter().filter(|path| has_link(&report, path)).collect();
    let expected = match without {
        // What is in the folder of another user is out of reach.
        "dac_read_search" => BTreeSet::from(["/way"]),
        // Nothing of a process that may do more than the daemon is.
        _ => BTreeSet::new(),
    };
    expect_eq("links that were found", &links, &expected)
}

/// What the doctor says of a capability that is not there.
fn doctor_says(wrapper: &[String], name: &str) -> Outcome {
    let (program, arguments) = wrapper.split_first().ok_or("a wrapper is a program")?;
    let output = Command::new(program).args(arguments).arg(binary()?).arg("doctor").output()?;
    expect_eq("its exit code", &output.status.code(), &Some(1))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find(|line| line.starts_with("MISS  capabilities"));
    let line = line.ok_or_else(|| format!("no capability is missed in {said}"))?;
    let purpose = line.contains(&format!("missing {name} (")) && line.contains("; without it ");
    expect(format!("{name} is named with what it is for: {line}"), purpose)
}

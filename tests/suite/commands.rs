//! Commands beside `run`, and documents on standard output: run as a user runs them.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use whodunit_containers::daemon::binary;
use whodunit_containers::{DaemonConfig, Pod};

use crate::discovery::{let_work, worker};
use crate::report::{expect_eq, last_report};
use crate::{Outcome, about_capture, about_containers};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        about_capture("commands::doctor_finds_every_probe_live", doctor_finds_every_probe_live),
        about_containers("commands::doctor_names_what_is_missing", doctor_names_what_is_missing),
        about_capture(
            "commands::doctor_says_whether_the_kernel_measures",
            doctor_says_whether_the_kernel_measures,
        ),
        about_capture("commands::privileges_are_given_up_after_the_start", gives_up_privileges),
        about_containers("commands::version_names_the_contract", version_names_the_contract),
        about_containers("commands::check_prints_what_can_be_checked_again", check_round_trip),
        about_capture("commands::files_and_report_read_what_the_daemon_wrote", files_and_report),
        about_capture("commands::reports_go_to_standard_output", reports_go_to_standard_output),
    ]
}

fn whodunit(arguments: &[&str]) -> Result<Command, Failed> {
    let mut command = Command::new(binary()?);
    command.args(arguments).stdin(Stdio::null());
    Ok(command)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn expect_words(output: &Output, words: &[&str]) -> Outcome {
    let said = text(&output.stdout);
    match words.iter().find(|word| !said.contains(**word)) {
        None => Ok(()),
        Some(word) => Err(format!("{word:?} is not said in {said:?}").into()),
    }
}

fn doctor_finds_every_probe_live() -> Outcome {
    let output = whodunit(&["doctor", "--output", "json"])?.output()?;
    expect_eq("exit code", &output.status.code(), &Some(0))?;
    let findings: Value = serde_json::from_slice(&output.stdout)?;
    expect_eq("healthy", &findings["healthy"], &Value::Bool(true))?;
    let checks = findings["checks"].as_array().ok_or("no checks")?;
    let names = checks.iter().filter_map(|check| check["name"].as_str());
    // Who names containers is another matter on each machine.
    let names: Vec<&str> = names.filter(|name| !name.starts_with("names from ")).collect();
    let expected = [
        "btf",
        "cgroup",
        "capabilities",
        "bpf",
        "probe cgroup",
        "probe process",
        "probe signal",
        "probe oom",
        "probe setup",
        "probe exec",
        "probe files",
        "probe interpreters",
        "probe beneath",
        "tier",
    ];
    expect_eq("checks", &names.as_slice(), &expected.as_slice())?;
    let table = whodunit(&["doctor"])?.output()?;
    expect_words(&table, &["kernel ", "ok    probe files", "cgroup v2 at "])
}

fn doctor_names_what_is_missing() -> Outcome {
    let program = binary()?;
    let output = Command::new("setpriv")
        .args(["--bounding-set=-sys_admin,-bpf,-perfmon", "--inh-caps=-all"])
        .arg(program)
        .args(["doctor", "--output", "table"])
        .output()?;
    expect_eq("exit code", &output.status.code(), &Some(1))?;
    expect_words(&output, &["MISS  capabilities", "CAP_BPF", "CAP_PERFMON", "MISS  bpf"])
}

fn doctor_says_whether_the_kernel_measures() -> Outcome {
    let config = tempfile::NamedTempFile::new()?;
    std::fs::write(config.path(), "[capture]\nmeasure = true\n")?;
    let program = binary()?;
    let asked = |drop: &str| {
        Command::new("setpriv")
            .args([&format!("--bounding-set={drop}"), "--inh-caps=-all"])
            .arg(&program)
            .args(["doctor", "--config"])
            .arg(config.path())
            .output()
    };
    // It drops one that nothing here takes.
    expect_words(&asked("-wake_alarm")?, &["ok    measure"])?;
    let output = asked("-sys_admin")?;
    expect_eq("exit code", &output.status.code(), &Some(1))?;
    expect_words(&output, &["MISS  measure", "CAP_SYS_ADMIN", "ok    bpf", "ok    probe files"])
}

/// Every thread of a running daemon has a few capabilities only, and none can get more.
fn gives_up_privileges() -> Outcome {
    // By `linux/capability.h`: DAC_OVERRIDE 1, DAC_READ_SEARCH 2, SYS_PTRACE 19, BPF 39.
    const KEPT: u64 = 1 << 1 | 1 << 2 | 1 << 19 | 1 << 39;
    let pod = Pod::new("privilege")?;
    let _container = pod.container("app").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let daemon = config.start()?;
    let mut threads = 0;
    for task in std::fs::read_dir(format!("/proc/{}/task", daemon.pid()))? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).unwrap_or_default().to_owned()
        };
        for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
            let more = u64::from_str_radix(&field(set), 16)? & !KEPT;
            expect_eq(&format!("more than is kept, in {set} of {}", field("Name:")), &more, &0)?;
        }
        expect_eq("no_new_privs", &field("NoNewPrivs:").as_str(), &"1")?;
        threads += 1;
    }
    expect_eq("there are threads", &(threads > 3), &true)
}

fn version_names_the_contract() -> Outcome {
    let output = whodunit(&["version"])?.output()?;
    expect_eq("exit code", &output.status.code(), &Some(0))?;
    expect_words(&output, &["whodunit 0.1.0", "(static)", "plugin contract: whodunit:plugin@0.1.0"])
}

fn files_and_report() -> Outcome {
    let pod = Pod::new("commands")?;
    let builder = pod.container("app").file("/etc/used", "", 0o644).symlink("/way", "/etc");
    let mut container = worker(builder, "cat /way/used /etc/missing; true").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let daemon = config.start()?;
    let_work(&mut container)?;
    last_report(&config, daemon)?;
    let report = config.report_path().display().to_string();
    let output = whodunit(&["files", container.id(), "--report", &report])?.output()?;
    expect_eq("exit code", &output.status.code(), &Some(0))?;
    let words = [
        "/etc/used",
        "open",
        "image",
        "/way/used",
        "/way -> /etc",
        "not there (1):\n  /etc/missing",
    ];
    expect_words(&output, &words)?;
    let all = whodunit(&["files"])?.env("WHODUNIT_REPORT", &report).output()?;
    expect_words(&all, &["CONTAINER", container.id(), "running"])?;
    let summary = whodunit(&["report", "summary", &report])?.output()?;
    expect_words(&summary, &["/etc", "MOUNT", "image"])?;
    let same = whodunit(&["report", "diff", &report, &report])?.output()?;
    expect_words(&same, &["no difference"])?;
    let merged = whodunit(&["report", "merge", &report, &report, "--output", "json"])?.output()?;
    let merged: Value = serde_json::from_slice(&merged.stdout)?;
    expect_eq("replicas", &merged["containers"][0]["replicas"], &Value::from(2))
}

fn check_round_trip() -> Outcome {
    let folder = tempfile::tempdir()?;
    let first = whodunit(&["check", "--scope", "node", "--interval", "7s"])?.output()?;
    expect_eq("exit code", &first.status.code(), &Some(0))?;
    let file = folder.path().join("whodunit.toml");
    std::fs::write(&file, &first.stdout)?;
    let named = file.display().to_string();
    let again = whodunit(&["check", "-c", &named])?.output()?;
    expect_eq("exit code", &again.status.code(), &Some(0))?;
    // The first line says where the configuration comes from.
    let body =
        |output: &Output| text(&output.stdout).lines().skip(1).collect::<Vec<_>>().join("\n");
    expect_eq("configuration", &body(&again), &body(&first))
}

fn reports_go_to_standard_output() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("whodunit.toml");
    let place = folder.path().display();
    std::fs::write(
        &file,
        format!(
            "[discovery]\nscope = \"node\"\n[daemon]\nstate_dir = \"{place}/state\"\n\
             cache_dir = \"{place}/cache\"\ninterval = \"100ms\"\n[[plugin]]\nname = \"report\"\n\
             source = \"builtin:report-json\"\noutputs = {{ report = {{ stdout = true }} }}\n"
        ),
    )?;
    let named = file.display().to_string();
    let mut daemon =
        whodunit(&["run", "-c", &named])?.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stdout = daemon.stdout.take().ok_or("no standard output")?;
    let mut reader = BufReader::new(stdout);
    let first = next_document(&mut reader)?;
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let mut last = first.clone();
    while let Ok(document) = next_document(&mut reader) {
        last = document;
    }
    expect_eq("exit code", &daemon.wait()?.code(), &Some(0))?;
    expect_eq("schema version", &last["schema_version"], &first["schema_version"])?;
    let newer = last["last_updated_at"].as_str() > first["last_updated_at"].as_str();
    expect_eq("the last report is newer than the first", &newer, &true)
}

/// The next document: the lines up to one that ends it.
fn next_document(reader: &mut impl BufRead) -> Result<Value, Failed> {
    let mut document = String::new();
    while reader.read_line(&mut document)? > 0 {
        if let Ok(value) = serde_json::from_str(&document) {
            return Ok(value);
        }
    }
    Err("standard output ended".into())
}

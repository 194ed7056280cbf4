//! What the daemon refuses, and how: one sentence that names the object, a fitting exit code, and no
//! half-written file.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};
use whodunit_containers::{Container, DaemonConfig, Exit, Hierarchies, Pod, Tmpfs};

use crate::discovery::{let_work, worker};
use crate::guests::QUIET;
use crate::report::{Report, execs, expect, expect_eq, last_report, lists};
use crate::{Outcome, about_capture, about_containers};

/// Exit codes of the daemon.
const FAILURE: i32 = 1;
const NO_PERMISSION: i32 = 77;
const BAD_CONFIGURATION: i32 = 78;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        about_containers("bad_input::a_configuration_that_is_missing", missing_configuration),
        about_containers("bad_input::a_configuration_that_is_a_folder", configuration_folder),
        about_containers("bad_input::a_configuration_that_is_not_toml", not_toml),
        about_containers("bad_input::a_key_that_nobody_knows", unknown_key),
        about_containers("bad_input::a_value_of_the_wrong_kind", wrong_value),
        about_containers("bad_input::a_plugin_that_is_missing", missing_plugin),
        about_containers("bad_input::a_plugin_that_is_not_wasm", plugin_that_is_text),
        about_containers("bad_input::a_plugin_that_is_a_core_module", core_module),
        about_containers("bad_input::a_plugin_of_another_world", other_world),
        about_containers("bad_input::a_plugin_of_another_version", other_version),
        about_containers("bad_input::a_builtin_that_does_not_exist", unknown_builtin),
        about_containers("bad_input::no_capability_to_load_programs", no_capabilities),
        about_containers("bad_input::another_user_than_root", another_user),
        about_containers("bad_input::a_cgroup_root_that_is_no_cgroup_root", no_cgroup_root),
        about_containers("bad_input::a_machine_without_cgroup_v2", no_cgroup_v2),
        about_containers("bad_input::a_kernel_without_btf", no_btf),
        about_containers("bad_input::a_report_folder_that_is_missing", missing_folder),
        about_containers("bad_input::a_report_folder_that_is_read_only", read_only_folder),
        about_containers("bad_input::a_report_folder_that_is_full", full_folder),
        about_capture(
            "bad_input::a_disk_that_is_full_later_on_is_counted_and_recovers",
            full_later,
        ),
        about_capture("bad_input::a_second_daemon_is_refused_and_the_first_goes_on", two_daemons),
    ]
}

/// A pod with a container, so that nothing but the bad input stops the daemon.
fn pod() -> Result<(Pod, Container), Failed> {
    let pod = Pod::new("bad-input")?;
    let container = pod.container("app").shell("read stay").start()?;
    Ok((pod, container))
}

/// Expects an end with this code, one sentence that says all of `words`, and no report.
fn check_refusal(config: &DaemonConfig, exit: &Exit, code: i32, words: &[&str]) -> Outcome {
    expect_eq(&format!("exit code, of {exit}"), &exit.code(), &Some(code))?;
    let complaints = exit.complaints();
    expect_eq(&format!("number of sentences, of {exit}"), &complaints.len(), &1)?;
    check_words(&complaints[0], words)?;
    check_nothing_written(config)
}

fn check_words(text: &str, words: &[&str]) -> Outcome {
    let said = text.to_lowercase();
    for word in words {
        let found = said.contains(&word.to_lowercase());
        expect(format!("{word:?} is said in {text:?}"), found)?;
    }
    Ok(())
}

/// Expects nothing to lie where the report goes.
fn check_nothing_written(config: &DaemonConfig) -> Outcome {
    let folder = config.report_path().parent().expect("the report lies in a folder");
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries {
            let name = entry?.file_name();
            expect(format!("{name:?} was left behind"), name == "ballast")?;
        }
    }
    Ok(())
}

/// Runs a configuration to its refusal.
fn refused(
    configure: impl FnOnce(DaemonConfig) -> Result<DaemonConfig, Failed>,
    code: i32,
    words: &[&str],
) -> Outcome {
    let (pod, _container) = pod()?;
    let config = configure(DaemonConfig::for_pod(&pod)?)?;
    check_refusal(&config, &config.run()?, code, words)
}

/// Runs the daemon on this configuration file to its refusal. A broken file may be shown with the
/// place of the mistake, which takes more than one line.
fn refused_file(path: &Path, words: &[&str]) -> Outcome {
    let (pod, _container) = pod()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let exit = config.spawn_with(&[OsString::from("-c"), path.into()])?.await_end()?;
    expect_eq(&format!("exit code, of {exit}"), &exit.code(), &Some(BAD_CONFIGURATION))?;
    let mut words = words.to_vec();
    let path = path.display().to_string();
    words.push(&path);
    check_words(&exit.complaints().join("\n"), &words)?;
    check_nothing_written(&config)
}

fn refused_text(text: &str, words: &[&str]) -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("bad.toml");
    fs::write(&path, text)?;
    refused_file(&path, words)
}

fn missing_configuration() -> Outcome {
    let folder = tempfile::tempdir()?;
    refused_file(&folder.path().join("nowhere.toml"), &[])
}

fn configuration_folder() -> Outcome {
    let folder = tempfile::tempdir()?;
    refused_file(folder.path(), &[])
}

fn not_toml() -> Outcome {
    refused_text("[discovery]\nscope = \"pod\nrescan = \"1s\"\n", &["bad.toml:2:"])
}

fn unknown_key() -> Outcome {
    refused_text(
        "[discovery]\nscop = \"pod\"\n",
        &["bad.toml:2:1", "scop", "did you mean", "scope"],
    )
}

fn wrong_value() -> Outcome {
    refused_text("[daemon]\ninterval = 30\n", &["bad.toml:2:12", "interval"])
}

/// A configuration with a second plugin from this source.
fn with_plugin(config: DaemonConfig, source: &str) -> DaemonConfig {
    config.more_toml(&format!("[[plugin]]\nname = \"second\"\nsource = '{source}'"))
}

/// Runs a second plugin, a file of these bytes, to its refusal.
fn refused_plugin(bytes: &[u8], words: &[&str]) -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("second.wasm");
    fs::write(&path, bytes)?;
    let path = path.display().to_string();
    let mut words = words.to_vec();
    words.push(&path);
    refused(|config| Ok(with_plugin(config, &path)), BAD_CONFIGURATION, &words)
}

fn missing_plugin() -> Outcome {
    let path = "/no/such/folder/second.wasm";
    refused(|config| Ok(with_plugin(config, path)), BAD_CONFIGURATION, &[path])
}

fn plugin_that_is_text() -> Outcome {
    refused_plugin(b"#!/bin/sh\necho no plugin\n", &["second"])
}

fn core_module() -> Outcome {
    refused_plugin(&QUIET.module("0.1.0")?, &["core module", "component"])
}

fn other_world() -> Outcome {
    refused_plugin(&wat::parse_str("(component)")?, &["world"])
}

fn other_version() -> Outcome {
    refused_plugin(&QUIET.component_for("0.7.0")?, &["0.7.0", "0.1.0"])
}

fn unknown_builtin() -> Outcome {
    let source = "builtin:report-jsno";
    refused(
        |config| Ok(with_plugin(config, source)),
        BAD_CONFIGURATION,
        &["report-jsno", "report-json"],
    )
}

fn no_capabilities() -> Outcome {
    let wrapper = ["setpriv", "--bounding-set", "-bpf,-sys_admin,-perfmon", "--inh-caps", "-all"];
    refused(|config| Ok(config.wrapped(&wrapper)), NO_PERMISSION, &["CAP_BPF"])
}

fn another_user() -> Outcome {
    let (pod, _container) = pod()?;
    let wrapper = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let config = DaemonConfig::for_pod(&pod)?.wrapped(&wrapper);
    // Its folders are its own, and it may read its configuration and run its binary: what it lacks is
    // the right to load programs.
    let binary = config.folder().join("whodunit");
    fs::copy(whodunit_containers::daemon::binary()?, &binary)?;
    for path in ["", "state", "cache", "out", "whodunit"] {
        std::os::unix::fs::chown(config.folder().join(path), Some(65534), Some(65534))?;
    }
    let config = config.binary(binary);
    let exit = config.run()?;
    check_refusal(&config, &exit, NO_PERMISSION, &["root"])
}

fn no_cgroup_root() -> Outcome {
    let folder = tempfile::tempdir()?;
    let root = folder.path().to_owned();
    let said = root.display().to_string();
    refused(|config| Ok(config.cgroup_root(&root)), BAD_CONFIGURATION, &[&said, "cgroup"])
}

/// Runs the daemon, in a mount namespace of its own that this command has changed, to its refusal.
fn refused_after(mount_command: &str, words: &[&str]) -> Outcome {
    let script = format!("{mount_command} && exec \"$@\"");
    let wrapper = ["unshare", "--mount", "/bin/sh", "-c", &script, "sh"];
    refused(|config| Ok(config.wrapped(&wrapper)), FAILURE, words)
}

fn no_cgroup_v2() -> Outcome {
    let unified = Hierarchies::find()?.unified;
    refused_after(&format!("umount --lazy {}", unified.display()), &["cgroup v2", "mount"])
}

fn no_btf() -> Outcome {
    let btf = "/sys/kernel/btf/vmlinux";
    refused_after(&format!("mount --bind /dev/null {btf}"), &[btf, "CONFIG_DEBUG_INFO_BTF"])
}

fn missing_folder() -> Outcome {
    refused(
        |config| Ok(config.report_file("/no/such/folder/report.json")),
        FAILURE,
        &["/no/such/folder"],
    )
}

/// A small disk for the report, over a folder of its own.
struct SmallDisk {
    // Unmounted before its folder goes.
    disk: Tmpfs,
    _folder: tempfile::TempDir,
}

impl SmallDisk {
    fn new() -> Result<SmallDisk, Failed> {
        let folder = tempfile::tempdir()?;
        Ok(SmallDisk { disk: Tmpfs::mount(folder.path(), 64 << 10)?, _folder: folder })
    }

    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn report(&self) -> PathBuf {
        self.path().join("report.json")
    }
}

fn read_only_folder() -> Outcome {
    let (pod, _container) = pod()?;
    let disk = SmallDisk::new()?;
    disk.disk.make_read_only()?;
    let config = DaemonConfig::for_pod(&pod)?.report_file(disk.report());
    let said = disk.path().display().to_string();
    check_refusal(&config, &config.run()?, FAILURE, &[&said, "read-only"])
}

fn full_folder() -> Outcome {
    let (pod, _container) = pod()?;
    let disk = SmallDisk::new()?;
    disk.disk.fill("ballast")?;
    let config = DaemonConfig::for_pod(&pod)?.report_file(disk.report());
    let said = disk.path().display().to_string();
    check_refusal(&config, &config.run()?, FAILURE, &[&said, "full"])
}

fn full_later() -> Outcome {
    let pod = Pod::new("full")?;
    let app = pod.container("app").file("/etc/before", "", 0o644).file("/etc/full", "", 0o644);
    let app = app.file("/etc/after", "", 0o644);
    let work = "cat /etc/before; echo before; read go; cat /etc/full; echo full; read go; \
                cat /etc/after";
    let mut app = worker(app, work).start()?;
    let disk = SmallDisk::new()?;
    let config = DaemonConfig::for_pod(&pod)?.report_file(disk.report());
    let mut daemon = config.start()?;
    app.tell("go")?;
    app.hear("before")?;
    daemon.wait_report("the file of before", |report| {
        lists(report, app.id(), "files", "/etc/before")
    })?;

    disk.disk.fill("ballast")?;
    app.tell("go")?;
    app.hear("full")?;
    let said = disk.path().display().to_string();
    daemon.await_log("that the report cannot be written", |entry| {
        matches!(entry["level"].as_str(), Some("WARN" | "ERROR"))
            && entry.to_string().contains(&said)
    })?;
    // The last one that could be written is still there, whole.
    let report = Report::check(daemon.report()?)?;
    report.container(&app)?.expect_files(&["/bin/busybox", "/etc/before"])?;
    let beside: Vec<OsString> = fs::read_dir(disk.path())?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    expect(
        format!("nothing half-written stays: {beside:?}"),
        beside.iter().all(|name| name == "ballast" || name == "report.json"),
    )?;
    expect("the daemon runs on", daemon.ended().is_none())?;

    fs::remove_file(disk.path().join("ballast"))?;
    daemon.wait_report("the file of the time without room", |report| {
        lists(report, app.id(), "files", "/etc/full")
    })?;
    let_work(&mut app)?;
    let report = last_report(&config, daemon)?;
    let entry = report.container(&app)?;
    entry.expect_files(&["/bin/busybox", "/etc/after", "/etc/before", "/etc/full"])?;
    entry.expect_events(3 + execs(3))?;
    entry.expect_nothing_lost()
}

fn two_daemons() -> Outcome {
    let (pod, _container) = pod()?;
    let app = pod.container("app").file("/etc/app", "", 0o644);
    let mut app = worker(app, "cat /etc/app").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let first = config.start()?;
    let exit = config.run()?;
    expect_eq(&format!("exit code, of {exit}"), &exit.code(), &Some(FAILURE))?;
    let complaints = exit.complaints();
    expect_eq(&format!("number of sentences, of {exit}"), &complaints.len(), &1)?;
    let state = config.folder().join("state").display().to_string();
    check_words(&complaints[0], &["another", &state, &first.pid().to_string()])?;
    let_work(&mut app)?;
    let report = last_report(&config, first)?;
    report.container(&app)?.expect_files(&["/bin/busybox", "/etc/app"])
}

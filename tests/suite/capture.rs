//! Which files are reported, by which path, and which are only counted.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use serde_json::json;
use whodunit_containers::condition::{PATIENCE, slowness, wait_until};
use whodunit_containers::{Container, ContainerBuilder, DaemonConfig, Pod};

use crate::discovery::{let_work, worker};
use crate::report::{Report, execs, expect, expect_eq, last_report};
use crate::{Outcome, about_capture};

/// Linux' number for "permission denied".
const EACCES: u64 = 13;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        about_capture("capture::default_prefixes_are_counted_and_left_out", default_prefixes),
        about_capture("capture::prefixes_of_the_configuration_are_left_out", custom_prefixes),
        about_capture("capture::a_missing_file_is_missing_and_not_used", missing),
        about_capture("capture::a_refused_file_is_refused_with_its_errno", refused),
        about_capture("capture::a_symbolic_link_is_listed_beside_what_it_leads_to", symlinks),
        about_capture("capture::a_relative_path_is_reported_whole", relative),
        about_capture("capture::paths_of_any_bytes_arrive_escaped", odd_bytes),
        about_capture("capture::a_long_path_arrives_whole", long_path),
        about_capture("capture::a_runtime_exec_adds_its_program_and_files_only", runtime_exec),
        about_capture("capture::a_runtime_that_is_moved_while_it_works_is_no_container", moved),
        about_capture("capture::eviction_removes_no_file_from_the_report", eviction),
        about_capture("capture::a_file_made_or_replaced_is_reported_as_itself", replaced),
    ]
}

/// Lets one container do its work under a daemon, and gives the last report.
fn watch(
    describe: impl FnOnce(ContainerBuilder) -> ContainerBuilder,
    work: &str,
    configure: impl FnOnce(DaemonConfig) -> DaemonConfig,
) -> Result<(Report, Container), Failed> {
    let pod = Pod::new("capture")?;
    let mut container = worker(describe(pod.container("app")), work).start()?;
    let config = configure(DaemonConfig::for_pod(&pod)?);
    let daemon = config.start()?;
    let_work(&mut container)?;
    Ok((last_report(&config, daemon)?, container))
}

fn default_prefixes() -> Outcome {
    let work = "cat /proc/version /sys/devices/system/cpu/online /dev/null /etc/kept /device/kept";
    let (report, container) = watch(
        |builder| builder.file("/etc/kept", "", 0o644).file("/device/kept", "", 0o644),
        work,
        |config| config,
    )?;
    let entry = report.container(&container)?;
    entry.expect_files(&["/bin/busybox", "/device/kept", "/etc/kept"])?;
    // With what a static program asks about itself.
    expect_eq("excluded", &entry.counter("excluded"), &4)?;
    entry.expect_events(5 + execs(1))
}

fn custom_prefixes() -> Outcome {
    let (report, container) = watch(
        |builder| {
            builder
                .file("/opt/skip/a", "", 0o644)
                .file("/opt/skip/deep/b", "", 0o644)
                .file("/opt/skipper/c", "", 0o644)
                .file("/etc/kept", "", 0o644)
        },
        "cat /opt/skip/a /opt/skip/deep/b /opt/skipper/c /etc/kept",
        |config| config.exclude(&["/opt/skip/", "/etc/nothing/"]),
    )?;
    let entry = report.container(&container)?;
    entry.expect_files(&["/bin/busybox", "/etc/kept", "/opt/skipper/c"])?;
    // Not `/proc`, where a static program asks about itself.
    expect_eq("excluded", &entry.counter("excluded"), &2)
}

fn missing() -> Outcome {
    let work = "cat /etc/missing.conf /etc/there.conf; cat /no/such/folder; true";
    let (report, container) =
        watch(|builder| builder.file("/etc/there.conf", "", 0o644), work, |config| config)?;
    let entry = report.container(&container)?;
    entry.expect_files(&["/bin/busybox", "/etc/there.conf"])?;
    entry.expect_list("missing", &["/etc/missing.conf", "/no/such/folder"])?;
    expect_eq("refused", &entry.0["refused"], &json!([]))?;
    entry.expect_events(3 + execs(2))
}

fn refused() -> Outcome {
    let (report, container) = watch(
        |builder| builder.user(1000).file("/etc/secret", "", 0o600).file("/etc/open", "", 0o644),
        "cat /etc/secret /etc/open; true",
        |config| config,
    )?;
    let entry = report.container(&container)?;
    entry.expect_files(&["/bin/busybox", "/etc/open"])?;
    // Whoever is not root may have rules for busybox there, and it looks for them.
    entry.expect_list("missing", &["/etc/busybox.conf"])?;
    expect_eq("refused", &entry.0["refused"], &json!([{ "path": "/etc/secret", "errno": EACCES }]))
}

fn symlinks() -> Outcome {
    let (report, container) = watch(
        |builder| {
            builder
                .file("/srv/target", "", 0o644)
                .file("/srv/deep/other", "", 0o644)
                .symlink("/etc/absolute", "/srv/target")
                .symlink("/etc/chain", "absolute")
                .symlink("/data", "srv/deep")
        },
        "cat /etc/absolute; cat /etc/chain; cat /data/other",
        |config| config,
    )?;
    let entry = report.container(&container)?;
    entry.expect_files(&["/bin/busybox", "/srv/deep/other", "/srv/target"])?;
    entry.expect_list("unresolved", &[])?;
    let links = json!([
        { "path": "/data", "target": "srv/deep" },
        { "path": "/etc/absolute", "target": "/srv/target" },
        { "path": "/etc/chain", "target": "absolute" },
    ]);
    expect_eq("the links crossed", &entry.0["links"], &links)?;
    entry.expect_events(3 + execs(3))
}

fn relative() -> Outcome {
    let (report, container) = watch(
        |builder| {
            builder
                .file("/srv/here/a", "", 0o644)
                .file("/srv/beside/b", "", 0o644)
                .file("/etc/c", "", 0o644)
        },
        "cd /srv/here; cat a ./../beside/b ../../../etc//c",
        |config| config,
    )?;
    let entry = report.container(&container)?;
    entry.expect_files(&["/bin/busybox", "/etc/c", "/srv/beside/b", "/srv/here", "/srv/here/a"])
}

fn odd_bytes() -> Outcome {
    let named = |name: &[u8]| {
        let mut path = b"/srv/".to_vec();
        path.extend_from_slice(name);
        OsStr::from_bytes(&path).to_owned()
    };
    let (report, container) = watch(
        |builder| {
            builder
                .file(named(b"new\nline"), "", 0o644)
                .file(named(b"in\xffvalid"), "", 0o644)
                .file(named(b"back\\slash"), "", 0o644)
                .file(named("größe".as_bytes()), "", 0o644)
        },
        // The shell gives every file of the folder by its own name. It reads the folder for that.
        "cd /srv; cat ./*",
        |config| config,
    )?;
    let entry = report.container(&container)?;
    entry.expect_files(&[
        "/bin/busybox",
        "/srv",
        "/srv/back\\\\slash",
        "/srv/größe",
        "/srv/in\\xffvalid",
        "/srv/new\nline",
    ])
}

fn long_path() -> Outcome {
    // 15 folders with names of 200 bytes: 3,015 bytes, of the 4,095 that a path may have.
    let folder = format!("/{}", "f".repeat(200));
    let path = format!("{}/file", folder.repeat(15));
    let (report, container) =
        watch(|builder| builder.file(&path, "", 0o644), &format!("cat {path}"), |config| config)?;
    let entry = report.container(&container)?;
    entry.expect_files(&["/bin/busybox", &path])?;
    entry.expect_nothing_lost()
}

fn runtime_exec() -> Outcome {
    let pod = Pod::new("exec")?;
    let container = pod
        .container("app")
        .file("/etc/asked", "", 0o644)
        .copy(env!("CARGO_BIN_EXE_witness"), "/witness")
        .shell("read stay")
        .start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let daemon = config.start()?;
    let output = container.exec(&["/witness", "3", "/etc/asked"])?;
    expect_eq("status", &output.status.code(), &Some(0))?;
    let report = last_report(&config, daemon)?;
    let entry = report.container(&container)?;
    entry.expect_files(&["/etc/asked", "/witness"])?;
    entry.expect_list("executed", &["/witness"])?;
    entry.expect_list("missing", &[])?;
    // The exec, what the standard library reads of itself under /proc, three opens.
    entry.expect_events(4 + execs(1))
}

/// Whoever is put into the cgroup is there a moment before the kernel says so, and may be opening files on another CPU.
fn moved() -> Outcome {
    let pod = Pod::new("moved")?;
    let _app = worker(pod.container("app"), "cat /etc/hostname").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let daemon = config.start()?;
    let name = "moved-while-it-works";
    let folder = pod.cgroup_folder().join(name);
    fs::create_dir(&folder)?;
    let file = tempfile::NamedTempFile::new()?;
    let moves = 400 / slowness();
    let moved = (0..moves).try_for_each(|_| one_moved(&folder, file.path()));
    let report = last_report(&config, daemon);
    expect("its cgroup goes", wait_until(PATIENCE, || fs::remove_dir(&folder).is_ok()))?;
    moved?;
    let report = report?;
    let entry = report.running_called(name)?;
    let seen = entry.counter("setup");
    expect(format!("{seen} accesses of {moves} runtimes were seen"), seen > u64::from(moves))?;
    entry.expect_files(&[])?;
    entry.expect_events(0)
}

/// A runtime's process that opens a file again and again, and is put into a cgroup meanwhile.
fn one_moved(folder: &Path, file: &Path) -> Result<(), Failed> {
    let script = "echo at work; while :; do : < \"$0\"; done";
    let mut runtime =
        Command::new("/bin/sh").args(["-c", script]).arg(file).stdout(Stdio::piped()).spawn()?;
    let said = runtime.stdout.as_mut().map_or(Ok(0), |it| it.read(&mut [0; 8]));
    let put = fs::write(folder.join("cgroup.procs"), runtime.id().to_string());
    // It goes on for some more files.
    std::thread::sleep(Duration::from_millis(2));
    runtime.kill()?;
    runtime.wait()?;
    said?;
    Ok(put?)
}

fn eviction() -> Outcome {
    let files: Vec<String> = (0..40).map(|number| format!("/srv/{number:02}")).collect();
    let (report, container) = watch(
        |builder| files.iter().fold(builder, |builder, file| builder.file(file, "", 0o644)),
        &format!("cat {0}; cat {0}", files.join(" ")),
        |config| config.dedup_capacity(8),
    )?;
    let entry = report.container(&container)?;
    let mut expected: Vec<&str> = files.iter().map(String::as_str).collect();
    expected.push("/bin/busybox");
    entry.expect_files(&expected)?;
    entry.expect_events(80 + execs(2))
}

fn replaced() -> Outcome {
    let (report, container) = watch(
        |builder| builder.folder("/data"),
        // Another file takes the name and, most likely, the inode number of the first.
        "echo one > /data/first; cat /data/first; rm /data/first; echo two > /data/second; \
         cat /data/second; mv /data/second /data/third; cat /data/third",
        |config| config,
    )?;
    let entry = report.container(&container)?;
    entry.expect_files(&["/bin/busybox", "/data/first", "/data/second", "/data/third"])
}

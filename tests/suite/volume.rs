//! Many events: every one is counted, none is lost.

use libtest_mimic::{Failed, Trial};
use std::time::Duration;
use whodunit_containers::{Container, DaemonConfig, Pod};

use crate::report::{expect_eq, last_report};
use crate::{Outcome, about_capture};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        about_capture("volume::a_million_opens_of_100_files_are_a_million_events", a_million_opens),
        about_capture("volume::every_one_of_20000_different_files_is_reported", many_files),
    ]
}

const OPENS: u64 = 1_000_000;

/// Events that starting the witness makes: its exec, the C library's look at `/proc/self/exe` and the
/// standard library's at `/proc/self/maps`. It is linked statically, so there is no loader.
const EVENTS_OF_A_START: u64 = 3;

/// A machine under load takes its time for a million opens.
const LONG: Duration = Duration::from_secs(120);

/// Waits for the end of the witness, and expects it to have opened every file.
fn finish(witness: &mut Container) -> Outcome {
    let status = witness.wait_at_most(LONG)?;
    expect_eq(&format!("its status; it said {}", witness.stderr()), &status.code(), &Some(0))
}

fn files(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("/srv/{number:05}")).collect()
}

fn a_million_opens() -> Outcome {
    let pod = Pod::new("million")?;
    let _neighbour = pod.container("neighbour").shell("read stay").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let daemon = config.start()?;
    let files = files(100);
    let mut program = vec!["/witness".to_owned(), OPENS.to_string()];
    program.extend(files.iter().cloned());
    let builder = pod.container("million").copy(env!("CARGO_BIN_EXE_witness"), "/witness");
    let builder = files.iter().fold(builder, |builder, file| builder.file(file, "", 0o644));
    let mut witness = builder.program(&program).start()?;
    finish(&mut witness)?;
    let report = last_report(&config, daemon)?;
    let entry = report.container(&witness)?;
    entry.expect_events(OPENS + EVENTS_OF_A_START)?;
    let mut expected: Vec<&str> = files.iter().map(String::as_str).collect();
    expected.push("/witness");
    entry.expect_files(&expected)?;
    entry.expect_nothing_lost()?;
    entry.expect_list("missing", &[])?;
    expect_eq("dropped_events", &report.number("dropped_events"), &0)
}

fn many_files() -> Outcome {
    let pod = Pod::new("many")?;
    let volume = tempfile::tempdir()?;
    let files = files(20_000);
    for file in &files {
        let name = file.trim_start_matches("/srv/");
        std::fs::write(volume.path().join(name), "").map_err(Failed::from)?;
    }
    let builder = pod.container("many").bind(volume.path(), "/srv");
    let mut app = builder.shell("read go; exec find /srv -type f -exec cat {} +").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let daemon = config.start()?;
    app.tell("go")?;
    finish(&mut app)?;
    let report = last_report(&config, daemon)?;
    let entry = report.container(&app)?;
    let mut expected: Vec<&str> = files.iter().map(String::as_str).collect();
    expected.extend(["/bin/busybox", "/srv"]);
    entry.expect_files(&expected)?;
    entry.expect_nothing_lost()
}

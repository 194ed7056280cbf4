//! A daemon that starts again goes on with the report of the run before it.

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use whodunit_containers::{DaemonConfig, Pod};

use crate::discovery::worker;
use crate::report::{Report, execs, expect, expect_eq, last_report, lists, lists_ended};
use crate::{Outcome, about_capture};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        about_capture("restart::after_sigterm_the_report_goes_on", || goes_on(Ending::Asked)),
        about_capture("restart::after_kill_9_the_report_goes_on", || goes_on(Ending::Killed)),
        about_capture(
            "restart::a_container_that_ended_meanwhile_is_kept_as_ended",
            ended_meanwhile,
        ),
        about_capture(
            "restart::a_report_that_is_no_report_is_put_aside_or_refused",
            foreign_report,
        ),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Asked,
    Killed,
}

fn generation(report: &Value) -> u64 {
    report["daemon"]["generation"].as_u64().unwrap_or_default()
}

fn goes_on(ending: Ending) -> Outcome {
    let pod = Pod::new("restart")?;
    let app = pod
        .container("app")
        .file("/etc/before", "", 0o644)
        .file("/etc/between", "", 0o644)
        .file("/etc/after", "", 0o644);
    let work = "cat /etc/before; echo before; read go; cat /etc/between; echo between; read go; \
                cat /etc/before /etc/after";
    let mut app = worker(app, work).start()?;
    let config = DaemonConfig::for_pod(&pod)?;

    let mut daemon = config.start()?;
    app.tell("go")?;
    app.hear("before")?;
    let first = daemon.wait_report("the file of before", |report| {
        lists(report, app.id(), "files", "/etc/before")
    })?;
    let exit = match ending {
        Ending::Asked => daemon.stop()?,
        Ending::Killed => daemon.kill9()?,
    };
    let expected = match ending {
        Ending::Asked => (Some(0), None),
        Ending::Killed => (None, Some(9)),
    };
    expect_eq("how the first run ended", &(exit.code(), exit.signal()), &expected)?;
    app.tell("go")?;
    app.hear("between")?;

    let daemon = config.start()?;
    app.tell("go")?;
    app.hear("done")?;
    let report = last_report(&config, daemon)?;
    expect_eq("started_at", &report.0["started_at"], &first["started_at"])?;
    expect(
        "daemon.started_at is new",
        report.0["daemon"]["started_at"] != first["daemon"]["started_at"],
    )?;
    expect_eq("generation", &generation(&report.0), &(generation(&first) + 1))?;
    report.expect_running(&[&app])?;
    expect_eq("ended containers", &report.ended().count(), &0)?;
    let entry = report.container(&app)?;
    // Nobody watched between the runs, and the report does not pretend that somebody did.
    entry.expect_files(&["/bin/busybox", "/etc/after", "/etc/before"])?;
    // One file in the first run, two in the second.
    entry.expect_events(3 + execs(2))
}

fn ended_meanwhile() -> Outcome {
    let pod = Pod::new("meanwhile")?;
    let _stays = pod.container("stays").shell("read stay").start()?;
    let goes = pod.container("goes").file("/etc/goes", "", 0o644);
    let mut goes = worker(goes, "cat /etc/goes").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let daemon = config.start()?;
    goes.tell("go")?;
    goes.hear("done")?;
    last_report(&config, daemon)?;
    let id = goes.id().to_owned();
    goes.delete()?;

    let mut daemon = config.start()?;
    daemon.wait_report("the container that went, ended", |report| lists_ended(report, &id))?;
    let report = last_report(&config, daemon)?;
    expect("it does not run", !report.running_names().contains(id.as_str()))?;
    let entry = report.ended_container(&id)?;
    entry.expect_files(&["/bin/busybox", "/etc/goes"])?;
    entry.expect_events(1 + execs(1))
}

/// What lies where the report goes may be anything. The daemon must not go on with nonsense, and
/// its own report must be right afterwards.
fn foreign_report() -> Outcome {
    let pod = Pod::new("foreign")?;
    let app = pod.container("app").file("/etc/app", "", 0o644);
    let mut app = worker(app, "cat /etc/app").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    std::fs::write(config.report_path(), b"{\"containers\": [{\"name\": 7}], \"sche")
        .map_err(Failed::from)?;
    let daemon = config.start()?;
    app.tell("go")?;
    app.hear("done")?;
    let report: Report = last_report(&config, daemon)?;
    let entry = report.container(&app)?;
    entry.expect_files(&["/bin/busybox", "/etc/app"])?;
    entry.expect_events(1 + execs(1))
}

//! What a hostile container may try so that its files are seen wrongly (`tests/programs/tricks.c`): paths are told
//! as the kernel resolved them, and what cannot be known is counted or marked.

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use whodunit_containers::daemon::read_report;
use whodunit_containers::{Pod, program};

use crate::report::{Report, expect, expect_eq};
use crate::roads::{LoggedDaemon, between, has_flag, is_told};
use crate::{Outcome, about_capture};

pub(crate) fn trials() -> Vec<Trial> {
    vec![about_capture("roads::tricks_change_no_path_that_is_told", tricks)]
}

/// An event as `tricks` tells it.
fn line(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    let mark = if has_flag(event, "truncated") { "truncated" } else { "" };
    format!(
        "{}\t{}\t{}\t{}\t{mark}",
        text("kind"),
        text("outcome"),
        text("requested"),
        text("path")
    )
}

fn tricks() -> Outcome {
    let pod = Pod::new("tricks")?;
    let mut container = pod
        .container("app")
        .copy(program::TRICKS.make()?, "/tricks")
        .file("/begin", "", 0o644)
        .file("/end", "", 0o644)
        .program(&["/tricks"])
        .start()?;
    container.hear("ready")?;
    let logged = LoggedDaemon::for_pod(&pod)?;
    let daemon = logged.config.start()?;
    container.tell("go")?;
    container.hear("done")?;
    let exit = daemon.stop()?;
    expect_eq("the daemon's status", &exit.code(), &Some(0))?;
    let report = Report::check_last(read_report(logged.config.report_path())?)?;
    let said = container.stdout();
    let events = between(logged.events()?)?;
    let mut seen: Vec<String> = events.iter().filter(|event| is_told(event)).map(line).collect();
    let mut told: Vec<String> =
        said.lines().filter(|line| line.contains('\t')).map(str::to_owned).collect();
    expect(format!("the program did its tricks: {said}"), told.len() > 10)?;
    seen.sort_unstable();
    told.sort_unstable();
    expect_eq("what was done, each once", &seen, &told)?;
    let unreadable = said.lines().find_map(|line| line.strip_prefix("unreadable "));
    let unreadable: u64 = unreadable
        .and_then(|count| count.parse().ok())
        .ok_or_else(|| Failed::from(said.clone()))?;
    let entry = report.container(&container)?;
    entry.expect_lost(&[("path-unreadable", unreadable)])?;
    // What the kernel resolved needs no mark; what nobody resolved has one.
    for event in events.iter().filter(|event| event["kind"] == "open") {
        let marked = has_flag(event, "unresolved");
        expect_eq(&format!("the mark of {event:#}"), &marked, &has_flag(event, "truncated"))?;
    }
    Ok(())
}

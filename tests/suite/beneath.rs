//! Ways to files beside the system calls that name them (`tests/programs/beneath.c`), on both tiers: seen or not, as
//! the page about coverage says.

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;
use whodunit_containers::daemon::read_report;
use whodunit_containers::{Container, Pod, program};

use crate::report::{Report, expect, expect_eq};
use crate::roads::{LoggedDaemon, between, has_flag, is_told, lost_as_interrupted};
use crate::{Outcome, coverage, machine};

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name, tier, lacks: fn() -> Option<&'static str>| {
        Trial::ignorable_test(name, move || match lacks() {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => beneath(&format!("tier = {tier:?}"), tier).map(|ways| ways.completion()),
        })
    };
    vec![
        trial(
            "roads::ways_beside_the_calls_are_seen_as_the_page_says",
            "base",
            machine::lacks_for_capture,
        ),
        trial(
            "exact::ways_beside_the_calls_are_seen_as_the_page_says",
            "exact",
            machine::lacks_for_exact,
        ),
        Trial::ignorable_test("exact::a_second_program_counts_nothing_twice", || {
            match machine::lacks_for_exact() {
                Some(reason) => Ok(Completion::ignored_with(reason)),
                None => counted_once().map(|()| Completion::Completed),
            }
        }),
    ]
}

/// What `beneath` needs: for `acct`.
const CAPABILITIES: [&str; 2] = ["CAP_DAC_OVERRIDE", "CAP_SYS_PACCT"];

/// Ways that kernels have given up: one that lacks them lacks nothing.
const GIVEN_UP: [&str; 2] = ["uselib", "x32"];

/// An event as `beneath` tells it.
fn line(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    let way = ["io-uring", "by-kernel"].into_iter().find(|flag| has_flag(event, flag));
    format!(
        "{}\t{}\t{}\t{}\t{}",
        text("kind"),
        text("outcome"),
        text("requested"),
        text("path"),
        way.unwrap_or_default()
    )
}

/// What is to be seen on that tier of what the program says that it did, and what the kernel has not got.
fn expected(said: &str, tier: &str) -> Result<(Vec<String>, Vec<String>), Failed> {
    let (mut expected, mut lacking) = (Vec::new(), Vec::new());
    let mut seen = false;
    for line in said.lines() {
        if let Some(name) = line.strip_prefix("road ") {
            seen = coverage::is_seen(name, tier)?;
        } else if let Some(name) = line.strip_prefix("lacks ") {
            lacking.push(name.to_owned());
        } else if line.contains('\t') && seen {
            expected.push(line.to_owned());
        }
    }
    lacking.retain(|name| !GIVEN_UP.contains(&name.as_str()));
    expected.sort_unstable();
    Ok((expected, lacking))
}

/// Expects what was done, each once, but for what the report counts as kept from the programs.
fn expect_seen(
    report: &Report,
    container: &Container,
    seen: &[String],
    told: &[String],
) -> Outcome {
    let own = lost_as_interrupted(&report.container(container)?)?;
    let kept = report.lost("interrupted") + own;
    let more: Vec<_> = seen.iter().filter(|line| !told.contains(line)).collect();
    let less: Vec<_> = told.iter().filter(|line| !seen.contains(line)).collect();
    let is_each_once = seen.len() + less.len() == told.len();
    expect(
        format!("each once, but for {kept}. Not done: {more:#?}; not seen: {less:#?}"),
        more.is_empty() && is_each_once && less.len() as u64 <= kept,
    )
}

/// How the program went its ways.
struct Ways {
    /// Those that this kernel has not got.
    lacking: Vec<String>,
    /// Accesses of the container, and those of anybody that the kernel kept from the programs.
    received: u64,
    kept: u64,
}

impl Ways {
    fn completion(&self) -> Completion {
        match &self.lacking[..] {
            [] => Completion::Completed,
            lacking => Completion::ignored_with(format!(
                "it holds for all but what this kernel lacks: {}",
                lacking.join(", ")
            )),
        }
    }
}

/// With a second program behind each, as kernels have it that keep something from the first (Linux 6.19).
fn counted_once() -> Outcome {
    let [one, two] = ["never", "always"]
        .map(|backup| beneath(&format!("tier = \"exact\"\nbackup = {backup:?}"), "exact"));
    let (one, two) = (one?, two?);
    expect(
        format!(
            "{} accesses with one program, but for {}; {} with two, but for {}",
            one.received, one.kept, two.received, two.kept
        ),
        two.received <= one.received + one.kept && one.received <= two.received + two.kept,
    )
}

/// Has the program go its ways under a daemon with these keys of `[capture]`, which is of that tier, and expects them to be seen.
fn beneath(keys: &str, tier: &str) -> Result<Ways, Failed> {
    let program = program::BENEATH.make()?;
    let pod = Pod::new("beneath")?;
    let mut container = pod
        .container("app")
        .copy(program, "/beneath")
        .file("/begin", "", 0o644)
        .file("/end", "", 0o644)
        .capabilities(&CAPABILITIES)
        .program(&["/beneath"])
        .start()?;
    container.hear("ready")?;
    let logged = LoggedDaemon::of_capture(&pod, keys)?;
    let daemon = logged.config.start()?;
    container.tell("go")?;
    container.hear("done")?;
    let exit = daemon.stop()?;
    expect_eq("the daemon's status", &exit.code(), &Some(0))?;
    let said = container.stdout();
    let (told, lacking) = expected(&said, tier)?;
    expect(format!("the program went its ways: {said}"), said.lines().count() > 20)?;
    let events = between(logged.events()?)?;
    // What maps the rings are made with is no file's.
    let mut seen: Vec<String> = events
        .iter()
        .filter(|event| is_told(event) && !has_flag(event, "detached"))
        .map(line)
        .collect();
    seen.sort_unstable();
    let report = Report::check_last(read_report(logged.config.report_path())?)?;
    expect_seen(&report, &container, &seen, &told)?;
    for event in events.iter().filter(|event| has_flag(event, "io-uring")) {
        expect_eq("the process of what a ring did", &event["process"], &Value::from("beneath"))?;
    }
    let received = report.container(&container)?.counter("received");
    Ok(Ways { lacking, received, kept: report.lost("interrupted") })
}

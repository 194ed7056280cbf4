//! Reading reports: each is validated against the published schema and against what must hold for
//! every report, then asked for what a trial wants to know.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use jsonschema::Validator;
use libtest_mimic::Failed;
use serde_json::Value;
use whodunit_containers::{Container, Daemon, DaemonConfig, Exit};

use crate::Outcome;

/// A report that is valid.
#[derive(Clone, Debug)]
pub(crate) struct Report(pub(crate) Value);

/// The top of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate lies in the repository")
        .to_owned()
}

fn schema() -> &'static Validator {
    static SCHEMA: OnceLock<Validator> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let path = repository().join("plugins/report-json/report.schema.json");
        let text = std::fs::read(&path)
            .unwrap_or_else(|error| panic!("cannot read the schema {}: {error}", path.display()));
        let schema = serde_json::from_slice(&text).expect("the schema is JSON");
        jsonschema::validator_for(&schema).expect("the schema is a JSON Schema")
    })
}

impl Report {
    /// Checks what holds for every report, at any moment.
    pub(crate) fn check(value: Value) -> Result<Report, Failed> {
        let errors: Vec<String> = schema()
            .iter_errors(&value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        if !errors.is_empty() {
            return Err(format!("the schema refuses the report: {errors:#?}\n{value:#}").into());
        }
        let report = Report(value);
        // Ended containers that made room for newer ones are counted apart.
        let mut total = number(&report.0["forgotten"]["total_events"]);
        for container in report.every_container() {
            let files = strings(&container["files"]);
            let mut sorted = files.clone();
            sorted.sort_unstable();
            sorted.dedup();
            let name = &container["name"];
            expect_eq(&format!("the files of {name}, sorted and each once"), &files, &sorted)?;
            expect_eq(
                &format!("unique_files of {name}"),
                &container["unique_files"].as_u64(),
                &Some(files.len() as u64),
            )?;
            total += number(&container["total_events"]);
        }
        expect_eq("total_events, over all containers", &report.number("total_events"), &total)?;
        Ok(report)
    }

    /// Checks what holds for the last report of a daemon that ended in order: nothing is under way,
    /// so every event is accounted for, as long as its containers are quiet.
    pub(crate) fn check_last(value: Value) -> Result<Report, Failed> {
        let report = Report::check(value)?;
        for container in report.every_container() {
            let counters = &container["counters"];
            let lost: u64 = container["lost"]
                .as_object()
                .map(|reasons| reasons.values().map(number).sum())
                .unwrap_or_default();
            expect_eq("lost_total", &number(&container["lost_total"]), &lost)?;
            let seen = number(&counters["received"]) + number(&counters["setup"]);
            let accounted = ["admitted", "excluded", "filtered", "duplicate"]
                .map(|name| number(&counters[name]));
            expect_eq(
                &format!(
                    "received + setup = admitted + excluded + filtered + duplicate + lost: {container:#}"
                ),
                &seen,
                &(accounted.iter().sum::<u64>() + lost),
            )?;
        }
        Ok(report)
    }

    /// What the daemon says was lost for this reason, of nobody in particular.
    pub(crate) fn lost(&self, reason: &str) -> u64 {
        number(&self.0["lost"][reason])
    }

    /// A number at the top.
    pub(crate) fn number(&self, key: &str) -> u64 {
        number(&self.0[key])
    }

    /// A text at the top.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// Containers that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Value> {
        self.0["containers"].as_array().into_iter().flatten()
    }

    /// Containers that ended.
    pub(crate) fn ended(&self) -> impl Iterator<Item = &Value> {
        self.0["ended_containers"].as_array().into_iter().flatten()
    }

    fn every_container(&self) -> impl Iterator<Item = &Value> {
        self.running().chain(self.ended())
    }

    /// The names of the containers that run.
    pub(crate) fn running_names(&self) -> BTreeSet<&str> {
        self.running().filter_map(|container| container["name"].as_str()).collect()
    }

    /// The entry of a container that runs, with its identity checked.
    pub(crate) fn container(&self, container: &Container) -> Result<Entry<'_>, Failed> {
        let entry = self.running_called(container.id())?;
        check_identity(entry.0, container)?;
        Ok(entry)
    }

    /// The entry of a container that runs, by its name.
    pub(crate) fn running_called(&self, name: &str) -> Result<Entry<'_>, Failed> {
        named(self.running(), name)
            .map(Entry)
            .ok_or_else(|| format!("the report lists no running {name}: {:#}", self.0).into())
    }

    /// The entry of a container that ended, by its name.
    pub(crate) fn ended_container(&self, name: &str) -> Result<Entry<'_>, Failed> {
        match named(self.ended(), name) {
            Some(entry) if entry["ended_at"].is_string() => Ok(Entry(entry)),
            Some(entry) => Err(format!("{name} ended, but not when: {entry:#}").into()),
            None => Err(format!("the report lists no ended {name}: {:#}", self.0).into()),
        }
    }

    /// Expects these containers to run, and no others.
    pub(crate) fn expect_running(&self, containers: &[&Container]) -> Outcome {
        let expected: BTreeSet<&str> = containers.iter().map(|container| container.id()).collect();
        expect_eq("the running containers", &self.running_names(), &expected)
    }
}

fn named<'a>(mut entries: impl Iterator<Item = &'a Value>, name: &str) -> Option<&'a Value> {
    entries.find(|entry| entry["name"] == name)
}

fn check_identity(entry: &Value, container: &Container) -> Outcome {
    expect_eq("cgroup_path", &entry["cgroup_path"], &Value::from(container.cgroup_path()))?;
    let id = container.cgroup_id().to_string();
    expect_eq("cgroup_id, as a string", &entry["cgroup_id"], &Value::from(id))
}

/// What a report says of one container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a>(pub(crate) &'a Value);

impl Entry<'_> {
    /// Expects these files, and no others.
    pub(crate) fn expect_files(&self, files: &[&str]) -> Outcome {
        self.expect_list("files", files)
    }

    /// Expects a list of texts to hold these, and no others, whatever their order.
    pub(crate) fn expect_list(&self, key: &str, expected: &[&str]) -> Outcome {
        let found: BTreeSet<String> = strings(&self.0[key]).into_iter().collect();
        let expected: BTreeSet<String> = expected.iter().map(|&text| text.to_owned()).collect();
        if found == expected {
            return Ok(());
        }
        let more: Vec<_> = found.difference(&expected).collect();
        let less: Vec<_> = expected.difference(&found).collect();
        Err(format!(
            "{key} of {}: not expected {more:?}, not there {less:?}; the entry is {:#}",
            self.0["name"], self.0
        )
        .into())
    }

    /// Expects this number of events.
    pub(crate) fn expect_events(&self, events: u64) -> Outcome {
        expect_eq(&format!("total_events of {:#}", self.0), &self.number("total_events"), &events)
    }

    /// Expects the container to have been watched from its birth and its first program to be known.
    pub(crate) fn expect_from_birth(&self, from_birth: bool) -> Outcome {
        for key in ["from_birth", "first_exec_seen"] {
            expect_eq(&format!("{key} of {:#}", self.0), &self.0[key], &from_birth.into())?;
        }
        Ok(())
    }

    /// Expects nothing to have been lost.
    pub(crate) fn expect_nothing_lost(&self) -> Outcome {
        expect_eq(&format!("lost_total of {:#}", self.0), &self.number("lost_total"), &0)?;
        expect_eq("truncated", &self.number("truncated"), &0)
    }

    /// Expects so much to have been lost, by reason, and nothing else.
    pub(crate) fn expect_lost(&self, expected: &[(&str, u64)]) -> Outcome {
        let expected: Value =
            expected.iter().map(|(reason, count)| (*reason, Value::from(*count))).collect();
        expect_eq(&format!("lost of {:#}", self.0["counters"]), &self.0["lost"], &expected)
    }

    /// How many texts of a list begin so.
    pub(crate) fn count_below(&self, key: &str, beginning: &str) -> u64 {
        strings(&self.0[key]).iter().filter(|text| text.starts_with(beginning)).count() as u64
    }

    /// A number of the entry.
    pub(crate) fn number(&self, key: &str) -> u64 {
        number(&self.0[key])
    }

    /// A counter of the entry.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        number(&self.0["counters"][name])
    }
}

/// The events of executing a static program so many times: the execution itself, and the look at
/// `/proc/self/exe` by which the C library finds out where the program lies.
pub(crate) const fn execs(times: u64) -> u64 {
    2 * times
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Fails unless both are equal, naming what they are.
pub(crate) fn expect_eq<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &T,
    expected: &T,
) -> Outcome {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: found {found:?}, expected {expected:?}").into())
}

/// Fails unless something holds.
pub(crate) fn expect(what: impl std::fmt::Display, holds: bool) -> Outcome {
    if holds { Ok(()) } else { Err(format!("does not hold: {what}").into()) }
}

/// Whether a report's list holds this text for the running container of this name.
pub(crate) fn lists(report: &Value, name: &str, key: &str, text: &str) -> bool {
    named(report["containers"].as_array().into_iter().flatten(), name)
        .is_some_and(|entry| strings(&entry[key]).iter().any(|found| found == text))
}

/// Whether a report lists an ended container of this name.
pub(crate) fn lists_ended(report: &Value, name: &str) -> bool {
    named(report["ended_containers"].as_array().into_iter().flatten(), name).is_some()
}

/// Stops a daemon, expects it to end in order, and checks its last report.
pub(crate) fn last_report(config: &DaemonConfig, daemon: Daemon<'_>) -> Result<Report, Failed> {
    let exit = daemon.stop()?;
    expect_clean_end(&exit)?;
    let report = whodunit_containers::daemon::read_report(config.report_path())?;
    Report::check_last(report)
}

fn expect_clean_end(exit: &Exit) -> Outcome {
    expect(format!("SIGTERM ends the daemon with 0: {exit}"), exit.code() == Some(0))
}

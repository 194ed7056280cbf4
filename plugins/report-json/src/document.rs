//! The document: the report's state as JSON. `report.schema.json` is its schema.

use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};
use whodunit_sdk::directory::Probe;
use whodunit_sdk::escape::escape;

use crate::container::{Container, Counters, Lost, Totals};
use crate::paths::{Marks, Paths};
use crate::previous::Forgotten;

/// Version of the document's schema. It grows when a field changes its meaning or goes.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// The whole report.
#[derive(Debug, Serialize)]
pub(crate) struct Document<'a> {
    pub(crate) schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<&'a str>,
    pub(crate) started_at: &'a str,
    pub(crate) last_updated_at: String,
    pub(crate) total_events: u64,
    pub(crate) dropped_events: u64,
    pub(crate) daemon: Daemon<'a>,
    pub(crate) probes: Vec<ProbeCoverage>,
    pub(crate) lost: Lost,
    pub(crate) earlier_runs: EarlierLosses<'a>,
    pub(crate) reporter_restarts: u64,
    pub(crate) reporter_dropped_events: u64,
    pub(crate) unreadable_reports: u64,
    pub(crate) containers: Vec<ContainerReport<'a>>,
    pub(crate) ended_containers: Vec<ContainerReport<'a>>,
    pub(crate) forgotten: &'a Forgotten,
}

/// The daemon that the report is of.
#[derive(Debug, Serialize)]
pub(crate) struct Daemon<'a> {
    pub(crate) version: &'a str,
    pub(crate) boot_id: &'a str,
    pub(crate) node: &'a str,
    pub(crate) scope: &'a str,
    pub(crate) generation: u32,
    pub(crate) started_at: String,
}

/// A probe, and whether it ran.
#[derive(Debug, Serialize)]
pub(crate) struct ProbeCoverage {
    name: String,
    live: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

impl From<Probe> for ProbeCoverage {
    fn from(probe: Probe) -> ProbeCoverage {
        ProbeCoverage { name: probe.name, live: probe.live, reason: probe.reason }
    }
}

/// What was lost without an owner before this run of the daemon.
#[derive(Debug, Serialize)]
pub(crate) struct EarlierLosses<'a> {
    pub(crate) lost: &'a Lost,
}

/// One container.
#[derive(Debug, Serialize)]
pub(crate) struct ContainerReport<'a> {
    name: &'a str,
    name_source: &'a str,
    id: &'a str,
    runtime: &'a str,
    cgroup_id: &'a str,
    cgroup_path: &'a str,
    watched_since: &'a str,
    from_birth: bool,
    first_exec_seen: bool,
    gaps: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_event_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<&'a str>,
    total_events: u64,
    unique_files: usize,
    complete: bool,
    incomplete_reasons: Vec<String>,
    counters: Counters,
    lost: Lost,
    lost_total: u64,
    earlier_runs: &'a Totals,
    truncated: u64,
    files: List<'a>,
    executed: List<'a>,
    setup_files: List<'a>,
    missing: List<'a>,
    unresolved: List<'a>,
    refused: Refusals<'a>,
}

impl<'a> ContainerReport<'a> {
    /// A container's part of the document, with at most `most` paths in each list. `shared` are the
    /// reasons why no container's part may be complete.
    pub(crate) fn new(container: &'a Container, shared: &[String], most: usize) -> Self {
        let Totals { counters, lost } = container.totals();
        let lost_total: u64 = lost.values().sum();
        let paths = &container.paths;
        let list = |marks| List { paths, marks, most };
        let refused = Refusals { paths, most };
        let unique_files = paths.count(Marks::USED);
        let left_out = [
            Marks::USED,
            Marks::EXECUTED,
            Marks::SETUP,
            Marks::MISSING,
            Marks::UNRESOLVED,
            Marks::REFUSED,
        ]
        .map(|marks| (paths.count(marks).saturating_sub(most)) as u64);
        let truncated = container.truncated + left_out.iter().sum::<u64>();
        let mut incomplete_reasons = own_reasons(container, &lost, lost_total, truncated);
        incomplete_reasons.extend_from_slice(shared);
        let identity = &container.identity;
        ContainerReport {
            name: &identity.name,
            name_source: &identity.name_source,
            id: &identity.id,
            runtime: &identity.runtime,
            cgroup_id: &identity.cgroup_id,
            cgroup_path: &identity.cgroup_path,
            watched_since: &container.watched_since,
            from_birth: container.from_birth,
            first_exec_seen: container.first_exec_seen,
            gaps: container.gaps,
            last_event_at: container.last_event_at.as_deref(),
            ended_at: container.ended_at.as_deref(),
            total_events: counters.received,
            unique_files,
            complete: incomplete_reasons.is_empty(),
            incomplete_reasons,
            counters,
            lost,
            lost_total,
            earlier_runs: &container.earlier_runs,
            truncated,
            files: list(Marks::USED),
            executed: list(Marks::EXECUTED),
            setup_files: list(Marks::SETUP),
            missing: list(Marks::MISSING),
            unresolved: list(Marks::UNRESOLVED),
            refused,
        }
    }
}

fn own_reasons(container: &Container, lost: &Lost, lost_total: u64, truncated: u64) -> Vec<String> {
    let mut reasons = Vec::new();
    if !container.from_birth {
        reasons.push("it was already there when the daemon first saw it".to_owned());
    }
    if container.gaps > 0 {
        let times = if container.gaps == 1 {
            "once".to_owned()
        } else {
            format!("{} times", container.gaps)
        };
        reasons.push(format!("the daemon was restarted {times}, and nothing was seen in between"));
    }
    if lost_total > 0 {
        reasons.push(format!("{lost_total} of its events were lost ({})", reasons_of(lost)));
    }
    if truncated > 0 {
        reasons.push(format!("{truncated} accesses of files did not fit into the report"));
    }
    reasons
}

/// Reasons and numbers, in words.
pub(crate) fn reasons_of(lost: &Lost) -> String {
    let reasons: Vec<_> = lost.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
    reasons.join(", ")
}

/// The sorted paths with a mark.
#[derive(Clone, Copy, Debug)]
struct List<'a> {
    paths: &'a Paths,
    marks: Marks,
    most: usize,
}

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let paths = self.paths.marked(self.marks).take(self.most);
        serializer.collect_seq(paths.map(|(path, _)| escape(path)))
    }
}

/// The sorted paths that were refused, with their errnos.
#[derive(Clone, Copy, Debug)]
struct Refusals<'a> {
    paths: &'a Paths,
    most: usize,
}

impl Serialize for Refusals<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Refusal<'a> {
            path: &'a str,
            errno: u8,
        }
        let mut list = serializer.serialize_seq(None)?;
        for (path, errno) in self.paths.marked(Marks::REFUSED).take(self.most) {
            list.serialize_element(&Refusal { path: &escape(path), errno })?;
        }
        list.end()
    }
}

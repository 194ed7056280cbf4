//! The report that the output holds when an instance starts: read back to go on from it.

use std::borrow::Cow;

use serde::Deserialize;
use whodunit_sdk::escape::unescape;

use crate::container::{Container, Identity, Lost, Totals};
use crate::document::SCHEMA_VERSION;
use crate::paths::{Marks, Paths};

/// What a new instance needs of the report before it. Fields that it does not need are not read.
#[derive(Debug, Deserialize)]
pub(crate) struct Previous<'a> {
    schema_version: u32,
    pub(crate) started_at: String,
    pub(crate) last_updated_at: String,
    pub(crate) daemon: PreviousDaemon,
    pub(crate) lost: Lost,
    pub(crate) earlier_runs: PreviousRuns,
    pub(crate) reporter_restarts: u64,
    pub(crate) reporter_dropped_events: u64,
    pub(crate) unreadable_reports: u64,
    pub(crate) forgotten: Forgotten,
    #[serde(borrow)]
    pub(crate) containers: Vec<PreviousContainer<'a>>,
    #[serde(borrow)]
    pub(crate) ended_containers: Vec<PreviousContainer<'a>>,
}

/// The run of the daemon that the report is of.
#[derive(Debug, Deserialize)]
pub(crate) struct PreviousDaemon {
    pub(crate) boot_id: String,
    pub(crate) generation: u32,
    pub(crate) started_at: String,
}

/// What was lost without an owner in the runs before that.
#[derive(Debug, Deserialize)]
pub(crate) struct PreviousRuns {
    pub(crate) lost: Lost,
}

/// Ended containers that made room for newer ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize)]
pub(crate) struct Forgotten {
    pub(crate) containers: u64,
    pub(crate) total_events: u64,
    pub(crate) dropped_events: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PreviousContainer<'a> {
    name: String,
    name_source: String,
    id: String,
    runtime: String,
    cgroup_id: String,
    cgroup_path: String,
    watched_since: String,
    from_birth: bool,
    first_exec_seen: bool,
    gaps: u32,
    last_event_at: Option<String>,
    ended_at: Option<String>,
    #[serde(flatten)]
    totals: Totals,
    earlier_runs: Totals,
    truncated: u64,
    #[serde(borrow)]
    files: Vec<Text<'a>>,
    #[serde(borrow)]
    executed: Vec<Text<'a>>,
    #[serde(borrow)]
    setup_files: Vec<Text<'a>>,
    #[serde(borrow)]
    missing: Vec<Text<'a>>,
    #[serde(borrow)]
    unresolved: Vec<Text<'a>>,
    #[serde(borrow)]
    refused: Vec<PreviousRefusal<'a>>,
}

#[derive(Debug, Deserialize)]
struct PreviousRefusal<'a> {
    #[serde(borrow)]
    path: Text<'a>,
    errno: u8,
}

/// A path as text. Borrowed from the document where that has no escapes of JSON.
#[derive(Debug, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Previous<'a> {
    /// The report in a document, or a sentence why it is none.
    pub(crate) fn parse(document: &'a [u8]) -> Result<Previous<'a>, String> {
        #[derive(Deserialize)]
        struct Version {
            schema_version: u32,
        }
        let version: Version = serde_json::from_slice(document)
            .map_err(|error| format!("it is not a report of whodunit ({error})"))?;
        if version.schema_version != SCHEMA_VERSION {
            return Err(format!(
                "its schema version is {}, and this reporter reads {SCHEMA_VERSION}",
                version.schema_version
            ));
        }
        let report: Previous<'a> = serde_json::from_slice(document)
            .map_err(|error| format!("it does not follow its schema ({error})"))?;
        debug_assert_eq!(report.schema_version, SCHEMA_VERSION);
        Ok(report)
    }
}

impl PreviousContainer<'_> {
    /// The container as it was, for an instance of the same run of the daemon or of a later one.
    pub(crate) fn restore(self, same_run: bool, paths: Paths) -> Container {
        let identity = Identity {
            name: self.name,
            name_source: self.name_source,
            id: self.id,
            runtime: self.runtime,
            cgroup_id: self.cgroup_id,
            cgroup_path: self.cgroup_path,
        };
        // The totals of the document are those of every run, so in a later run they are the base.
        // In the same run they come again with the next tick, and the base is that of the document.
        let (earlier_runs, this_run) = if same_run {
            let this_run = self.totals.minus(&self.earlier_runs);
            (self.earlier_runs, this_run)
        } else {
            (self.totals, Totals::default())
        };
        let mut container = Container::new(identity, self.watched_since, paths);
        container.from_birth = self.from_birth;
        container.first_exec_seen = self.first_exec_seen;
        container.gaps = self.gaps;
        container.last_event_at = self.last_event_at;
        container.ended_at = self.ended_at;
        container.earlier_runs = earlier_runs;
        container.this_run = this_run;
        for (list, marks) in [
            (self.files, Marks::USED),
            (self.executed, Marks::EXECUTED),
            (self.setup_files, Marks::SETUP),
            (self.missing, Marks::MISSING),
            (self.unresolved, Marks::UNRESOLVED),
        ] {
            for Text(text) in list {
                container.restore_path(&text, marks, 0);
            }
        }
        for PreviousRefusal { path: Text(text), errno } in self.refused {
            container.restore_path(&text, Marks::REFUSED, errno);
        }
        container.truncated += self.truncated;
        container
    }
}

impl Container {
    fn restore_path(&mut self, text: &str, marks: Marks, errno: u8) {
        if let Some(path) = unescape(text) {
            self.mark(&path, marks, errno);
        }
    }
}

impl Totals {
    /// What is left of a sum without one of its parts.
    fn minus(&self, part: &Totals) -> Totals {
        let (a, b) = (self.counters, part.counters);
        let lost = self.lost.iter().map(|(reason, count)| {
            let of_part = part.lost.get(reason).copied().unwrap_or_default();
            (reason.clone(), count.saturating_sub(of_part))
        });
        Totals {
            counters: crate::container::Counters {
                received: a.received.saturating_sub(b.received),
                setup: a.setup.saturating_sub(b.setup),
                admitted: a.admitted.saturating_sub(b.admitted),
                excluded: a.excluded.saturating_sub(b.excluded),
                duplicate: a.duplicate.saturating_sub(b.duplicate),
                evicted: a.evicted.saturating_sub(b.evicted),
            },
            lost: lost.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

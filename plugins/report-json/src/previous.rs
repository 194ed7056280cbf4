//! The report that the output holds when an instance starts: read back to go on from it.

use std::borrow::Cow;

use serde::Deserialize;
use whodunit_sdk::Kind;
use whodunit_sdk::directory::Mount;
use whodunit_sdk::escape::unescape;
use whodunit_sdk::place;

use crate::container::{Container, Identity, Lost, Totals};
use crate::document::{SCHEMA_VERSION, device_of};
use crate::paths::{self, Addition, Marks, Operations, Paths, Whereabouts};

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
    attributes: std::collections::BTreeMap<String, String>,
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
    interpreters: Vec<Text<'a>>,
    #[serde(borrow)]
    listed: Vec<Text<'a>>,
    #[serde(borrow)]
    setup_files: Vec<Text<'a>>,
    #[serde(borrow)]
    missing: Vec<Text<'a>>,
    #[serde(borrow)]
    unresolved: Vec<Text<'a>>,
    #[serde(borrow)]
    refused: Vec<PreviousRefusal<'a>>,
    #[serde(borrow)]
    links: Vec<PreviousLink<'a>>,
    #[serde(borrow)]
    changed: Vec<PreviousChange<'a>>,
    mounts: Vec<PreviousMount>,
    #[serde(borrow)]
    details: Vec<PreviousDetail<'a>>,
}

#[derive(Debug, Deserialize)]
struct PreviousLink<'a> {
    #[serde(borrow)]
    path: Text<'a>,
    #[serde(borrow)]
    target: Text<'a>,
}

#[derive(Debug, Deserialize)]
struct PreviousChange<'a> {
    #[serde(borrow)]
    path: Text<'a>,
    #[serde(borrow)]
    operations: Vec<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct PreviousMount {
    id: u32,
    point: String,
    file_system: String,
    source: String,
    device: String,
}

#[derive(Debug, Deserialize)]
struct PreviousDetail<'a> {
    #[serde(borrow)]
    path: Text<'a>,
    #[serde(borrow)]
    operations: Vec<Text<'a>>,
    #[serde(borrow, default)]
    requested: Vec<Text<'a>>,
    #[serde(default)]
    mount: u32,
    #[serde(default)]
    device: String,
    inode: Option<u64>,
    #[serde(default)]
    file_system: String,
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
            attributes: self.attributes,
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
        let mounts = self.mounts.into_iter().map(|mount| Mount {
            id: mount.id,
            point: mount.point,
            file_system: mount.file_system,
            source: mount.source,
            device: device_of(&mount.device).unwrap_or_default(),
        });
        container.take_mounts(mounts.collect());
        for (list, marks, kind) in [
            (self.files, Marks::USED, None),
            (self.executed, Marks::USED, Some(Kind::Exec)),
            (self.interpreters, Marks::USED, Some(Kind::Load)),
            (self.listed, Marks::USED, Some(Kind::List)),
            (self.setup_files, Marks::SETUP, None),
            (self.missing, Marks::MISSING, None),
            (self.unresolved, Marks::UNRESOLVED, None),
        ] {
            let operations = kind.map_or(Operations::NONE, Operations::of);
            for path in list {
                container.restore_path(&path, &Addition { operations, ..Addition::marks(marks) });
            }
        }
        for PreviousRefusal { path, errno } in self.refused {
            let refused = Addition { errno, ..Addition::marks(Marks::REFUSED) };
            container.restore_path(&path, &refused);
        }
        for PreviousLink { path, target } in self.links {
            if let Some(target) = unescape(&target.0) {
                let link = Addition { target: &target, ..Addition::marks(Marks::LINK) };
                container.restore_path(&path, &link);
            }
        }
        for PreviousChange { path, operations } in self.changed {
            let operations = operations_of(&operations);
            let change = Addition { operations, ..Addition::marks(Marks::CHANGED) };
            container.restore_path(&path, &change);
        }
        for detail in self.details {
            container.restore_detail(&detail);
        }
        container.truncated += self.truncated;
        container
    }
}

fn operations_of(names: &[Text<'_>]) -> Operations {
    let named = names.iter().map(|name| Operations::named(&name.0));
    named.fold(Operations::NONE, Operations::with)
}

impl Container {
    fn restore_path(&mut self, text: &Text<'_>, addition: &Addition<'_>) {
        if let Some(path) = unescape(&text.0) {
            self.add(&path, addition);
        }
    }

    fn restore_detail(&mut self, detail: &PreviousDetail<'_>) {
        let mount = self.mounts.get(&detail.mount);
        let by_name = place::file_system_magic(&detail.file_system);
        let identity = detail.inode.map(|inode| paths::Identity {
            inode,
            whereabouts: Whereabouts {
                mount: detail.mount,
                device: device_of(&detail.device).unwrap_or_default(),
                file_system: by_name
                    .or_else(|| place::file_system_magic(&mount?.file_system))
                    .unwrap_or_default(),
            },
        });
        let operations = operations_of(&detail.operations);
        let used = Addition { operations, identity, ..Addition::marks(Marks::USED) };
        self.restore_path(&detail.path, &used);
        for form in &detail.requested {
            if let Some(requested) = unescape(&form.0) {
                self.restore_path(
                    &detail.path,
                    &Addition { requested: &requested, ..Addition::marks(Marks::USED) },
                );
            }
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
                filtered: a.filtered.saturating_sub(b.filtered),
                duplicate: a.duplicate.saturating_sub(b.duplicate),
                evicted: a.evicted.saturating_sub(b.evicted),
            },
            lost: lost.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

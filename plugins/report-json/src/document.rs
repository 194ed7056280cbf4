//! The document: the report's state as JSON. `report.schema.json` is its schema.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::Serializer;
use whodunit_sdk::Kind;
use whodunit_sdk::directory::{Mount, Probe};
use whodunit_sdk::escape::escape;
use whodunit_sdk::place::{self, Place};

use crate::container::{Container, Counters, Lost, Totals};
use crate::paths::{Identity, Known, Marks, Operations, Paths};
use crate::previous::Forgotten;

/// Version of the document's schema. It grows when a field changes its meaning or goes.
pub(crate) const SCHEMA_VERSION: u32 = 2;

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
    attributes: &'a BTreeMap<String, String>,
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
    details_omitted: u64,
    files: List<'a>,
    executed: List<'a>,
    interpreters: List<'a>,
    listed: List<'a>,
    setup_files: List<'a>,
    missing: List<'a>,
    unresolved: List<'a>,
    refused: Rows<'a, Refusal<'a>>,
    links: Rows<'a, Link<'a>>,
    changed: Rows<'a, Change<'a>>,
    mounts: Vec<MountReport<'a>>,
    details: Rows<'a, Detail<'a>>,
}

/// How many entries a document may have at most, for each list of each container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// In every list but the next.
    pub(crate) paths: usize,
    /// In the list of details.
    pub(crate) details: usize,
}

/// The parts of `files` that are lists of their own, by what was done.
const EXECUTED: Operations = Operations::of(Kind::Exec);
const INTERPRETERS: Operations = Operations::of(Kind::Load);
const LISTED: Operations = Operations::of(Kind::List);

/// What is a change and no use.
const CHANGES: Operations = Operations::of(Kind::Truncate)
    .with(Operations::of(Kind::Rename))
    .with(Operations::of(Kind::Link))
    .with(Operations::of(Kind::Unlink))
    .with(Operations::of(Kind::Make))
    .with(Operations::of(Kind::Attributes));

impl<'a> ContainerReport<'a> {
    /// A container's part of the document. `shared` are the reasons why no container's part may be
    /// complete.
    pub(crate) fn new(container: &'a Container, shared: &[String], most: Most) -> Self {
        let Totals { counters, lost } = container.totals();
        let lost_total: u64 = lost.values().sum();
        let paths = &container.paths;
        let list = |marks, operations| {
            List(Selection {
                paths,
                mounts: &container.mounts,
                marks,
                operations,
                most: most.paths,
            })
        };
        let all = |marks| list(marks, Operations::NONE);
        let unique_files = paths.count(Marks::USED, Operations::NONE);
        let details = Selection { most: most.details, ..all(Marks::USED).0 };
        let lists = [
            all(Marks::USED),
            list(Marks::USED, EXECUTED),
            list(Marks::USED, INTERPRETERS),
            list(Marks::USED, LISTED),
            all(Marks::SETUP),
            all(Marks::MISSING),
            all(Marks::UNRESOLVED),
            all(Marks::REFUSED),
            all(Marks::LINK),
            all(Marks::CHANGED),
        ];
        let truncated =
            container.truncated + lists.iter().map(|list| list.0.left_out()).sum::<u64>();
        let [
            files,
            executed,
            interpreters,
            listed,
            setup_files,
            missing,
            unresolved,
            refused,
            links,
            changed,
        ] = lists;
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
            attributes: &identity.attributes,
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
            details_omitted: details.left_out(),
            files,
            executed,
            interpreters,
            listed,
            setup_files,
            missing,
            unresolved,
            refused: Rows::new(refused.0),
            links: Rows::new(links.0),
            changed: Rows::new(changed.0),
            mounts: container.mounts.values().map(MountReport::from).collect(),
            details: Rows::new(details),
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
    let unresolved = container.paths.count(Marks::UNRESOLVED, Operations::NONE);
    if unresolved > 0 {
        reasons.push(format!("{unresolved} paths that it used could not be resolved"));
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

/// The paths with some marks and operations, in their order.
#[derive(Clone, Copy, Debug)]
struct Selection<'a> {
    paths: &'a Paths,
    mounts: &'a BTreeMap<u32, Mount>,
    marks: Marks,
    operations: Operations,
    most: usize,
}

impl<'a> Selection<'a> {
    fn paths(self) -> impl Iterator<Item = Known<'a>> {
        self.paths.select(self.marks, self.operations).take(self.most)
    }

    /// How many do not fit.
    fn left_out(self) -> u64 {
        self.paths.count(self.marks, self.operations).saturating_sub(self.most) as u64
    }
}

/// A list of nothing but paths.
#[derive(Clone, Copy, Debug)]
struct List<'a>(Selection<'a>);

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.paths().map(|known| escape(known.path())))
    }
}

/// A list of objects, each of a path.
#[derive(Clone, Copy, Debug)]
struct Rows<'a, R> {
    selection: Selection<'a>,
    row: std::marker::PhantomData<R>,
}

impl<'a, R> Rows<'a, R> {
    fn new(selection: Selection<'a>) -> Rows<'a, R> {
        Rows { selection, row: std::marker::PhantomData }
    }
}

impl<'a, R: Row<'a> + Serialize> Serialize for Rows<'a, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Selection { mounts, .. } = self.selection;
        serializer.collect_seq(self.selection.paths().map(|known| R::new(known, mounts)))
    }
}

/// An object of a list.
trait Row<'a> {
    fn new(known: Known<'a>, mounts: &'a BTreeMap<u32, Mount>) -> Self;
}

#[derive(Debug, Serialize)]
struct Refusal<'a> {
    path: Cow<'a, str>,
    errno: u8,
}

impl<'a> Row<'a> for Refusal<'a> {
    fn new(known: Known<'a>, _: &'a BTreeMap<u32, Mount>) -> Refusal<'a> {
        Refusal { path: escape(known.path()), errno: known.errno() }
    }
}

#[derive(Debug, Serialize)]
struct Link<'a> {
    path: Cow<'a, str>,
    target: Cow<'a, str>,
}

impl<'a> Row<'a> for Link<'a> {
    fn new(known: Known<'a>, _: &'a BTreeMap<u32, Mount>) -> Link<'a> {
        Link { path: escape(known.path()), target: escape(known.target()) }
    }
}

#[derive(Debug, Serialize)]
struct Change<'a> {
    path: Cow<'a, str>,
    operations: Names,
}

impl<'a> Row<'a> for Change<'a> {
    fn new(known: Known<'a>, _: &'a BTreeMap<u32, Mount>) -> Change<'a> {
        let operations = Names(known.operations().both(CHANGES));
        Change { path: escape(known.path()), operations }
    }
}

/// What is known of a file that was used.
#[derive(Debug, Serialize)]
struct Detail<'a> {
    path: Cow<'a, str>,
    operations: Names,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    requested: Vec<Cow<'a, str>>,
    place: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    identity: Option<IdentityReport<'a>>,
}

#[derive(Debug, Serialize)]
struct IdentityReport<'a> {
    mount: u32,
    device: String,
    inode: u64,
    file_system: Cow<'a, str>,
}

impl<'a> Row<'a> for Detail<'a> {
    fn new(known: Known<'a>, mounts: &'a BTreeMap<u32, Mount>) -> Detail<'a> {
        let identity = known.identity();
        let mount = identity.and_then(|identity| mounts.get(&identity.whereabouts.mount));
        let place = match (mount, identity) {
            (Some(mount), _) => place::of_mount(mount),
            (None, Some(identity)) => place::of_file_system(identity.whereabouts.file_system),
            (None, None) => Place::Unknown,
        };
        Detail {
            path: escape(known.path()),
            operations: Names(known.operations()),
            requested: known.requested().map(escape).collect(),
            place: place.name(),
            identity: identity.map(|identity| IdentityReport::new(identity, mount)),
        }
    }
}

impl<'a> IdentityReport<'a> {
    fn new(identity: Identity, mount: Option<&'a Mount>) -> IdentityReport<'a> {
        let Identity { inode, whereabouts } = identity;
        let file_system = match mount {
            Some(mount) => Cow::Borrowed(mount.file_system.as_str()),
            None => place::file_system_name(whereabouts.file_system),
        };
        IdentityReport {
            mount: whereabouts.mount,
            device: device_text(whereabouts.device),
            inode,
            file_system,
        }
    }
}

/// A device as `/proc/self/mountinfo` has it: `major:minor`.
fn device_text(device: u32) -> String {
    format!("{}:{}", device >> 20, device & 0xf_ffff)
}

/// The device of such a text.
pub(crate) fn device_of(text: &str) -> Option<u32> {
    let (major, minor) = text.split_once(':')?;
    Some(major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?)
}

/// The names of some operations.
#[derive(Clone, Copy, Debug)]
struct Names(Operations);

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.names())
    }
}

/// A mount of a container.
#[derive(Debug, Serialize)]
struct MountReport<'a> {
    id: u32,
    point: &'a str,
    file_system: &'a str,
    source: &'a str,
    device: String,
    place: &'static str,
}

impl<'a> From<&'a Mount> for MountReport<'a> {
    fn from(mount: &'a Mount) -> MountReport<'a> {
        MountReport {
            id: mount.id,
            point: &mount.point,
            file_system: &mount.file_system,
            source: &mount.source,
            device: device_text(mount.device),
            place: place::of_mount(mount).name(),
        }
    }
}

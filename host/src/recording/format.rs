//! The layout of a recording: what stands in the file, and how it becomes events again.
//!
//! Owns the rows that are written. They are not the events themselves: an event may change its shape, a
//! row of a published version never does.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::directory::{Container, Process};
use crate::event::{
    Attribute, AttributeKey, Batch, CgroupId, ContainerId, ContainerTotals, Counter, Event, Flags,
    Kind, ProcessId, Span, Standpoint, Tick, TickCause, UnixNanos,
};
use crate::plugin::{Probe, Surroundings};

/// What a recording begins with.
pub(super) const MAGIC: [u8; 8] = *b"WHODUNIT";
/// The version that this daemon writes, and the only one that it reads.
pub(super) const VERSION: u16 = 1;
/// Bytes in front of the first block.
pub(super) const HEADER_BYTES: usize = MAGIC.len() + 2;
/// Bytes in front of what a block stores.
pub(super) const BLOCK_HEADER_BYTES: usize = 12;
/// A block is never larger than this, stored or unpacked.
pub(super) const MAX_BLOCK_BYTES: usize = 64 << 20;
/// Bytes in front of an entry's value.
pub(super) const ENTRY_HEADER_BYTES: usize = 5;

/// Kinds of entries.
pub(super) mod entry_kind {
    pub(in crate::recording) const START: u8 = 1;
    pub(in crate::recording) const CONTAINER: u8 = 2;
    pub(in crate::recording) const PROCESS: u8 = 3;
    pub(in crate::recording) const BATCH: u8 = 4;
    pub(in crate::recording) const TICK: u8 = 5;
    pub(in crate::recording) const END: u8 = 6;
    pub(in crate::recording) const DEATH: u8 = 7;
}

/// Where and when a recording was made: its first entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// When, in nanoseconds since the Unix epoch.
    pub time: UnixNanos,
    /// The machine's boot, in nanoseconds since the Unix epoch.
    pub booted: UnixNanos,
    /// Where the daemon ran.
    pub surroundings: Surroundings,
    /// Every probe of that daemon, and whether it ran.
    pub probes: Vec<Probe>,
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct StartRow {
    time: u64,
    booted: u64,
    pod_name: Option<String>,
    namespace: Option<String>,
    node_name: String,
    boot_id: String,
    scope: String,
    daemon_version: String,
    started: u64,
    probes: Vec<(String, bool, String)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ContainerRow {
    id: u32,
    name: String,
    name_source: String,
    runtime_id: String,
    runtime: String,
    cgroup: u64,
    cgroup_path: Vec<u8>,
    attributes: Vec<(String, String)>,
    watched_since: u64,
    from_birth: bool,
    ended: Option<u64>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ProcessRow {
    id: u32,
    pid: u32,
    started_ns: u64,
    comm: Vec<u8>,
    container: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct BatchRow {
    /// Events that the recorder could not take before this batch.
    dropped: u64,
    events: Vec<EventRow>,
    attributes: Vec<(u16, u64)>,
    text: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct EventRow {
    sequence: u64,
    time: u64,
    container: u32,
    process: u32,
    kind: u16,
    flags: u16,
    outcome: i32,
    path: (u32, u32),
    requested: (u32, u32),
    attributes_first: u32,
    attributes_count: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct TickRow {
    time: u64,
    cause: u8,
    containers: Vec<TotalsRow>,
    counters: Vec<(String, u64)>,
}

#[derive(Serialize, Deserialize)]
struct TotalsRow {
    container: u32,
    watched_since: u64,
    from_birth: bool,
    first_exec_seen: bool,
    last_event: Option<u64>,
    ended: Option<u64>,
    counters: Vec<(String, u64)>,
}

/// The record of a death.
#[derive(Serialize, Deserialize)]
pub(super) struct DeathRow {
    /// As JSON, which is how records are published: their shape is not the recording's to keep.
    pub(super) record: String,
}

/// The last entry of a recording that was ended and not cut off.
#[derive(Serialize, Deserialize)]
pub(super) struct EndRow {
    pub(super) time: u64,
    /// Events that the recorder could not take since the last batch.
    pub(super) dropped: u64,
}

/// A value that a well-formed recording does not have. The text says which.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl From<&Start> for StartRow {
    fn from(start: &Start) -> StartRow {
        let Start { time, booted, surroundings, probes } = start;
        let probe = |probe: &Probe| (probe.name.clone(), probe.live, probe.reason.clone());
        StartRow {
            time: time.0,
            booted: booted.0,
            pod_name: surroundings.pod_name.clone(),
            namespace: surroundings.namespace.clone(),
            node_name: surroundings.node_name.clone(),
            boot_id: surroundings.boot_id.clone(),
            scope: surroundings.scope.clone(),
            daemon_version: surroundings.daemon_version.clone(),
            started: surroundings.started.0,
            probes: probes.iter().map(probe).collect(),
        }
    }
}

impl From<StartRow> for Start {
    fn from(row: StartRow) -> Start {
        let probe = |(name, live, reason)| Probe { name, live, reason };
        Start {
            time: UnixNanos(row.time),
            booted: UnixNanos(row.booted),
            surroundings: Surroundings {
                pod_name: row.pod_name,
                namespace: row.namespace,
                node_name: row.node_name,
                boot_id: row.boot_id,
                scope: row.scope,
                daemon_version: row.daemon_version,
                started: UnixNanos(row.started),
            },
            probes: row.probes.into_iter().map(probe).collect(),
        }
    }
}

impl From<&Container> for ContainerRow {
    fn from(container: &Container) -> ContainerRow {
        ContainerRow {
            id: container.id.0,
            name: container.name.clone(),
            name_source: container.name_source.to_owned(),
            runtime_id: container.runtime_id.clone(),
            runtime: container.runtime.to_owned(),
            cgroup: container.cgroup.0,
            cgroup_path: container.cgroup_path.clone(),
            attributes: container.attributes.clone(),
            watched_since: container.watched_since.0,
            from_birth: container.from_birth,
            ended: container.ended.map(|time| time.0),
        }
    }
}

impl TryFrom<ContainerRow> for Container {
    type Error = Malformed;

    fn try_from(row: ContainerRow) -> Result<Container, Malformed> {
        Ok(Container {
            id: ContainerId(row.id),
            name: row.name,
            name_source: word(&row.name_source)?,
            runtime_id: row.runtime_id,
            runtime: word(&row.runtime)?,
            cgroup: CgroupId(row.cgroup),
            cgroup_path: row.cgroup_path,
            attributes: row.attributes,
            watched_since: UnixNanos(row.watched_since),
            from_birth: row.from_birth,
            ended: row.ended.map(UnixNanos),
        })
    }
}

impl From<&Process> for ProcessRow {
    fn from(process: &Process) -> ProcessRow {
        ProcessRow {
            id: process.id.0,
            pid: process.pid,
            started_ns: process.started_ns,
            comm: process.comm.clone(),
            container: process.container.0,
        }
    }
}

impl From<ProcessRow> for Process {
    fn from(row: ProcessRow) -> Process {
        Process {
            id: ProcessId(row.id),
            pid: row.pid,
            started_ns: row.started_ns,
            comm: row.comm,
            container: ContainerId(row.container),
        }
    }
}

impl BatchRow {
    pub(super) fn new(batch: &Batch, dropped: u64) -> BatchRow {
        let pair = |span: Span| (span.offset, span.length);
        let event = |event: &Event| EventRow {
            sequence: event.sequence,
            time: event.time.0,
            container: event.container.0,
            process: event.process.map_or(0, |process| process.0),
            kind: event.kind.code(),
            flags: event.flags.0,
            outcome: event.outcome,
            path: pair(event.path),
            requested: pair(event.requested),
            attributes_first: event.attributes_first,
            attributes_count: event.attributes_count,
        };
        let attribute = |attribute: &Attribute| (attribute.key.code(), attribute.value);
        BatchRow {
            dropped,
            events: batch.events.iter().map(event).collect(),
            attributes: batch.attributes.iter().map(attribute).collect(),
            text: batch.text.clone(),
        }
    }

    /// The batch, how many events were dropped before it, and how many are of a kind that this daemon
    /// does not know. Every span and every range of attributes lies inside the batch; attributes of
    /// unknown keys are left out.
    pub(super) fn batch(self) -> Result<(Batch, u64, u64), Malformed> {
        let span = |(offset, length): (u32, u32)| {
            let end = (offset as usize).checked_add(length as usize);
            match end.is_some_and(|end| end <= self.text.len()) {
                true => Ok(Span { offset, length }),
                false => Err(Malformed("a path that is not in its batch")),
            }
        };
        let mut unknown = 0;
        let mut events = Vec::with_capacity(self.events.len());
        let mut attributes = Vec::with_capacity(self.attributes.len());
        let mut rest = self.attributes.len();
        for row in &self.events {
            let (first, count) = (row.attributes_first as usize, row.attributes_count as usize);
            let own = first.checked_add(count).and_then(|end| self.attributes.get(first..end));
            let own = own.ok_or(Malformed("an attribute that is not in its batch"))?;
            // Each attribute is of one event: shared ones could make much of few bytes.
            rest = rest.checked_sub(own.len()).ok_or(Malformed("an attribute of two events"))?;
            let Some(kind) = Kind::from_code(row.kind) else {
                unknown += 1;
                continue;
            };
            let attributes_first = attributes.len() as u32;
            attributes.extend(own.iter().filter_map(|(key, value)| {
                Some(Attribute { key: AttributeKey::from_code(*key)?, value: *value })
            }));
            events.push(Event {
                sequence: row.sequence,
                time: UnixNanos(row.time),
                container: ContainerId(row.container),
                process: (row.process != 0).then_some(ProcessId(row.process)),
                kind,
                flags: Flags(row.flags),
                outcome: row.outcome,
                path: span(row.path)?,
                requested: span(row.requested)?,
                attributes_first,
                attributes_count: attributes.len() as u32 - attributes_first,
                // Where a process stood is for resolving paths, which was done before it was recorded.
                standpoint: Standpoint::default(),
            });
        }
        Ok((Batch { events, attributes, text: self.text }, self.dropped, unknown))
    }
}

impl From<&Tick> for TickRow {
    fn from(tick: &Tick) -> TickRow {
        let counters = |counters: &[Counter]| {
            counters.iter().map(|counter| (counter.name.to_owned(), counter.value)).collect()
        };
        let totals = |totals: &ContainerTotals| TotalsRow {
            container: totals.container.0,
            watched_since: totals.watched_since.0,
            from_birth: totals.from_birth,
            first_exec_seen: totals.first_exec_seen,
            last_event: totals.last_event.map(|time| time.0),
            ended: totals.ended.map(|time| time.0),
            counters: counters(&totals.counters),
        };
        TickRow {
            time: tick.time.0,
            cause: match tick.cause {
                TickCause::Interval => 0,
                TickCause::Stop => 1,
                TickCause::Request => 2,
            },
            containers: tick.containers.iter().map(totals).collect(),
            counters: counters(&tick.counters),
        }
    }
}

impl TryFrom<TickRow> for Tick {
    type Error = Malformed;

    fn try_from(row: TickRow) -> Result<Tick, Malformed> {
        let counters = |counters: Vec<(String, u64)>| {
            counters
                .into_iter()
                .map(|(name, value)| Ok(Counter { name: word(&name)?, value }))
                .collect::<Result<Vec<_>, Malformed>>()
        };
        let totals = |totals: TotalsRow| {
            Ok(ContainerTotals {
                container: ContainerId(totals.container),
                watched_since: UnixNanos(totals.watched_since),
                from_birth: totals.from_birth,
                first_exec_seen: totals.first_exec_seen,
                last_event: totals.last_event.map(UnixNanos),
                ended: totals.ended.map(UnixNanos),
                counters: counters(totals.counters)?,
            })
        };
        Ok(Tick {
            time: UnixNanos(row.time),
            cause: match row.cause {
                0 => TickCause::Interval,
                1 => TickCause::Stop,
                2 => TickCause::Request,
                _ => return Err(Malformed("a tick of a cause that nobody knows")),
            },
            containers: row.containers.into_iter().map(totals).collect::<Result<_, _>>()?,
            counters: counters(row.counters)?,
        })
    }
}

/// Names that are part of the program where events come from a kernel: counters, runtimes, sources of
/// names. Those of a recording live as long as the process, so there is a limit to how many there are.
fn word(text: &str) -> Result<&'static str, Malformed> {
    const MOST: usize = 1024;
    const LONGEST: usize = 64;
    static WORDS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(word) = words.get(text) {
        return Ok(word);
    }
    if words.len() >= MOST || text.len() > LONGEST {
        return Err(Malformed("more names of counters than there can be"));
    }
    let word: &'static str = Box::leak(text.to_owned().into_boxed_str());
    words.insert(word);
    Ok(word)
}

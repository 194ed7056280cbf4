//! From an attributed access to an admitted event: filter, dedup, batch.
//!
//! Owns what is kept for each container between capture and dispatch: its dedup memory and its counts.
//! Takes accesses whose container is known, gives batches and totals. Returns no errors on the way of an
//! event: it counts by reason and goes on.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::config;
use crate::death::feed::{ProcessEvent, Who};
use crate::decode::FileAccess;
use crate::dedup::{Dedup, FileCounts, FileKey, OutcomeClass, PathHasher, SAME_PATH, Verdict};
use crate::directory::{Container, Directory};
use crate::event::{
    Attribute, AttributeKey, Batch, ContainerId, ContainerTotals, Counter, Event, Flags, Kind,
    Standpoint, UnixNanos,
};
use crate::filter::Excluded;
use crate::kernel::KernelCounters;

/// How many events a batch holds before it is handed on: enough to make the cost of a guest call small.
pub const BATCH_EVENTS: usize = 512;

/// The counters by operation, in the order of the kernel's.
const RECEIVED: [&str; whodunit_ebpf::operation::COUNT] = [
    "received.open",
    "received.exec",
    "received.stat",
    "received.access",
    "received.readlink",
    "received.chdir",
    "received.list",
    "received.map",
    "received.load",
    "received.follow",
    "received.truncate",
    "received.rename",
    "received.link",
    "received.unlink",
    "received.make",
    "received.attributes",
    "received.other-use",
];

/// The stations between attribution and dispatch.
pub struct Pipeline {
    directory: Arc<Directory>,
    excluded: Excluded,
    /// Every event is admitted: behind the filters, repeats are dropped and counted.
    leaves_repeats: bool,
    hasher: PathHasher,
    dedup_capacity: NonZeroUsize,
    accounts: HashMap<ContainerId, Account>,
    batch: Batch,
    sequence: u64,
    /// Room for the path of one event.
    path: Vec<u8>,
}

/// What is kept for one container.
struct Account {
    dedup: Dedup,
    counts: FileCounts,
    /// Accesses of which no path is known at all.
    unreadable: u64,
    /// Counters of nested cgroups that are gone.
    retired: KernelCounters,
    /// What the kernel had counted at the tick before, to see whether anything happened since.
    counted: u64,
    /// When that tick was.
    ticked: UnixNanos,
    last_event: Option<UnixNanos>,
}

impl Pipeline {
    /// An empty pipeline.
    pub fn new(files: &config::Files, directory: Arc<Directory>) -> Pipeline {
        Pipeline {
            directory,
            excluded: Excluded::new(&files.exclude),
            leaves_repeats: false,
            hasher: PathHasher::new(),
            dedup_capacity: NonZeroUsize::new(files.dedup_capacity).unwrap_or(NonZeroUsize::MIN),
            accounts: HashMap::new(),
            batch: Batch::default(),
            sequence: 0,
            path: Vec::new(),
        }
    }

    /// Admits repeats from now on: filters are asked about every event, and what they keep is
    /// deduplicated behind them. What does not go on there is taken off the admitted there.
    pub fn leave_repeats_to_filters(&mut self) {
        self.leaves_repeats = true;
    }

    /// Opens a container's account and admits the event of its start.
    pub fn started(&mut self, container: ContainerId, now: UnixNanos) {
        self.accounts.insert(
            container,
            Account {
                dedup: Dedup::new(self.dedup_capacity),
                counts: FileCounts::default(),
                unreadable: 0,
                retired: KernelCounters::default(),
                counted: 0,
                ticked: UnixNanos::default(),
                last_event: None,
            },
        );
        self.push_lifecycle(container, Kind::ContainerStarted, now);
    }

    /// Closes a container's account, admits the event of its end and returns its last totals.
    /// `counters` are those of its cgroups that were not retired.
    pub fn ended(
        &mut self,
        container: ContainerId,
        counters: KernelCounters,
        now: UnixNanos,
    ) -> Option<ContainerTotals> {
        self.push_lifecycle(container, Kind::ContainerEnded, now);
        let known = self.directory.container(container)?;
        let mut account = self.accounts.remove(&container)?;
        Some(account.totals(&known, counters, now))
    }

    /// Keeps the counters of a nested cgroup that is gone.
    pub fn retire(&mut self, container: ContainerId, counters: &KernelCounters) {
        if let Some(account) = self.accounts.get_mut(&container) {
            account.retired.add(counters);
        }
    }

    /// Takes one access of a container.
    pub fn file(&mut self, container: ContainerId, access: &FileAccess<'_>, time: UnixNanos) {
        let Some(account) = self.accounts.get_mut(&container) else {
            return;
        };
        account.last_event = Some(time);
        let flags = access.path(&mut self.path);
        if self.path.is_empty() {
            account.unreadable += 1;
            tracing::debug!(
                container = container.0,
                access = ?access,
                "an access has no path: it could not be read"
            );
            return;
        }
        if self.excluded.covers(&self.path) {
            account.counts.count_excluded();
            return;
        }
        if self.leaves_repeats {
            account.counts.count(Verdict::New);
            return self.admit(container, access, flags, time);
        }
        let requested = match access.requested == self.path {
            true => SAME_PATH,
            false => self.hasher.hash(access.requested),
        };
        let verdict = account.dedup.admit(FileKey {
            path: self.hasher.hash(&self.path),
            requested,
            no_follow: !access.follow,
            inode: access.identity.map_or(0, |file| file.inode),
            device: access.identity.map_or(0, |file| file.device),
            operation: access.kind,
            outcome: OutcomeClass::of(access.outcome),
            setup: access.setup,
            destination: flags.contains(Flags::DESTINATION),
            mount_namespace: if access.identity.is_some() { 0 } else { access.mount_namespace },
        });
        account.counts.count(verdict);
        match verdict {
            Verdict::New | Verdict::NewAfterEvicting => self.admit(container, access, flags, time),
            Verdict::Repeat => {}
        }
    }

    fn admit(
        &mut self,
        container: ContainerId,
        access: &FileAccess<'_>,
        flags: Flags,
        time: UnixNanos,
    ) {
        let process =
            self.directory.process_id(access.pid, access.started_ns, &access.comm, container);
        let attributes_first = self.batch.attributes.len() as u32;
        if let Some(file) = access.identity {
            let mut push = |key, value| self.batch.attributes.push(Attribute { key, value });
            push(AttributeKey::Device, u64::from(file.device));
            push(AttributeKey::Inode, file.inode);
            push(AttributeKey::FileSystem, file.file_system);
            push(AttributeKey::Mount, u64::from(file.mount));
        }
        if let Some(syscall) = access.syscall {
            let (key, value) = (AttributeKey::Syscall, u64::from(syscall));
            self.batch.attributes.push(Attribute { key, value });
        }
        let path = self.batch.push_text(&self.path);
        let requested = if access.requested == self.path {
            path
        } else {
            self.batch.push_text(access.requested)
        };
        let root = access.lookup().and_then(|lookup| lookup.root).map(|root| {
            self.path.clear();
            root.push_to(&mut self.path);
            self.batch.push_text(&self.path)
        });
        let standpoint = Standpoint {
            mount_namespace: access.mount_namespace,
            no_follow: !access.follow,
            root: root.unwrap_or_default(),
        };
        self.sequence += 1;
        self.batch.events.push(Event {
            sequence: self.sequence,
            time,
            container,
            process: Some(process),
            kind: access.kind,
            flags,
            outcome: access.outcome,
            path,
            requested,
            attributes_first,
            attributes_count: self.batch.attributes.len() as u32 - attributes_first,
            standpoint,
        });
    }

    /// Admits what happened to a process of a container, or to all of it. `actor` is the container of whoever did it.
    pub fn process(
        &mut self,
        container: ContainerId,
        event: &ProcessEvent,
        actor: Option<ContainerId>,
        time: UnixNanos,
    ) {
        let number = |who: &Who, container| {
            self.directory.process_id(who.pid, who.started_ns, &who.comm, container)
        };
        let process = event.process.as_ref().map(|who| number(who, container));
        if let (Kind::ProcessExecuted, Some(id), Some(who)) = (event.kind, process, &event.process)
        {
            self.directory.rename_process(id, &who.comm);
        }
        let owner = actor.unwrap_or(ContainerId(0));
        let by = event.actor.as_ref().map(|who| u64::from(number(who, owner).0));
        let attributes_first = self.batch.attributes.len() as u32;
        self.batch.attributes.extend_from_slice(&event.attributes);
        let mut push = |key, value| self.batch.attributes.push(Attribute { key, value });
        by.into_iter().for_each(|value| push(AttributeKey::Actor, value));
        actor.into_iter().for_each(|it| push(AttributeKey::ActorContainer, u64::from(it.0)));
        let path = self.batch.push_text(&event.path);
        self.sequence += 1;
        self.batch.events.push(Event {
            sequence: self.sequence,
            time,
            container,
            process,
            kind: event.kind,
            flags: event.flags,
            outcome: 0,
            path,
            requested: path,
            attributes_first,
            attributes_count: self.batch.attributes.len() as u32 - attributes_first,
            standpoint: Standpoint::default(),
        });
    }

    fn push_lifecycle(&mut self, container: ContainerId, kind: Kind, now: UnixNanos) {
        let Some(known) = self.directory.container(container) else {
            return;
        };
        let path = self.batch.push_text(&known.cgroup_path);
        self.sequence += 1;
        self.batch.events.push(Event {
            sequence: self.sequence,
            time: now,
            container,
            process: None,
            kind,
            flags: Flags::default(),
            outcome: 0,
            path,
            requested: path,
            attributes_first: self.batch.attributes.len() as u32,
            attributes_count: 0,
            standpoint: Standpoint::default(),
        });
    }

    /// Whether the batch is large enough to be handed on before the ring is empty.
    pub fn batch_is_full(&self) -> bool {
        self.batch.events.len() >= BATCH_EVENTS
    }

    /// The batch so far, if there is any.
    pub fn take_batch(&mut self) -> Option<Arc<Batch>> {
        if self.batch.is_empty() {
            return None;
        }
        // The next batch is probably about as large.
        let next = Batch {
            events: Vec::with_capacity(self.batch.events.len()),
            attributes: Vec::with_capacity(self.batch.attributes.len()),
            text: Vec::with_capacity(self.batch.text.len()),
        };
        Some(Arc::new(std::mem::replace(&mut self.batch, next)))
    }

    /// Makes every repeat news once more.
    pub fn forget_repeats(&mut self) {
        self.accounts.values_mut().for_each(|account| account.dedup.forget());
    }

    /// A container, as far as it is known.
    pub fn known(&self, container: ContainerId) -> Option<Container> {
        self.directory.container(container)
    }

    /// The containers that have an account.
    pub fn containers(&self) -> impl Iterator<Item = ContainerId> + '_ {
        self.accounts.keys().copied()
    }

    /// The totals of one container. `counters` are those of its cgroups that were not retired.
    pub fn totals(
        &mut self,
        container: ContainerId,
        counters: KernelCounters,
        now: UnixNanos,
    ) -> Option<ContainerTotals> {
        let known = self.directory.container(container)?;
        Some(self.accounts.get_mut(&container)?.totals(&known, counters, now))
    }
}

impl Account {
    fn totals(
        &mut self,
        container: &Container,
        counters: KernelCounters,
        now: UnixNanos,
    ) -> ContainerTotals {
        let mut kernel = self.retired;
        kernel.add(&counters);
        let counted = kernel.received() + kernel.setup;
        let counted_before = std::mem::replace(&mut self.counted, counted);
        let ticked_before = std::mem::replace(&mut self.ticked, now);
        if counted != counted_before && self.last_event.is_none_or(|last| last < ticked_before) {
            // What the kernel absorbed arrives as a number only: it happened since the tick before.
            self.last_event = Some(container.ended.unwrap_or(now));
        }
        let mut totals = vec![
            Counter { name: "received", value: kernel.received() },
            Counter { name: "setup", value: kernel.setup },
        ];
        let counts =
            FileCounts { duplicate: self.counts.duplicate + kernel.absorbed, ..self.counts };
        totals.extend(counts.counters());
        totals.push(self.dedup.files());
        let by_operation = RECEIVED.into_iter().zip(kernel.by_operation);
        for (name, value) in by_operation.chain([
            ("lost.ring-full", kernel.ring_full),
            ("lost.throttled", kernel.throttled),
            ("lost.interrupted", kernel.busy),
            ("lost.path-unreadable", self.unreadable),
            ("tracing-ns", kernel.time_ns),
        ]) {
            if value != 0 {
                totals.push(Counter { name, value });
            }
        }
        ContainerTotals {
            container: container.id,
            watched_since: container.watched_since,
            from_birth: container.from_birth,
            first_exec_seen: container.from_birth && kernel.executed > 0,
            last_event: self.last_event,
            ended: container.ended,
            counters: totals,
        }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;
    use crate::decode::{Observation, decode};
    use crate::event::CgroupId;

    const WEB: ContainerId = ContainerId(1);
    const DB: ContainerId = ContainerId(2);

    fn container(id: ContainerId) -> Container {
        Container {
            id,
            name: format!("container-{id}"),
            name_source: "id",
            runtime_id: "x".to_owned(),
            runtime: "unknown",
            cgroup: CgroupId(u64::from(id.0)),
            cgroup_path: b"/pod/x".to_vec(),
            attributes: Vec::new(),
            watched_since: UnixNanos(1),
            from_birth: true,
            ended: None,
        }
    }

    fn pipeline(dedup_capacity: usize) -> Pipeline {
        let directory = Arc::new(Directory::new(NonZeroUsize::MIN));
        let files = config::Files { exclude: vec!["/proc/".to_owned()], dedup_capacity };
        let mut pipeline = Pipeline::new(&files, Arc::clone(&directory));
        for id in [WEB, DB] {
            directory.put_container(container(id));
            pipeline.started(id, UnixNanos(1));
        }
        let started = pipeline.take_batch().unwrap();
        assert_eq!(started.events.len(), 2);
        pipeline
    }

    /// An access by a path that the kernel resolved.
    fn access(pipeline: &mut Pipeline, container: ContainerId, path: &str, time: u64) {
        let mut raw = whodunit_ebpf::RawFile::new_zeroed();
        raw.kind = whodunit_ebpf::record_kind::FILE;
        raw.operation = whodunit_ebpf::operation::OPEN;
        raw.inode = 7;
        let names: String = path.rsplit('/').map(|name| format!("{name}\0")).collect();
        let names = names.strip_suffix('\0').unwrap();
        raw.components_length = names.len() as u32;
        let record = [raw.as_bytes(), names.as_bytes()].concat();
        let Ok(Observation::File(access)) = decode(&record) else { panic!("no file record") };
        pipeline.file(container, &access, UnixNanos(time));
    }

    fn opens(number: u64) -> [u64; whodunit_ebpf::operation::COUNT] {
        let mut by_operation = [0; whodunit_ebpf::operation::COUNT];
        by_operation[0] = number;
        by_operation
    }

    fn counter(totals: &ContainerTotals, name: &str) -> u64 {
        totals.counters.iter().find(|found| found.name == name).map_or(0, |found| found.value)
    }

    #[test]
    fn the_same_file_in_two_containers_is_two_events_and_a_repeat_is_none() {
        let mut pipeline = pipeline(8);
        for container in [WEB, DB, WEB] {
            access(&mut pipeline, container, "/etc/passwd", 5);
        }
        access(&mut pipeline, WEB, "/proc/self/maps", 6);
        let batch = pipeline.take_batch().unwrap();
        let seen: Vec<_> = batch
            .events
            .iter()
            .map(|event| (event.sequence, event.container, batch.text_of(event.path)))
            .collect();
        assert_eq!(seen, [(3, WEB, &b"/etc/passwd"[..]), (4, DB, b"/etc/passwd")]);
        let kernel =
            KernelCounters { by_operation: opens(3), submitted: 3, ..KernelCounters::default() };
        let totals = pipeline.totals(WEB, kernel, UnixNanos(9)).unwrap();
        let counted =
            ["received", "admitted", "duplicate", "excluded"].map(|n| counter(&totals, n));
        assert_eq!(counted, [3, 1, 1, 1]);
        assert_eq!(totals.last_event, Some(UnixNanos(6)));
    }

    #[test]
    fn an_eviction_is_counted_and_the_file_is_news_again() {
        let mut pipeline = pipeline(1);
        for path in ["/a", "/b", "/a"] {
            access(&mut pipeline, WEB, path, 5);
        }
        let totals = pipeline.totals(WEB, KernelCounters::default(), UnixNanos(9)).unwrap();
        assert_eq!((counter(&totals, "admitted"), counter(&totals, "evicted")), (3, 2));
    }

    #[test]
    fn what_the_kernel_absorbed_moves_the_last_event_to_the_tick_after_it() {
        let mut pipeline = pipeline(8);
        access(&mut pipeline, WEB, "/a", 5);
        let mut kernel =
            KernelCounters { by_operation: opens(1), submitted: 1, ..KernelCounters::default() };
        let last = |pipeline: &mut Pipeline, kernel, now| {
            pipeline.totals(WEB, kernel, UnixNanos(now)).unwrap().last_event
        };
        assert_eq!(last(&mut pipeline, kernel, 10), Some(UnixNanos(5)));
        assert_eq!(last(&mut pipeline, kernel, 20), Some(UnixNanos(5)));
        kernel.by_operation[0] += 1;
        kernel.absorbed += 1;
        assert_eq!(last(&mut pipeline, kernel, 30), Some(UnixNanos(30)));
        assert_eq!(last(&mut pipeline, kernel, 40), Some(UnixNanos(30)));
    }

    #[test]
    fn a_nested_cgroup_that_is_gone_still_counts() {
        let mut pipeline = pipeline(8);
        let nested =
            KernelCounters { by_operation: opens(4), absorbed: 4, ..KernelCounters::default() };
        pipeline.retire(WEB, &nested);
        let own =
            KernelCounters { by_operation: opens(2), absorbed: 2, ..KernelCounters::default() };
        let totals = pipeline.ended(WEB, own, UnixNanos(9)).unwrap();
        assert_eq!((counter(&totals, "received"), counter(&totals, "duplicate")), (6, 6));
        assert!(pipeline.totals(WEB, own, UnixNanos(9)).is_none());
        let end = pipeline.take_batch().unwrap();
        assert_eq!(end.events[0].kind, Kind::ContainerEnded);
    }

    #[test]
    fn forgotten_repeats_are_news() {
        let mut pipeline = pipeline(8);
        access(&mut pipeline, WEB, "/a", 5);
        pipeline.forget_repeats();
        access(&mut pipeline, WEB, "/a", 6);
        assert_eq!(pipeline.take_batch().unwrap().events.len(), 2);
    }
}

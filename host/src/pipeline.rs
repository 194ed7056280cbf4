//! From an attributed access to an admitted event: filter, dedup, batch.
//!
//! Owns what is kept for each container between capture and dispatch: its dedup memory and its counts.
//! Takes accesses whose container is known, gives batches and totals. Returns no errors on the way of an
//! event: it counts by reason and goes on.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::config;
use crate::decode::FileAccess;
use crate::dedup::{Dedup, FileCounts, FileKey, OutcomeClass, PathHasher, Verdict};
use crate::directory::{Container, Directory};
use crate::event::{
    Attribute, AttributeKey, Batch, ContainerId, ContainerTotals, Counter, Event, Flags, Kind,
    UnixNanos,
};
use crate::filter::Excluded;
use crate::kernel::KernelCounters;

/// How many events a batch holds before it is handed on: enough to make the cost of a guest call small.
pub const BATCH_EVENTS: usize = 512;

/// The stations between attribution and dispatch.
pub struct Pipeline {
    directory: Arc<Directory>,
    excluded: Excluded,
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
    last_event: Option<UnixNanos>,
}

impl Pipeline {
    /// An empty pipeline.
    pub fn new(files: &config::Files, directory: Arc<Directory>) -> Pipeline {
        Pipeline {
            directory,
            excluded: Excluded::new(&files.exclude),
            hasher: PathHasher::new(),
            dedup_capacity: NonZeroUsize::new(files.dedup_capacity).unwrap_or(NonZeroUsize::MIN),
            accounts: HashMap::new(),
            batch: Batch::default(),
            sequence: 0,
            path: Vec::new(),
        }
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
        let verdict = account.dedup.admit(FileKey {
            path: self.hasher.hash(&self.path),
            inode: access.identity.map_or(0, |file| file.inode),
            device: access.identity.map_or(0, |file| file.device),
            operation: access.kind,
            outcome: OutcomeClass::of(access.outcome),
            setup: access.setup,
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
        let path = self.batch.push_text(&self.path);
        let requested = if access.requested == self.path {
            path
        } else {
            self.batch.push_text(access.requested)
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
        let counted = kernel.received + kernel.setup;
        if counted != self.counted {
            // What the kernel absorbed arrives as a number only: it happened since the tick before.
            self.counted = counted;
            self.last_event = Some(container.ended.unwrap_or(now));
        }
        let mut totals = vec![
            Counter { name: "received", value: kernel.received },
            Counter { name: "setup", value: kernel.setup },
        ];
        let counts =
            FileCounts { duplicate: self.counts.duplicate + kernel.absorbed, ..self.counts };
        totals.extend(counts.counters());
        for (name, value) in
            [("lost.ring-full", kernel.ring_full), ("lost.path-unreadable", self.unreadable)]
        {
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

//! Events of processes for plugins, made of the records that deaths are joined from.
//!
//! Owns what waits for the capture thread, which gives each event its owner and its place in the stream. Nothing is made of a record
//! whose kind nobody subscribed to. Bounded: what capture does not fetch in time is counted, and delays no death.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use whodunit_ebpf::{RawProcess, RawProgram, RawSignal, exit_flag, program_flag};

use super::decode::{self, Fate};
use super::record::{Disposition, SignalOrigin, SignalResult};
use super::signals::{disposition, origin, result};
use crate::event::{Attribute, AttributeKey, CgroupId, Flags, Kind};
use crate::kinds::Kinds;

/// Events that wait at most: about two megabytes, and more than a second of any machine's forks.
const CAPACITY: usize = 16_384;

/// A process as a record names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// When it started, in nanoseconds since boot.
    pub started_ns: u64,
    /// Its name, up to the first NUL.
    pub comm: [u8; 16],
    /// Its cgroup.
    pub cgroup: CgroupId,
}

impl From<&RawProcess> for Who {
    fn from(raw: &RawProcess) -> Who {
        let RawProcess { pid, started_ns, comm, cgroup, .. } = *raw;
        Who { pid, started_ns, comm, cgroup: CgroupId(cgroup) }
    }
}

/// Something that happened to a process, or to a whole cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEvent {
    /// What.
    pub kind: Kind,
    /// When, in nanoseconds since boot.
    pub time_ns: u64,
    /// Whose: the cgroup of the process.
    pub cgroup: CgroupId,
    /// To whom. None where it is about the cgroup.
    pub process: Option<Who>,
    /// Who did it, where that is another process.
    pub actor: Option<Who>,
    /// Properties.
    pub flags: Flags,
    /// The program, or a cgroup's path.
    pub path: Vec<u8>,
    /// Numbers about it.
    pub attributes: Vec<Attribute>,
}

impl ProcessEvent {
    pub(crate) fn new(kind: Kind, time_ns: u64, process: &RawProcess) -> ProcessEvent {
        ProcessEvent {
            kind,
            time_ns,
            cgroup: CgroupId(process.cgroup),
            process: Some(process.into()),
            actor: None,
            flags: Flags::default(),
            path: Vec::new(),
            attributes: Vec::new(),
        }
    }

    /// One about a cgroup.
    pub(crate) fn of_cgroup(kind: Kind, time_ns: u64, cgroup: CgroupId) -> ProcessEvent {
        let nobody = RawProcess { cgroup: cgroup.0, ..RawProcess::default() };
        ProcessEvent { process: None, ..ProcessEvent::new(kind, time_ns, &nobody) }
    }

    /// With a number.
    pub(crate) fn with(mut self, key: AttributeKey, value: u64) -> ProcessEvent {
        self.attributes.push(Attribute { key, value });
        self
    }

    /// With a number, if it is known.
    pub(crate) fn with_known(self, key: AttributeKey, value: Option<u64>) -> ProcessEvent {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Done by another process.
    pub(crate) fn by(self, actor: &RawProcess) -> ProcessEvent {
        ProcessEvent { actor: (actor.pid != 0).then(|| actor.into()), ..self }
    }
}

/// What waits for the capture thread, and what is wanted.
#[derive(Default)]
pub struct Feed {
    wanted: AtomicU64,
    waiting: Mutex<VecDeque<ProcessEvent>>,
    lost: AtomicU64,
}

impl Feed {
    /// Says which kinds somebody subscribed to. Of the others nothing is made.
    pub fn want(&self, kinds: Kinds) {
        self.wanted.store(kinds.bits(), Ordering::Relaxed);
    }

    /// Whether somebody wants a kind.
    pub(crate) fn wants(&self, kind: Kind) -> bool {
        Kinds::from_bits(self.wanted.load(Ordering::Relaxed)).meet(Kinds::of(kind))
    }

    /// Whether somebody wants any kind.
    pub(crate) fn wants_any(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) != 0
    }

    /// Takes what waits, the oldest first.
    pub fn take(&self) -> VecDeque<ProcessEvent> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many events found no room.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Adds an event, if somebody wants its kind.
    pub(crate) fn put(&self, event: ProcessEvent) {
        if !self.wants(event.kind) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < CAPACITY {
            waiting.push_back(event);
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds the event of a record that says everything about it.
    pub(crate) fn offer(&self, fate: &Fate) {
        if let Some(kind) = kind_of(fate).filter(|kind| self.wants(*kind))
            && let Some(event) = event_of(kind, fate)
        {
            self.put(event);
        }
    }
}

/// The kind of event that a record is. None for one whose event is made where more is known of it.
fn kind_of(fate: &Fate) -> Option<Kind> {
    match fate {
        Fate::Forked(_) => Some(Kind::ProcessForked),
        Fate::Executed(_) => Some(Kind::ProcessExecuted),
        Fate::Exited(_) => Some(Kind::ProcessExited),
        Fate::Signalled(_) => Some(Kind::SignalGenerated),
        Fate::Delivered(_) => Some(Kind::SignalDelivered),
        Fate::OomVictim(_) => None,
    }
}

fn event_of(kind: Kind, fate: &Fate) -> Option<ProcessEvent> {
    Some(match fate {
        Fate::Forked(fork) => ProcessEvent::new(kind, fork.time_ns, &fork.child).by(&fork.parent),
        Fate::Executed(program) => return executed(kind, program),
        Fate::Exited(exit) => {
            let in_setup = exit.flags & exit_flag::SETUP != 0;
            let event = ProcessEvent::new(kind, exit.time_ns, &exit.process)
                .with(AttributeKey::Status, u64::from(exit.status));
            ProcessEvent { flags: Flags::default().with_if(in_setup, Flags::SETUP), ..event }
        }
        Fate::Signalled(signal) => signalled(kind, signal),
        Fate::Delivered(delivery) => ProcessEvent::new(kind, delivery.time_ns, &delivery.process)
            .with(AttributeKey::Signal, u64::from(delivery.signal))
            .with(AttributeKey::SiCode, i64::from(delivery.code).cast_unsigned()),
        Fate::OomVictim(_) => return None,
    })
}

/// None for one that could not be executed, of which the event of the file tells.
fn executed(kind: Kind, program: &RawProgram) -> Option<ProcessEvent> {
    if program.outcome < 0 {
        return None;
    }
    // A runtime's copy of itself.
    let is_detached = program.flags & program_flag::DETACHED != 0;
    let flags = Flags::SETUP.with(Flags::DETACHED);
    Some(ProcessEvent {
        flags: Flags::default().with_if(is_detached, flags),
        path: decode::program_bytes(program).unwrap_or_default().to_vec(),
        ..ProcessEvent::new(kind, program.time_ns, &program.process)
    })
}

fn signalled(kind: Kind, signal: &RawSignal) -> ProcessEvent {
    let result = match result(signal) {
        SignalResult::Delivered => 0,
        SignalResult::Ignored => 1,
        SignalResult::AlreadyPending => 2,
        SignalResult::OverflowFail => 3,
        SignalResult::LoseInfo => 4,
    };
    let disposition = match disposition(signal) {
        Disposition::Default => 0,
        Disposition::Handler => 1,
        Disposition::Ignored => 2,
        Disposition::Blocked => 3,
        Disposition::UnkillableInit => 4,
        Disposition::Unknown => 5,
    };
    let event = ProcessEvent::new(kind, signal.time_ns, &signal.target)
        .with(AttributeKey::Signal, u64::from(signal.signal))
        .with(AttributeKey::SiCode, i64::from(signal.code).cast_unsigned())
        .with(AttributeKey::Result, result)
        .with(AttributeKey::Disposition, disposition);
    match origin(signal) {
        SignalOrigin::User => event.by(&signal.sender),
        // Whoever ran is a bystander.
        SignalOrigin::Kernel => event,
    }
}

#[cfg(test)]
mod tests {
    use whodunit_ebpf::{RawExit, RawFork};
    use zerocopy::FromZeros as _;

    use super::*;

    fn exit(pid: u32) -> Fate {
        let mut exit = Box::new(RawExit::new_zeroed());
        (exit.process.pid, exit.status) = (pid, 3 << 8);
        Fate::Exited(exit)
    }

    #[test]
    fn nothing_is_made_of_what_nobody_wants() {
        let feed = Feed::default();
        feed.offer(&exit(7));
        assert!(feed.take().is_empty() && !feed.wants_any());
        feed.want(Kinds::of(Kind::ProcessForked));
        feed.offer(&exit(7));
        assert!(feed.take().is_empty());
        feed.want(Kinds::of(Kind::ProcessExited));
        feed.offer(&exit(7));
        let events = feed.take();
        assert_eq!(events[0].attributes, [Attribute { key: AttributeKey::Status, value: 3 << 8 }]);
        assert_eq!((events.len(), events[0].process.unwrap().pid), (1, 7));
    }

    #[test]
    fn what_is_not_fetched_is_counted() {
        let feed = Feed::default();
        feed.want(Kinds::PROCESSES);
        (0..CAPACITY as u32 + 5).for_each(|pid| feed.offer(&exit(pid)));
        assert_eq!((feed.take().len(), feed.lost()), (CAPACITY, 5));
    }

    #[test]
    fn a_parent_is_named_and_a_bystander_is_not() {
        let mut fork = RawFork::new_zeroed();
        (fork.child.pid, fork.parent.pid) = (8, 7);
        let event = event_of(Kind::ProcessForked, &Fate::Forked(fork)).unwrap();
        assert_eq!(event.actor.unwrap().pid, 7);
        let mut signal = RawSignal::new_zeroed();
        (signal.sender.pid, signal.target.pid, signal.signal) = (7, 8, 15);
        let by_user = signalled(Kind::SignalGenerated, &signal);
        signal.flags = whodunit_ebpf::signal_flag::PRIVILEGED;
        let by_kernel = signalled(Kind::SignalGenerated, &signal);
        assert_eq!((by_user.actor.map(|actor| actor.pid), by_kernel.actor), (Some(7), None));
    }
}

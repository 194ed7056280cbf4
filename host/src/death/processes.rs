//! What is remembered of the living: who they are, what they executed, and the signals that they got.
//!
//! Bounded in every direction: so many processes, so many signals each. What makes room is counted, and the record of a
//! death says so.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;

use foldhash::fast::RandomState;
use lru::LruCache;
use whodunit_ebpf::{RawProcess, RawSignal, RawVictim};

use super::census::{self, Inhabitant};
use super::decode::ProcessKey;
use super::record::WaitStatus;
use super::words::Words;

/// How many processes are remembered. A process that nothing is heard of makes room first.
const PROCESSES: NonZeroUsize = NonZeroUsize::new(32_768).unwrap();
/// How many signals of a process are remembered: the first ones, because a stop begins with them, and the last.
const FIRST_SIGNALS: usize = 8;
const SIGNALS: usize = 32;
/// How many programs and ended children of a process are remembered.
const PROGRAMS: usize = 8;
const CHILDREN: usize = 8;

/// A signal that was generated.
#[derive(Debug)]
pub(crate) struct SeenSignal {
    pub(crate) raw: Box<RawSignal>,
    /// Whether it was seen to reach the process.
    pub(crate) delivered: bool,
    /// Whether the out-of-memory killer sent it.
    pub(crate) oom: bool,
}

/// A child that ended.
#[derive(Clone, Debug)]
pub(crate) struct SeenChild {
    pub(crate) time_ns: u64,
    pub(crate) raw: RawProcess,
    pub(crate) exe: Option<String>,
    pub(crate) status: WaitStatus,
    pub(crate) oom_killed: bool,
    pub(crate) refused: Option<Refusal>,
}

/// A program that a process could not execute before it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) time_ns: u64,
    pub(crate) path: String,
    /// A negative errno.
    pub(crate) outcome: i32,
}

/// A living process.
#[derive(Debug, Default)]
pub(crate) struct Process {
    pub(crate) raw: RawProcess,
    /// The process whose first program a runtime chose, and of which this one descends: itself, or one above.
    pub(crate) line: Option<ProcessKey>,
    /// Path of the program that it executed last.
    pub(crate) exe: Option<String>,
    /// What it executed and when, the oldest first.
    pub(crate) programs: VecDeque<(u64, String)>,
    /// What it could not execute. Heard of only where it exits with 126 or 127.
    pub(crate) refused: Option<Refusal>,
    /// Its signals, the oldest first.
    pub(crate) signals: VecDeque<SeenSignal>,
    pub(crate) signals_forgotten: u64,
    /// Its children that ended, the oldest first.
    pub(crate) children: VecDeque<SeenChild>,
    /// The out-of-memory killer chose it.
    pub(crate) victim: Option<Box<RawVictim>>,
    /// What its cgroup said when it got the first signal that was to end it.
    pub(crate) words: Option<Words>,
    /// What had been lost when it was first heard of.
    pub(crate) lost_before: u64,
    /// What had been forgotten when it was first heard of.
    pub(crate) evicted_before: u64,
}

impl Process {
    pub(crate) fn key(&self) -> ProcessKey {
        ProcessKey::from(&self.raw)
    }

    /// Remembers a signal.
    pub(crate) fn signalled(&mut self, raw: Box<RawSignal>) {
        if self.signals.len() >= SIGNALS {
            self.signals.remove(FIRST_SIGNALS);
            self.signals_forgotten += 1;
        }
        self.signals.push_back(SeenSignal { raw, delivered: false, oom: false });
    }

    /// Remembers that a signal reached it.
    pub(crate) fn delivered(&mut self, number: u32, code: i32) {
        let waits = |signal: &SeenSignal| signal.raw.signal == number && !signal.delivered;
        // The first that waits, of the same code if there is one.
        let at = (self.signals.iter())
            .position(|signal| waits(signal) && signal.raw.code == code)
            .or_else(|| self.signals.iter().position(waits));
        if let Some(signal) = at.and_then(|at| self.signals.get_mut(at)) {
            signal.delivered = true;
        }
    }

    /// Remembers a program that it executed.
    pub(crate) fn executed(&mut self, time_ns: u64, path: Option<String>) {
        self.exe.clone_from(&path);
        if self.programs.len() >= PROGRAMS {
            self.programs.pop_front();
        }
        self.programs.extend(path.map(|path| (time_ns, path)));
    }

    /// A child that ended.
    pub(crate) fn child_mut(&mut self, key: ProcessKey) -> Option<&mut SeenChild> {
        self.children.iter_mut().rev().find(|child| ProcessKey::from(&child.raw) == key)
    }

    /// Remembers a child that ended.
    pub(crate) fn child_ended(&mut self, child: SeenChild) {
        if self.children.len() >= CHILDREN {
            // One that the memory killer took is worth more than any other.
            let least = self.children.iter().position(|child| !child.oom_killed).unwrap_or(0);
            self.children.remove(least);
        }
        self.children.push_back(child);
    }
}

/// The living processes that something was heard of.
pub(crate) struct Processes {
    known: LruCache<ProcessKey, Process>,
    /// Those that were there before the daemon and of which nothing was heard yet, by their ids.
    early: HashMap<u32, Inhabitant, RandomState>,
    tick_ns: u64,
    evicted: u64,
}

impl Default for Processes {
    fn default() -> Processes {
        Processes {
            known: LruCache::new(PROCESSES),
            early: HashMap::default(),
            tick_ns: census::tick_ns(),
            evicted: 0,
        }
    }
}

impl Processes {
    /// The process that a record speaks of; a new one if nothing was heard of it. `lost` is what was lost so far.
    pub(crate) fn meet(&mut self, raw: &RawProcess, lost: u64) -> &mut Process {
        let key = ProcessKey::from(raw);
        if !self.known.contains(&key) {
            let mut process =
                Process { lost_before: lost, evicted_before: self.evicted, ..Process::default() };
            if let Some(early) = self.early.remove(&key.pid)
                && self.is_same(early.key, key)
            {
                process.exe = early.exe;
                process.line = Some(early.line);
            }
            if self.known.push(key, process).is_some() {
                self.evicted += 1;
            }
        }
        let process = self.known.get_mut(&key).expect("it was put there if it was not");
        process.raw = *raw;
        process
    }

    /// Takes in a process that was there before the daemon.
    pub(crate) fn was_there(&mut self, inhabitant: Inhabitant) {
        let key = inhabitant.key;
        let known =
            self.known.iter().map(|(known, _)| *known).find(|known| self.is_same(*known, key));
        match known.and_then(|known| self.known.get_mut(&known)) {
            Some(process) => {
                process.exe = process.exe.take().or(inhabitant.exe);
                process.line.get_or_insert(inhabitant.line);
            }
            None => {
                self.early.insert(key.pid, inhabitant);
            }
        }
    }

    /// Whether both are one process, where one of them may have its start in clock ticks only. No id is given out twice in
    /// one of them.
    pub(crate) fn is_same(&self, one: ProcessKey, other: ProcessKey) -> bool {
        one.pid == other.pid && one.started_ns / self.tick_ns == other.started_ns / self.tick_ns
    }

    /// Where the line of a process begins, and what it executes, if something is known of it.
    pub(crate) fn origin(&self, key: ProcessKey) -> (Option<ProcessKey>, Option<String>) {
        if let Some(process) = self.known.peek(&key) {
            return (process.line, process.exe.clone());
        }
        match self.early.get(&key.pid) {
            Some(early) if self.is_same(early.key, key) => (Some(early.line), early.exe.clone()),
            Some(_) | None => (None, None),
        }
    }

    /// A process, if something was heard of it.
    #[cfg(test)]
    pub(crate) fn get(&self, key: ProcessKey) -> Option<&Process> {
        self.known.peek(&key)
    }

    /// A process, to be changed.
    pub(crate) fn get_mut(&mut self, key: ProcessKey) -> Option<&mut Process> {
        self.known.get_mut(&key)
    }

    /// The process that has this id now, for a record that says no more.
    pub(crate) fn by_pid(&mut self, pid: u32) -> Option<&mut Process> {
        let key = self
            .known
            .iter()
            .map(|(key, _)| *key)
            .filter(|key| key.pid == pid)
            .max_by_key(|key| key.started_ns)?;
        self.known.get_mut(&key)
    }

    /// Takes out a process that ended.
    pub(crate) fn remove(&mut self, key: ProcessKey) -> Option<Process> {
        self.known.pop(&key)
    }

    /// How many processes made room for others.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    fn signal(number: u32, code: i32) -> Box<RawSignal> {
        let mut raw = Box::new(RawSignal::new_zeroed());
        (raw.signal, raw.code) = (number, code);
        raw
    }

    #[test]
    fn the_first_and_the_last_signals_stay_and_the_rest_is_counted() {
        let mut process = Process::default();
        for number in 0..100 {
            process.signalled(signal(number, 0));
        }
        let kept: Vec<u32> = process.signals.iter().map(|signal| signal.raw.signal).collect();
        assert_eq!(kept.len(), SIGNALS);
        assert_eq!(kept[..FIRST_SIGNALS], [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(kept.last(), Some(&99));
        assert_eq!(process.signals_forgotten, 100 - SIGNALS as u64);
    }

    #[test]
    fn a_delivery_belongs_to_the_signal_of_its_code() {
        let mut process = Process::default();
        process.signalled(signal(11, 0));
        process.signalled(signal(11, 1));
        process.delivered(11, 1);
        let delivered: Vec<bool> = process.signals.iter().map(|signal| signal.delivered).collect();
        assert_eq!(delivered, [false, true]);
        process.delivered(11, 128);
        assert!(process.signals[0].delivered);
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let mut processes = Processes::default();
        let old = RawProcess { pid: 7, started_ns: 100, ..RawProcess::default() };
        let new = RawProcess { pid: 7, started_ns: 200, ..RawProcess::default() };
        processes.meet(&old, 0).signalled(signal(15, 0));
        assert!(processes.meet(&new, 0).signals.is_empty());
        assert_eq!(processes.by_pid(7).unwrap().raw.started_ns, 200);
        assert_eq!(processes.remove(ProcessKey::from(&old)).unwrap().signals.len(), 1);
    }

    #[test]
    fn a_process_from_before_is_met_by_its_start_in_ticks() {
        let mut processes = Processes::default();
        let early = ProcessKey { pid: 7, started_ns: 5 * processes.tick_ns };
        let exact =
            RawProcess { pid: 7, started_ns: early.started_ns + 1, ..RawProcess::default() };
        let reused = RawProcess { started_ns: early.started_ns * 2, ..exact };
        let inhabitant =
            Inhabitant { key: early, parent: 1, exe: Some("/bin/app".to_owned()), line: early };
        processes.was_there(inhabitant.clone());
        assert_eq!(processes.meet(&exact, 0).exe.as_deref(), Some("/bin/app"));
        processes.was_there(inhabitant);
        assert_eq!(processes.meet(&reused, 0).exe, None);
        assert!(processes.get(ProcessKey::from(&exact)).unwrap().line.is_some());
    }

    #[test]
    fn a_child_that_the_memory_killer_took_outlives_the_others() {
        let mut process = Process::default();
        for time_ns in 0..20 {
            process.child_ended(SeenChild {
                time_ns,
                raw: RawProcess::default(),
                exe: None,
                status: WaitStatus::Exited { code: 0 },
                oom_killed: time_ns == 0,
                refused: None,
            });
        }
        assert_eq!(process.children.len(), CHILDREN);
        assert!(process.children[0].oom_killed);
        assert_eq!(process.children.back().unwrap().time_ns, 19);
    }
}

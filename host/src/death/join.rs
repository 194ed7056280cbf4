//! Joining: from what the kernel said of processes, one by one, to who died of what.
//!
//! Owns the memory of the living, of the containers that they live in, and the deaths that wait for something: for their
//! container to become known, or for the word of an OOM kill that is on its way. Takes records in the order in which the
//! kernel wrote them, gives finished death records. Knows neither threads nor plugins.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use foldhash::fast::RandomState;
use lru::LruCache;
use whodunit_ebpf::{
    RawDelivery, RawExit, RawFork, RawProcess, RawProgram, RawSignal, RawVictim, exit_flag,
    program_flag, signal_flag,
};

use super::census;
use super::decode::{self, Fate, ProcessKey};
use super::feed::{Feed, ProcessEvent};
use super::memory;
use super::processes::{Process, Processes, Refusal, SeenChild};
use super::record::{CpuSample, DeathRecord, Subject, WaitStatus};
use super::signals::{SIGKILL, asks_to_end, is_fault};
use super::words::{Controllers, Words};
use crate::directory::{Container, Directory, Owner};
use crate::discovery::root::CgroupRoot;
use crate::event::{AttributeKey, CgroupId, ContainerId, Kind};

/// How long a death waits for its container to become known: the capture thread of a busy machine may be late.
const PATIENCE_NS: u64 = 10_000_000_000;
/// How long the death by a SIGKILL of the kernel's waits for the record that says that it was for want of memory. The
/// kernel writes it a moment after the signal, and the victim may be quicker.
const OOM_PATIENCE_NS: u64 = 20_000_000;
/// How old the words of a cgroup may be where they were heard for another death.
const WORDS_KEEP_NS: u64 = 50_000_000;
/// How many OOM kills of a container are remembered.
const OOM_KILLS: usize = 8;
/// How many ended processes are remembered, for those that die of their end.
const ENDED: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();
/// How many cgroups are remembered by the first program that a runtime executed in them.
const FIRST_PROGRAMS: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();
/// How many cgroups of strangers are remembered by their paths.
const STRANGERS: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();

/// What is the same for every death of a run.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// When the daemon began to watch, in nanoseconds since boot.
    pub(crate) started_ns: u64,
    /// Whether signals are watched.
    pub(crate) signals_watched: bool,
    /// Whether OOM kills are watched.
    pub(crate) oom_watched: bool,
    /// Bytes of a page.
    pub(crate) page_bytes: u64,
}

/// A moment at which the joiner is told or asked something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Nanoseconds since boot.
    pub(crate) boot_ns: u64,
    /// The moment of boot, in nanoseconds since the Unix epoch.
    pub(crate) epoch_ns: u64,
    /// How many records the ring had no room for so far.
    pub(crate) lost: u64,
}

/// A container, as far as deaths are concerned.
#[derive(Default)]
pub(crate) struct House {
    /// Its first process.
    pub(crate) init: Option<ProcessKey>,
    /// It was listened to.
    is_known: bool,
    /// What its cgroup said last.
    pub(crate) words: Option<Words>,
    /// When every container was listened to last, and what this one said of CPU then.
    cpu: Option<(u64, CpuSample)>,
    /// Memory cgroups from its own upward, each with its id and its path.
    pub(crate) memory_line: Vec<(u64, Vec<u8>)>,
    /// Processes that the kernel killed in it for want of memory, the oldest first.
    pub(crate) oom_kills: VecDeque<Box<RawVictim>>,
}

impl House {
    /// The event of the time that the container was throttled since its cgroup was listened to before, if it was.
    fn throttled(&mut self, words: &Words, container: &Container) -> Option<ProcessEvent> {
        let now = words.cpu.clone()?;
        let (since_ns, before) = self.cpu.replace((words.time_ns, now.clone()))?;
        let periods = now.throttled_periods.saturating_sub(before.throttled_periods);
        if periods == 0 {
            return None;
        }
        let event = ProcessEvent::of_cgroup(Kind::CpuThrottled, words.time_ns, container.cgroup)
            .with(AttributeKey::Window, words.time_ns.saturating_sub(since_ns))
            .with(AttributeKey::Throttled, now.throttled_ns.saturating_sub(before.throttled_ns))
            .with(AttributeKey::ThrottledPeriods, periods)
            .with(AttributeKey::Periods, now.periods.saturating_sub(before.periods));
        Some(ProcessEvent { path: container.cgroup_path.clone(), ..event })
    }
}

/// A process that ended, for those that die of its end.
pub(crate) struct Ended {
    pub(crate) time_ns: u64,
    pub(crate) raw: RawProcess,
    pub(crate) exe: Option<String>,
    pub(crate) status: WaitStatus,
}

/// A death that waits.
pub(crate) struct Held {
    pub(crate) exit: Box<RawExit>,
    pub(crate) process: Process,
    /// What its cgroup said when it ended.
    pub(crate) words: Option<Words>,
    not_before_ns: u64,
    not_after_ns: u64,
}

/// The joiner.
pub(crate) struct Joiner {
    pub(crate) frame: Frame,
    pub(crate) directory: Arc<Directory>,
    pub(crate) controllers: Controllers,
    pub(crate) root: CgroupRoot,
    feed: Arc<Feed>,
    oom_group: memory::Group,
    pub(crate) processes: Processes,
    pub(crate) houses: HashMap<ContainerId, House, RandomState>,
    pub(crate) ended: LruCache<ProcessKey, Ended>,
    pub(crate) strangers: LruCache<CgroupId, Option<Vec<u8>>>,
    first_programs: LruCache<CgroupId, ProcessKey>,
    held: VecDeque<Held>,
    undecodable: u64,
    unattributed: u64,
}

fn parent_of(exit: &RawExit) -> ProcessKey {
    let parent = &exit.ancestors[0];
    ProcessKey { pid: parent.pid, started_ns: parent.started_ns }
}

impl Joiner {
    pub(crate) fn new(
        frame: Frame,
        directory: Arc<Directory>,
        root: CgroupRoot,
        feed: Arc<Feed>,
    ) -> Joiner {
        Joiner {
            frame,
            directory,
            controllers: Controllers::find(root.path()),
            root,
            feed,
            oom_group: memory::Group::default(),
            processes: Processes::default(),
            houses: HashMap::default(),
            ended: LruCache::new(ENDED),
            strangers: LruCache::new(STRANGERS),
            first_programs: LruCache::new(FIRST_PROGRAMS),
            held: VecDeque::new(),
            undecodable: 0,
            unattributed: 0,
        }
    }

    /// Deaths and records that found no owner or made no sense.
    pub(crate) fn losses(&self) -> (u64, u64) {
        (self.unattributed, self.undecodable)
    }

    /// Whether a death waits.
    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes one record.
    pub(crate) fn take(&mut self, bytes: &[u8], now: Moment) {
        let fate = decode::decode(bytes);
        if let Ok(fate) = &fate {
            self.feed.offer(fate);
        }
        match fate {
            Ok(Fate::Forked(fork)) => self.forked(&fork, now),
            Ok(Fate::Executed(program)) => self.executed(&program, now),
            Ok(Fate::Signalled(signal)) => self.signalled(signal, now),
            Ok(Fate::Delivered(delivery)) => self.delivered(&delivery, now),
            Ok(Fate::OomVictim(victim)) => self.oom_victim(victim, now),
            Ok(Fate::Exited(exit)) => self.exited(exit, now),
            Err(error) => {
                self.undecodable += 1;
                tracing::debug!(%error, "a record about a process makes no sense");
            }
        }
    }

    /// The deaths that wait for nothing any more. `at_once` takes those that wait as well.
    pub(crate) fn due(&mut self, now: Moment, at_once: bool) -> Vec<DeathRecord> {
        let mut records = Vec::new();
        for held in std::mem::take(&mut self.held) {
            let owner = self.owner(held.exit.process.cgroup);
            match owner {
                Some(Owner::Container(container))
                    if at_once || now.boot_ns >= held.not_before_ns =>
                {
                    records.extend(self.record(held, container, now));
                }
                Some(Owner::Nobody) => {}
                None if at_once || now.boot_ns >= held.not_after_ns => self.unattributed += 1,
                Some(Owner::Container(_)) | None => self.held.push_back(held),
            }
        }
        records
    }

    /// Hears the words of every container, and learns those that are new.
    pub(crate) fn listen(&mut self, now: Moment) {
        let containers = self.directory.containers();
        for container in &containers {
            if container.ended.is_some() {
                continue;
            }
            let house = self.houses.entry(container.id).or_default();
            // A signal or a kill may have been heard of before.
            let is_new = !std::mem::replace(&mut house.is_known, true);
            let is_as_before = |words| self.controllers.is_as_before(&container.cgroup_path, words);
            if !is_new && house.words.as_ref().is_some_and(is_as_before) {
                // It was not throttled either.
                house.cpu.iter_mut().for_each(|(time_ns, _)| *time_ns = now.boot_ns);
                continue;
            }
            let words = self.controllers.listen(&container.cgroup_path, now.boot_ns);
            if let Some(cpu) = &words.cpu {
                self.directory.put_throttled_ns(container.id, cpu.throttled_ns);
            }
            if let Some(event) = house.throttled(&words, container) {
                self.feed.put(event);
            }
            if !words.is_silent() {
                house.words = Some(words);
            }
            if is_new {
                house.memory_line = self.controllers.memory_line(&container.cgroup_path);
                self.count(container.id, &container.cgroup_path, container.from_birth);
            }
        }
        self.houses.retain(|id, _| containers.iter().any(|container| container.id == *id));
    }

    /// Reads who lives in a container that was there before the daemon.
    fn count(&mut self, container: ContainerId, cgroup_path: &[u8], from_birth: bool) {
        if from_birth {
            return;
        }
        let inhabitants = census::inhabitants(&self.controllers.processes(cgroup_path));
        let Some(first) = inhabitants.first().map(|inhabitant| inhabitant.key) else { return };
        for inhabitant in inhabitants {
            self.processes.was_there(inhabitant);
        }
        let house = self.houses.entry(container).or_default();
        house.init.get_or_insert(first);
    }

    /// Whose a cgroup is. None where that is not known yet.
    pub(crate) fn owner(&self, cgroup: u64) -> Option<Owner> {
        self.directory.owner(CgroupId(cgroup))
    }

    pub(crate) fn container_of(&self, cgroup: u64) -> Option<ContainerId> {
        match self.owner(cgroup) {
            Some(Owner::Container(container)) => Some(container),
            Some(Owner::Nobody) | None => None,
        }
    }

    /// The first process of a container, as far as it is known.
    pub(crate) fn init_of(&mut self, container: ContainerId) -> Option<ProcessKey> {
        if let Some(init) = self.houses.get(&container).and_then(|house| house.init) {
            return Some(init);
        }
        let known = self.directory.container(container)?;
        let init = self.first_programs.peek(&known.cgroup).copied()?;
        // A program that a runtime put into a container that was there before us is not its first.
        known.from_birth.then(|| *self.houses.entry(container).or_default().init.insert(init))
    }

    /// What the container's cgroup says, heard at most so long ago.
    pub(crate) fn words(
        &mut self,
        container: ContainerId,
        now: Moment,
        at_most_ns: u64,
    ) -> Option<Words> {
        let known = self.directory.container(container)?;
        let house = self.houses.entry(container).or_default();
        let fresh = (house.words.as_ref())
            .is_some_and(|words| now.boot_ns.saturating_sub(words.time_ns) <= at_most_ns);
        if !fresh {
            let words = self.controllers.listen(&known.cgroup_path, now.boot_ns);
            if words.is_silent() {
                return None;
            }
            house.words = Some(words);
        }
        if house.memory_line.is_empty() {
            house.memory_line = self.controllers.memory_line(&known.cgroup_path);
        }
        house.words.clone()
    }

    fn forked(&mut self, fork: &RawFork, now: Moment) {
        let parent = ProcessKey::from(&fork.parent);
        let (line, exe) = self.processes.origin(parent);
        let child = self.processes.meet(&fork.child, now.lost);
        child.line = line;
        child.exe = exe;
    }

    fn executed(&mut self, program: &RawProgram, now: Moment) {
        if program.flags & program_flag::DETACHED != 0 {
            // A runtime's copy of itself: the container's program comes next.
            return;
        }
        let key = ProcessKey::from(&program.process);
        let process = self.processes.meet(&program.process, now.lost);
        let path = decode::program_path(program);
        if program.outcome < 0 {
            let outcome = i32::from(program.outcome);
            process.refused = path.map(|path| Refusal { time_ns: program.time_ns, path, outcome });
            return;
        }
        process.executed(program.time_ns, path);
        if program.flags & program_flag::ENTERED != 0 {
            process.line = Some(key);
            let cgroup = CgroupId(program.process.cgroup);
            if !self.first_programs.contains(&cgroup) {
                self.first_programs.push(cgroup, key);
            }
        }
    }

    fn signalled(&mut self, signal: Box<RawSignal>, now: Moment) {
        let (number, cgroup) = (signal.signal, signal.target.cgroup);
        let matters = asks_to_end(number) || is_fault(number) || signal.doom != 0;
        let process = self.processes.meet(&signal.target, now.lost);
        let first = process.words.is_none();
        let key = process.key();
        process.signalled(signal);
        if matters
            && first
            && let Some(container) = self.container_of(cgroup)
            && let Some(words) = self.words(container, now, WORDS_KEEP_NS)
            && let Some(process) = self.processes.get_mut(key)
        {
            process.words = Some(words);
        }
    }

    fn delivered(&mut self, delivery: &RawDelivery, now: Moment) {
        let process = self.processes.meet(&delivery.process, now.lost);
        process.delivered(delivery.signal, delivery.code);
    }

    fn oom_victim(&mut self, mut victim: Box<RawVictim>, now: Moment) {
        self.oom_group.complete(&mut victim);
        let killed = if let Some(process) = self.victim_of(&victim) {
            let killed = |signal: &&mut super::processes::SeenSignal| {
                signal.raw.signal == SIGKILL && signal.raw.flags & signal_flag::PRIVILEGED != 0
            };
            if let Some(signal) = process.signals.iter_mut().rev().find(killed) {
                signal.oom = true;
            }
            process.victim = Some(victim.clone());
            process.raw
        } else {
            victim.victim
        };
        self.child_was_oom_killed(ProcessKey::from(&killed));
        if let Some(container) = self.container_of(killed.cgroup) {
            self.words(container, now, WORDS_KEEP_NS);
            self.tell_oom_kill(&victim, &killed, container);
            let house = self.houses.entry(container).or_default();
            if house.oom_kills.len() >= OOM_KILLS {
                house.oom_kills.pop_front();
            }
            house.oom_kills.push_back(victim);
        }
    }

    /// Tells the parent of a process that ended before it was known why.
    fn child_was_oom_killed(&mut self, key: ProcessKey) {
        let is = |held: &Held, key: ProcessKey| held.process.key() == key;
        let Some(ended) = self.held.iter().rev().find(|held| is(held, key)) else { return };
        let parent = parent_of(&ended.exit);
        let parent = match self.held.iter_mut().rev().find(|held| is(held, parent)) {
            Some(held) => Some(&mut held.process),
            None => self.processes.get_mut(parent),
        };
        let child = parent.and_then(|parent| parent.child_mut(key));
        if let Some(child) = child {
            child.oom_killed = true;
        }
    }

    /// Hands on the event of an OOM kill.
    fn tell_oom_kill(&self, victim: &RawVictim, killed: &RawProcess, container: ContainerId) {
        if !self.feed.wants(Kind::OomKill) {
            return;
        }
        let no_line = Vec::new();
        let line = self.houses.get(&container).map_or(&no_line, |house| &house.memory_line);
        let full = memory::full(victim, line);
        let bytes = |pages: u64| pages.saturating_mul(self.frame.page_bytes);
        let event = ProcessEvent::new(Kind::OomKill, victim.time_ns, killed)
            .with_known(AttributeKey::Limit, full.limit_pages.map(bytes))
            .with_known(AttributeKey::Usage, full.usage_pages.map(bytes))
            .by(&victim.trigger);
        self.feed.put(ProcessEvent { path: full.path, ..event });
    }

    /// The process that an OOM record speaks of: among those that wait, or among the living.
    fn victim_of(&mut self, victim: &RawVictim) -> Option<&mut Process> {
        let key = ProcessKey::from(&victim.victim);
        let is_it = |process: &Process| match key.started_ns {
            // Before Linux 6.8 there is the id alone.
            0 => process.raw.pid == victim.pid,
            _ => process.key() == key,
        };
        if let Some(held) = self.held.iter_mut().rev().find(|held| is_it(&held.process)) {
            return Some(&mut held.process);
        }
        match key.started_ns {
            0 => self.processes.by_pid(victim.pid),
            _ => self.processes.get_mut(key),
        }
    }

    fn exited(&mut self, exit: Box<RawExit>, now: Moment) {
        let key = ProcessKey::from(&exit.process);
        if self.ended.contains(&key) {
            // Two last threads: the first record told it.
            return;
        }
        let status = WaitStatus::from_raw(exit.status);
        self.processes.meet(&exit.process, now.lost);
        let Some(process) = self.processes.remove(key) else { return };
        self.ended.push(
            key,
            Ended { time_ns: exit.time_ns, raw: exit.process, exe: process.exe.clone(), status },
        );
        if let Some(parent) = self.processes.get_mut(parent_of(&exit)) {
            parent.child_ended(SeenChild {
                time_ns: exit.time_ns,
                raw: exit.process,
                exe: process.exe.clone(),
                status,
                oom_killed: process.victim.is_some(),
                refused: process.refused.clone(),
            });
        }
        let killed = matches!(status, WaitStatus::Killed { .. });
        if exit.flags & exit_flag::SETUP != 0 && !killed {
            // The runtime's own processes come and go while they prepare a container.
            return;
        }
        let container = self.container_of(exit.process.cgroup);
        let init = container.and_then(|container| self.init_of(container));
        let is_init = init.is_some_and(|init| self.processes.is_same(init, key));
        let keep = if is_init { 0 } else { WORDS_KEEP_NS };
        // What surely becomes no record needs none: shells run thousands of programs that succeed.
        let subject = if is_init || init.is_none() { Subject::Container } else { Subject::Process };
        let words = container
            .filter(|_| Joiner::is_notable(subject, status))
            .and_then(|container| self.words(container, now, keep));
        let may_be_oom = process.victim.is_none()
            && exit.status & 0x7f == SIGKILL
            && process.signals.iter().any(|signal| {
                signal.raw.signal == SIGKILL && signal.raw.flags & signal_flag::PRIVILEGED != 0
            });
        let wait_ns = if may_be_oom { OOM_PATIENCE_NS } else { 0 };
        self.held.push_back(Held {
            not_before_ns: now.boot_ns + wait_ns,
            not_after_ns: now.boot_ns + PATIENCE_NS,
            exit,
            process,
            words,
        });
    }

    /// Whether a death is worth a record: the container's always is, a process's where it did not simply succeed.
    pub(crate) fn is_notable(subject: Subject, status: WaitStatus) -> bool {
        match subject {
            Subject::Container => true,
            Subject::Process => status != WaitStatus::Exited { code: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use whodunit_ebpf::RawAncestor;
    use zerocopy::FromZeros;

    use super::*;

    const NOW: Moment = Moment { boot_ns: 1_000, epoch_ns: 0, lost: 0 };

    fn process(pid: u32) -> RawProcess {
        RawProcess { pid, started_ns: u64::from(pid), ..RawProcess::default() }
    }

    fn exit(pid: u32, parent: u32, status: i32) -> Box<RawExit> {
        let mut exit = RawExit::new_zeroed();
        exit.process = process(pid);
        exit.ancestors[0] =
            RawAncestor { pid: parent, started_ns: parent.into(), ..RawAncestor::new_zeroed() };
        exit.status = status as u32;
        Box::new(exit)
    }

    fn victim(pid: u32) -> Box<RawVictim> {
        Box::new(RawVictim { pid, ..RawVictim::new_zeroed() })
    }

    /// The joiner, in a machine without cgroups, in which somebody has heard of process 1.
    fn joiner(folder: &std::path::Path) -> Joiner {
        let frame =
            Frame { started_ns: 0, signals_watched: true, oom_watched: true, page_bytes: 4096 };
        let root = CgroupRoot::over_any_folder(folder).unwrap();
        let directory = Arc::new(Directory::new(NonZeroUsize::MIN));
        let mut joiner = Joiner::new(frame, directory, root, Arc::default());
        joiner.processes.meet(&process(1), 0);
        joiner
    }

    #[test]
    fn a_parent_learns_that_memory_ran_out_before_and_after_its_child_ended() {
        let folder = tempfile::tempdir().unwrap();
        for (early, late) in [(true, false), (false, true), (false, false)] {
            let mut joiner = joiner(folder.path());
            joiner.processes.meet(&process(2), 0);
            if early {
                joiner.oom_victim(victim(2), NOW);
            }
            joiner.exited(exit(2, 1, SIGKILL as i32), NOW);
            if late {
                joiner.oom_victim(victim(2), NOW);
            }
            let child =
                &joiner.processes.get_mut(ProcessKey::from(&process(1))).unwrap().children[0];
            assert_eq!(child.oom_killed, early || late, "{early} {late}");
        }
    }

    #[test]
    fn a_parent_that_ended_meanwhile_learns_it_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut joiner = joiner(folder.path());
        joiner.processes.meet(&process(2), 0);
        joiner.exited(exit(2, 1, SIGKILL as i32), NOW);
        joiner.exited(exit(1, 0, 0), NOW);
        joiner.oom_victim(victim(2), NOW);
        let parent = joiner.held.iter().find(|held| held.process.raw.pid == 1).unwrap();
        assert!(parent.process.children[0].oom_killed);
    }
}

//! From a death and everything that was seen of it to its record.
//!
//! Adds nothing and leaves nothing out: what is missing stands in `unseen`.

use whodunit_ebpf::{RawAncestor, RawExit, RawProcess, RawSignal, RawVictim, exit_flag};

use super::decode::{ProcessKey, comm};
use super::join::{Held, House, Joiner, Moment};
use super::memory;
use super::processes::{Process, Refusal, SeenSignal};
use super::record::{
    Ancestor, CgroupKill, ChildExit, Container, DeadProcess, DeathRecord, Evidence, Execution,
    Fact, Fault, InitDeath, Losses, OomKill, Party, ResourceLimit, SCHEMA, Seccomp, Sender, Signal,
    SignalOrigin, SignalWay, Subject, Throttling, Unseen, WaitStatus,
};
use super::relation::{Home, Standing, relation};
use super::signals::{
    SIGKILL, SIGSYS, SIGXCPU, SIGXFSZ, SYS_SECCOMP, deciding, disposition, is_cut_off, is_fault,
    origin, result, way,
};
use super::words::Words;
use crate::directory::{self, Owner};
use crate::discovery::{escaped, rules};
use crate::event::{CgroupId, ContainerId};

/// `RLIM_INFINITY`.
const NO_LIMIT: u64 = u64::MAX;

/// The evidence of one record, in the making.
struct Found {
    died_ns: u64,
    /// Each with its moment and whether it is the signal that decided.
    facts: Vec<(u64, bool, Fact)>,
    unseen: Vec<Unseen>,
}

impl Found {
    fn add(&mut self, time_ns: u64, fact: Fact) {
        self.facts.push((time_ns, false, fact));
    }

    fn lacks(&mut self, unseen: Unseen) {
        if !self.unseen.contains(&unseen) {
            self.unseen.push(unseen);
        }
    }

    /// The evidence in its order, and where the deciding signal stands in it.
    fn sorted(mut self) -> (Vec<Evidence>, Option<u32>, Vec<Unseen>) {
        self.facts.sort_by_key(|(time_ns, _, _)| *time_ns);
        let decided = self.facts.iter().position(|(_, decided, _)| *decided);
        let evidence = (self.facts.into_iter())
            .map(|(time_ns, _, fact)| Evidence {
                before_ns: self.died_ns.saturating_sub(time_ns),
                fact,
            })
            .collect();
        self.unseen.sort_unstable();
        (evidence, decided.map(|index| index as u32), self.unseen)
    }
}

impl Joiner {
    /// The record of a death in this container. None where it is not worth one.
    pub(super) fn record(
        &mut self,
        held: Held,
        container: ContainerId,
        now: Moment,
    ) -> Option<DeathRecord> {
        let Held { exit, process, words, .. } = held;
        let known = self.directory.container(container)?;
        let status = WaitStatus::from_raw(exit.status);
        let key = process.key();
        let init = self.init_of(container);
        let is_init = match init {
            Some(init) => self.processes.is_same(init, key),
            // Of a container that was there before the daemon and died before it was looked at.
            None => exit.process.namespace_pid == 1 && exit.process.namespace_depth > 0,
        };
        let in_setup = exit.flags & exit_flag::SETUP != 0;
        let subject = if is_init { Subject::Container } else { Subject::Process };
        if !Joiner::is_notable(subject, status) {
            return None;
        }
        let mut found = Found { died_ns: exit.time_ns, facts: Vec::new(), unseen: Vec::new() };
        if init.is_none() && !is_init {
            found.lacks(Unseen::ContainerInit);
        }
        if exit.process.started_ns < self.frame.started_ns {
            found.lacks(Unseen::StartedBeforeDaemon);
        }
        if !self.frame.signals_watched {
            found.lacks(Unseen::SignalsNotWatched);
        }
        if !self.frame.oom_watched {
            found.lacks(Unseen::OomNotWatched);
        }
        if is_init && known.from_birth {
            let since = known.watched_since.0.saturating_sub(now.epoch_ns);
            found.add(since.min(exit.time_ns), Fact::ContainerStarted);
        }
        for (time_ns, path) in &process.programs {
            found.add(*time_ns, Fact::Executed(Execution { path: path.clone(), outcome: 0 }));
        }
        if let Some(refusal) = &process.refused {
            found.add(refusal.time_ns, Fact::Executed(Execution::from(refusal)));
        }
        self.add_signals(&mut found, &process, container, init, status);
        self.add_causes(&mut found, &process, &exit, status);
        for child in &process.children {
            let fact = ChildExit {
                child: self.party(&child.raw, &[], child.exe.clone()),
                status: child.status,
                oom_killed: child.oom_killed,
                refused: child.refused.as_ref().map(Execution::from),
            };
            found.add(child.time_ns, Fact::ChildExited(fact));
        }
        self.add_oom_kills(&mut found, &process, container);
        self.add_init_death(&mut found, &process);
        add_words(&mut found, process.words.as_ref(), words.as_ref());
        if process.exe.is_none() && !in_setup {
            found.lacks(Unseen::Program);
        }
        let ancestry = ancestry(&exit.ancestors);
        if ancestry.is_empty() {
            found.lacks(Unseen::Ancestry);
        }
        let losses = Losses {
            ring_full: now.lost - process.lost_before.min(now.lost),
            signals_forgotten: process.signals_forgotten,
            evicted: self.processes.evicted() - process.evicted_before,
        };
        if losses.ring_full > 0 {
            found.lacks(Unseen::SignalsLost);
        }
        if losses.signals_forgotten > 0 {
            found.lacks(Unseen::SignalsForgotten);
        }
        let id = self.directory.process_id(key.pid, key.started_ns, &exit.process.comm, container);
        let (evidence, decided_by, unseen) = found.sorted();
        Some(DeathRecord {
            schema: SCHEMA,
            time_ns: now.epoch_ns + exit.time_ns,
            subject,
            container: told(&known),
            process: DeadProcess {
                id: id.0,
                pid: key.pid,
                namespace_pid: (exit.process.namespace_pid != 0)
                    .then_some(exit.process.namespace_pid),
                started_ns: key.started_ns,
                comm: comm(&exit.process.comm),
                exe: process.exe,
                is_container_init: is_init,
                ancestry,
            },
            status,
            evidence,
            decided_by,
            unseen,
            losses,
        })
    }

    fn add_signals(
        &mut self,
        found: &mut Found,
        process: &Process,
        container: ContainerId,
        init: Option<ProcessKey>,
        status: WaitStatus,
    ) {
        let decisive = match status {
            WaitStatus::Killed { signal, .. } => {
                let decisive = deciding(process.signals.iter(), u32::from(signal));
                if decisive.is_none() {
                    found.lacks(Unseen::DecidingSignal);
                }
                decisive
            }
            WaitStatus::Exited { .. } => None,
        };
        for (index, seen) in process.signals.iter().enumerate() {
            let signal = self.signal(found, seen, container, init);
            if signal.way == SignalWay::CgroupKill && decisive == Some(index) {
                let writer = signal.sender.clone();
                let fact = CgroupKill { cgroup_path: String::new(), writer };
                found.add(seen.raw.time_ns, Fact::CgroupKill(fact));
            }
            found.facts.push((seen.raw.time_ns, decisive == Some(index), Fact::Signal(signal)));
        }
    }

    fn signal(
        &mut self,
        found: &mut Found,
        seen: &SeenSignal,
        container: ContainerId,
        init: Option<ProcessKey>,
    ) -> Signal {
        let raw = &*seen.raw;
        let way = way(seen);
        let sender_key = ProcessKey::from(&raw.sender);
        let target_key = ProcessKey::from(&raw.target);
        let (line, exe) = self.processes.origin(sender_key);
        let exe = exe.or_else(|| self.ended.peek(&sender_key).and_then(|ended| ended.exe.clone()));
        let home = self.home(raw.sender.cgroup, container);
        let parents = || raw.ancestors.iter().filter(|ancestor| ancestor.pid != 0);
        let names: Vec<String> = std::iter::once(comm(&raw.sender.comm))
            .chain(parents().map(|ancestor| comm(&ancestor.comm)))
            .collect();
        let is = |key: ProcessKey, ancestor: &RawAncestor| {
            key == ProcessKey { pid: ancestor.pid, started_ns: ancestor.started_ns }
        };
        let relation = relation(&Standing {
            way,
            is_target: sender_key == target_key,
            is_parent: is(sender_key, &raw.target_parent),
            is_descendant: parents().any(|ancestor| is(target_key, ancestor)),
            is_session: home == Home::Same
                && self.is_session(container, sender_key, line, init, raw),
            home,
            names: &names,
        });
        let by_process = match way {
            SignalWay::CgroupKill | SignalWay::ParentDeath => true,
            _ => origin(raw) == SignalOrigin::User,
        };
        if by_process && home == Home::Unknown {
            found.lacks(Unseen::SenderContainer);
        }
        Signal {
            number: raw.signal as u8,
            si_code: raw.code,
            origin: origin(raw),
            result: result(raw),
            delivered: seen.delivered,
            way,
            disposition: disposition(raw),
            relation,
            sender: if by_process {
                Sender::Process(self.party(&raw.sender, &raw.ancestors, exe))
            } else {
                Sender::Kernel
            },
        }
    }

    /// Whether a process of the container came in from outside when the container ran already, or descends from one that did.
    fn is_session(
        &self,
        container: ContainerId,
        key: ProcessKey,
        line: Option<ProcessKey>,
        init: Option<ProcessKey>,
        raw: &RawSignal,
    ) -> bool {
        let Some(init) = init else { return false };
        if self.processes.is_same(key, init) {
            return false;
        }
        if let Some(line) = line {
            return !self.processes.is_same(line, init);
        }
        // Nothing is known but its parents: whoever comes to the container's first process belongs to it, whoever leaves
        // the container before does not.
        for ancestor in &raw.ancestors {
            let above = ProcessKey { pid: ancestor.pid, started_ns: ancestor.started_ns };
            if self.processes.is_same(above, init) {
                return false;
            }
            if ancestor.pid == 0 || self.container_of(ancestor.cgroup) != Some(container) {
                return true;
            }
        }
        false
    }

    /// Where the processes of a cgroup live, seen from a container.
    fn home(&mut self, cgroup: u64, container: ContainerId) -> Home {
        match self.owner(cgroup) {
            Some(Owner::Container(owner)) if owner == container => Home::Same,
            Some(Owner::Container(_)) => Home::Other,
            Some(Owner::Nobody) | None => match self.stranger(cgroup) {
                Some(path) if rules::nearest_container(&path).is_some() => Home::Other,
                Some(_) => Home::Host,
                None => Home::Unknown,
            },
        }
    }

    /// The path of a cgroup that is not watched.
    fn stranger(&mut self, cgroup: u64) -> Option<Vec<u8>> {
        if let Some(known) = self.strangers.get(&CgroupId(cgroup)) {
            return known.clone();
        }
        let path = self.root.path_of(CgroupId(cgroup)).ok().flatten();
        // One that is not found may be one that is about to be.
        if path.is_some() {
            self.strangers.push(CgroupId(cgroup), path.clone());
        }
        path
    }

    fn party(&mut self, raw: &RawProcess, parents: &[RawAncestor], exe: Option<String>) -> Party {
        let container = self.container_of(raw.cgroup);
        let known = container.and_then(|container| self.directory.container(container));
        let cgroup_path = match &known {
            Some(known) => known.cgroup_path.clone(),
            None => self.stranger(raw.cgroup).unwrap_or_default(),
        };
        let owner = container.unwrap_or(ContainerId(0));
        let id = self.directory.process_id(raw.pid, raw.started_ns, &raw.comm, owner);
        Party {
            id: id.0,
            pid: raw.pid,
            started_ns: raw.started_ns,
            comm: comm(&raw.comm),
            exe,
            container_id: owner.0,
            container: known.map(|known| known.name).or_else(|| {
                let shape = rules::nearest_container(&cgroup_path)?;
                Some(escaped(shape.id))
            }),
            cgroup_path: escaped(&cgroup_path),
            ancestry: ancestry(parents),
        }
    }

    /// Faults, refused system calls, limits of the process's own.
    fn add_causes(&self, found: &mut Found, process: &Process, exit: &RawExit, status: WaitStatus) {
        let WaitStatus::Killed { signal: number, .. } = status else { return };
        let number = u32::from(number);
        let by_kernel = |seen: &&SeenSignal| {
            seen.raw.signal == number && origin(&seen.raw) == SignalOrigin::Kernel
        };
        let from_kernel = process.signals.iter().rev().find(by_kernel);
        if is_fault(number) {
            // A handler of the process may have seen the fault and sent the signal once more.
            match from_kernel.filter(|seen| seen.raw.code > 0) {
                Some(seen) => found.add(
                    seen.raw.time_ns,
                    Fact::Fault(Fault {
                        signal: number as u8,
                        si_code: seen.raw.code,
                        address: seen.raw.address,
                    }),
                ),
                None if process.signals.iter().all(|seen| seen.raw.signal != number) => {
                    found.lacks(Unseen::FaultAddress);
                }
                None => {}
            }
        }
        if number == SIGSYS {
            let refused = from_kernel.filter(|seen| seen.raw.code == SYS_SECCOMP);
            let syscall = match refused {
                Some(seen) => u32::try_from(seen.raw.refused_syscall).ok(),
                // Before Linux 5.16 the kernel kills without a signal, in the middle of the call.
                None if process.signals.iter().all(|seen| seen.raw.signal != SIGSYS) => {
                    u32::try_from(exit.syscall).ok()
                }
                None => None,
            };
            let time_ns = refused.map_or(exit.time_ns, |seen| seen.raw.time_ns);
            match syscall {
                Some(syscall) => {
                    found.add(time_ns, Fact::Seccomp(Seccomp { syscall, name: None }));
                }
                // No number, or no signal: before Linux 5.16 there is none, before 5.15 no number either.
                None if refused.is_some()
                    || process.signals.iter().all(|seen| seen.raw.signal != SIGSYS) =>
                {
                    found.lacks(Unseen::SeccompSyscall);
                }
                None => {}
            }
        }
        if let Some(seen) = from_kernel
            && let Some(resource) = limited(process, seen)
        {
            let soft = (seen.raw.limit != NO_LIMIT).then_some(seen.raw.limit);
            let fact = ResourceLimit { resource: resource.to_owned(), soft };
            found.add(seen.raw.time_ns, Fact::ResourceLimit(fact));
        }
    }

    fn add_oom_kills(&mut self, found: &mut Found, process: &Process, container: ContainerId) {
        let own = process.key();
        let started_ns = own.started_ns;
        let kills: Vec<Box<RawVictim>> = (self.houses.get(&container))
            .map(|house| house.oom_kills.iter().cloned().collect())
            .unwrap_or_default();
        let kills = kills.into_iter().filter(|kill| kill.time_ns >= started_ns);
        let mut is_there = false;
        let mut all: Vec<Box<RawVictim>> = kills.collect();
        for kill in &all {
            is_there |= process.victim.as_ref().is_some_and(|own| own.time_ns == kill.time_ns);
        }
        if !is_there {
            all.extend(process.victim.clone());
        }
        for kill in all {
            let is_self = process.victim.as_ref().is_some_and(|own| own.time_ns == kill.time_ns);
            let fact = self.oom_kill(found, &kill, is_self.then_some(&process.raw), container);
            found.add(kill.time_ns, Fact::OomKill(fact));
        }
    }

    fn oom_kill(
        &mut self,
        found: &mut Found,
        kill: &RawVictim,
        own: Option<&RawProcess>,
        container: ContainerId,
    ) -> OomKill {
        let victim = match own {
            Some(own) => *own,
            None if kill.victim.pid != 0 => kill.victim,
            None => RawProcess { pid: kill.pid, ..RawProcess::default() },
        };
        let no_line = House::default();
        let line = &self.houses.get(&container).unwrap_or(&no_line).memory_line;
        let full = memory::full(kill, line);
        if full.scope == super::record::OomScope::Unknown {
            found.lacks(Unseen::OomScope);
        }
        let bytes = |pages: u64| pages.saturating_mul(self.frame.page_bytes);
        let (limit_bytes, usage_bytes) = (full.limit_pages.map(bytes), full.usage_pages.map(bytes));
        let exe = self.processes.origin(ProcessKey::from(&victim)).1;
        let trigger_exe = self.processes.origin(ProcessKey::from(&kill.trigger)).1;
        OomKill {
            victim: self.party(&victim, &[], exe),
            is_self: own.is_some(),
            trigger: if kill.trigger.pid == 0 {
                Sender::Kernel
            } else {
                Sender::Process(self.party(&kill.trigger, &kill.ancestors, trigger_exe))
            },
            scope: full.scope,
            cgroup_path: escaped(&full.path),
            limit_bytes,
            usage_bytes,
            group_kill: full.kills_all,
        }
    }

    /// The end of the namespace's first process, where the kernel killed this one for it.
    fn add_init_death(&mut self, found: &mut Found, process: &Process) {
        let torn = process.signals.iter().find(|seen| way(seen) == SignalWay::NamespaceTeardown);
        let Some(init) = torn.map(|seen| ProcessKey::from(&seen.raw.sender)) else { return };
        let Some(ended) = self.ended.peek(&init) else { return };
        let (time_ns, raw, status, exe) =
            (ended.time_ns, ended.raw, ended.status, ended.exe.clone());
        let init = self.party(&raw, &[], exe);
        found.add(time_ns, Fact::InitDied(InitDeath { init, status }));
    }
}

impl From<&Refusal> for Execution {
    fn from(refusal: &Refusal) -> Execution {
        Execution { path: refusal.path.clone(), outcome: refusal.outcome }
    }
}

/// The resource whose limit the kernel's signal is about, if it is about one.
fn limited(process: &Process, seen: &SeenSignal) -> Option<&'static str> {
    match seen.raw.signal {
        SIGXCPU => Some("cpu"),
        SIGXFSZ => Some("fsize"),
        // The clock's interrupt counts the time of whoever runs. Nothing else but the memory killer sends it so to the running process.
        SIGKILL if is_cut_off(&seen.raw) && process.victim.is_none() && !seen.oom => Some("cpu"),
        _ => None,
    }
}

/// What the cgroup said at the first signal that was to end the process, and at its end.
fn add_words(found: &mut Found, first: Option<&Words>, last: Option<&Words>) {
    if let (Some(first), Some(last)) = (first, last)
        && let (Some(before), Some(after)) = (&first.cpu, &last.cpu)
    {
        let fact = Throttling {
            window_ns: last.time_ns.saturating_sub(first.time_ns),
            throttled_ns: after.throttled_ns.saturating_sub(before.throttled_ns),
            throttled_periods: after.throttled_periods.saturating_sub(before.throttled_periods),
            periods: after.periods.saturating_sub(before.periods),
        };
        if fact.throttled_periods > 0 || fact.throttled_ns > 0 {
            found.add(first.time_ns, Fact::Throttled(fact));
        }
    } else if first.is_some() {
        found.lacks(Unseen::Throttling);
    }
    let different = first.filter(|first| last.is_none_or(|last| last.time_ns != first.time_ns));
    for words in different.into_iter().chain(last) {
        let time_ns = words.time_ns.min(found.died_ns);
        let samples = [
            words.memory.clone().map(Fact::Memory),
            words.cpu.clone().map(Fact::Cpu),
            words.pids.clone().map(Fact::Pids),
        ];
        let pressure = words.pressure.iter().cloned().map(Fact::Pressure);
        for fact in samples.into_iter().flatten().chain(pressure) {
            found.add(time_ns, fact);
        }
    }
    let any = |said: fn(&Words) -> bool| first.is_some_and(said) || last.is_some_and(said);
    for (said, unseen) in [
        (any(|words| words.memory.is_some()), Unseen::Memory),
        (any(|words| words.cpu.is_some()), Unseen::Cpu),
        (any(|words| words.pids.is_some()), Unseen::Pids),
        (any(|words| !words.pressure.is_empty()), Unseen::Pressure),
    ] {
        if !said {
            found.lacks(unseen);
        }
    }
}

fn told(known: &directory::Container) -> Container {
    Container {
        id: known.id.0,
        name: known.name.clone(),
        runtime_id: known.runtime_id.clone(),
        runtime: known.runtime.to_owned(),
        cgroup_path: escaped(&known.cgroup_path),
        attributes: known.attributes.clone(),
    }
}

fn ancestry(raw: &[RawAncestor]) -> Vec<Ancestor> {
    raw.iter()
        .take_while(|ancestor| ancestor.pid != 0)
        .map(|ancestor| Ancestor { pid: ancestor.pid, comm: comm(&ancestor.comm) })
        .collect()
}

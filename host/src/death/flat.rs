//! A death record in the flat shape of the plugin contract: numbers, and one blob of text.
//!
//! Takes a record and gives what `explainer.death` in `wit/roles.wit` is made of. The keys and kinds
//! are those of the tables there. What was not read is left out.

use super::record::{
    Ancestor, Container, DeadProcess, DeathRecord, Evidence, Fact, Limit, OomKill, Party, Sender,
    Signal,
};
use crate::event::Span;

/// Keys of attributes, as in `wit/types.wit` and `wit/roles.wit`.
mod attribute {
    pub(super) const PROCESS: u16 = 16;
    pub(super) const SIGNAL: u16 = 17;
    pub(super) const SI_CODE: u16 = 18;
    pub(super) const STATUS: u16 = 20;
    pub(super) const NAMESPACE_PID: u16 = 64;
    pub(super) const STARTED: u16 = 65;
    pub(super) const ANCESTOR: u16 = 66;
    pub(super) const CONTAINER_INIT: u16 = 67;
    pub(super) const ONESELF: u16 = 68;
    pub(super) const DELIVERED: u16 = 69;
    pub(super) const GROUP_KILL: u16 = 70;
    pub(super) const OOM_KILLED: u16 = 71;
    pub(super) const TRIGGER: u16 = 72;
    pub(super) const LIMIT: u16 = 73;
    pub(super) const USAGE: u16 = 74;
    pub(super) const PEAK: u16 = 75;
    pub(super) const LIMIT_HITS: u16 = 76;
    pub(super) const OOM_EVENTS: u16 = 77;
    pub(super) const OOM_KILLS: u16 = 78;
    pub(super) const WINDOW: u16 = 79;
    pub(super) const THROTTLED: u16 = 80;
    pub(super) const THROTTLED_PERIODS: u16 = 81;
    pub(super) const PERIODS: u16 = 82;
    pub(super) const PERIOD: u16 = 83;
    pub(super) const PRESSURE_SOME: u16 = 84;
    pub(super) const PRESSURE_FULL: u16 = 85;
    pub(super) const ADDRESS: u16 = 86;
    pub(super) const SYSCALL: u16 = 87;
    pub(super) const OUTCOME: u16 = 88;
}

/// Keys of texts, as in `wit/roles.wit`.
mod text {
    pub(super) const NAME: u16 = 1;
    pub(super) const PROGRAM: u16 = 2;
    pub(super) const ANCESTOR: u16 = 3;
    pub(super) const CONTAINER: u16 = 4;
    pub(super) const CGROUP: u16 = 5;
    pub(super) const RUNTIME: u16 = 6;
    pub(super) const RUNTIME_ID: u16 = 7;
    pub(super) const LABEL: u16 = 8;
    pub(super) const ORIGIN: u16 = 9;
    pub(super) const RESULT: u16 = 10;
    pub(super) const WAY: u16 = 11;
    pub(super) const DISPOSITION: u16 = 12;
    pub(super) const RELATION: u16 = 13;
    pub(super) const ACTOR: u16 = 14;
    pub(super) const SCOPE: u16 = 15;
    pub(super) const RESOURCE: u16 = 16;
    pub(super) const SYSCALL: u16 = 17;
    pub(super) const TRIGGER: u16 = 18;
    pub(super) const TRIGGER_CONTAINER: u16 = 19;
    pub(super) const REFUSED: u16 = 20;
}

/// One thing that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlatEvidence {
    /// Nanoseconds before the death.
    pub before_ns: u64,
    /// What was seen, as the table of kinds has it.
    pub kind: u16,
    /// Number of the process that did it. 0 is none.
    pub process: u32,
    /// Number of its container. 0 is none.
    pub container: u32,
    /// First of its attributes.
    pub attributes_first: u32,
    /// How many.
    pub attributes_count: u32,
    /// First of its texts.
    pub texts_first: u32,
    /// How many.
    pub texts_count: u32,
}

/// A death record, flat. What is about the process and its container comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlatDeath {
    /// Attributes of the process and its container.
    pub attributes_count: u32,
    /// Texts of the process and its container.
    pub texts_count: u32,
    /// In the order of the record.
    pub evidence: Vec<FlatEvidence>,
    /// Numbers by key.
    pub attributes: Vec<(u16, u64)>,
    /// Texts by key.
    pub texts: Vec<(u16, Span)>,
    /// Every text, one after the other.
    pub blob: Vec<u8>,
}

impl FlatDeath {
    /// The record in its flat shape.
    pub fn new(record: &DeathRecord) -> FlatDeath {
        let mut flat = FlatDeath::default();
        flat.dead_process(&record.process);
        flat.own_container(&record.container);
        flat.attributes_count = length(&flat.attributes);
        flat.texts_count = length(&flat.texts);
        for evidence in &record.evidence {
            flat.push_evidence(evidence);
        }
        flat
    }

    fn push_evidence(&mut self, evidence: &Evidence) {
        let (attributes_first, texts_first) = (length(&self.attributes), length(&self.texts));
        self.fact(&evidence.fact);
        let party = actor(&evidence.fact);
        self.evidence.push(FlatEvidence {
            before_ns: evidence.before_ns,
            kind: kind(&evidence.fact),
            process: party.map_or(0, |party| party.id),
            container: party.map_or(0, |party| party.container_id),
            attributes_first,
            attributes_count: length(&self.attributes) - attributes_first,
            texts_first,
            texts_count: length(&self.texts) - texts_first,
        });
    }

    fn fact(&mut self, fact: &Fact) {
        match fact {
            Fact::ContainerStarted => {}
            Fact::Executed(execution) => {
                self.text(text::PROGRAM, &execution.path);
                self.signed(attribute::OUTCOME, execution.outcome);
            }
            Fact::Signal(signal) => self.signal(signal),
            Fact::ChildExited(exit) => {
                self.party(&exit.child);
                self.number(attribute::STATUS, u64::from(exit.status.raw()));
                self.flag(attribute::OOM_KILLED, exit.oom_killed);
                if let Some(refused) = &exit.refused {
                    self.text(text::REFUSED, &refused.path);
                    self.signed(attribute::OUTCOME, refused.outcome);
                }
            }
            Fact::OomKill(kill) => self.oom_kill(kill),
            Fact::Throttled(throttling) => {
                self.number(attribute::WINDOW, throttling.window_ns);
                self.number(attribute::THROTTLED, throttling.throttled_ns);
                self.number(attribute::THROTTLED_PERIODS, throttling.throttled_periods);
                self.number(attribute::PERIODS, throttling.periods);
            }
            Fact::Memory(sample) => {
                self.number(attribute::USAGE, sample.current_bytes);
                self.limit(sample.limit);
                self.known(attribute::PEAK, sample.peak_bytes);
                self.known(attribute::LIMIT_HITS, sample.events_max);
                self.known(attribute::OOM_EVENTS, sample.events_oom);
                self.known(attribute::OOM_KILLS, sample.events_oom_kill);
            }
            Fact::Cpu(sample) => {
                self.number(attribute::USAGE, sample.usage_ns);
                self.number(attribute::PERIODS, sample.periods);
                self.number(attribute::THROTTLED_PERIODS, sample.throttled_periods);
                self.number(attribute::THROTTLED, sample.throttled_ns);
                self.limit(sample.quota_ns);
                self.number(attribute::PERIOD, sample.period_ns);
            }
            Fact::Pids(sample) => {
                self.number(attribute::USAGE, sample.current);
                self.limit(sample.limit);
                self.known(attribute::LIMIT_HITS, sample.events_max);
            }
            Fact::Pressure(sample) => {
                self.text(text::RESOURCE, sample.resource.name());
                self.number(attribute::PRESSURE_SOME, u64::from(sample.some_avg10));
                self.number(attribute::PRESSURE_FULL, u64::from(sample.full_avg10));
            }
            Fact::Fault(fault) => {
                self.number(attribute::SIGNAL, u64::from(fault.signal));
                self.signed(attribute::SI_CODE, fault.si_code);
                self.number(attribute::ADDRESS, fault.address);
            }
            Fact::Seccomp(seccomp) => {
                self.number(attribute::SYSCALL, u64::from(seccomp.syscall));
                if let Some(name) = &seccomp.name {
                    self.text(text::SYSCALL, name);
                }
            }
            Fact::ResourceLimit(limit) => {
                self.text(text::RESOURCE, &limit.resource);
                self.known(attribute::LIMIT, limit.soft);
            }
            Fact::InitDied(death) => {
                self.party(&death.init);
                self.number(attribute::STATUS, u64::from(death.status.raw()));
            }
            Fact::CgroupKill(kill) => {
                // The writer's own cgroup is left out: there is one cgroup here, the one that was killed.
                self.sender(&kill.writer, false);
                self.text(text::CGROUP, &kill.cgroup_path);
            }
        }
    }

    fn signal(&mut self, signal: &Signal) {
        self.number(attribute::SIGNAL, u64::from(signal.number));
        self.signed(attribute::SI_CODE, signal.si_code);
        self.flag(attribute::DELIVERED, signal.delivered);
        self.text(text::ORIGIN, signal.origin.name());
        self.text(text::RESULT, signal.result.name());
        self.text(text::WAY, signal.way.name());
        self.text(text::DISPOSITION, signal.disposition.name());
        self.text(text::RELATION, signal.relation.name());
        self.sender(&signal.sender, true);
    }

    fn oom_kill(&mut self, kill: &OomKill) {
        self.identity(&kill.victim);
        self.flag(attribute::ONESELF, kill.is_self);
        match &kill.trigger {
            Sender::Process(trigger) => {
                self.number(attribute::TRIGGER, u64::from(trigger.pid));
                self.text(text::TRIGGER, &trigger.comm);
                if let Some(container) = &trigger.container {
                    self.text(text::TRIGGER_CONTAINER, container);
                }
            }
            Sender::Kernel | Sender::Unknown => {}
        }
        self.text(text::SCOPE, kill.scope.name());
        self.text(text::CGROUP, &kill.cgroup_path);
        self.known(attribute::LIMIT, kill.limit_bytes);
        self.known(attribute::USAGE, kill.usage_bytes);
        self.flag(attribute::GROUP_KILL, kill.group_kill);
    }

    fn dead_process(&mut self, process: &DeadProcess) {
        self.number(attribute::PROCESS, u64::from(process.pid));
        self.known(attribute::NAMESPACE_PID, process.namespace_pid.map(u64::from));
        self.number(attribute::STARTED, process.started_ns);
        self.flag(attribute::CONTAINER_INIT, process.is_container_init);
        self.text(text::NAME, &process.comm);
        if let Some(program) = &process.exe {
            self.text(text::PROGRAM, program);
        }
        self.ancestry(&process.ancestry);
    }

    fn own_container(&mut self, container: &Container) {
        self.text(text::CONTAINER, &container.name);
        self.text(text::CGROUP, &container.cgroup_path);
        self.text(text::RUNTIME, &container.runtime);
        self.text(text::RUNTIME_ID, &container.runtime_id);
        for (key, value) in &container.attributes {
            self.text(text::LABEL, &format!("{key}={value}"));
        }
    }

    fn sender(&mut self, sender: &Sender, with_cgroup: bool) {
        match sender {
            Sender::Process(party) => {
                self.text(text::ACTOR, "process");
                if with_cgroup { self.party(party) } else { self.identity(party) }
            }
            Sender::Kernel => self.text(text::ACTOR, "kernel"),
            Sender::Unknown => self.text(text::ACTOR, "unknown"),
        }
    }

    fn party(&mut self, party: &Party) {
        self.identity(party);
        self.text(text::CGROUP, &party.cgroup_path);
    }

    fn identity(&mut self, party: &Party) {
        self.number(attribute::PROCESS, u64::from(party.pid));
        self.number(attribute::STARTED, party.started_ns);
        self.text(text::NAME, &party.comm);
        if let Some(program) = &party.exe {
            self.text(text::PROGRAM, program);
        }
        if let Some(container) = &party.container {
            self.text(text::CONTAINER, container);
        }
        self.ancestry(&party.ancestry);
    }

    fn ancestry(&mut self, ancestry: &[Ancestor]) {
        for ancestor in ancestry {
            self.number(attribute::ANCESTOR, u64::from(ancestor.pid));
            // Pushed even if empty, so that texts and numbers stay beside each other.
            self.push_text(text::ANCESTOR, &ancestor.comm);
        }
    }

    fn limit(&mut self, limit: Limit) {
        match limit {
            Limit::Unlimited => self.number(attribute::LIMIT, u64::MAX),
            Limit::At(amount) => self.number(attribute::LIMIT, amount),
            Limit::Unknown => {}
        }
    }

    fn known(&mut self, key: u16, value: Option<u64>) {
        self.attributes.extend(value.map(|value| (key, value)));
    }

    fn flag(&mut self, key: u16, is_set: bool) {
        if is_set {
            self.number(key, 1);
        }
    }

    fn signed(&mut self, key: u16, value: i32) {
        self.number(key, i64::from(value).cast_unsigned());
    }

    fn number(&mut self, key: u16, value: u64) {
        self.attributes.push((key, value));
    }

    fn text(&mut self, key: u16, value: &str) {
        if !value.is_empty() {
            self.push_text(key, value);
        }
    }

    fn push_text(&mut self, key: u16, value: &str) {
        let span = Span { offset: length(&self.blob), length: length(value.as_bytes()) };
        self.blob.extend_from_slice(value.as_bytes());
        self.texts.push((key, span));
    }
}

fn length<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).expect("a death record is far below 4 GiB")
}

/// The number of a fact's kind in the contract.
fn kind(fact: &Fact) -> u16 {
    match fact {
        Fact::ContainerStarted => 1,
        Fact::Executed(_) => 49,
        Fact::ChildExited(_) => 50,
        Fact::Signal(_) => 51,
        Fact::OomKill(_) => 53,
        Fact::Throttled(_) => 54,
        Fact::Memory(_) => 64,
        Fact::Cpu(_) => 65,
        Fact::Pids(_) => 66,
        Fact::Pressure(_) => 67,
        Fact::Fault(_) => 68,
        Fact::Seccomp(_) => 69,
        Fact::ResourceLimit(_) => 70,
        Fact::InitDied(_) => 71,
        Fact::CgroupKill(_) => 72,
    }
}

/// The process that a fact is about, beside the one that died.
fn actor(fact: &Fact) -> Option<&Party> {
    let sender = match fact {
        Fact::Signal(signal) => &signal.sender,
        Fact::CgroupKill(kill) => &kill.writer,
        Fact::ChildExited(exit) => return Some(&exit.child),
        Fact::OomKill(kill) => return Some(&kill.victim),
        Fact::InitDied(death) => return Some(&death.init),
        Fact::ContainerStarted
        | Fact::Executed(_)
        | Fact::Throttled(_)
        | Fact::Memory(_)
        | Fact::Cpu(_)
        | Fact::Pids(_)
        | Fact::Pressure(_)
        | Fact::Fault(_)
        | Fact::Seccomp(_)
        | Fact::ResourceLimit(_) => return None,
    };
    match sender {
        Sender::Process(party) => Some(party),
        Sender::Kernel | Sender::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use whodunit_sdk::Death;
    use whodunit_sdk::bindings::explainer::exports::whodunit::plugin::explainer as raw;
    use whodunit_sdk::bindings::whodunit::plugin::types;
    use whodunit_sdk::death as seen;
    use whodunit_sdk::testing::death;

    use super::*;
    use crate::death::record::*;

    fn party(comm: &str, container: Option<&str>) -> Party {
        Party {
            id: 3,
            pid: 812,
            started_ns: 77,
            comm: comm.to_owned(),
            exe: Some(format!("/bin/{comm}")),
            container_id: 2,
            container: container.map(str::to_owned),
            cgroup_path: "/system.slice".to_owned(),
            ancestry: vec![
                Ancestor { pid: 9, comm: String::new() },
                Ancestor { pid: 1, comm: "systemd".to_owned() },
            ],
        }
    }

    fn seen_party<'a>(
        name: &'a str,
        program: &'a str,
        container: Option<&'a str>,
    ) -> seen::Party<'a> {
        seen::Party {
            pid: 812,
            name,
            program: Some(program),
            container,
            cgroup: "/system.slice",
            ancestors: vec![(9, ""), (1, "systemd")],
        }
    }

    /// As a guest gets it.
    fn handed_over(record: &DeathRecord) -> Death {
        let flat = FlatDeath::new(record);
        let attribute = |&(key, value): &(u16, u64)| types::Attribute { key, value };
        let text = |&(key, span): &(u16, Span)| raw::Text {
            key,
            value: types::Span { offset: span.offset, length: span.length },
        };
        let evidence = |evidence: &FlatEvidence| raw::Evidence {
            before: evidence.before_ns,
            kind: evidence.kind,
            process: evidence.process,
            container: evidence.container,
            attributes_first: evidence.attributes_first,
            attributes_count: evidence.attributes_count,
            texts_first: evidence.texts_first,
            texts_count: evidence.texts_count,
        };
        death(raw::Death {
            time: record.time_ns,
            container_died: record.subject == Subject::Container,
            container: record.container.id,
            process: record.process.id,
            status: record.status.raw(),
            decided_by: record.decided_by,
            attributes_count: flat.attributes_count,
            texts_count: flat.texts_count,
            evidence: flat.evidence.iter().map(evidence).collect(),
            attributes: flat.attributes.iter().map(attribute).collect(),
            texts: flat.texts.iter().map(text).collect(),
            blob: flat.blob,
            unseen: record.unseen.iter().map(|unseen| unseen.name().to_owned()).collect(),
            losses: Vec::new(),
        })
    }

    fn record(facts: Vec<Fact>) -> DeathRecord {
        DeathRecord {
            schema: SCHEMA,
            time_ns: 5,
            subject: Subject::Container,
            container: Container {
                id: 1,
                name: "web".to_owned(),
                runtime_id: "abc".to_owned(),
                runtime: "containerd".to_owned(),
                cgroup_path: "/kubepods/web".to_owned(),
                attributes: vec![("pod-uid".to_owned(), "u".to_owned())],
            },
            process: DeadProcess {
                id: 2,
                pid: 4711,
                namespace_pid: Some(1),
                started_ns: 1,
                comm: "app".to_owned(),
                exe: Some("/app".to_owned()),
                is_container_init: true,
                ancestry: vec![Ancestor { pid: 812, comm: "shim".to_owned() }],
            },
            status: WaitStatus::Killed { signal: 9, core_dumped: false },
            evidence: facts.into_iter().map(|fact| Evidence { before_ns: 7, fact }).collect(),
            decided_by: None,
            unseen: vec![Unseen::SenderName],
            losses: Losses::default(),
        }
    }

    fn check(fact: Fact, expected: &seen::Fact<'_>) {
        // Beside another fact, so that indices count.
        let record = record(vec![Fact::ContainerStarted, fact]);
        let death = handed_over(&record);
        let evidence: Vec<_> = death.evidence().collect();
        assert_eq!(evidence[1].before(), 7);
        assert_eq!(&evidence[1].fact(), expected);
        assert_eq!(evidence[0].fact(), seen::Fact::ContainerStarted);
    }

    #[test]
    fn a_guest_reads_who_died() {
        let mut record = record(vec![]);
        let death = handed_over(&record);
        assert_eq!(
            death.process(),
            seen::Party {
                pid: 4711,
                name: "app",
                program: Some("/app"),
                container: Some("web"),
                cgroup: "/kubepods/web",
                ancestors: vec![(812, "shim")],
            }
        );
        assert!(death.container_died() && death.is_container_init());
        assert_eq!(death.namespace_pid(), Some(1));
        assert_eq!(death.labels().collect::<Vec<_>>(), ["pod-uid=u"]);
        assert_eq!(death.status(), seen::WaitStatus::Killed { signal: 9, core_dumped: false });
        assert_eq!(death.unseen().collect::<Vec<_>>(), ["sender-name"]);
        record.subject = Subject::Process;
        assert!(!handed_over(&record).container_died());
    }

    #[test]
    fn a_guest_reads_every_word_of_a_signal() {
        let signal = Signal {
            number: 15,
            si_code: -6,
            origin: SignalOrigin::User,
            result: SignalResult::Delivered,
            delivered: true,
            way: SignalWay::Thread,
            disposition: Disposition::Handler,
            relation: Relation::Runtime,
            sender: Sender::Process(party("shim", None)),
        };
        let expected = seen::Signal {
            number: 15,
            si_code: -6,
            origin: seen::Origin::User,
            result: seen::SignalResult::Delivered,
            delivered: true,
            way: seen::Way::Thread,
            disposition: seen::Disposition::Handler,
            relation: seen::Relation::Runtime,
            sender: seen::Actor::Process(seen_party("shim", "/bin/shim", None)),
        };
        check(Fact::Signal(signal.clone()), &seen::Fact::Signal(expected));
        let words = |signal: Signal| {
            let record = record(vec![Fact::Signal(signal)]);
            let death = handed_over(&record);
            let (_, seen) = death.signals().next().unwrap();
            [
                seen.origin.word(),
                seen.result.word(),
                seen.way.word(),
                seen.disposition.word(),
                seen.relation.word(),
            ]
        };
        for &origin in SignalOrigin::ALL {
            assert_eq!(words(Signal { origin, ..signal.clone() })[0], origin.name());
        }
        for &result in SignalResult::ALL {
            assert_eq!(words(Signal { result, ..signal.clone() })[1], result.name());
        }
        for &way in SignalWay::ALL {
            assert_eq!(words(Signal { way, ..signal.clone() })[2], way.name());
        }
        for &disposition in Disposition::ALL {
            assert_eq!(words(Signal { disposition, ..signal.clone() })[3], disposition.name());
        }
        for &relation in Relation::ALL {
            assert_eq!(words(Signal { relation, ..signal.clone() })[4], relation.name());
        }
    }

    #[test]
    fn a_guest_reads_kills_for_want_of_memory() {
        let kill = |scope| OomKill {
            victim: party("hog", Some("web")),
            is_self: false,
            trigger: Sender::Process(party("other", Some("web"))),
            scope,
            cgroup_path: "/kubepods".to_owned(),
            limit_bytes: Some(100),
            usage_bytes: Some(99),
            group_kill: true,
        };
        let expected = |scope| seen::OomKill {
            victim: seen::Party { cgroup: "", ..seen_party("hog", "/bin/hog", Some("web")) },
            is_self: false,
            trigger: Some((812, "other")),
            scope,
            cgroup: "/kubepods",
            limit: Some(100),
            usage: Some(99),
            group_kill: true,
        };
        for (scope, seen) in [
            (OomScope::Own, seen::OomScope::Own),
            (OomScope::Ancestor, seen::OomScope::Ancestor),
            (OomScope::Node, seen::OomScope::Node),
            (OomScope::Unknown, seen::OomScope::Unknown),
        ] {
            check(Fact::OomKill(kill(scope)), &seen::Fact::OomKill(expected(seen)));
        }
    }

    #[test]
    fn a_guest_reads_what_the_cgroup_said() {
        let memory = |limit| {
            Fact::Memory(MemorySample {
                current_bytes: 10,
                limit,
                peak_bytes: None,
                events_max: Some(1),
                events_oom: Some(2),
                events_oom_kill: Some(3),
            })
        };
        for (limit, seen) in [
            (Limit::Unlimited, seen::Limit::Unlimited),
            (Limit::At(20), seen::Limit::At(20)),
            (Limit::Unknown, seen::Limit::Unknown),
        ] {
            check(
                memory(limit),
                &seen::Fact::Memory { usage: 10, limit: seen, oom_kills: Some(3) },
            );
        }
        let cpu = CpuSample {
            usage_ns: 1,
            periods: 2,
            throttled_periods: 3,
            throttled_ns: 4,
            quota_ns: Limit::At(5),
            period_ns: 6,
        };
        let expected =
            seen::Fact::Cpu { periods: 2, throttled_periods: 3, quota: seen::Limit::At(5) };
        check(Fact::Cpu(cpu), &expected);
        let pids = PidsSample { current: 1, limit: Limit::At(2), events_max: Some(3) };
        let expected =
            seen::Fact::Pids { usage: 1, limit: seen::Limit::At(2), limit_hits: Some(3) };
        check(Fact::Pids(pids), &expected);
        let pressure = PressureSample { resource: Resource::Io, some_avg10: 1, full_avg10: 2 };
        check(Fact::Pressure(pressure), &seen::Fact::Pressure { resource: "io", some: 1, full: 2 });
        let throttling =
            Throttling { window_ns: 1, throttled_ns: 2, throttled_periods: 3, periods: 4 };
        check(Fact::Throttled(throttling), &seen::Fact::Throttled { window: 1, throttled: 2 });
    }

    #[test]
    fn a_guest_reads_everything_else() {
        let execution = Execution { path: "/bin/x".to_owned(), outcome: -2 };
        check(Fact::Executed(execution), &seen::Fact::Executed { program: "/bin/x", outcome: -2 });
        let status = WaitStatus::Killed { signal: 9, core_dumped: true };
        let seen_status = seen::WaitStatus::Killed { signal: 9, core_dumped: true };
        check(
            Fact::ChildExited(ChildExit {
                child: party("kid", None),
                status,
                oom_killed: true,
                refused: Some(Execution { path: "/nope".to_owned(), outcome: -13 }),
            }),
            &seen::Fact::ChildExited {
                child: seen_party("kid", "/bin/kid", None),
                status: seen_status,
                oom_killed: true,
                refused: Some(("/nope", -13)),
            },
        );
        check(
            Fact::InitDied(InitDeath { init: party("init", None), status }),
            &seen::Fact::InitDied {
                init: seen_party("init", "/bin/init", None),
                status: seen_status,
            },
        );
        check(
            Fact::Fault(Fault { signal: 11, si_code: 1, address: 0x10 }),
            &seen::Fact::Fault { signal: 11, si_code: 1, address: 0x10 },
        );
        check(
            Fact::Seccomp(Seccomp { syscall: 59, name: Some("execve".to_owned()) }),
            &seen::Fact::Seccomp { syscall: 59, name: Some("execve") },
        );
        check(
            Fact::ResourceLimit(ResourceLimit { resource: "cpu".to_owned(), soft: Some(1) }),
            &seen::Fact::ResourceLimit { resource: "cpu", limit: Some(1) },
        );
        let kill = |writer| CgroupKill { cgroup_path: "/pod".to_owned(), writer };
        let writer = seen::Party { cgroup: "", ..seen_party("sh", "/bin/sh", None) };
        for (sender, actor) in [
            (Sender::Unknown, seen::Actor::Unknown),
            (Sender::Kernel, seen::Actor::Kernel),
            (Sender::Process(party("sh", None)), seen::Actor::Process(writer)),
        ] {
            let expected = seen::Fact::CgroupKill { cgroup: "/pod", writer: actor };
            check(Fact::CgroupKill(kill(sender)), &expected);
        }
    }
}

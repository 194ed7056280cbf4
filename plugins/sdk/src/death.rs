//! A death as an explainer reads it: views into the flat record. Nothing is copied but lists of
//! ancestors.
//!
//! What this version of the SDK does not know (a kind, a word, a key) is [`Fact::Other`] or an
//! `Unknown`, and never an error.

use crate::bindings::explainer::exports::whodunit::plugin::explainer as raw;
use crate::bindings::whodunit::plugin::types;

/// Keys of numbers, kinds of evidence and keys of texts: the tables of `wit/roles.wit`.
pub mod key {
    #![allow(missing_docs, reason = "the tables of the contract say what each is")]

    pub const PROCESS: u16 = 16;
    pub const SIGNAL: u16 = 17;
    pub const SI_CODE: u16 = 18;
    pub const STATUS: u16 = 20;
    pub const NAMESPACE_PID: u16 = 64;
    pub const STARTED: u16 = 65;
    pub const ANCESTOR: u16 = 66;
    pub const CONTAINER_INIT: u16 = 67;
    pub const ONESELF: u16 = 68;
    pub const DELIVERED: u16 = 69;
    pub const GROUP_KILL: u16 = 70;
    pub const OOM_KILLED: u16 = 71;
    pub const TRIGGER: u16 = 72;
    pub const LIMIT: u16 = 73;
    pub const USAGE: u16 = 74;
    pub const PEAK: u16 = 75;
    pub const LIMIT_HITS: u16 = 76;
    pub const OOM_EVENTS: u16 = 77;
    pub const OOM_KILLS: u16 = 78;
    pub const WINDOW: u16 = 79;
    pub const THROTTLED: u16 = 80;
    pub const THROTTLED_PERIODS: u16 = 81;
    pub const PERIODS: u16 = 82;
    pub const PERIOD: u16 = 83;
    pub const PRESSURE_SOME: u16 = 84;
    pub const PRESSURE_FULL: u16 = 85;
    pub const ADDRESS: u16 = 86;
    pub const SYSCALL: u16 = 87;
    pub const OUTCOME: u16 = 88;

    /// Kinds of evidence.
    pub mod kind {
        pub const CONTAINER_STARTED: u16 = 1;
        pub const PROCESS_EXECUTED: u16 = 49;
        pub const PROCESS_EXITED: u16 = 50;
        pub const SIGNAL_GENERATED: u16 = 51;
        pub const OOM_KILL: u16 = 53;
        pub const CPU_THROTTLED: u16 = 54;
        pub const MEMORY: u16 = 64;
        pub const CPU: u16 = 65;
        pub const PIDS: u16 = 66;
        pub const PRESSURE: u16 = 67;
        pub const FAULT: u16 = 68;
        pub const SECCOMP: u16 = 69;
        pub const RESOURCE_LIMIT: u16 = 70;
        pub const INIT_DIED: u16 = 71;
        pub const CGROUP_KILL: u16 = 72;
    }

    /// Keys of texts.
    pub mod text {
        pub const NAME: u16 = 1;
        pub const PROGRAM: u16 = 2;
        pub const ANCESTOR: u16 = 3;
        pub const CONTAINER: u16 = 4;
        pub const CGROUP: u16 = 5;
        pub const RUNTIME: u16 = 6;
        pub const RUNTIME_ID: u16 = 7;
        pub const LABEL: u16 = 8;
        pub const ORIGIN: u16 = 9;
        pub const RESULT: u16 = 10;
        pub const WAY: u16 = 11;
        pub const DISPOSITION: u16 = 12;
        pub const RELATION: u16 = 13;
        pub const ACTOR: u16 = 14;
        pub const SCOPE: u16 = 15;
        pub const RESOURCE: u16 = 16;
        pub const SYSCALL: u16 = 17;
        pub const TRIGGER: u16 = 18;
        pub const TRIGGER_CONTAINER: u16 = 19;
        /// Path of the program that the child could not execute.
        pub const REFUSED: u16 = 20;
    }
}

/// An enumeration that travels as a word. A word that is not known is `Unknown`.
macro_rules! words {
    ($(#[$outer:meta])* $type:ident { $($(#[$inner:meta])* $case:ident = $word:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type {
            $($(#[$inner])* $case,)+
            /// It was not seen, or this version of the SDK has no name for it.
            Unknown,
        }

        impl $type {
            /// The word in the contract.
            pub const fn word(self) -> &'static str {
                match self { $($type::$case => $word,)+ $type::Unknown => "unknown" }
            }

            fn of(word: Option<&str>) -> $type {
                match word { $(Some($word) => $type::$case,)+ _ => $type::Unknown }
            }
        }
    };
}

words! {
    /// Who made a signal.
    Origin {
        /// A process asked for it.
        User = "user",
        /// The kernel made it: the process that ran then is a bystander.
        Kernel = "kernel",
    }
}

words! {
    /// What became of a signal when it was generated.
    SignalResult {
        /// It is on its way.
        Delivered = "delivered",
        /// The target ignores it.
        Ignored = "ignored",
        /// One like it was waiting already.
        AlreadyPending = "already-pending",
        /// The queue was full, and it was lost.
        OverflowFail = "overflow-fail",
        /// The queue was full; it came without saying who sent it.
        LoseInfo = "lose-info",
    }
}

words! {
    /// The road that a signal came by.
    Way {
        /// `kill` to the process.
        Kill = "kill",
        /// `kill` to a process group or to every process.
        Group = "group",
        /// `tkill` or `tgkill`: to one thread.
        Thread = "thread",
        /// `rt_sigqueueinfo` and the like.
        Queue = "queue",
        /// `pidfd_send_signal`.
        Pidfd = "pidfd",
        /// `cgroup.kill`.
        CgroupKill = "cgroup-kill",
        /// `PR_SET_PDEATHSIG`: the kernel, because the parent ended.
        ParentDeath = "parent-death",
        /// The kernel, because of what the process did.
        Exception = "exception",
        /// The out-of-memory killer.
        Oom = "oom",
        /// The kernel, because the first process of the pid namespace ended.
        NamespaceTeardown = "namespace-teardown",
        /// The terminal, a timer, or another part of the kernel.
        Kernel = "kernel",
    }
}

words! {
    /// What a process has told the kernel to do with a signal.
    Disposition {
        /// It has a handler.
        Handler = "handler",
        /// The default action.
        Default = "default",
        /// It asked to ignore it.
        Ignored = "ignored",
        /// It is blocked, and waits.
        Blocked = "blocked",
        /// The default action, which does not apply to the first process of a pid namespace.
        UnkillableInit = "unkillable-init",
    }
}

words! {
    /// What a sender is to its target.
    Relation {
        /// The target itself.
        Oneself = "self",
        /// Its parent.
        Parent = "parent",
        /// Its child, or a child of that.
        Child = "child",
        /// Another process of the container.
        SameContainer = "same-container",
        /// A process that was put into the running container, or a descendant of one.
        ExecSession = "exec-session",
        /// The container's runtime, or a process that it started.
        Runtime = "runtime",
        /// A process of another container.
        OtherContainer = "other-container",
        /// A process of the machine, outside of every container.
        HostProcess = "host-process",
        /// The kernel, because somebody wrote to `cgroup.kill`.
        CgroupKill = "cgroup-kill",
        /// The kernel, because the first process of the pid namespace ended.
        NamespaceTeardown = "namespace-teardown",
        /// The kernel, for a reason of its own.
        Kernel = "kernel",
    }
}

words! {
    /// Which memory ran out.
    OomScope {
        /// The container's own limit.
        Own = "own",
        /// The limit of a cgroup above: a pod, a slice.
        Ancestor = "ancestor",
        /// The machine's memory.
        Node = "node",
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitStatus {
    /// It exited with that code.
    Exited(u8),
    /// A signal ended it.
    Killed {
        /// Number of the signal.
        signal: u8,
        /// Whether the kernel wrote a core, or meant to.
        core_dumped: bool,
    },
}

impl WaitStatus {
    /// From the number that `wait` reports.
    pub const fn of(raw: u32) -> WaitStatus {
        match (raw & 0x7f) as u8 {
            0 => WaitStatus::Exited((raw >> 8) as u8),
            signal => WaitStatus::Killed { signal, core_dumped: raw & 0x80 != 0 },
        }
    }
}

/// A limit of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// None.
    Unlimited,
    /// So much.
    At(u64),
    /// It was not read.
    Unknown,
}

/// A process that died, with everything that was seen of it.
#[derive(Debug)]
pub struct Death(raw::Death);

impl Death {
    pub(crate) fn new(death: raw::Death) -> Death {
        Death(death)
    }

    /// When, in nanoseconds since the Unix epoch.
    pub fn time(&self) -> u64 {
        self.0.time
    }

    /// Whether it was the first process of its container, so that the container died.
    pub fn container_died(&self) -> bool {
        self.0.container_died
    }

    /// How.
    pub fn status(&self) -> WaitStatus {
        WaitStatus::of(self.0.status)
    }

    /// Number of its container; see [`crate::directory::container`]. 0 is none.
    pub fn container_id(&self) -> u32 {
        self.0.container
    }

    /// The process that died, with the name and the cgroup of its container.
    pub fn process(&self) -> Party<'_> {
        self.subject().party()
    }

    /// Its pid in its own pid namespace.
    pub fn namespace_pid(&self) -> Option<u32> {
        self.subject().number(key::NAMESPACE_PID).map(|pid| pid as u32)
    }

    /// Whether it was the first process of its container, which may be one of several processes that died.
    pub fn is_container_init(&self) -> bool {
        self.subject().flag(key::CONTAINER_INIT)
    }

    /// What else is known of its container, as `key=value`.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.subject().texts_of(key::text::LABEL)
    }

    /// Everything that was seen, the oldest first.
    pub fn evidence(&self) -> impl ExactSizeIterator<Item = Evidence<'_>> {
        let evidence = self.0.evidence.iter().enumerate();
        evidence.map(|(index, evidence)| Evidence { death: self, index: index as u32, evidence })
    }

    /// Every signal for the process, the oldest first.
    pub fn signals(&self) -> impl Iterator<Item = (Evidence<'_>, Signal<'_>)> {
        self.evidence().filter_map(|evidence| match evidence.fact() {
            Fact::Signal(signal) => Some((evidence, signal)),
            _ => None,
        })
    }

    /// The signal that ended it. None where it ended by itself, and where that was not seen.
    pub fn decided_by(&self) -> Option<(Evidence<'_>, Signal<'_>)> {
        let index = self.0.decided_by?;
        self.signals().find(|(evidence, _)| evidence.index == index)
    }

    /// What could not be seen, each a stable identifier such as `signals-lost`.
    pub fn unseen(&self) -> impl Iterator<Item = &str> {
        self.0.unseen.iter().map(String::as_str)
    }

    /// Whether that could not be seen.
    pub fn is_unseen(&self, identifier: &str) -> bool {
        self.unseen().any(|unseen| unseen == identifier)
    }

    /// What was seen by the kernel and lost on the way, while this process lived.
    pub fn losses(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.losses.iter().map(|counter| (counter.name.as_str(), counter.value))
    }

    fn subject(&self) -> Things<'_> {
        Things {
            attributes: part(&self.0.attributes, 0, self.0.attributes_count),
            texts: part(&self.0.texts, 0, self.0.texts_count),
            blob: &self.0.blob,
        }
    }
}

/// One thing that was seen, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    death: &'a Death,
    index: u32,
    evidence: &'a raw::Evidence,
}

impl<'a> Evidence<'a> {
    /// Its index, for `rests_on` of an explanation.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Nanoseconds before the death; 0 for what was read after it.
    pub fn before(&self) -> u64 {
        self.evidence.before
    }

    /// The number of that key (see [`key`]).
    pub fn number(&self, key: u16) -> Option<u64> {
        self.things().number(key)
    }

    /// The text of that key (see [`key::text`]).
    pub fn text(&self, key: u16) -> Option<&'a str> {
        self.things().text(key)
    }

    /// What was seen.
    pub fn fact(&self) -> Fact<'a> {
        self.things().fact(self.evidence.kind)
    }

    fn things(&self) -> Things<'a> {
        let (death, evidence) = (&self.death.0, self.evidence);
        Things {
            attributes: part(
                &death.attributes,
                evidence.attributes_first,
                evidence.attributes_count,
            ),
            texts: part(&death.texts, evidence.texts_first, evidence.texts_count),
            blob: &death.blob,
        }
    }
}

/// What was seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact<'a> {
    /// The container was watched from its birth on.
    ContainerStarted,
    /// The process executed a program, or meant to.
    Executed {
        /// Path of the program.
        program: &'a str,
        /// 0, or a negative errno.
        outcome: i32,
    },
    /// A child of the process ended.
    ChildExited {
        /// The child.
        child: Party<'a>,
        /// How.
        status: WaitStatus,
        /// Whether the out-of-memory killer chose it.
        oom_killed: bool,
        /// The program that it could not execute before it ended, and the negative errno.
        refused: Option<(&'a str, i32)>,
    },
    /// A signal for the process.
    Signal(Signal<'a>),
    /// The kernel killed a process for want of memory.
    OomKill(OomKill<'a>),
    /// Between the first signal and the end, the quota of CPU was used up.
    Throttled {
        /// From the first signal to the end, in nanoseconds.
        window: u64,
        /// How long it was not let run, in nanoseconds.
        throttled: u64,
    },
    /// What the container's cgroup said of memory.
    Memory {
        /// Used, in bytes.
        usage: u64,
        /// Its limit, in bytes.
        limit: Limit,
        /// Processes that were killed for want of memory.
        oom_kills: Option<u64>,
    },
    /// What the container's cgroup said of CPU.
    Cpu {
        /// Periods of the quota that there were.
        periods: u64,
        /// Those in which it was used up.
        throttled_periods: u64,
        /// The quota, in nanoseconds a period.
        quota: Limit,
    },
    /// What the container's cgroup said of processes.
    Pids {
        /// How many there were.
        usage: u64,
        /// How many there may be.
        limit: Limit,
        /// Forks that failed at the limit.
        limit_hits: Option<u64>,
    },
    /// What the container's cgroup said of pressure, in hundredths of a percent of ten seconds.
    Pressure {
        /// `cpu`, `memory` or `io`.
        resource: &'a str,
        /// In which some task waited.
        some: u64,
        /// In which all did.
        full: u64,
    },
    /// The process touched memory that it must not, or executed what it could not.
    Fault {
        /// Number of the signal.
        signal: u8,
        /// `si_code`.
        si_code: i32,
        /// `si_addr`.
        address: u64,
    },
    /// A filter did not allow a system call.
    Seccomp {
        /// Its number.
        syscall: u64,
        /// Its name, where it is known.
        name: Option<&'a str>,
    },
    /// The process ran into a limit of its own.
    ResourceLimit {
        /// `cpu`, `fsize`, ...
        resource: &'a str,
        /// In the unit of that resource.
        limit: Option<u64>,
    },
    /// The first process of its pid namespace ended.
    InitDied {
        /// That process.
        init: Party<'a>,
        /// How.
        status: WaitStatus,
    },
    /// Somebody wrote to `cgroup.kill`.
    CgroupKill {
        /// The cgroup that was killed. Empty where it was not seen.
        cgroup: &'a str,
        /// Who wrote.
        writer: Actor<'a>,
    },
    /// A kind that this version of the SDK has no name for. Skip it.
    Other(u16),
}

/// A signal for the process.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal<'a> {
    /// Its number.
    pub number: u8,
    /// `si_code`.
    pub si_code: i32,
    /// Who made it.
    pub origin: Origin,
    /// What became of it when it was generated.
    pub result: SignalResult,
    /// Whether it was seen to be delivered.
    pub delivered: bool,
    /// The road that it came by.
    pub way: Way,
    /// What the target had told the kernel to do with it.
    pub disposition: Disposition,
    /// What the sender is to the target.
    pub relation: Relation,
    /// Who sent it.
    pub sender: Actor<'a>,
}

/// Who did something.
#[derive(Clone, Debug, PartialEq)]
pub enum Actor<'a> {
    /// A process.
    Process(Party<'a>),
    /// The kernel.
    Kernel,
    /// It was not seen.
    Unknown,
}

/// A process that had a part in a death, as of that moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Party<'a> {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Its name.
    pub name: &'a str,
    /// The program that it executed.
    pub program: Option<&'a str>,
    /// The name of its container. None outside of every container.
    pub container: Option<&'a str>,
    /// Path of its cgroup. Empty where it was not read.
    pub cgroup: &'a str,
    /// Its parent, the parent of that, ...: pid and name.
    pub ancestors: Vec<(u32, &'a str)>,
}

/// A process that the kernel killed for want of memory.
#[derive(Clone, Debug, PartialEq)]
pub struct OomKill<'a> {
    /// Whom the kernel chose.
    pub victim: Party<'a>,
    /// Whether that is the process that died.
    pub is_self: bool,
    /// Pid and name of the process in whose allocation the memory ran out.
    pub trigger: Option<(u32, &'a str)>,
    /// Which memory ran out.
    pub scope: OomScope,
    /// Path of the memory cgroup that ran out. Empty for the node's, and where it was not seen.
    pub cgroup: &'a str,
    /// Its limit, in bytes.
    pub limit: Option<u64>,
    /// What it used, in bytes.
    pub usage: Option<u64>,
    /// Whether the kernel killed the whole cgroup.
    pub group_kill: bool,
}

/// Numbers and texts of one thing.
#[derive(Clone, Copy)]
struct Things<'a> {
    attributes: &'a [types::Attribute],
    texts: &'a [raw::Text],
    blob: &'a [u8],
}

impl<'a> Things<'a> {
    fn number(self, key: u16) -> Option<u64> {
        self.numbers_of(key).next()
    }

    fn numbers_of(self, key: u16) -> impl Iterator<Item = u64> + 'a {
        let attributes = self.attributes.iter().filter(move |attribute| attribute.key == key);
        attributes.map(|attribute| attribute.value)
    }

    /// Numbers that are negative travel in two's complement.
    fn signed(self, key: u16) -> i32 {
        self.number(key).unwrap_or_default() as i32
    }

    fn flag(self, key: u16) -> bool {
        self.number(key).is_some_and(|value| value != 0)
    }

    fn text(self, key: u16) -> Option<&'a str> {
        self.texts_of(key).next()
    }

    /// Empty where a span is not text of the blob: the daemon never sends such a death, and a plugin
    /// need not die of one.
    fn texts_of(self, key: u16) -> impl Iterator<Item = &'a str> + 'a {
        let texts = self.texts.iter().filter(move |text| text.key == key);
        texts.map(move |text| {
            let start = text.value.offset as usize;
            let bytes = self.blob.get(start..start + text.value.length as usize);
            std::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
        })
    }

    fn limit(self) -> Limit {
        match self.number(key::LIMIT) {
            None => Limit::Unknown,
            Some(u64::MAX) => Limit::Unlimited,
            Some(amount) => Limit::At(amount),
        }
    }

    fn status(self) -> WaitStatus {
        WaitStatus::of(self.number(key::STATUS).unwrap_or_default() as u32)
    }

    fn party(self) -> Party<'a> {
        let ancestors = self.numbers_of(key::ANCESTOR).map(|pid| pid as u32);
        Party {
            pid: self.number(key::PROCESS).unwrap_or_default() as u32,
            name: self.text(key::text::NAME).unwrap_or_default(),
            program: self.text(key::text::PROGRAM),
            container: self.text(key::text::CONTAINER),
            cgroup: self.text(key::text::CGROUP).unwrap_or_default(),
            ancestors: ancestors.zip(self.texts_of(key::text::ANCESTOR)).collect(),
        }
    }

    fn actor(self) -> Actor<'a> {
        match self.text(key::text::ACTOR) {
            Some("process") => Actor::Process(self.party()),
            Some("kernel") => Actor::Kernel,
            _ => Actor::Unknown,
        }
    }

    fn fact(self, kind: u16) -> Fact<'a> {
        let number = |key| self.number(key).unwrap_or_default();
        let text = |key| self.text(key).unwrap_or_default();
        match kind {
            key::kind::CONTAINER_STARTED => Fact::ContainerStarted,
            key::kind::PROCESS_EXECUTED => Fact::Executed {
                program: text(key::text::PROGRAM),
                outcome: self.signed(key::OUTCOME),
            },
            key::kind::PROCESS_EXITED => Fact::ChildExited {
                child: self.party(),
                status: self.status(),
                oom_killed: self.flag(key::OOM_KILLED),
                refused: self
                    .text(key::text::REFUSED)
                    .map(|program| (program, self.signed(key::OUTCOME))),
            },
            key::kind::SIGNAL_GENERATED => Fact::Signal(self.signal()),
            key::kind::OOM_KILL => Fact::OomKill(self.oom_kill()),
            key::kind::CPU_THROTTLED => {
                Fact::Throttled { window: number(key::WINDOW), throttled: number(key::THROTTLED) }
            }
            key::kind::MEMORY => Fact::Memory {
                usage: number(key::USAGE),
                limit: self.limit(),
                oom_kills: self.number(key::OOM_KILLS),
            },
            key::kind::CPU => Fact::Cpu {
                periods: number(key::PERIODS),
                throttled_periods: number(key::THROTTLED_PERIODS),
                quota: self.limit(),
            },
            key::kind::PIDS => Fact::Pids {
                usage: number(key::USAGE),
                limit: self.limit(),
                limit_hits: self.number(key::LIMIT_HITS),
            },
            key::kind::PRESSURE => Fact::Pressure {
                resource: text(key::text::RESOURCE),
                some: number(key::PRESSURE_SOME),
                full: number(key::PRESSURE_FULL),
            },
            key::kind::FAULT => Fact::Fault {
                signal: number(key::SIGNAL) as u8,
                si_code: self.signed(key::SI_CODE),
                address: number(key::ADDRESS),
            },
            key::kind::SECCOMP => {
                Fact::Seccomp { syscall: number(key::SYSCALL), name: self.text(key::text::SYSCALL) }
            }
            key::kind::RESOURCE_LIMIT => Fact::ResourceLimit {
                resource: text(key::text::RESOURCE),
                limit: self.number(key::LIMIT),
            },
            key::kind::INIT_DIED => Fact::InitDied { init: self.party(), status: self.status() },
            key::kind::CGROUP_KILL => {
                // The cgroup here is the one that was killed, and not the writer's.
                let writer = match self.actor() {
                    Actor::Process(party) => Actor::Process(Party { cgroup: "", ..party }),
                    other => other,
                };
                Fact::CgroupKill { cgroup: text(key::text::CGROUP), writer }
            }
            other => Fact::Other(other),
        }
    }

    fn signal(self) -> Signal<'a> {
        Signal {
            number: self.number(key::SIGNAL).unwrap_or_default() as u8,
            si_code: self.signed(key::SI_CODE),
            origin: Origin::of(self.text(key::text::ORIGIN)),
            result: SignalResult::of(self.text(key::text::RESULT)),
            delivered: self.flag(key::DELIVERED),
            way: Way::of(self.text(key::text::WAY)),
            disposition: Disposition::of(self.text(key::text::DISPOSITION)),
            relation: Relation::of(self.text(key::text::RELATION)),
            sender: self.actor(),
        }
    }

    fn oom_kill(self) -> OomKill<'a> {
        // The cgroup here is the one that ran out, and not the victim's.
        let victim = Party { cgroup: "", ..self.party() };
        let trigger = self.number(key::TRIGGER).map(|pid| pid as u32);
        OomKill {
            victim,
            is_self: self.flag(key::ONESELF),
            trigger: trigger.zip(self.text(key::text::TRIGGER)),
            scope: OomScope::of(self.text(key::text::SCOPE)),
            cgroup: self.text(key::text::CGROUP).unwrap_or_default(),
            limit: self.number(key::LIMIT),
            usage: self.number(key::USAGE),
            group_kill: self.flag(key::GROUP_KILL),
        }
    }
}

fn part<T>(items: &[T], first: u32, count: u32) -> &[T] {
    let rest = items.get(first as usize..).unwrap_or_default();
    &rest[..rest.len().min(count as usize)]
}

//! The death record: everything that was seen of one death, and a statement of what was not.
//!
//! Joining makes it; explainers, the history on disk, sinks and `whodunit why` take it. Facts only, each with its moment:
//! a record never says what a fact means. Text is UTF-8 with other bytes escaped as `\xNN` and a backslash as `\\`. As JSON it
//! is versioned by [`SCHEMA`], and what a reader does not know is an error and not a silence.

use serde::{Deserialize, Serialize};

/// An enumeration whose cases have stable names, in JSON and in the plugin contract.
macro_rules! named {
    ($(#[$outer:meta])* $type:ident { $($(#[doc = $meaning:literal])+ $case:ident = $name:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $type {
            $($(#[doc = $meaning])+ #[serde(rename = $name)] $case,)+
        }

        impl $type {
            /// Every case.
            pub const ALL: &'static [$type] = &[$($type::$case),+];

            /// The stable name in documents and in the plugin contract.
            pub const fn name(self) -> &'static str {
                match self { $($type::$case => $name),+ }
            }
        }
    };
}

/// Version of the record as JSON. Grows with every change that an older reader would get wrong.
pub const SCHEMA: u32 = 1;

/// Everything that was seen of one death.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeathRecord {
    /// [`SCHEMA`] of the daemon that wrote it.
    pub schema: u32,
    /// When the process ended, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Whether the process's end was the container's.
    pub subject: Subject,
    /// Whose container.
    pub container: Container,
    /// Who died.
    pub process: DeadProcess,
    /// How, as its parent was told.
    pub status: WaitStatus,
    /// What was seen, the oldest first.
    pub evidence: Vec<Evidence>,
    /// Index in `evidence` of the signal that ended it. None where it ended by itself, and where that signal was not seen.
    pub decided_by: Option<u32>,
    /// What could not be seen.
    pub unseen: Vec<Unseen>,
    /// What was seen by the kernel and lost on the way, while this process lived.
    pub losses: Losses,
}

named! {
    /// Whose end a record is about.
    Subject {
        /// A process inside a container that goes on, as far as is known.
        Process = "process",
        /// The container: its first process ended.
        Container = "container",
    }
}

/// The container of a process, as far as it was known at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Number in that run of the daemon. 0 is none.
    pub id: u32,
    /// The name that people use, or the short container id.
    pub name: String,
    /// The runtime's id of it, or its cgroup's last component.
    pub runtime_id: String,
    /// The runtime, as far as the cgroup path tells.
    pub runtime: String,
    /// Path of its cgroup below the root of the hierarchy.
    pub cgroup_path: String,
    /// What else is known: `pod-name`, `pod-namespace`, `pod-uid`, `image`, ...
    pub attributes: Vec<(String, String)>,
}

/// The process that died.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadProcess {
    /// Number in that run of the daemon. 0 is none.
    pub id: u32,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Process id in its own pid namespace; 1 for the container's init. None where it was not read.
    pub namespace_pid: Option<u32>,
    /// When it started, in nanoseconds since boot.
    pub started_ns: u64,
    /// Its name at its end.
    pub comm: String,
    /// The program that it last executed. None where that was before the daemon and could not be read.
    pub exe: Option<String>,
    /// Whether it was the first process of its container.
    pub is_container_init: bool,
    /// Its parent, the parent of that, ... as of its end.
    pub ancestry: Vec<Ancestor>,
}

/// One step up from a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ancestor {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// How a process ended: of its group, never of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum WaitStatus {
    /// It exited by itself.
    Exited {
        /// The code that it exited with.
        code: u8,
    },
    /// A signal ended it.
    Killed {
        /// Number of the signal.
        signal: u8,
        /// Whether the kernel wrote a core, or meant to.
        core_dumped: bool,
    },
}

impl WaitStatus {
    /// From the number that `wait` reports, and that the kernel has in `task_struct.exit_code`
    /// (`do_exit`, Linux 2.6 to 7.3): signal in bits 0-6, core in bit 7, code in bits 8-15.
    pub const fn from_raw(raw: u32) -> WaitStatus {
        match (raw & 0x7f) as u8 {
            0 => WaitStatus::Exited { code: (raw >> 8) as u8 },
            signal => WaitStatus::Killed { signal, core_dumped: raw & 0x80 != 0 },
        }
    }

    /// The number that `wait` reports.
    pub const fn raw(self) -> u32 {
        match self {
            WaitStatus::Exited { code } => (code as u32) << 8,
            WaitStatus::Killed { signal, core_dumped } => {
                signal as u32 | if core_dumped { 0x80 } else { 0 }
            }
        }
    }
}

/// One thing that was seen, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Nanoseconds before the death. 0 for what was read after it.
    pub before_ns: u64,
    /// What was seen.
    #[serde(flatten)]
    pub fact: Fact,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "kebab-case")]
pub enum Fact {
    /// The container's cgroup was made: the container was watched from its birth on.
    ContainerStarted,
    /// The process executed a program; or could not, and exited with 126 or 127.
    Executed(Execution),
    /// A signal was generated for the process.
    Signal(Signal),
    /// A child of the process ended.
    ChildExited(ChildExit),
    /// The kernel killed a process of the container for want of memory.
    OomKill(OomKill),
    /// The container had no CPU for a while, because it had used up its quota.
    Throttled(Throttling),
    /// What the container's cgroup said of memory.
    Memory(MemorySample),
    /// What it said of CPU.
    Cpu(CpuSample),
    /// What it said of processes.
    Pids(PidsSample),
    /// What it said of pressure.
    Pressure(PressureSample),
    /// The process touched memory, or executed what it could not.
    Fault(Fault),
    /// A seccomp filter did not allow a system call.
    Seccomp(Seccomp),
    /// The process ran into a limit of its own (`setrlimit`).
    ResourceLimit(ResourceLimit),
    /// The first process of its pid namespace ended, upon which the kernel kills the rest.
    InitDied(InitDeath),
    /// Somebody wrote to `cgroup.kill` of its cgroup or of one above.
    CgroupKill(CgroupKill),
}

/// A program that was executed, or was meant to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Execution {
    /// Path of the program.
    pub path: String,
    /// 0, or a negative errno.
    pub outcome: i32,
}

/// A signal that was generated for the process (`signal_generate`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    /// Its number.
    pub number: u8,
    /// `si_code`: `SI_USER` 0, `SI_KERNEL` 128, `SI_QUEUE` -1, `SI_TKILL` -6, positive ones by signal.
    pub si_code: i32,
    /// Who made it.
    pub origin: SignalOrigin,
    /// What the kernel did with it when it was generated.
    pub result: SignalResult,
    /// Whether it was seen to be delivered (`signal_deliver`). A SIGKILL seldom is.
    pub delivered: bool,
    /// The road that it came by.
    pub way: SignalWay,
    /// What the target had told the kernel to do with it, at that moment.
    pub disposition: Disposition,
    /// What the sender is to the target.
    pub relation: Relation,
    /// Who sent it.
    pub sender: Sender,
}

named! {
    /// Who made a signal.
    SignalOrigin {
        /// A process asked for it.
        User = "user",
        /// The kernel made it: the process that ran then is a bystander.
        Kernel = "kernel",
    }
}

named! {
    /// What became of a signal when it was generated: `TRACE_SIGNAL_*` of the kernel (Linux 3.2 to 7.3).
    SignalResult {
        /// It is on its way. A blocked signal waits: see [`Disposition::Blocked`].
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

impl SignalResult {
    /// From the kernel's number. None for one that it does not have.
    pub const fn from_raw(raw: u32) -> Option<SignalResult> {
        match raw {
            0 => Some(SignalResult::Delivered),
            1 => Some(SignalResult::Ignored),
            2 => Some(SignalResult::AlreadyPending),
            3 => Some(SignalResult::OverflowFail),
            4 => Some(SignalResult::LoseInfo),
            _ => None,
        }
    }
}

named! {
    /// The road that a signal came by.
    SignalWay {
        /// `kill` to the process.
        Kill = "kill",
        /// `kill` to a process group or to every process.
        Group = "group",
        /// `tkill` or `tgkill`: to one thread.
        Thread = "thread",
        /// `rt_sigqueueinfo` and the like, with a value.
        Queue = "queue",
        /// `pidfd_send_signal`.
        Pidfd = "pidfd",
        /// `cgroup.kill`.
        CgroupKill = "cgroup-kill",
        /// `PR_SET_PDEATHSIG`: the kernel, because the parent ended.
        ParentDeath = "parent-death",
        /// The kernel, because of what the process did: a fault, a broken pipe, a limit.
        Exception = "exception",
        /// The out-of-memory killer.
        Oom = "oom",
        /// The kernel, because the first process of the pid namespace ended.
        NamespaceTeardown = "namespace-teardown",
        /// The terminal, a timer, or another part of the kernel.
        Kernel = "kernel",
        /// It was not seen.
        Unknown = "unknown",
    }
}

named! {
    /// What a process has told the kernel to do with a signal.
    Disposition {
        /// It has a handler.
        Handler = "handler",
        /// The default action.
        Default = "default",
        /// It asked to ignore it (`SIG_IGN`).
        Ignored = "ignored",
        /// It is blocked, and waits.
        Blocked = "blocked",
        /// The default action, which does not apply: the first process of a pid namespace gets from inside, and from outside but
        /// for SIGKILL and SIGSTOP, no signal that it has no handler for (`SIGNAL_UNKILLABLE`).
        UnkillableInit = "unkillable-init",
        /// It was not read.
        Unknown = "unknown",
    }
}

named! {
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
        /// A process that was put into the running container (`exec`), or a descendant of one.
        ExecSession = "exec-session",
        /// The container's runtime: a shim, a monitor, or a process that it started.
        Runtime = "runtime",
        /// A process of another container.
        OtherContainer = "other-container",
        /// A process of the machine, outside of every container.
        HostProcess = "host-process",
        /// The kernel, because somebody wrote to `cgroup.kill`. The sender is who wrote.
        CgroupKill = "cgroup-kill",
        /// The kernel, because the first process of the pid namespace ended.
        NamespaceTeardown = "namespace-teardown",
        /// The kernel, for a reason of its own.
        Kernel = "kernel",
        /// It was not seen.
        Unknown = "unknown",
    }
}

/// Who sent a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Sender {
    /// A process.
    Process(Party),
    /// The kernel.
    Kernel,
    /// It was not seen.
    Unknown,
}

/// A process that had a part in a death, as of that moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// Number in that run of the daemon. 0 is none.
    pub id: u32,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// When it started, in nanoseconds since boot.
    pub started_ns: u64,
    /// Its name.
    pub comm: String,
    /// The program that it executed. None where that was not seen.
    pub exe: Option<String>,
    /// Number of its container. 0 is none.
    pub container_id: u32,
    /// Name of its container. None outside of every container.
    pub container: Option<String>,
    /// Path of its cgroup. Empty where it was not read.
    pub cgroup_path: String,
    /// Its parent, the parent of that, ... as of that moment.
    pub ancestry: Vec<Ancestor>,
}

/// A child that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChildExit {
    /// The child.
    pub child: Party,
    /// How it ended.
    pub status: WaitStatus,
    /// Whether the out-of-memory killer chose it.
    pub oom_killed: bool,
    /// The program that it could not execute, if it exited with 126 or 127.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Execution>,
}

/// A process that the kernel killed for want of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OomKill {
    /// Whom the kernel chose.
    pub victim: Party,
    /// Whether that is the process of this record.
    pub is_self: bool,
    /// In whose allocation the memory ran out; seldom the victim's.
    pub trigger: Sender,
    /// Which memory ran out.
    pub scope: OomScope,
    /// Path of the memory cgroup that ran out. Empty for the node's, and where it was not seen.
    pub cgroup_path: String,
    /// Its limit, in bytes.
    pub limit_bytes: Option<u64>,
    /// What it used, in bytes.
    pub usage_bytes: Option<u64>,
    /// Whether the kernel killed the whole cgroup (`memory.oom.group`).
    pub group_kill: bool,
}

named! {
    /// Which memory ran out.
    OomScope {
        /// The container's own limit, or that of a cgroup inside of it.
        Own = "own",
        /// The limit of a cgroup above: a pod, a slice.
        Ancestor = "ancestor",
        /// The machine's memory.
        Node = "node",
        /// It was not seen.
        Unknown = "unknown",
    }
}

/// Time that the container wanted to run and was not let.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttling {
    /// From the first signal that was to end the process, to its end.
    pub window_ns: u64,
    /// How much of that it was throttled. CPUs are throttled each by itself, so it may be more than the window.
    pub throttled_ns: u64,
    /// Periods of the quota in the window that were throttled.
    pub throttled_periods: u64,
    /// Periods of the quota in the window. 0 where it was not counted.
    pub periods: u64,
}

/// A limit of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// `max`: none.
    Unlimited,
    /// So much.
    At(u64),
    /// It was not read, or the kernel has none.
    Unknown,
}

/// Memory of the container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemorySample {
    /// `memory.current`, in bytes.
    pub current_bytes: u64,
    /// `memory.max`, in bytes.
    pub limit: Limit,
    /// `memory.peak`, in bytes (Linux 5.19 and newer).
    pub peak_bytes: Option<u64>,
    /// `max` of `memory.events`: how often it was at its limit.
    pub events_max: Option<u64>,
    /// `oom` of `memory.events`.
    pub events_oom: Option<u64>,
    /// `oom_kill` of `memory.events`: processes of this cgroup that any OOM killed.
    pub events_oom_kill: Option<u64>,
}

/// CPU of the container's cgroup since it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuSample {
    /// `usage_usec` of `cpu.stat`, in nanoseconds.
    pub usage_ns: u64,
    /// `nr_periods`.
    pub periods: u64,
    /// `nr_throttled`.
    pub throttled_periods: u64,
    /// `throttled_usec`, in nanoseconds.
    pub throttled_ns: u64,
    /// First number of `cpu.max`, in nanoseconds a period.
    pub quota_ns: Limit,
    /// Second number of `cpu.max`, in nanoseconds.
    pub period_ns: u64,
}

/// Processes of the container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PidsSample {
    /// `pids.current`.
    pub current: u64,
    /// `pids.max`.
    pub limit: Limit,
    /// `max` of `pids.events`: forks that failed at the limit.
    pub events_max: Option<u64>,
}

named! {
    /// What there was too little of.
    Resource {
        /// `cpu.pressure`.
        Cpu = "cpu",
        /// `memory.pressure`.
        Memory = "memory",
        /// `io.pressure`.
        Io = "io",
    }
}

/// Pressure in the container's cgroup: the part of the last ten seconds in which tasks waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PressureSample {
    /// Of what.
    pub resource: Resource,
    /// `avg10` of `some`, in hundredths of a percent.
    pub some_avg10: u32,
    /// `avg10` of `full`, in hundredths of a percent.
    pub full_avg10: u32,
}

/// A fault that ended the process: SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Number of the signal.
    pub signal: u8,
    /// `si_code`, such as `SEGV_MAPERR` 1 and `SEGV_ACCERR` 2.
    pub si_code: i32,
    /// `si_addr`: the address that was touched, or of the instruction.
    pub address: u64,
}

/// A system call that a seccomp filter did not allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seccomp {
    /// Number of the system call on the process's architecture.
    pub syscall: u32,
    /// Its name, where it is known.
    pub name: Option<String>,
}

/// A limit of the process's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceLimit {
    /// Name as in `setrlimit`, lower case: `cpu`, `fsize`, ...
    pub resource: String,
    /// The soft limit, or the hard one of CPU where SIGKILL came of that, in the unit of that resource (seconds, bytes). None where it
    /// was not read.
    pub soft: Option<u64>,
}

/// The end of the first process of a pid namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitDeath {
    /// That process.
    pub init: Party,
    /// How it ended.
    pub status: WaitStatus,
}

/// A write to `cgroup.kill`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupKill {
    /// Path of the cgroup that was killed. Empty where it was not seen.
    pub cgroup_path: String,
    /// Who wrote.
    pub writer: Sender,
}

named! {
    /// Something that could not be seen.
    Unseen {
        /// The process began before the daemon, so signals and programs from before are missing.
        StartedBeforeDaemon = "started-before-daemon",
        /// The probe of generated signals does not run.
        SignalsNotWatched = "signals-not-watched",
        /// Records of signals were lost while the process lived.
        SignalsLost = "signals-lost",
        /// More signals came than are kept; the oldest are missing.
        SignalsForgotten = "signals-forgotten",
        /// The signal that ended it was not seen.
        DecidingSignal = "deciding-signal",
        /// The sender is known by its number only.
        SenderName = "sender-name",
        /// The cgroup of the sender belongs to nobody who is known.
        SenderContainer = "sender-container",
        /// Who the sender's parents were.
        SenderAncestry = "sender-ancestry",
        /// What the process had told the kernel to do with a signal.
        Disposition = "disposition",
        /// The probe of OOM kills does not run.
        OomNotWatched = "oom-not-watched",
        /// Which memory cgroup ran out.
        OomScope = "oom-scope",
        /// In whose allocation the memory ran out.
        OomTrigger = "oom-trigger",
        /// The container's memory: no controller, or its cgroup was gone before it was read.
        Memory = "memory",
        /// The container's CPU: no controller, or its cgroup was gone before it was read.
        Cpu = "cpu",
        /// The container's processes: no controller, or its cgroup was gone before it was read.
        Pids = "pids",
        /// Pressure: the kernel does not measure it, or the cgroup was gone before it was read.
        Pressure = "pressure",
        /// Throttling between the first signal and the end.
        Throttling = "throttling",
        /// The address of a fault.
        FaultAddress = "fault-address",
        /// The system call that a seccomp filter did not allow.
        SeccompSyscall = "seccomp-syscall",
        /// The limit of the process's own that it ran into.
        ResourceLimit = "resource-limit",
        /// The program that the process executed last.
        Program = "program",
        /// The process's own parents.
        Ancestry = "ancestry",
        /// Whether the process was the first of its container.
        ContainerInit = "container-init",
    }
}

/// What was seen by the kernel and did not arrive, while this process lived. Above 0, evidence may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Losses {
    /// Records that the ring of deaths had no room for, of any process.
    pub ring_full: u64,
    /// Signals of this process that made room for newer ones.
    pub signals_forgotten: u64,
    /// Entries of the kernel's memory of signals that made room for other processes.
    pub evicted: u64,
}

impl Losses {
    /// Each with its name in documents and in the plugin contract.
    pub const fn named(self) -> [(&'static str, u64); 3] {
        [
            ("ring-full", self.ring_full),
            ("signals-forgotten", self.signals_forgotten),
            ("evicted", self.evicted),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A container that ignored SIGTERM and was killed.
    pub(crate) fn record() -> DeathRecord {
        let signal = |number, before_ns, disposition| Evidence {
            before_ns,
            fact: Fact::Signal(Signal {
                number,
                si_code: 0,
                origin: SignalOrigin::User,
                result: SignalResult::Delivered,
                delivered: false,
                way: SignalWay::Kill,
                disposition,
                relation: Relation::Runtime,
                sender: Sender::Process(Party {
                    pid: 812,
                    comm: "containerd-shim".to_owned(),
                    ancestry: vec![Ancestor { pid: 1, comm: "systemd".to_owned() }],
                    ..Party::default()
                }),
            }),
        };
        DeathRecord {
            schema: SCHEMA,
            time_ns: 1_768_471_200_000_000_000,
            subject: Subject::Container,
            container: Container { name: "web".to_owned(), ..Container::default() },
            process: DeadProcess { pid: 4711, namespace_pid: Some(1), ..DeadProcess::default() },
            status: WaitStatus::from_raw(9),
            evidence: vec![
                Evidence { before_ns: u64::MAX, fact: Fact::ContainerStarted },
                signal(15, 30_000_000_000, Disposition::UnkillableInit),
                signal(9, 400_000, Disposition::Default),
                Evidence {
                    before_ns: 0,
                    fact: Fact::Pids(PidsSample {
                        current: 1,
                        limit: Limit::At(64),
                        events_max: None,
                    }),
                },
            ],
            decided_by: Some(2),
            unseen: vec![Unseen::Pressure],
            losses: Losses::default(),
        }
    }

    #[test]
    fn a_record_survives_json() {
        let json = serde_json::to_string(&record()).unwrap();
        assert_eq!(serde_json::from_str::<DeathRecord>(&json).unwrap(), record(), "{json}");
        for expected in [
            r#""subject":"container""#,
            r#""status":{"how":"killed","signal":9,"core_dumped":false}"#,
            r#"{"before_ns":18446744073709551615,"fact":"container-started"}"#,
            r#""disposition":"unkillable-init","relation":"runtime","sender":{"kind":"process","id":0,"pid":812"#,
            r#""limit":{"at":64}"#,
            r#""unseen":["pressure"]"#,
        ] {
            assert!(json.contains(expected), "{json} does not contain {expected}");
        }
    }

    #[test]
    fn what_a_reader_does_not_know_is_an_error() {
        let mut json = serde_json::to_value(record()).unwrap();
        json["evidence"][3]["new"] = 1.into();
        assert!(serde_json::from_value::<DeathRecord>(json).is_err());
        let mut json = serde_json::to_value(record()).unwrap();
        json["evidence"][1]["relation"] = "stranger".into();
        assert!(serde_json::from_value::<DeathRecord>(json).is_err());
    }

    #[test]
    fn a_wait_status_is_read_as_the_kernel_packs_it() {
        assert_eq!(WaitStatus::from_raw(0), WaitStatus::Exited { code: 0 });
        assert_eq!(WaitStatus::from_raw(0x8900), WaitStatus::Exited { code: 137 });
        assert_eq!(WaitStatus::from_raw(9), WaitStatus::Killed { signal: 9, core_dumped: false });
        assert_eq!(
            WaitStatus::from_raw(0x8b),
            WaitStatus::Killed { signal: 11, core_dumped: true }
        );
        for raw in [0, 0x100, 0xff00, 9, 15, 0x8b, 0x9f] {
            assert_eq!(WaitStatus::from_raw(raw).raw(), raw);
        }
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Unseen::ALL.iter().map(|it| it.name()).collect();
        assert_eq!(names.len(), Unseen::ALL.len());
        assert_eq!(Relation::Oneself.name(), "self");
    }
}

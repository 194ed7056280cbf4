//! The layouts of the records about processes: made, executed, signalled, ended, killed for want of memory.
//!
//! They go through a ring of their own, so that a flood of files can neither delay nor push out a death. Part of the
//! library that both halves share, like the rest of `lib.rs`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a record of the ring of deaths is: the first two bytes of each.
pub mod fate_kind {
    /// [`RawFork`](super::RawFork): a process was made.
    pub const FORKED: u16 = 48;
    /// [`RawProgram`](super::RawProgram): a process executed a program, or could not.
    pub const EXECUTED: u16 = 49;
    /// [`RawExit`](super::RawExit): a process ended, with its last thread.
    pub const EXITED: u16 = 50;
    /// [`RawSignal`](super::RawSignal): a signal was generated for a process.
    pub const SIGNALLED: u16 = 51;
    /// [`RawDelivery`](super::RawDelivery): a signal reached its process.
    pub const DELIVERED: u16 = 52;
    /// [`RawVictim`](super::RawVictim): the kernel chose a process to kill for want of memory.
    pub const OOM_VICTIM: u16 = 53;
}

/// How many steps up from a process a record has.
pub const ANCESTORS: usize = 6;

/// How many memory cgroups, from that of the allocating process upward, an OOM record has.
pub const MEMORY_LEVELS: usize = 8;

/// The longest path of a program that a record has, its NUL included.
pub const PROGRAM_MAX: usize = 512;

/// A process as it was when a record was made.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct RawProcess {
    /// When it started, in nanoseconds since boot. 0 where there was no process.
    pub started_ns: u64,
    /// Its cgroup in the v2 hierarchy.
    pub cgroup: u64,
    /// Its id in the initial pid namespace.
    pub pid: u32,
    /// Its id in its own pid namespace.
    pub namespace_pid: u32,
    /// Its real user id in the initial user namespace.
    pub uid: u32,
    /// How many pid namespaces are around its own: 0 in the initial one.
    pub namespace_depth: u32,
    /// Its name: that of its first thread.
    pub comm: [u8; 16],
}

/// A step up from a process.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct RawAncestor {
    /// When it started, in nanoseconds since boot.
    pub started_ns: u64,
    /// Its cgroup in the v2 hierarchy.
    pub cgroup: u64,
    /// Its id in the initial pid namespace; 0 where there is none.
    pub pid: u32,
    /// Fills the structure.
    pub reserved: u32,
    /// Its name.
    pub comm: [u8; 16],
}

/// A process was made by another.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawFork {
    /// [`fate_kind::FORKED`].
    pub kind: u16,
    /// 0.
    pub flags: u16,
    /// Fills the structure.
    pub reserved: u32,
    /// Nanoseconds since boot, suspended time included. So in every record here.
    pub time_ns: u64,
    /// The new process.
    pub child: RawProcess,
    /// Who made it.
    pub parent: RawProcess,
}

/// A process executed a program, or could not: then the record stands before that of its end.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawProgram {
    /// [`fate_kind::EXECUTED`].
    pub kind: u16,
    /// Bits of [`program_flag`].
    pub flags: u16,
    /// Bytes of the path, the final NUL included. 0 where it could not be read.
    pub path_length: u16,
    /// 0, or a negative errno where it could not be executed.
    pub outcome: i16,
    /// When.
    pub time_ns: u64,
    /// Who, with its new name if it was executed.
    pub process: RawProcess,
    /// The path as it was asked for; cut where it is longer.
    pub path: [u8; PROGRAM_MAX],
}

/// Properties of [`RawProgram`].
pub mod program_flag {
    /// The process came into the cgroup from outside: this is the first program that a container runtime made it execute.
    pub const ENTERED: u16 = 1 << 0;
    /// A runtime's copy of itself, which has no place in any file system, or the runtime itself.
    pub const DETACHED: u16 = 1 << 1;
}

/// A process ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawExit {
    /// [`fate_kind::EXITED`].
    pub kind: u16,
    /// Bits of [`exit_flag`].
    pub flags: u16,
    /// As `wait` reports it: of the process, never of a thread.
    pub status: u32,
    /// When.
    pub time_ns: u64,
    /// The most memory that it had at once, in pages. 0 where that is not known.
    pub peak_pages: u64,
    /// Number of the system call that it was in. -1 where that is not known.
    pub syscall: i32,
    /// Fills the structure.
    pub reserved: u32,
    /// Who.
    pub process: RawProcess,
    /// Its parent, the parent of that, and so on.
    pub ancestors: [RawAncestor; ANCESTORS],
}

/// Properties of [`RawExit`].
pub mod exit_flag {
    /// It never executed a program of the container: a container runtime's own process.
    pub const SETUP: u16 = 1 << 0;
    /// The whole process was told to end (`SIGNAL_GROUP_EXIT`): by `exit_group`, or by a signal.
    pub const GROUP: u16 = 1 << 1;
}

/// A signal was generated.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawSignal {
    /// [`fate_kind::SIGNALLED`].
    pub kind: u16,
    /// Bits of [`signal_flag`].
    pub flags: u16,
    /// Its number.
    pub signal: u32,
    /// When.
    pub time_ns: u64,
    /// `si_code`; 0 where the kernel gave none.
    pub code: i32,
    /// `TRACE_SIGNAL_*`: what became of it.
    pub result: u32,
    /// Number of the system call that the running task was in. -1 where that is not known.
    pub syscall: i32,
    /// Thread that it is for.
    pub thread: u32,
    /// `group_exit_code` of the target at that moment, this signal considered.
    pub doom: u32,
    /// SIGSYS: number of the system call that was refused.
    pub refused_syscall: i32,
    /// A fault: the address.
    pub address: u64,
    /// `pid` of the first argument of the system call, as the caller wrote it. 0 where it is not known.
    pub aimed_at: i64,
    /// Limit of the target for what the signal may be about: the soft one (SIGXCPU, SIGXFSZ), or the hard one of CPU (SIGKILL).
    pub limit: u64,
    /// Whom it is for.
    pub target: RawProcess,
    /// The target's parent.
    pub target_parent: RawAncestor,
    /// The running task: the sender, or a bystander where the kernel made the signal.
    pub sender: RawProcess,
    /// The sender's parent, the parent of that, and so on.
    pub ancestors: [RawAncestor; ANCESTORS],
}

/// Properties of [`RawSignal`].
pub mod signal_flag {
    /// For the whole process, not for one thread.
    pub const GROUP: u16 = 1 << 0;
    /// The kernel says nothing about it (`SEND_SIG_NOINFO`): kernel-made, in a process's name.
    pub const NO_INFO: u16 = 1 << 1;
    /// The kernel says that it is the kernel's (`SEND_SIG_PRIV`).
    pub const PRIVILEGED: u16 = 1 << 2;
    /// The running task is ending.
    pub const SENDER_EXITS: u16 = 1 << 3;
    /// It is what the target wants to get at its parent's end (`PR_SET_PDEATHSIG`).
    pub const PARENT_DEATH: u16 = 1 << 4;
    /// The target has a handler.
    pub const HANDLER: u16 = 1 << 5;
    /// The target ignores it by its own will.
    pub const IGNORE: u16 = 1 << 6;
    /// The target blocks it.
    pub const BLOCKED: u16 = 1 << 7;
    /// The target is an init that gets no fatal signal from its own namespace (`SIGNAL_UNKILLABLE`).
    pub const UNKILLABLE: u16 = 1 << 8;
    /// The target is going to end (`SIGNAL_GROUP_EXIT`), be it by this signal.
    pub const DOOMED: u16 = 1 << 9;
    /// The running task is a thread of the kernel, or nobody.
    pub const KERNEL_THREAD: u16 = 1 << 10;
}

/// A signal reached its process.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawDelivery {
    /// [`fate_kind::DELIVERED`].
    pub kind: u16,
    /// [`signal_flag::HANDLER`] or none.
    pub flags: u16,
    /// Its number.
    pub signal: u32,
    /// When.
    pub time_ns: u64,
    /// `si_code`.
    pub code: i32,
    /// Thread that it reached.
    pub thread: u32,
    /// Whose.
    pub process: RawProcess,
}

/// The kernel chose a process to kill.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawVictim {
    /// [`fate_kind::OOM_VICTIM`].
    pub kind: u16,
    /// 0.
    pub flags: u16,
    /// Id of the victim's first thread.
    pub pid: u32,
    /// When.
    pub time_ns: u64,
    /// The victim, as far as the kernel gives more than its id (Linux 6.8); else all zeroes.
    pub victim: RawProcess,
    /// In whose allocation the memory ran out.
    pub trigger: RawProcess,
    /// Its parent, the parent of that, and so on.
    pub ancestors: [RawAncestor; ANCESTORS],
    /// The memory cgroups of the trigger, from its own upward. An id of 0 ends the list.
    pub levels: [RawMemory; MEMORY_LEVELS],
    /// Those of the victim, as far as the kernel gives more than its id; else all zeroes.
    pub victim_levels: [RawMemory; MEMORY_LEVELS],
}

/// A memory cgroup.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct RawMemory {
    /// Its id in the hierarchy that has the memory controller: the inode number of its folder.
    pub cgroup: u64,
    /// What it uses, in pages.
    pub usage_pages: u64,
    /// Its limit, in pages.
    pub limit_pages: u64,
    /// 1 where the kernel kills all of it together (`memory.oom.group`).
    pub kills_all: u64,
}

/// What the programs about processes are told when they are loaded.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct FateSettings {
    /// Bytes from one `k_sigaction` to the next.
    pub action_bytes: u32,
    /// 1 where `sched_process_exit` says whether the process ended (`group_dead`, Linux 6.16).
    pub exit_tells_group: u32,
    /// 1 where `oom:mark_victim` gives the victim's task (Linux 6.8), 0 where it gives its id.
    pub victim_is_task: u32,
    /// Index of the memory controller in `css_set.subsys`.
    pub memory_controller: u32,
    /// 1 where a helper gives the saved registers of a task (`bpf_task_pt_regs`, Linux 5.15).
    pub has_registers: u32,
    /// Offset of the system call's number in them.
    pub syscall_number: u32,
    /// 1 where the machine accounts memory by cgroup.
    pub has_memory: u32,
    /// Offset of the first system call argument in the saved registers.
    pub argument_0: u32,
}

const _: () = {
    assert!(size_of::<RawProcess>() == 48);
    assert!(size_of::<RawAncestor>() == 40);
    assert!(size_of::<RawFork>() == 112);
    assert!(size_of::<RawProgram>() == 64 + PROGRAM_MAX);
    assert!(size_of::<RawExit>() == 80 + 40 * ANCESTORS);
    assert!(size_of::<RawSignal>() == 64 + 48 + 40 + 48 + 40 * ANCESTORS);
    assert!(size_of::<RawDelivery>() == 72);
    assert!(size_of::<RawVictim>() == 16 + 96 + 40 * ANCESTORS + 2 * 32 * MEMORY_LEVELS);
    assert!(size_of::<FateSettings>() == 32);
};

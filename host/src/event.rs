//! Events: what happened in whose container, as it goes from capture to the plugins.
//!
//! Owns the ids, kinds and flags, and the batch that plugins get. The numbers are those of the plugin
//! contract (`wit/types.wit`). Knows neither kernel records nor guests.

use std::fmt;

/// Id of a cgroup: the inode number of its folder in the cgroup v2 hierarchy, which is also what
/// `bpf_get_current_cgroup_id` returns. Holds a generation in its upper half on 64-bit kernels
/// (`kernfs_node.id`, Linux 5.5), so it is practically never used twice in one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupId(pub u64);

impl fmt::Display for CgroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A container, numbered from 1 in the order of discovery. Never used twice in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(pub u32);

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A process, numbered from 1: one number for one (pid, start time).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId(pub u32);

/// Nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct UnixNanos(pub u64);

/// What happened. The codes are those of `kind` in `wit/types.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A container was found, or its cgroup was made. `path` is its cgroup path.
    ContainerStarted,
    /// A container's cgroup is gone. `path` is its cgroup path.
    ContainerEnded,
    /// A file was opened, or was meant to be.
    Open,
    /// A program was executed, or was meant to be.
    Exec,
    /// Its properties were asked for: the `stat` family, `statx`.
    Stat,
    /// It was asked whether it may be accessed: the `access` family.
    Access,
    /// A symbolic link was read.
    Readlink,
    /// It became a working directory or a root: `chdir`, `fchdir`, `chroot`.
    Chdir,
    /// A directory was listed.
    List,
    /// It was mapped into memory by a descriptor.
    Map,
    /// The kernel loaded it as an interpreter: of an ELF program, or of a `#!` script.
    Load,
    /// A symbolic link was crossed on the way to a file. The requested path is what the link says.
    Follow,
    /// It was cut or extended by its path.
    Truncate,
    /// It was renamed, or something was renamed to it.
    Rename,
    /// A hard link was made of it, or to it.
    Link,
    /// A name was removed: `unlink`, `rmdir`.
    Unlink,
    /// A name was made: `mkdir`, `mknod`, `symlink`.
    Make,
    /// Its attributes were changed: mode, owner, times, extended attributes.
    Attributes,
    /// It was used by its path in another way: `statfs`, `getxattr`, `inotify_add_watch`, ...
    OtherUse,
    /// A process was made by another.
    ProcessForked,
    /// A process executed a program. `path` is the program as it was asked for.
    ProcessExecuted,
    /// A process ended, with its last thread.
    ProcessExited,
    /// A signal was made for a process.
    SignalGenerated,
    /// A signal reached its process.
    SignalDelivered,
    /// The kernel killed a process for want of memory. `path` is the cgroup whose memory ran out.
    OomKill,
    /// A container used up its quota of CPU and was not let run. `path` is its cgroup path.
    CpuThrottled,
}

impl Kind {
    /// Every kind, in the order of the codes.
    pub const ALL: [Kind; 26] = [
        Kind::ContainerStarted,
        Kind::ContainerEnded,
        Kind::Open,
        Kind::Exec,
        Kind::Stat,
        Kind::Access,
        Kind::Readlink,
        Kind::Chdir,
        Kind::List,
        Kind::Map,
        Kind::Load,
        Kind::Follow,
        Kind::Truncate,
        Kind::Rename,
        Kind::Link,
        Kind::Unlink,
        Kind::Make,
        Kind::Attributes,
        Kind::OtherUse,
        Kind::ProcessForked,
        Kind::ProcessExecuted,
        Kind::ProcessExited,
        Kind::SignalGenerated,
        Kind::SignalDelivered,
        Kind::OomKill,
        Kind::CpuThrottled,
    ];

    /// The kind of that number. None where this daemon knows none.
    pub fn from_code(code: u16) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The number in the plugin contract.
    pub const fn code(self) -> u16 {
        match self {
            Kind::ContainerStarted => 1,
            Kind::ContainerEnded => 2,
            Kind::Open => 16,
            Kind::Exec => 17,
            Kind::Stat => 18,
            Kind::Access => 19,
            Kind::Readlink => 20,
            Kind::Chdir => 21,
            Kind::List => 22,
            Kind::Map => 23,
            Kind::Load => 24,
            Kind::Follow => 25,
            Kind::Truncate => 26,
            Kind::Rename => 27,
            Kind::Link => 28,
            Kind::Unlink => 29,
            Kind::Make => 30,
            Kind::Attributes => 31,
            Kind::OtherUse => 32,
            Kind::ProcessForked => 48,
            Kind::ProcessExecuted => 49,
            Kind::ProcessExited => 50,
            Kind::SignalGenerated => 51,
            Kind::SignalDelivered => 52,
            Kind::OomKill => 53,
            Kind::CpuThrottled => 54,
        }
    }

    /// The name in the TOML, in metrics and in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::ContainerStarted => "container-started",
            Kind::ContainerEnded => "container-ended",
            Kind::Open => "open",
            Kind::Exec => "exec",
            Kind::Stat => "stat",
            Kind::Access => "access",
            Kind::Readlink => "readlink",
            Kind::Chdir => "chdir",
            Kind::List => "list",
            Kind::Map => "map",
            Kind::Load => "load",
            Kind::Follow => "follow",
            Kind::Truncate => "truncate",
            Kind::Rename => "rename",
            Kind::Link => "link",
            Kind::Unlink => "unlink",
            Kind::Make => "make",
            Kind::Attributes => "attributes",
            Kind::OtherUse => "other-use",
            Kind::ProcessForked => "process-forked",
            Kind::ProcessExecuted => "process-executed",
            Kind::ProcessExited => "process-exited",
            Kind::SignalGenerated => "signal-generated",
            Kind::SignalDelivered => "signal-delivered",
            Kind::OomKill => "oom-kill",
            Kind::CpuThrottled => "cpu-throttled",
        }
    }
}

/// Properties of an event: the bits of `flags` in `wit/types.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// Done by the container runtime before the container's program was executed.
    pub const SETUP: Flags = Flags(1 << 0);
    /// The path was joined by its text only; symbolic links were not followed.
    pub const UNRESOLVED: Flags = Flags(1 << 1);
    /// A path did not fit and was cut.
    pub const TRUNCATED: Flags = Flags(1 << 2);
    /// Opened for writing.
    pub const WRITE: Flags = Flags(1 << 3);
    /// The file is a directory.
    pub const DIRECTORY: Flags = Flags(1 << 4);
    /// The file is reachable from no mount of the container.
    pub const DETACHED: Flags = Flags(1 << 5);
    /// Found by the daemon in the container's files after the event, and not by the kernel.
    pub const INFERRED: Flags = Flags(1 << 6);
    /// Done by a 32-bit system call.
    pub const COMPAT: Flags = Flags(1 << 7);
    /// Done by io_uring.
    pub const IO_URING: Flags = Flags(1 << 8);
    /// The second path of a call with two: what a file was renamed or linked to.
    pub const DESTINATION: Flags = Flags(1 << 9);
    /// Opened by the kernel itself, in a call that asks for no file in this way, or in none.
    pub const BY_KERNEL: Flags = Flags(1 << 10);

    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// The bits of `self` that `other` does not have.
    #[must_use]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// The bits of `self`, and those of `other` where `condition` holds.
    #[must_use]
    pub const fn with_if(self, condition: bool, other: Flags) -> Flags {
        if condition { self.with(other) } else { self }
    }
}

/// A number about an event. The codes are the keys of `attribute` in `wit/types.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// What the value is.
    pub key: AttributeKey,
    /// The value.
    pub value: u64,
}

/// What an attribute is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttributeKey {
    /// Device of the file's file system, as the kernel's `MKDEV` packs it (`major << 20 | minor`).
    Device,
    /// Inode number.
    Inode,
    /// Magic number of the file system's type, as `statfs` gives it.
    FileSystem,
    /// The kernel's id of the mount.
    Mount,
    /// Number of the system call, in the table of its architecture (that of ia32 with the flag `compat`).
    Syscall,
    /// What a filter's verdict said.
    Tag,
    /// Number of the signal.
    Signal,
    /// Its `si_code`, in two's complement.
    SiCode,
    /// Number of the process that did it: the parent, the sender, the one in whose allocation the memory ran out.
    Actor,
    /// How the process ended, as `wait` reports it.
    Status,
    /// The container of that process. Without it: none that is watched.
    ActorContainer,
    /// What became of the signal: 0 delivered, 1 ignored, 2 one like it was pending, 3 lost, 4 delivered without saying who sent it.
    Result,
    /// What the target does with it: 0 the default, 1 a handler, 2 ignored, 3 blocked, 4 the default, which an init does not get, 5 not known.
    Disposition,
    /// Limit of the memory that ran out, in bytes.
    Limit,
    /// What it used, in bytes.
    Usage,
    /// Time that the event is about, up to its own, in nanoseconds.
    Window,
    /// How long of it the container was not let run, in nanoseconds.
    Throttled,
    /// Periods of the quota in which that was so.
    ThrottledPeriods,
    /// Periods of the quota.
    Periods,
}

impl AttributeKey {
    /// Every key, in the order of the codes.
    pub const ALL: [AttributeKey; 19] = [
        AttributeKey::Device,
        AttributeKey::Inode,
        AttributeKey::FileSystem,
        AttributeKey::Mount,
        AttributeKey::Syscall,
        AttributeKey::Tag,
        AttributeKey::Signal,
        AttributeKey::SiCode,
        AttributeKey::Actor,
        AttributeKey::Status,
        AttributeKey::ActorContainer,
        AttributeKey::Result,
        AttributeKey::Disposition,
        AttributeKey::Limit,
        AttributeKey::Usage,
        AttributeKey::Window,
        AttributeKey::Throttled,
        AttributeKey::ThrottledPeriods,
        AttributeKey::Periods,
    ];

    /// The key of that number. None where this daemon knows none.
    pub fn from_code(code: u16) -> Option<AttributeKey> {
        AttributeKey::ALL.into_iter().find(|key| key.code() == code)
    }

    /// The number in the plugin contract.
    pub const fn code(self) -> u16 {
        match self {
            AttributeKey::Device => 1,
            AttributeKey::Inode => 2,
            AttributeKey::FileSystem => 3,
            AttributeKey::Mount => 4,
            AttributeKey::Syscall => 5,
            AttributeKey::Tag => 6,
            AttributeKey::Signal => 17,
            AttributeKey::SiCode => 18,
            AttributeKey::Actor => 19,
            AttributeKey::Status => 20,
            AttributeKey::ActorContainer => 21,
            AttributeKey::Result => 22,
            AttributeKey::Disposition => 23,
            AttributeKey::Limit => 73,
            AttributeKey::Usage => 74,
            AttributeKey::Window => 79,
            AttributeKey::Throttled => 80,
            AttributeKey::ThrottledPeriods => 81,
            AttributeKey::Periods => 82,
        }
    }
}

/// Bytes `offset..offset + length` of a batch's text. Length 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub offset: u32,
    /// Number of bytes.
    pub length: u32,
}

/// Where the process of an event stood, as far as the kernel tells: what it takes to look its path up
/// afterwards. No guest gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Standpoint {
    /// Inode number of its mount namespace, as in `/proc/<pid>/ns/mnt`; 0 where that is not known.
    pub mount_namespace: u32,
    /// Whether a symbolic link that the path itself names is not followed.
    pub no_follow: bool,
    /// Its root inside the mount namespace. None where that is not known.
    pub root: Span,
}

/// One admitted event. Its paths and attributes stand in the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Position in the stream of admitted events; strictly increasing.
    pub sequence: u64,
    /// When.
    pub time: UnixNanos,
    /// Whose.
    pub container: ContainerId,
    /// By whom. None for the events of the container itself.
    pub process: Option<ProcessId>,
    /// What.
    pub kind: Kind,
    /// Properties.
    pub flags: Flags,
    /// 0, or a negative errno.
    pub outcome: i32,
    /// The resolved path.
    pub path: Span,
    /// The path as asked for.
    pub requested: Span,
    /// First of its attributes in the batch.
    pub attributes_first: u32,
    /// How many attributes.
    pub attributes_count: u32,
    /// Where its process stood.
    pub standpoint: Standpoint,
}

#[cfg(test)]
impl Event {
    /// An `open` of nothing in particular, for tests.
    pub(crate) fn plain(sequence: u64, container: ContainerId) -> Event {
        Event {
            sequence,
            time: UnixNanos(1),
            container,
            process: None,
            kind: Kind::Open,
            flags: Flags::default(),
            outcome: 0,
            path: Span::default(),
            requested: Span::default(),
            attributes_first: 0,
            attributes_count: 0,
            standpoint: Standpoint::default(),
        }
    }
}

/// Events in the order of their admission, with what they refer to.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Batch {
    /// The events.
    pub events: Vec<Event>,
    /// The attributes of all events.
    pub attributes: Vec<Attribute>,
    /// The paths of all events.
    pub text: Vec<u8>,
}

impl Batch {
    /// Adds bytes to the text and returns where they stand.
    pub fn push_text(&mut self, bytes: &[u8]) -> Span {
        let offset = u32::try_from(self.text.len()).expect("a batch's text is far below 4 GiB");
        self.text.extend_from_slice(bytes);
        Span { offset, length: bytes.len() as u32 }
    }

    /// Adds an event of another batch, with its text and attributes.
    pub fn push_event_of(&mut self, other: &Batch, event: &Event) -> &mut Event {
        let attributes_first = self.attributes.len() as u32;
        self.attributes.extend_from_slice(other.attributes_of(event));
        let path = self.push_text(other.text_of(event.path));
        let requested = match event.requested == event.path {
            true => path,
            false => self.push_text(other.text_of(event.requested)),
        };
        self.events.push(Event { path, requested, attributes_first, ..*event });
        self.events.last_mut().expect("one was pushed")
    }

    /// The attributes of an event of this batch.
    pub fn attributes_of(&self, event: &Event) -> &[Attribute] {
        let first = event.attributes_first as usize;
        &self.attributes[first..][..event.attributes_count as usize]
    }

    /// The bytes of a span of this batch.
    pub fn text_of(&self, span: Span) -> &[u8] {
        &self.text[span.offset as usize..][..span.length as usize]
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// Why there is a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TickCause {
    /// The interval is over.
    Interval,
    /// The daemon stops.
    Stop,
    /// Somebody asked.
    Request,
}

/// A named number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Its name, as in `wit/roles.wit`.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
}

/// The exact totals of one container, of this run of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerTotals {
    /// Whose.
    pub container: ContainerId,
    /// Since when it is watched.
    pub watched_since: UnixNanos,
    /// Whether it was watched from the creation of its cgroup on.
    pub from_birth: bool,
    /// Whether the program that it started with was seen.
    pub first_exec_seen: bool,
    /// When its last event was seen.
    pub last_event: Option<UnixNanos>,
    /// When it ended.
    pub ended: Option<UnixNanos>,
    /// The counters of `container-totals` in `wit/roles.wit`.
    pub counters: Vec<Counter>,
}

/// Totals as of the last event before them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// When.
    pub time: UnixNanos,
    /// Why.
    pub cause: TickCause,
    /// Every watched container, and those that ended since the last tick.
    pub containers: Vec<ContainerTotals>,
    /// The daemon's own counters.
    pub counters: Vec<Counter>,
}

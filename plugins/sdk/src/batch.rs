//! Events as a plugin reads them: views into a batch's flat records. Nothing is copied.

use std::borrow::Cow;

use crate::bindings::whodunit::plugin::types as raw;
use crate::escape::escape;

/// Events in the order in which they were admitted.
#[derive(Debug)]
pub struct Batch(raw::Batch);

impl Batch {
    pub(crate) fn new(batch: raw::Batch) -> Batch {
        Batch(batch)
    }

    /// The events.
    pub fn events(&self) -> Events<'_> {
        Events { batch: &self.0, events: self.0.events.iter() }
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.0.events.len()
    }

    /// Whether there are no events. A batch without any tells of dropped ones.
    pub fn is_empty(&self) -> bool {
        self.0.events.is_empty()
    }

    /// How many events for this plugin were dropped since the batch before this one.
    pub fn dropped(&self) -> u64 {
        self.0.dropped
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = Event<'a>;
    type IntoIter = Events<'a>;

    fn into_iter(self) -> Events<'a> {
        self.events()
    }
}

/// The events of a batch, one after the other.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    batch: &'a raw::Batch,
    events: std::slice::Iter<'a, raw::Event>,
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        self.events.next().map(|event| Event { batch: self.batch, event })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.events.size_hint()
    }
}

impl ExactSizeIterator for Events<'_> {}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A container was found, or its cgroup was made. The path is its cgroup path.
    ContainerStarted,
    /// A container's cgroup is gone. The path is its cgroup path.
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
    /// A process executed a program. The path is the program as it was asked for.
    ProcessExecuted,
    /// A process ended, with its last thread.
    ProcessExited,
    /// A signal was made for a process.
    SignalGenerated,
    /// A signal reached its process.
    SignalDelivered,
    /// The kernel killed a process for want of memory. The path is the cgroup whose memory ran out.
    OomKill,
    /// A container used up its quota of CPU and was not let run. The path is its cgroup path.
    CpuThrottled,
    /// A kind that this version of the SDK has no name for. Skip it.
    Other(u16),
}

impl Kind {
    /// The kind of that number.
    pub const fn of(code: u16) -> Kind {
        match code {
            1 => Kind::ContainerStarted,
            2 => Kind::ContainerEnded,
            16 => Kind::Open,
            17 => Kind::Exec,
            18 => Kind::Stat,
            19 => Kind::Access,
            20 => Kind::Readlink,
            21 => Kind::Chdir,
            22 => Kind::List,
            23 => Kind::Map,
            24 => Kind::Load,
            25 => Kind::Follow,
            26 => Kind::Truncate,
            27 => Kind::Rename,
            28 => Kind::Link,
            29 => Kind::Unlink,
            30 => Kind::Make,
            31 => Kind::Attributes,
            32 => Kind::OtherUse,
            48 => Kind::ProcessForked,
            49 => Kind::ProcessExecuted,
            50 => Kind::ProcessExited,
            51 => Kind::SignalGenerated,
            52 => Kind::SignalDelivered,
            53 => Kind::OomKill,
            54 => Kind::CpuThrottled,
            other => Kind::Other(other),
        }
    }

    /// The number in the contract.
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
            Kind::Other(code) => code,
        }
    }

    /// The name in the contract; `other` for a kind without one.
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
            Kind::Other(_) => "other",
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It worked: the file was used.
    Used,
    /// There is no such file: `ENOENT` or `ENOTDIR`.
    Missing,
    /// The call was interrupted (`EINTR`, or one of the kernel's own `ERESTART` numbers) and says
    /// nothing about the file.
    Interrupted,
    /// Anything else that failed, with its errno as a positive number.
    Refused(u16),
}

impl Outcome {
    const EINTR: u32 = 4;
    const ENOENT: u32 = 2;
    const ENOTDIR: u32 = 20;
    /// `ERESTARTSYS` in `include/linux/errno.h`: from there on, numbers that user space never sees.
    const FIRST_KERNEL_ERRNO: u32 = 512;

    fn of(outcome: i32) -> Outcome {
        match outcome.unsigned_abs() {
            _ if outcome >= 0 => Outcome::Used,
            Outcome::ENOENT | Outcome::ENOTDIR => Outcome::Missing,
            Outcome::EINTR | Outcome::FIRST_KERNEL_ERRNO.. => Outcome::Interrupted,
            errno => Outcome::Refused(errno as u16),
        }
    }
}

/// Properties of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Flags(
    /// The bits of the contract.
    pub u16,
);

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
    /// The file is reachable from no mount of the container: a pipe, a memfd.
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

    /// Whether any bit of `other` is set.
    pub const fn intersects(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// What an attribute is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttributeKey {
    /// Device of the file's file system, as the kernel's `MKDEV` packs it.
    Device,
    /// Inode number.
    Inode,
    /// Magic number of the file system's type.
    FileSystem,
    /// The kernel's id of the mount.
    Mount,
    /// Number of the system call, in the table of its architecture (that of ia32 with the flag `compat`).
    Syscall,
    /// What a filter said of the event. An event has one for each filter that tagged it.
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
    /// A key that this version of the SDK has no name for.
    Other(u16),
}

impl AttributeKey {
    /// The number in the contract.
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
            AttributeKey::Other(code) => code,
        }
    }
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    batch: &'a raw::Batch,
    event: &'a raw::Event,
}

impl<'a> Event<'a> {
    /// Position in the daemon's stream of admitted events; increases from event to event.
    pub fn sequence(&self) -> u64 {
        self.event.sequence
    }

    /// When, in nanoseconds since the Unix epoch.
    pub fn time(&self) -> u64 {
        self.event.time
    }

    /// Number of the container; see [`crate::directory::container`]. 0 is none.
    pub fn container(&self) -> u32 {
        self.event.container
    }

    /// Number of the process; see [`crate::directory::process`]. 0 is none.
    pub fn process(&self) -> u32 {
        self.event.process
    }

    /// What happened.
    pub fn kind(&self) -> Kind {
        Kind::of(self.event.kind)
    }

    /// Properties.
    pub fn flags(&self) -> Flags {
        Flags(self.event.flags)
    }

    /// What came of it.
    pub fn outcome(&self) -> Outcome {
        Outcome::of(self.event.outcome)
    }

    /// The path as the kernel resolved it, in the container's mount namespace. Empty where it did
    /// not resolve one.
    pub fn path(&self) -> &'a [u8] {
        self.text(self.event.path)
    }

    /// [`Event::path`] as text, with bytes that are not UTF-8 escaped: see [`mod@crate::escape`].
    pub fn path_text(&self) -> Cow<'a, str> {
        escape(self.path())
    }

    /// The path as the program asked for it.
    pub fn requested(&self) -> &'a [u8] {
        self.text(self.event.requested)
    }

    /// [`Event::requested`] as text, with bytes that are not UTF-8 escaped.
    pub fn requested_text(&self) -> Cow<'a, str> {
        escape(self.requested())
    }

    /// The attribute of that key, the first where there are several.
    pub fn attribute(&self, key: AttributeKey) -> Option<u64> {
        self.attributes(key).next()
    }

    /// The tags that filters gave it, in the order of the filters.
    pub fn tags(&self) -> impl Iterator<Item = u64> {
        self.attributes(AttributeKey::Tag)
    }

    fn attributes(&self, key: AttributeKey) -> impl Iterator<Item = u64> + use<'a> {
        let first = self.event.attributes_first as usize;
        let attributes = self.batch.attributes.get(first..).unwrap_or_default();
        let own = attributes.iter().take(self.event.attributes_count as usize);
        own.filter(move |attribute| attribute.key == key.code()).map(|attribute| attribute.value)
    }

    /// Empty where the span is not inside the text: the daemon never sends such a batch, and a
    /// plugin need not die of one.
    fn text(&self, span: raw::Span) -> &'a [u8] {
        let start = span.offset as usize;
        self.batch.text.get(start..start + span.length as usize).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_meanings() {
        let meanings = [
            (0, Outcome::Used),
            (-2, Outcome::Missing),
            (-20, Outcome::Missing),
            (-4, Outcome::Interrupted),
            (-512, Outcome::Interrupted),
            (i32::MIN, Outcome::Interrupted),
            (-13, Outcome::Refused(13)),
            (-511, Outcome::Refused(511)),
        ];
        for (outcome, meaning) in meanings {
            assert_eq!(Outcome::of(outcome), meaning, "{outcome}");
        }
    }

    #[test]
    fn every_kind_has_its_number_and_its_name() {
        for code in 0..=u16::MAX {
            let kind = Kind::of(code);
            assert_eq!(kind.code(), code);
            assert_eq!(matches!(kind, Kind::Other(_)), kind.name() == "other");
        }
    }

    #[test]
    fn unknown_kinds_and_spans_outside_the_text_harm_nobody() {
        let event = raw::Event {
            sequence: 1,
            time: 2,
            container: 3,
            process: 0,
            kind: 999,
            flags: 0,
            outcome: 0,
            path: raw::Span { offset: u32::MAX, length: 7 },
            requested: raw::Span { offset: 0, length: 4 },
            attributes_first: 9,
            attributes_count: u32::MAX,
        };
        let batch = Batch::new(raw::Batch {
            events: vec![event],
            attributes: Vec::new(),
            text: b"\xffabc".to_vec(),
            dropped: 0,
        });
        let event = batch.events().next().unwrap();
        assert_eq!(event.kind(), Kind::Other(999));
        assert_eq!(event.path(), b"");
        assert_eq!(event.requested_text(), "\\xffabc");
        assert_eq!(event.attribute(AttributeKey::Inode), None);
    }
}

//! From the bytes of a record to an observation.
//!
//! Total: every slice of bytes is an observation or a reason why it is none. Never indexes past the
//! end, never asks anybody, keeps nothing.

use thiserror::Error;
use whodunit_ebpf::{FMODE_WRITE, RawCgroup, RawFile, file_flag, operation, record_kind};
use zerocopy::FromBytes as _;

use crate::event::{CgroupId, Flags, Kind};

/// What the kernel said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation<'a> {
    /// A cgroup was made.
    CgroupMade {
        /// Its id.
        cgroup: CgroupId,
        /// Its parent's id.
        parent: CgroupId,
        /// Its path below the hierarchy's root, with a leading `/`.
        path: &'a [u8],
    },
    /// A cgroup was removed.
    CgroupGone {
        /// Its id.
        cgroup: CgroupId,
    },
    /// A file was accessed.
    File(FileAccess<'a>),
}

/// One access to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileAccess<'a> {
    /// What was done.
    pub kind: Kind,
    /// 0, or a negative errno.
    pub outcome: i32,
    /// When, in nanoseconds since boot.
    pub time_ns: u64,
    /// In which cgroup.
    pub cgroup: CgroupId,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// When the process started, in nanoseconds since boot.
    pub started_ns: u64,
    /// Name of the process, padded with NULs.
    pub comm: [u8; 16],
    /// Done by a container runtime before the container's program was executed.
    pub setup: bool,
    /// Which file was reached. None where none was.
    pub identity: Option<Identity>,
    /// The path as asked for. Empty where it could not be read, and where the call has none.
    pub requested: &'a [u8],
    /// Whether a symbolic link that the requested path itself names is followed.
    pub follow: bool,
    /// Inode number of the process's mount namespace, as in `/proc/<pid>/ns/mnt`.
    pub mount_namespace: u32,
    /// Number of the system call. None where no single one can be named.
    pub syscall: Option<u32>,
    /// What the kernel programs say beside.
    marks: Flags,
    way: Way<'a>,
}

/// A request whose path the kernel did not resolve: what it takes to do so in the process's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup<'a> {
    /// The path as asked for; never empty.
    pub requested: &'a [u8],
    /// The folder that a relative request starts at. None where it is not known, and for an absolute
    /// request.
    pub base: Option<Names<'a>>,
    /// The process's root: where an absolute request starts, and what `..` does not leave. None where
    /// it is not known.
    pub root: Option<Names<'a>>,
    /// Whether a symbolic link that the request itself names is followed.
    pub follow: bool,
    /// Inode number of the mount namespace that all this is in.
    pub mount_namespace: u32,
}

/// A path as the kernel gives it: names, each with a final NUL, from the file up to the root of the
/// mount namespace. No names are that root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a>(&'a [u8]);

impl Names<'_> {
    /// Appends the path, which begins with `/`. That of the root is `/`.
    pub fn push_to(&self, path: &mut Vec<u8>) {
        let names = self.0.strip_suffix(b"\0").unwrap_or(self.0);
        if names.is_empty() {
            path.push(b'/');
            return;
        }
        for name in names.rsplit(|byte| *byte == 0) {
            path.push(b'/');
            path.extend_from_slice(name);
        }
    }
}

/// Which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device, as `MKDEV` packs it.
    pub device: u32,
    /// Inode number.
    pub inode: u64,
    /// Magic number of the file system's type.
    pub file_system: u64,
    /// The kernel's id of the mount.
    pub mount: u32,
    /// Opened for writing.
    pub write: bool,
    /// It is a directory.
    pub directory: bool,
}

/// How the path is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way<'a> {
    /// The kernel resolved it.
    Resolved(Names<'a>),
    /// As `Resolved`, of a file whose name is gone from its folder.
    Removed(Names<'a>),
    /// As `Resolved`, of a file that no mount of the process's namespace reaches.
    Detached(Names<'a>),
    /// Only the request is known. A relative one starts at the base, an absolute one at the root.
    Requested { base: Option<Names<'a>>, root: Option<Names<'a>>, base_removed: bool },
    /// A file was reached, and its path is not known whole.
    Lost,
}

/// Why bytes are no observation.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than its kind of record.
    #[error("a record of {0} bytes is too short for its kind")]
    Short(usize),
    /// A kind that this daemon does not know.
    #[error("a record of unknown kind {0}")]
    Kind(u16),
    /// An operation that this daemon does not know.
    #[error("a file record of unknown operation {0}")]
    Operation(u16),
}

/// Decodes one record.
///
/// # Errors
///
/// If the bytes are no record of this build's kernel programs.
pub fn decode(bytes: &[u8]) -> Result<Observation<'_>, DecodeError> {
    let short = DecodeError::Short(bytes.len());
    let kind = u16::from_ne_bytes(*bytes.first_chunk().ok_or(short)?);
    match kind {
        record_kind::CGROUP_MADE | record_kind::CGROUP_GONE => {
            let (raw, text) = RawCgroup::read_from_prefix(bytes).map_err(|_| short)?;
            let path = text.get(..raw.path_length as usize).ok_or(short)?;
            let cgroup = CgroupId(raw.cgroup);
            Ok(if kind == record_kind::CGROUP_MADE {
                let parent = CgroupId(raw.parent);
                Observation::CgroupMade { cgroup, parent, path: until_nul(path) }
            } else {
                Observation::CgroupGone { cgroup }
            })
        }
        record_kind::FILE => {
            let (raw, text) = RawFile::read_from_prefix(bytes).map_err(|_| short)?;
            let requested = text.get(..raw.requested_length as usize).ok_or(short)?;
            let rest = &text[requested.len()..];
            let components = rest.get(..raw.components_length as usize).ok_or(short)?;
            let rest = &rest[components.len()..];
            let root = rest.get(..raw.root_length as usize).ok_or(short)?;
            file(&raw, requested, Names(components), Names(root)).map(Observation::File)
        }
        unknown => Err(DecodeError::Kind(unknown)),
    }
}

fn file<'a>(
    raw: &RawFile,
    requested: &'a [u8],
    components: Names<'a>,
    root: Names<'a>,
) -> Result<FileAccess<'a>, DecodeError> {
    const S_IFMT: u32 = 0o170_000;
    const S_IFDIR: u32 = 0o040_000;
    let kind = kind_of(raw.operation)?;
    let has = |flag: u32| raw.flags & flag != 0;
    // A path without its beginning is another path: better none.
    let whole = !has(file_flag::CUT | file_flag::FAULT);
    let attached = !has(file_flag::DETACHED);
    let way = if has(file_flag::BASE) {
        let absolute = requested.starts_with(b"/");
        Way::Requested {
            base: (!absolute && whole && attached).then_some(components),
            root: (!has(file_flag::ROOT_LOST)).then_some(root),
            base_removed: has(file_flag::REMOVED),
        }
    } else if !whole {
        Way::Lost
    } else if !attached {
        Way::Detached(components)
    } else if has(file_flag::REMOVED) {
        Way::Removed(components)
    } else {
        Way::Resolved(components)
    };
    let identity = (raw.inode != 0).then_some(Identity {
        device: raw.device,
        inode: raw.inode,
        file_system: raw.file_system,
        mount: raw.mount,
        write: raw.file_mode & FMODE_WRITE != 0,
        directory: raw.mode & S_IFMT == S_IFDIR,
    });
    let marks = Flags::default()
        .with_if(has(file_flag::COMPAT), Flags::COMPAT)
        .with_if(has(file_flag::IO_URING), Flags::IO_URING)
        .with_if(has(file_flag::DESTINATION), Flags::DESTINATION)
        .with_if(has(file_flag::BY_KERNEL), Flags::BY_KERNEL)
        .with_if(has(file_flag::REQUEST_CUT), Flags::TRUNCATED);
    Ok(FileAccess {
        kind,
        outcome: raw.outcome,
        time_ns: raw.time_ns,
        cgroup: CgroupId(raw.cgroup),
        pid: raw.pid,
        started_ns: raw.started_ns,
        comm: raw.comm,
        setup: has(file_flag::SETUP),
        identity,
        requested,
        follow: !has(file_flag::NO_FOLLOW),
        mount_namespace: raw.mount_namespace,
        syscall: has(file_flag::SYSCALL).then_some(raw.syscall),
        marks,
        way,
    })
}

/// The kind of event that an operation is.
pub(crate) fn kind_of(operation: u16) -> Result<Kind, DecodeError> {
    Ok(match operation {
        operation::OPEN => Kind::Open,
        operation::EXEC => Kind::Exec,
        operation::STAT => Kind::Stat,
        operation::ACCESS => Kind::Access,
        operation::READLINK => Kind::Readlink,
        operation::CHDIR => Kind::Chdir,
        operation::LIST => Kind::List,
        operation::MAP => Kind::Map,
        operation::LOAD => Kind::Load,
        operation::FOLLOW => Kind::Follow,
        operation::TRUNCATE => Kind::Truncate,
        operation::RENAME => Kind::Rename,
        operation::LINK => Kind::Link,
        operation::UNLINK => Kind::Unlink,
        operation::MAKE => Kind::Make,
        operation::ATTRIBUTES => Kind::Attributes,
        operation::OTHER_USE => Kind::OtherUse,
        unknown => return Err(DecodeError::Operation(unknown)),
    })
}

impl<'a> FileAccess<'a> {
    /// What it takes to resolve the request in the process's place. None where the kernel did, and
    /// where there is no request to resolve.
    pub fn lookup(&self) -> Option<Lookup<'a>> {
        match self.way {
            Way::Requested { base, root, base_removed: false }
                if !self.requested.is_empty() && !self.marks.contains(Flags::TRUNCATED) =>
            {
                Some(Lookup {
                    requested: self.requested,
                    base,
                    root,
                    follow: self.follow,
                    mount_namespace: self.mount_namespace,
                })
            }
            _ => None,
        }
    }

    /// Writes the path into `path`, which it clears first, and says what is known about it. The path
    /// is empty where nothing is known.
    pub fn path(&self, path: &mut Vec<u8>) -> Flags {
        path.clear();
        let flags = self
            .marks
            .with_if(self.setup, Flags::SETUP)
            .with_if(self.identity.is_some_and(|file| file.write), Flags::WRITE)
            .with_if(self.identity.is_some_and(|file| file.directory), Flags::DIRECTORY);
        match self.way {
            Way::Resolved(names) => {
                names.push_to(path);
                flags
            }
            Way::Removed(names) => {
                names.push_to(path);
                flags.with(Flags::DETACHED)
            }
            Way::Detached(Names(names)) if names.iter().any(|byte| *byte != 0) => {
                Names(names).push_to(path);
                // `memfd:x` is a name, not a place below the root.
                path.drain(..1);
                flags.with(Flags::DETACHED)
            }
            Way::Detached(_) => {
                // A pipe, or a mount whose root is the file itself, has no name of its own.
                path.extend_from_slice(self.requested);
                flags.with(Flags::DETACHED).with(Flags::UNRESOLVED)
            }
            Way::Requested { base, root, base_removed } => {
                let flags = flags.with(Flags::UNRESOLVED).with_if(base_removed, Flags::DETACHED);
                if self.requested.is_empty() {
                    return flags;
                }
                let absolute = self.requested.starts_with(b"/");
                let start = if absolute { root } else { base };
                match start {
                    Some(start) => {
                        start.push_to(path);
                        push_request(path, self.requested);
                        flags
                    }
                    None => {
                        path.extend_from_slice(self.requested);
                        flags.with(Flags::TRUNCATED)
                    }
                }
            }
            Way::Lost => {
                path.extend_from_slice(self.requested);
                flags.with(Flags::UNRESOLVED).with(Flags::TRUNCATED)
            }
        }
    }
}

/// Appends a requested path by its text: empty and `.` components say nothing and are left out. `..`
/// stays, since what it means depends on symbolic links.
fn push_request(path: &mut Vec<u8>, requested: &[u8]) {
    if path == b"/" {
        path.clear();
    }
    for name in requested.split(|byte| *byte == b'/') {
        if !name.is_empty() && name != b"." {
            path.push(b'/');
            path.extend_from_slice(name);
        }
    }
    if path.is_empty() {
        path.push(b'/');
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    fn record(flags: u32, requested: &[u8], components: &[u8]) -> Vec<u8> {
        let mut raw = RawFile::new_zeroed();
        raw.kind = record_kind::FILE;
        raw.operation = operation::OPEN;
        raw.flags = flags;
        raw.inode = u64::from(flags & file_flag::BASE == 0);
        raw.requested_length = requested.len() as u32;
        raw.components_length = components.len() as u32;
        [raw.as_bytes(), requested, components].concat()
    }

    #[track_caller]
    fn check(flags: u32, requested: &[u8], components: &[u8], path: &[u8], expected: Flags) {
        let bytes = record(flags, requested, components);
        let Ok(Observation::File(access)) = decode(&bytes) else {
            panic!("{:?}", decode(&bytes));
        };
        let mut found = b"left over".to_vec();
        let flags = access.path(&mut found);
        assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(path));
        assert_eq!(flags, expected);
    }

    #[test]
    fn names_are_turned_round() {
        check(0, b"x", b"x\0lib\0usr\0", b"/usr/lib/x", Flags::default());
        check(0, b"/", b"", b"/", Flags::default());
        check(0, b"", b"a\nb\xff\0", b"/a\nb\xff", Flags::default());
    }

    #[test]
    fn a_failed_request_is_joined_to_its_folder_and_marked() {
        let unresolved = Flags::UNRESOLVED;
        check(file_flag::BASE, b"a/./b//c", b"etc\0", b"/etc/a/b/c", unresolved);
        check(file_flag::BASE, b"../a", b"etc\0", b"/etc/../a", unresolved);
        check(file_flag::BASE, b"a", b"", b"/a", unresolved);
        check(file_flag::BASE, b"//etc/./x", b"", b"/etc/x", unresolved);
        check(file_flag::BASE, b"/", b"", b"/", unresolved);
    }

    #[test]
    fn an_unreadable_relative_request_has_no_path() {
        check(file_flag::BASE, b"", b"etc\0", b"", Flags::UNRESOLVED);
    }

    #[test]
    fn a_path_without_its_beginning_is_not_guessed() {
        let lost = Flags::UNRESOLVED.with(Flags::TRUNCATED);
        check(file_flag::CUT, b"deep", b"deep\0er\0", b"deep", lost);
        check(file_flag::FAULT, b"/a/deep", b"", b"/a/deep", lost);
        let base = file_flag::BASE;
        check(base | file_flag::CUT, b"deep", b"deep\0er\0", b"deep", lost);
        check(base | file_flag::ROOT_LOST, b"/a", b"", b"/a", lost);
        // Where the root is does not matter to what starts elsewhere.
        check(base | file_flag::ROOT_LOST, b"a", b"etc\0", b"/etc/a", Flags::UNRESOLVED);
    }

    #[test]
    fn a_request_below_another_root_is_told_with_it() {
        let mut bytes = record(file_flag::BASE | file_flag::NO_FOLLOW, b"../b", b"srv\0jail\0");
        let root = b"jail\0";
        bytes.extend_from_slice(root);
        let at = std::mem::offset_of!(RawFile, root_length);
        bytes[at..at + 4].copy_from_slice(&(root.len() as u32).to_ne_bytes());
        let Ok(Observation::File(access)) = decode(&bytes) else { panic!("no file record") };
        let lookup = access.lookup().unwrap();
        let text = |names: Option<Names<'_>>| {
            let mut path = Vec::new();
            names.unwrap().push_to(&mut path);
            String::from_utf8(path).unwrap()
        };
        assert_eq!((text(lookup.base), text(lookup.root)), ("/jail/srv".into(), "/jail".into()));
        assert!(!lookup.follow);
        let mut path = Vec::new();
        assert_eq!(access.path(&mut path), Flags::UNRESOLVED);
        assert_eq!(path, b"/jail/srv/../b");
    }

    #[test]
    fn a_removed_file_has_the_path_that_it_had() {
        check(file_flag::REMOVED, b"/tmp/x", b"x\0tmp\0", b"/tmp/x", Flags::DETACHED);
        let base = file_flag::BASE | file_flag::REMOVED;
        let gone = Flags::DETACHED.with(Flags::UNRESOLVED);
        check(base, b"x", b"gone\0tmp\0", b"/tmp/gone/x", gone);
    }

    #[test]
    fn a_detached_file_has_a_name_and_no_place() {
        check(file_flag::DETACHED, b"/proc/self/fd/3", b"memfd:x\0", b"memfd:x", Flags::DETACHED);
        let nameless = Flags::DETACHED.with(Flags::UNRESOLVED);
        check(file_flag::DETACHED, b"/proc/self/fd/3", b"\0", b"/proc/self/fd/3", nameless);
        check(file_flag::DETACHED, b"/proc/self/exe", b"", b"/proc/self/exe", nameless);
    }

    #[test]
    fn setup_is_told() {
        check(file_flag::SETUP, b"/a", b"a\0", b"/a", Flags::SETUP);
    }

    #[test]
    fn every_cut_record_is_an_error_and_never_a_panic() {
        let whole = record(0, b"request", b"file\0dir\0");
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "{length} bytes");
        }
        assert!(decode(&whole).is_ok());
    }

    #[test]
    fn every_start_of_noise_is_decoded_or_refused() {
        // All values of the first two bytes, over lengths around the sizes of the records.
        for kind in 0..=u16::MAX {
            for length in [2, 31, 32, 111, 112, 160] {
                let mut bytes = vec![0xff; length];
                bytes[..2].copy_from_slice(&kind.to_ne_bytes());
                let known = [1, 2, 16].contains(&kind);
                assert!(decode(&bytes).is_err() || known);
            }
        }
    }

    #[test]
    fn a_cgroup_s_path_ends_at_its_nul() {
        let mut raw = RawCgroup::new_zeroed();
        raw.kind = record_kind::CGROUP_MADE;
        raw.cgroup = 7;
        raw.parent = 1;
        raw.path_length = 5;
        let bytes = [raw.as_bytes(), b"/pod\0"].concat();
        let made =
            Observation::CgroupMade { cgroup: CgroupId(7), parent: CgroupId(1), path: b"/pod" };
        assert_eq!(decode(&bytes), Ok(made));
    }
}

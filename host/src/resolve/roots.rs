//! Handles of the roots of mount namespaces, so that paths can be walked when the process is gone.
//!
//! One for each (container, mount namespace), taken from a process that lives: the one that an event is
//! of, or another one of its cgroup. A handle keeps the container's file systems from going away, so it
//! goes with the end of its container, and when it was not used for a while.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use super::mounts;
use super::walk::{Found, Route, Stopped, walk};
use crate::directory::{Directory, Mount};
use crate::event::ContainerId;

/// How many mount namespaces of one container are kept: a hostile one may make them without end.
const NAMESPACES_PER_CONTAINER: usize = 8;
/// How long a handle is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(30);
/// How old a table of mounts may get while its namespace is used.
const TABLE_AGE: Duration = Duration::from_secs(1);
/// How long no new attempt is made at a namespace of which no process was found.
const RETRY: Duration = Duration::from_millis(200);
/// How many mounts of a namespace are remembered. The others are not entered.
const MOUNTS_AT_MOST: usize = 1024;
/// How many processes of a cgroup are tried.
const PROCESSES_TRIED: usize = 32;

/// A process, so named that another one with its number is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) started_ns: u64,
}

/// The inode number of a mount namespace, as in `/proc/<pid>/ns/mnt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NamespaceId(pub(super) u64);

/// The root of a mount namespace, with its mounts.
pub(super) struct Namespace {
    root: OwnedFd,
    mounts: Vec<Mount>,
    /// Whether a look-up could enter a mount that makes it wait.
    careful: bool,
    /// A process that lives in it, or lived.
    process: Process,
    table_read: Instant,
    used: Instant,
}

/// The namespaces that are known.
pub(super) struct Roots {
    directory: Arc<Directory>,
    cgroup_root: PathBuf,
    namespaces: HashMap<(ContainerId, NamespaceId), Namespace>,
    /// Of which no process was found, and when.
    vain: HashMap<(ContainerId, NamespaceId), Instant>,
}

impl Roots {
    pub(super) fn new(directory: Arc<Directory>, cgroup_root: PathBuf) -> Roots {
        Roots { directory, cgroup_root, namespaces: HashMap::new(), vain: HashMap::new() }
    }

    /// The root of a mount namespace of a container.
    pub(super) fn namespace(
        &mut self,
        container: ContainerId,
        id: NamespaceId,
        process: Process,
        now: Instant,
    ) -> Option<&mut Namespace> {
        let key = (container, id);
        if !self.namespaces.contains_key(&key) {
            if self.vain.get(&key).is_some_and(|since| now.duration_since(*since) < RETRY) {
                return None;
            }
            let Some(found) = self.find(container, id, process, now) else {
                self.vain.insert(key, now);
                return None;
            };
            self.vain.remove(&key);
            self.make_room(container);
            self.namespaces.insert(key, found);
            self.tell_mounts(container);
        }
        let stale = self
            .namespaces
            .get_mut(&key)
            .is_some_and(|namespace| now.duration_since(namespace.table_read) > TABLE_AGE);
        if stale && self.namespaces.get_mut(&key).is_some_and(|it| it.read_table(now)) {
            self.tell_mounts(container);
        }
        let namespace = self.namespaces.get_mut(&key)?;
        namespace.used = now;
        Some(namespace)
    }

    /// The mount namespace of a container, if it has one and no other.
    pub(super) fn only_one(&self, container: ContainerId) -> Option<NamespaceId> {
        let mut known = self.namespaces.keys().filter(|(owner, _)| *owner == container);
        if let Some((_, first)) = known.next() {
            return known.next().is_none().then_some(*first);
        }
        let mut all = self.processes(container).filter_map(namespace_of);
        let first = all.next()?;
        all.all(|other| other == first).then_some(first)
    }

    /// Forgets a container that ended.
    pub(super) fn forget(&mut self, container: ContainerId) {
        self.namespaces.retain(|(owner, _), _| *owner != container);
        self.vain.retain(|(owner, _), _| *owner != container);
    }

    /// Lets go of what was not used for a while.
    pub(super) fn forget_idle(&mut self, now: Instant) {
        self.namespaces.retain(|_, namespace| now.duration_since(namespace.used) < IDLE);
        self.vain.retain(|_, since| now.duration_since(*since) < RETRY);
    }

    fn find(
        &self,
        container: ContainerId,
        id: NamespaceId,
        process: Process,
        now: Instant,
    ) -> Option<Namespace> {
        let own = (lives(process) && namespace_of(process.pid) == Some(id))
            .then(|| Namespace::of(process, now))
            .flatten();
        // It may have ended on the way: another one of the container may live on.
        own.or_else(|| self.find_other(container, id, now))
    }

    fn find_other(
        &self,
        container: ContainerId,
        id: NamespaceId,
        now: Instant,
    ) -> Option<Namespace> {
        self.processes(container)
            .filter(|pid| namespace_of(*pid) == Some(id))
            .filter_map(|pid| Some(Process { pid, started_ns: started_ns(pid)? }))
            .find_map(|other| Namespace::of(other, now))
    }

    /// Some processes that live in a container's cgroup.
    fn processes(&self, container: ContainerId) -> impl Iterator<Item = u32> + use<> {
        let known = self.directory.container(container);
        let list = known.and_then(|known| {
            let folder = self.cgroup_root.join(path_of(&known.cgroup_path));
            fs::read_to_string(folder.join("cgroup.procs")).ok()
        });
        let list = list.unwrap_or_default();
        let pids: Vec<u32> =
            list.lines().take(PROCESSES_TRIED).filter_map(|line| line.parse().ok()).collect();
        pids.into_iter()
    }

    /// Lets go of a container's namespace that was not used for longest, if it has too many.
    fn make_room(&mut self, container: ContainerId) {
        let own = self.namespaces.iter().filter(|((owner, _), _)| *owner == container);
        let (count, oldest) = own.fold((0, None), |(count, oldest), (key, namespace)| {
            let older = match oldest {
                Some((_, used)) if used <= namespace.used => oldest,
                _ => Some((*key, namespace.used)),
            };
            (count + 1, older)
        });
        if let Some((key, _)) = oldest.filter(|_| count >= NAMESPACES_PER_CONTAINER) {
            self.namespaces.remove(&key);
        }
    }

    /// Puts the mounts of all namespaces of a container into the directory.
    fn tell_mounts(&self, container: ContainerId) {
        let own = self.namespaces.iter().filter(|((owner, _), _)| *owner == container);
        let mut all: Vec<Mount> =
            own.flat_map(|(_, namespace)| namespace.mounts.iter().cloned()).collect();
        all.sort_by_key(|mount| mount.id);
        all.dedup_by_key(|mount| mount.id);
        self.directory.put_mounts(container, all.into());
    }
}

impl Namespace {
    /// The namespace of a process that lives.
    fn of(process: Process, now: Instant) -> Option<Namespace> {
        let pid = process.pid;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut root = openat(CWD, format!("/proc/{pid}/root"), flags, Mode::empty()).ok()?;
        // From the root that the process has up to that of its namespace: a `..` ends there, since our own
        // root is not on the way.
        let own_root = place_of(root.as_fd())?;
        let depth = own_root.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).count();
        if depth > 0 {
            root = openat(&root, vec![".."; depth].join("/"), flags, Mode::empty()).ok()?;
            if place_of(root.as_fd())? != b"/" {
                return None;
            }
        }
        let mut namespace = Namespace {
            root,
            mounts: Vec::new(),
            careful: true,
            process,
            table_read: now,
            used: now,
        };
        namespace.read_table(now);
        // The process may have ended meanwhile, and another one have taken its number.
        lives(process).then_some(namespace)
    }

    /// Reads the table of mounts again. Returns whether it changed.
    fn read_table(&mut self, now: Instant) -> bool {
        self.table_read = now;
        if !lives(self.process) {
            return false;
        }
        let Ok(table) = fs::read(format!("/proc/{}/mountinfo", self.process.pid)) else {
            return false;
        };
        let mut mounts = mounts::parse(&table);
        let too_many = mounts.len() > MOUNTS_AT_MOST;
        mounts.truncate(MOUNTS_AT_MOST);
        if mounts.is_empty() || mounts == self.mounts {
            return false;
        }
        self.careful = too_many || mounts.iter().any(mounts::is_slow);
        self.mounts = mounts;
        true
    }

    /// Walks a path in it.
    pub(super) fn walk(&mut self, route: Route<'_>) -> Result<Found, Stopped> {
        if !self.careful {
            return walk(self.root.as_fd(), route, None);
        }
        let mounts = &self.mounts;
        let mut may_enter = |id| {
            mounts.iter().find(|mount| mount.id == id).is_some_and(|mount| !mounts::is_slow(mount))
        };
        walk(self.root.as_fd(), route, Some(&mut may_enter))
    }
}

/// The path of a handle, as its own mount namespace has it where that is not ours.
fn place_of(file: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    Some(readlinkat(CWD, link, Vec::new()).ok()?.into_bytes())
}

fn path_of(cgroup_path: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt as _;
    let relative = cgroup_path.strip_prefix(b"/").unwrap_or(cgroup_path);
    Path::new(std::ffi::OsStr::from_bytes(relative))
}

/// The mount namespace of a process.
pub(super) fn namespace_of(pid: u32) -> Option<NamespaceId> {
    let link = readlinkat(CWD, format!("/proc/{pid}/ns/mnt"), Vec::new()).ok()?;
    let inode = link.to_str().ok()?.strip_prefix("mnt:[")?.strip_suffix(']')?;
    Some(NamespaceId(inode.parse().ok()?))
}

/// The root of a process inside its mount namespace: `/`, or what it changed it to.
pub(super) fn chroot_of(pid: u32) -> Result<Vec<u8>, Errno> {
    Ok(readlinkat(CWD, format!("/proc/{pid}/root"), Vec::new())?.into_bytes())
}

/// The working directory of a process, as its own mount namespace has it.
pub(super) fn working_directory(pid: u32) -> Option<Vec<u8>> {
    let path = readlinkat(CWD, format!("/proc/{pid}/cwd"), Vec::new()).ok()?.into_bytes();
    (path.starts_with(b"/") && !path.ends_with(b" (deleted)")).then_some(path)
}

/// Whether a process lives, and is that one.
pub(super) fn lives(process: Process) -> bool {
    started_ns(process.pid).is_some_and(|started| {
        // The file has it in ticks of 10 ms; the kernel's record to the nanosecond.
        started.abs_diff(process.started_ns) < 2 * TICK_NS
    })
}

/// `USER_HZ` is 100 on every architecture that there is a daemon for.
const TICK_NS: u64 = 10_000_000;

/// When a process started, in nanoseconds since boot, to a tick.
fn started_ns(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program is in parentheses, and may hold anything.
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    // Field 22, and the name is field 2.
    let field =
        stat[after_name..].split(|byte| *byte == b' ').filter(|it| !it.is_empty()).nth(19)?;
    Some(str::from_utf8(field).ok()?.parse::<u64>().ok()? * TICK_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Process {
        let pid = std::process::id();
        Process { pid, started_ns: started_ns(pid).unwrap() }
    }

    #[test]
    fn a_process_is_told_from_another_one_with_its_number() {
        let own = own();
        assert!(lives(own));
        assert!(lives(Process { started_ns: own.started_ns + TICK_NS - 1, ..own }));
        assert!(!lives(Process { started_ns: own.started_ns + 5 * TICK_NS, ..own }));
        assert!(!lives(Process { pid: u32::MAX, ..own }));
    }

    #[test]
    fn the_namespace_of_a_living_process_is_found_and_kept_until_its_container_ends() {
        let directory = Arc::new(Directory::new(std::num::NonZeroUsize::MIN));
        let mut roots = Roots::new(Arc::clone(&directory), PathBuf::from("/nonexistent"));
        let (container, id) = (ContainerId(1), namespace_of(std::process::id()).unwrap());
        let now = Instant::now();
        let gone = Process { pid: u32::MAX, started_ns: 1 };
        assert!(roots.namespace(container, id, gone, now).is_none());
        let later = now + RETRY;
        assert!(roots.namespace(container, id, own(), later).is_some());
        assert!(directory.mounts(container).iter().any(|mount| mount.point == b"/"));
        // Now also for a process that is gone.
        let namespace = roots.namespace(container, id, gone, later).unwrap();
        let route = Route { chroot: b"/", path: b"/proc/../proc", follow: true };
        assert_eq!(namespace.walk(route).unwrap().path, b"/proc");
        roots.forget_idle(later);
        assert!(roots.namespace(container, id, gone, later).is_some());
        roots.forget(container);
        assert!(roots.namespace(container, id, gone, later).is_none());
    }

    #[test]
    fn a_process_that_is_gone_is_stood_in_for_by_another_one_of_its_cgroup() {
        let cgroups = tempfile::tempdir().unwrap();
        fs::create_dir(cgroups.path().join("web")).unwrap();
        let list = cgroups.path().join("web/cgroup.procs");
        fs::write(&list, format!("{}\n{}\n", u32::MAX, std::process::id())).unwrap();
        let directory = Arc::new(Directory::new(std::num::NonZeroUsize::MIN));
        let container = ContainerId(1);
        directory.put_container(crate::directory::Container {
            id: container,
            name: "web".to_owned(),
            name_source: "id",
            runtime_id: String::new(),
            runtime: "unknown",
            cgroup: crate::event::CgroupId(1),
            cgroup_path: b"/web".to_vec(),
            attributes: Vec::new(),
            watched_since: crate::event::UnixNanos(1),
            from_birth: true,
            ended: None,
        });
        let mut roots = Roots::new(directory, cgroups.path().to_owned());
        let own = namespace_of(std::process::id()).unwrap();
        assert_eq!(roots.only_one(container), Some(own));
        let gone = Process { pid: u32::MAX, started_ns: 1 };
        assert!(roots.namespace(container, own, gone, Instant::now()).is_some());
        fs::write(&list, "").unwrap();
        assert_eq!(roots.only_one(container), Some(own));
        roots.forget(container);
        assert_eq!(roots.only_one(container), None);
    }

    #[test]
    fn another_namespace_than_that_of_the_event_is_not_taken() {
        let directory = Arc::new(Directory::new(std::num::NonZeroUsize::MIN));
        let mut roots = Roots::new(directory, PathBuf::from("/nonexistent"));
        let other = NamespaceId(1);
        assert!(roots.namespace(ContainerId(1), other, own(), Instant::now()).is_none());
    }
}

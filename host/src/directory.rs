//! Who is who: containers and processes by their ids, for everyone who has an id and wants a name.
//!
//! Written by discovery and attribution, read by the plugin host and by whoever answers questions.
//! Bounded: a process that was not looked up for long makes room for newer ones.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use dashmap::DashMap;
use lru::LruCache;

use crate::event::{CgroupId, ContainerId, ProcessId, UnixNanos};

/// A container, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its number.
    pub id: ContainerId,
    /// The name that people use.
    pub name: String,
    /// Where the name comes from: `id` for the short container id, `cgroup` for the cgroup's name.
    pub name_source: &'static str,
    /// The runtime's id of it, or its cgroup's last component.
    pub runtime_id: String,
    /// The runtime, as far as the cgroup path tells.
    pub runtime: &'static str,
    /// Its cgroup.
    pub cgroup: CgroupId,
    /// Path of its cgroup below the root of the hierarchy, with a leading `/`. Bytes.
    pub cgroup_path: Vec<u8>,
    /// What else is known: `pod-uid`, ...
    pub attributes: Vec<(String, String)>,
    /// Since when it is watched.
    pub watched_since: UnixNanos,
    /// Whether it was watched from the creation of its cgroup on.
    pub from_birth: bool,
    /// When it ended.
    pub ended: Option<UnixNanos>,
}

/// A mount of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's id of it.
    pub id: u32,
    /// Where it is mounted, in the container's own file tree. Bytes.
    pub point: Vec<u8>,
    /// Type of the file system, such as `overlay` or `fuse.sshfs`.
    pub file_system: String,
    /// What is mounted, as far as the file system tells. Bytes.
    pub source: Vec<u8>,
    /// Device of the file system, as the kernel's `MKDEV` packs it.
    pub device: u32,
}

/// A process, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub id: ProcessId,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// When it started, in nanoseconds since boot.
    pub started_ns: u64,
    /// Its name when it was first seen, or seen to execute a program. Bytes up to the first NUL.
    pub comm: Vec<u8>,
    /// Its container.
    pub container: ContainerId,
}

/// Whose a cgroup is, once that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A container's.
    Container(ContainerId),
    /// Nobody's who is watched.
    Nobody,
}

struct Processes {
    by_key: LruCache<(u32, u64), ProcessId>,
    next: u32,
}

/// The containers and processes of this run.
pub struct Directory {
    containers: DashMap<ContainerId, Container>,
    mounts: DashMap<ContainerId, Arc<[Mount]>>,
    owners: DashMap<CgroupId, Owner>,
    throttled: DashMap<ContainerId, u64>,
    processes: DashMap<ProcessId, Process>,
    process_ids: Mutex<Processes>,
}

impl Directory {
    /// An empty directory that remembers at most `processes` processes.
    pub fn new(processes: NonZeroUsize) -> Directory {
        Directory {
            containers: DashMap::new(),
            mounts: DashMap::new(),
            owners: DashMap::new(),
            throttled: DashMap::new(),
            processes: DashMap::new(),
            process_ids: Mutex::new(Processes { by_key: LruCache::new(processes), next: 1 }),
        }
    }

    /// Adds or replaces a container.
    pub fn put_container(&self, container: Container) {
        self.containers.insert(container.id, container);
    }

    /// A container by its number.
    pub fn container(&self, id: ContainerId) -> Option<Container> {
        self.containers.get(&id).map(|entry| entry.clone())
    }

    /// Forgets a container.
    pub fn remove_container(&self, id: ContainerId) {
        self.containers.remove(&id);
        self.mounts.remove(&id);
        self.throttled.remove(&id);
    }

    /// Remembers how long a container was not let run by its quota of CPU since it started, in nanoseconds.
    pub fn put_throttled_ns(&self, id: ContainerId, throttled_ns: u64) {
        self.throttled.insert(id, throttled_ns);
    }

    /// How long that was. None where no cgroup told.
    pub fn throttled_ns(&self, id: ContainerId) -> Option<u64> {
        self.throttled.get(&id).map(|entry| *entry)
    }

    /// Replaces what is known of a container's mounts.
    pub fn put_mounts(&self, id: ContainerId, mounts: Arc<[Mount]>) {
        self.mounts.insert(id, mounts);
    }

    /// A container's mounts, as far as they were seen. Empty where they were not.
    pub fn mounts(&self, id: ContainerId) -> Arc<[Mount]> {
        self.mounts.get(&id).map(|entry| Arc::clone(&entry)).unwrap_or_default()
    }

    /// Changes a container in place. Returns false where there is none of that number.
    pub fn update_container(&self, id: ContainerId, change: impl FnOnce(&mut Container)) -> bool {
        self.containers.get_mut(&id).map(|mut entry| change(&mut entry)).is_some()
    }

    /// Every container, in no order.
    pub fn containers(&self) -> Vec<Container> {
        self.containers.iter().map(|entry| entry.clone()).collect()
    }

    /// Whose a cgroup is. None where that is not known: not yet, or no longer.
    pub fn owner(&self, cgroup: CgroupId) -> Option<Owner> {
        self.owners.get(&cgroup).map(|entry| *entry)
    }

    /// Remembers whose a cgroup is.
    pub fn put_owner(&self, cgroup: CgroupId, owner: Owner) {
        self.owners.insert(cgroup, owner);
    }

    /// Forgets whose a cgroup was.
    pub fn remove_owner(&self, cgroup: CgroupId) {
        self.owners.remove(&cgroup);
    }

    /// The number of the process with this pid and start time; a new one if it is new.
    pub fn process_id(
        &self,
        pid: u32,
        started_ns: u64,
        comm: &[u8],
        container: ContainerId,
    ) -> ProcessId {
        let mut ids = self.process_ids.lock().expect("no holder of this lock panics");
        if let Some(id) = ids.by_key.get(&(pid, started_ns)) {
            return *id;
        }
        let id = ProcessId(ids.next);
        // Wrapping takes 4 billion processes; 0 stays "no process".
        ids.next = ids.next.checked_add(1).unwrap_or(1);
        if let Some((_, oldest)) = ids.by_key.push((pid, started_ns), id) {
            self.processes.remove(&oldest);
        }
        let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
        let comm = comm[..end].to_vec();
        self.processes.insert(id, Process { id, pid, started_ns, comm, container });
        id
    }

    /// Changes the name of a process: it executed a program.
    pub fn rename_process(&self, id: ProcessId, comm: &[u8]) {
        if let Some(mut process) = self.processes.get_mut(&id) {
            let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
            process.comm.clear();
            process.comm.extend_from_slice(&comm[..end]);
        }
    }

    /// Adds a process whose number was given elsewhere: in a recording.
    pub fn put_process(&self, process: Process) {
        self.processes.insert(process.id, process);
    }

    /// A process by its number.
    pub fn process(&self, id: ProcessId) -> Option<Process> {
        self.processes.get(&id).map(|entry| entry.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_pid_is_another_process() {
        let directory = Directory::new(NonZeroUsize::new(8).unwrap());
        let first = directory.process_id(7, 100, b"cat\0\0", ContainerId(1));
        let again = directory.process_id(7, 100, b"cat", ContainerId(1));
        let reused = directory.process_id(7, 200, b"sh", ContainerId(2));
        assert_eq!(first, again);
        assert_ne!(first, reused);
        assert_eq!(directory.process(first).unwrap().comm, b"cat");
        assert_eq!(directory.process(reused).unwrap().container, ContainerId(2));
    }

    #[test]
    fn the_oldest_process_makes_room() {
        let directory = Directory::new(NonZeroUsize::new(2).unwrap());
        let oldest = directory.process_id(1, 1, b"a", ContainerId(1));
        directory.process_id(2, 1, b"b", ContainerId(1));
        directory.process_id(3, 1, b"c", ContainerId(1));
        assert_eq!(directory.process(oldest), None);
        assert_eq!(directory.processes.len(), 2);
    }
}

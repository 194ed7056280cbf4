//! Cgroups: where the hierarchies are mounted, and folders in them that go away again.
//!
//! The version 2 hierarchy is the one that is worked with. Version 1 hierarchies matter for one
//! reason: on a hybrid system runc makes the same folders there, and they have to go too.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use crate::condition::{PATIENCE, wait_until};

/// What can go wrong with a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup v2 hierarchy.
    #[error(
        "no cgroup v2 hierarchy is mounted; mount one with `mount -t cgroup2 none /sys/fs/cgroup`"
    )]
    NotMounted,
    /// A file or folder of the hierarchy.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl CgroupError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
        let path = path.to_owned();
        move |source| CgroupError::Io { action, path, source }
    }
}

/// The mounted cgroup hierarchies of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchies {
    /// Where version 2 is mounted.
    pub unified: PathBuf,
    /// Where the version 1 controllers are mounted. Empty on a system without them.
    pub legacy: Vec<PathBuf>,
}

impl Hierarchies {
    /// Finds them in `/proc/self/mountinfo`.
    pub fn find() -> Result<Hierarchies, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(path).map_err(CgroupError::io("read", path))?;
        Hierarchies::parse(&text).ok_or(CgroupError::NotMounted)
    }

    fn parse(mountinfo: &str) -> Option<Hierarchies> {
        let mut unified = None;
        let mut legacy = Vec::new();
        for line in mountinfo.lines() {
            // Fields: id, parent, device, root, mount point, options, tags..., "-", type, ...
            let Some((before, after)) = line.split_once(" - ") else {
                continue;
            };
            let Some(mount_point) = before.split(' ').nth(4) else {
                continue;
            };
            match after.split(' ').next() {
                Some("cgroup2") if unified.is_none() => unified = Some(mount_point.into()),
                Some("cgroup") => legacy.push(mount_point.into()),
                _ => {}
            }
        }
        Some(Hierarchies { unified: unified?, legacy })
    }

    fn all(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.unified).chain(&self.legacy).map(PathBuf::as_path)
    }
}

/// Parents such as `kubepods/burstable` are shared among pods: one maker or remover at a time, so
/// that nobody removes an empty parent under the hands of someone who fills it.
static SHARED_PARENTS: Mutex<()> = Mutex::new(());

fn lock_shared_parents() -> MutexGuard<'static, ()> {
    SHARED_PARENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder in the cgroup v2 hierarchy. Dropped, it and everything below go away, its processes
/// killed, in the version 1 hierarchies too; then its parents, as far as they are empty.
#[derive(Debug)]
pub struct Cgroup {
    hierarchies: Hierarchies,
    /// Relative to the root of the hierarchy, without a leading slash.
    relative: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup, with its parents. `relative` has no leading slash.
    pub fn make(relative: impl Into<PathBuf>) -> Result<Cgroup, CgroupError> {
        let cgroup = Cgroup { hierarchies: Hierarchies::find()?, relative: relative.into() };
        let _parents = lock_shared_parents();
        // In every hierarchy: an empty parent that only runc made could go while runc fills it.
        for root in cgroup.hierarchies.all() {
            let folder = root.join(&cgroup.relative);
            fs::create_dir_all(&folder).map_err(CgroupError::io("make the cgroup", &folder))?;
        }
        Ok(cgroup)
    }

    /// Its path as containers and reports name it, with a leading slash.
    pub fn path(&self) -> String {
        format!("/{}", self.relative.display())
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        self.hierarchies.unified.join(&self.relative)
    }

    /// Its id: the inode number of its folder.
    pub fn id(&self) -> Result<u64, CgroupError> {
        cgroup_id(&self.folder())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _parents = lock_shared_parents();
        for root in self.hierarchies.all() {
            remove_tree(&root.join(&self.relative));
            let parents = self.relative.ancestors().skip(1);
            for parent in parents.filter(|parent| !parent.as_os_str().is_empty()) {
                // A parent that holds something else stays.
                if fs::remove_dir(root.join(parent)).is_err() {
                    break;
                }
            }
        }
    }
}

/// The id of the cgroup with this folder: its inode number.
pub fn cgroup_id(folder: &Path) -> Result<u64, CgroupError> {
    Ok(folder.metadata().map_err(CgroupError::io("look at the cgroup", folder))?.ino())
}

/// Moves a process, with all its threads, to the cgroup with this folder.
pub fn move_process(pid: u32, folder: &Path) -> Result<(), CgroupError> {
    let procs = folder.join("cgroup.procs");
    fs::write(&procs, pid.to_string()).map_err(CgroupError::io("move a process to", &procs))
}

/// Makes a cgroup below the cgroup with the folder `parent`, which removes it when it goes.
pub fn make_nested(parent: &Path, name: &str) -> Result<PathBuf, CgroupError> {
    let folder = parent.join(name);
    fs::create_dir_all(&folder).map_err(CgroupError::io("make the cgroup", &folder))?;
    Ok(folder)
}

/// Removes a cgroup and all below it. A process that is still in there is killed: only cgroups that
/// this process made come here. Gives up after a while, since there is nobody to tell.
pub(crate) fn remove_tree(folder: &Path) {
    wait_until(PATIENCE, || {
        if !folder.exists() {
            return true;
        }
        remove_once(folder);
        !folder.exists()
    });
}

fn remove_once(folder: &Path) {
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|file_type| file_type.is_dir()) {
                remove_once(&entry.path());
            }
        }
    }
    if fs::remove_dir(folder).is_ok() {
        return;
    }
    let pids = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw) {
        // It may be gone by itself between the reading and now.
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_mounts_are_told_apart() {
        let mountinfo = "\
            30 1 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            31 30 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            32 30 0:27 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(
            Hierarchies::parse(mountinfo),
            Some(Hierarchies {
                unified: "/sys/fs/cgroup/unified".into(),
                legacy: vec!["/sys/fs/cgroup/memory".into()],
            })
        );
    }

    #[test]
    fn without_version_2_there_is_nothing_to_work_with() {
        let mountinfo = "31 30 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(Hierarchies::parse(mountinfo), None);
    }
}

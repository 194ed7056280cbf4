//! The cgroup v2 hierarchy as a tree of folders.
//!
//! Owns where it is mounted and how it is read: a cgroup's id is its folder's inode number, and its
//! path is bytes below the mount point, with a leading `/` (the root's is empty). Decides nothing about
//! what a cgroup is.

use std::cmp::Reverse;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::event::CgroupId;

/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Id of the machine's root cgroup: the first id that kernfs gives out in a hierarchy. The root that a
/// cgroup namespace shows has another one, since it is an ordinary cgroup from outside.
const MACHINE_ROOT: CgroupId = CgroupId(1);

/// Where cgroup v2 is usually mounted: alone, and beside the v1 controllers.
const USUAL: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// The top of the cgroup v2 hierarchy, as far as it can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupRoot {
    path: PathBuf,
    id: CgroupId,
}

/// A cgroup in its parent's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    /// Name of its folder.
    pub(crate) name: Vec<u8>,
    /// Its id.
    pub(crate) id: CgroupId,
}

/// Why there is no hierarchy to read.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// No mount of the type cgroup2.
    #[error(
        "no cgroup v2 hierarchy is mounted; mount one with `mount -t cgroup2 none /sys/fs/cgroup`, or \
         in a container mount the host's /sys/fs/cgroup and set `discovery.cgroup_root` to it"
    )]
    NotMounted,
    /// The configured folder cannot be read.
    #[error(
        "`discovery.cgroup_root` is {path:?}, which cannot be read ({source}); name the mount point of \
         a cgroup v2 hierarchy, or leave it out to have it found"
    )]
    Unreadable {
        /// The configured folder.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// The configured folder is on another file system.
    #[error(
        "`discovery.cgroup_root` is {path:?}, which is not a cgroup v2 hierarchy; {}",
        match found {
            Some(found) => format!("set it to {found:?}, which is one, or leave it out"),
            None => "mount one with `mount -t cgroup2 none FOLDER` and name that folder".to_owned(),
        }
    )]
    NotCgroup2 {
        /// The configured folder.
        path: PathBuf,
        /// A mount point that would do.
        found: Option<PathBuf>,
    },
    /// The list of mounts cannot be read.
    #[error(
        "the mounts of this process cannot be read from {MOUNTINFO} ({source}); mount /proc, or set \
         `discovery.cgroup_root`"
    )]
    Mounts {
        /// Why it cannot be read.
        source: io::Error,
    },
}

impl CgroupRoot {
    /// The configured mount point, or the best one that this process can see.
    ///
    /// A mount that shows the machine's whole hierarchy goes first, then the one that reaches farthest
    /// up; among equals the usual places come first.
    pub fn open(configured: Option<&Path>) -> Result<CgroupRoot, RootError> {
        let Some(path) = configured else {
            let mounts = fs::read(MOUNTINFO).map_err(|source| RootError::Mounts { source })?;
            return best_of(cgroup2_mounts(&mounts), probe).ok_or(RootError::NotMounted);
        };
        let unreadable =
            |source: io::Error| RootError::Unreadable { path: path.to_owned(), source };
        let root = CgroupRoot::over_any_folder(path).map_err(unreadable)?;
        if is_cgroup2(path).map_err(unreadable)? {
            return Ok(root);
        }
        let mounts = fs::read(MOUNTINFO).unwrap_or_default();
        let found = best_of(cgroup2_mounts(&mounts), probe).map(|root| root.path);
        Err(RootError::NotCgroup2 { path: path.to_owned(), found })
    }

    /// A folder of any file system as if it was a hierarchy, so that a tree can be read without a
    /// kernel that has it.
    pub fn over_any_folder(path: &Path) -> io::Result<CgroupRoot> {
        // Not resolved: `/proc/1/root/sys/fs/cgroup` is another folder once its links are read as text.
        let path = std::path::absolute(path)?;
        let id = inode_of(&path)?;
        Ok(CgroupRoot { path, id })
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Id of the cgroup at the mount point.
    pub fn id(&self) -> CgroupId {
        self.id
    }

    /// Whether this is the machine's whole hierarchy, and not a part of it that a cgroup namespace or a
    /// bind mount shows.
    pub fn is_whole(&self) -> bool {
        self.id == MACHINE_ROOT
    }

    /// Id of the cgroup at a path.
    pub fn id_of(&self, cgroup_path: &[u8]) -> io::Result<CgroupId> {
        inode_of(&self.folder(cgroup_path))
    }

    /// Path of the cgroup with this id, or None where there is none. Reads the tree until it is found.
    pub fn path_of(&self, id: CgroupId) -> io::Result<Option<Vec<u8>>> {
        if id == self.id {
            return Ok(Some(Vec::new()));
        }
        let mut folders = vec![(Vec::new(), self.id)];
        while let Some((path, folder)) = folders.pop() {
            let children = match self.children(&path, folder) {
                Ok(children) => children,
                // Only the root itself has to be readable: the rest comes and goes.
                Err(error) if path.is_empty() => return Err(error),
                Err(_) => continue,
            };
            for child in children {
                let path = join(&path, &child.name);
                if child.id == id {
                    return Ok(Some(path));
                }
                folders.push((path, child.id));
            }
        }
        Ok(None)
    }

    /// The cgroups directly below the one with this path and id, by name. `NotFound` if that one is
    /// gone, also if another one has its path by now.
    pub(crate) fn children(&self, cgroup_path: &[u8], id: CgroupId) -> io::Result<Vec<Child>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(self.folder(cgroup_path), flags, Mode::empty())?;
        if rustix::fs::fstat(&folder)?.st_ino != id.0 {
            return Err(Errno::NOENT.into());
        }
        let mut children = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let entry = match entry {
                Ok(entry) => entry,
                // What a folder that was removed after it was opened says.
                Err(Errno::NOENT | Errno::NODEV) => return Err(Errno::NOENT.into()),
                Err(error) => return Err(error.into()),
            };
            let name = entry.file_name().to_bytes();
            let may_be_folder =
                matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
            if !may_be_folder || name == b"." || name == b".." {
                continue;
            }
            // The entry's own inode number is not that of the folder on every file system.
            match rustix::fs::statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    children.push(Child { name: name.to_vec(), id: CgroupId(stat.st_ino) });
                }
                Ok(_) | Err(Errno::NOENT | Errno::NODEV) => {}
                Err(error) => return Err(error.into()),
            }
        }
        children.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(children)
    }

    fn folder(&self, cgroup_path: &[u8]) -> PathBuf {
        let mut folder = self.path.as_os_str().to_owned();
        folder.push(OsStr::from_bytes(cgroup_path));
        PathBuf::from(folder)
    }
}

/// Path of a cgroup by its parent's path and its name.
pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    [parent, b"/", name].concat()
}

/// A path's parent and its last component. None for the root.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    Some((&path[..slash], &path[slash + 1..]))
}

fn inode_of(path: &Path) -> io::Result<CgroupId> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Errno::NOTDIR.into());
    }
    Ok(CgroupId(stat.st_ino))
}

fn is_cgroup2(path: &Path) -> io::Result<bool> {
    Ok(rustix::fs::statfs(path)?.f_type as u64 == CGROUP2_MAGIC)
}

/// The hierarchy at a mount point, unless something else is mounted over it or it cannot be read.
fn probe(path: &Path) -> Option<CgroupRoot> {
    let root = CgroupRoot::over_any_folder(path).ok()?;
    is_cgroup2(path).is_ok_and(|is| is).then_some(root)
}

/// A mount of the type cgroup2.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    /// How many levels its root stands above the reader's own root; negative below. Inside a cgroup
    /// namespace the kernel writes a root above as `/../..` (`cgroup_show_path`, Linux 4.6).
    levels_up: i64,
}

fn best_of(mounts: Vec<Mount>, probe: impl Fn(&Path) -> Option<CgroupRoot>) -> Option<CgroupRoot> {
    let place = |path: &Path| {
        USUAL.iter().position(|usual| path == Path::new(usual)).unwrap_or(USUAL.len())
    };
    mounts
        .iter()
        .filter_map(|mount| Some((mount.levels_up, probe(&mount.point)?)))
        .min_by_key(|(levels_up, root)| (!root.is_whole(), Reverse(*levels_up), place(&root.path)))
        .map(|(_, root)| root)
}

/// The mounts of the type cgroup2 in a `mountinfo` (see proc_pid_mountinfo(5)).
///
/// Read as bytes: one mount point that is not UTF-8, which any container can make, must not hide the
/// others.
fn cgroup2_mounts(mountinfo: &[u8]) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else {
            continue;
        };
        // Any number of optional fields, a hyphen, then the type.
        if fields.skip_while(|field| *field != b"-").nth(1) != Some(b"cgroup2") {
            continue;
        }
        let level = |component: &[u8]| match component {
            b"" => 0,
            b".." => 1,
            _ => -1,
        };
        mounts.push(Mount {
            point: PathBuf::from(OsString::from_vec(unescape(point))),
            levels_up: root.split(|byte| *byte == b'/').map(level).sum(),
        });
    }
    mounts
}

/// Undoes the `\040` of space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        plain.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURE: &str = "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw shared:1 master:2 - cgroup2 cgroup2 rw\n";
    const SIDECAR: &str = "600 599 0:30 /../../.. /host/cgroup ro - cgroup2 cgroup2 rw\n\
        601 599 0:30 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n";

    fn chosen(mountinfo: &str, whole: &[&str]) -> Option<PathBuf> {
        let probe = |path: &Path| {
            let is_whole = whole.iter().any(|whole| path == Path::new(whole));
            let id = if is_whole { MACHINE_ROOT } else { CgroupId(4711) };
            Some(CgroupRoot { path: path.to_owned(), id })
        };
        best_of(cgroup2_mounts(mountinfo.as_bytes()), probe).map(|root| root.path)
    }

    #[test]
    fn the_pure_and_the_hybrid_layout_are_found() {
        assert_eq!(chosen(PURE, &["/sys/fs/cgroup"]), Some("/sys/fs/cgroup".into()));
        assert_eq!(
            chosen(HYBRID, &["/sys/fs/cgroup/unified"]),
            Some("/sys/fs/cgroup/unified".into())
        );
    }

    #[test]
    fn the_whole_hierarchy_goes_before_the_usual_place() {
        assert_eq!(chosen(SIDECAR, &["/host/cgroup"]), Some("/host/cgroup".into()));
        let beside = SIDECAR.replace("/../../..", "/");
        assert_eq!(chosen(&beside, &["/host/cgroup"]), Some("/host/cgroup".into()));
        assert_eq!(chosen(&beside, &[]), Some("/sys/fs/cgroup".into()));
    }

    #[test]
    fn without_the_whole_the_mount_that_reaches_farthest_up_is_taken() {
        // Inside a node that is itself a container, nobody sees the whole.
        assert_eq!(chosen(SIDECAR, &[]), Some("/host/cgroup".into()));
        let below =
            PURE.replace("0:30 / ", "0:30 /kubepods ") + &PURE.replace("/sys/fs/cgroup", "/c");
        assert_eq!(chosen(&below, &[]), Some("/c".into()));
    }

    #[test]
    fn a_mount_that_is_hidden_by_another_is_passed_over() {
        assert_eq!(best_of(cgroup2_mounts(SIDECAR.as_bytes()), |_| None), None);
    }

    #[test]
    fn no_cgroup2_in_the_list_is_none() {
        assert_eq!(chosen("35 31 0:32 / /c rw - cgroup cgroup rw\n\nnonsense\n", &[]), None);
    }

    #[test]
    fn mount_points_are_bytes_and_unescaped() {
        let line =
            b"1 1 0:1 / /a\\040b\\134c\xff rw - cgroup2 x rw\n1 1 0:1 / /d\\09 rw - cgroup2 x rw";
        let mounts = cgroup2_mounts(line);
        assert_eq!(mounts[0].point.as_os_str().as_bytes(), b"/a b\\c\xff");
        assert_eq!(mounts[1].point.as_os_str().as_bytes(), b"/d\\09");
    }

    #[test]
    fn a_missing_root_is_named() {
        let error = CgroupRoot::open(Some(Path::new("/nowhere/at/all"))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("\"/nowhere/at/all\"") && text.contains("leave it out"), "{text}");
        assert!(matches!(error, RootError::Unreadable { .. }));
    }

    #[test]
    fn a_root_of_another_file_system_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = CgroupRoot::open(Some(folder.path())).unwrap_err();
        assert!(matches!(error, RootError::NotCgroup2 { .. }), "{error}");
        assert!(error.to_string().contains("is not a cgroup v2 hierarchy"), "{error}");
    }

    #[test]
    fn a_file_is_no_root() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = CgroupRoot::open(Some(file.path())).unwrap_err();
        assert!(matches!(error, RootError::Unreadable { .. }), "{error}");
    }

    #[test]
    fn the_tree_is_read_by_path_and_by_id() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("b").join(OsStr::from_bytes(b"odd\xff\nname"));
        fs::create_dir_all(&odd).unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("cgroup.procs"), "1").unwrap();
        std::os::unix::fs::symlink("a", folder.path().join("link")).unwrap();
        let root = CgroupRoot::over_any_folder(folder.path()).unwrap();

        let names: Vec<_> =
            root.children(b"", root.id()).unwrap().into_iter().map(|child| child.name).collect();
        assert_eq!(names, [b"a".to_vec(), b"b".to_vec()]);
        let id = root.id_of(b"/b/odd\xff\nname").unwrap();
        assert_eq!(root.path_of(id).unwrap().unwrap(), b"/b/odd\xff\nname");
        assert_eq!(root.path_of(root.id()).unwrap().unwrap(), b"");
        assert_eq!(root.path_of(CgroupId(u64::MAX)).unwrap(), None);
        assert_eq!(root.id_of(b"/c").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn another_cgroup_at_the_path_has_no_children_to_show() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        let root = CgroupRoot::over_any_folder(folder.path()).unwrap();
        let error = root.children(b"/a", CgroupId(u64::MAX)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn paths_split_and_join() {
        assert_eq!(split(b"/a/b"), Some((&b"/a"[..], &b"b"[..])));
        assert_eq!(split(b"/a"), Some((&b""[..], &b"a"[..])));
        assert_eq!(split(b""), None);
        assert_eq!(join(b"", b"a"), b"/a");
    }
}

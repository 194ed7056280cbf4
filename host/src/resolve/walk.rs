//! From a path to the file that it leads to, below the root of a mount namespace that is not our own.
//!
//! Takes a handle of that root and a path; gives the path without symbolic links, which file it is, and
//! the links that were crossed. Opens nothing but handles (`O_PATH`), so a FIFO, a device or an automount
//! point never makes it wait, and never leaves the root: every step is taken by one name in one folder, or
//! by the kernel's own `openat2` inside the root (Linux 5.6).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fstatfs, openat, openat2,
    readlinkat, statx,
};
use rustix::io::Errno;

/// How many links one path may cross: `MAXSYMLINKS` of `include/linux/namei.h`, the same since Linux 2.4.
const LINKS_AT_MOST: usize = 40;
/// Magic number of procfs. Its links depend on who follows them.
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// Where a walk ended.
#[derive(Debug)]
pub(super) struct Found {
    /// The path from the root of the mount namespace, without symbolic links.
    pub(super) path: Vec<u8>,
    /// A handle of the file.
    pub(super) file: OwnedFd,
    /// What the file is.
    pub(super) node: Node,
    /// The links on the way, in their order.
    pub(super) links: Vec<Crossed>,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Device, as `MKDEV` packs it.
    pub(super) device: u32,
    pub(super) inode: u64,
    /// The kernel's id of the mount.
    pub(super) mount: u32,
    pub(super) kind: FileType,
}

/// A symbolic link that was crossed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Crossed {
    /// Its own path, without symbolic links.
    pub(super) link: Vec<u8>,
    /// What it says.
    pub(super) target: Vec<u8>,
}

/// Why a walk ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The kernel refused a step: there is nothing of that name (any more), or it is not allowed.
    Refused(Errno),
    /// More links than a path may cross.
    Links,
    /// A link of procfs: where it leads depends on who follows it.
    Pseudo,
    /// The way enters a mount whose server may answer late or never.
    Slow,
}

impl Stopped {
    /// Of a walk that could not begin.
    pub(super) fn lost() -> Stopped {
        Stopped { why: Why::Refused(Errno::SRCH), links: Vec::new() }
    }

    /// Whether it ended where the path leads into procfs.
    pub(super) fn at_pseudo(&self) -> bool {
        self.why == Why::Pseudo
    }
}

/// A walk that ended before its end, with the links up to there.
#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) why: Why,
    pub(super) links: Vec<Crossed>,
}

/// Where a walk goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route<'a> {
    /// The root of the process inside the mount namespace: `/`, or what it changed it to. Absolute links
    /// start there, and `..` does not leave it.
    pub(super) chroot: &'a [u8],
    /// An absolute path, from the root of the mount namespace.
    pub(super) path: &'a [u8],
    /// Whether a symbolic link that the path itself names is followed.
    pub(super) follow: bool,
}

/// Walks. `may_enter` says of the id of a mount whether its files can be looked up without waiting for
/// anybody; without it every mount can.
pub(super) fn walk(
    root: BorrowedFd<'_>,
    route: Route<'_>,
    may_enter: Option<&mut dyn FnMut(u32) -> bool>,
) -> Result<Found, Stopped> {
    if may_enter.is_none()
        && let Some(found) = straight(root, route)
    {
        return Ok(found);
    }
    let mut walk = Walk { root, chroot: trimmed(route.chroot), links: Vec::new() };
    match walk.go(route, may_enter) {
        Ok((path, file, node)) => Ok(Found { path, file, node, links: walk.links }),
        Err(why) => Err(Stopped { why, links: walk.links }),
    }
}

/// One step for the whole path, which works where no link is on the way.
fn straight(root: BorrowedFd<'_>, route: Route<'_>) -> Option<Found> {
    let mut path = Vec::with_capacity(route.path.len());
    for name in route.path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            // Above the root that the process has, it means something else than its text.
            b".." => return None,
            name => {
                path.push(b'/');
                path.extend_from_slice(name);
            }
        }
    }
    let file = open_inside(root, &path).ok()?;
    let node = node_of(file.as_fd()).ok()?;
    let needs_more = ends_as_folder(route.path) && node.kind != FileType::Directory;
    if needs_more || (node.kind == FileType::Symlink && route.follow) {
        return None;
    }
    if path.is_empty() {
        path.push(b'/');
    }
    Some(Found { path, file, node, links: Vec::new() })
}

/// Whether a path's text demands a folder.
fn ends_as_folder(path: &[u8]) -> bool {
    matches!(path.rsplit(|byte| *byte == b'/').next(), Some(b"" | b"." | b".."))
}

/// Opens a handle of a path without links. An empty path is the root.
fn open_inside(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let relative = path.strip_prefix(b"/").unwrap_or(path);
    let relative = if relative.is_empty() { b"." } else { relative };
    openat2(
        root,
        relative,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

/// What a handle is of, without asking a server.
pub(super) fn node_of(file: BorrowedFd<'_>) -> Result<Node, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let facts = statx(file, c"", flags, StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID)?;
    Ok(Node {
        device: facts.stx_dev_major << 20 | facts.stx_dev_minor,
        inode: facts.stx_ino,
        mount: facts.stx_mnt_id as u32,
        kind: FileType::from_raw_mode(facts.stx_mode.into()),
    })
}

/// A path without a `/` at its end; the root is empty.
fn trimmed(path: &[u8]) -> &[u8] {
    let mut path = path;
    while let Some(shorter) = path.strip_suffix(b"/") {
        path = shorter;
    }
    path
}

/// A walk name by name.
struct Walk<'a> {
    root: BorrowedFd<'a>,
    /// Without a `/` at its end.
    chroot: &'a [u8],
    links: Vec<Crossed>,
}

impl Walk<'_> {
    fn go(
        &mut self,
        route: Route<'_>,
        mut may_enter: Option<&mut dyn FnMut(u32) -> bool>,
    ) -> Result<(Vec<u8>, OwnedFd, Node), Why> {
        // The names that are left, the next one last.
        let mut left: Vec<Vec<u8>> = Vec::new();
        let mut path = Vec::new();
        let rest = match route.path.strip_prefix(self.chroot) {
            Some(rest) if rest.is_empty() || rest.starts_with(b"/") => {
                path.extend_from_slice(self.chroot);
                rest
            }
            // It started outside of its root, by a folder that was opened before.
            _ => route.path,
        };
        push_names(&mut left, rest);
        let mut last_is_followed = route.follow || ends_as_folder(rest);
        let mut here = open_inside(self.root, &path).map_err(Why::Refused)?;
        let mut node = node_of(here.as_fd()).map_err(Why::Refused)?;
        while let Some(name) = left.pop() {
            if node.kind != FileType::Directory {
                return Err(Why::Refused(Errno::NOTDIR));
            }
            if name == b".." {
                // A folder above is reached from the root again: it is where the path says, while the
                // folder itself may have been moved meanwhile.
                if path != self.chroot {
                    let above = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                    path.truncate(above);
                }
                here = open_inside(self.root, &path).map_err(Why::Refused)?;
                node = node_of(here.as_fd()).map_err(Why::Refused)?;
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next =
                openat(&here, name.as_slice(), flags, Mode::empty()).map_err(Why::Refused)?;
            let next_node = node_of(next.as_fd()).map_err(Why::Refused)?;
            if next_node.mount != node.mount
                && let Some(may_enter) = &mut may_enter
                && !may_enter(next_node.mount)
            {
                return Err(Why::Slow);
            }
            if next_node.kind == FileType::Symlink && (!left.is_empty() || last_is_followed) {
                let target = self.cross(&path, &name, next.as_fd())?;
                if target.starts_with(b"/") {
                    path.clear();
                    path.extend_from_slice(self.chroot);
                    here = open_inside(self.root, &path).map_err(Why::Refused)?;
                    node = node_of(here.as_fd()).map_err(Why::Refused)?;
                }
                last_is_followed |= left.is_empty() && ends_as_folder(&target);
                push_names(&mut left, &target);
                continue;
            }
            path.push(b'/');
            path.extend_from_slice(&name);
            (here, node) = (next, next_node);
        }
        if ends_as_folder(rest) && node.kind != FileType::Directory {
            return Err(Why::Refused(Errno::NOTDIR));
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Ok((path, here, node))
    }

    /// Reads the link `name` of the folder `path` and remembers it.
    fn cross(&mut self, path: &[u8], name: &[u8], link: BorrowedFd<'_>) -> Result<Vec<u8>, Why> {
        if self.links.len() >= LINKS_AT_MOST {
            return Err(Why::Links);
        }
        let file_system = fstatfs(link).map_err(Why::Refused)?;
        if file_system.f_type as u64 == PROC_SUPER_MAGIC {
            return Err(Why::Pseudo);
        }
        let target = readlinkat(link, c"", Vec::new()).map_err(Why::Refused)?.into_bytes();
        self.links.push(Crossed { link: [path, b"/", name].concat(), target: target.clone() });
        Ok(target)
    }
}

/// Puts the names of a path on the stack of those that are left, so that its first comes next.
fn push_names(left: &mut Vec<Vec<u8>>, path: &[u8]) {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    let at = left.len();
    left.extend(names.map(<[u8]>::to_vec));
    left[at..].reverse();
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rustix::fs::{CWD, mkfifoat};
    use tempfile::TempDir;

    use super::*;

    /// A tree with a `/lib` that leads to `/usr/lib`, as Debian has it.
    fn tree() -> TempDir {
        let tree = tempfile::tempdir().unwrap();
        let at = |path: &str| tree.path().join(path);
        for folder in ["usr/lib/deep", "etc", "jail/etc", "jail/sub"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for file in ["usr/lib/libc.so.6.1", "etc/hosts", "jail/etc/hosts", "jail/sub/x"] {
            fs::write(at(file), "").unwrap();
        }
        for (link, target) in [
            ("lib", "usr/lib"),
            ("usr/lib/libc.so.6", "libc.so.6.1"),
            ("etc/absolute", "/usr/lib/deep"),
            ("etc/up", "../../../../lib"),
            ("etc/slash", "/lib/"),
            ("jail/sub/absolute", "/etc/hosts"),
            ("jail/sub/up", "../../../etc"),
            ("loop", "loop"),
            ("nowhere", "not/there"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        mkfifoat(CWD, at("fifo"), Mode::from_raw_mode(0o644)).unwrap();
        tree
    }

    fn handle(path: &Path) -> OwnedFd {
        openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    type Links = Vec<(String, String)>;

    fn outcome(tree: &TempDir, route: Route<'_>) -> (Result<String, Why>, Links) {
        let root = handle(tree.path());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pairs = |links: &[Crossed]| {
            links.iter().map(|crossed| (text(&crossed.link), text(&crossed.target))).collect()
        };
        match walk(root.as_fd(), route, None) {
            Ok(found) => {
                let outside = tree.path().join(text(&found.path[1..]));
                assert_eq!(found.node, node_of(handle_of(&outside).as_fd()).unwrap());
                (Ok(text(&found.path)), pairs(&found.links))
            }
            Err(stopped) => (Err(stopped.why), pairs(&stopped.links)),
        }
    }

    fn handle_of(path: &Path) -> OwnedFd {
        openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[track_caller]
    fn check(chroot: &str, path: &str, follow: bool, expected: &str, links: &[(&str, &str)]) {
        let tree = tree();
        let route = Route { chroot: chroot.as_bytes(), path: path.as_bytes(), follow };
        let (found, crossed) = outcome(&tree, route);
        assert_eq!(found.as_deref(), Ok(expected), "{path}");
        let crossed: Vec<_> =
            crossed.iter().map(|(link, target)| (link.as_str(), target.as_str())).collect();
        assert_eq!(crossed, links, "{path}");
    }

    #[test]
    fn a_path_without_links_is_itself() {
        check("/", "/etc/hosts", true, "/etc/hosts", &[]);
        check("/", "//etc/./hosts", true, "/etc/hosts", &[]);
        check("/", "/etc/", true, "/etc", &[]);
        check("/", "/", true, "/", &[]);
        check("/", "/etc/../usr/lib", true, "/usr/lib", &[]);
        check("/", "/../../etc/hosts", true, "/etc/hosts", &[]);
        check("/", "/fifo", true, "/fifo", &[]);
    }

    #[test]
    fn links_are_followed_and_told_in_their_order() {
        let lib = ("/lib", "usr/lib");
        let libc = ("/usr/lib/libc.so.6", "libc.so.6.1");
        check("/", "/lib/libc.so.6", true, "/usr/lib/libc.so.6.1", &[lib, libc]);
        check("/", "/lib/libc.so.6", false, "/usr/lib/libc.so.6", &[lib]);
        check("/", "/etc/absolute", true, "/usr/lib/deep", &[("/etc/absolute", "/usr/lib/deep")]);
        check("/", "/etc/up/deep", true, "/usr/lib/deep", &[("/etc/up", "../../../../lib"), lib]);
        check(
            "/",
            "/etc/absolute/../libc.so.6.1",
            true,
            "/usr/lib/libc.so.6.1",
            &[("/etc/absolute", "/usr/lib/deep")],
        );
    }

    #[test]
    fn a_link_at_the_end_is_followed_where_a_folder_is_asked_for() {
        check("/", "/lib", false, "/lib", &[]);
        check("/", "/lib/", false, "/usr/lib", &[("/lib", "usr/lib")]);
        let chain = [("/etc/slash", "/lib/"), ("/lib", "usr/lib")];
        check("/", "/etc/slash", true, "/usr/lib", &chain);
    }

    #[test]
    fn a_process_in_a_root_of_its_own_does_not_leave_it() {
        let absolute = ("/jail/sub/absolute", "/etc/hosts");
        check("/jail", "/jail/sub/absolute", true, "/jail/etc/hosts", &[absolute]);
        check(
            "/jail/",
            "/jail/sub/up/hosts",
            true,
            "/jail/etc/hosts",
            &[("/jail/sub/up", "../../../etc")],
        );
        check("/jail", "/jail/../../sub/x", true, "/jail/sub/x", &[]);
        // Outside of it by a folder that it had opened before.
        check("/jail", "/etc/hosts", true, "/etc/hosts", &[]);
    }

    #[test]
    fn what_leads_nowhere_stops_with_its_reason() {
        let tree = tree();
        let why = |path: &str| {
            let route = Route { chroot: b"/", path: path.as_bytes(), follow: true };
            outcome(&tree, route).0.unwrap_err()
        };
        assert_eq!(why("/loop"), Why::Links);
        assert_eq!(why("/nowhere"), Why::Refused(Errno::NOENT));
        assert_eq!(why("/etc/hosts/x"), Why::Refused(Errno::NOTDIR));
        assert_eq!(why("/etc/hosts/"), Why::Refused(Errno::NOTDIR));
        assert_eq!(why("/etc/hosts/.."), Why::Refused(Errno::NOTDIR));
    }

    #[test]
    fn links_of_procfs_are_not_followed_and_those_before_are_told() {
        let root = handle(Path::new("/"));
        let folder = tempfile::tempdir().unwrap();
        symlink("/proc/self/mounts", folder.path().join("mtab")).unwrap();
        let path = fs::canonicalize(folder.path()).unwrap().join("mtab");
        let route = Route { chroot: b"/", path: path.as_os_str().as_bytes(), follow: true };
        let stopped = walk(root.as_fd(), route, None).unwrap_err();
        assert_eq!(stopped.why, Why::Pseudo);
        assert_eq!(stopped.links.len(), 1);
        assert_eq!(stopped.links[0].target, b"/proc/self/mounts");
    }

    #[test]
    fn a_mount_that_may_not_be_entered_is_not() {
        let root = handle(Path::new("/"));
        let route = Route { chroot: b"/", path: b"/proc/version", follow: true };
        let mut asked = 0;
        let mut refuse = |_| {
            asked += 1;
            false
        };
        let stopped = walk(root.as_fd(), route, Some(&mut refuse)).unwrap_err();
        assert_eq!((stopped.why, asked), (Why::Slow, 1));
        assert!(walk(root.as_fd(), route, Some(&mut |_| true)).is_ok());
    }

    #[test]
    fn a_path_longer_than_a_call_takes_is_walked() {
        let tree = tree();
        let name = "n".repeat(200);
        let mut here = handle(tree.path());
        let mut path = String::new();
        for _ in 0..30 {
            rustix::fs::mkdirat(&here, &*name, Mode::from_raw_mode(0o755)).unwrap();
            here = openat(&here, &*name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
            path += &format!("/{name}");
        }
        let root = handle(tree.path());
        let route = Route { chroot: b"/", path: path.as_bytes(), follow: true };
        let found = walk(root.as_fd(), route, None).unwrap();
        assert_eq!(found.path, path.as_bytes());
        assert_eq!(found.node, node_of(here.as_fd()).unwrap());
    }
}

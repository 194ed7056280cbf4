//! The system calls that name files, and how each leads to one: the table that the kernel programs
//! look calls up in.
//!
//! Owns the numbers of three tables of system calls: x86_64 (`arch/x86/entry/syscalls/syscall_64.tbl`),
//! ia32 (`syscall_32.tbl` beside it) and the generic one, which aarch64 has
//! (`scripts/syscall.tbl`, Linux 6.17). A number, once given to a call, is never given to another.

use whodunit_ebpf::{CALLS, Road, Roads, argument, follow, operation, reached};

/// A system call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its name, as in the kernel's tables.
    pub name: &'static str,
    x86_64: Option<u16>,
    ia32: Option<u16>,
    aarch64: Option<u16>,
    road: Road,
}

impl Call {
    /// What it does to a file: one of [`operation`].
    pub fn operation(&self) -> u16 {
        u16::from(self.road.operation) - 1
    }

    /// Whether the kernel has resolved the path by the time that the call is over, if it worked.
    pub fn is_resolved(&self) -> bool {
        !matches!(self.road.reached, reached::NOTHING | reached::FAILURE)
    }

    /// Its number among the 32-bit calls of x86_64.
    pub fn ia32(&self) -> Option<u16> {
        self.ia32
    }

    /// Its number among the calls of x86_64.
    pub fn x86_64(&self) -> Option<u16> {
        self.x86_64
    }
}

/// The table for the kernel programs of this architecture.
pub(crate) fn roads() -> Roads {
    let mut roads = Roads { native: [Road::default(); CALLS], compat: [Road::default(); CALLS] };
    let mut put = |number: Option<u16>, of: fn(&mut Roads) -> &mut [Road; CALLS], road| {
        if let Some(slot) = number.and_then(|number| of(&mut roads).get_mut(usize::from(number))) {
            *slot = road;
        }
    };
    for call in CALLS_OF_FILES {
        if cfg!(target_arch = "x86_64") {
            put(call.x86_64, |roads| &mut roads.native, call.road);
            put(call.ia32, |roads| &mut roads.compat, call.road);
        } else if cfg!(target_arch = "aarch64") {
            put(call.aarch64, |roads| &mut roads.native, call.road);
        }
    }
    roads
}

const NONE: u8 = argument::NONE;

/// A call whose path is argument `path`, starting at the descriptor in argument `folder`.
const fn at(operation: u16, folder: u8, path: u8) -> Road {
    Road {
        operation: operation as u8 + 1,
        reached: reached::NOTHING,
        path,
        folder,
        second_path: NONE,
        second_folder: NONE,
        flags: NONE,
        follow: follow::ALWAYS,
    }
}

/// A call whose first argument is a path.
const fn path(operation: u16) -> Road {
    at(operation, argument::WORKING_DIRECTORY, 0)
}

const fn unlinked(road: Road) -> Road {
    Road { follow: follow::NEVER, ..road }
}

const fn reaching(reached: u8, road: Road) -> Road {
    Road { reached, ..road }
}

const fn to(second_folder: u8, second_path: u8, road: Road) -> Road {
    Road { second_folder, second_path, ..road }
}

const fn by_flags(rule: u8, flags: u8, road: Road) -> Road {
    Road { follow: rule, flags, ..road }
}

/// Every call. What is named like none of the kernel's is one whose arguments differ between the tables.
pub const CALLS_OF_FILES: &[Call] = &[
    call(
        "open",
        Some(2),
        Some(5),
        None,
        by_flags(follow::OPEN, 1, reaching(reached::RESULT, path(operation::OPEN))),
    ),
    call("creat", Some(85), Some(8), None, reaching(reached::RESULT, path(operation::OPEN))),
    call(
        "openat",
        Some(257),
        Some(295),
        Some(56),
        by_flags(follow::OPEN, 2, reaching(reached::RESULT, at(operation::OPEN, 0, 1))),
    ),
    call(
        "openat2",
        Some(437),
        Some(437),
        Some(437),
        by_flags(follow::OPEN_HOW, 2, reaching(reached::RESULT, at(operation::OPEN, 0, 1))),
    ),
    call(
        "open_by_handle_at",
        Some(304),
        Some(342),
        Some(265),
        reaching(reached::RESULT, at(operation::OPEN, 0, NONE)),
    ),
    call(
        "execve",
        Some(59),
        Some(11),
        Some(221),
        reaching(reached::FAILURE, path(operation::EXEC)),
    ),
    call(
        "execveat",
        Some(322),
        Some(358),
        Some(281),
        by_flags(follow::UNLESS_AT, 4, reaching(reached::FAILURE, at(operation::EXEC, 0, 1))),
    ),
    call("stat", Some(4), Some(106), None, path(operation::STAT)),
    call("lstat", Some(6), Some(107), None, unlinked(path(operation::STAT))),
    call("oldstat", None, Some(18), None, path(operation::STAT)),
    call("oldlstat", None, Some(84), None, unlinked(path(operation::STAT))),
    call("stat64", None, Some(195), None, path(operation::STAT)),
    call("lstat64", None, Some(196), None, unlinked(path(operation::STAT))),
    call(
        "newfstatat",
        Some(262),
        None,
        Some(79),
        by_flags(follow::UNLESS_AT, 3, at(operation::STAT, 0, 1)),
    ),
    call(
        "fstatat64",
        None,
        Some(300),
        None,
        by_flags(follow::UNLESS_AT, 3, at(operation::STAT, 0, 1)),
    ),
    call(
        "statx",
        Some(332),
        Some(383),
        Some(291),
        by_flags(follow::UNLESS_AT, 2, at(operation::STAT, 0, 1)),
    ),
    call("access", Some(21), Some(33), None, path(operation::ACCESS)),
    call("faccessat", Some(269), Some(307), Some(48), at(operation::ACCESS, 0, 1)),
    call(
        "faccessat2",
        Some(439),
        Some(439),
        Some(439),
        by_flags(follow::UNLESS_AT, 3, at(operation::ACCESS, 0, 1)),
    ),
    call("readlink", Some(89), Some(85), None, unlinked(path(operation::READLINK))),
    call("readlinkat", Some(267), Some(305), Some(78), unlinked(at(operation::READLINK, 0, 1))),
    call(
        "chdir",
        Some(80),
        Some(12),
        Some(49),
        reaching(reached::WORKING_DIRECTORY, path(operation::CHDIR)),
    ),
    call(
        "fchdir",
        Some(81),
        Some(133),
        Some(50),
        reaching(reached::DESCRIPTOR, at(operation::CHDIR, 0, NONE)),
    ),
    call("chroot", Some(161), Some(61), Some(51), reaching(reached::ROOT, path(operation::CHDIR))),
    call(
        "getdents",
        Some(78),
        Some(141),
        None,
        reaching(reached::DESCRIPTOR, at(operation::LIST, 0, NONE)),
    ),
    call(
        "getdents64",
        Some(217),
        Some(220),
        Some(61),
        reaching(reached::DESCRIPTOR, at(operation::LIST, 0, NONE)),
    ),
    call(
        "readdir",
        None,
        Some(89),
        None,
        reaching(reached::DESCRIPTOR, at(operation::LIST, 0, NONE)),
    ),
    call(
        "mmap",
        Some(9),
        None,
        Some(222),
        by_flags(follow::ALWAYS, 3, reaching(reached::MAPPING, at(operation::MAP, 4, NONE))),
    ),
    call(
        "mmap2",
        None,
        Some(192),
        None,
        by_flags(follow::ALWAYS, 3, reaching(reached::MAPPING, at(operation::MAP, 4, NONE))),
    ),
    call("truncate", Some(76), Some(92), Some(45), path(operation::TRUNCATE)),
    call("truncate64", None, Some(193), None, path(operation::TRUNCATE)),
    call(
        "rename",
        Some(82),
        Some(38),
        None,
        unlinked(to(argument::WORKING_DIRECTORY, 1, path(operation::RENAME))),
    ),
    call(
        "renameat",
        Some(264),
        Some(302),
        Some(38),
        unlinked(to(2, 3, at(operation::RENAME, 0, 1))),
    ),
    call(
        "renameat2",
        Some(316),
        Some(353),
        Some(276),
        unlinked(to(2, 3, at(operation::RENAME, 0, 1))),
    ),
    call(
        "link",
        Some(86),
        Some(9),
        None,
        unlinked(to(argument::WORKING_DIRECTORY, 1, path(operation::LINK))),
    ),
    call(
        "linkat",
        Some(265),
        Some(303),
        Some(37),
        by_flags(follow::IF_AT, 4, to(2, 3, at(operation::LINK, 0, 1))),
    ),
    call("unlink", Some(87), Some(10), None, unlinked(path(operation::UNLINK))),
    call("unlinkat", Some(263), Some(301), Some(35), unlinked(at(operation::UNLINK, 0, 1))),
    call("rmdir", Some(84), Some(40), None, unlinked(path(operation::UNLINK))),
    call("mkdir", Some(83), Some(39), None, unlinked(path(operation::MAKE))),
    call("mkdirat", Some(258), Some(296), Some(34), unlinked(at(operation::MAKE, 0, 1))),
    call("mknod", Some(133), Some(14), None, unlinked(path(operation::MAKE))),
    call("mknodat", Some(259), Some(297), Some(33), unlinked(at(operation::MAKE, 0, 1))),
    call(
        "symlink",
        Some(88),
        Some(83),
        None,
        unlinked(at(operation::MAKE, argument::WORKING_DIRECTORY, 1)),
    ),
    call("symlinkat", Some(266), Some(304), Some(36), unlinked(at(operation::MAKE, 1, 2))),
    call("chmod", Some(90), Some(15), None, path(operation::ATTRIBUTES)),
    call("fchmodat", Some(268), Some(306), Some(53), at(operation::ATTRIBUTES, 0, 1)),
    call(
        "fchmodat2",
        Some(452),
        Some(452),
        Some(452),
        by_flags(follow::UNLESS_AT, 3, at(operation::ATTRIBUTES, 0, 1)),
    ),
    call("chown", Some(92), Some(182), None, path(operation::ATTRIBUTES)),
    call("chown32", None, Some(212), None, path(operation::ATTRIBUTES)),
    call("lchown", Some(94), Some(16), None, unlinked(path(operation::ATTRIBUTES))),
    call("lchown32", None, Some(198), None, unlinked(path(operation::ATTRIBUTES))),
    call(
        "fchownat",
        Some(260),
        Some(298),
        Some(54),
        by_flags(follow::UNLESS_AT, 4, at(operation::ATTRIBUTES, 0, 1)),
    ),
    call("utime", Some(132), Some(30), None, path(operation::ATTRIBUTES)),
    call("utimes", Some(235), Some(271), None, path(operation::ATTRIBUTES)),
    call("futimesat", Some(261), Some(299), None, at(operation::ATTRIBUTES, 0, 1)),
    call(
        "utimensat",
        Some(280),
        Some(320),
        Some(88),
        by_flags(follow::UNLESS_AT, 3, at(operation::ATTRIBUTES, 0, 1)),
    ),
    call(
        "utimensat_time64",
        None,
        Some(412),
        None,
        by_flags(follow::UNLESS_AT, 3, at(operation::ATTRIBUTES, 0, 1)),
    ),
    call("setxattr", Some(188), Some(226), Some(5), path(operation::ATTRIBUTES)),
    call("lsetxattr", Some(189), Some(227), Some(6), unlinked(path(operation::ATTRIBUTES))),
    call("removexattr", Some(197), Some(235), Some(14), path(operation::ATTRIBUTES)),
    call("lremovexattr", Some(198), Some(236), Some(15), unlinked(path(operation::ATTRIBUTES))),
    call(
        "setxattrat",
        Some(463),
        Some(463),
        Some(463),
        by_flags(follow::UNLESS_AT, 2, at(operation::ATTRIBUTES, 0, 1)),
    ),
    call(
        "removexattrat",
        Some(466),
        Some(466),
        Some(466),
        by_flags(follow::UNLESS_AT, 2, at(operation::ATTRIBUTES, 0, 1)),
    ),
    call(
        "file_setattr",
        Some(469),
        Some(469),
        Some(469),
        by_flags(follow::UNLESS_AT, 4, at(operation::ATTRIBUTES, 0, 1)),
    ),
    call("getxattr", Some(191), Some(229), Some(8), path(operation::OTHER_USE)),
    call("lgetxattr", Some(192), Some(230), Some(9), unlinked(path(operation::OTHER_USE))),
    call("listxattr", Some(194), Some(232), Some(11), path(operation::OTHER_USE)),
    call("llistxattr", Some(195), Some(233), Some(12), unlinked(path(operation::OTHER_USE))),
    call(
        "getxattrat",
        Some(464),
        Some(464),
        Some(464),
        by_flags(follow::UNLESS_AT, 2, at(operation::OTHER_USE, 0, 1)),
    ),
    call(
        "listxattrat",
        Some(465),
        Some(465),
        Some(465),
        by_flags(follow::UNLESS_AT, 2, at(operation::OTHER_USE, 0, 1)),
    ),
    call(
        "file_getattr",
        Some(468),
        Some(468),
        Some(468),
        by_flags(follow::UNLESS_AT, 4, at(operation::OTHER_USE, 0, 1)),
    ),
    call("statfs", Some(137), Some(99), Some(43), path(operation::OTHER_USE)),
    call("statfs64", None, Some(268), None, path(operation::OTHER_USE)),
    call(
        "name_to_handle_at",
        Some(303),
        Some(341),
        Some(264),
        by_flags(follow::IF_AT, 4, at(operation::OTHER_USE, 0, 1)),
    ),
    call(
        "inotify_add_watch",
        Some(254),
        Some(292),
        Some(27),
        by_flags(follow::INOTIFY, 2, at(operation::OTHER_USE, argument::WORKING_DIRECTORY, 1)),
    ),
    call(
        "fanotify_mark",
        Some(301),
        None,
        Some(263),
        by_flags(follow::FANOTIFY, 1, at(operation::OTHER_USE, 3, 4)),
    ),
    call(
        "fanotify_mark (32-bit)",
        None,
        Some(339),
        None,
        by_flags(follow::FANOTIFY, 1, at(operation::OTHER_USE, 4, 5)),
    ),
    call(
        "mount",
        Some(165),
        Some(21),
        Some(40),
        at(operation::OTHER_USE, argument::WORKING_DIRECTORY, 1),
    ),
    call("umount", None, Some(22), None, path(operation::OTHER_USE)),
    call(
        "umount2",
        Some(166),
        Some(52),
        Some(39),
        by_flags(follow::UNMOUNT, 1, path(operation::OTHER_USE)),
    ),
    call(
        "pivot_root",
        Some(155),
        Some(217),
        Some(41),
        to(argument::WORKING_DIRECTORY, 1, path(operation::OTHER_USE)),
    ),
    call("swapon", Some(167), Some(87), Some(224), path(operation::OTHER_USE)),
    call("swapoff", Some(168), Some(115), Some(225), path(operation::OTHER_USE)),
    call(
        "open_tree",
        Some(428),
        Some(428),
        Some(428),
        by_flags(follow::UNLESS_AT, 2, reaching(reached::RESULT, at(operation::OTHER_USE, 0, 1))),
    ),
    call(
        "open_tree_attr",
        Some(467),
        Some(467),
        Some(467),
        by_flags(follow::UNLESS_AT, 2, reaching(reached::RESULT, at(operation::OTHER_USE, 0, 1))),
    ),
    call(
        "move_mount",
        Some(429),
        Some(429),
        Some(429),
        by_flags(follow::MOVE_MOUNT, 4, to(2, 3, at(operation::OTHER_USE, 0, 1))),
    ),
    call(
        "fspick",
        Some(433),
        Some(433),
        Some(433),
        by_flags(follow::PICK, 2, at(operation::OTHER_USE, 0, 1)),
    ),
    call(
        "mount_setattr",
        Some(442),
        Some(442),
        Some(442),
        by_flags(follow::UNLESS_AT, 2, at(operation::OTHER_USE, 0, 1)),
    ),
];

const fn call(
    name: &'static str,
    x86_64: Option<u16>,
    ia32: Option<u16>,
    aarch64: Option<u16>,
    road: Road,
) -> Call {
    Call { name, x86_64, ia32, aarch64, road }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// The numbers of a header of the kernel's, by name. None where it is not installed.
    fn numbers(header: &str) -> Option<HashMap<String, u16>> {
        let text = std::fs::read_to_string(format!("/usr/include/{header}")).ok()?;
        let number = |line: &str| {
            let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
            Some((name.to_owned(), number.trim().parse().ok()?))
        };
        Some(text.lines().filter_map(number).collect())
    }

    #[track_caller]
    fn check(header: &str, of: impl Fn(&Call) -> Option<u16>) {
        let Some(known) = numbers(header) else {
            eprintln!("skipped: /usr/include/{header} is not installed");
            return;
        };
        let mut checked = 0;
        for call in CALLS_OF_FILES {
            let name = call.name.trim_end_matches(" (32-bit)");
            // A call that is newer than the header is not in it.
            if let (Some(number), Some(known)) = (of(call), known.get(name)) {
                assert_eq!(number, *known, "{name}");
                checked += 1;
            }
        }
        assert!(checked > 60, "{checked} calls");
    }

    #[test]
    fn numbers_are_those_of_the_kernel_s_headers() {
        check("x86_64-linux-gnu/asm/unistd_64.h", Call::x86_64);
        check("x86_64-linux-gnu/asm/unistd_32.h", Call::ia32);
    }

    #[test]
    fn no_number_stands_for_two_calls() {
        for of in [Call::x86_64, Call::ia32, |call: &Call| call.aarch64] {
            let mut numbers: Vec<u16> = CALLS_OF_FILES.iter().filter_map(of).collect();
            let all = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), all);
            assert!(numbers.iter().all(|number| usize::from(*number) < CALLS));
        }
    }
}

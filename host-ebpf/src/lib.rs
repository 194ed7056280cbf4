//! The layouts that the kernel programs and the daemon share: records, counters and offsets.
//!
//! Owns every byte that crosses between the two halves. A record is a fixed part, laid out here, and
//! a tail of text. Integers are in the machine's byte order: both halves run on one machine.
#![no_std]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

mod fate;

pub use fate::{
    ANCESTORS, FateSettings, MEMORY_LEVELS, PROGRAM_MAX, RawAncestor, RawDelivery, RawExit,
    RawFork, RawMemory, RawProcess, RawProgram, RawSignal, RawVictim, exit_flag, fate_kind,
    program_flag, signal_flag,
};

/// What a record is: the first two bytes of each.
pub mod record_kind {
    /// [`RawCgroup`](crate::RawCgroup): a cgroup was made.
    pub const CGROUP_MADE: u16 = 1;
    /// [`RawCgroup`](crate::RawCgroup): a cgroup was removed.
    pub const CGROUP_GONE: u16 = 2;
    /// [`RawFile`](crate::RawFile): a file was accessed.
    pub const FILE: u16 = 16;
}

/// What was done to a file: [`RawFile::operation`], and which of the counters by operation it has.
pub mod operation {
    /// `open` and its like, and io_uring's.
    pub const OPEN: u16 = 0;
    /// `execve`, `execveat`.
    pub const EXEC: u16 = 1;
    /// The `stat` family.
    pub const STAT: u16 = 2;
    /// The `access` family.
    pub const ACCESS: u16 = 3;
    /// `readlink`, `readlinkat`.
    pub const READLINK: u16 = 4;
    /// `chdir`, `fchdir`, `chroot`.
    pub const CHDIR: u16 = 5;
    /// `getdents`.
    pub const LIST: u16 = 6;
    /// `mmap` of a file.
    pub const MAP: u16 = 7;
    /// The interpreter of a `#!` script.
    pub const LOAD: u16 = 8;
    /// A symbolic link crossed; no program of the kernel tells it.
    pub const FOLLOW: u16 = 9;
    /// `truncate`.
    pub const TRUNCATE: u16 = 10;
    /// `rename` and its like.
    pub const RENAME: u16 = 11;
    /// `link`, `linkat`.
    pub const LINK: u16 = 12;
    /// `unlink`, `unlinkat`, `rmdir`.
    pub const UNLINK: u16 = 13;
    /// `mkdir`, `mknod`, `symlink` and their like.
    pub const MAKE: u16 = 14;
    /// `chmod`, `chown`, `utimensat`, `setxattr` and their like.
    pub const ATTRIBUTES: u16 = 15;
    /// `statfs`, `getxattr`, `inotify_add_watch` and their like.
    pub const OTHER_USE: u16 = 16;
    /// How many operations there are.
    pub const COUNT: usize = 17;
}

/// Properties of a file record: [`RawFile::flags`].
pub mod file_flag {
    /// The process came into the cgroup from outside and has not executed a program of it yet.
    pub const SETUP: u32 = 1 << 0;
    /// The components name the folder that the requested path starts at, not the file.
    pub const BASE: u32 = 1 << 1;
    /// There were more components than fit: the ones nearest to the root are missing.
    pub const CUT: u32 = 1 << 2;
    /// The walk ended at something that no mount of the process's namespace reaches.
    pub const DETACHED: u32 = 1 << 3;
    /// A component's name could not be read.
    pub const FAULT: u32 = 1 << 4;
    /// The name was removed from its folder, or never had one (`O_TMPFILE`).
    pub const REMOVED: u32 = 1 << 5;
    /// The call does not follow a symbolic link that the path itself names.
    pub const NO_FOLLOW: u32 = 1 << 6;
    /// The second path of a call with two.
    pub const DESTINATION: u32 = 1 << 7;
    /// A 32-bit system call.
    pub const COMPAT: u32 = 1 << 8;
    /// Done by io_uring.
    pub const IO_URING: u32 = 1 << 9;
    /// The names of the process's root are not known: as `CUT`, `DETACHED` or `FAULT`, of the root.
    pub const ROOT_LOST: u32 = 1 << 10;
    /// The record has a system call's number.
    pub const SYSCALL: u32 = 1 << 11;
    /// The requested path is longer than a call takes: only its beginning is here.
    pub const REQUEST_CUT: u32 = 1 << 12;
    /// Opened by the kernel itself, in a call that asks for no file in this way, or in none.
    pub const BY_KERNEL: u32 = 1 << 13;
    /// Every bit of here.
    pub const ALL: u32 = (1 << 14) - 1;
}

/// A cgroup was made or removed. Followed by `path_length` bytes: its path below the hierarchy's root.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawCgroup {
    /// [`record_kind::CGROUP_MADE`] or [`record_kind::CGROUP_GONE`].
    pub kind: u16,
    /// 1 where the kernel began to trace it at once, as a child of a traced or watched cgroup.
    pub traced: u16,
    /// Bytes of the path that follow, the final NUL included.
    pub path_length: u32,
    /// Nanoseconds since boot, suspended time included.
    pub time_ns: u64,
    /// Its id.
    pub cgroup: u64,
    /// Its parent's id; 0 for the root.
    pub parent: u64,
}

/// A file was accessed, or was meant to be. Followed by the requested path (`requested_length` bytes),
/// by the components of the resolved one or of the folder that a relative request starts at
/// (`components_length` bytes: each name with a final NUL, from the file up to the root of the mount
/// namespace), and, where no file was reached, by those of the process's root (`root_length` bytes; none
/// where it is the root of its mount namespace).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawFile {
    /// [`record_kind::FILE`].
    pub kind: u16,
    /// One of [`operation`].
    pub operation: u16,
    /// 0, or a negative errno.
    pub outcome: i32,
    /// Nanoseconds since boot, suspended time included.
    pub time_ns: u64,
    /// Cgroup of the process.
    pub cgroup: u64,
    /// When the process started, in nanoseconds since boot.
    pub started_ns: u64,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Bits of [`file_flag`].
    pub flags: u32,
    /// Name of the process.
    pub comm: [u8; 16],
    /// Inode number; 0 where no file was opened.
    pub inode: u64,
    /// Magic number of the file system's type.
    pub file_system: u64,
    /// Device, as `MKDEV` packs it.
    pub device: u32,
    /// Id of the mount.
    pub mount: u32,
    /// Type and permissions of the inode (`i_mode`).
    pub mode: u32,
    /// How the file was opened (`f_mode`).
    pub file_mode: u32,
    /// Bytes of the requested path; 0 where it could not be read, or was empty.
    pub requested_length: u32,
    /// Bytes of the components.
    pub components_length: u32,
    /// Bytes of the root's components.
    pub root_length: u32,
    /// Inode number of the process's mount namespace, as in `/proc/<pid>/ns/mnt`.
    pub mount_namespace: u32,
    /// Number of the system call, if `flags` has [`file_flag::SYSCALL`].
    pub syscall: u32,
    /// Fills the structure up to a multiple of eight bytes.
    pub reserved: u32,
}

/// `FMODE_WRITE` of `include/linux/fs.h`; the same since Linux 2.
pub const FMODE_WRITE: u32 = 2;

/// Numbers that are called in the programs where the loader puts functions of the kernel (`host/src/kernel/preemption.rs`). No helper
/// has one near them.
pub mod preemption {
    /// What each number of a program stands for, in this order.
    pub const FUNCTIONS: [&str; 4] = [
        "bpf_preempt_disable",
        "bpf_preempt_enable",
        "bpf_local_irq_save",
        "bpf_local_irq_restore",
    ];
    /// The numbers in the programs on tracepoints.
    pub const ON_TRACEPOINTS: [usize; 4] = [0x7e57_0001, 0x7e57_0002, 0x7e57_0003, 0x7e57_0004];
    /// The numbers in the programs on functions.
    pub const ON_FUNCTIONS: [usize; 4] = [0x7e57_0011, 0x7e57_0012, 0x7e57_0013, 0x7e57_0014];
}

/// The programs of which a second one may hang behind the first.
pub mod backup {
    /// Their names. The second one's is the name with [`SUFFIX`].
    pub const PROGRAMS: [&str; 14] = [
        "syscall_exit",
        "file_opened",
        "executed",
        "process_forked",
        "process_executed",
        "process_exited",
        "signal_generated",
        "signal_delivered",
        "oom_victim",
        "cgroup_made",
        "cgroup_gone",
        "forked",
        "attached",
        "exited",
    ];

    /// What the name of a second program ends with.
    pub const SUFFIX: &str = "_backup";

    /// How many tasks whose numbers follow each other can be between two programs at once: a power of two.
    pub const TASKS: u32 = 1 << 12;

    /// A word for each of them and each pair.
    pub const WORDS: u32 = TASKS * PROGRAMS.len() as u32;

    /// The number of a pair, by its name.
    ///
    /// # Panics
    ///
    /// Where there is none of that name, which the compiler finds out.
    pub const fn number(name: &str) -> u32 {
        let mut number = 0;
        while number < PROGRAMS.len() {
            if is_same(PROGRAMS[number].as_bytes(), name.as_bytes()) {
                return number as u32;
            }
            number += 1;
        }
        panic!("no pair of programs has this name")
    }

    const fn is_same(one: &[u8], other: &[u8]) -> bool {
        let mut at = 0;
        while at < one.len() && at < other.len() && one[at] == other[at] {
            at += 1;
        }
        at == one.len() && at == other.len()
    }
}

/// The counters of one cgroup, one set for each CPU: an array of `u64` by [`counter`] index.
pub type CgroupCounters = [u64; counter::COUNT];

/// Indices of [`CgroupCounters`].
///
/// `RECEIVED.. + SETUP + BUSY == ABSORBED + SUBMITTED + LOST_RING_FULL + THROTTLED + BUSY` at every
/// moment, over all operations.
pub mod counter {
    /// Accesses during setup, repeats included.
    pub const SETUP: usize = 0;
    /// Accesses that the kernel's dedup absorbed.
    pub const ABSORBED: usize = 1;
    /// Accesses that were sent to the daemon.
    pub const SUBMITTED: usize = 2;
    /// Accesses that found the ring full.
    pub const LOST_RING_FULL: usize = 3;
    /// Programs executed, setup left out.
    pub const EXECUTED: usize = 4;
    /// Accesses that were over the cgroup's budget while the ring was short of room.
    pub const THROTTLED: usize = 5;
    /// Accesses that came while the program was at work on this CPU for somebody else.
    pub const BUSY: usize = 6;
    /// Not a counter: the window of time that `SPENT` is about.
    pub const WINDOW: usize = 7;
    /// Not a counter: bytes of records sent in that window.
    pub const SPENT: usize = 8;
    /// Not a counter of accesses: how long programs ran for the cgroup, in nanoseconds, where that is measured.
    pub const TIME_NS: usize = 9;
    /// Accesses by the container's own programs, repeats included, by [`operation`](super::operation).
    pub const RECEIVED: usize = 10;
    /// How many counters there are.
    pub const COUNT: usize = RECEIVED + super::operation::COUNT;
}

/// Indices of the machine-wide counters, one set for each CPU.
pub mod machine_counter {
    /// New cgroups that found the map of traced cgroups full.
    pub const CGROUPS_FULL: u32 = 0;
    /// Cgroup records that found their ring full.
    pub const LIFECYCLE_LOST: u32 = 1;
    /// Processes in setup that could not be remembered: what they do counts as the container's.
    pub const ENTERING_FULL: u32 = 2;
    /// Records about processes that found their ring full.
    pub const DEATHS_LOST: u32 = 3;
    /// What the kernel kept from the first program of a tracepoint, and the second one took up.
    pub const TAKEN_UP: u32 = 4;
    /// How many counters there are.
    pub const COUNT: u32 = 5;
}

/// Indices of the control words.
pub mod control {
    /// Epoch of the kernel's dedup: the daemon raises it to begin anew.
    pub const EPOCH: u32 = 0;
    /// When the last process came into setup, in nanoseconds since boot; written by the programs.
    pub const ENTERED: u32 = 1;
    /// The value of `ENTERED` after which the daemon saw nobody in setup.
    pub const SETTLED: u32 = 2;
    /// Where `whoami` leaves the cgroup id of its caller.
    pub const OWN_CGROUP: u32 = 3;
    /// How far above the bottom of a task's stack the registers are that it came into the kernel with: what
    /// `find_registers` found. 0 where that was not asked, or nothing was found.
    pub const REGISTERS: u32 = 4;
    /// 1 from the moment on that everything runs that tells who is a container runtime's.
    pub const COMPLETE: u32 = 5;
    /// How many words there are.
    pub const COUNT: u32 = 6;
}

/// Epochs of single cgroups.
pub mod epochs {
    /// How many there are.
    pub const COUNT: u32 = 4096;

    /// Which one is a cgroup's.
    pub const fn of(cgroup: u64) -> u32 {
        cgroup as u32 & (COUNT - 1)
    }
}

/// Declares [`KernelLayout`] with the kernel's names of its fields, so that the daemon can fill it
/// from BTF and neither half can forget one.
macro_rules! kernel_layout {
    ($($(#[$doc:meta])* $field:ident = $structure:literal . $member:literal,)*) => {
        /// Offsets in the running kernel's structures, in bytes. Filled from BTF when the programs
        /// are loaded: a compiled-in offset would be right on one kernel only.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        pub struct KernelLayout {
            $($(#[$doc])* pub $field: u32,)*
        }

        impl KernelLayout {
            /// Structure and member of each field, in the order of the fields.
            pub const MEMBERS: &'static [(&'static str, &'static str)] =
                &[$(($structure, $member)),*];
        }
    };
}

kernel_layout! {
    /// `task_struct.stack`
    task_stack = "task_struct"."stack",
    /// `task_struct.files`
    task_files = "task_struct"."files",
    /// `task_struct.fs`
    task_fs = "task_struct"."fs",
    /// `task_struct.nsproxy`
    task_nsproxy = "task_struct"."nsproxy",
    /// `task_struct.group_leader`
    task_group_leader = "task_struct"."group_leader",
    /// `task_struct.start_boottime` (Linux 5.5)
    task_start_boottime = "task_struct"."start_boottime",
    /// `task_struct.tgid`
    task_tgid = "task_struct"."tgid",
    /// `task_struct.pid`
    task_pid = "task_struct"."pid",
    /// `task_struct.cgroups`
    task_cgroups = "task_struct"."cgroups",
    /// `css_set.dfl_cgrp`
    css_set_dfl_cgrp = "css_set"."dfl_cgrp",
    /// `cgroup.kn`
    cgroup_kn = "cgroup"."kn",
    /// `cgroup.root`
    cgroup_root = "cgroup"."root",
    /// `cgroup.self`
    cgroup_self = "cgroup"."self",
    /// `cgroup_subsys_state.parent`
    css_parent = "cgroup_subsys_state"."parent",
    /// `cgroup_root.hierarchy_id`
    cgroup_root_hierarchy_id = "cgroup_root"."hierarchy_id",
    /// `kernfs_node.id` (a plain `u64` since Linux 5.5)
    kernfs_node_id = "kernfs_node"."id",
    /// `nsproxy.mnt_ns`
    nsproxy_mnt_ns = "nsproxy"."mnt_ns",
    /// `mnt_namespace.ns`
    mnt_namespace_common = "mnt_namespace"."ns",
    /// `ns_common.inum`
    ns_common_inum = "ns_common"."inum",
    /// `files_struct.fdt`
    files_fdt = "files_struct"."fdt",
    /// `fdtable.fd`
    fdtable_fd = "fdtable"."fd",
    /// `fs_struct.pwd`
    fs_pwd = "fs_struct"."pwd",
    /// `fs_struct.root`
    fs_root = "fs_struct"."root",
    /// `file.f_path`
    file_path = "file"."f_path",
    /// `file.f_inode`
    file_inode = "file"."f_inode",
    /// `file.f_mode`
    file_mode = "file"."f_mode",
    /// `path.mnt`
    path_mnt = "path"."mnt",
    /// `path.dentry`
    path_dentry = "path"."dentry",
    /// `dentry.d_parent`
    dentry_parent = "dentry"."d_parent",
    /// `dentry.d_inode`
    dentry_inode = "dentry"."d_inode",
    /// `dentry.d_hash`
    dentry_hash = "dentry"."d_hash",
    /// `hlist_bl_node.pprev`
    hash_node_back = "hlist_bl_node"."pprev",
    /// `dentry.d_name`
    dentry_name = "dentry"."d_name",
    /// `qstr.name`
    qstr_name = "qstr"."name",
    /// `vfsmount.mnt_root`
    vfsmount_root = "vfsmount"."mnt_root",
    /// `mount.mnt`
    mount_mnt = "mount"."mnt",
    /// `mount.mnt_parent`
    mount_parent = "mount"."mnt_parent",
    /// `mount.mnt_mountpoint`
    mount_mountpoint = "mount"."mnt_mountpoint",
    /// `mount.mnt_ns`
    mount_ns = "mount"."mnt_ns",
    /// `mount.mnt_id`
    mount_id = "mount"."mnt_id",
    /// `inode.i_ino`
    inode_ino = "inode"."i_ino",
    /// `inode.i_mode`
    inode_mode = "inode"."i_mode",
    /// `inode.i_sb`
    inode_sb = "inode"."i_sb",
    /// `super_block.s_dev`
    super_block_dev = "super_block"."s_dev",
    /// `super_block.s_magic`
    super_block_magic = "super_block"."s_magic",
    /// `linux_binprm.file`
    binprm_file = "linux_binprm"."file",
    /// `linux_binprm.filename`
    binprm_filename = "linux_binprm"."filename",
    /// `linux_binprm.interp`
    binprm_interp = "linux_binprm"."interp",
    /// `filename.name`
    filename_name = "filename"."name",
    /// `open_flags.open_flag`
    open_flags_flag = "open_flags"."open_flag",
    /// `task_struct.real_parent`
    task_real_parent = "task_struct"."real_parent",
    /// `task_struct.signal`
    task_signal = "task_struct"."signal",
    /// `task_struct.sighand`
    task_sighand = "task_struct"."sighand",
    /// `task_struct.blocked`
    task_blocked = "task_struct"."blocked",
    /// `task_struct.flags`
    task_flags = "task_struct"."flags",
    /// `task_struct.exit_code`
    task_exit_code = "task_struct"."exit_code",
    /// `task_struct.pdeath_signal`
    task_pdeath_signal = "task_struct"."pdeath_signal",
    /// `task_struct.comm`
    task_comm = "task_struct"."comm",
    /// `task_struct.cred`
    task_cred = "task_struct"."cred",
    /// `task_struct.thread_pid`
    task_thread_pid = "task_struct"."thread_pid",
    /// `cred.uid`
    cred_uid = "cred"."uid",
    /// `pid.level`
    pid_level = "pid"."level",
    /// `pid.numbers`
    pid_numbers = "pid"."numbers",
    /// `upid.nr`
    upid_nr = "upid"."nr",
    /// `upid.ns`
    upid_ns = "upid"."ns",
    /// `signal_struct.live`
    signal_live = "signal_struct"."live",
    /// `signal_struct.flags`
    signal_flags = "signal_struct"."flags",
    /// `signal_struct.group_exit_code`
    signal_group_exit_code = "signal_struct"."group_exit_code",
    /// `signal_struct.maxrss`
    signal_maxrss = "signal_struct"."maxrss",
    /// `signal_struct.rlim`
    signal_rlim = "signal_struct"."rlim",
    /// `sighand_struct.action`
    sighand_action = "sighand_struct"."action",
    /// `k_sigaction.sa`
    k_sigaction_sa = "k_sigaction"."sa",
    /// `sigaction.sa_handler`
    sigaction_handler = "sigaction"."sa_handler",
    /// `kernel_siginfo.si_code`
    siginfo_code = "kernel_siginfo"."si_code",
    /// `kernel_siginfo._sifields`
    siginfo_fields = "kernel_siginfo"."_sifields",
    /// `css_set.subsys`
    css_set_subsys = "css_set"."subsys",
    /// `cgroup_subsys_state.cgroup`
    css_cgroup = "cgroup_subsys_state"."cgroup",
    /// `mem_cgroup.css`
    mem_cgroup_css = "mem_cgroup"."css",
    /// `mem_cgroup.memory`
    mem_cgroup_memory = "mem_cgroup"."memory",
    /// `mem_cgroup.oom_group`
    mem_cgroup_oom_group = "mem_cgroup"."oom_group",
    /// `page_counter.usage`
    page_counter_usage = "page_counter"."usage",
    /// `page_counter.max`
    page_counter_max = "page_counter"."max",
    /// `io_kiocb.work`
    io_kiocb_work = "io_kiocb"."work",
    /// `io_kiocb.opcode`
    io_kiocb_opcode = "io_kiocb"."opcode",
    /// `io_kiocb.cmd`
    io_kiocb_cmd = "io_kiocb"."cmd",
    /// `io_kiocb.cqe`
    io_kiocb_cqe = "io_kiocb"."cqe",
    /// `io_cqe.res`
    io_cqe_res = "io_cqe"."res",
    /// `io_statx.dfd`
    io_statx_dfd = "io_statx"."dfd",
    /// `io_statx.flags`
    io_statx_flags = "io_statx"."flags",
    /// `io_statx.filename`
    io_statx_filename = "io_statx"."filename",
    /// `io_unlink.dfd`
    io_unlink_dfd = "io_unlink"."dfd",
    /// `io_unlink.filename`
    io_unlink_filename = "io_unlink"."filename",
    /// `io_mkdir.dfd`
    io_mkdir_dfd = "io_mkdir"."dfd",
    /// `io_mkdir.filename`
    io_mkdir_filename = "io_mkdir"."filename",
    /// `io_rename.old_dfd`
    io_rename_old_dfd = "io_rename"."old_dfd",
    /// `io_rename.oldpath`
    io_rename_oldpath = "io_rename"."oldpath",
    /// `io_rename.new_dfd`
    io_rename_new_dfd = "io_rename"."new_dfd",
    /// `io_rename.newpath`
    io_rename_newpath = "io_rename"."newpath",
    /// `io_link.old_dfd`
    io_link_old_dfd = "io_link"."old_dfd",
    /// `io_link.oldpath`
    io_link_oldpath = "io_link"."oldpath",
    /// `io_link.new_dfd`
    io_link_new_dfd = "io_link"."new_dfd",
    /// `io_link.newpath`
    io_link_newpath = "io_link"."newpath",
    /// `io_link.flags`
    io_link_flags = "io_link"."flags",
    /// `io_xattr.filename`
    io_xattr_filename = "io_xattr"."filename",
}

/// What the daemon tells the programs when it loads them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Settings {
    /// Random, so that nobody can prepare paths whose hashes collide.
    pub seed: u64,
    /// When the daemon started, in nanoseconds since boot.
    pub started_ns: u64,
    /// Bytes waiting in the file ring at which the daemon is woken before its time.
    pub wake_at_bytes: u64,
    /// Bytes of records that a cgroup may send on each CPU in a [`BUDGET_WINDOW_NS`] while the ring is
    /// short of room.
    pub budget_bytes: u64,
    /// Bytes waiting in the file ring from which on it is short of room.
    pub short_at_bytes: u64,
    /// Offset of the system call's number in the saved registers.
    pub call_number: u32,
    /// Offset of `thread_info.status` in a task; 0 where this architecture has none.
    pub thread_status: u32,
    /// Offsets of the system call's arguments in the saved registers.
    pub arguments: [u32; ARGUMENTS],
    /// Offsets of the arguments of a 32-bit system call in the saved registers.
    pub compat_arguments: [u32; ARGUMENTS],
    /// `O_NOFOLLOW` of this architecture.
    pub open_no_follow: u32,
    /// 1 where a task comes with its type (`bpf_get_current_task_btf`, Linux 5.11).
    pub typed_task: u32,
    /// Offset in the saved registers of the one that holds the result, and `-ENOSYS` until there is one;
    /// [`NO_RESULT`] where this architecture has none such.
    pub call_result: u32,
    /// 1 where a second program of each tracepoint takes up what the kernel kept from the first.
    pub backup: u32,
    /// 1 where it is added up how long programs run for each cgroup.
    pub measure: u32,
    /// Fills the structure up to a multiple of eight bytes.
    pub reserved: u32,
}

/// [`Settings::call_result`]: nothing tells whether a call is over.
pub const NO_RESULT: u32 = u32::MAX;

/// How many arguments a system call has.
pub const ARGUMENTS: usize = 6;

/// The time that a cgroup's budget is about, in nanoseconds: 2^27, an eighth of a second.
pub const BUDGET_WINDOW_NS: u64 = 1 << 27;

/// How many system calls there can be. Linux 6.17 has 470.
pub const CALLS: usize = 512;

/// How a system call leads to a file. All zeroes is a call that leads to none.
#[repr(C, align(8))]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Road {
    /// One of [`operation`], plus one.
    pub operation: u8,
    /// One of [`reached`].
    pub reached: u8,
    /// Which argument is the path. This and what follows: an index, or one of [`argument`].
    pub path: u8,
    /// Which argument is the descriptor that a relative path starts at, or the only thing that the
    /// call names.
    pub folder: u8,
    /// Which argument is the second path.
    pub second_path: u8,
    /// Which argument is the descriptor that the second path starts at.
    pub second_folder: u8,
    /// Which argument holds the flags that [`follow`] is about.
    pub flags: u8,
    /// One of [`follow`].
    pub follow: u8,
}

/// Arguments that are none: [`Road::path`] and what follows.
pub mod argument {
    /// There is no such argument; it reads as zero.
    pub const NONE: u8 = 6;
    /// There is no such argument: the path starts at the working directory.
    pub const WORKING_DIRECTORY: u8 = 7;
}

/// Where the file is once a call is over: [`Road::reached`].
pub mod reached {
    /// The call leaves nothing behind that would tell: only the request is known.
    pub const NOTHING: u8 = 0;
    /// Behind the descriptor that the call returns.
    pub const RESULT: u8 = 1;
    /// Behind the descriptor of [`Road::folder`](super::Road::folder); the call has no path. One that
    /// fails says nothing.
    pub const DESCRIPTOR: u8 = 2;
    /// It is the working directory.
    pub const WORKING_DIRECTORY: u8 = 3;
    /// It is the root.
    pub const ROOT: u8 = 4;
    /// As `NOTHING`, and a call that works is seen elsewhere.
    pub const FAILURE: u8 = 5;
    /// As `DESCRIPTOR`, unless the flags say that there is none (`MAP_ANONYMOUS`).
    pub const MAPPING: u8 = 6;
}

/// Whether a symbolic link that a path names itself is followed: [`Road::follow`].
pub mod follow {
    /// Yes.
    pub const ALWAYS: u8 = 0;
    /// No.
    pub const NEVER: u8 = 1;
    /// No, if the flags have `AT_SYMLINK_NOFOLLOW`.
    pub const UNLESS_AT: u8 = 2;
    /// Yes, if the flags have `AT_SYMLINK_FOLLOW`.
    pub const IF_AT: u8 = 3;
    /// No, if the flags have `O_NOFOLLOW`, or `O_CREAT` with `O_EXCL`.
    pub const OPEN: u8 = 4;
    /// As `OPEN`, of the `struct open_how` that the argument points to.
    pub const OPEN_HOW: u8 = 5;
    /// No, if the mask has `IN_DONT_FOLLOW`.
    pub const INOTIFY: u8 = 6;
    /// No, if the flags have `UMOUNT_NOFOLLOW`.
    pub const UNMOUNT: u8 = 7;
    /// No, if the flags have `FAN_MARK_DONT_FOLLOW`.
    pub const FANOTIFY: u8 = 8;
    /// No, if the flags have `FSPICK_SYMLINK_NOFOLLOW`.
    pub const PICK: u8 = 9;
    /// Yes, if the flags have `MOVE_MOUNT_F_SYMLINKS`.
    pub const MOVE_MOUNT: u8 = 10;
}

/// The roads of all system calls, by their numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Roads {
    /// Of this architecture.
    pub native: [Road; CALLS],
    /// Of the 32-bit system calls that it has too (ia32 on x86_64).
    pub compat: [Road; CALLS],
}

/// The longest path that a system call takes, its NUL included (`PATH_MAX`).
pub const PATH_MAX: usize = 4096;

/// Bytes that the components of one record may take, before the last one is added.
pub const COMPONENTS_MAX: usize = 16_384;

/// The longest name of a file, its NUL included (`NAME_MAX` + 1).
pub const NAME_MAX: usize = 256;

const _: () = {
    assert!(size_of::<RawCgroup>() == 32);
    assert!(size_of::<RawFile>() == 112);
    assert!(size_of::<Settings>() == 40 + 8 + 8 * ARGUMENTS + 24);
    assert!(size_of::<Road>() == 8);
    assert!(size_of::<KernelLayout>() == 4 * KernelLayout::MEMBERS.len());
};

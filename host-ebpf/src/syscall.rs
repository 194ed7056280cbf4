//! Every system call that names a file, seen at its exit, where the outcome is known and the kernel has
//! resolved the path.
//!
//! One program on `sys_exit(struct pt_regs *regs, long ret)`, which every system call of every process
//! passes, 32-bit ones included. So it asks first what costs least: the call's number, then the cgroup.
//! Which calls lead to files, and how, is the daemon's table (`ROADS`).

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use whodunit_ebpf::{CALLS, CgroupCounters, argument, backup, counter, file_flag, follow, reached};

use crate::maps::{Scratch, keep, occupy, recall, roads, setting, vacate};
use crate::read::{
    Address, Place, current_task, file_of_descriptor, load, read_or_zero, root, user_word,
    working_directory,
};
use crate::record::{Access, Requested, count, in_setup, record, stands, traced_counters};
use crate::refused;
use crate::run;
use crate::walk::{Helper, Looping, Unrolled};

/// `ENOENT` and its like are negative results: errno goes up to this.
pub(crate) const ERRNO_MAX: i64 = 4095;
/// The kernel has no such call, or somebody behaves as if it had none: no file was looked for.
pub(crate) const ENOSYS: i64 = 38;
/// `TS_COMPAT` of `arch/x86/include/asm/thread_info.h`: this system call is a 32-bit one, by whichever
/// way and from whichever code it came.
const TS_COMPAT: u32 = 2;
/// `AT_FDCWD` of `include/uapi/linux/fcntl.h`.
pub(crate) const AT_FDCWD: i32 = -100;

pub(crate) const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
pub(crate) const AT_SYMLINK_FOLLOW: u64 = 0x400;
/// `O_CREAT` and `O_EXCL`, the same on every architecture that has these programs.
const O_CREAT_EXCL: u64 = 0o300;
const IN_DONT_FOLLOW: u64 = 0x0200_0000;
const UMOUNT_NOFOLLOW: u64 = 8;
const FAN_MARK_DONT_FOLLOW: u64 = 4;
const FSPICK_SYMLINK_NOFOLLOW: u64 = 2;
const MOVE_MOUNT_F_SYMLINKS: u64 = 1;
const MAP_ANONYMOUS: u64 = 0x20;

/// The number of the two programs that are one.
const PAIR: u32 = backup::number("syscall_exit");

#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_exit(ctx: BtfTracePointContext) -> i32 {
    run::first(PAIR, || exit::<Helper>(&ctx))
}

/// The same once more, for what the kernel kept from the first.
#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_exit_backup(ctx: BtfTracePointContext) -> i32 {
    run::second(PAIR, || exit::<Helper>(&ctx))
}

/// The same before Linux 5.17.
#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_exit_unrolled(ctx: BtfTracePointContext) -> i32 {
    run::alone(|| exit::<Unrolled>(&ctx))
}

#[inline(always)]
fn exit<L: Looping>(ctx: &BtfTracePointContext) -> i32 {
    let registers: Address = ctx.arg(0);
    // The kernel looks at the lower half alone.
    let number = load(registers, setting!(call_number)) as u32;
    if number as usize >= CALLS {
        return 0;
    }
    let (native, compat) = roads(number);
    if native | compat == 0 {
        return 0;
    }
    let is_compat = is_compat();
    let road = if is_compat { compat } else { native };
    if road == 0 {
        return 0;
    }
    if ctx.arg::<i64>(1) == -ENOSYS {
        return 0;
    }
    let Some((cgroup, counters)) = traced_counters() else { return 0 };
    let Some(scratch) = occupy() else {
        count(counters, counter::BUSY);
        return 0;
    };
    let loops = Scratch::loops(scratch);
    keep!(loops.road, road);
    keep!(loops.number, u64::from(number));
    keep!(loops.result, ctx.arg::<u64>(1));
    if is_compat {
        keep_compat_arguments(scratch, registers);
        keep!(loops.call_flags, u64::from(file_flag::SYSCALL | file_flag::COMPAT));
    } else {
        keep_arguments(scratch, registers);
        keep!(loops.call_flags, u64::from(file_flag::SYSCALL));
    }
    returned::<L>(scratch, cgroup, counters);
    vacate(scratch);
    0
}

/// Whether the system call that the running task is in is a 32-bit one./// Whether the system call that the running task is in is a 32-bit one.
#[inline(always)]
pub(crate) fn is_compat() -> bool {
    let status = setting!(thread_status);
    status != 0 && task_half(current_task(), status) & TS_COMPAT != 0
}

/// Half a word of a task.
#[inline(always)]
fn task_half(task: Address, offset: u32) -> u32 {
    if setting!(typed_task) != 0 {
        // SAFETY: the verifier refuses the program if this is no member of the structure.
        unsafe { core::ptr::read_volatile((task as usize + offset as usize) as *const u32) }
    } else {
        read_or_zero(task + u64::from(offset))
    }
}

#[inline(always)]
fn keep_arguments(scratch: *mut Scratch, registers: Address) {
    let loops = Scratch::loops(scratch);
    keep!(loops.arguments[0], load(registers, setting!(arguments[0])));
    keep!(loops.arguments[1], load(registers, setting!(arguments[1])));
    keep!(loops.arguments[2], load(registers, setting!(arguments[2])));
    keep!(loops.arguments[3], load(registers, setting!(arguments[3])));
    keep!(loops.arguments[4], load(registers, setting!(arguments[4])));
    keep!(loops.arguments[5], load(registers, setting!(arguments[5])));
    keep!(loops.arguments[6], 0);
    keep!(loops.arguments[7], AT_FDCWD as u64);
}

#[inline(always)]
fn keep_compat_arguments(scratch: *mut Scratch, registers: Address) {
    const HALF: u64 = u32::MAX as u64;
    let loops = Scratch::loops(scratch);
    keep!(loops.arguments[0], load(registers, setting!(compat_arguments[0])) & HALF);
    keep!(loops.arguments[1], load(registers, setting!(compat_arguments[1])) & HALF);
    keep!(loops.arguments[2], load(registers, setting!(compat_arguments[2])) & HALF);
    keep!(loops.arguments[3], load(registers, setting!(compat_arguments[3])) & HALF);
    keep!(loops.arguments[4], load(registers, setting!(compat_arguments[4])) & HALF);
    keep!(loops.arguments[5], load(registers, setting!(compat_arguments[5])) & HALF);
    keep!(loops.arguments[6], 0);
    keep!(loops.arguments[7], AT_FDCWD as u64);
}

/// The argument with the index that stands in byte `field` of the road.
#[inline(always)]
fn argument_of(scratch: *mut Scratch, field: u32) -> u64 {
    let loops = Scratch::loops(scratch);
    let index = (recall!(loops.road) >> (8 * field)) as usize & 7;
    // SAFETY: a map value of this CPU; the index is below eight.
    unsafe {
        let arguments = core::ptr::addr_of!((*loops).arguments).cast::<u64>();
        core::ptr::read_volatile(arguments.add(index))
    }
}

/// Bytes of a [`Road`](whodunit_ebpf::Road), in the order of its fields.
mod field {
    pub(super) const OPERATION: u32 = 0;
    pub(super) const REACHED: u32 = 1;
    pub(super) const PATH: u32 = 2;
    pub(super) const FOLDER: u32 = 3;
    pub(super) const SECOND_PATH: u32 = 4;
    pub(super) const SECOND_FOLDER: u32 = 5;
    pub(super) const FLAGS: u32 = 6;
    pub(super) const FOLLOW: u32 = 7;
}

#[inline(always)]
fn byte(road: u64, field: u32) -> u8 {
    (road >> (8 * field)) as u8
}

#[inline(always)]
fn returned<L: Looping>(scratch: *mut Scratch, cgroup: u64, counters: *mut CgroupCounters) {
    let loops = Scratch::loops(scratch);
    stands(loops, in_setup(), false);
    for turn in 0..2u32 {
        let road = recall!(loops.road);
        let result = recall!(loops.result) as i64;
        let failed = (-ERRNO_MAX..0).contains(&result);
        let second = turn != 0;
        let (path, folder) = if second {
            (argument_of(scratch, field::SECOND_PATH), argument_of(scratch, field::SECOND_FOLDER))
        } else {
            (argument_of(scratch, field::PATH), argument_of(scratch, field::FOLDER))
        };
        let mut flags = recall!(loops.call_flags) as u32;
        if second {
            flags |= file_flag::DESTINATION | file_flag::NO_FOLLOW;
        } else if !is_followed(byte(road, field::FOLLOW), argument_of(scratch, field::FLAGS)) {
            flags |= file_flag::NO_FOLLOW;
        }

        let mut file: Address = 0;
        let mut place = Place { mount: 0, dentry: 0 };
        match byte(road, field::REACHED) {
            reached::RESULT if !failed => file = file_of_descriptor(result as u32),
            reached::DESCRIPTOR | reached::MAPPING if failed => return,
            reached::MAPPING if argument_of(scratch, field::FLAGS) & MAP_ANONYMOUS != 0 => return,
            reached::DESCRIPTOR | reached::MAPPING => {
                file = file_of_descriptor(folder as u32);
                if file == 0 {
                    return;
                }
            }
            reached::WORKING_DIRECTORY if !failed => place = working_directory(),
            reached::ROOT if !failed => place = root(),
            reached::FAILURE if !failed => return,
            reached::FAILURE => refused::remember(path, result),
            _ => {}
        }
        keep!(loops.file, file);
        keep!(loops.place_dentry, place.dentry);
        keep!(loops.place_mount, place.mount);
        keep!(loops.path, path);
        keep!(loops.folder, folder);
        keep!(loops.flags, u64::from(flags));
        let access = Access {
            operation: u16::from(byte(road, field::OPERATION)).wrapping_sub(1),
            outcome: if failed { result as i32 } else { 0 },
            requested: Requested::User(path),
        };
        record::<L>(scratch, cgroup, counters, access);
        if byte(recall!(loops.road), field::SECOND_PATH) == argument::NONE {
            return;
        }
    }
}

/// Whether a call follows a symbolic link that its path names itself.
#[inline(always)]
fn is_followed(rule: u8, flags: u64) -> bool {
    match rule {
        follow::NEVER => false,
        follow::UNLESS_AT => flags & AT_SYMLINK_NOFOLLOW == 0,
        follow::IF_AT => flags & AT_SYMLINK_FOLLOW != 0,
        follow::OPEN => is_open_followed(flags),
        follow::OPEN_HOW => is_open_followed(user_word(flags)),
        follow::INOTIFY => flags & IN_DONT_FOLLOW == 0,
        follow::UNMOUNT => flags & UMOUNT_NOFOLLOW == 0,
        follow::FANOTIFY => flags & FAN_MARK_DONT_FOLLOW == 0,
        follow::PICK => flags & FSPICK_SYMLINK_NOFOLLOW == 0,
        follow::MOVE_MOUNT => flags & MOVE_MOUNT_F_SYMLINKS != 0,
        _ => true,
    }
}

/// Whether `open` with these flags follows a symbolic link that its path names itself.
#[inline(always)]
pub(crate) fn is_open_followed(flags: u64) -> bool {
    flags & u64::from(setting!(open_no_follow)) == 0 && flags & O_CREAT_EXCL != O_CREAT_EXCL
}

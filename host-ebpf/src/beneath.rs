//! Files opened beneath the system calls: by io_uring, and by the kernel itself while it works for a program
//! (`acct`, a core file).
//!
//! A part of the exact tier: it hangs on the function of the kernel that every opening by a path comes to, those
//! of the system calls too. So it asks first what costs least, and leaves to `syscall.rs` and `exec.rs` what
//! they see.

use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use whodunit_ebpf::{CALLS, CgroupCounters, NO_RESULT, backup, counter, file_flag, operation};

use crate::maps::{Scratch, keep, occupy_exact, offset, recall, roads, setting, vacate};
use crate::read::{Address, read_or_zero};
use crate::record::{Access, Requested, count, in_setup, record, stands, traced_counters};
use crate::registers::saved_registers;
use crate::run;
use crate::signal::PF_KTHREAD;
use crate::syscall::{ENOSYS, ERRNO_MAX, is_compat, is_open_followed};
use crate::task::running_flags;
use crate::walk::{ExactHelper, Looping, Unrolled};

/// `PF_IO_WORKER` and `PF_DUMPCORE` of `include/linux/sched.h`; the same from Linux 5.10 to 7.3.
const PF_IO_WORKER: u32 = 0x10;
const PF_DUMPCORE: u32 = 0x200;
/// The number of `io_uring_enter`, the same on every architecture and for 32-bit programs.
const IO_URING_ENTER: u32 = 426;
const EAGAIN: i32 = 11;

/// The number of the two programs that are one.
const PAIR: u32 = backup::number("file_opened");

/// `struct file *do_filp_open(int dfd, struct filename *pathname, const struct open_flags *op)`.
#[fexit]
pub fn file_opened(ctx: FExitContext) -> i32 {
    run::first_on_function(PAIR, || seen::<ExactHelper>(&ctx))
}

/// The same once more, for what the kernel kept from the first.
#[fexit]
pub fn file_opened_backup(ctx: FExitContext) -> i32 {
    run::second_on_function(PAIR, || seen::<ExactHelper>(&ctx))
}

/// The same before Linux 5.17.
#[fexit]
pub fn file_opened_unrolled(ctx: FExitContext) -> i32 {
    run::on_function(|| seen::<Unrolled>(&ctx))
}

#[inline(always)]
fn seen<L: Looping>(ctx: &FExitContext) -> i32 {
    let Some(way) = way() else { return 0 };
    let Some((cgroup, counters)) = traced_counters() else { return 0 };
    let Some(scratch) = occupy_exact() else {
        count(counters, counter::BUSY);
        return 0;
    };
    opened::<L>(ctx, scratch, way, cgroup, counters);
    vacate(scratch);
    0
}

#[inline(always)]
fn opened<L: Looping>(
    ctx: &FExitContext,
    scratch: *mut Scratch,
    way: Way,
    cgroup: u64,
    counters: *mut CgroupCounters,
) {
    let loops = Scratch::loops(scratch);
    keep!(loops.folder, ctx.arg::<u64>(0));
    keep!(loops.path, ctx.arg::<u64>(1));
    keep!(loops.arguments[0], ctx.arg::<u64>(2));
    keep!(loops.result, ctx.arg::<u64>(3));
    let result = recall!(loops.result);
    let failed = (-ERRNO_MAX..0).contains(&(result as i64));
    let outcome = if failed { result as i32 } else { 0 };
    if outcome == -EAGAIN && way.flags & file_flag::IO_URING != 0 {
        // What would have to wait is tried again, by a thread that may.
        return;
    }
    let how: u32 = read_or_zero(recall!(loops.arguments[0]) + offset!(open_flags_flag) as u64);
    let mut flags = way.flags;
    if !is_open_followed(u64::from(how)) {
        flags |= file_flag::NO_FOLLOW;
    }
    keep!(loops.file, if failed { 0 } else { result });
    keep!(loops.place_dentry, 0);
    keep!(loops.place_mount, 0);
    keep!(loops.flags, u64::from(flags));
    keep!(loops.number, u64::from(way.number));
    let path: Address = read_or_zero(recall!(loops.path) + offset!(filename_name) as u64);
    let access = Access { operation: operation::OPEN, outcome, requested: Requested::Kernel(path) };
    stands(loops, in_setup(), false);
    record::<L>(scratch, cgroup, counters, access);
}

/// By which way a file was opened.
struct Way {
    /// Bits of `file_flag`.
    flags: u32,
    /// The system call that the running task is in, if the flags say so.
    number: u32,
}

/// By which way the running task opens a file. None where a system call tells, or nobody is to know.
#[inline(always)]
fn way() -> Option<Way> {
    let task = running_flags();
    let by_ring = Way { flags: file_flag::IO_URING, number: 0 };
    if task & PF_IO_WORKER != 0 {
        return Some(by_ring);
    }
    if task & PF_KTHREAD != 0 {
        return None;
    }
    if task & PF_DUMPCORE != 0 {
        return Some(Way { flags: file_flag::BY_KERNEL, number: 0 });
    }
    let registers = saved_registers();
    let number = read_or_zero::<u64>(registers + u64::from(setting!(call_number))) as u32;
    if is_over(registers) {
        // Work that the task does on its way back to the program: io_uring's, which is not the call's.
        return Some(by_ring);
    }
    if number == IO_URING_ENTER {
        return Some(by_ring);
    }
    let mut flags = file_flag::BY_KERNEL;
    if (number as usize) < CALLS {
        let (native, compat) = roads(number);
        let is_compat = is_compat();
        if (if is_compat { compat } else { native }) != 0 {
            return None;
        }
        flags |= file_flag::SYSCALL | if is_compat { file_flag::COMPAT } else { 0 };
    }
    Some(Way { flags, number })
}

/// Whether the system call whose registers these are has its result.
#[inline(always)]
fn is_over(registers: Address) -> bool {
    let result_at = setting!(call_result);
    result_at != NO_RESULT
        && read_or_zero::<u64>(registers + u64::from(result_at)) as i64 != -ENOSYS
}

//! `open`, `creat`, `openat`, `openat2`: seen at their exits, where the outcome is known and the
//! kernel has resolved the path.
//!
//! Needs the saved registers of the task (`bpf_task_pt_regs`, Linux 5.15), because a system call's
//! exit has no arguments of its own.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_task_pt_regs;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use whodunit_ebpf::operation;

use crate::maps::{SCRATCH_SYSCALL, setting};
use crate::read::{Address, file_of_descriptor, load, read_or_zero, typed_task};
use crate::record::{AT_FDCWD, Access, Requested, in_setup, record, traced_counters};

/// `ENOENT` and its like are negative results: errno goes up to this.
const ERRNO_MAX: i64 = 4095;

#[tracepoint]
pub fn open_exit(ctx: TracePointContext) -> u32 {
    opened(&ctx, false);
    0
}

#[tracepoint]
pub fn openat_exit(ctx: TracePointContext) -> u32 {
    opened(&ctx, true);
    0
}

/// The two arguments that matter: a folder's descriptor and the path's address.
#[inline(always)]
pub(crate) fn arguments(has_folder: bool) -> (i32, Address) {
    // SAFETY: the helper takes the running task and gives its saved registers, with their type.
    let registers = unsafe { bpf_task_pt_regs(typed_task() as *mut _) } as u64;
    let first = load(registers, setting!(argument_0) as usize);
    if has_folder {
        (first as i32, load(registers, setting!(argument_1) as usize))
    } else {
        (AT_FDCWD, first)
    }
}

/// The result of the system call.
#[inline(always)]
pub(crate) fn result(ctx: &TracePointContext) -> i64 {
    // Where it stands on every kernel so far: there it is a plain load, which costs nothing. The
    // verifier knows the setting and drops the other way.
    const USUAL: u32 = 16;
    if setting!(tracepoint_ret) == USUAL {
        // SAFETY: a field of the tracepoint's record, which the verifier checks.
        unsafe { core::ptr::read_volatile(ctx.as_ptr().add(USUAL as usize).cast()) }
    } else {
        read_or_zero::<u64>(ctx.as_ptr() as u64 + u64::from(setting!(tracepoint_ret))) as i64
    }
}

#[inline(always)]
fn opened(ctx: &TracePointContext, has_folder: bool) {
    let Some((cgroup, counters)) = traced_counters() else { return };
    let result = result(ctx);
    let (folder, path) = arguments(has_folder);
    let file = if result >= 0 { file_of_descriptor(result as u32) } else { 0 };
    let access = Access {
        operation: operation::OPEN,
        outcome: if (-ERRNO_MAX..0).contains(&result) { result as i32 } else { 0 },
        requested: Requested::User(path),
        file,
        folder,
    };
    record(SCRATCH_SYSCALL, cgroup, counters, in_setup(), access);
}

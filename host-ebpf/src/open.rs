//! `open`, `creat`, `openat`, `openat2`: seen at their exits, where the outcome is known and the
//! kernel has resolved the path.
//!
//! Needs the saved registers of the task (`bpf_task_pt_regs`, Linux 5.15), because a system call's
//! exit has no arguments of its own.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use whodunit_ebpf::operation;

use crate::maps::{SCRATCH_SYSCALL, setting};
use crate::read::{Address, current_task, file_of_descriptor, read_or_zero};
use crate::record::{AT_FDCWD, Access, Reached, Requested, in_setup, record, traced_counters};

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
    // SAFETY: the helper takes the running task and gives its saved registers.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    let first: u64 = read_or_zero(registers + u64::from(setting!(argument_0)));
    if has_folder {
        let second = read_or_zero(registers + u64::from(setting!(argument_1)));
        (first as i32, second)
    } else {
        (AT_FDCWD, first)
    }
}

/// The result of the system call.
#[inline(always)]
pub(crate) fn result(ctx: &TracePointContext) -> i64 {
    read_or_zero(ctx.as_ptr() as u64 + u64::from(setting!(tracepoint_ret)))
}

#[inline(always)]
fn opened(ctx: &TracePointContext, has_folder: bool) {
    let Some((cgroup, counters)) = traced_counters() else { return };
    let result = result(ctx);
    let (folder, path) = arguments(has_folder);
    let reached = if result >= 0 {
        Reached::File(file_of_descriptor(current_task(), result as u32))
    } else {
        Reached::From(folder)
    };
    let access = Access {
        operation: operation::OPEN,
        outcome: if (-ERRNO_MAX..0).contains(&result) { result as i32 } else { 0 },
        requested: Requested::User(path),
        reached,
    };
    record(SCRATCH_SYSCALL, cgroup, counters, in_setup(), access);
}

//! Programs executed: successes where the kernel has replaced the program, failures at the exits of
//! `execve` and `execveat`.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{raw_tracepoint, tracepoint};
use aya_ebpf::programs::{RawTracePointContext, TracePointContext};
use whodunit_ebpf::{counter, operation};

use crate::maps::{SCRATCH_RAW, SCRATCH_SYSCALL, offset};
use crate::open::{arguments, result};
use crate::read::{Address, Place, current_task, read_or_zero};
use crate::record::{AT_FDCWD, Access, Requested, count, in_setup, record, traced_counters};
use crate::setup;
use crate::walk;

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, Linux 3.4.
#[raw_tracepoint]
pub fn executed(ctx: RawTracePointContext) -> i32 {
    let Some((cgroup, counters)) = traced_counters() else { return 0 };
    let program: Address = ctx.arg(2);
    let file: Address = read_or_zero(program + offset!(binprm_file) as u64);
    let filename: Address = read_or_zero(program + offset!(binprm_filename) as u64);
    let interpreter: Address = read_or_zero(program + offset!(binprm_interp) as u64);

    let mut setup = in_setup();
    if setup && !walk::is_detached(current_task(), Place::read(file + offset!(file_path) as u64)) {
        // A runtime that executes a copy of itself from a memfd stays a runtime. Whatever has a place
        // in the file system is the container's program, and the first that is seen of it.
        setup::leave((bpf_get_current_pid_tgid() >> 32) as u32);
        setup = false;
    }
    if !setup {
        count(counters, counter::EXECUTED);
        setup::belongs();
    }

    let access = Access {
        operation: operation::EXEC,
        outcome: 0,
        requested: Requested::Kernel(interpreter),
        file,
        folder: AT_FDCWD,
    };
    record(SCRATCH_RAW, cgroup, counters, setup, access);
    if interpreter != filename {
        // A `#!` script: the file above is its interpreter. Which file the script's path led to is no
        // longer known here.
        let access = Access { requested: Requested::Kernel(filename), file: 0, ..access };
        record(SCRATCH_RAW, cgroup, counters, setup, access);
    }
    0
}

#[tracepoint]
pub fn execve_exit(ctx: TracePointContext) -> u32 {
    failed(&ctx, false);
    0
}

#[tracepoint]
pub fn execveat_exit(ctx: TracePointContext) -> u32 {
    failed(&ctx, true);
    0
}

#[inline(always)]
fn failed(ctx: &TracePointContext, has_folder: bool) {
    let result = result(ctx);
    // A success came by `executed`, and its arguments are gone with the old program.
    if result >= 0 {
        return;
    }
    let Some((cgroup, counters)) = traced_counters() else { return };
    let (folder, path) = arguments(has_folder);
    let access = Access {
        operation: operation::EXEC,
        outcome: result as i32,
        requested: Requested::User(path),
        file: 0,
        folder,
    };
    record(SCRATCH_SYSCALL, cgroup, counters, in_setup(), access);
}

//! Programs executed. Failures are seen at the exits of `execve` and `execveat`: `syscall.rs`.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use whodunit_ebpf::{CgroupCounters, counter, operation};

use crate::interpreter;
use crate::maps::{Scratch, keep, occupy, offset, recall, vacate};
use crate::read::{Address, Place, current_task, mount_namespace, read_or_zero};
use crate::record::{Access, Requested, count, record, stands, traced_counters};
use crate::run::{self, on_tracepoint};
use crate::setup;
use crate::syscall::AT_FDCWD;
use crate::walk::{self, Helper, Looping, Unrolled};

on_tracepoint! {
    /// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, Linux 3.4.
    executed, executed_backup: execution::<Helper>
}

/// The same before Linux 5.17.
#[raw_tracepoint]
pub fn executed_unrolled(ctx: RawTracePointContext) -> i32 {
    run::alone(|| execution::<Unrolled>(&ctx))
}

#[inline(always)]
fn execution<L: Looping>(ctx: &RawTracePointContext) -> i32 {
    let Some((cgroup, counters)) = traced_counters() else { return 0 };
    let program: Address = ctx.arg(2);
    let file: Address = read_or_zero(program + offset!(binprm_file) as u64);
    let filename: Address = read_or_zero(program + offset!(binprm_filename) as u64);
    let interpreter_path: Address = read_or_zero(program + offset!(binprm_interp) as u64);

    let mut setup = setup::is_in_setup(current_task(), cgroup);
    let place = Place::read(file + offset!(file_path) as u64);
    if setup
        && !setup::is_itself(filename)
        && !walk::is_detached(mount_namespace(current_task()), place)
    {
        // A runtime that executes a copy of itself from a memfd stays a runtime. Whatever has a place
        // in the file system is the container's program, and the first that is seen of it.
        setup::leave((bpf_get_current_pid_tgid() >> 32) as u32);
        setup = false;
    }
    if !setup {
        count(counters, counter::EXECUTED);
        setup::belongs();
    }
    let Some(scratch) = occupy() else {
        count(counters, counter::BUSY);
        return 0;
    };
    // In memory: in registers the verifier would follow each combination through the rest on its own.
    let loops = Scratch::loops(scratch);
    let is_script = interpreter_path != filename;
    let is_told = interpreter::was_told(file) && is_script;
    stands(loops, setup, !setup);
    keep!(loops.path, filename);
    keep!(loops.is_script, u64::from(is_script));
    keep!(loops.is_told, u64::from(is_told));
    // A `#!` script: the file is its interpreter. Which file the script's path led to is no longer
    // known here.
    let is_script = recall!(loops.is_script) != 0;
    let operation = if is_script { operation::LOAD } else { operation::EXEC };
    if recall!(loops.is_told) == 0 {
        executed_by::<L>(scratch, cgroup, counters, operation, file, interpreter_path);
    }
    if recall!(loops.is_script) != 0 {
        executed_by::<L>(scratch, cgroup, counters, operation::EXEC, 0, recall!(loops.path));
    }
    vacate(scratch);
    0
}

#[inline(always)]
fn executed_by<L: Looping>(
    scratch: *mut Scratch,
    cgroup: u64,
    counters: *mut CgroupCounters,
    operation: u16,
    file: Address,
    path: Address,
) {
    let loops = Scratch::loops(scratch);
    keep!(loops.file, file);
    keep!(loops.place_dentry, 0);
    keep!(loops.place_mount, 0);
    keep!(loops.folder, AT_FDCWD as u64);
    keep!(loops.flags, 0);
    keep!(loops.number, 0);
    let access = Access { operation, outcome: 0, requested: Requested::Kernel(path) };
    record::<L>(scratch, cgroup, counters, access);
}

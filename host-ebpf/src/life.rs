//! Processes made, executing a program, and ended.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_ringbuf_query};
use aya_ebpf::programs::RawTracePointContext;
use whodunit_ebpf::{
    PROGRAM_MAX, RawExit, RawFork, RawProgram, exit_flag, fate_kind, program_flag,
};

use crate::maps::{DEATHS, DEATHS_BYTES, fate, offset};
use crate::read::{
    Address, Place, cgroup_of, current_task, mount_namespace, process_of, read_or_zero,
};
use crate::refused;
use crate::run::on_tracepoint;
use crate::setup;
use crate::task::{
    describe, describe_ancestors, is_traced, leader_of, lost, now, parent_of, part, put,
    system_call,
};
use crate::walk;

/// `SIGNAL_GROUP_EXIT` of `include/linux/sched/signal.h`; the same from Linux 5.10 to 7.3.
const SIGNAL_GROUP_EXIT: u32 = 0x4;

on_tracepoint! {
    /// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`.
    process_forked, process_forked_backup: tell_fork
}

#[inline(always)]
fn tell_fork(ctx: &RawTracePointContext) -> i32 {
    let parent: Address = ctx.arg(0);
    let child: Address = ctx.arg(1);
    // A new thread is no new process.
    if !is_traced(cgroup_of(child)) || process_of(child) == process_of(parent) {
        return 0;
    }
    let Some(mut entry) = DEATHS.reserve::<RawFork>(0) else {
        lost();
        return 0;
    };
    let record = entry.as_mut_ptr();
    put!(record.kind, fate_kind::FORKED);
    put!(record.flags, 0);
    put!(record.reserved, 0);
    put!(record.time_ns, now());
    describe(part!(record.child), child);
    describe(part!(record.parent), parent);
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    0
}

on_tracepoint! {
    /// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`.
    process_executed, process_executed_backup: tell_execution
}

#[inline(always)]
fn tell_execution(ctx: &RawTracePointContext) -> i32 {
    let task = current_task();
    let cgroup = cgroup_of(task);
    if !is_traced(cgroup) {
        return 0;
    }
    // What it could not execute before it could is of no interest any more: a search of PATH.
    refused::forget(process_of(task));
    let program: Address = ctx.arg(2);
    let file: Address = read_or_zero(program + offset!(binprm_file) as u64);
    let filename: Address = read_or_zero(program + offset!(binprm_filename) as u64);
    let entered = setup::is_in_setup(task, cgroup);
    let place = Place::read(file + offset!(file_path) as u64);
    let detached =
        walk::is_detached(mount_namespace(task), place) || (entered && setup::is_itself(filename));
    let Some(mut entry) = DEATHS.reserve::<RawProgram>(0) else {
        lost();
        return 0;
    };
    let record = entry.as_mut_ptr();
    put!(record.kind, fate_kind::EXECUTED);
    put!(
        record.flags,
        if detached {
            program_flag::DETACHED
        } else if entered {
            program_flag::ENTERED
        } else {
            0
        }
    );
    put!(record.time_ns, now());
    describe(part!(record.process), task);
    let path = part!(record.path);
    // SAFETY: there are so many bytes. What the helper leaves behind the NUL nobody reads: the length tells.
    let length =
        unsafe { bpf_probe_read_kernel_str(path.cast(), PROGRAM_MAX as u32, filename as *const _) };
    put!(record.path_length, if length < 0 { 0 } else { length as u16 });
    put!(record.outcome, 0);
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    0
}

on_tracepoint! {
    /// `sched_process_exit(struct task_struct *p)`, since Linux 6.16 `(struct task_struct *p, bool group_dead)`: each thread.
    /// By now its exit code is in place and it has been taken off the living ones.
    process_exited, process_exited_backup: tell_exit
}

#[inline(always)]
fn tell_exit(ctx: &RawTracePointContext) -> i32 {
    let task: Address = ctx.arg(0);
    if !is_traced(cgroup_of(task)) {
        return 0;
    }
    if !is_over(ctx, task) {
        return 0;
    }
    let group: Address = read_or_zero(task + offset!(task_signal) as u64);
    let leader = leader_of(task);
    let told: u32 = read_or_zero(group + offset!(signal_flags) as u64);
    let together = told & SIGNAL_GROUP_EXIT != 0;
    // As `wait_task_zombie` in `kernel/exit.c` chooses.
    let status: u32 = if together {
        read_or_zero(group + offset!(signal_group_exit_code) as u64)
    } else {
        read_or_zero(leader + offset!(task_exit_code) as u64)
    };
    refused::tell(task, status);
    let Some(mut entry) = DEATHS.reserve::<RawExit>(0) else {
        lost();
        return 0;
    };
    let record = entry.as_mut_ptr();
    let mut flags = if together { exit_flag::GROUP } else { 0 };
    if setup::is_entering(process_of(task)) {
        flags |= exit_flag::SETUP;
    }
    put!(record.kind, fate_kind::EXITED);
    put!(record.flags, flags);
    put!(record.status, status);
    put!(record.time_ns, now());
    put!(record.peak_pages, read_or_zero(group + offset!(signal_maxrss) as u64));
    put!(record.syscall, system_call().0);
    put!(record.reserved, 0);
    describe(part!(record.process), task);
    describe_ancestors(part!(record.ancestors), task);
    let wake = if is_quiet(task, status, flags) && !is_filling() {
        BPF_RB_NO_WAKEUP
    } else {
        BPF_RB_FORCE_WAKEUP
    };
    entry.submit(u64::from(wake));
    0
}

/// Whether a process is over with this task's end, which `sched_process_exit` tells.
#[inline(always)]
pub(crate) fn is_over(ctx: &RawTracePointContext, task: Address) -> bool {
    if fate!(exit_tells_group) != 0 {
        return ctx.arg::<u64>(1) as u8 != 0;
    }
    let group: Address = read_or_zero(task + offset!(task_signal) as u64);
    // Two last threads can both see nobody left: the daemon takes the first record of a process.
    read_or_zero::<i32>(group + offset!(signal_live) as u64) <= 0
}

/// Whether nobody waits for this end: a program of a container succeeded, and the container lives on. The first process of a
/// container has its parent elsewhere. Most ends are such, of what shells run, and a wakeup costs more than all the rest.
#[inline(always)]
fn is_quiet(task: Address, status: u32, flags: u16) -> bool {
    let is_inside = || cgroup_of(parent_of(leader_of(task))) == cgroup_of(task);
    status == 0 && flags & exit_flag::SETUP == 0 && is_inside()
}

/// Whether the ring of deaths needs somebody before the daemon looks by itself.
#[inline(always)]
fn is_filling() -> bool {
    let ring = core::ptr::addr_of!(DEATHS).cast_mut().cast();
    // SAFETY: a ring of this program.
    let waiting = unsafe { bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)) };
    waiting >= u64::from(DEATHS_BYTES) / 4
}

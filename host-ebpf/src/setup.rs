//! Which processes are still a container runtime's.
//!
//! A runtime puts a process of its own into the new cgroup, prepares the container from there, and only
//! then executes the container's program. What it opens on the way is not the container's. So a process
//! that comes into a traced cgroup from outside is *entering* until it executes a program; its children
//! are entering with it. Everybody else in a traced cgroup is a member.
//!
//! The kernel tells that a process comes a moment after it is there, and meanwhile it may run on another CPU: it is *unannounced*
//! then. In a cgroup that was traced from its first moment on, that is who is young and was never heard of.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::RawTracePointContext;
use whodunit_ebpf::{control, machine_counter};

use crate::cgroup::is_unified;
use crate::life::is_over;
use crate::maps::{CONTROL, ENTERING, MEMBERS, TRACED, control_word, count_machine, setting};
use crate::read::{
    Address, cgroup_id, cgroup_of, current_task, process_of, process_start_ns, read_or_zero,
};
use crate::run::on_tracepoint;

/// How long after its start a process may be unannounced, in nanoseconds. A runtime's process comes into the cgroup soon after it
/// was made; who is older is not suspected.
const YOUNG_NS: u64 = 10_000_000_000;

/// Cgroups that were traced from their first moment on, when every program of this file ran already.
#[map]
static BORN: LruHashMap<u64, u8> = LruHashMap::with_max_entries(4096, 0);

/// Remembers a cgroup that was made, and is traced from this moment on.
#[inline(always)]
pub(crate) fn remember_birth(cgroup: u64) {
    if control_word(control::COMPLETE) != 0 {
        let _ = BORN.insert(&cgroup, &0, 0);
    }
}

/// Whether a process of a traced cgroup, given by one of its tasks, is there already and was not announced yet. True of one that is
/// entering, too, which is announced before anybody is told to ask for it.
#[inline(always)]
pub(crate) fn is_unannounced(task: Address, cgroup: u64) -> bool {
    let started_ns = process_start_ns(task);
    // SAFETY: takes nothing and gives a number.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    started_ns >= setting!(started_ns)
        && now - started_ns < YOUNG_NS
        && BORN.get_ptr(cgroup).is_some()
        && !is_member(process_of(task), started_ns)
}

/// Whether a process of a traced cgroup, given by one of its tasks, is still a runtime's.
#[inline(always)]
pub(crate) fn is_in_setup(task: Address, cgroup: u64) -> bool {
    is_entering(process_of(task)) || is_unannounced(task, cgroup)
}

on_tracepoint! {
    /// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`: the child is in its
    /// cgroup already, which `clone3` may have chosen (`CLONE_INTO_CGROUP`, Linux 5.7).
    forked, forked_backup: place_child
}

#[inline(always)]
fn place_child(ctx: &RawTracePointContext) -> i32 {
    let child: Address = ctx.arg(1);
    let parent_process = (bpf_get_current_pid_tgid() >> 32) as u32;
    let child_process = process_of(child);
    if child_process == parent_process {
        return 0;
    }
    let child_cgroup = cgroup_of(child);
    if TRACED.get_ptr(child_cgroup).is_none() {
        return 0;
    }
    let parent = current_task();
    let parent_cgroup = cgroup_of(parent);
    let parent_inside = TRACED.get_ptr(parent_cgroup).is_some();
    if parent_inside && !is_in_setup(parent, parent_cgroup) {
        let _ = MEMBERS.insert(&child_process, &process_start_ns(child), 0);
    } else {
        enter(child_process);
    }
    0
}

on_tracepoint! {
    /// `cgroup_attach_task(struct cgroup *dst_cgrp, const char *path, struct task_struct *task,
    /// bool threadgroup)`.
    attached, attached_backup: place_attached
}

#[inline(always)]
fn place_attached(ctx: &RawTracePointContext) -> i32 {
    let cgroup: Address = ctx.arg(0);
    let task: Address = ctx.arg(2);
    if !is_unified(cgroup) {
        return 0;
    }
    let process = process_of(task);
    if TRACED.get_ptr(cgroup_id(cgroup)).is_none() {
        leave(process);
        let _ = MEMBERS.remove(&process);
        return 0;
    }
    let started_ns = process_start_ns(task);
    // Moved within its container, or here before us: nothing is known against it.
    if started_ns < setting!(started_ns) || is_member(process, started_ns) {
        return 0;
    }
    enter(process);
    0
}

on_tracepoint! {
    /// `sched_process_exit`: each thread; the process is over with its last.
    exited, exited_backup: forget_ended
}

#[inline(always)]
fn forget_ended(ctx: &RawTracePointContext) -> i32 {
    let task: Address = ctx.arg(0);
    if is_over(ctx, task) {
        let process = process_of(task);
        leave(process);
        if MEMBERS.get_ptr(&process).is_some() {
            let _ = MEMBERS.remove(&process);
        }
    }
    0
}

/// Whether a process is entering.
#[inline(always)]
pub(crate) fn is_entering(process: u32) -> bool {
    ENTERING.get_ptr(&process).is_some()
}

/// Whether a program, given by the path that was asked for, is a runtime that executes itself. The kernel closes the files of the old
/// program in the middle of an execution, by which a runtime sees that its process runs, and may put it into the cgroup before
/// the execution is over: what is told then is the runtime, and not the container's program.
#[inline(always)]
pub(crate) fn is_itself(path: Address) -> bool {
    let first: u64 = read_or_zero(path);
    let second: u64 = read_or_zero(path + 8);
    // Fifteen bytes with the NUL.
    let mask = u64::from_ne_bytes([255, 255, 255, 255, 255, 255, 255, 0]);
    first == u64::from_ne_bytes(*b"/proc/se") && second & mask == u64::from_ne_bytes(*b"lf/exe\0\0")
}

/// The running task is a member from now on.
#[inline(always)]
pub(crate) fn belongs() {
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    let _ = MEMBERS.insert(&process, &process_start_ns(current_task()), 0);
}

/// Whether anybody may be entering. Nearly always nobody is, and then nobody pays for a look-up.
///
/// The programs stamp each entry; the daemon copies the stamp once it has seen `ENTERING` empty after
/// it. A stamp that differs means that somebody came since. A counter would need an atomic addition,
/// which stable Rust does not have for this target.
#[inline(always)]
pub(crate) fn anybody() -> bool {
    control_word(control::ENTERED) != control_word(control::SETTLED)
}

/// A process is no longer entering.
#[inline(always)]
pub(crate) fn leave(process: u32) {
    if anybody() {
        let _ = ENTERING.remove(&process);
    }
}

#[inline(always)]
fn enter(process: u32) {
    if ENTERING.insert(&process, &0, 0).is_err() {
        count_machine(machine_counter::ENTERING_FULL);
    }
    // SAFETY: takes nothing and gives a number.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // After the insertion: whoever sees the old stamp saw the map without this process.
    let _ = CONTROL.set(control::ENTERED, &now, 0);
}

#[inline(always)]
fn is_member(process: u32, started_ns: u64) -> bool {
    match MEMBERS.get_ptr(&process) {
        // SAFETY: a map value.
        Some(member) => unsafe { *member == started_ns },
        None => false,
    }
}

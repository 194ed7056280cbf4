//! Who a task is: what every record about processes says of the processes in it.

use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel};
use whodunit_ebpf::{ANCESTORS, RawAncestor, RawProcess, machine_counter};

use crate::maps::{TRACED, count_machine, fate, offset};
use crate::read::{Address, cgroup_id, cgroup_of, current_task, process_of, read_or_zero};
use crate::registers::saved_registers;

/// Writes a field of a record in the ring.
macro_rules! put {
    ($record:ident . $field:ident, $value:expr) => {{
        let value = $value;
        // SAFETY: a record that was reserved in the ring, or a part of one.
        unsafe { core::ptr::addr_of_mut!((*$record).$field).write(value) }
    }};
}
pub(crate) use put;

/// The address of a part of a record.
macro_rules! part {
    ($record:ident . $field:ident) => {
        // SAFETY: a record that was reserved in the ring: the address is inside of it.
        unsafe { core::ptr::addr_of_mut!((*$record).$field) }
    };
}
pub(crate) use part;

/// The length of a name of a task, its NUL included (`TASK_COMM_LEN`, 16 since Linux 2.6).
const COMM: u32 = 16;

/// Nanoseconds since boot.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: takes nothing and gives a number.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Whether the accesses and deaths of a cgroup are captured.
#[inline(always)]
pub(crate) fn is_traced(cgroup: u64) -> bool {
    TRACED.get_ptr(cgroup).is_some()
}

/// Counts a record that found the ring of deaths full.
#[inline(always)]
pub(crate) fn lost() {
    count_machine(machine_counter::DEATHS_LOST);
}

/// The first thread of a task's process.
#[inline(always)]
pub(crate) fn leader_of(task: Address) -> Address {
    read_or_zero(task + offset!(task_group_leader) as u64)
}

/// The parent of a process, given by its first thread.
#[inline(always)]
pub(crate) fn parent_of(leader: Address) -> Address {
    leader_of(read_or_zero(leader + offset!(task_real_parent) as u64))
}

/// Fills in a process, given by any of its tasks; all zeroes for no task.
#[inline(always)]
pub(crate) fn describe(into: *mut RawProcess, task: Address) {
    let leader = leader_of(task);
    put!(into.started_ns, read_or_zero(leader + offset!(task_start_boottime) as u64));
    put!(into.cgroup, cgroup_of(leader));
    put!(into.pid, process_of(leader));
    let credentials: Address = read_or_zero(leader + offset!(task_cred) as u64);
    put!(into.uid, read_or_zero(credentials + offset!(cred_uid) as u64));
    let id: Address = read_or_zero(leader + offset!(task_thread_pid) as u64);
    let depth: u32 = read_or_zero(id + offset!(pid_level) as u64);
    put!(into.namespace_depth, depth);
    // Each number is a `struct upid`, which ends with a pointer.
    let stride = offset!(upid_ns) as u64 + 8;
    let number = id + offset!(pid_numbers) as u64 + u64::from(depth) * stride;
    put!(into.namespace_pid, read_or_zero(number + offset!(upid_nr) as u64));
    name(part!(into.comm), leader);
}

/// Fills in a step up, given by the first thread of that process; all zeroes for none.
#[inline(always)]
pub(crate) fn describe_ancestor(into: *mut RawAncestor, leader: Address) {
    put!(into.started_ns, read_or_zero(leader + offset!(task_start_boottime) as u64));
    put!(into.cgroup, cgroup_of(leader));
    put!(into.pid, process_of(leader));
    put!(into.reserved, 0);
    name(part!(into.comm), leader);
}

/// Fills in the parents of a process.
#[inline(always)]
pub(crate) fn describe_ancestors(into: *mut [RawAncestor; ANCESTORS], task: Address) {
    let mut leader = leader_of(task);
    for index in 0..ANCESTORS {
        // The parent of the first process is the idle task, whose number is 0 and whose parent is itself.
        leader = parent_of(leader);
        // SAFETY: the index is below the length.
        let ancestor = unsafe { into.cast::<RawAncestor>().add(index) };
        describe_ancestor(ancestor, leader);
    }
}

/// Reads the name of a task; NULs where it cannot be read.
#[inline(always)]
fn name(into: *mut [u8; 16], task: Address) {
    let from = (task + offset!(task_comm) as u64) as *const core::ffi::c_void;
    // SAFETY: there are 16 bytes, which the helper fills in any case.
    unsafe {
        bpf_probe_read_kernel(into.cast(), COMM, from);
    }
}

/// Number and first argument of the system call that the running task is in. (-1, 0) where that cannot be known.
#[inline(always)]
pub(crate) fn system_call() -> (i32, i64) {
    let registers = saved_registers();
    if registers == 0 {
        return (-1, 0);
    }
    let number: u64 = read_or_zero(registers + u64::from(fate!(syscall_number)));
    let argument: u64 = read_or_zero(registers + u64::from(fate!(argument_0)));
    (number as i32, i64::from(argument as i32))
}

/// The cgroup of a task in the hierarchy that has the memory controller; 0 where there is none.
#[inline(always)]
pub(crate) fn memory_state_of(task: Address) -> Address {
    let set: Address = read_or_zero(task + offset!(task_cgroups) as u64);
    let slot = offset!(css_set_subsys) as u64 + 8 * u64::from(fate!(memory_controller));
    read_or_zero(set + slot)
}

/// Id of the cgroup that a controller's state belongs to.
#[inline(always)]
pub(crate) fn cgroup_of_state(state: Address) -> u64 {
    cgroup_id(read_or_zero(state + offset!(css_cgroup) as u64))
}

/// Flags of the running task (`PF_*`).
#[inline(always)]
pub(crate) fn running_flags() -> u32 {
    read_or_zero(current_task() + offset!(task_flags) as u64)
}

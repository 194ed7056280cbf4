//! Reading the kernel's structures. Every offset comes from `LAYOUT`; a read that
//! fails gives zero, which is no address of anything.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel};

use crate::maps::offset;

/// Address of a kernel structure; 0 is none.
pub(crate) type Address = u64;

/// Reads an integer at an address of the kernel; zero where that cannot be read. The helper clears what
/// it could not fill (`copy_from_kernel_nofault` in `kernel/trace/bpf_trace.c`), so there is nothing to
/// branch on, and the verifier has half the ways to follow.
#[inline(always)]
pub(crate) fn read_or_zero<T: Integer>(address: Address) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper fails instead of faulting and fills the value in any case; every bit pattern
    // is an integer.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const c_void,
        );
        value.assume_init()
    }
}

/// The integers that structures are made of.
pub(crate) trait Integer {}
impl Integer for u16 {}
impl Integer for u32 {}
impl Integer for i32 {}
impl Integer for u64 {}
impl Integer for i64 {}

/// The running task.
#[inline(always)]
pub(crate) fn current_task() -> Address {
    // SAFETY: takes nothing and gives the address of the running task.
    unsafe { bpf_get_current_task() }
}

/// Where a path begins: a dentry in a mount.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) mount: Address,
    pub(crate) dentry: Address,
}

impl Place {
    /// Reads a `struct path`.
    #[inline(always)]
    pub(crate) fn read(path: Address) -> Place {
        Place {
            mount: read_or_zero(path + offset!(path_mnt) as u64),
            dentry: read_or_zero(path + offset!(path_dentry) as u64),
        }
    }
}

/// The `struct file` behind a descriptor of a task; 0 where there is none.
#[inline(always)]
pub(crate) fn file_of_descriptor(task: Address, descriptor: u32) -> Address {
    let files: Address = read_or_zero(task + offset!(task_files) as u64);
    let table: Address = read_or_zero(files + offset!(files_fdt) as u64);
    let slots: Address = read_or_zero(table + offset!(fdtable_fd) as u64);
    if slots == 0 {
        return 0;
    }
    read_or_zero(slots + 8 * u64::from(descriptor))
}

/// The working directory of a task.
#[inline(always)]
pub(crate) fn working_directory(task: Address) -> Place {
    let fs: Address = read_or_zero(task + offset!(task_fs) as u64);
    Place::read(fs + offset!(fs_pwd) as u64)
}

/// The mount namespace of a task.
#[inline(always)]
pub(crate) fn mount_namespace(task: Address) -> Address {
    let nsproxy: Address = read_or_zero(task + offset!(task_nsproxy) as u64);
    if nsproxy == 0 {
        return 0;
    }
    read_or_zero(nsproxy + offset!(nsproxy_mnt_ns) as u64)
}

/// When the process of a task started, in nanoseconds since boot.
#[inline(always)]
pub(crate) fn process_start_ns(task: Address) -> u64 {
    let leader: Address = read_or_zero(task + offset!(task_group_leader) as u64);
    read_or_zero(leader + offset!(task_start_boottime) as u64)
}

/// Process id of a task.
#[inline(always)]
pub(crate) fn process_of(task: Address) -> u32 {
    read_or_zero(task + offset!(task_tgid) as u64)
}

/// Id of the cgroup of a task in the v2 hierarchy.
#[inline(always)]
pub(crate) fn cgroup_of(task: Address) -> u64 {
    let set: Address = read_or_zero(task + offset!(task_cgroups) as u64);
    let cgroup: Address = read_or_zero(set + offset!(css_set_dfl_cgrp) as u64);
    cgroup_id(cgroup)
}

/// Id of a cgroup.
#[inline(always)]
pub(crate) fn cgroup_id(cgroup: Address) -> u64 {
    let node: Address = read_or_zero(cgroup + offset!(cgroup_kn) as u64);
    if node == 0 {
        return 0;
    }
    read_or_zero(node + offset!(kernfs_node_id) as u64)
}

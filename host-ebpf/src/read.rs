//! Reading the kernel's structures. Every offset comes from `LAYOUT`; a read that
//! fails gives zero, which is no address of anything.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user,
};

use crate::maps::{offset, setting};

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

/// What structures are made of: integers, and pairs of them.
pub(crate) trait Integer {}
impl Integer for u8 {}
impl Integer for u16 {}
impl Integer for u32 {}
impl Integer for i32 {}
impl Integer for u64 {}
impl Integer for [u64; 2] {}

/// Reads a word of a structure whose type the verifier knows: a plain load, which the kernel makes
/// safe (`PROBE_MEM`). The offset is a constant by the time the program is verified.
///
/// `structure` must come from the kernel with its type, as the arguments of a typed tracepoint do.
#[inline(always)]
pub(crate) fn load(structure: Address, offset: u32) -> u64 {
    // SAFETY: the verifier refuses the program if this is no member of the structure.
    unsafe { core::ptr::read_volatile((structure as usize + offset as usize) as *const u64) }
}

/// Reads a word of the running task, or of what is reached from there by this function alone: a plain
/// load where the task has its type, and a helper's where it has none. The verifier knows the setting
/// and drops the other way.
#[inline(always)]
pub(crate) fn task_word(structure: Address, offset: usize) -> u64 {
    if setting!(typed_task) != 0 {
        load(structure, offset as u32)
    } else {
        read_or_zero(structure + offset as u64)
    }
}

/// The running task, with its type where the kernel gives it (Linux 5.11).
#[inline(always)]
pub(crate) fn current_task() -> Address {
    if setting!(typed_task) != 0 {
        // SAFETY: takes nothing and gives the address of the running task.
        unsafe { bpf_get_current_task_btf() as Address }
    } else {
        // SAFETY: as above.
        unsafe { bpf_get_current_task() }
    }
}

/// Reads a word of the running process's memory; zero where that cannot be read.
#[inline(always)]
pub(crate) fn user_word(address: Address) -> u64 {
    let mut value = MaybeUninit::<u64>::uninit();
    // SAFETY: the helper fails instead of faulting and fills the value in any case.
    unsafe {
        bpf_probe_read_user(value.as_mut_ptr().cast(), 8, address as *const c_void);
        value.assume_init()
    }
}

/// Where a path begins: a dentry in a mount.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) mount: Address,
    pub(crate) dentry: Address,
}

impl Place {
    /// Reads a `struct path`, which is two pointers.
    #[inline(always)]
    pub(crate) fn read(path: Address) -> Place {
        let pointers: [u64; 2] = read_or_zero(path);
        let mount_first = offset!(path_mnt) < offset!(path_dentry);
        if mount_first {
            Place { mount: pointers[0], dentry: pointers[1] }
        } else {
            Place { mount: pointers[1], dentry: pointers[0] }
        }
    }
}

/// The `struct file` behind a descriptor of the running task; 0 where there is none.
#[inline(always)]
pub(crate) fn file_of_descriptor(descriptor: u32) -> Address {
    let files = task_word(current_task(), offset!(task_files));
    if files == 0 {
        return 0;
    }
    let table = task_word(files, offset!(files_fdt));
    let slots = task_word(table, offset!(fdtable_fd));
    read_or_zero(slots + 8 * u64::from(descriptor))
}

/// The working directory of the running task.
#[inline(always)]
pub(crate) fn working_directory() -> Place {
    place_of_task(offset!(fs_pwd))
}

/// The root of the running task.
#[inline(always)]
pub(crate) fn root() -> Place {
    place_of_task(offset!(fs_root))
}

#[inline(always)]
fn place_of_task(offset: usize) -> Place {
    let fs = task_word(current_task(), offset!(task_fs));
    if fs == 0 {
        return Place { mount: 0, dentry: 0 };
    }
    Place {
        mount: task_word(fs, offset + offset!(path_mnt)),
        dentry: task_word(fs, offset + offset!(path_dentry)),
    }
}

/// The mount namespace of the running task.
#[inline(always)]
pub(crate) fn mount_namespace(task: Address) -> Address {
    let nsproxy = task_word(task, offset!(task_nsproxy));
    if nsproxy == 0 {
        return 0;
    }
    task_word(nsproxy, offset!(nsproxy_mnt_ns))
}

/// Inode number of a mount namespace.
#[inline(always)]
pub(crate) fn namespace_number(namespace: Address) -> u32 {
    let number_at = offset!(mnt_namespace_common) + offset!(ns_common_inum);
    read_or_zero(namespace + number_at as u64)
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

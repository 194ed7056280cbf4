//! Cgroups made and removed. A child of a traced or watched cgroup is traced from its first moment on,
//! so that nothing that happens in it is missed while the daemon finds out what it is.

use aya_ebpf::bindings::BPF_RB_FORCE_WAKEUP;
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_boot_ns, bpf_probe_read_kernel_str, bpf_ringbuf_output,
};
use aya_ebpf::programs::RawTracePointContext;
use whodunit_ebpf::{PATH_MAX, RawCgroup, counter, machine_counter, record_kind};

use crate::maps::{LIFECYCLE, TRACED, WATCHED, count_machine, occupy, offset, vacate};
use crate::read::{Address, cgroup_id, read_or_zero};
use crate::run::on_tracepoint;
use crate::setup;

/// `BPF_NOEXIST` of `include/uapi/linux/bpf.h`: only make a new entry.
const NO_EXIST: u64 = 1;

on_tracepoint! {
    /// `cgroup_mkdir(struct cgroup *cgrp, const char *path)`.
    cgroup_made, cgroup_made_backup: tell_made
}

#[inline(always)]
fn tell_made(ctx: &RawTracePointContext) -> i32 {
    let cgroup: Address = ctx.arg(0);
    if !is_unified(cgroup) {
        return 0;
    }
    let parent = parent_id(cgroup);
    if TRACED.get_ptr(parent).is_none() && WATCHED.get_ptr(parent).is_none() {
        return 0;
    }
    let id = cgroup_id(cgroup);
    let traced = TRACED.insert(&id, &[0; counter::COUNT], NO_EXIST).is_ok();
    if traced {
        setup::remember_birth(id);
    } else {
        count_machine(machine_counter::CGROUPS_FULL);
    }
    send(record_kind::CGROUP_MADE, traced, id, parent, ctx.arg(1));
    0
}

on_tracepoint! {
    /// `cgroup_rmdir(struct cgroup *cgrp, const char *path)`.
    cgroup_gone, cgroup_gone_backup: tell_gone
}

#[inline(always)]
fn tell_gone(ctx: &RawTracePointContext) -> i32 {
    let cgroup: Address = ctx.arg(0);
    if !is_unified(cgroup) {
        return 0;
    }
    let id = cgroup_id(cgroup);
    if TRACED.get_ptr(id).is_none() && WATCHED.get_ptr(id).is_none() {
        return 0;
    }
    send(record_kind::CGROUP_GONE, false, id, parent_id(cgroup), ctx.arg(1));
    0
}

/// Whether a cgroup is of the v2 hierarchy, whose `hierarchy_id` is 0. The v1 ones fire the same
/// tracepoints.
#[inline(always)]
pub(crate) fn is_unified(cgroup: Address) -> bool {
    let root: Address = read_or_zero(cgroup + offset!(cgroup_root) as u64);
    root != 0 && read_or_zero::<i32>(root + offset!(cgroup_root_hierarchy_id) as u64) == 0
}

/// Id of a cgroup's parent; 0 for the root.
#[inline(always)]
fn parent_id(cgroup: Address) -> u64 {
    let own_state = cgroup + offset!(cgroup_self) as u64;
    let parent_state: Address = read_or_zero(own_state + offset!(css_parent) as u64);
    if parent_state == 0 {
        return 0;
    }
    cgroup_id(parent_state - offset!(cgroup_self) as u64)
}

#[inline(always)]
fn send(kind: u16, traced: bool, id: u64, parent: u64, path: Address) {
    let Some(scratch) = occupy() else {
        count_machine(machine_counter::LIFECYCLE_LOST);
        return;
    };
    let begin = scratch.cast::<u8>();
    // SAFETY: a map value of this CPU with room for the record and a path.
    let length = unsafe {
        let text = begin.add(size_of::<RawCgroup>());
        bpf_probe_read_kernel_str(text.cast(), PATH_MAX as u32, path as *const _)
    };
    let path_length = if length < 0 { 0 } else { length as u32 & (2 * PATH_MAX as u32 - 1) };
    // SAFETY: as above; the ring is one of this program. Cgroups are rare and waited for: wake.
    let sent = unsafe {
        begin.cast::<RawCgroup>().write(RawCgroup {
            kind,
            traced: u16::from(traced),
            path_length,
            time_ns: bpf_ktime_get_boot_ns(),
            cgroup: id,
            parent,
        });
        bpf_ringbuf_output(
            core::ptr::addr_of!(LIFECYCLE).cast_mut().cast(),
            begin.cast(),
            size_of::<RawCgroup>() as u64 + u64::from(path_length),
            u64::from(BPF_RB_FORCE_WAKEUP),
        )
    };
    vacate(scratch);
    if sent != 0 {
        count_machine(machine_counter::LIFECYCLE_LOST);
    }
}

//! Processes that the kernel kills for want of memory: whom, in whose allocation, and which memory was full.

use aya_ebpf::bindings::BPF_RB_FORCE_WAKEUP;
use aya_ebpf::programs::RawTracePointContext;
use whodunit_ebpf::{MEMORY_LEVELS, RawMemory, RawVictim, fate_kind};

use crate::maps::{DEATHS, fate, offset};
use crate::read::{Address, current_task, process_of, read_or_zero};
use crate::run::on_tracepoint;
use crate::task::{
    cgroup_of_state, describe, describe_ancestors, lost, memory_state_of, now, part, put,
};

on_tracepoint! {
    /// `oom:mark_victim`: `(int pid)` up to Linux 6.7, `(struct task_struct *task, uid_t uid)` since 6.8. In the context of the
    /// task whose allocation failed. The SIGKILL of the kernel comes before it.
    oom_victim, oom_victim_backup: tell_victim
}

#[inline(always)]
fn tell_victim(ctx: &RawTracePointContext) -> i32 {
    let first: u64 = ctx.arg(0);
    let Some(mut entry) = DEATHS.reserve::<RawVictim>(0) else {
        lost();
        return 0;
    };
    let record = entry.as_mut_ptr();
    let victim: Address = if fate!(victim_is_task) != 0 { first } else { 0 };
    let trigger = current_task();
    put!(record.kind, fate_kind::OOM_VICTIM);
    put!(record.flags, 0);
    put!(record.pid, if victim == 0 { first as u32 } else { process_of(victim) });
    put!(record.time_ns, now());
    describe(part!(record.victim), victim);
    describe(part!(record.trigger), trigger);
    describe_ancestors(part!(record.ancestors), trigger);
    memory_levels(part!(record.levels), trigger);
    memory_levels(part!(record.victim_levels), victim);
    entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
    0
}

/// Fills in the memory cgroups of a task, from its own upward; all zeroes for no task. Which of them was full is the daemon's to say.
#[inline(always)]
fn memory_levels(into: *mut [RawMemory; MEMORY_LEVELS], task: Address) {
    let mut state = if fate!(has_memory) != 0 && task != 0 { memory_state_of(task) } else { 0 };
    for index in 0..MEMORY_LEVELS {
        // SAFETY: the index is below the length.
        let level = unsafe { into.cast::<RawMemory>().add(index) };
        // The state is the first member of `struct mem_cgroup` on every kernel, and its offset says so.
        let memory = if state == 0 { 0 } else { state - offset!(mem_cgroup_css) as u64 };
        let counter = memory + offset!(mem_cgroup_memory) as u64;
        put!(level.cgroup, if state == 0 { 0 } else { cgroup_of_state(state) });
        put!(level.usage_pages, read_or_zero(counter + offset!(page_counter_usage) as u64));
        put!(level.limit_pages, read_or_zero(counter + offset!(page_counter_max) as u64));
        put!(
            level.kills_all,
            u64::from(read_or_zero::<u8>(memory + offset!(mem_cgroup_oom_group) as u64) != 0)
        );
        if state != 0 {
            state = read_or_zero(state + offset!(css_parent) as u64);
        }
    }
}

//! The registers that a task came into the kernel with: which system call it is in, and with what.
//!
//! From Linux 5.15 on a helper gives them. Before, they are where the kernel puts them on the task's stack, as far
//! above its bottom for one task as for any other. How far is no offset that BTF knows, so the daemon has
//! `find_registers` look once, when it starts.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use whodunit_ebpf::control;

use crate::maps::{CONTROL, control_word, fate, offset};
use crate::read::{Address, current_task, read_or_zero};

/// `sys_exit(struct pt_regs *regs, long ret)`: those are the registers of the call that is over. Attached for a
/// moment only, and not where the kernel has the helper.
#[raw_tracepoint]
pub fn find_registers(ctx: RawTracePointContext) -> i32 {
    let registers: Address = ctx.arg(0);
    let stack = stack();
    if stack != 0 && registers > stack {
        let _ = CONTROL.set(control::REGISTERS, &(registers - stack), 0);
    }
    0
}

/// The registers that the running task came into the kernel with; 0 where nobody knows where they are.
#[inline(always)]
pub(crate) fn saved_registers() -> Address {
    // The verifier knows the setting: where the kernel lacks the helpers, it never sees the calls.
    if fate!(has_registers) != 0 {
        // SAFETY: the helper takes the running task and gives its saved registers.
        return unsafe { bpf_task_pt_regs(bpf_get_current_task_btf().cast()) as Address };
    }
    match control_word(control::REGISTERS) {
        0 => 0,
        distance => stack() + distance,
    }
}

/// The bottom of the running task's stack.
#[inline(always)]
fn stack() -> Address {
    read_or_zero(current_task() + offset!(task_stack) as u64)
}

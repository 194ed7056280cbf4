//! Nobody else gets the CPU while a program of ours runs, so that no other program finds the room of this CPU in use.
//!
//! The kernel may take the CPU away from a process in the middle of a program of the exact tier, and from Linux 6.19 on of any. So a
//! program holds on to its CPU from its first instruction to its last, by functions that the kernel has since
//! Linux 6.10. What it cannot end so: the kernel counts a program as running a little longer, and whoever was to have the CPU
//! meanwhile gets it right then; until it is back the kernel keeps others there from that program (`syscall_exit_kept`).
//!
//! The loader knows the functions' numbers. Here stands a call of a number that no helper has; the loader puts the function there,
//! or nothing where the kernel lacks it.

use whodunit_ebpf::preemption::{ALLOW, FORBID};

/// Runs a program so. No part of it may be a tail call.
#[inline(always)]
pub(crate) fn undisturbed(program: impl FnOnce() -> i32) -> i32 {
    call::<FORBID>();
    let result = program();
    call::<ALLOW>();
    result
}

#[inline(always)]
fn call<const NUMBER: usize>() {
    // SAFETY: the number becomes the operand of a call instruction, which the loader replaces; the function takes and gives nothing.
    unsafe { core::mem::transmute::<usize, unsafe extern "C" fn()>(NUMBER)() }
}

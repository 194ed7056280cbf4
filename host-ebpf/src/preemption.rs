//! Nobody else gets the CPU while a program of ours runs.
//!
//! The kernel lets no program run on a CPU on which it runs already, and from Linux 6.19 on it takes the CPU away from a process in
//! the middle of a program like anywhere else: until that process is back, the program would miss what all others
//! there do. So a program holds on to its CPU from its first instruction to its last, by functions that the kernel has since
//! Linux 6.10. It is the loader that knows their numbers: here stands a call of a number that no helper has, and
//! the loader puts the function there, or nothing where the kernel lacks it.

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

//! Nobody else gets the CPU while a program of ours runs: no other one finds the room of this CPU in use, and none is missed.
//!
//! The kernel may take the CPU away from a process in the middle of a program on a function, and from Linux 6.19 on of one on a
//! tracepoint. Until that process is back, the kernel keeps everybody else on that CPU from that program. So a
//! program holds on to its CPU from its first instruction to its last, by functions that the kernel has since Linux 6.10.
//! Whoever was to have the CPU meanwhile would get it the moment that the program lets go, which is before the kernel counts it as
//! over: so it lets go with interrupts off (Linux 6.14), when the kernel gives the CPU to nobody. It does so at
//! the next occasion, which is behind the program. What is left are a few instructions at both ends.
//!
//! The loader knows the functions' numbers. Here stand calls of numbers that no helper has; the loader puts the functions there,
//! or nothing where the kernel lacks them or a program needs none.

use core::mem::{MaybeUninit, transmute};

use whodunit_ebpf::preemption::{ON_FUNCTIONS, ON_TRACEPOINTS};

/// Runs a program on a tracepoint so. No part of it may be a tail call.
#[inline(always)]
pub(crate) fn undisturbed(program: impl FnOnce() -> i32) -> i32 {
    call::<{ ON_TRACEPOINTS[0] }>();
    let result = program();
    let mut flags = MaybeUninit::uninit();
    call_with::<{ ON_TRACEPOINTS[2] }>(&mut flags);
    call::<{ ON_TRACEPOINTS[1] }>();
    call_with::<{ ON_TRACEPOINTS[3] }>(&mut flags);
    result
}

/// Runs a program on a function so.
#[inline(always)]
pub(crate) fn undisturbed_on_function(program: impl FnOnce() -> i32) -> i32 {
    call::<{ ON_FUNCTIONS[0] }>();
    let result = program();
    let mut flags = MaybeUninit::uninit();
    call_with::<{ ON_FUNCTIONS[2] }>(&mut flags);
    call::<{ ON_FUNCTIONS[1] }>();
    call_with::<{ ON_FUNCTIONS[3] }>(&mut flags);
    result
}

#[inline(always)]
fn call<const NUMBER: usize>() {
    // SAFETY: the number becomes the operand of a call instruction, which the loader replaces; the function takes and gives nothing.
    unsafe { transmute::<usize, unsafe extern "C" fn()>(NUMBER)() }
}

#[inline(always)]
fn call_with<const NUMBER: usize>(flags: &mut MaybeUninit<u64>) {
    // SAFETY: as above; the function takes a word on the stack, which it alone writes and reads.
    unsafe { transmute::<usize, unsafe extern "C" fn(*mut u64)>(NUMBER)(flags.as_mut_ptr()) }
}

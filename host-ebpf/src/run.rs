//! How every program runs: undisturbed, measured where that is wanted, and once, though there may be two of it on a tracepoint.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use whodunit_ebpf::{counter, machine_counter};

use crate::backup;
use crate::maps::{count_machine, setting};
use crate::preemption::{undisturbed, undisturbed_on_function};
use crate::record::{add, traced_counters};

/// Declares the two programs of a raw tracepoint that run this function.
macro_rules! on_tracepoint {
    ($(#[$document:meta])* $first:ident, $second:ident: $body:path) => {
        $(#[$document])*
        #[aya_ebpf::macros::raw_tracepoint]
        pub fn $first(ctx: aya_ebpf::programs::RawTracePointContext) -> i32 {
            const PROGRAM: u32 = whodunit_ebpf::backup::number(stringify!($first));
            $crate::run::first(PROGRAM, || $body(&ctx))
        }

        /// The same once more, for what the kernel kept from the first.
        #[aya_ebpf::macros::raw_tracepoint]
        pub fn $second(ctx: aya_ebpf::programs::RawTracePointContext) -> i32 {
            const PROGRAM: u32 = whodunit_ebpf::backup::number(stringify!($first));
            $crate::run::second(PROGRAM, || $body(&ctx))
        }
    };
}
pub(crate) use on_tracepoint;

/// Runs the first program of a tracepoint.
#[inline(always)]
pub(crate) fn first(program: u32, body: impl FnOnce() -> i32) -> i32 {
    undisturbed(|| with_word(program, body))
}

/// Runs the second, where the first did not.
#[inline(always)]
pub(crate) fn second(program: u32, body: impl FnOnce() -> i32) -> i32 {
    undisturbed(|| without_word(program, body))
}

/// Runs the first program of a function.
#[inline(always)]
pub(crate) fn first_on_function(program: u32, body: impl FnOnce() -> i32) -> i32 {
    undisturbed_on_function(|| with_word(program, body))
}

/// Runs the second, where the first did not.
#[inline(always)]
pub(crate) fn second_on_function(program: u32, body: impl FnOnce() -> i32) -> i32 {
    undisturbed_on_function(|| without_word(program, body))
}

#[inline(always)]
fn with_word(program: u32, body: impl FnOnce() -> i32) -> i32 {
    if setting!(backup) != 0 {
        backup::leave_word(program);
    }
    measured(body)
}

#[inline(always)]
fn without_word(program: u32, body: impl FnOnce() -> i32) -> i32 {
    if backup::takes_word(program) {
        return 0;
    }
    count_machine(machine_counter::TAKEN_UP);
    measured(body)
}

/// Runs a program of which there is one.
#[inline(always)]
pub(crate) fn alone(body: impl FnOnce() -> i32) -> i32 {
    undisturbed(|| measured(body))
}

/// Runs a program on a function of which there is one.
#[inline(always)]
pub(crate) fn on_function(body: impl FnOnce() -> i32) -> i32 {
    undisturbed_on_function(|| measured(body))
}

/// Adds up how long it takes for the running task's cgroup.
#[inline(always)]
fn measured(body: impl FnOnce() -> i32) -> i32 {
    let begun = if setting!(measure) != 0 { now() } else { 0 };
    let result = body();
    if begun != 0
        && let Some((_, counters)) = traced_counters()
    {
        add(counters, counter::TIME_NS, now() - begun);
    }
    result
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes nothing and gives a number.
    unsafe { bpf_ktime_get_ns() }
}

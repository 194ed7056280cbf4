//! The kernel programs of whodunit.
#![no_std]
#![no_main]

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

/// Placeholder of the object's shape until the probes land.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn exec(_: RawTracePointContext) -> i32 {
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

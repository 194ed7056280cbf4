//! The kernel programs. One file a probe; the other files are what probes share.
//!
//! | file | owns |
//! |---|---|
//! | `maps.rs` | maps, rings, settings |
//! | `read.rs` | reading the kernel's structures by their offsets |
//! | `walk.rs` | from a file's dentry to the names of its path |
//! | `record.rs` | one file access: counted, absorbed or sent |
//! | `syscall.rs`, `exec.rs` | file accesses |
//! | `run.rs` | how every program runs |
//! | `backup.rs` | the second program of each tracepoint |
//! | `interpreter.rs`, `beneath.rs`, `ring.rs` | file accesses that no system call tells: the exact tier |
//! | `cgroup.rs` | cgroups made and removed |
//! | `life.rs` | processes made, executing a program, ended |
//! | `refused.rs` | the program that a process could not execute |
//! | `signal.rs` | signals generated and delivered |
//! | `oom.rs` | processes killed for want of memory |
//! | `registers.rs` | the registers that a task came into the kernel with |
//! | `task.rs` | who a task is: its identity and its parents |
//! | `setup.rs` | which processes are still a container runtime's |
//! | `whoami.rs` | the daemon's own cgroup |
//! | `preemption.rs` | keeping the CPU while a program runs |
//!
//! `unsafe` here means one of three things, and each block says which: a map's value is reached through
//! the pointer that a look-up gave (valid for the program's run), kernel memory is read by a helper that
//! fails instead of faulting, or a static is read that the loader filled in before the program was
//! verified.
#![no_std]
#![no_main]

mod backup;
mod beneath;
mod cgroup;
mod exec;
mod interpreter;
mod life;
mod maps;
mod oom;
mod preemption;
mod read;
mod record;
mod refused;
mod registers;
mod ring;
mod run;
mod setup;
mod signal;
mod syscall;
mod task;
mod walk;
mod whoami;

/// The helpers that the programs call are offered to GPL programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

//! The program that a process could not execute, kept until the process ends.
//!
//! Whoever fails to execute a program mostly exits with 126 or 127, and so may any other program: the record of the failure
//! tells one from the other. It is sent with such an end only, so that a search of PATH, or a loop of failures, sends nothing.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user_str};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray};
use whodunit_ebpf::{PROGRAM_MAX, RawProgram, fate_kind};

use crate::maps::DEATHS;
use crate::read::{Address, process_of};
use crate::task::{describe, lost, now, part, put};

/// A failed `execve`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Refusal {
    time_ns: u64,
    /// A negative errno.
    outcome: i32,
    /// Bytes of the path, the final NUL included.
    path_length: u32,
    path: [u8; PROGRAM_MAX],
}

/// The last one of each process, by its id. An entry goes with its process, or when the process executes something after all.
#[map]
static REFUSALS: LruHashMap<u32, Refusal> = LruHashMap::with_max_entries(1024, 0);

/// Where one is put together: the stack has no room for it.
#[map]
static REFUSAL: PerCpuArray<Refusal> = PerCpuArray::with_max_entries(1, 0);

/// `wait` status of a process that exited with 126 or 127, which is what shells and `execvp`'s users exit with.
const CANNOT_EXECUTE: u32 = 126 << 8;
const NOT_FOUND: u32 = 127 << 8;

/// Remembers that the running process could not execute the program of that path, which is in its memory. In the exit of the
/// system call.
#[inline(always)]
pub(crate) fn remember(path: Address, outcome: i64) {
    let Some(room) = REFUSAL.get_ptr_mut(0) else { return };
    let into = part!(room.path);
    // SAFETY: a map value of this CPU with so many bytes.
    let length =
        unsafe { bpf_probe_read_user_str(into.cast(), PROGRAM_MAX as u32, path as *const _) };
    put!(room.time_ns, now());
    put!(room.outcome, outcome as i32);
    put!(room.path_length, if length < 0 { 0 } else { length as u32 });
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: a map value of this CPU, filled in above. Where it cannot be remembered, the code is all there is.
    let _ = unsafe { REFUSALS.insert(&process, &*room, 0) };
}

/// Forgets what a process could not execute.
#[inline(always)]
pub(crate) fn forget(process: u32) {
    if REFUSALS.get_ptr(&process).is_some() {
        let _ = REFUSALS.remove(&process);
    }
}

/// Sends what an ending process could not execute, if it ends as one does then. Its own record comes next.
#[inline(always)]
pub(crate) fn tell(task: Address, status: u32) {
    let process = process_of(task);
    let Some(refusal) = REFUSALS.get_ptr(&process) else { return };
    if status == CANNOT_EXECUTE || status == NOT_FOUND {
        send(task, refusal);
    }
    let _ = REFUSALS.remove(&process);
}

#[inline(always)]
fn send(task: Address, refusal: *const Refusal) {
    let Some(mut entry) = DEATHS.reserve::<RawProgram>(0) else {
        lost();
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: a map value; nobody but the process, which is ending, writes to it.
    let (time_ns, outcome, path_length) =
        unsafe { ((*refusal).time_ns, (*refusal).outcome, (*refusal).path_length) };
    put!(record.kind, fate_kind::EXECUTED);
    put!(record.flags, 0);
    put!(record.path_length, path_length as u16);
    put!(record.outcome, outcome as i16);
    put!(record.time_ns, time_ns);
    describe(part!(record.process), task);
    let path = part!(record.path);
    // SAFETY: both have so many bytes.
    unsafe {
        let from = core::ptr::addr_of!((*refusal).path);
        bpf_probe_read_kernel(path.cast(), PROGRAM_MAX as u32, from.cast());
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

//! The second program of each tracepoint, for what the kernel kept from the first.
//!
//! From Linux 6.19 on, whoever loses the CPU in the few instructions around a program that nothing protects
//! (`preemption.rs`) keeps everybody else on that CPU from it. So a second program hangs behind it. The first leaves word for its task;
//! where there is none, the second does all that the first would have done, and counts that.
//!
//! The kernel counts what it kept from the first. What is more than the second took up was kept from both, and is lost.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use whodunit_ebpf::backup::{TASKS, WORDS};

/// Which task the first program of a pair saw and the second did not yet, by the pair and the lower bits of the task's number. One
/// word where there are no second programs: the daemon sets the size.
#[map]
static SEEN: Array<u64> = Array::with_max_entries(WORDS, 0);

/// Leaves word that the first program of this number ran for the running task.
#[inline(always)]
pub(crate) fn leave_word(program: u32) {
    let task = task();
    if let Some(word) = word(program, task) {
        // SAFETY: a map value.
        unsafe { word.write_volatile(task) };
    }
}

/// Whether the first program of this number left word for the running task, which is gone then.
#[inline(always)]
pub(crate) fn takes_word(program: u32) -> bool {
    let task = task();
    let Some(word) = word(program, task) else { return true };
    // SAFETY: a map value.
    unsafe {
        let left = word.read_volatile() == task;
        if left {
            word.write_volatile(0);
        }
        left
    }
}

/// The number of the running task, and a bit that tells the idle task from none.
#[inline(always)]
fn task() -> u64 {
    1 << 32 | u64::from(bpf_get_current_pid_tgid() as u32)
}

#[inline(always)]
fn word(program: u32, task: u64) -> Option<*mut u64> {
    SEEN.get_ptr_mut(program * TASKS + (task as u32 & (TASKS - 1)))
}

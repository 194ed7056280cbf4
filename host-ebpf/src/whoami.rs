//! The daemon's own cgroup, asked of the kernel: in a private cgroup namespace `/proc/self/cgroup` says
//! `0::/` and a pid namespace hides the process id. Never attached: the daemon runs it once, by
//! `BPF_PROG_TEST_RUN` (raw tracepoints, Linux 5.10), in its own context.

use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use whodunit_ebpf::control;

use crate::maps::CONTROL;
use crate::preemption::undisturbed;

#[raw_tracepoint]
pub fn whoami(_: RawTracePointContext) -> i32 {
    undisturbed(|| {
        // SAFETY: takes nothing and gives a number.
        let own = unsafe { bpf_get_current_cgroup_id() };
        let _ = CONTROL.set(control::OWN_CGROUP, &own, 0);
        0
    })
}

//! Where the running kernel keeps what: offsets from its BTF.
//!
//! A remembered offset would be right on one kernel and silently wrong on the next.

use std::path::Path;

use thiserror::Error;
use whodunit_ebpf::{ARGUMENTS, FateSettings, KernelLayout};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::btf::{Btf, BtfError};
use super::preemption::Holding;

/// Where the kernel describes its types (`CONFIG_DEBUG_INFO_BTF`, Linux 5.4).
const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// The registers that a task came into the kernel with, as what a kernel may not have.
const SAVED_REGISTERS: &str = "bpf_task_pt_regs helper";

/// Why there are no offsets at all.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// The kernel has no BTF, or it cannot be read.
    #[error(
        "the kernel describes its structures nowhere ({BTF_PATH} cannot be read): whodunit needs a \
         kernel built with CONFIG_DEBUG_INFO_BTF=y, as every current distribution's is"
    )]
    NoBtf(#[source] BtfError),
}

/// Where the kernel saves a system call's number and arguments: offsets in its saved registers, but for
/// one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CallLayout {
    pub(crate) number: u32,
    pub(crate) arguments: [u32; ARGUMENTS],
    pub(crate) compat_arguments: [u32; ARGUMENTS],
    /// Offset of `thread_info.status` in a task, where there is one.
    pub(crate) thread_status: u32,
    /// The register that holds the result, and `-ENOSYS` until there is one; `NO_RESULT` for none such.
    pub(crate) result: u32,
    /// `O_NOFOLLOW` (`include/uapi/asm-generic/fcntl.h` and each architecture's own).
    pub(crate) open_no_follow: u32,
}

/// The offsets of the running kernel, and which of them it does not have.
pub(crate) struct Layout {
    /// What the programs get. An absent member is 0 here and named in `absent`.
    pub(crate) kernel: KernelLayout,
    /// What it saves of a system call.
    pub(crate) call: CallLayout,
    /// Whether programs get the running task with its type (Linux 5.11).
    pub(crate) typed_task: bool,
    /// Whether a program may be taken off a function in which tasks sleep: the kernel keeps their way back
    /// (`bpf_tramp_image`, "bpf: Fix fexit trampoline" of Linux 5.12, 5.11.11 and 5.10.27).
    pub(crate) keeps_trampolines: bool,
    /// Whether the kernel takes the CPU away from a process in the middle of a program on a tracepoint (Linux 6.19).
    pub(crate) interrupts_tracepoints: bool,
    /// By what programs keep their CPU.
    pub(super) holding: Option<Holding>,
    /// Whether maps count against the limit of locked memory (`bpf_map_memory`, until Linux 5.10).
    pub(crate) locks_maps: bool,
    /// What the programs about processes get.
    pub(crate) fate: FateSettings,
    /// Members that this kernel does not have, as `structure.member`.
    absent: Vec<String>,
}

impl Layout {
    /// Reads the running kernel's BTF.
    pub(crate) fn of_running_kernel() -> Result<Layout, LayoutError> {
        let btf = Btf::from_file(Path::new(BTF_PATH)).map_err(LayoutError::NoBtf)?;
        Ok(Layout::of(&btf))
    }

    fn of(btf: &Btf) -> Layout {
        let mut absent = Vec::new();
        let mut find = |structure: &str, member: &str| {
            btf.offset_of(structure, member).unwrap_or_else(|| {
                absent.push(format!("{structure}.{member}"));
                0
            })
        };
        let offsets: Vec<u32> = KernelLayout::MEMBERS
            .iter()
            .map(|(structure, member)| find(structure, member))
            .collect();
        let kernel = KernelLayout::read_from_bytes(offsets.as_bytes())
            .expect("one offset for each member, checked where the layout is declared");
        #[cfg(target_arch = "x86_64")]
        let call = CallLayout {
            number: find("pt_regs", "orig_ax"),
            arguments: ["di", "si", "dx", "r10", "r8", "r9"].map(|name| find("pt_regs", name)),
            compat_arguments: ["bx", "cx", "dx", "si", "di", "bp"]
                .map(|name| find("pt_regs", name)),
            thread_status: find("task_struct", "thread_info") + find("thread_info", "status"),
            // Every way into the kernel begins with it (`arch/x86/entry/entry_64.S` and its like).
            result: find("pt_regs", "ax"),
            open_no_follow: 0o400_000,
        };
        // The first register holds the result by then; the kernel keeps its argument aside.
        #[cfg(target_arch = "aarch64")]
        let call = {
            let first = find("pt_regs", "regs");
            let mut arguments = std::array::from_fn(|index| first + 8 * index as u32);
            arguments[0] = find("pt_regs", "orig_x0");
            CallLayout {
                number: find("pt_regs", "syscallno"),
                result: whodunit_ebpf::NO_RESULT,
                arguments,
                open_no_follow: 0o100_000,
                ..CallLayout::default()
            }
        };
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let call = {
            absent.push("pt_regs (whodunit knows those of x86_64 and aarch64)".to_owned());
            CallLayout::default()
        };
        #[cfg(target_arch = "x86_64")]
        let syscall_number = btf.offset_of("pt_regs", "orig_ax");
        #[cfg(target_arch = "aarch64")]
        let syscall_number = btf.offset_of("pt_regs", "syscallno");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let syscall_number: Option<u32> = None;
        // What is not there is named like a member, so that a probe that needs it says so.
        let exit_gets = btf.tracepoint_pointers("sched_process_exit");
        let victim = btf.tracepoint_pointers("mark_victim");
        if victim.is_none() {
            absent.push("mark_victim tracepoint".to_owned());
        }
        let action_bytes = btf.size_of("k_sigaction");
        if action_bytes.is_none() {
            absent.push("k_sigaction size".to_owned());
        }
        let memory_controller = btf.value_of("cgroup_subsys_id", "memory_cgrp_id");
        let has_registers = syscall_number.is_some()
            && btf.value_of("bpf_func_id", "BPF_FUNC_task_pt_regs").is_some();
        if !has_registers {
            absent.push(SAVED_REGISTERS.to_owned());
        }
        let fate = FateSettings {
            action_bytes: action_bytes.unwrap_or(0),
            exit_tells_group: u32::from(exit_gets.is_some_and(|gets| gets.len() >= 2)),
            victim_is_task: u32::from(victim.is_some_and(|gets| gets.first() == Some(&true))),
            memory_controller: memory_controller.unwrap_or(0),
            has_registers: u32::from(has_registers),
            syscall_number: syscall_number.unwrap_or(0),
            has_memory: u32::from(memory_controller.is_some()),
            argument_0: call.arguments[0],
        };
        let typed_task = btf.mentions("BPF_FUNC_get_current_task_btf");
        let keeps_trampolines = btf.offset_of("bpf_tramp_image", "pcref").is_some();
        let locks_maps = btf.offset_of("bpf_map", "memory").is_some();
        let interrupts_tracepoints = release() >= (6, 19);
        Layout {
            kernel,
            call,
            typed_task,
            keeps_trampolines,
            interrupts_tracepoints,
            holding: Holding::find(btf, interrupts_tracepoints),
            locks_maps,
            fate,
            absent,
        }
    }

    /// Whether the programs have to be told where a task's saved registers are: no helper gives them.
    pub(crate) fn lacks_registers(&self) -> bool {
        self.fate.has_registers == 0
    }

    /// The programs know where a task's saved registers are, without a helper.
    pub(crate) fn registers_found(&mut self) {
        self.absent.retain(|absent| absent != SAVED_REGISTERS);
    }

    /// The first member of these structures that this kernel does not have.
    pub(crate) fn first_absent(&self, structures: &[&str]) -> Option<&str> {
        self.absent
            .iter()
            .find(|absent| {
                structures.iter().any(|structure| {
                    absent.strip_prefix(structure).is_some_and(|rest| rest.starts_with(['.', ' ']))
                })
            })
            .map(String::as_str)
    }
}

/// Version of the running kernel, as far as it has two numbers.
fn release() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers =
        release.split(|it: char| !it.is_ascii_digit()).map(|it| it.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_every_member() {
        let Ok(layout) = Layout::of_running_kernel() else {
            eprintln!("skipped: this kernel has no readable BTF");
            return;
        };
        assert_eq!(layout.absent, Vec::<String>::new());
        assert!(layout.keeps_trampolines);
        // The members of a union stand at its own offset; these two are known to be distinct.
        assert_ne!(layout.kernel.dentry_parent, layout.kernel.dentry_name);
        assert_ne!(layout.call.arguments[0], layout.call.arguments[1]);
    }
}

//! Where the running kernel keeps what: offsets from its BTF and from its tracepoint formats.
//!
//! A remembered offset would be right on one kernel and silently wrong on the next.

use std::path::Path;

use thiserror::Error;
use whodunit_ebpf::{FateSettings, KernelLayout};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::btf::{Btf, BtfError};

/// Where the kernel describes its types (`CONFIG_DEBUG_INFO_BTF`, Linux 5.4).
const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

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

/// The offsets of the running kernel, and which of them it does not have.
pub(crate) struct Layout {
    /// What the programs get. An absent member is 0 here and named in `absent`.
    pub(crate) kernel: KernelLayout,
    /// Offsets of the first two system call arguments in the saved registers.
    pub(crate) arguments: [u32; 2],
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
        let arguments = [find("pt_regs", "di"), find("pt_regs", "si")];
        // The first register holds the result by then; the kernel keeps its argument aside.
        #[cfg(target_arch = "aarch64")]
        let arguments = [find("pt_regs", "orig_x0"), find("pt_regs", "regs") + 8];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let arguments = {
            absent.push("pt_regs (whodunit knows those of x86_64 and aarch64)".to_owned());
            [0, 0]
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
        let fate = FateSettings {
            action_bytes: action_bytes.unwrap_or(0),
            exit_tells_group: u32::from(exit_gets.is_some_and(|gets| gets.len() >= 2)),
            victim_is_task: u32::from(victim.is_some_and(|gets| gets.first() == Some(&true))),
            memory_controller: memory_controller.unwrap_or(0),
            has_registers: u32::from(has_registers),
            syscall_number: syscall_number.unwrap_or(0),
            has_memory: u32::from(memory_controller.is_some()),
            argument_0: arguments[0],
        };
        Layout { kernel, arguments, fate, absent }
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

/// Offset of `ret` in the records of the `sys_exit_*` tracepoints, 0 where their format cannot be read.
/// All of them have one format (`kernel/trace/trace_syscalls.c`).
pub(crate) fn syscall_exit_ret(tracefs: &Path) -> u32 {
    std::fs::read_to_string(tracefs.join("events/syscalls/sys_exit_openat/format"))
        .ok()
        .and_then(|format| field_offset(&format, "ret"))
        .unwrap_or(0)
}

/// Offset of a field in a tracepoint's format, whose lines are like `field:long ret; offset:16;`, with
/// tabs in between.
fn field_offset(format: &str, wanted: &str) -> Option<u32> {
    format.lines().find_map(|line| {
        let mut parts = line.trim().split(';').map(str::trim);
        let declaration = parts.next()?.strip_prefix("field:")?;
        if declaration.rsplit([' ', '*']).next()? != wanted {
            return None;
        }
        parts.find_map(|part| part.strip_prefix("offset:"))?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let format = "name: sys_exit_openat\nformat:\n\
            \tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;\n\
            \tfield:char *ret_text;\toffset:32;\tsize:8;\tsigned:0;\n\
            \tfield:long ret;\toffset:16;\tsize:8;\tsigned:1;\n";
        assert_eq!(field_offset(format, "ret"), Some(16));
        assert_eq!(field_offset(format, "__syscall_nr"), Some(8));
        assert_eq!(field_offset(format, "text"), None);
        assert_eq!(field_offset("", "ret"), None);
    }

    #[test]
    fn the_running_kernel_has_every_member() {
        let Ok(layout) = Layout::of_running_kernel() else {
            eprintln!("skipped: this kernel has no readable BTF");
            return;
        };
        assert_eq!(layout.absent, Vec::<String>::new());
        // The members of a union stand at its own offset; these two are known to be distinct.
        assert_ne!(layout.kernel.dentry_parent, layout.kernel.dentry_name);
        assert_ne!(layout.arguments[0], layout.arguments[1]);
    }
}

//! The probes: which programs hang on which hooks, and what each needs from the kernel.
//!
//! A probe runs whole, or it says in one sentence why not. Only a real load tells: kernels refuse
//! programs for reasons that no feature list shows.

use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::{Program, ProgramError};

use super::layout::Layout;

/// A probe and whether it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStatus {
    /// Its name, as in documents, metrics and reports.
    pub name: &'static str,
    /// What it sees.
    pub sees: &'static str,
    /// Why it does not run, in one sentence. None if it does.
    pub reason: Option<String>,
}

impl ProbeStatus {
    /// Whether it runs.
    pub fn live(&self) -> bool {
        self.reason.is_none()
    }
}

struct Probe {
    name: &'static str,
    sees: &'static str,
    hooks: &'static [Hook],
    /// The kernel structures that its programs read.
    structures: &'static [&'static str],
}

enum Hook {
    /// A raw tracepoint. It must exist.
    Raw { program: &'static str, tracepoint: &'static str },
    /// The exit of a system call. Architectures newer than the call do not have it.
    SyscallExit { program: &'static str, syscall: &'static str, everywhere: bool },
}

const fn raw(program: &'static str, tracepoint: &'static str) -> Hook {
    Hook::Raw { program, tracepoint }
}

const fn exit(program: &'static str, syscall: &'static str) -> Hook {
    Hook::SyscallExit { program, syscall, everywhere: true }
}

const fn old_exit(program: &'static str, syscall: &'static str) -> Hook {
    Hook::SyscallExit { program, syscall, everywhere: false }
}

/// What every file access is made of.
const FILE_STRUCTURES: &[&str] = &[
    "task_struct",
    "files_struct",
    "fdtable",
    "fs_struct",
    "file",
    "path",
    "dentry",
    "qstr",
    "vfsmount",
    "mount",
    "inode",
    "super_block",
    "nsproxy",
    "pt_regs",
    "linux_binprm",
];

const CGROUP_STRUCTURES: &[&str] =
    &["cgroup", "cgroup_subsys_state", "cgroup_root", "kernfs_node", "css_set", "task_struct"];

/// What says who a process is, and who its parents are.
const PROCESS_STRUCTURES: &[&str] = &[
    "task_struct",
    "cred",
    "pid",
    "upid",
    "css_set",
    "cgroup",
    "kernfs_node",
    "signal_struct",
    "linux_binprm",
    "path",
    "mount",
    "vfsmount",
    "dentry",
    "nsproxy",
    "file",
];

/// Every probe of this build, in the order in which they are attached: who is whose comes first.
const PROBES: &[Probe] = &[
    Probe {
        name: "cgroup",
        sees: "containers made and removed",
        hooks: &[raw("cgroup_made", "cgroup_mkdir"), raw("cgroup_gone", "cgroup_rmdir")],
        structures: CGROUP_STRUCTURES,
    },
    // Before those of `setup`, which take a process off the entering ones when it executes a program and when it ends.
    Probe {
        name: "process",
        sees: "processes made, executing a program, and ended",
        hooks: &[
            raw("process_forked", "sched_process_fork"),
            raw("process_executed", "sched_process_exec"),
            raw("process_exited", "sched_process_exit"),
        ],
        structures: PROCESS_STRUCTURES,
    },
    Probe {
        name: "signal",
        sees: "signals, who sent them, and what became of them",
        hooks: &[
            raw("signal_generated", "signal_generate"),
            raw("signal_delivered", "signal_deliver"),
        ],
        structures: &[
            "task_struct",
            "cred",
            "pid",
            "upid",
            "css_set",
            "cgroup",
            "kernfs_node",
            "signal_struct",
            "sighand_struct",
            "k_sigaction",
            "sigaction",
            "kernel_siginfo",
        ],
    },
    Probe {
        name: "oom",
        sees: "processes that the kernel kills for want of memory",
        hooks: &[raw("oom_victim", "mark_victim")],
        structures: &[
            "task_struct",
            "cred",
            "pid",
            "upid",
            "css_set",
            "cgroup",
            "cgroup_subsys_state",
            "kernfs_node",
            "mark_victim",
            "mem_cgroup",
            "page_counter",
        ],
    },
    Probe {
        name: "setup",
        sees: "what a container runtime does before it executes the container's program",
        hooks: &[
            raw("forked", "sched_process_fork"),
            raw("attached", "cgroup_attach_task"),
            raw("exited", "sched_process_exit"),
        ],
        structures: CGROUP_STRUCTURES,
    },
    Probe {
        name: "exec",
        sees: "programs executed, and tries",
        hooks: &[
            raw("executed", "sched_process_exec"),
            exit("execve_exit", "execve"),
            exit("execveat_exit", "execveat"),
        ],
        structures: FILE_STRUCTURES,
    },
    Probe {
        name: "open",
        sees: "files opened by open, creat, openat and openat2, and tries",
        hooks: &[
            old_exit("open_exit", "open"),
            old_exit("open_exit", "creat"),
            exit("openat_exit", "openat"),
            exit("openat_exit", "openat2"),
        ],
        structures: FILE_STRUCTURES,
    },
];

/// Attaches every probe that can run.
pub(crate) fn attach_all(
    programs: &mut Ebpf,
    layout: &Layout,
    tracefs: Option<&Path>,
) -> Vec<ProbeStatus> {
    PROBES
        .iter()
        .map(|probe| ProbeStatus {
            name: probe.name,
            sees: probe.sees,
            reason: probe.attach(programs, layout, tracefs).err(),
        })
        .collect()
}

impl Probe {
    fn attach(
        &self,
        programs: &mut Ebpf,
        layout: &Layout,
        tracefs: Option<&Path>,
    ) -> Result<(), String> {
        if let Some(member) = layout.first_absent(self.structures) {
            return Err(format!("this kernel's BTF has no {member}"));
        }
        let attached = self.hooks.iter().try_for_each(|hook| hook.attach(programs, tracefs));
        if attached.is_err() {
            // Half a probe would look like a whole one: take the rest of it off as well.
            for hook in self.hooks {
                hook.detach(programs);
            }
        }
        attached
    }
}

impl Hook {
    fn program(&self) -> &'static str {
        match self {
            Hook::Raw { program, .. } | Hook::SyscallExit { program, .. } => program,
        }
    }

    fn attach(&self, programs: &mut Ebpf, tracefs: Option<&Path>) -> Result<(), String> {
        let name = self.program();
        let program = programs
            .program_mut(name)
            .ok_or_else(|| format!("the kernel programs of this build have no {name}"))?;
        match (self, program) {
            (Hook::Raw { tracepoint, .. }, Program::RawTracePoint(program)) => {
                load_once(program.load(), name)?;
                program
                    .attach(tracepoint)
                    .map(drop)
                    .map_err(|error| hook_refused(tracepoint, &error))
            }
            (Hook::SyscallExit { syscall, everywhere, .. }, Program::TracePoint(program)) => {
                let event = format!("sys_exit_{syscall}");
                let Some(tracefs) = tracefs else {
                    return Err("tracefs is not mounted and could not be mounted at \
                                /sys/kernel/tracing: mount it there, or grant CAP_SYS_ADMIN"
                        .to_owned());
                };
                if !everywhere && !tracefs.join("events/syscalls").join(&event).exists() {
                    return Ok(());
                }
                load_once(program.load(), name)?;
                program
                    .attach("syscalls", &event)
                    .map(drop)
                    .map_err(|error| hook_refused(&event, &error))
            }
            _ => Err(format!("the program {name} is of another type than its hook")),
        }
    }

    fn detach(&self, programs: &mut Ebpf) {
        let Some(program) = programs.program_mut(self.program()) else { return };
        // One that was never loaded has nothing to take off.
        let _ = match program {
            Program::RawTracePoint(program) => program.unload(),
            Program::TracePoint(program) => program.unload(),
            _ => Ok(()),
        };
    }
}

/// A program on several hooks is loaded with the first.
fn load_once(loaded: Result<(), ProgramError>, name: &str) -> Result<(), String> {
    match loaded {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(()),
        Err(ProgramError::LoadError { io_error, verifier_log }) => {
            tracing::debug!(program = name, %verifier_log, "the kernel refused a program");
            Err(format!("the kernel refuses the program {name}: {io_error}"))
        }
        Err(error) => Err(format!("the kernel refuses the program {name}: {error}")),
    }
}

fn hook_refused(hook: &str, error: &ProgramError) -> String {
    let cause =
        std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    format!("the kernel lets nothing hang on {hook}: {error}{cause}")
}

/// Finds tracefs; mounts it where every distribution does if it is not there.
pub(crate) fn ensure_tracefs() -> Option<PathBuf> {
    const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let find = || PLACES.into_iter().map(PathBuf::from).find(|path| path.join("events").is_dir());
    if let Some(found) = find() {
        return Some(found);
    }
    match rustix::mount::mount(
        "tracefs",
        PLACES[0],
        "tracefs",
        rustix::mount::MountFlags::NOSUID
            | rustix::mount::MountFlags::NODEV
            | rustix::mount::MountFlags::NOEXEC,
        None,
    ) {
        Ok(()) => {
            tracing::info!(path = PLACES[0], "mounted tracefs, which was not mounted");
            find()
        }
        Err(error) => {
            tracing::warn!(path = PLACES[0], %error, "tracefs is not mounted and cannot be");
            None
        }
    }
}

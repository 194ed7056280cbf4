//! The probes: which programs hang on which hooks, and what each needs from the kernel.
//!
//! A probe runs whole, or it says in one sentence why not. Only a real load tells: kernels refuse
//! programs for reasons that no feature list shows.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf};
use whodunit_ebpf::backup;

use super::layout::Layout;

/// A probe and whether it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStatus {
    /// Its name, as in documents, metrics and reports.
    pub name: &'static str,
    /// What it sees.
    pub sees: &'static str,
    /// What it is a part of.
    pub tier: Tier,
    /// Why it does not run, in one sentence. None if it does.
    pub reason: Option<String>,
}

impl ProbeStatus {
    /// Whether it runs.
    pub fn live(&self) -> bool {
        self.reason.is_none()
    }
}

/// How deep in the kernel a probe hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// On the kernel's tracepoints, which every kernel has.
    Base,
    /// On functions of the kernel (`fexit`, Linux 5.5). Where a kernel allows nothing to hang there, the daemon
    /// does without.
    Exact,
}

impl Tier {
    /// Its name, as in documents and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Tier::Base => "base",
            Tier::Exact => "exact",
        }
    }

    /// The tier that runs, given every probe: the exact one only as a whole.
    pub fn of(probes: &[ProbeStatus]) -> Tier {
        let mut exact = probes.iter().filter(|probe| probe.tier == Tier::Exact);
        if exact.all(ProbeStatus::live) { Tier::Exact } else { Tier::Base }
    }
}

/// The kernel's types, or why there are none.
type Types = Result<Btf, String>;

struct Probe {
    name: &'static str,
    sees: &'static str,
    hooks: &'static [Hook],
    /// The kernel structures that its programs read.
    structures: &'static [&'static str],
    tier: Tier,
}

enum Hook {
    /// A raw tracepoint. It must exist.
    Raw { programs: Programs, tracepoint: &'static str },
    /// A tracepoint whose arguments come with their types (`tp_btf`, Linux 5.5).
    Typed { programs: Programs, tracepoint: &'static str },
    /// Where a function of the kernel begins or returns, by the type of the program: the first of these that it
    /// has. They take the same arguments. One that is not `needed` is left out where the kernel has none of them,
    /// or not what it reads.
    Function {
        programs: Programs,
        functions: &'static [&'static str],
        reads: &'static [&'static str],
        needed: bool,
    },
}

/// Programs that do the same, by name: the first that the kernel takes is the one.
type Programs = &'static [&'static str];

const fn raw(programs: Programs, tracepoint: &'static str) -> Hook {
    Hook::Raw { programs, tracepoint }
}

const fn typed(programs: Programs, tracepoint: &'static str) -> Hook {
    Hook::Typed { programs, tracepoint }
}

const fn exit(
    programs: Programs,
    functions: &'static [&'static str],
    reads: &'static [&'static str],
) -> Hook {
    Hook::Function { programs, functions, reads, needed: true }
}

const fn optional(
    programs: Programs,
    functions: &'static [&'static str],
    reads: &'static [&'static str],
) -> Hook {
    Hook::Function { programs, functions, reads, needed: false }
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
    "hlist_bl_node",
    "nsproxy",
    "mnt_namespace",
    "ns_common",
    "pt_regs",
    "linux_binprm",
];

const CGROUP_STRUCTURES: &[&str] =
    &["cgroup", "cgroup_subsys_state", "cgroup_root", "kernfs_node", "css_set", "task_struct"];

/// What says which processes come into a cgroup, and when they are over.
const SETUP_STRUCTURES: &[&str] = &[
    "cgroup",
    "cgroup_subsys_state",
    "cgroup_root",
    "kernfs_node",
    "css_set",
    "task_struct",
    "signal_struct",
];

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

/// What a worker of a ring does goes through this.
const RING_WORK: &[&str] = &["io_wq_submit_work"];

/// What says which paths that is about: as it is since Linux 6.0.
const RING_STRUCTURES: &[&str] = &[
    "filename",
    "io_kiocb",
    "io_cqe",
    "io_statx",
    "io_unlink",
    "io_mkdir",
    "io_rename",
    "io_link",
    "io_xattr",
];

/// The probe that tells which interpreters the kernel opens.
pub const INTERPRETERS: &str = "interpreters";

/// The probe that tells whose cgroup is made.
const CGROUP: &str = "cgroup";

/// The probe that tells which processes are a container runtime's.
const SETUP: &str = "setup";

/// The probe that tells which programs are executed.
const EXEC: &str = "exec";

/// The probes by which the programs know who is a container runtime's.
pub(super) const OF_RUNTIMES: [&str; 3] = [CGROUP, SETUP, EXEC];

/// Every probe of this build, in the order in which they are attached: who is whose comes first.
const PROBES: &[Probe] = &[
    Probe {
        name: CGROUP,
        sees: "containers made and removed",
        hooks: &[raw(&["cgroup_made"], "cgroup_mkdir"), raw(&["cgroup_gone"], "cgroup_rmdir")],
        structures: CGROUP_STRUCTURES,
        tier: Tier::Base,
    },
    // Before those of `setup`, which take a process off the entering ones when it executes a program and when it ends.
    Probe {
        name: "process",
        sees: "processes made, executing a program, and ended",
        hooks: &[
            raw(&["process_forked"], "sched_process_fork"),
            raw(&["process_executed"], "sched_process_exec"),
            raw(&["process_exited"], "sched_process_exit"),
        ],
        structures: PROCESS_STRUCTURES,
        tier: Tier::Base,
    },
    Probe {
        name: "signal",
        sees: "signals, who sent them, and what became of them",
        hooks: &[
            raw(&["signal_generated"], "signal_generate"),
            raw(&["signal_delivered"], "signal_deliver"),
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
        tier: Tier::Base,
    },
    Probe {
        name: "oom",
        sees: "processes that the kernel kills for want of memory",
        hooks: &[raw(&["oom_victim"], "mark_victim")],
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
        tier: Tier::Base,
    },
    Probe {
        name: SETUP,
        sees: "what a container runtime does before it executes the container's program",
        hooks: &[
            raw(&["forked"], "sched_process_fork"),
            raw(&["attached"], "cgroup_attach_task"),
            raw(&["exited"], "sched_process_exit"),
        ],
        structures: SETUP_STRUCTURES,
        tier: Tier::Base,
    },
    Probe {
        name: EXEC,
        sees: "programs executed",
        hooks: &[raw(&["executed", "executed_unrolled"], "sched_process_exec")],
        structures: FILE_STRUCTURES,
        tier: Tier::Base,
    },
    Probe {
        name: "files",
        sees: "every system call that names a file, 32-bit ones included",
        hooks: &[typed(&["syscall_exit", "syscall_exit_unrolled"], "sys_exit")],
        structures: FILE_STRUCTURES,
        tier: Tier::Base,
    },
    Probe {
        name: INTERPRETERS,
        sees: "the interpreters that the kernel opens for programs and scripts",
        hooks: &[
            exit(&["program_checked"], &["security_bprm_check"], &[]),
            exit(&["interpreter_opened", "interpreter_opened_unrolled"], &["open_exec"], &[]),
            optional(&["loader_opened", "loader_opened_unrolled"], &["bprm_open_interpreter"], &[]),
        ],
        structures: FILE_STRUCTURES,
        tier: Tier::Exact,
    },
    Probe {
        name: "beneath",
        sees: "files reached beneath the system calls: by io_uring, and by the kernel for a program",
        hooks: &[
            exit(
                &["file_opened", "file_opened_unrolled"],
                &["do_filp_open", "do_file_open"],
                &["filename", "open_flags", "bpf_task_pt_regs"],
            ),
            optional(&["ring_work_begun"], RING_WORK, RING_STRUCTURES),
            optional(&["ring_work_done"], RING_WORK, RING_STRUCTURES),
        ],
        structures: FILE_STRUCTURES,
        tier: Tier::Exact,
    },
];

/// Why no probe of the exact tier runs where the configuration says so.
const NOT_WANTED: &str = "`capture.tier` is \"base\"";

/// Why none of it runs on a kernel that could crash when the programs are taken off.
const TRAMPOLINES_FREED: &str = "this kernel may crash when a program is taken off a function in which a \
                                 task sleeps (mended in Linux 5.12, 5.11.11 and 5.10.27)";

/// What is wanted beyond what every kernel has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The exact tier.
    pub(super) exact: bool,
    /// A second program on each tracepoint.
    pub(super) backup: bool,
}

/// Attaches every probe that can run, as far as it is wanted.
pub(super) fn attach_all(programs: &mut Ebpf, layout: &Layout, wanted: Wanted) -> Vec<ProbeStatus> {
    // Read for this only: a kernel's types are some megabytes.
    let types =
        Btf::from_sys_fs().map_err(|error| format!("the kernel's BTF is not usable: {error}"));
    PROBES
        .iter()
        .map(|probe| ProbeStatus {
            name: probe.name,
            sees: probe.sees,
            tier: probe.tier,
            reason: match probe.tier {
                Tier::Exact if !wanted.exact => Some(NOT_WANTED.to_owned()),
                Tier::Exact if !layout.keeps_trampolines => Some(TRAMPOLINES_FREED.to_owned()),
                Tier::Base | Tier::Exact => probe.attach(programs, layout, wanted, &types).err(),
            },
        })
        .collect()
}

/// The programs of each probe that runs, by its name.
pub(super) fn loaded(programs: &Ebpf) -> io::Result<Vec<(&'static str, Vec<OwnedFd>)>> {
    let mut probes = Vec::new();
    for probe in PROBES {
        // A program may be on several hooks.
        let names = probe.hooks.iter().flat_map(Hook::programs);
        let names: BTreeSet<String> =
            names.flat_map(|name| [(*name).to_owned(), second(name)]).collect();
        let loaded = names.into_iter().filter_map(|name| programs.program(&name)?.fd().ok());
        let own: Vec<OwnedFd> = loaded
            .map(|program| program.as_fd().try_clone_to_owned())
            .collect::<io::Result<_>>()?;
        if !own.is_empty() {
            probes.push((probe.name, own));
        }
    }
    Ok(probes)
}

impl Probe {
    fn attach(
        &self,
        programs: &mut Ebpf,
        layout: &Layout,
        wanted: Wanted,
        types: &Types,
    ) -> Result<(), String> {
        let mut hooks = Vec::new();
        let needed = |structures| match layout.first_absent(structures) {
            Some(member) => Err(format!("this kernel's BTF has no {member}")),
            None => Ok(()),
        };
        needed(self.structures)?;
        for hook in self.hooks {
            match needed(hook.reads()) {
                Ok(()) => hooks.push(hook),
                Err(_) if !hook.is_needed() => {}
                Err(reason) => return Err(reason),
            }
        }
        let attached = hooks.iter().try_for_each(|hook| hook.attach(programs, wanted, types));
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
    fn programs(&self) -> Programs {
        match self {
            Hook::Raw { programs, .. }
            | Hook::Typed { programs, .. }
            | Hook::Function { programs, .. } => programs,
        }
    }

    /// The kernel structures that its program reads beside those of its probe.
    fn reads(&self) -> &'static [&'static str] {
        match self {
            Hook::Raw { .. } | Hook::Typed { .. } => &[],
            Hook::Function { reads, .. } => reads,
        }
    }

    /// Whether its probe is nothing without it.
    fn is_needed(&self) -> bool {
        match self {
            Hook::Raw { .. } | Hook::Typed { .. } => true,
            Hook::Function { needed, .. } => *needed,
        }
    }

    fn attach(&self, programs: &mut Ebpf, wanted: Wanted, types: &Types) -> Result<(), String> {
        let mut reasons = Vec::new();
        for name in self.programs() {
            let mut order = vec![(*name).to_owned()];
            if wanted.backup && backup::PROGRAMS.contains(name) {
                order.push(second(name));
            }
            // What is attached to a tracepoint later runs later, and on a function earlier.
            if matches!(self, Hook::Function { .. }) {
                order.reverse();
            }
            let attached =
                order.iter().try_for_each(|name| self.attach_program(name, programs, types));
            match attached {
                Ok(()) => return Ok(()),
                Err(reason) => reasons.push(reason),
            }
            // One of the two may hang there.
            order.iter().for_each(|name| take_off(programs, name));
        }
        Err(reasons.join("; "))
    }

    fn attach_program(&self, name: &str, programs: &mut Ebpf, types: &Types) -> Result<(), String> {
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
            (Hook::Typed { tracepoint, .. }, Program::BtfTracePoint(program)) => {
                let types = types.as_ref().map_err(String::clone)?;
                load_once(program.load(tracepoint, types), name)?;
                program.attach().map(drop).map_err(|error| hook_refused(tracepoint, &error))
            }
            (Hook::Function { .. }, Program::FExit(program)) => {
                let types = types.as_ref().map_err(String::clone)?;
                match self.load_first(name, |function| program.load(function, types))? {
                    Some(at) => {
                        program.attach().map(drop).map_err(|error| hook_refused(at, &error))
                    }
                    None => Ok(()),
                }
            }
            (Hook::Function { .. }, Program::FEntry(program)) => {
                let types = types.as_ref().map_err(String::clone)?;
                match self.load_first(name, |function| program.load(function, types))? {
                    Some(at) => {
                        program.attach().map(drop).map_err(|error| hook_refused(at, &error))
                    }
                    None => Ok(()),
                }
            }
            _ => Err(format!("the program {name} is of another type than its hook")),
        }
    }

    /// Loads a program for the first of its functions that the kernel has, and gives that one. None where there is
    /// none, and the hook may be left out.
    fn load_first(
        &self,
        name: &str,
        mut load: impl FnMut(&str) -> Result<(), ProgramError>,
    ) -> Result<Option<&'static str>, String> {
        let functions = match self {
            Hook::Raw { .. } | Hook::Typed { .. } => &[],
            Hook::Function { functions, .. } => *functions,
        };
        for function in functions {
            match load(function) {
                // It has no such function, or none that was not dissolved in its callers.
                Err(ProgramError::Btf(_)) => {}
                loaded => return load_once(loaded, name).map(|()| Some(*function)),
            }
        }
        if self.is_needed() {
            return Err(format!("this kernel has no function {}", functions.join(" or ")));
        }
        Ok(None)
    }

    fn detach(&self, programs: &mut Ebpf) {
        for name in self.programs() {
            take_off(programs, name);
            take_off(programs, &second(name));
        }
    }
}

/// Takes a program off its hooks, if there is such a one.
fn take_off(programs: &mut Ebpf, name: &str) {
    // One that was never loaded has nothing to take off.
    let _ = match programs.program_mut(name) {
        Some(Program::RawTracePoint(program)) => program.unload(),
        Some(Program::BtfTracePoint(program)) => program.unload(),
        Some(Program::FExit(program)) => program.unload(),
        Some(Program::FEntry(program)) => program.unload(),
        _ => Ok(()),
    };
}

/// The name of the program behind this one, where there is one.
fn second(name: &str) -> String {
    format!("{name}{}", backup::SUFFIX)
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

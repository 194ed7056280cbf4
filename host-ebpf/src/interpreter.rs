//! The interpreters that the kernel opens for a program: those of `#!` scripts, those of programs in ELF, and
//! those that `binfmt_misc` has for other formats. No system call names them.
//!
//! A part of the exact tier: each of these programs hangs on a function of the kernel.
//!
//! The kernel opens them before it replaces the program, and so before `sched_process_exec`, by which a
//! process stops to be a container runtime's. Whether they are the container's is decided here, as there: by
//! whether the file that is executed has a place in the file system.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use whodunit_ebpf::{counter, operation};

use crate::maps::{EXECUTING, Executing, Scratch, keep, occupy_exact, offset, recall, vacate};
use crate::read::{Address, Place, current_task, mount_namespace, read_or_zero};
use crate::record::{Access, Requested, count, in_setup, record, stands, traced_counters};
use crate::run;
use crate::syscall::{AT_FDCWD, ERRNO_MAX};
use crate::walk::{self, ExactHelper, Looping, Unrolled};

/// `int security_bprm_check(struct linux_binprm *bprm)`: a file is about to be executed, a script's
/// interpreter after the script.
#[fexit]
pub fn program_checked(ctx: FExitContext) -> i32 {
    run::on_function(|| {
        if traced_counters().is_none() {
            return 0;
        }
        let program: Address = ctx.arg(0);
        let file: Address = read_or_zero(program + offset!(binprm_file) as u64);
        let place = Place::read(file + offset!(file_path) as u64);
        let placed = !walk::is_detached(mount_namespace(current_task()), place);
        let opened = executing().opened;
        let told = if opened == file { file } else { 0 };
        let known = Executing { opened, told, placed: u64::from(placed) };
        let _ = EXECUTING.insert(&process(), &known, 0);
        0
    })
}

/// `struct file *open_exec(const char *name)`: an interpreter was opened, or was not to be opened.
#[fexit]
pub fn interpreter_opened(ctx: FExitContext) -> i32 {
    run::on_function(|| opened::<ExactHelper>(ctx.arg(0), ctx.arg(1)))
}

/// The same before Linux 5.17.
#[fexit]
pub fn interpreter_opened_unrolled(ctx: FExitContext) -> i32 {
    run::on_function(|| opened::<Unrolled>(ctx.arg(0), ctx.arg(1)))
}

/// `struct file *bprm_open_interpreter(struct linux_binprm *bprm, const char *path)`, by which Linux 7.3 opens
/// the interpreter of a program in ELF.
#[fexit]
pub fn loader_opened(ctx: FExitContext) -> i32 {
    run::on_function(|| opened::<ExactHelper>(ctx.arg(1), ctx.arg(2)))
}

/// The same before Linux 5.17.
#[fexit]
pub fn loader_opened_unrolled(ctx: FExitContext) -> i32 {
    run::on_function(|| opened::<Unrolled>(ctx.arg(1), ctx.arg(2)))
}

/// An interpreter was opened, or was not to be opened: by its path, and the file or the error.
#[inline(always)]
fn opened<L: Looping>(path: Address, result: u64) -> i32 {
    let Some((cgroup, counters)) = traced_counters() else { return 0 };
    let Some(scratch) = occupy_exact() else {
        count(counters, counter::BUSY);
        return 0;
    };
    let loops = Scratch::loops(scratch);
    keep!(loops.result, result);
    let result = recall!(loops.result);
    let failed = (-ERRNO_MAX..0).contains(&(result as i64));
    let file = if failed { 0 } else { result };
    let known = executing();
    if !failed {
        let _ = EXECUTING.insert(&process(), &Executing { opened: file, ..known }, 0);
    }
    keep!(loops.file, file);
    keep!(loops.place_dentry, 0);
    keep!(loops.place_mount, 0);
    keep!(loops.folder, AT_FDCWD as u64);
    keep!(loops.flags, 0);
    stands(loops, in_setup() && known.placed == 0, known.placed != 0);
    keep!(loops.number, 0);
    let access = Access {
        operation: operation::LOAD,
        outcome: if failed { result as i32 } else { 0 },
        requested: Requested::Kernel(path),
    };
    record::<L>(scratch, cgroup, counters, access);
    vacate(scratch);
    0
}

/// Whether the file that the running task executes was told when it was opened. To be asked once a program.
#[inline(always)]
pub(crate) fn was_told(file: Address) -> bool {
    let told = executing().told;
    if told != 0 {
        let _ = EXECUTING.remove(&process());
    }
    told == file
}

#[inline(always)]
fn process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// What is known of the program that the running task is about to execute.
#[inline(always)]
fn executing() -> Executing {
    match EXECUTING.get_ptr(&process()) {
        // SAFETY: a map value.
        Some(known) => unsafe { *known },
        None => Executing { opened: 0, told: 0, placed: 0 },
    }
}

//! What the daemon can never do again: system calls that it has no business with once it runs.
//!
//! A seccomp filter refuses them with EPERM, to every thread that is started afterwards. It is a list of what is refused and not
//! of what is allowed: the engine of the plugins and the C library may take to another call with any version, and a
//! daemon that ends for it would see nothing. Landlock is not used: whoever is confined by it may not look at processes outside
//! (`/proc/PID/root`, `exe`, `cwd`), and this is how links, interpreters and mounts of containers are found.

use std::collections::BTreeMap;

use rustix::io::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Executing programs, and reaching into other processes.
const OTHERS: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
];

/// Mounts, namespaces and roots.
const PLACES: &[libc::c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_acct,
];

/// The kernel itself, its clocks and its keys.
const KERNEL: &[libc::c_long] = &[
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_vhangup,
    libc::SYS_personality,
];

/// What holes in the kernel were reached by, and files by their handles, past every folder in between.
const HOLES: &[libc::c_long] = &[
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_perf_event_open,
    libc::SYS_open_by_handle_at,
];

/// Another user.
const USERS: &[libc::c_long] = &[
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
];

/// Commands of `bpf` that make something: a map, a program, a hook, by `linux/bpf.h`. Those that read and write maps stay.
const BPF_MAKES: &[u64] = &[
    0,  // BPF_MAP_CREATE
    5,  // BPF_PROG_LOAD
    8,  // BPF_PROG_ATTACH
    17, // BPF_RAW_TRACEPOINT_OPEN
    18, // BPF_BTF_LOAD
    28, // BPF_LINK_CREATE
];

/// On x86_64 every call has a second number, for programs of the x32 kind.
const X32_BIT: i64 = 0x4000_0000;

/// Why the filter is not there.
#[derive(Debug, thiserror::Error)]
pub enum LockdownError {
    /// The architecture has none, or the filter is not one.
    #[error("no seccomp filter can be made here: {0}")]
    Filter(#[from] seccompiler::BackendError),
    /// The kernel refuses it.
    #[error("the kernel takes no seccomp filter: {0}")]
    Kernel(#[from] seccompiler::Error),
}

/// Refuses those calls to this thread and to every one that it starts, for good.
///
/// Called on the only thread of the process: others would go on as they are.
///
/// # Errors
///
/// If the kernel has no seccomp. Nothing depends on it: the daemon goes on without.
pub fn shut() -> Result<(), LockdownError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let x32 = cfg!(target_arch = "x86_64").then_some(X32_BIT);
    let bits = [Some(0), x32];
    for call in [OTHERS, PLACES, KERNEL, HOLES, USERS].into_iter().flatten() {
        for bit in bits.into_iter().flatten() {
            // No rule at all: whatever the arguments are.
            rules.insert(call | bit, Vec::new());
        }
    }
    let makes = BPF_MAKES.iter().map(|command| {
        let is = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *command)?;
        SeccompRule::new(vec![is])
    });
    rules.insert(libc::SYS_bpf, makes.collect::<Result<_, _>>()?);
    let refused = SeccompAction::Errno(Errno::PERM.raw_os_error().cast_unsigned());
    let here = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, here)?;
    let program = BpfProgram::try_from(filter)?;
    Ok(seccompiler::apply_filter(&program)?)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_refused_is_refused_and_the_rest_goes_on() {
        // On a thread of its own: the others of this test binary go on as they are.
        std::thread::spawn(|| {
            shut().unwrap();
            let executed = Command::new("/bin/true").status();
            assert_eq!(executed.unwrap_err().kind(), ErrorKind::PermissionDenied);
            let root = rustix::process::chroot("/");
            assert_eq!(root, Err(Errno::PERM));
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), "a report").unwrap();
            std::thread::spawn(|| rustix::process::chroot("/").unwrap_err()).join().unwrap();
        })
        .join()
        .unwrap();
    }
}

//! Real containers for tests and demonstrations: pods as a kubelet lays them out, containers that
//! runc runs, and the daemon that watches them.
//!
//! Owns what it makes: cgroups, containers, mounts, temporary folders. Everything goes away when its
//! value is dropped, after a panic too. Never touches a process or a cgroup that it did not make.
//!
//! Needs root, `runc`, a statically linked `busybox` and a mounted cgroup v2 hierarchy, alone or
//! beside the v1 controllers.

pub mod cgroup;
pub mod condition;
pub mod container;
pub mod cri;
pub mod daemon;
pub mod mount;
pub mod pod;
pub mod podman;
pub mod program;

pub use cgroup::{Cgroup, CgroupError, Hierarchies};
pub use container::{Container, ContainerBuilder, ContainerError, Finished};
pub use daemon::{Daemon, DaemonConfig, DaemonError, Exit, Placement};
pub use mount::{MountError, Tmpfs};
pub use pod::Pod;
pub use program::{Program, ProgramError};

use std::path::{Path, PathBuf};

/// Why this machine cannot run containers, in one sentence. None where it can.
pub fn why_not() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("containers need root".into());
    }
    for (program, package) in [("runc", "runc"), ("busybox", "busybox-static")] {
        if find_program(program).is_none() {
            return Some(format!("there is no {program}; install the Debian package {package}"));
        }
    }
    Hierarchies::find().err().map(|error| error.to_string())
}

/// A short random word from the kernel, so that names of parallel runs never meet.
fn unique_suffix() -> String {
    random_uuid()[..8].to_owned()
}

/// A random UUID from the kernel.
fn random_uuid() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .expect("every Linux with procfs mounted gives random UUIDs")
        .trim()
        .to_owned()
}

/// The full path of a program, looked up in `PATH` and in the folders of the system's programs.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Into::into))
        .map(|folder| folder.join(name))
        .find(|candidate| is_file(candidate))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

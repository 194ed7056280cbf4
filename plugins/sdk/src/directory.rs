//! Who is who, and what is being watched.

pub use crate::bindings::whodunit::plugin::directory::{Mount, Probe, Surroundings};
pub use crate::bindings::whodunit::plugin::types::{Container, Process};

use crate::imports;

/// The container of that number, as far as it is known now. None once it has been gone for long.
pub fn container(id: u32) -> Option<Container> {
    imports::container(id)
}

/// The mounts of the container of that number, as far as they were seen.
pub fn mounts(container: u32) -> Vec<Mount> {
    imports::mounts(container)
}

/// The process of that number, as far as it is known now. None once it has been gone for long.
pub fn process(id: u32) -> Option<Process> {
    imports::process(id)
}

/// Every probe of the daemon, and whether it runs.
pub fn probes() -> Vec<Probe> {
    imports::probes()
}

/// The surroundings of the daemon: pod, node, boot.
pub fn surroundings() -> Surroundings {
    imports::surroundings()
}

//! Who is who, and what is being watched.

pub use crate::bindings::whodunit::plugin::directory::{Mount, Probe, Surroundings};
pub use crate::bindings::whodunit::plugin::types::{Container, Process};

use crate::imports;

/// The container of that number, as far as it is known now. None once it has been gone for long.
pub fn container(id: u32) -> Option<Container> {
    imports::container(id)
}

/// Why a container is left out, that was watched until its name was known: it is not to be told of.
/// None for one that is wanted.
pub fn left_out(container: &Container) -> Option<&str> {
    let attribute = container.attributes.iter().find(|(key, _)| key == "left-out");
    attribute.map(|(_, why)| why.as_str())
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

//! Which cgroups the kernel programs let through.
//!
//! Owns the contract between discovery, which decides, and the loaded programs, which obey. Knows
//! neither maps nor paths: a test double stands in wherever there is no kernel to ask.

use std::io;

use crate::event::CgroupId;

/// What the kernel programs let through, cgroup by cgroup.
///
/// Every call can be repeated without harm. A cgroup that is removed stays here until the capture thread
/// has read its last counters and takes it out; discovery need not.
pub trait Gate {
    /// Captures the events of this cgroup. Cgroups that are made in it from now on are traced too,
    /// from their creation. One that is traced already keeps its counters.
    fn trace(&mut self, cgroup: CgroupId) -> Result<(), GateError>;

    /// Captures no more events of this cgroup. The cgroups in it stay as they are.
    fn untrace(&mut self, cgroup: CgroupId);

    /// Traces the cgroups that are made in this one from now on, from their creation. Its own events
    /// are not captured.
    fn watch(&mut self, cgroup: CgroupId) -> Result<(), GateError>;

    /// Leaves the cgroups that are made in this one alone.
    fn unwatch(&mut self, cgroup: CgroupId);
}

/// Why the kernel programs cannot be told of a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The map of traced and watched cgroups is full.
    #[error(
        "cgroup {cgroup} cannot be traced because the kernel's map holds no more than {capacity} \
         cgroups; raise `capture.max_cgroups`"
    )]
    Full {
        /// Which cgroup.
        cgroup: CgroupId,
        /// How many the map holds.
        capacity: u32,
    },
    /// The kernel refused the change.
    #[error(
        "cgroup {cgroup} cannot be traced because the kernel refused to change its map; try again"
    )]
    Refused {
        /// Which cgroup.
        cgroup: CgroupId,
        /// What the kernel said.
        source: io::Error,
    },
}

//! Which cgroups the kernel programs let through.

use crate::event::CgroupId;

/// A cgroup could not be traced or watched: the map is full, as a rule.
#[derive(Debug, thiserror::Error)]
#[error(
    "the kernel does not take cgroup {cgroup} into its maps: raise `capture.max_cgroups` if there are \
     more cgroups than that"
)]
pub struct GateError {
    /// Which.
    pub cgroup: CgroupId,
    /// What the kernel says.
    #[source]
    pub source: std::io::Error,
}

/// Decides what the kernel programs capture.
pub trait Gate {
    /// Captures what happens in this cgroup, and in children that it gets from now on. One that is
    /// traced already keeps its counters.
    ///
    /// # Errors
    ///
    /// If the kernel's map is full.
    fn trace(&mut self, cgroup: CgroupId) -> Result<(), GateError>;

    /// Stops capturing in this cgroup and forgets its counters.
    fn untrace(&mut self, cgroup: CgroupId);

    /// Traces every child that this cgroup gets from now on, from its first moment.
    ///
    /// # Errors
    ///
    /// If the kernel's map is full.
    fn watch(&mut self, cgroup: CgroupId) -> Result<(), GateError>;

    /// Stops watching.
    fn unwatch(&mut self, cgroup: CgroupId);
}

//! What the host tells guests about where it runs. Plain values: no kernel, no guest.

use std::sync::Arc;

use crate::directory::Directory;
use crate::event::UnixNanos;

/// Everything that guests can ask for.
#[derive(Clone)]
pub struct World {
    /// Who is who.
    pub directory: Arc<Directory>,
    /// Where the daemon runs.
    pub surroundings: Surroundings,
    /// Every probe of this build.
    pub probes: Vec<Probe>,
    /// The clock that guests see.
    pub clock: Clock,
}

/// The clock that guests see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// That of this machine.
    Machine,
    /// The time of what a guest was handed last: a replay is the same whenever it happens.
    Recorded {
        /// When the recording begins.
        start: UnixNanos,
        /// When the machine that it was made on had booted.
        booted: UnixNanos,
    },
}

/// Where the daemon runs, and what it watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// Name of the pod that the daemon runs in.
    pub pod_name: Option<String>,
    /// Namespace of that pod.
    pub namespace: Option<String>,
    /// Name of the machine.
    pub node_name: String,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// What is watched: `pod`, `node` or `cgroups`.
    pub scope: String,
    /// Version of the daemon.
    pub daemon_version: String,
    /// When the daemon started.
    pub started: UnixNanos,
}

/// A probe, and whether it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub live: bool,
    /// Why it does not, in one sentence; empty if it does.
    pub reason: String,
}

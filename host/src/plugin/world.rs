//! What the host tells guests about where it runs. Plain values: no kernel, no guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
#[derive(Clone, Debug)]
pub enum Clock {
    /// That of this machine.
    Machine,
    /// The time of what guests were handed last: a replay is the same whenever it happens.
    Recorded {
        /// In nanoseconds since the Unix epoch.
        now: Arc<AtomicU64>,
        /// When the machine that the recording was made on had booted.
        booted: UnixNanos,
    },
}

impl Clock {
    /// A clock that stands at the beginning of a recording.
    pub fn recorded(start: UnixNanos, booted: UnixNanos) -> Clock {
        Clock::Recorded { now: Arc::new(AtomicU64::new(start.0)), booted }
    }

    /// Something of that time is handed over next. The machine's own clock goes its own way.
    pub fn is_at(&self, time: UnixNanos) {
        match self {
            Clock::Machine => {}
            Clock::Recorded { now, .. } => now.store(time.0, Ordering::Relaxed),
        }
    }

    /// The recorded time, since the Unix epoch and since boot. None for the machine's own.
    pub(super) fn standing(&self) -> Option<(u64, u64)> {
        match self {
            Clock::Machine => None,
            Clock::Recorded { now, booted } => {
                let now = now.load(Ordering::Relaxed);
                Some((now, now.saturating_sub(booted.0)))
            }
        }
    }
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

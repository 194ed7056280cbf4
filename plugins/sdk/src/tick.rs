//! Totals as a plugin reads them.

use crate::bindings::reporter::exports::whodunit::plugin::reporter as raw;

pub use raw::Cause as TickCause;

/// Exact totals as of the last event before this call.
#[derive(Debug)]
pub struct Tick {
    time: u64,
    cause: TickCause,
    containers: Vec<ContainerTotals>,
    counters: Vec<raw::Counter>,
}

/// The exact totals of one container, of this run of the daemon.
#[derive(Debug)]
pub struct ContainerTotals(raw::ContainerTotals);

impl Tick {
    pub(crate) fn new(tick: raw::Tick) -> Tick {
        Tick {
            time: tick.time,
            cause: tick.cause,
            containers: tick.containers.into_iter().map(ContainerTotals).collect(),
            counters: tick.counters,
        }
    }

    /// When, in nanoseconds since the Unix epoch.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// Why.
    pub fn cause(&self) -> TickCause {
        self.cause
    }

    /// Every watched container, and those that ended since the last tick.
    pub fn containers(&self) -> &[ContainerTotals] {
        &self.containers
    }

    /// The daemon's own counter of that name; 0 where it has none.
    pub fn counter(&self, name: &str) -> u64 {
        counter(&self.counters, name)
    }

    /// Every counter of the daemon's own.
    pub fn counters(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counters.iter().map(|counter| (counter.name.as_str(), counter.value))
    }
}

impl ContainerTotals {
    /// Number of the container.
    pub fn container(&self) -> u32 {
        self.0.container
    }

    /// Since when it is watched, in nanoseconds since the Unix epoch.
    pub fn watched_since(&self) -> u64 {
        self.0.watched_since
    }

    /// Whether it was watched from the creation of its cgroup on.
    pub fn from_birth(&self) -> bool {
        self.0.from_birth
    }

    /// Whether the program that it started with was seen.
    pub fn first_exec_seen(&self) -> bool {
        self.0.first_exec_seen
    }

    /// When its last event was seen, in nanoseconds since the Unix epoch.
    pub fn last_event(&self) -> Option<u64> {
        self.0.last_event
    }

    /// When it ended, in nanoseconds since the Unix epoch.
    pub fn ended(&self) -> Option<u64> {
        self.0.ended
    }

    /// The counter of that name, such as `received`; 0 where there is none.
    pub fn counter(&self, name: &str) -> u64 {
        counter(&self.0.counters, name)
    }

    /// Every counter.
    pub fn counters(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.counters.iter().map(|counter| (counter.name.as_str(), counter.value))
    }
}

fn counter(counters: &[raw::Counter], name: &str) -> u64 {
    counters.iter().find(|counter| counter.name == name).map_or(0, |counter| counter.value)
}

//! Configuration: what the TOML, the environment and the flags say, checked.
//!
//! Owns the keys, their defaults and their limits. Gives a `Config` in which nothing is left to check
//! but the world outside. Never reads the kernel and never touches a plugin.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that the daemon is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which containers are watched.
    pub discovery: Discovery,
    /// Which file events are admitted.
    pub files: Files,
    /// Sizes of the kernel's maps and rings.
    pub capture: Capture,
    /// Where the daemon keeps what is its own.
    pub daemon: Daemon,
    /// The plugins, in the order of the TOML.
    pub plugins: Vec<Plugin>,
}

/// Which containers are watched.
#[derive(Clone, Debug, PartialEq)]
pub struct Discovery {
    /// What is in sight.
    pub scope: Scope,
    /// Mount point of the cgroup v2 hierarchy. None: found in `/proc/self/mountinfo`.
    pub cgroup_root: Option<PathBuf>,
    /// The subtrees of the scope `cgroups`, relative to the root, without a leading `/`.
    pub cgroups: Vec<String>,
    /// How often the whole tree is read again to repair what was missed.
    pub rescan: Duration,
}

/// What is in sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `pod` inside a container, else `node`.
    Auto,
    /// The other containers of the daemon's own pod.
    Pod,
    /// Every container of the machine.
    Node,
    /// Chosen subtrees.
    Cgroups,
}

/// Which file events are admitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    /// Prefixes of resolved paths that are counted and left out. Bytes.
    pub exclude: Vec<String>,
    /// Entries of each container's dedup cache in the daemon.
    pub dedup_capacity: usize,
}

/// Sizes of the kernel's maps and rings.
#[derive(Clone, Debug, PartialEq)]
pub struct Capture {
    /// Size of the ring for file events, in bytes; a power of two.
    pub ring_bytes: u32,
    /// Entries of the kernel's dedup map.
    pub kernel_dedup_entries: u32,
    /// How many cgroups can be traced at once.
    pub max_cgroups: u32,
}

/// Where the daemon keeps what is its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Daemon {
    /// Folder for the lock and for what must survive a restart.
    pub state_dir: PathBuf,
    /// Folder for compiled plugins. Only root may write it.
    pub cache_dir: PathBuf,
    /// How often plugins are ticked, which is how often reports are written.
    pub interval: Duration,
}

/// One plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    /// Its name: unique, and a label in metrics.
    pub name: String,
    /// Where its component comes from.
    pub source: PluginSource,
    /// What it may use.
    pub limits: Limits,
    /// Its outputs by the names that it uses.
    pub outputs: BTreeMap<String, Output>,
    /// Its own table, as JSON.
    pub config: serde_json::Value,
}

/// Where a plugin's component comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum PluginSource {
    /// Shipped inside the binary: the name behind `builtin:`.
    Builtin(String),
    /// A component file.
    File(PathBuf),
}

/// What a plugin may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Time for one call.
    pub call: Duration,
    /// Linear memory and tables, in bytes.
    pub memory_bytes: usize,
    /// Events that wait for it at most.
    pub queue_events: usize,
    /// One document that it hands over, in bytes.
    pub output_bytes: usize,
    /// Log messages a second.
    pub log_per_second: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            call: Duration::from_secs(1),
            memory_bytes: 256 << 20,
            queue_events: 65_536,
            output_bytes: 64 << 20,
            log_per_second: 20,
        }
    }
}

/// Where an output's documents go.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A file, replaced whole.
    File(PathBuf),
    /// Standard output, one document after the other.
    Stdout,
}

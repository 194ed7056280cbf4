//! Configuration: what the TOML, the environment and the flags say, checked.
//!
//! Owns the keys (`keys.rs`), their defaults (here) and their limits. `load` gives a `Config` in which
//! nothing is left to check but the world outside. Never reads the kernel and never touches a plugin.

mod diagnostic;
mod effective;
mod load;
mod overrides;
mod read;
mod url;
mod values;

pub mod keys;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::registry::Reference;

pub use diagnostic::{Invalid, Problem};
pub use load::{LoadError, Loaded, MAX_FILE_BYTES, Reread, STANDARD_FILE, Sources, load};
pub use overrides::{Origin, Override, OverrideError, Setting};
pub use url::Url;

/// Everything that the daemon is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Which containers are watched.
    pub discovery: Discovery,
    /// Who is asked for their names.
    pub names: Names,
    /// Which file events are admitted.
    pub files: Files,
    /// Sizes of the kernel's maps and rings, and how deep in the kernel files are captured.
    pub capture: Capture,
    /// Where the daemon keeps what is its own.
    pub daemon: Daemon,
    /// Where deaths go, beside the history.
    pub deaths: Deaths,
    /// What is told over HTTP.
    pub http: Http,
    /// What the daemon says about itself, and how.
    pub log: Log,
    /// The plugins, in the order of the TOML.
    #[serde(rename = "plugin")]
    pub plugins: Vec<Plugin>,
}

impl Default for Config {
    fn default() -> Config {
        let daemon = Daemon::default();
        Config {
            discovery: Discovery::default(),
            names: Names::default(),
            files: Files::default(),
            capture: Capture::default(),
            deaths: Deaths::default(),
            http: Http::default(),
            log: Log::default(),
            plugins: Plugin::standard(&daemon.state_dir),
            daemon,
        }
    }
}

/// Which containers are watched.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Discovery {
    /// What is in sight.
    pub scope: Scope,
    /// Mount point of the cgroup v2 hierarchy. None: found in `/proc/self/mountinfo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_root: Option<PathBuf>,
    /// The subtrees of the scope `cgroups`, relative to the root, without a leading `/`. Empty with
    /// every other scope.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<String>,
    /// How often the whole tree is read again to repair what was missed.
    #[serde(serialize_with = "effective::duration")]
    pub rescan: Duration,
    /// What becomes of a daemon that is alone in its pod.
    pub alone: Alone,
    /// Where the root of the machine's file system is, for the files that name containers.
    pub host_root: PathBuf,
    /// Patterns of the names of the containers that are watched. Empty: every one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Patterns of the names of those that are not, even where `include` has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

impl Default for Discovery {
    fn default() -> Discovery {
        Discovery {
            scope: Scope::Auto,
            cgroup_root: None,
            cgroups: Vec::new(),
            rescan: Duration::from_secs(30),
            alone: Alone::End,
            host_root: PathBuf::from("/"),
            include: Vec::new(),
            exclude: Vec::new(),
        }
    }
}

/// What becomes of a daemon that finds nobody else in its pod when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// It ends with an error.
    End,
    /// It waits for the others: a native sidecar is started before them.
    Wait,
}

impl Alone {
    /// Every one, in the order of the documentation.
    pub const ALL: [Alone; 2] = [Alone::End, Alone::Wait];

    /// The word in the TOML.
    pub const fn name(self) -> &'static str {
        match self {
            Alone::End => "end",
            Alone::Wait => "wait",
        }
    }
}

/// Who is asked for the names of containers, beside the files of runtimes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// The CRI socket of a runtime.
    pub cri: Place,
    /// The socket of Podman's service.
    pub podman: Place,
    /// The socket of Docker's engine.
    pub docker: Place,
    /// The API server of Kubernetes.
    pub kubernetes: Place,
}

/// Where somebody is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Where it usually is, if it is there.
    #[default]
    Auto,
    /// Nowhere.
    Off,
    /// Here: a path, or an address.
    At(String),
}

impl Place {
    /// The word in the TOML.
    pub fn text(&self) -> &str {
        match self {
            Place::Auto => "auto",
            Place::Off => "off",
            Place::At(place) => place,
        }
    }
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

impl Scope {
    /// Every scope, in the order of the documentation.
    pub const ALL: [Scope; 4] = [Scope::Auto, Scope::Pod, Scope::Node, Scope::Cgroups];

    /// The word in the TOML and in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Scope::Auto => "auto",
            Scope::Pod => "pod",
            Scope::Node => "node",
            Scope::Cgroups => "cgroups",
        }
    }
}

/// Which file events are admitted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Files {
    /// Prefixes of resolved paths that are counted and left out. Bytes.
    pub exclude: Vec<String>,
    /// Entries of each container's dedup cache in the daemon.
    pub dedup_capacity: usize,
}

impl Default for Files {
    fn default() -> Files {
        Files {
            exclude: ["/proc/", "/sys/", "/dev/"].map(String::from).to_vec(),
            dedup_capacity: 10_000,
        }
    }
}

/// Sizes of the kernel's maps and rings, and how deep in the kernel files are captured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Capture {
    /// Size of the ring for file events, in bytes; a power of two.
    #[serde(rename = "ring", serialize_with = "effective::size")]
    pub ring_bytes: u32,
    /// Entries of the kernel's dedup map.
    pub kernel_dedup_entries: u32,
    /// How many cgroups can be traced at once.
    pub max_cgroups: u32,
    /// How deep in the kernel files are captured.
    pub tier: Tier,
    /// Whether a second program on each tracepoint takes up what the kernel kept from the first.
    pub backup: Backup,
    /// Whether the kernel measures how long its programs run.
    pub measure: bool,
}

impl Default for Capture {
    fn default() -> Capture {
        Capture {
            ring_bytes: 8 << 20,
            kernel_dedup_entries: 65_536,
            max_cgroups: 4_096,
            tier: Tier::Auto,
            backup: Backup::Auto,
            measure: false,
        }
    }
}

/// Where a second program on each tracepoint takes up what the kernel kept from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backup {
    /// Where the kernel keeps anything from a program (Linux 6.19).
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere: what the kernel kept is counted as lost.
    Never,
}

impl Backup {
    /// Every choice, in the order of the documentation.
    pub const ALL: [Backup; 3] = [Backup::Auto, Backup::Always, Backup::Never];

    /// The word in the TOML and in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Backup::Auto => "auto",
            Backup::Always => "always",
            Backup::Never => "never",
        }
    }
}

/// How deep in the kernel files are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// `exact` where the kernel allows it, else `base`.
    Auto,
    /// At the system calls.
    Base,
    /// Beneath the system calls as well, or the daemon does not start.
    Exact,
}

impl Tier {
    /// Every tier, in the order of the documentation.
    pub const ALL: [Tier; 3] = [Tier::Auto, Tier::Base, Tier::Exact];

    /// The word in the TOML and in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Tier::Auto => "auto",
            Tier::Base => "base",
            Tier::Exact => "exact",
        }
    }
}

/// Where the daemon keeps what is its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Daemon {
    /// Folder for the lock and for what must survive a restart.
    pub state_dir: PathBuf,
    /// Folder for compiled plugins. Only root may write it.
    pub cache_dir: PathBuf,
    /// How often plugins are ticked, which is how often reports are written.
    #[serde(serialize_with = "effective::duration")]
    pub interval: Duration,
}

impl Default for Daemon {
    fn default() -> Daemon {
        Daemon {
            state_dir: PathBuf::from("/var/lib/whodunit"),
            cache_dir: PathBuf::from("/var/cache/whodunit"),
            interval: Duration::from_secs(30),
        }
    }
}

/// Where deaths go, beside the history in the state folder: one line of JSON each.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Deaths {
    /// The file that grows by them. None: no file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Whether standard output gets them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stdout: bool,
}

/// What is told over HTTP: metrics, health, a read-only API and a page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Http {
    /// Where it listens. None: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// The file with the token that requests have to carry. None: no token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The file with the certificate that it answers with, with those that vouch for it. None: no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_certificate: Option<PathBuf>,
    /// The file with the certificate's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// How many containers have metrics of their own. The others are summed.
    pub metrics_containers: usize,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            listen: None,
            token_file: None,
            tls_certificate: None,
            tls_key: None,
            metrics_containers: 1_000,
        }
    }
}

/// What the daemon says about itself on standard error, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Log {
    /// The least urgent messages that are written.
    pub level: LogLevel,
    /// How a message looks.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Log {
        Log { level: LogLevel::Info, format: LogFormat::Text }
    }
}

/// How urgent a message of the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something is lost or does not work.
    Error,
    /// Something will be lost or will not work, or works with less than was asked for.
    Warn,
    /// What happens now and then, such as a container that starts.
    Info,
    /// For whoever looks for a fault.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Every level, the most urgent first.
    pub const ALL: [LogLevel; 5] =
        [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];

    /// The word in the TOML.
    pub const fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// How a message of the daemon looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Every format, in the order of the documentation.
    pub const ALL: [LogFormat; 2] = [LogFormat::Text, LogFormat::Json];

    /// The word in the TOML.
    pub const fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// One plugin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plugin {
    /// Its name: unique, and a label in metrics.
    pub name: String,
    /// Where its component comes from.
    pub source: PluginSource,
    /// Whether a source in a registry may be named by its tag alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub moving_tag: bool,
    /// SHA-256 of the component that it has to be, in lower case hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The kinds of events that it gets, by their words ([`crate::kinds::Kinds`]). Empty: every kind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// Patterns of the names of the containers whose events it gets. Empty: every container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
    /// What becomes of events that it should have judged and did not, if it is a filter.
    pub on_failure: OnFailure,
    /// What becomes of events when its queue is full.
    pub overflow: Overflow,
    /// What it gets of the WebAssembly System Interface.
    pub wasi: Wasi,
    /// Which of its capabilities, with [`Wasi::P2`]; none with any other.
    #[serde(skip_serializing_if = "Grants::is_nothing")]
    pub grants: Grants,
    /// What it may use.
    pub limits: Limits,
    /// Its outputs by the names that it uses.
    pub outputs: BTreeMap<String, Output>,
    /// Its own table, as JSON.
    pub config: serde_json::Value,
}

impl Plugin {
    /// The plugins that run where the TOML names none: a JSON report in the state folder, and an
    /// explainer of deaths.
    pub fn standard(state_dir: &Path) -> Vec<Plugin> {
        let builtin = |name: &str, source: &str| {
            Plugin::new(String::from(name), PluginSource::Builtin(String::from(source)))
        };
        let report = Output::File(state_dir.join("report.json"));
        vec![
            Plugin {
                outputs: BTreeMap::from([(String::from("report"), report)]),
                ..builtin("report", "report-json")
            },
            builtin("death-explainer", "death-explainer"),
        ]
    }

    /// A plugin of which only the name and the source are given.
    pub fn new(name: String, source: PluginSource) -> Plugin {
        Plugin {
            name,
            source,
            moving_tag: false,
            sha256: None,
            events: Vec::new(),
            containers: Vec::new(),
            on_failure: OnFailure::Open,
            overflow: Overflow::DropNewest,
            wasi: Wasi::None,
            grants: Grants::default(),
            limits: Limits::default(),
            outputs: BTreeMap::new(),
            config: serde_json::Value::Object(serde_json::Map::new()),
        }
    }
}

/// What becomes of events that a filter should have judged and did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// They go on.
    Open,
    /// They are dropped, and counted as lost.
    Closed,
}

impl OnFailure {
    /// Every policy, in the order of the documentation.
    pub const ALL: [OnFailure; 2] = [OnFailure::Open, OnFailure::Closed];

    /// The word in the TOML.
    pub const fn name(self) -> &'static str {
        match self {
            OnFailure::Open => "open",
            OnFailure::Closed => "closed",
        }
    }
}

/// What becomes of events that a full queue has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// What comes is dropped.
    DropNewest,
    /// What waited longest is dropped.
    DropOldest,
    /// Whoever hands over waits until there is room: in a replay only.
    Block,
}

impl Overflow {
    /// Every policy, in the order of the documentation.
    pub const ALL: [Overflow; 3] = [Overflow::DropNewest, Overflow::DropOldest, Overflow::Block];

    /// The word in the TOML.
    pub const fn name(self) -> &'static str {
        match self {
            Overflow::DropNewest => "drop-newest",
            Overflow::DropOldest => "drop-oldest",
            Overflow::Block => "block",
        }
    }
}

/// What a plugin gets of the WebAssembly System Interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wasi {
    /// Nothing: a component that imports any of it is refused.
    None,
    /// Functions that know nothing and give nothing.
    Stub,
    /// The capabilities that [`Grants`] name; nothing behind the rest.
    P2,
}

impl Wasi {
    /// Every grant, in the order of the documentation.
    pub const ALL: [Wasi; 3] = [Wasi::None, Wasi::Stub, Wasi::P2];

    /// The word in the TOML.
    pub const fn name(self) -> &'static str {
        match self {
            Wasi::None => "none",
            Wasi::Stub => "stub",
            Wasi::P2 => "p2",
        }
    }
}

/// The capabilities of the system interface that a plugin is given. None unless it is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Grants {
    /// Clocks tell the time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub clocks: bool,
    /// Random numbers are random.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub random: bool,
    /// Standard output and standard error go to the log.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub output: bool,
    /// Names of the daemon's environment variables that it sees.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<String>,
    /// Absolute paths of the folders that it may read, by the path at which it finds each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub folders: BTreeMap<String, PathBuf>,
}

impl Grants {
    /// Whether no capability is given.
    pub fn is_nothing(&self) -> bool {
        *self == Grants::default()
    }
}

/// Reads grants that stand by themselves: what the TOML has behind `grants =`, or the lines of that table. The error
/// is what is wrong with them, in one sentence.
pub(crate) fn read_grants(text: &str) -> Result<Grants, String> {
    read::grants(text)
}

/// A plugin that is shipped inside the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Builtin {
    /// What stands behind `builtin:` in a plugin's source.
    pub name: &'static str,
    /// The outputs that it writes: the TOML has to say where each of them goes.
    pub outputs: &'static [&'static str],
    /// What it does, for the documentation.
    pub meaning: &'static str,
}

/// Every plugin that is shipped inside the binary.
pub const BUILTINS: &[Builtin] = &[
    Builtin {
        name: "report-json",
        outputs: &["report"],
        meaning: "a JSON document with the files that each container used",
    },
    Builtin {
        name: "death-explainer",
        outputs: &[],
        meaning: "a verdict on every death, in plain words: [all of them](verdicts.md)",
    },
    Builtin {
        name: "event-log",
        outputs: &["log"],
        meaning: "the latest events, one line of JSON each",
    },
    Builtin {
        name: "jsonl",
        outputs: &["events"],
        meaning: "every event as a line of JSON, for an output with `lines`",
    },
    Builtin {
        name: "otlp",
        outputs: &["logs"],
        meaning: "what `death-explainer` does, and each death as a log record of [OTLP](otlp.md)",
    },
    Builtin {
        name: "otlp-files",
        outputs: &["logs"],
        meaning: "the files that each container used, as log records of [OTLP](otlp.md)",
    },
    Builtin {
        name: "apparmor-profile",
        outputs: &["profiles"],
        meaning: "an AppArmor profile for each container, with a rule for each file that it used",
    },
    Builtin {
        name: "path-filter",
        outputs: &[],
        meaning: "a filter: keeps, drops and tags events by [rules about paths and containers](path-filter.md)",
    },
];

/// Where a plugin's component comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum PluginSource {
    /// Shipped inside the binary: the name behind `builtin:`.
    Builtin(String),
    /// A component file.
    File(PathBuf),
    /// A component in a registry.
    Registry(Reference),
}

/// What a plugin may use.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Time for one call.
    #[serde(serialize_with = "effective::duration")]
    pub call: Duration,
    /// Linear memory and tables, in bytes.
    #[serde(rename = "memory", serialize_with = "effective::size")]
    pub memory_bytes: usize,
    /// Events that wait for it at most.
    #[serde(rename = "queue")]
    pub queue_events: usize,
    /// One document that it hands over, in bytes.
    #[serde(rename = "output", serialize_with = "effective::size")]
    pub output_bytes: usize,
    /// Log messages a second.
    pub log_per_second: u32,
    /// Instances that it may lose in a row.
    pub instances: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            call: Duration::from_secs(1),
            memory_bytes: 256 << 20,
            queue_events: 65_536,
            output_bytes: 64 << 20,
            log_per_second: 20,
            instances: 10,
        }
    }
}

/// Where an output's documents go.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A file, replaced whole.
    File(PathBuf),
    /// A file that grows by each document.
    Lines(PathBuf),
    /// Standard output, one document after the other.
    Stdout,
    /// A server, one document after the other.
    Http(Box<HttpOutput>),
}

/// A server that documents are sent to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HttpOutput {
    /// Where it is.
    #[serde(rename = "http")]
    pub url: Url,
    /// Headers of every request, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// File with further headers, read for every request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers_file: Option<PathBuf>,
    /// Media type of the documents. None: what each looks like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// File with the certificates that the server's has to go back to. None: those of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How long one request may take.
    #[serde(serialize_with = "effective::duration")]
    pub timeout: Duration,
    /// How long a document is tried again.
    #[serde(serialize_with = "effective::duration")]
    pub retry_for: Duration,
    /// What waits to be sent, in bytes.
    #[serde(rename = "queue", serialize_with = "effective::size")]
    pub queue_bytes: usize,
}

impl HttpOutput {
    /// A server of which only the address is given.
    pub fn new(url: Url) -> HttpOutput {
        HttpOutput {
            url,
            headers: BTreeMap::new(),
            headers_file: None,
            content_type: None,
            ca_file: None,
            timeout: Duration::from_secs(10),
            retry_for: Duration::from_secs(300),
            queue_bytes: 16 << 20,
        }
    }
}

/// Reads a duration as the TOML has it, such as `10s`. The error is what was expected.
pub(crate) fn read_duration(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_millis(100), Duration::from_secs(24 * 3600));
    values::read_duration(text, least, most).map_err(|mismatch| mismatch.expected)
}

#[cfg(test)]
mod tests;

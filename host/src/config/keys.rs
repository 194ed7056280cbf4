//! Every key of the TOML, once: its name, what it holds, its limits and its meaning.
//!
//! The reader takes from here what it expects and what it suggests, and `docs/configuration.md` is
//! generated from it. The defaults stand in the `Default` implementations of `mod.rs`.

use std::time::Duration;

use super::{Alone, Backup, LogFormat, LogLevel, OnFailure, Overflow, Scope, Tier, Wasi};
use super::{url, values};

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Its name in its table.
    pub name: &'static str,
    /// What it holds.
    pub shape: Shape,
    /// Whether the table is incomplete without it.
    pub required: bool,
    /// What it means, as a sentence of Markdown without its full stop.
    pub meaning: &'static str,
}

/// What a key holds.
#[derive(Debug)]
pub enum Shape {
    /// One of these words.
    Word(&'static [&'static str]),
    /// A duration.
    Duration {
        /// The shortest.
        least: Duration,
        /// The longest.
        most: Duration,
    },
    /// A number of bytes.
    Size {
        /// The smallest, in bytes.
        least: u64,
        /// The largest, in bytes.
        most: u64,
        /// Whether it has to be a power of two.
        power_of_two: bool,
    },
    /// A whole number.
    Count {
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
    },
    /// `true`; the key is left out otherwise.
    True,
    /// `true` or `false`.
    Boolean,
    /// A path. A relative one starts at the folder of the TOML file.
    Path,
    /// A list of absolute path prefixes.
    Prefixes,
    /// A list of cgroup paths.
    Subtrees,
    /// A list of event kinds.
    Events,
    /// A list of patterns of container names.
    Patterns,
    /// A SHA-256 hash.
    Sha256,
    /// Where to listen: an address with a port, or a port of loopback.
    Address,
    /// A Unix socket, or a word about it.
    Socket,
    /// A server with TLS, or a word about it.
    Server,
    /// An address of HTTP or HTTPS.
    Url,
    /// A table of HTTP headers.
    Headers,
    /// A list of names of environment variables.
    Variables,
    /// A table of folders by the paths at which a plugin finds them.
    Folders,
    /// A media type.
    MediaType,
    /// The name of a plugin or an output.
    Name,
    /// Where a component comes from.
    Source,
    /// A table with these keys.
    Table(&'static [Key]),
    /// A list of tables with these keys.
    Tables(&'static [Key]),
    /// A table whose keys are names, each with a table of these keys.
    Named(&'static [Key]),
    /// A table that is not looked into.
    Free,
}

/// What an output's or a plugin's name is made of, to stand behind `expected`.
pub const NAME_RULE: &str = "1 to 63 lower case letters, digits and hyphens";

impl Shape {
    /// What is expected, to stand behind the word `expected`, and in the documentation.
    pub fn expected(&self) -> String {
        match self {
            Shape::Word(words) => values::expected_word(words),
            Shape::Duration { least, most } => values::expected_duration(*least, *most),
            Shape::Size { least, most, power_of_two } => {
                values::expected_size(*least, *most, *power_of_two)
            }
            Shape::Count { least, most } => format!("a whole number from {least} to {most}"),
            Shape::True => String::from("true, or no such key"),
            Shape::Boolean => String::from("true or false"),
            Shape::Path => String::from("a path"),
            Shape::Prefixes => String::from("a list of absolute paths such as [\"/proc/\"]"),
            Shape::Subtrees => String::from(
                "a list of cgroups below the root, such as [\"system.slice/nginx.service\"]",
            ),
            Shape::Events => {
                String::from("a list of event kinds such as [\"files\", \"oom-kill\"]")
            }
            Shape::Patterns => String::from("a list of container names such as [\"app-*\"]"),
            Shape::Sha256 => String::from("64 hexadecimal digits, as `sha256sum` prints them"),
            Shape::Address => values::expected_address(),
            Shape::Socket => String::from("\"auto\", \"off\", or the path of a socket"),
            Shape::Server => {
                String::from("\"auto\", \"off\", or an address such as \"https://10.96.0.1:443\"")
            }
            Shape::Url => url::expected_url(),
            Shape::Headers => {
                String::from("a table of headers such as { x-scope-orgid = \"team\" }")
            }
            Shape::Variables => {
                String::from("a list of names of environment variables such as [\"NODE_NAME\"]")
            }
            Shape::Folders => {
                String::from("a table of folders such as { \"/rules\" = \"/etc/whodunit/rules\" }")
            }
            Shape::MediaType => String::from("a media type such as \"application/json\""),
            Shape::Name => String::from(NAME_RULE),
            Shape::Source => {
                String::from("\"builtin:NAME\", the path of a component file, or \"oci://...\"")
            }
            Shape::Table(_) | Shape::Free => String::from("a table"),
            Shape::Tables(_) => String::from("a list of tables"),
            Shape::Named(_) => {
                String::from("a table of names, such as report = { file = \"report.json\" }")
            }
        }
    }

    /// The keys of the tables inside.
    pub fn keys(&self) -> Option<&'static [Key]> {
        match self {
            Shape::Table(keys) | Shape::Tables(keys) | Shape::Named(keys) => Some(keys),
            Shape::Word(_)
            | Shape::Duration { .. }
            | Shape::Size { .. }
            | Shape::Count { .. }
            | Shape::True
            | Shape::Boolean
            | Shape::Path
            | Shape::Prefixes
            | Shape::Subtrees
            | Shape::Events
            | Shape::Patterns
            | Shape::Sha256
            | Shape::Address
            | Shape::Socket
            | Shape::Server
            | Shape::Url
            | Shape::Headers
            | Shape::Variables
            | Shape::Folders
            | Shape::MediaType
            | Shape::Name
            | Shape::Source
            | Shape::Free => None,
        }
    }
}

/// The key of that dotted path, such as `daemon.interval`.
///
/// # Panics
///
/// Where there is no such key: paths come from this program, never from a user.
pub fn key(path: &str) -> &'static Key {
    let mut keys = ROOT;
    let mut found = None;
    for name in path.split('.') {
        let key = keys.iter().find(|key| key.name == name);
        let key = key.unwrap_or_else(|| panic!("there is no configuration key {path}"));
        keys = key.shape.keys().unwrap_or(&[]);
        found = Some(key);
    }
    found.expect("a path has at least one name")
}

/// Calls `each` with the dotted path of its table and the key, for every key: a whole table, then the
/// tables in it. Names that the user chooses are `NAME` in the path.
pub fn walk(each: &mut dyn FnMut(&str, &'static Key)) {
    fn descend(path: &str, keys: &'static [Key], each: &mut dyn FnMut(&str, &'static Key)) {
        for key in keys {
            each(path, key);
        }
        for key in keys {
            let Some(inner) = key.shape.keys() else {
                continue;
            };
            let dot = if path.is_empty() { "" } else { "." };
            let any_name = if matches!(key.shape, Shape::Named(_)) { ".NAME" } else { "" };
            descend(&format!("{path}{dot}{}{any_name}", key.name), inner, each);
        }
    }
    descend("", ROOT, each);
}

const fn optional(name: &'static str, shape: Shape, meaning: &'static str) -> Key {
    Key { name, shape, required: false, meaning }
}

const fn required(name: &'static str, shape: Shape, meaning: &'static str) -> Key {
    Key { name, shape, required: true, meaning }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The tables at the top of the file.
pub static ROOT: &[Key] = &[
    optional("discovery", Shape::Table(DISCOVERY), "Which containers are watched"),
    optional(
        "names",
        Shape::Table(NAMES),
        "Who is asked what containers are called, beside the files of runtimes",
    ),
    optional("files", Shape::Table(FILES), "Which file events are admitted"),
    optional("capture", Shape::Table(CAPTURE), "How the kernel captures files"),
    optional("daemon", Shape::Table(DAEMON), "Where the daemon keeps what is its own"),
    optional(
        "deaths",
        Shape::Table(DEATHS),
        "Where deaths go, beside the history in `daemon.state_dir`: one line of JSON each, the record and its explanation",
    ),
    optional(
        "http",
        Shape::Table(HTTP),
        "What is told over HTTP: metrics, health, a read-only API and a page",
    ),
    optional("log", Shape::Table(LOG), "What the daemon says on standard error"),
    optional(
        "plugin",
        Shape::Tables(PLUGIN),
        "The plugins, one `[[plugin]]` each. Where there is none, `builtin:report-json` runs under \
         the name `report` and writes `report.json` in `daemon.state_dir`, and \
         `builtin:death-explainer` explains deaths",
    ),
];

static DISCOVERY: &[Key] = &[
    optional(
        "scope",
        Shape::Word(&[
            Scope::Auto.name(),
            Scope::Pod.name(),
            Scope::Node.name(),
            Scope::Cgroups.name(),
        ]),
        "What is watched: `pod` is the other containers of the daemon's own pod, `node` is every \
         container of the machine, `cgroups` is the subtrees of `discovery.cgroups`, and `auto` is \
         `pod` inside a container and `node` elsewhere",
    ),
    optional(
        "cgroup_root",
        Shape::Path,
        "Where the cgroup v2 hierarchy is mounted. Without it, it is looked up in \
         `/proc/self/mountinfo`",
    ),
    optional(
        "cgroups",
        Shape::Subtrees,
        "The subtrees to watch, relative to the cgroup root. Required with the scope `cgroups` and \
         refused with every other",
    ),
    optional(
        "rescan",
        Shape::Duration { least: Duration::from_secs(1), most: DAY },
        "How often the whole cgroup tree is read again, to repair what the live events missed",
    ),
    optional(
        "alone",
        Shape::Word(&[Alone::End.name(), Alone::Wait.name()]),
        "What becomes of a daemon in the scope `pod` that finds nobody else there when it starts: `end` \
         is an error, `wait` is for a native sidecar, which is started before the others",
    ),
    optional(
        "host_root",
        Shape::Path,
        "Where the root of the machine's file system is, as the daemon sees it: below it are the files by \
         which runtimes name containers",
    ),
    optional(
        "include",
        Shape::Patterns,
        "The containers that are watched, by patterns of their names with `*`, `?`, `[...]` and `{a,b}`. \
         Without it, every container in scope",
    ),
    optional(
        "exclude",
        Shape::Patterns,
        "The containers that are left out, even where `include` has them. Those that only hold the \
         namespaces of a pod (`pause`) always are",
    ),
];

static NAMES: &[Key] = &[
    optional(
        "cri",
        Shape::Socket,
        "The CRI socket of containerd or CRI-O. `auto` is `/run/containerd/containerd.sock`, \
         `/run/crio/crio.sock`, `/run/k3s/containerd/containerd.sock` and `/run/cri-dockerd.sock` below \
         `discovery.host_root`, as far as they are there",
    ),
    optional(
        "podman",
        Shape::Socket,
        "The socket of Podman's service. `auto` is `/run/podman/podman.sock` below `discovery.host_root`",
    ),
    optional(
        "docker",
        Shape::Socket,
        "The socket of Docker's engine. `auto` is `/run/docker.sock` below `discovery.host_root`",
    ),
    optional(
        "kubernetes",
        Shape::Server,
        "The API server of Kubernetes. `auto` is the one that a pod finds in its environment. It is asked \
         with the pod's service account: in the scope `pod` for the pod that `POD_NAMESPACE` and `POD_NAME` \
         name, else for the pods of the node that `NODE_NAME` names",
    ),
];

static FILES: &[Key] = &[
    optional(
        "exclude",
        Shape::Prefixes,
        "Files whose resolved path starts with one of these are counted and left out. The list \
         replaces the default",
    ),
    optional(
        "dedup_capacity",
        Shape::Count { least: 1, most: 10_000_000 },
        "Entries of each container's cache of files that plugins know already. A file that falls \
         out of the cache stays in the report",
    ),
];

static CAPTURE: &[Key] = &[
    optional(
        "ring",
        Shape::Size { least: 64 * KIB, most: GIB, power_of_two: true },
        "Size of the ring between the kernel and the daemon for file events. Kernel memory",
    ),
    optional(
        "kernel_dedup_entries",
        Shape::Count { least: 1_024, most: 16_777_216 },
        "Entries of the kernel's map of files seen already, shared by all containers",
    ),
    optional(
        "max_cgroups",
        Shape::Count { least: 16, most: 1_048_576 },
        "How many cgroups can be watched at once, nested ones included",
    ),
    optional(
        "tier",
        Shape::Word(&[Tier::Auto.name(), Tier::Base.name(), Tier::Exact.name()]),
        "How deep in the kernel files are captured: `base` is at the system calls, `exact` is beneath \
         them as well, where io_uring and the kernel itself open files, and `auto` is `exact` where the \
         kernel allows it. With `exact` the daemon ends with 78 where the kernel does not",
    ),
    optional(
        "backup",
        Shape::Word(&[Backup::Auto.name(), Backup::Always.name(), Backup::Never.name()]),
        "Whether a second program on each tracepoint takes up what the kernel kept from the first one, which it does from Linux \
         6.19 on: `auto` is there, and not before. It costs each system call of the machine some tens of nanoseconds. With `never` \
         what was kept is counted as lost",
    ),
    optional(
        "measure",
        Shape::Boolean,
        "Whether the kernel measures how often and how long each probe runs, for the metrics. It then does so for every \
         BPF program of the machine while the daemon runs, which costs each run some tens of nanoseconds. Needs \
         `CAP_SYS_ADMIN` at the start, or `kernel.bpf_stats_enabled` = 1; without either a warning says so",
    ),
];

static DAEMON: &[Key] = &[
    optional(
        "state_dir",
        Shape::Path,
        "Folder for the lock and for what must survive a restart. Made with mode 0750 where it is \
         missing",
    ),
    optional(
        "cache_dir",
        Shape::Path,
        "Folder for compiled plugins. Only root may be able to write it",
    ),
    optional(
        "interval",
        Shape::Duration { least: Duration::from_millis(100), most: DAY },
        "How often plugins get exact totals, which is how often reports are written",
    ),
];

static DEATHS: &[Key] = &[
    optional(
        "file",
        Shape::Path,
        "The file that grows by them. Where it was moved away, a new one is begun",
    ),
    optional("stdout", Shape::True, "Standard output gets them"),
];

static HTTP: &[Key] = &[
    optional(
        "listen",
        Shape::Address,
        "Where HTTP is answered: an address and a port, or a port alone for this machine or pod only \
         (`127.0.0.1`). Without it, nowhere",
    ),
    optional(
        "token_file",
        Shape::Path,
        "File with one line, the token that requests have to carry as `Authorization: Bearer TOKEN`. \
         Without it, whoever reaches the address may read",
    ),
    optional(
        "tls_certificate",
        Shape::Path,
        "File with the certificate, in PEM, that HTTPS is answered with, followed by those between it and its \
         authority. Read again at SIGHUP. Without it, HTTP is answered",
    ),
    optional(
        "tls_key",
        Shape::Path,
        "File with the key of that certificate, in PEM. Read again with it",
    ),
    optional(
        "metrics_containers",
        Shape::Count { least: 1, most: 100_000 },
        "How many containers have metrics of their own: those that were found first. The counters of the \
         others are summed",
    ),
];

static LOG: &[Key] = &[
    optional(
        "level",
        Shape::Word(&[
            LogLevel::Error.name(),
            LogLevel::Warn.name(),
            LogLevel::Info.name(),
            LogLevel::Debug.name(),
            LogLevel::Trace.name(),
        ]),
        "The least urgent messages that are written",
    ),
    optional(
        "format",
        Shape::Word(&[LogFormat::Text.name(), LogFormat::Json.name()]),
        "A line for people, or a JSON object a line",
    ),
];

static PLUGIN: &[Key] = &[
    required("name", Shape::Name, "Unique among the plugins; a label in the log and in metrics"),
    required(
        "source",
        Shape::Source,
        "A plugin that is shipped inside the binary (`builtin:NAME`), the path of a component, or [its name in a \
         registry](running-plugins.md#from-a-registry), such as `oci://ghcr.io/team/counts:1.0@sha256:...`",
    ),
    optional(
        "moving_tag",
        Shape::True,
        "Lets `source` name a component in a registry by its tag alone, which may be another component at each start \
         and each reload",
    ),
    optional(
        "sha256",
        Shape::Sha256,
        "The component has to have this hash, or it is refused: at the start and whenever it changes",
    ),
    optional(
        "events",
        Shape::Events,
        "The kinds of events that the plugin gets: names of kinds, or `files`, `processes` and \
         `containers` for all kinds about them. Without it, `files` and `containers`",
    ),
    optional(
        "containers",
        Shape::Patterns,
        "The containers whose events and totals the plugin gets, by patterns of their names with `*`, \
         `?`, `[...]` and `{a,b}`. Without it, every container",
    ),
    optional(
        "on_failure",
        Shape::Word(&[OnFailure::Open.name(), OnFailure::Closed.name()]),
        "For filters: what becomes of events that it did not judge, because it failed or was being \
         replaced. `open` lets them go on, `closed` drops them and counts `lost.filter-failed`",
    ),
    optional(
        "overflow",
        Shape::Word(&[
            Overflow::DropNewest.name(),
            Overflow::DropOldest.name(),
            Overflow::Block.name(),
        ]),
        "What is dropped when `limits.queue` events wait for the plugin. Either is counted, and told to \
         the plugin at its next call. `block` drops nothing and waits for the plugin: it is for \
         `whodunit replay`, and a daemon that captures refuses it",
    ),
    optional(
        "wasi",
        Shape::Word(&[Wasi::None.name(), Wasi::Stub.name(), Wasi::P2.name()]),
        "What the plugin gets of the WebAssembly System Interface: nothing at all; `stub`, functions that \
         know nothing and give nothing (no files, no environment, closed streams, a clock at zero), for \
         languages whose components import it without need; `p2`, the same but for what `grants` names",
    ),
    optional(
        "grants",
        Shape::Table(GRANTS),
        "With `wasi = \"p2\"`: the capabilities that the plugin is given, one by one. What is not named is not given",
    ),
    optional("limits", Shape::Table(LIMITS), "What the plugin may use"),
    optional(
        "outputs",
        Shape::Named(OUTPUT),
        "Where the documents of the plugin go, by the names that it gives them",
    ),
    optional("config", Shape::Free, "The plugin's own settings, handed to it as JSON"),
];

static GRANTS: &[Key] = &[
    optional("clocks", Shape::Boolean, "Its clocks tell the time; otherwise it is always 0"),
    optional(
        "random",
        Shape::Boolean,
        "Its random numbers are random; otherwise they are 0, and of random bytes there are none",
    ),
    optional(
        "output",
        Shape::Boolean,
        "What it writes to standard output and standard error goes to the log; otherwise both are closed",
    ),
    optional(
        "environment",
        Shape::Variables,
        "The environment variables of the daemon that it sees, as far as they are set; no other",
    ),
    optional(
        "folders",
        Shape::Folders,
        "The folders that it may read, with everything below them: by the path at which it finds each, \
         the absolute path of the folder. It cannot write, and no path and no link leads it out of them",
    ),
];

static LIMITS: &[Key] = &[
    optional(
        "call",
        Shape::Duration { least: Duration::from_millis(10), most: Duration::from_secs(60) },
        "Time for one call. A call that takes longer costs the plugin its instance",
    ),
    optional(
        "memory",
        Shape::Size { least: MIB, most: 4 * GIB, power_of_two: false },
        "Linear memory and tables of the plugin",
    ),
    optional(
        "queue",
        Shape::Count { least: 1_024, most: 16_777_216 },
        "Events that wait for the plugin at most. What is more is dropped and counted",
    ),
    optional(
        "output",
        Shape::Size { least: KIB, most: GIB, power_of_two: false },
        "Size of one document that the plugin hands over",
    ),
    optional(
        "log_per_second",
        Shape::Count { least: 0, most: 100_000 },
        "Messages that the plugin may log in a second. More are dropped and counted",
    ),
    optional(
        "instances",
        Shape::Count { least: 1, most: 1_000 },
        "Instances that the plugin may lose in a row, each of them within a minute. Then it is quarantined until it is reloaded",
    ),
];

static OUTPUT: &[Key] = &[
    optional("file", Shape::Path, "The file that holds the newest document, replaced whole"),
    optional(
        "lines",
        Shape::Path,
        "The file that grows by each document. Where it was moved away, a new one is begun; what waits for a \
         disk is 16 MiB at most, and what is more is counted and left out",
    ),
    optional("stdout", Shape::True, "Standard output gets one document after the other"),
    optional(
        "http",
        Shape::Url,
        "The server that gets one document after the other, each by `POST`. An answer of 429 or from 500 on, \
         and none at all, is tried again after a pause that grows to 30 s, or that the server asks for with \
         `Retry-After`; any other but 2xx is not. What is given up is counted by reason. The keys below \
         are for it alone",
    ),
    optional("headers", Shape::Headers, "Headers of every request"),
    optional(
        "headers_file",
        Shape::Path,
        "File with further headers, one `Name: value` a line, which is read for every request: for tokens",
    ),
    optional(
        "content_type",
        Shape::MediaType,
        "Media type of the documents. Without it, what each looks like: `application/json`, \
         `application/x-ndjson`, `text/plain` or `application/octet-stream`",
    ),
    optional(
        "ca_file",
        Shape::Path,
        "File with the certificates, in PEM, that the certificate of an `https` server has to go back to. \
         Without it, those of the machine; where it has none, those of Mozilla as of the build",
    ),
    optional(
        "timeout",
        Shape::Duration { least: Duration::from_millis(100), most: Duration::from_secs(300) },
        "How long one request may take, from looking up the name to the end of the answer; 10 s without it",
    ),
    optional(
        "retry_for",
        Shape::Duration { least: Duration::from_secs(1), most: DAY },
        "How long a document is tried again before it is given up; 5 minutes without it",
    ),
    optional(
        "queue",
        Shape::Size { least: 64 * KIB, most: GIB, power_of_two: false },
        "What waits to be sent at most; 16 MiB without it. What is more pushes out the oldest documents, which are \
         counted. One document is always taken",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_key_are_those_of_its_type() {
        for (path, names) in [
            ("discovery.scope", Scope::ALL.map(Scope::name).to_vec()),
            ("capture.tier", Tier::ALL.map(Tier::name).to_vec()),
            ("capture.backup", Backup::ALL.map(Backup::name).to_vec()),
            ("log.level", LogLevel::ALL.map(LogLevel::name).to_vec()),
            ("log.format", LogFormat::ALL.map(LogFormat::name).to_vec()),
            ("plugin.on_failure", OnFailure::ALL.map(OnFailure::name).to_vec()),
            ("plugin.overflow", Overflow::ALL.map(Overflow::name).to_vec()),
            ("plugin.wasi", Wasi::ALL.map(Wasi::name).to_vec()),
        ] {
            let Shape::Word(words) = key(path).shape else { panic!("{path} holds words") };
            assert_eq!(words, names);
        }
    }

    #[test]
    fn no_table_has_a_key_twice() {
        let mut seen = std::collections::BTreeSet::new();
        walk(&mut |table, key| assert!(seen.insert((table.to_owned(), key.name)), "{}", key.name));
        assert!(seen.contains(&(String::from("plugin.outputs.NAME"), "file")));
    }
}

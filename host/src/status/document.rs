//! The document that `whodunit status` and the API give: plain values with names.
//!
//! Read by other versions of the program, so fields are added and never change their meaning.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::deaths::{ByVerdict, DeathsStatus};
use crate::directory::Container;
use crate::event::{ContainerTotals, Counter, UnixNanos};
use crate::kernel::{self, ProbeStatus};
use crate::plugin::{
    CALL_TIME_BOUNDS_NS, CONTRACT, CallTime, PluginState, PluginStatus, Surroundings,
};
use crate::privilege::Need;
use crate::sink::SinkStatus;

use super::Board;

/// A moment, which documents write as RFC 3339 does, in UTC and milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub UnixNanos);

impl Moment {
    /// Now.
    pub fn now() -> Moment {
        Moment(UnixNanos(kernel::real_time_ns()))
    }

    /// Seconds since the Unix epoch.
    pub fn seconds(self) -> f64 {
        Duration::from_nanos(self.0.0).as_secs_f64()
    }

    /// The time from `earlier` to here; none where that is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.0.saturating_sub(earlier.0.0))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 64 bits of nanoseconds end in the year 2554.
        match Timestamp::from_nanosecond(i128::from(self.0.0)) {
            Ok(moment) => write!(f, "{moment:.3}"),
            Err(_) => Err(fmt::Error),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Moment, D::Error> {
        let text = String::deserialize(from)?;
        let moment: Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Moment(UnixNanos(u64::try_from(moment.as_nanosecond()).unwrap_or(0))))
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// What the daemon is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// When the totals of the containers were taken.
    pub as_of: Moment,
    /// The daemon itself.
    pub daemon: DaemonStatus,
    /// The containers that are watched.
    pub containers: Vec<ContainerStatus>,
    /// Every probe of this build.
    pub probes: Vec<ProbeReport>,
    /// The plugins, in the order of the TOML.
    pub plugins: Vec<PluginReport>,
    /// Their outputs.
    pub outputs: Vec<OutputStatus>,
    /// What was lost or left out and belongs to no container, by reason. One that is 0 is left out.
    pub losses: BTreeMap<String, u64>,
    /// Deaths.
    #[serde(default)]
    pub deaths: DeathsStatus,
    /// Who is asked what containers are called, in that order.
    #[serde(default)]
    pub name_sources: Vec<NameSourceStatus>,
}

/// The daemon itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonStatus {
    /// Its version.
    pub version: String,
    /// The plugin contract that it speaks.
    pub contract: String,
    /// Its process id, in its own pid namespace.
    pub pid: u32,
    /// When it started.
    pub started_at: Moment,
    /// What it watches: `pod`, `node` or `cgroups`.
    pub scope: String,
    /// The node's name.
    pub node_name: String,
    /// Its pod's name, where it was told.
    pub pod_name: Option<String>,
    /// Its pod's namespace, where it was told.
    pub namespace: Option<String>,
    /// Processor time that it used, over all its threads.
    pub cpu_seconds: f64,
    /// Memory of it that is resident. None where `/proc` does not tell.
    pub resident_bytes: Option<u64>,
    /// The longest that its capture thread stood still in one turn since the start: it had work, and waited
    /// for another thread or for a disk. Waiting for a processor does not count, nor what is below a
    /// millisecond.
    #[serde(default)]
    pub longest_standstill_seconds: f64,
    /// The capabilities that it needs and did not have when it started.
    #[serde(default)]
    pub missing_capabilities: Vec<MissingCapability>,
}

/// A capability that the daemon needs and did not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MissingCapability {
    /// Its name, such as `CAP_SYS_PTRACE`.
    pub capability: String,
    /// What is missing without it, in one sentence.
    pub without: String,
}

impl From<&Need> for MissingCapability {
    fn from(need: &Need) -> MissingCapability {
        MissingCapability {
            capability: need.capability.to_string(),
            without: need.without.to_owned(),
        }
    }
}

/// A container that is watched, with its totals of this run of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerStatus {
    /// Its number in this run of the daemon.
    pub id: u32,
    /// What people call it.
    pub name: String,
    /// Where the name comes from.
    pub name_source: String,
    /// The runtime's id.
    pub runtime_id: String,
    /// The runtime, or `unknown`.
    pub runtime: String,
    /// Its cgroup's path. What is no UTF-8 in it is replaced.
    pub cgroup_path: String,
    /// What else is known of it, such as `pod-uid`.
    pub attributes: BTreeMap<String, String>,
    /// Since when it is watched.
    pub watched_since: Moment,
    /// Whether it was watched from the creation of its cgroup on.
    pub from_birth: bool,
    /// When its last event was seen.
    pub last_event: Option<Moment>,
    /// Where a container that used to speak says nothing any more: for how long, in one sentence.
    pub quiet: Option<String>,
    /// Its exact totals, by the names of `container-totals` in the plugin contract.
    pub counters: BTreeMap<String, u64>,
    /// Deaths in it since the daemon started, by verdict.
    #[serde(default)]
    pub deaths: ByVerdict,
    /// How long it was throttled by its CPU quota since it started. None where no cgroup tells.
    #[serde(default)]
    pub cpu_throttled_seconds: Option<f64>,
}

/// Somebody who may know what containers are called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NameSourceStatus {
    /// What `name_source` of a container says that is named there.
    pub source: String,
    /// Where it is: a socket, an address, a folder.
    pub place: String,
    /// `not-asked`, `answers`, `absent` or `failing`.
    pub state: String,
    /// Why it names nobody, in one sentence.
    pub reason: Option<String>,
    /// How often it named a container.
    pub named: u64,
}

/// A probe, and whether it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeReport {
    /// Its name.
    pub name: String,
    /// What it sees.
    pub sees: String,
    /// `base`, or `exact` for one that not every kernel allows.
    pub tier: String,
    /// Whether it runs.
    pub live: bool,
    /// Why not, in one sentence.
    pub reason: Option<String>,
    /// How often the kernel ran its programs. None where that is not measured.
    #[serde(default)]
    pub runs: Option<u64>,
    /// How long they ran together, on all CPUs. None where that is not measured.
    #[serde(default)]
    pub run_seconds: Option<f64>,
}

/// A plugin and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PluginReport {
    /// Its name in the TOML.
    pub name: String,
    /// Where its component comes from.
    pub source: String,
    /// Its role.
    pub role: String,
    /// What it calls itself, with its version.
    pub description: Option<String>,
    /// `starting`, `running`, `backing-off`, `quarantined` or `stopped`.
    pub state: String,
    /// Why it does not run, in one sentence.
    pub reason: Option<String>,
    /// Instances so far.
    pub instance: u32,
    /// Calls of the guest.
    pub calls: u64,
    /// Events that it was given.
    pub events: u64,
    /// Events that its full queue dropped.
    pub dropped: u64,
    /// Events that an instance held when it was lost.
    pub lost_with_instance: u64,
    /// Documents that it handed over.
    pub documents: u64,
    /// What went wrong, by kind. One that is 0 is left out.
    pub faults: BTreeMap<String, u64>,
    /// The newest fault, in one sentence.
    pub last_error: Option<String>,
    /// How often another version took the place of the one before.
    #[serde(default)]
    pub swaps: u64,
    /// How often that was tried and failed: the one before went on.
    #[serde(default)]
    pub failed_swaps: u64,
    /// Why the newest attempt failed, in one sentence. None after one that did not.
    #[serde(default)]
    pub last_swap_failure: Option<String>,
    /// SHA-256 of the version that runs beside it, to be compared.
    #[serde(default)]
    pub beside_sha256: Option<String>,
    /// Events that wait for it; for an explainer, deaths. Filters share one queue, and so do explainers.
    #[serde(default)]
    pub queue_events: u64,
    /// Linear memory and tables of its instance, in bytes, as of its last call. 0 while it has none.
    #[serde(default)]
    pub memory_bytes: u64,
    /// How long its calls took, those that failed included.
    #[serde(default)]
    pub call_seconds: Histogram,
}

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Histogram {
    /// The classes, from the shortest to the longest, each without those before it.
    pub classes: Vec<Class>,
    /// All of it together, in seconds.
    pub sum_seconds: f64,
}

/// A class of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Class {
    /// How long it took at most, in seconds. None in the last class, which has no bound.
    pub at_most_seconds: Option<f64>,
    /// How often it took that long, and longer than in the class before.
    pub count: u64,
}

impl Histogram {
    /// How often it happened.
    pub fn count(&self) -> u64 {
        self.classes.iter().map(|class| class.count).sum()
    }
}

impl From<&CallTime> for Histogram {
    fn from(time: &CallTime) -> Histogram {
        let seconds = |ns: u64| ns as f64 / 1e9;
        let bounds = CALL_TIME_BOUNDS_NS.into_iter().map(|ns| Some(seconds(ns)));
        let classes = bounds.chain([None]).zip(time.classes);
        Histogram {
            classes: classes
                .map(|(at_most_seconds, count)| Class { at_most_seconds, count })
                .collect(),
            sum_seconds: seconds(time.sum_ns),
        }
    }
}

/// Where a plugin's documents go, and how that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputStatus {
    /// The plugin.
    pub plugin: String,
    /// The output's name.
    pub output: String,
    /// When a document was last written.
    pub last_write: Option<Moment>,
    /// Size of that document.
    pub last_bytes: usize,
    /// Documents that were written.
    pub writes: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Documents that were left out, by reason: of lines and for servers, where none replaces another. `queue-full`,
    /// `refused`, `unreachable` or `stopped`. One that is 0 is left out.
    #[serde(default)]
    pub dropped: BTreeMap<String, u64>,
    /// What waits to be written, in bytes.
    #[serde(default)]
    pub waiting_bytes: usize,
    /// Why the newest attempt failed. None after one that did not.
    pub last_error: Option<String>,
}

impl DaemonStatus {
    /// The daemon that calls this, as it is now.
    pub fn now(surroundings: &Surroundings, board: &Board) -> DaemonStatus {
        DaemonStatus {
            version: surroundings.daemon_version.clone(),
            contract: CONTRACT.to_owned(),
            pid: std::process::id(),
            started_at: Moment(surroundings.started),
            scope: surroundings.scope.clone(),
            node_name: surroundings.node_name.clone(),
            pod_name: surroundings.pod_name.clone(),
            namespace: surroundings.namespace.clone(),
            cpu_seconds: kernel::processor_time().as_secs_f64(),
            resident_bytes: resident_bytes(),
            longest_standstill_seconds: board.longest_standstill().as_secs_f64(),
            missing_capabilities: Vec::new(),
        }
    }
}

impl ContainerStatus {
    /// A container that is known, with its totals.
    pub fn new(known: &Container, totals: &ContainerTotals) -> ContainerStatus {
        ContainerStatus {
            id: known.id.0,
            name: known.name.clone(),
            name_source: known.name_source.to_owned(),
            runtime_id: known.runtime_id.clone(),
            runtime: known.runtime.to_owned(),
            cgroup_path: String::from_utf8_lossy(&known.cgroup_path).into_owned(),
            attributes: known.attributes.iter().cloned().collect(),
            watched_since: Moment(totals.watched_since),
            from_birth: totals.from_birth,
            last_event: totals.last_event.map(Moment),
            quiet: quiet(totals, Moment::now()),
            counters: numbers(&totals.counters),
            deaths: ByVerdict::new(),
            cpu_throttled_seconds: None,
        }
    }

    /// Accesses that were seen and did not arrive, over all reasons.
    pub fn lost(&self) -> u64 {
        let lost = self.counters.iter().filter(|(name, _)| name.starts_with("lost."));
        lost.map(|(_, value)| value).sum()
    }
}

impl From<&ProbeStatus> for ProbeReport {
    fn from(probe: &ProbeStatus) -> ProbeReport {
        ProbeReport {
            name: probe.name.to_owned(),
            sees: probe.sees.to_owned(),
            tier: probe.tier.name().to_owned(),
            live: probe.live(),
            reason: probe.reason.clone(),
            runs: None,
            run_seconds: None,
        }
    }
}

impl From<&PluginStatus> for PluginReport {
    fn from(plugin: &PluginStatus) -> PluginReport {
        let (state, reason) = match &plugin.state {
            PluginState::Starting => ("starting", None),
            PluginState::Running => ("running", None),
            PluginState::BackingOff { reason } => ("backing-off", Some(reason.clone())),
            PluginState::Quarantined { reason } => ("quarantined", Some(reason.clone())),
            PluginState::Stopped { reason } => ("stopped", Some(reason.clone())),
        };
        let faults = plugin.faults.by_kind().into_iter().filter(|(_, value)| *value != 0);
        PluginReport {
            name: plugin.name.clone(),
            source: plugin.source.clone(),
            role: plugin.role.name().to_owned(),
            description: plugin
                .description
                .as_ref()
                .map(|(name, version)| format!("{name} {version}")),
            state: state.to_owned(),
            reason,
            instance: plugin.instance,
            calls: plugin.calls,
            events: plugin.events,
            dropped: plugin.dropped,
            lost_with_instance: plugin.lost_with_instance,
            documents: plugin.documents,
            faults: faults.map(|(kind, value)| (kind.to_owned(), value)).collect(),
            last_error: plugin.last_error.clone(),
            swaps: plugin.swaps,
            failed_swaps: plugin.failed_swaps,
            last_swap_failure: plugin.last_swap.as_ref().and_then(|swap| swap.failure.clone()),
            beside_sha256: plugin.beside.clone(),
            queue_events: plugin.queue_events,
            memory_bytes: plugin.memory_bytes,
            call_seconds: Histogram::from(&plugin.call_time),
        }
    }
}

impl From<&SinkStatus> for OutputStatus {
    fn from(sink: &SinkStatus) -> OutputStatus {
        OutputStatus {
            plugin: sink.sink.plugin().to_owned(),
            output: sink.sink.output().to_owned(),
            last_write: sink.last_write.map(|at| {
                let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
                Moment(UnixNanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
            }),
            last_bytes: sink.last_bytes,
            writes: sink.writes,
            failures: sink.failures,
            dropped: sink.dropped.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect(),
            waiting_bytes: sink.waiting_bytes,
            last_error: sink.last_error.clone(),
        }
    }
}

/// How long a container is silent before that is worth a note.
const QUIET_AFTER: Duration = Duration::from_secs(600);

/// The note for a container that has gone quiet: silent for long, where it used to have an event every
/// few minutes.
fn quiet(totals: &ContainerTotals, now: Moment) -> Option<String> {
    let last = Moment(totals.last_event?);
    let silent = now.since(last);
    let events: u64 = totals
        .counters
        .iter()
        .filter(|counter| matches!(counter.name, "received" | "setup"))
        .map(|counter| counter.value)
        .sum();
    let spoke_for = last.since(Moment(totals.watched_since)).max(Duration::from_secs(60));
    let a_minute = events as f64 * 60.0 / spoke_for.as_secs_f64();
    let expected = a_minute * silent.as_secs_f64() / 60.0;
    (silent >= QUIET_AFTER && expected >= 10.0).then(|| {
        format!("no event for {} min; before that {a_minute:.1} a minute", silent.as_secs() / 60)
    })
}

/// Named numbers as a map.
pub fn numbers(counters: &[Counter]) -> BTreeMap<String, u64> {
    counters.iter().map(|counter| (counter.name.to_owned(), counter.value)).collect()
}

/// Memory of this process that is resident, from `/proc/self/status` (in KiB there).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_milliseconds_of_utc_and_read_again() {
        let moment = Moment(UnixNanos(1_764_281_295_123_456_789));
        assert_eq!(moment.to_string(), "2025-11-27T22:08:15.123Z");
        let read: Moment = serde_json::from_value(serde_json::to_value(moment).unwrap()).unwrap();
        assert_eq!(read, Moment(UnixNanos(1_764_281_295_123_000_000)));
        assert_eq!(Moment(UnixNanos(0)).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_container_that_used_to_speak_and_is_silent_gets_a_note() {
        const MINUTE: u64 = 60_000_000_000;
        let check = |events: u64, spoke: u64, silent: u64, expected: Option<&str>| {
            let totals = ContainerTotals {
                container: crate::event::ContainerId(1),
                watched_since: UnixNanos(0),
                from_birth: true,
                first_exec_seen: true,
                last_event: Some(UnixNanos(spoke * MINUTE)),
                ended: None,
                counters: vec![Counter { name: "received", value: events }],
            };
            let now = Moment(UnixNanos((spoke + silent) * MINUTE));
            assert_eq!(quiet(&totals, now).as_deref(), expected, "{events} {spoke} {silent}");
        };
        check(600, 60, 12, Some("no event for 12 min; before that 10.0 a minute"));
        check(600, 60, 9, None);
        check(6, 60, 12, None);
        check(6, 60, 120, Some("no event for 120 min; before that 0.1 a minute"));
    }

    #[test]
    fn a_call_is_in_the_class_of_its_time() {
        let mut time = CallTime { sum_ns: 12_500_000_000, ..CallTime::default() };
        time.classes[0] = 2;
        time.classes[CALL_TIME_BOUNDS_NS.len()] = 1;
        let histogram = Histogram::from(&time);
        let last = CALL_TIME_BOUNDS_NS.len();
        assert_eq!(histogram.classes[0], Class { at_most_seconds: Some(0.000_01), count: 2 });
        assert_eq!(histogram.classes[last - 1].at_most_seconds, Some(10.0));
        assert_eq!(histogram.classes[last], Class { at_most_seconds: None, count: 1 });
        assert_eq!((histogram.count(), histogram.sum_seconds), (3, 12.5));
    }

    #[test]
    fn the_own_memory_is_more_than_a_mebibyte_and_less_than_a_gibibyte() {
        let resident = resident_bytes().unwrap();
        assert!((1 << 20..1 << 30).contains(&resident), "{resident}");
    }
}

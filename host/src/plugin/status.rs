//! What became of a plugin: plain counts beside the code that counts, read by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use super::load::Loaded;
use super::queue::Depth;
use super::role::Role;

/// Upper bounds of the classes that the time of calls is counted in, in nanoseconds. The last class has
/// no bound.
pub const CALL_TIME_BOUNDS_NS: [u64; 8] =
    [10_000, 100_000, 1_000_000, 5_000_000, 25_000_000, 100_000_000, 1_000_000_000, 10_000_000_000];

/// Whether a plugin runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginState {
    /// It is being started for the first time.
    Starting,
    /// It has an instance.
    Running,
    /// Its instance was lost; a fresh one starts soon.
    BackingOff {
        /// Why, in one sentence.
        reason: String,
    },
    /// It lost too many instances and gets no more.
    Quarantined {
        /// Why, in one sentence.
        reason: String,
    },
    /// The daemon stopped it.
    Stopped {
        /// How it ended, in one sentence.
        reason: String,
    },
}

/// Faults by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Faults {
    /// Instances lost because the guest trapped.
    pub trap: u64,
    /// Instances lost because a call took too long.
    pub timeout: u64,
    /// Instances lost because the guest wanted more memory than it may have.
    pub memory: u64,
    /// Instances lost because the guest handed over more than it may in one call.
    pub oversized: u64,
    /// Calls that the guest answered with an error.
    pub guest_error: u64,
    /// Documents that were not taken: an output that is not in the TOML, or too large.
    pub refused_documents: u64,
    /// Log messages over the limit.
    pub suppressed_log: u64,
}

/// An attempt to put another version in the place of the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// When it ended.
    pub when: SystemTime,
    /// Why the one before went on, in one sentence. None where the other took its place.
    pub failure: Option<String>,
}

/// How long the calls of a plugin took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CallTime {
    /// How many calls there were in each class of [`CALL_TIME_BOUNDS_NS`], and above the last bound.
    pub classes: [u64; CALL_TIME_BOUNDS_NS.len() + 1],
    /// All calls together, in nanoseconds.
    pub sum_ns: u64,
}

impl Faults {
    /// Each kind by its name in metrics and documents.
    pub fn by_kind(&self) -> [(&'static str, u64); 7] {
        [
            ("trap", self.trap),
            ("timeout", self.timeout),
            ("memory", self.memory),
            ("oversized", self.oversized),
            ("guest-error", self.guest_error),
            ("refused-document", self.refused_documents),
            ("suppressed-log", self.suppressed_log),
        ]
    }
}

/// What became of a plugin so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginStatus {
    /// Its name in the TOML.
    pub name: String,
    /// Where its component comes from, as in the TOML.
    pub source: String,
    /// SHA-256 of its component, in lower case hexadecimal digits.
    pub sha256: String,
    /// What it is for.
    pub role: Role,
    /// What it says of itself: name and version. None before its first start.
    pub description: Option<(String, String)>,
    /// Whether it runs.
    pub state: PluginState,
    /// When that state began.
    pub since: SystemTime,
    /// Number of the newest instance, from 1.
    pub instance: u32,
    /// Calls that ended well.
    pub calls: u64,
    /// Events that were handed over in such calls.
    pub events: u64,
    /// Events that wait for it.
    pub queue_events: u64,
    /// Events that a full queue dropped.
    pub dropped: u64,
    /// Events that went away with an instance: those of the batch that it was lost in, and those
    /// since its last tick.
    pub lost_with_instance: u64,
    /// Events that it dropped, if it is a filter.
    pub filtered: u64,
    /// Events that it should have judged and did not, if it is a filter.
    pub unjudged: u64,
    /// Documents that were handed to the sinks.
    pub documents: u64,
    /// Linear memory and tables of its instance, in bytes, as of its last call.
    pub memory_bytes: u64,
    /// How long its calls took.
    pub call_time: CallTime,
    /// How often another version took the place of the one before.
    pub swaps: u64,
    /// How often that was tried and failed: the one before went on.
    pub failed_swaps: u64,
    /// The newest attempt.
    pub last_swap: Option<Swap>,
    /// Faults by kind.
    pub faults: Faults,
    /// The newest fault, in one sentence.
    pub last_error: Option<String>,
    /// SHA-256 of the version that runs beside it, to be compared.
    pub beside: Option<String>,
}

/// The status while it is being counted.
pub(super) struct Board {
    name: String,
    role: Role,
    state: Mutex<Slow>,
    swaps: Count,
    failed_swaps: Count,
    call_classes: [Count; CALL_TIME_BOUNDS_NS.len() + 1],
    call_sum_ns: Count,
    memory_bytes: AtomicU64,
    pub(super) calls: Count,
    pub(super) events: Count,
    pub(super) lost_with_instance: Count,
    pub(super) filtered: Count,
    pub(super) unjudged: Count,
    pub(super) documents: Count,
    pub(super) trap: Count,
    pub(super) timeout: Count,
    pub(super) memory: Count,
    pub(super) oversized: Count,
    pub(super) guest_error: Count,
    pub(super) refused_documents: Count,
    pub(super) suppressed_log: Count,
}

/// What changes seldom.
struct Slow {
    source: String,
    sha256: String,
    last_swap: Option<Swap>,
    state: PluginState,
    since: SystemTime,
    instance: u32,
    description: Option<(String, String)>,
    last_error: Option<String>,
    beside: Option<String>,
}

/// A number that grows.
#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Board {
    pub(super) fn new(name: String, loaded: &Loaded) -> Board {
        let slow = Slow {
            source: loaded.source_name.clone(),
            sha256: loaded.sha256.clone(),
            last_swap: None,
            state: PluginState::Starting,
            since: SystemTime::now(),
            instance: 0,
            description: None,
            last_error: None,
            beside: None,
        };
        Board {
            name,
            role: loaded.role,
            swaps: Count::default(),
            failed_swaps: Count::default(),
            state: Mutex::new(slow),
            call_classes: Default::default(),
            call_sum_ns: Count::default(),
            memory_bytes: AtomicU64::new(0),
            calls: Count::default(),
            events: Count::default(),
            lost_with_instance: Count::default(),
            filtered: Count::default(),
            unjudged: Count::default(),
            documents: Count::default(),
            trap: Count::default(),
            timeout: Count::default(),
            memory: Count::default(),
            oversized: Count::default(),
            guest_error: Count::default(),
            refused_documents: Count::default(),
            suppressed_log: Count::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// SHA-256 of the component that the instances are made of.
    pub(super) fn sha256(&self) -> String {
        self.lock().sha256.clone()
    }

    pub(super) fn is(&self, state: PluginState) {
        let mut slow = self.lock();
        if slow.state != state {
            slow.state = state;
            slow.since = SystemTime::now();
        }
    }

    pub(super) fn instance_is(&self, number: u32) {
        self.lock().instance = number;
    }

    pub(super) fn describes_itself(&self, name_and_version: (String, String)) {
        self.lock().description = Some(name_and_version);
    }

    /// Says which component the instances are made of.
    pub(super) fn is_made_of(&self, loaded: &Loaded) {
        let mut slow = self.lock();
        slow.source = loaded.source_name.clone();
        slow.sha256 = loaded.sha256.clone();
    }

    /// Says where the component comes from that the instances are made of.
    pub(super) fn comes_from(&self, source: String) {
        self.lock().source = source;
    }

    /// The newest fault, in one sentence.
    pub(super) fn last_error(&self) -> String {
        self.lock().last_error.clone().unwrap_or_default()
    }

    /// Says which version runs beside it, by its hash.
    pub(super) fn runs_beside(&self, sha256: Option<String>) {
        self.lock().beside = sha256;
    }

    /// Says how a swap ended: with the reason, if it failed.
    pub(super) fn swapped(&self, outcome: Result<(), String>) {
        match &outcome {
            Ok(()) => self.swaps.add(1),
            Err(_) => self.failed_swaps.add(1),
        }
        self.lock().last_swap = Some(Swap { when: SystemTime::now(), failure: outcome.err() });
    }

    pub(super) fn failed(&self, sentence: &str) {
        self.lock().last_error = Some(sentence.to_owned());
    }

    /// Says and counts that the guest answered with an error, or with what is no answer.
    pub(super) fn guest_failed(&self, sentence: &str) {
        self.failed(sentence);
        self.guest_error.add(1);
    }

    /// Counts a call by the time that it took.
    pub(super) fn call_took(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let class = CALL_TIME_BOUNDS_NS.partition_point(|bound| *bound < ns);
        self.call_classes[class].add(1);
        self.call_sum_ns.add(ns);
    }

    /// Says how much memory the instance holds.
    pub(super) fn memory_is(&self, bytes: u64) {
        self.memory_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The status, with what only the queue knows.
    pub(super) fn read(&self, depth: Depth) -> PluginStatus {
        let slow = self.lock();
        PluginStatus {
            name: self.name.clone(),
            source: slow.source.clone(),
            sha256: slow.sha256.clone(),
            swaps: self.swaps.value(),
            failed_swaps: self.failed_swaps.value(),
            last_swap: slow.last_swap.clone(),
            role: self.role,
            description: slow.description.clone(),
            state: slow.state.clone(),
            since: slow.since,
            instance: slow.instance,
            calls: self.calls.value(),
            events: self.events.value(),
            queue_events: depth.events,
            dropped: depth.dropped,
            lost_with_instance: self.lost_with_instance.value(),
            filtered: self.filtered.value(),
            unjudged: self.unjudged.value(),
            documents: self.documents.value(),
            memory_bytes: self.memory_bytes.load(Ordering::Relaxed),
            call_time: CallTime {
                classes: std::array::from_fn(|class| self.call_classes[class].value()),
                sum_ns: self.call_sum_ns.value(),
            },
            faults: Faults {
                trap: self.trap.value(),
                timeout: self.timeout.value(),
                memory: self.memory.value(),
                oversized: self.oversized.value(),
                guest_error: self.guest_error.value(),
                refused_documents: self.refused_documents.value(),
                suppressed_log: self.suppressed_log.value(),
            },
            last_error: slow.last_error.clone(),
            beside: slow.beside.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slow> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

//! What became of a plugin: plain counts beside the code that counts, read by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

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
    /// What it is: `reporter` or `explainer`.
    pub role: &'static str,
    /// What it says of itself: name and version. None before its first start.
    pub description: Option<(String, String)>,
    /// Whether it runs.
    pub state: PluginState,
    /// Number of the newest instance, from 1.
    pub instance: u32,
    /// Calls that ended well.
    pub calls: u64,
    /// Events that were handed over in such calls.
    pub events: u64,
    /// Events that a full queue did not take.
    pub dropped: u64,
    /// Events that went away with an instance: those of the batch that it was lost in, and those
    /// since its last tick.
    pub lost_with_instance: u64,
    /// Documents that were handed to the sinks.
    pub documents: u64,
    /// Faults by kind.
    pub faults: Faults,
    /// The newest fault, in one sentence.
    pub last_error: Option<String>,
}

/// The status while it is being counted.
pub(super) struct Board {
    name: String,
    source: String,
    role: &'static str,
    state: Mutex<Slow>,
    pub(super) calls: Count,
    pub(super) events: Count,
    pub(super) lost_with_instance: Count,
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
    state: PluginState,
    instance: u32,
    description: Option<(String, String)>,
    last_error: Option<String>,
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
    pub(super) fn new(name: String, source: String, role: &'static str) -> Board {
        let slow =
            Slow { state: PluginState::Starting, instance: 0, description: None, last_error: None };
        Board {
            name,
            source,
            role,
            state: Mutex::new(slow),
            calls: Count::default(),
            events: Count::default(),
            lost_with_instance: Count::default(),
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

    pub(super) fn is(&self, state: PluginState) {
        self.lock().state = state;
    }

    pub(super) fn instance_is(&self, number: u32) {
        self.lock().instance = number;
    }

    pub(super) fn describes_itself(&self, name: String, version: String) {
        self.lock().description = Some((name, version));
    }

    pub(super) fn failed(&self, sentence: &str) {
        self.lock().last_error = Some(sentence.to_owned());
    }

    /// The newest fault, in one sentence.
    pub(super) fn last_error(&self) -> String {
        self.lock().last_error.clone().unwrap_or_default()
    }

    /// The status, with what only the queue knows.
    pub(super) fn read(&self, dropped: u64) -> PluginStatus {
        let slow = self.lock();
        PluginStatus {
            name: self.name.clone(),
            source: self.source.clone(),
            role: self.role,
            description: slow.description.clone(),
            state: slow.state.clone(),
            instance: slow.instance,
            calls: self.calls.value(),
            events: self.events.value(),
            dropped,
            lost_with_instance: self.lost_with_instance.value(),
            documents: self.documents.value(),
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
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slow> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

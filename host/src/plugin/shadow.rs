//! Another version of a reporter beside the one that runs, on the same live events, to see what it would make
//! of them before it takes over.
//!
//! What the plugin takes from its queue goes to the other version too, from a moment between two batches on:
//! the same batches and totals in the same order, with the state that the plugin has then. The other version
//! is a plugin of its own, with a thread, a queue, limits and faults of its own; its documents go nowhere but
//! into the comparison. At the end both are handed the same totals once more, and what they made last is
//! compared, by output.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::compare::{Difference, Differences};
use super::queue::{Queue, Terms};
use super::status::{PluginState, PluginStatus};
use super::subscription::Subscription;
use super::swap::Candidate;
use super::worker::{Runner, Worker};
use super::{Place, PluginHost, Role, SwapError, SwapReport};
use crate::config::{self, Output, PluginSource};

/// How long the other version may take, at the end, for what still waits for it.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How often it is looked at whether it still runs.
const LOOK: Duration = Duration::from_millis(50);
/// Of an output that grows, so much is kept for the comparison.
const KEPT_BYTES: usize = 4 << 20;

/// Why a version does not run beside the one that there is, or was not compared with it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "`plugin` names what its variants are about")]
pub enum ShadowError {
    /// It could not take its place either.
    #[error(transparent)]
    Swap(#[from] SwapError),
    /// Only reporters make documents.
    #[error(
        "plugin `{plugin}` is {}: only what a reporter makes can be compared",
        role.with_article()
    )]
    OtherRole { plugin: String, role: Role },
    /// It cannot be started now.
    #[error("plugin `{plugin}`: {sentence}")]
    Busy { plugin: String, sentence: String },
    /// What it was compared with is not there any more.
    #[error(
        "plugin `{plugin}`: another version took the place of the one that ran, so there is nothing to compare with: start again"
    )]
    Overtaken { plugin: String },
}

/// What came of running a version beside the one that there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadowed {
    /// The plugin.
    pub plugin: String,
    /// SHA-256 of the component that runs.
    pub sha256_running: String,
    /// SHA-256 of the one beside it.
    pub sha256_shadow: String,
    /// For how long, in nanoseconds.
    pub took_ns: u64,
    /// Events that were handed to it.
    pub events: u64,
    /// Events that it missed: it was too slow, or they were lost with an instance.
    pub missed: u64,
    /// Its faults by kind, those that are not 0.
    pub faults: BTreeMap<String, u64>,
    /// The newest of them, in one sentence.
    pub last_error: Option<String>,
    /// What both made, by output.
    pub outputs: Vec<ComparedOutput>,
    /// Whether it took over.
    pub promoted: bool,
    /// Why it did not, in one sentence, where it should have.
    pub refusal: Option<String>,
}

/// What two versions made for one output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedOutput {
    /// Its name.
    pub output: String,
    /// Documents of the one that runs, in that time.
    pub running: u64,
    /// Documents of the one beside it.
    pub shadow: u64,
    /// Whether the newest documents are the same: of an output that grows, all of them.
    pub same: bool,
    /// Where they differ: the first places.
    pub differences: Vec<Difference>,
    /// How many places there are beside those.
    pub more: u64,
}

impl Shadowed {
    /// Why it should not take over by itself: it did worse, or does something else.
    fn doubt(&self) -> Option<String> {
        if let Some(error) = &self.last_error {
            return Some(format!("it failed: {error}"));
        }
        if self.missed > 0 {
            return Some(format!("it missed {} events", self.missed));
        }
        if self.outputs.is_empty() {
            return Some("neither made a document, so nothing was compared".to_owned());
        }
        let differs = self.outputs.iter().find(|output| !output.same)?;
        Some(format!("what it makes for the output `{}` is not the same", differs.output))
    }
}

/// What a plugin hands over, kept to be compared.
#[derive(Default)]
pub(super) struct Collected(Mutex<BTreeMap<String, Documents>>);

/// The documents of one output.
#[derive(Clone, Default)]
struct Documents {
    number: u64,
    last: Vec<u8>,
    /// One after the other, as far as they are kept.
    all: Vec<u8>,
}

impl Collected {
    pub(super) fn add(&self, output: &str, body: &[u8]) {
        let mut outputs = self.lock();
        let documents = outputs.entry(output.to_owned()).or_default();
        documents.number += 1;
        documents.last = body.to_vec();
        let room = KEPT_BYTES.saturating_sub(documents.all.len());
        documents.all.extend_from_slice(&body[..room.min(body.len())]);
    }

    /// The newest document of an output.
    pub(super) fn last(&self, output: &str) -> Option<Vec<u8>> {
        self.lock().get(output).map(|documents| documents.last.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Documents>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What both made, by the outputs of the TOML.
    fn compare(&self, other: &Collected, config: &config::Plugin) -> Vec<ComparedOutput> {
        let (running, shadow) = (self.lock(), other.lock());
        let mut outputs: Vec<&String> = running.keys().chain(shadow.keys()).collect();
        outputs.sort();
        outputs.dedup();
        let compared = outputs.into_iter().map(|output| {
            let of = |made: &BTreeMap<String, Documents>| made.get(output).cloned();
            let (one, two) = (of(&running).unwrap_or_default(), of(&shadow).unwrap_or_default());
            let grows = matches!(config.outputs.get(output), Some(Output::Lines(_)));
            let found = match grows {
                true => Differences::between(&one.all, &two.all),
                false => Differences::between(&one.last, &two.last),
            };
            ComparedOutput {
                output: output.clone(),
                running: one.number,
                shadow: two.number,
                same: found.shown.is_empty() && (one.number > 0) == (two.number > 0),
                differences: found.shown,
                more: found.more,
            }
        });
        compared.collect()
    }
}

/// A version that runs beside a plugin, and what both make.
struct Beside {
    worker: Worker,
    queue: Arc<Queue>,
    running: Arc<Collected>,
    shadow: Arc<Collected>,
}

impl PluginHost {
    /// Runs the component in `file` beside a reporter for that long, and compares what they make. With
    /// `promote` it then takes over, if it failed in nothing, missed nothing and made the same.
    ///
    /// # Errors
    ///
    /// Why there is nothing to compare. Whatever happens, the version that runs goes on.
    pub fn shadow(
        &self,
        plugin: &str,
        file: &Path,
        time: Duration,
        promote: bool,
    ) -> Result<Shadowed, ShadowError> {
        let (config, board) = {
            let running = self.lock();
            let found = running.iter().find(|it| it.config.name == plugin);
            found.map(|it| (it.config.clone(), Arc::clone(&it.board)))
        }
        .ok_or_else(|| self.no_plugin(plugin))?;
        if board.role() != Role::Reporter {
            return Err(ShadowError::OtherRole { plugin: plugin.to_owned(), role: board.role() });
        }
        let source = PluginSource::File(file.to_owned());
        // A hash in the TOML is that of the component that may run for good.
        let pinned = config.sha256.clone();
        let config = config::Plugin { source, sha256: None, ..config };
        let loaded = Arc::new(self.read(&config).map_err(SwapError::from)?);
        let candidate = self.try_out(&config, loaded)?;
        let sha256_running = board.sha256();
        let beside = self.begin_beside(&candidate)?;
        tracing::info!(plugin, sha256 = candidate.loaded.sha256, "a version runs beside it");
        board.runs_beside(Some(candidate.loaded.sha256.clone()));
        let began = Instant::now();
        let ended = self.wait_and_end(&candidate, &beside, time);
        board.runs_beside(None);
        let took = began.elapsed();
        beside.worker.finish();
        let status = beside.worker.join(Instant::now() + LAST_WORDS);
        if !ended? {
            return Err(ShadowError::Overtaken { plugin: plugin.to_owned() });
        }
        let outputs = beside.running.compare(&beside.shadow, &config);
        let sha256_shadow = candidate.loaded.sha256.clone();
        let mut shadowed = shadowed(&status, sha256_running, sha256_shadow, took, outputs);
        if promote {
            let allowed = pinned.is_none_or(|pinned| pinned == candidate.loaded.sha256);
            let pin = "`sha256` in the TOML asks for another component: change it there";
            shadowed.refusal = if allowed { shadowed.doubt() } else { Some(pin.to_owned()) };
            if shadowed.refusal.is_none() {
                self.promote(candidate)?;
                shadowed.promoted = true;
            }
        }
        Ok(shadowed)
    }

    fn begin_beside(&self, candidate: &Candidate) -> Result<Beside, ShadowError> {
        let Candidate { config, loaded, .. } = candidate;
        let (running, shadow) = (Arc::default(), Arc::<Collected>::default());
        let parts = self.parts_apart(config, loaded, Some(Arc::clone(&shadow)));
        let subscription = Subscription::new(config, loaded.role, &self.world.directory);
        let terms = Terms::of(config, Arc::new(subscription));
        let (policy, collected) = (self.policy, Arc::clone(&running));
        let begun = self.between_batches(&config.name, move |runner| {
            runner.begin_beside(parts, terms, policy, collected)
        })?;
        let busy = |sentence| ShadowError::Busy { plugin: config.name.clone(), sentence };
        let worker = begun.map_err(busy)?;
        Ok(Beside { queue: worker.queue(), worker, running, shadow })
    }

    /// Waits, and ends it. Whether it ran beside the same version to the end.
    fn wait_and_end(
        &self,
        candidate: &Candidate,
        beside: &Beside,
        time: Duration,
    ) -> Result<bool, ShadowError> {
        let end = Instant::now() + time;
        let plugin = &candidate.config.name;
        let still_runs = || {
            let state = beside.worker.status().state;
            !matches!(state, PluginState::Quarantined { .. } | PluginState::Stopped { .. })
        };
        while Instant::now() < end && still_runs() && !self.stops(plugin) {
            thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
        }
        let queue = Arc::clone(&beside.queue);
        Ok(self.between_batches(plugin, move |runner| runner.end_beside(&queue))?)
    }

    /// Whether nothing more comes in for a plugin, or there is none.
    fn stops(&self, plugin: &str) -> bool {
        let running = self.lock();
        let queue = running.iter().find(|it| it.config.name == plugin).and_then(|it| it.queue());
        queue.is_none_or(|queue| queue.is_closed())
    }

    /// Has the worker of a reporter do something between two batches, and gives what came of it.
    fn between_batches<T: Send + 'static>(
        &self,
        plugin: &str,
        work: impl FnOnce(&mut Runner) -> T + Send + 'static,
    ) -> Result<T, SwapError> {
        let stopping = || SwapError::Stopping { plugin: plugin.to_owned() };
        let (answer, answers) = mpsc::channel();
        {
            let running = self.lock();
            let found = running.iter().find(|it| it.config.name == plugin);
            let Some(Place::Queue(worker)) = found.map(|it| &it.place) else {
                return Err(stopping());
            };
            worker.queue().order(Box::new(move |runner| {
                // Nobody waits any more where the daemon stops.
                let _ = answer.send(work(runner));
            }));
        }
        answers.recv().map_err(|_| stopping())
    }

    /// Has a version that was compared take over.
    fn promote(&self, candidate: Candidate) -> Result<SwapReport, SwapError> {
        let _changing = self.change();
        let candidate = Candidate { began: Instant::now(), ..candidate };
        let name = candidate.config.name.clone();
        let outcome = self.switch_to(candidate);
        self.tell(&name, &outcome);
        outcome
    }
}

fn shadowed(
    status: &PluginStatus,
    sha256_running: String,
    sha256_shadow: String,
    took: Duration,
    outputs: Vec<ComparedOutput>,
) -> Shadowed {
    let faults = status.faults.by_kind().into_iter().filter(|(_, number)| *number > 0);
    Shadowed {
        plugin: status.name.clone(),
        sha256_running,
        sha256_shadow,
        took_ns: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        events: status.events,
        missed: status.dropped + status.lost_with_instance,
        faults: faults.map(|(kind, number)| (kind.to_owned(), number)).collect(),
        last_error: status.last_error.clone(),
        outputs,
        promoted: false,
        refusal: None,
    }
}

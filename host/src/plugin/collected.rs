//! What two versions of a reporter make on the same events, kept to be compared.
//!
//! What the plugin takes from its queue goes to the other version too, from a moment between two batches on:
//! the same batches and totals in the same order, with the state that the plugin has then. The other version
//! is a worker of its own, with a thread, a queue, limits and faults of its own; its documents go nowhere but
//! here. At the end both are handed the same totals once more, and what they made last is compared, by output.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::between::Standing;
use super::compare::{Difference, Differences};
use super::instance::Parts;
use super::queue::{Queue, Terms};
use super::shadow::{Compared, Parting, Shadow};
use super::status::{PluginState, PluginStatus};
use super::supervisor::RestartPolicy;
use super::worker::{Runner, Worker};
use crate::config::{self, Output};

/// Of an output that grows, so much is kept for the comparison.
const KEPT_BYTES: usize = 4 << 20;

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

/// A version that runs beside a reporter, and what both make.
pub(super) struct Making {
    worker: Worker,
    queue: Arc<Queue>,
    config: config::Plugin,
    running: Arc<Collected>,
    shadow: Arc<Collected>,
}

impl Making {
    /// Has it run beside that one. What its instances make goes into `shadow`.
    ///
    /// # Errors
    ///
    /// A sentence, where one runs there already or there is no thread for it.
    pub(super) fn begin(
        runner: &mut Runner,
        parts: Parts,
        config: config::Plugin,
        terms: Terms,
        policy: RestartPolicy,
        shadow: Arc<Collected>,
    ) -> Result<Making, String> {
        let running = Arc::<Collected>::default();
        let worker = runner.begin_beside(parts, terms, policy, Arc::clone(&running))?;
        Ok(Making { queue: worker.queue(), worker, config, running, shadow })
    }
}

impl Shadow for Making {
    fn is_over(&self) -> bool {
        let state = self.worker.status().state;
        matches!(state, PluginState::Quarantined { .. } | PluginState::Stopped { .. })
    }

    fn parting(&self) -> Parting {
        let queue = Arc::clone(&self.queue);
        Box::new(move |standing| match standing {
            Standing::Reporter(runner) => runner.end_beside(&queue),
            Standing::Filter(_) | Standing::Explainer(_) => false,
        })
    }

    fn finish(self: Box<Self>, deadline: Instant) -> (PluginStatus, Compared) {
        self.worker.finish();
        let status = self.worker.join(deadline);
        (status, Compared::Outputs(self.running.compare(&self.shadow, &self.config)))
    }
}

//! Another version of a plugin in the place of the one that runs, while events flow.
//!
//! Everything that can fail is tried first, off the path of events: the component is read, checked and
//! compiled, and an instance whose documents go nowhere is started and handed what the plugin was
//! handed last. Only then is the plugin switched, between two batches. On any failure the version that
//! runs goes on, and the reason is in the log and in the status.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::between::Standing;
use super::collected::Collected;
use super::explainers::{self, Explainers};
use super::imports::{Delivery, Grants};
use super::instance::{Answers, Instance, Loss, Parts, StartCause};
use super::load::{self, LoadError, Loaded};
use super::lower::{Lowered, with_tick};
use super::queue::{Recent, Terms};
use super::status::Board;
use super::subscription::Subscription;
use super::worker::Next;
use super::{Place, PluginHost, Role, Running};
use crate::config;

/// What a swap did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapReport {
    /// The plugin.
    pub plugin: String,
    /// SHA-256 of the component that ran before.
    pub sha256_before: String,
    /// SHA-256 of the component that runs now.
    pub sha256_after: String,
    /// From reading the component to the switch.
    pub took: Duration,
    /// How long the plugin itself stood still: the hand-over between two of its batches.
    pub switch: Duration,
}

/// Why the version that runs goes on.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "`plugin` names what its variants are about")]
pub enum SwapError {
    /// There is no such plugin.
    #[error("there is no plugin `{plugin}`; there is {known}")]
    NoPlugin { plugin: String, known: String },
    /// The other version is no plugin.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It has another role.
    #[error(
        "plugin `{plugin}`: {source_name} is {}, and the plugin that runs is {}: give it a name of its own in the TOML",
        found.with_article(), runs.with_article()
    )]
    OtherRole { plugin: String, source_name: String, found: Role, runs: Role },
    /// It did not do well when it was tried, or in the switch itself.
    #[error("plugin `{plugin}`: {source_name} was tried and not taken: {sentence}")]
    Unfit { plugin: String, source_name: String, sentence: String },
    /// It is being added or removed.
    #[error("plugin `{plugin}` is not in its place: try again when the list of plugins is taken")]
    Unplaced { plugin: String },
    /// The daemon stops.
    #[error("plugin `{plugin}`: the daemon stops")]
    Stopping { plugin: String },
}

impl PluginHost {
    /// Reads the plugin's component again and puts it in the place of the one that runs, also where it
    /// is the same: that lifts a quarantine.
    ///
    /// # Errors
    ///
    /// Why the version that runs goes on.
    pub fn reload(&self, plugin: &str) -> Result<SwapReport, SwapError> {
        let _changing = self.change();
        let config =
            self.lock().iter().find(|it| it.config.name == plugin).map(|it| it.config.clone());
        self.swap(&config.ok_or_else(|| self.no_plugin(plugin))?)
    }

    /// The error of a name that no plugin has.
    pub(crate) fn no_plugin(&self, plugin: &str) -> SwapError {
        let running = self.lock();
        let names = running.iter().map(|it| format!("`{}`", it.config.name));
        SwapError::NoPlugin { plugin: plugin.to_owned(), known: load::listed(names) }
    }

    /// Puts the component that the list of plugins names in the place of the one that runs, if it is another
    /// one. What runs may come from elsewhere, where a version was promoted.
    ///
    /// # Errors
    ///
    /// Why the version that runs goes on.
    pub fn reload_if_changed(
        &self,
        listed: &config::Plugin,
    ) -> Result<Option<SwapReport>, SwapError> {
        let _changing = self.change();
        let name = &listed.name;
        let board = self.board_of(name).ok_or_else(|| self.no_plugin(name))?;
        // What cannot be read is told by the swap.
        if !load::hash(&self.engine, listed).is_ok_and(|found| found == board.sha256()) {
            return self.swap(listed).map(Some);
        }
        if let Some(running) = self.lock().iter_mut().find(|it| it.config.name == *name) {
            running.config = listed.clone();
            board.comes_from(load::source_name(&listed.source));
        }
        Ok(None)
    }

    /// Puts what `config` describes in the place of the plugin of its name.
    pub(super) fn swap(&self, config: &config::Plugin) -> Result<SwapReport, SwapError> {
        let outcome = self
            .read(config)
            .map_err(SwapError::from)
            .and_then(|loaded| self.try_out(config, Arc::new(loaded)))
            .and_then(|candidate| self.switch_to(candidate));
        self.tell(&config.name, &outcome);
        outcome
    }

    /// Tries a component with what the plugin was handed last.
    pub(super) fn try_out(
        &self,
        config: &config::Plugin,
        loaded: Arc<Loaded>,
    ) -> Result<Candidate, SwapError> {
        let began = Instant::now();
        let (runs, recent) = {
            let running = self.lock();
            let Some(running) = running.iter().find(|it| it.config.name == config.name) else {
                return Err(SwapError::Stopping { plugin: config.name.clone() });
            };
            (running.board.role(), self.recent_of(running))
        };
        let unfit = |loss: Loss| SwapError::Unfit {
            plugin: config.name.clone(),
            source_name: loaded.source_name.clone(),
            sentence: loss.sentence(),
        };
        if loaded.role != runs {
            let source_name = loaded.source_name.clone();
            let plugin = config.name.clone();
            return Err(SwapError::OtherRole { plugin, source_name, found: loaded.role, runs });
        }
        let subscription = Subscription::new(config, loaded.role, &self.world.directory);
        self.trial(config, &loaded)
            .and_then(|trial| trial.run(&recent, &subscription))
            .map_err(unfit)?;
        Ok(Candidate { config: config.clone(), loaded, began })
    }

    /// What an instance needs that runs apart: what it gives goes nowhere but into `collected`, and what it counts is nobody's.
    pub(super) fn parts_apart(
        &self,
        config: &config::Plugin,
        loaded: &Arc<Loaded>,
        collected: Option<Arc<Collected>>,
    ) -> Parts {
        let board = Arc::new(Board::new(config.name.clone(), loaded));
        let delivery = Delivery::Withheld(self.outlet.clone());
        let grants = Grants::new(config, Arc::clone(&self.world), delivery, Arc::clone(&board));
        grants.collect_into(collected);
        Parts {
            engine: Arc::clone(&self.engine),
            loaded: Arc::clone(loaded),
            limits: config.limits.clone(),
            grants: Arc::new(grants),
            board,
        }
    }

    fn trial(&self, config: &config::Plugin, loaded: &Arc<Loaded>) -> Result<Trial, Loss> {
        let parts = self.parts_apart(config, loaded, None);
        Ok(Trial { instance: Instance::start(&parts, 1, &StartCause::Swapped)? })
    }

    /// Switches a running plugin, between two of its batches.
    pub(super) fn switch_to(&self, candidate: Candidate) -> Result<SwapReport, SwapError> {
        let Candidate { config, loaded, began } = candidate;
        let plugin = config.name.clone();
        let board = self.board_of(&plugin).ok_or_else(|| self.no_plugin(&plugin))?;
        let parts = self.parts(&config, &loaded, &board);
        let subscription = Subscription::new(&config, loaded.role, &self.world.directory);
        // Before the order is given, which may be carried out at once.
        let sha256_before = board.sha256();
        let new = config.clone();
        let (switched, switch) = self.between_batches(&plugin, move |standing| {
            let began = Instant::now();
            let switched = match standing {
                Standing::Reporter(runner) => {
                    let terms = Terms::of(&new, Arc::new(subscription));
                    runner.switch(Next { parts, terms })
                }
                Standing::Filter(filter) => filter.switch(parts, subscription, new.on_failure),
                Standing::Explainer(explainer) => explainer.switch(parts),
            };
            (switched, began.elapsed())
        })?;
        let source_name = loaded.source_name.clone();
        switched.map_err(|sentence| SwapError::Unfit {
            plugin: plugin.clone(),
            source_name,
            sentence,
        })?;
        if let Some(running) = self.lock().iter_mut().find(|it| it.config.name == plugin) {
            running.config = config;
        }
        let sha256_after = loaded.sha256.clone();
        Ok(SwapReport { plugin, sha256_before, sha256_after, took: began.elapsed(), switch })
    }

    /// Puts the outcome of a swap into the log and the status.
    pub(super) fn tell(&self, plugin: &str, outcome: &Result<SwapReport, SwapError>) {
        match outcome {
            Ok(SwapReport { sha256_before, sha256_after, took, switch, .. }) => {
                tracing::info!(plugin, sha256_before, sha256_after, ?took, ?switch, "swapped");
                self.board_of(plugin).inspect(|board| board.swapped(Ok(())));
            }
            Err(error) => self.tell_failure(plugin, error),
        }
    }

    /// Puts the reason why the version that runs goes on into the log and the status.
    pub(super) fn tell_failure(&self, plugin: &str, error: &SwapError) {
        tracing::error!(plugin, "not swapped, the version that runs goes on: {error}");
        self.board_of(plugin).inspect(|board| board.swapped(Err(error.to_string())));
    }

    fn board_of(&self, plugin: &str) -> Option<Arc<Board>> {
        let running = self.lock();
        running.iter().find(|it| it.config.name == plugin).map(|it| Arc::clone(&it.board))
    }

    fn recent_of(&self, running: &Running) -> Recent {
        match &running.place {
            Place::Queue(worker) => worker.queue().recent(),
            Place::Desk => {
                let death = self.explainers().and_then(Explainers::recent);
                Recent { death, ..Recent::default() }
            }
            Place::Chain => {
                self.stage().map_or_else(Recent::default, |stage| stage.queue().recent())
            }
        }
    }
}

/// A component that did well when it was tried.
pub(super) struct Candidate {
    pub(super) config: config::Plugin,
    pub(super) loaded: Arc<Loaded>,
    pub(super) began: Instant,
}

/// An instance whose documents go nowhere.
struct Trial {
    instance: Instance,
}

impl Trial {
    /// Hands over what the plugin was handed last. An answer that is an error is one too many here.
    fn run(mut self, recent: &Recent, subscription: &Subscription) -> Result<(), Loss> {
        let mut lowered = Lowered::default();
        for batch in &recent.batches {
            let narrow = subscription.narrowed(batch);
            let batch = narrow.as_ref().unwrap_or(batch);
            if batch.is_empty() {
                continue;
            }
            let events = batch.events.len();
            let batch = lowered.batch(batch, 0);
            let answer = self.instance.call(|store, answers| match answers {
                Answers::Reporter { on_batch, .. } => on_batch.call(store, batch),
                Answers::Filter { on_batch } => Ok(on_batch.call(store, batch)?.and_then(|it| {
                    let wrong = || format!("it gave {} verdicts for {events} events", it.len());
                    if it.len() == events { Ok(()) } else { Err(wrong()) }
                })),
                Answers::Explainer(_) => Ok(Ok(())),
            })?;
            answer.map_err(|sentence| Loss::Failed("on-batch", sentence))?;
        }
        if let Some(tick) = &recent.tick {
            let narrow = subscription.narrowed_tick(tick);
            let answer = with_tick(narrow.as_ref().unwrap_or(tick), |tick| {
                self.instance.call(|store, answers| match answers {
                    Answers::Reporter { guest, .. } => guest.call_on_tick(store, tick),
                    Answers::Filter { .. } | Answers::Explainer(_) => Ok(Ok(())),
                })
            })?;
            answer.map_err(|sentence| Loss::Failed("on-tick", sentence))?;
        }
        if let Some(death) = &recent.death {
            let answer = explainers::explain(&mut self.instance, death)?;
            answer.map_err(|sentence| Loss::Failed("explain", sentence))?;
        }
        Ok(())
    }
}

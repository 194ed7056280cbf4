//! Another version of a plugin beside the one that runs, on the same live events, to see what it would make of
//! them before it takes over.
//!
//! A reporter's is handed what the reporter takes from its queue (`collected`); a filter's and an explainer's is
//! asked what the plugin was asked (`second`). It has a thread, a bounded queue, limits and faults of its own, and
//! what it gives goes nowhere but into the comparison.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::between::Standing;
use super::collected::{Collected, ComparedOutput, Making};
use super::explanations::OtherExplanations;
use super::judgements::{Judging, OtherJudgement};
use super::queue::Terms;
use super::second::Asked;
use super::status::PluginStatus;
use super::subscription::Subscription;
use super::swap::Candidate;
use super::{Place, PluginHost, Role, SwapError, SwapReport};
use crate::config::{self, PluginSource};

/// How long the other version may take, at the end, for what still waits for it.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How often it is looked at whether it still runs.
const LOOK: Duration = Duration::from_millis(50);

/// Why a version does not run beside the one that there is, or was not compared with it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "`plugin` names what its variants are about")]
pub enum ShadowError {
    /// It could not take its place either.
    #[error(transparent)]
    Swap(#[from] SwapError),
    /// It cannot be started now.
    #[error("plugin `{plugin}`: {sentence}")]
    Busy { plugin: String, sentence: String },
    /// What it was compared with is not there any more.
    #[error(
        "plugin `{plugin}`: another version took the place of the one that ran, so there is nothing to compare with: start again"
    )]
    Overtaken { plugin: String },
}

/// When a version that ran beside another one takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promotion {
    /// Not at all.
    #[default]
    Never,
    /// If it failed in nothing, missed nothing and made the same.
    IfSame,
    /// If it failed in nothing and missed nothing, whatever it made.
    IfSound,
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
    /// Events that were handed to it; for an explainer, deaths.
    pub events: u64,
    /// Events or deaths that it missed: it was too slow, or they were lost with an instance.
    pub missed: u64,
    /// Its faults by kind, those that are not 0.
    pub faults: BTreeMap<String, u64>,
    /// The newest of them, in one sentence.
    pub last_error: Option<String>,
    /// What both made of them.
    #[serde(flatten)]
    pub compared: Compared,
    /// Whether it took over.
    pub promoted: bool,
    /// Why it did not, in one sentence, where it should have.
    pub refusal: Option<String>,
}

/// What two versions made of the same, by their role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// Of reporters, by output.
    Outputs(Vec<ComparedOutput>),
    /// Of filters, by how they differ.
    Judgements(Asked<Vec<OtherJudgement>>),
    /// Of explainers.
    Explanations(Asked<OtherExplanations>),
}

impl Compared {
    /// What is counted in the singular: `event` or `death`.
    pub fn unit(&self) -> &'static str {
        match self {
            Compared::Outputs(_) | Compared::Judgements(_) => "event",
            Compared::Explanations(_) => "death",
        }
    }

    /// Whether nothing differs.
    pub fn is_same(&self) -> bool {
        self.difference().is_none()
    }

    /// Where they differ, in one sentence.
    fn difference(&self) -> Option<String> {
        let otherwise = |verb: &str, otherwise: u64, compared: u64| {
            let sentence =
                || format!("it {verb} {otherwise} of {compared} {}s otherwise", self.unit());
            (otherwise > 0).then(sentence)
        };
        match self {
            Compared::Outputs(outputs) => {
                let differs = outputs.iter().find(|output| !output.same)?;
                Some(format!("what it makes for the output `{}` is not the same", differs.output))
            }
            Compared::Judgements(it) => otherwise("judges", it.otherwise(), it.compared),
            Compared::Explanations(it) => otherwise("explains", it.otherwise(), it.compared),
        }
    }

    /// Why nothing was compared, in one sentence.
    fn nothing(&self) -> Option<&'static str> {
        match self {
            Compared::Outputs(outputs) if outputs.is_empty() => {
                Some("neither made a document, so nothing was compared")
            }
            Compared::Judgements(it) if it.compared == 0 => {
                Some("no event was judged by both, so nothing was compared")
            }
            Compared::Explanations(it) if it.compared == 0 => {
                Some("no death was explained by both, so nothing was compared")
            }
            Compared::Outputs(_) | Compared::Judgements(_) | Compared::Explanations(_) => None,
        }
    }
}

impl Shadowed {
    fn of(
        (status, compared): (PluginStatus, Compared),
        sha256_running: String,
        sha256_shadow: String,
        took: Duration,
    ) -> Shadowed {
        let faults = status.faults.by_kind().into_iter().filter(|(_, number)| *number > 0);
        Shadowed {
            plugin: status.name,
            sha256_running,
            sha256_shadow,
            took_ns: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
            events: status.events,
            missed: status.dropped + status.lost_with_instance,
            faults: faults.map(|(kind, number)| (kind.to_owned(), number)).collect(),
            last_error: status.last_error,
            compared,
            promoted: false,
            refusal: None,
        }
    }

    /// Why it should not take over by itself: it did worse, or does something else where it must not.
    fn doubt(&self, promotion: Promotion) -> Option<String> {
        if let Some(error) = &self.last_error {
            return Some(format!("it failed: {error}"));
        }
        if self.missed > 0 {
            return Some(format!("it missed {} {}s", self.missed, self.compared.unit()));
        }
        if let Some(nothing) = self.compared.nothing() {
            return Some(nothing.to_owned());
        }
        self.compared.difference().filter(|_| promotion != Promotion::IfSound)
    }
}

/// What takes a version from its place beside the one that runs, on the thread of that one. Whether it was there
/// until then.
pub(super) type Parting = Box<dyn FnOnce(Standing<'_>) -> bool + Send>;

/// A version that runs beside a plugin.
pub(super) trait Shadow: Send {
    /// Whether there is nothing to wait for: it runs no more, or has nothing to run beside.
    fn is_over(&self) -> bool;

    /// What takes it from its place.
    fn parting(&self) -> Parting;

    /// Lets it finish what waits until that time, and gives what became of it.
    fn finish(self: Box<Self>, deadline: Instant) -> (PluginStatus, Compared);
}

impl PluginHost {
    /// Runs the component in `file` beside a plugin for that long, and compares what they make. Then it takes
    /// over, where `promotion` says so.
    ///
    /// # Errors
    ///
    /// Why there is nothing to compare. Whatever happens, the version that runs goes on.
    pub fn shadow(
        &self,
        plugin: &str,
        file: &Path,
        time: Duration,
        promotion: Promotion,
    ) -> Result<Shadowed, ShadowError> {
        let (config, board) = {
            let running = self.lock();
            let found = running.iter().find(|it| it.config.name == plugin);
            found.map(|it| (it.config.clone(), Arc::clone(&it.board)))
        }
        .ok_or_else(|| self.no_plugin(plugin))?;
        let source = PluginSource::File(file.to_owned());
        // A hash in the TOML is that of the component that may run for good.
        let pinned = config.sha256.clone();
        let config = config::Plugin { source, sha256: None, ..config };
        let loaded = Arc::new(self.read(&config).map_err(SwapError::from)?);
        let candidate = self.try_out(&config, loaded)?;
        let (sha256_running, sha256_shadow) = (board.sha256(), candidate.loaded.sha256.clone());
        let beside = self.begin_beside(&candidate)?;
        tracing::info!(plugin, sha256 = sha256_shadow, "a version runs beside it");
        board.runs_beside(Some(sha256_shadow.clone()));
        let began = Instant::now();
        let ended = self.wait_and_end(plugin, &*beside, time);
        board.runs_beside(None);
        let took = began.elapsed();
        let became = beside.finish(Instant::now() + LAST_WORDS);
        if !ended? {
            return Err(ShadowError::Overtaken { plugin: plugin.to_owned() });
        }
        let mut shadowed = Shadowed::of(became, sha256_running, sha256_shadow, took);
        if promotion != Promotion::Never {
            let allowed = pinned.is_none_or(|pinned| pinned == candidate.loaded.sha256);
            let pin = "`sha256` in the TOML asks for another component: change it there";
            let doubt = || shadowed.doubt(promotion);
            shadowed.refusal = if allowed { doubt() } else { Some(pin.to_owned()) };
            if shadowed.refusal.is_none() {
                self.promote(candidate)?;
                shadowed.promoted = true;
            }
        }
        Ok(shadowed)
    }

    fn begin_beside(&self, candidate: &Candidate) -> Result<Box<dyn Shadow>, ShadowError> {
        let Candidate { config, loaded, .. } = candidate;
        let shadow = (loaded.role == Role::Reporter).then(Arc::<Collected>::default);
        let parts = self.parts_apart(config, loaded, shadow.clone());
        let subscription = Arc::new(Subscription::new(config, loaded.role, &self.world.directory));
        let (new, policy) = (config.clone(), self.policy);
        let judging = Judging::new(&self.world.directory);
        let begun = self.between_batches(&config.name, move |standing| {
            Ok::<Box<dyn Shadow>, String>(match standing {
                Standing::Reporter(runner) => {
                    let terms = Terms::of(&new, subscription);
                    let shadow = shadow.unwrap_or_default();
                    Box::new(Making::begin(runner, parts, new, terms, policy, shadow)?)
                }
                Standing::Filter(filter) => {
                    Box::new(filter.begin_beside(parts, new.limits.queue_events, judging)?)
                }
                Standing::Explainer(explainer) => Box::new(explainer.begin_beside(parts)?),
            })
        })?;
        begun.map_err(|sentence| ShadowError::Busy { plugin: config.name.clone(), sentence })
    }

    /// Waits, and ends it. Whether it ran beside the same version to the end.
    fn wait_and_end(
        &self,
        plugin: &str,
        beside: &dyn Shadow,
        time: Duration,
    ) -> Result<bool, ShadowError> {
        let end = Instant::now() + time;
        while Instant::now() < end && !beside.is_over() && !self.stops(plugin) {
            thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
        }
        Ok(self.between_batches(plugin, beside.parting())?)
    }

    /// Whether nothing more comes in for a plugin with a queue of its own, or there is no such plugin.
    fn stops(&self, plugin: &str) -> bool {
        let running = self.lock();
        let found = running.iter().find(|it| it.config.name == plugin);
        found.is_none_or(|it| match &it.place {
            Place::Queue(worker) => worker.queue().is_closed(),
            Place::Chain | Place::Desk => false,
        })
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

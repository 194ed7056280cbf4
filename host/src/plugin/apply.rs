//! Another list of plugins while events flow: added, removed, changed and put into another order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::explainers::Explainer;
use super::filter::Filter;
use super::load::{LoadError, Loaded};
use super::supervisor::Supervisor;
use super::swap::Candidate;
use super::{Place, PluginHost, Running, SwapError, SwapReport, Unplaced};
use crate::config;
use crate::event::{Tick, TickCause};
use crate::sink::{SinkError, outputs_of};

/// How long a plugin that is removed gets to finish what waits for it.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What became of a new list of plugins.
#[derive(Debug, Default)]
pub struct Applied {
    /// The plugins whose tables were changed and that were swapped.
    pub swapped: Vec<SwapReport>,
    /// Why others go on as they were, or do not run.
    pub failed: Vec<SwapError>,
    /// Names of the plugins that run now and did not before.
    pub added: Vec<String>,
    /// Names of the plugins that ran before and do not now.
    pub removed: Vec<String>,
}

/// Why a list of plugins was not taken: everything goes on as it was.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// One of its plugins does not do.
    #[error(transparent)]
    Plugin(#[from] SwapError),
    /// One of its outputs cannot be used.
    #[error(transparent)]
    Output(#[from] SinkError),
}

/// What is to be done about a plugin of the new list.
enum Plan {
    Keep,
    Swap(Box<Candidate>),
    Add(Arc<Loaded>),
}

impl PluginHost {
    /// Makes these the plugins that run. Everything is loaded and tried before anything is changed.
    ///
    /// # Errors
    ///
    /// Why everything goes on as it was.
    pub fn apply(&self, plugins: &[config::Plugin]) -> Result<Applied, ApplyError> {
        let _changing = self.change();
        let plans = plugins.iter().map(|plugin| self.plan(plugin));
        let plans: Vec<Plan> = plans.collect::<Result<_, _>>()?;
        self.outlet.change(outputs_of(plugins))?;
        let mut applied = Applied::default();
        let (mut filters, mut explainers) = (Vec::new(), Vec::new());
        for (plugin, plan) in plugins.iter().zip(plans) {
            match plan {
                Plan::Keep => {}
                Plan::Swap(candidate) => {
                    let outcome = self.switch_to(*candidate);
                    self.tell(&plugin.name, &outcome);
                    match outcome {
                        Ok(report) => applied.swapped.push(report),
                        Err(error) => applied.failed.push(error),
                    }
                }
                Plan::Add(loaded) => match self.add(plugin, &loaded) {
                    Ok(unplaced) => {
                        match unplaced {
                            Some(Unplaced::Filter(filter)) => filters.push(*filter),
                            Some(Unplaced::Explainer(explainer)) => explainers.push(*explainer),
                            None => {}
                        }
                        applied.added.push(plugin.name.clone());
                    }
                    Err(error) => {
                        tracing::error!(plugin = plugin.name, "not added: {error}");
                        applied.failed.push(error.into());
                    }
                },
            }
        }
        let position = |name: &str| plugins.iter().position(|plugin| plugin.name == name);
        let removed = {
            let mut running = self.lock();
            let (mut stay, go): (Vec<_>, Vec<_>) =
                running.drain(..).partition(|it| position(&it.config.name).is_some());
            stay.sort_by_key(|it| position(&it.config.name));
            *running = stay;
            go
        };
        self.lead_to_queues();
        if let Err(error) = self.rechain(filters, plugins) {
            applied.failed.push(error.into());
        }
        self.seat(explainers, plugins);
        // Whoever reads this may count on it: a filter and an explainer have their place by now.
        for plugin in &applied.added {
            tracing::info!(plugin, "added");
        }
        let deadline = Instant::now() + LAST_WORDS;
        for running in removed {
            running.end(deadline);
            tracing::info!(plugin = running.config.name, "removed");
            applied.removed.push(running.config.name);
        }
        self.outlet.forget_retired();
        Ok(applied)
    }

    fn plan(&self, plugin: &config::Plugin) -> Result<Plan, SwapError> {
        let runs = {
            let running = self.lock();
            running.iter().find(|it| it.config.name == plugin.name).map(|it| it.config.clone())
        };
        if runs.as_ref() == Some(plugin) {
            return Ok(Plan::Keep);
        }
        let loaded = self.read(plugin).map(Arc::new).map_err(SwapError::from);
        if runs.is_none() {
            return Ok(Plan::Add(loaded?));
        }
        let candidate = loaded.and_then(|loaded| self.try_out(plugin, loaded));
        let candidate = candidate.inspect_err(|error| self.tell_failure(&plugin.name, error));
        Ok(Plan::Swap(Box::new(candidate?)))
    }

    /// Starts a plugin that did not run. What happened before is to be sent again for it.
    fn add(
        &self,
        plugin: &config::Plugin,
        loaded: &Arc<Loaded>,
    ) -> Result<Option<Unplaced>, LoadError> {
        let (running, mut unplaced) = self.start(plugin, loaded)?;
        if let Some(Unplaced::Explainer(explainer)) = &mut unplaced {
            explainer.start_first()?;
        }
        running.wait_for_first_start()?;
        if let Some(queue) = running.queue() {
            queue.ask_for_repeats();
        }
        self.lock().push(running);
        Ok(unplaced)
    }

    /// Puts the explainers into the order of the list: those that are there, and new ones.
    fn seat(&self, new: Vec<Supervisor>, plugins: &[config::Plugin]) {
        let Some(desk) = self.explainers() else {
            return;
        };
        let names: Vec<String> = plugins.iter().map(|plugin| plugin.name.clone()).collect();
        desk.order(Box::new(move |explainers| {
            explainers.extend(new.into_iter().map(Explainer::new));
            let position = |it: &Explainer| names.iter().position(|name| name == it.board().name());
            explainers.retain(|explainer| position(explainer).is_some());
            explainers.sort_by_key(position);
        }));
    }

    /// Puts the filters into the order of the list: those that are in the chain, and new ones.
    fn rechain(&self, new: Vec<Filter>, plugins: &[config::Plugin]) -> Result<(), LoadError> {
        let Some(stage) = self.stage() else {
            return if new.is_empty() { Ok(()) } else { self.chain(new) };
        };
        let names: Vec<String> = plugins.iter().map(|plugin| plugin.name.clone()).collect();
        stage.queue().order(Box::new(move |filters| {
            filters.extend(new);
            let position =
                |filter: &Filter| names.iter().position(|it| it == filter.board().name());
            filters.retain(|filter| position(filter).is_some());
            filters.sort_by_key(position);
        }));
        Ok(())
    }
}

impl Running {
    /// Ends a plugin that nothing is routed to any more, with the totals that it knows already.
    fn end(&self, deadline: Instant) {
        if let Place::Queue(worker) = &self.place {
            let queue = worker.queue();
            if let Some(tick) = queue.recent().tick {
                queue.push_tick(&Arc::new(Tick { cause: TickCause::Stop, ..(*tick).clone() }));
            }
            worker.finish();
            worker.join(deadline);
        }
    }
}

//! Something done to a running plugin between two of its batches, on the thread that it runs on.
//!
//! Whoever asks waits for it; events wait in the plugin's queue meanwhile, as for any call of its own.

use std::sync::mpsc;

use super::explainers::Explainer;
use super::filter::Filter;
use super::worker::Runner;
use super::{Place, PluginHost, SwapError};

/// A plugin as its thread has it.
pub(super) enum Standing<'a> {
    Reporter(&'a mut Runner),
    Filter(&'a mut Filter),
    Explainer(&'a mut Explainer),
}

impl PluginHost {
    /// Has the thread of a plugin do something between two batches, and gives what came of it.
    ///
    /// # Errors
    ///
    /// If there is no such plugin, or the daemon stops.
    pub(super) fn between_batches<T: Send + 'static>(
        &self,
        plugin: &str,
        work: impl FnOnce(Standing<'_>) -> T + Send + 'static,
    ) -> Result<T, SwapError> {
        let stopping = || SwapError::Stopping { plugin: plugin.to_owned() };
        let (answer, answers) = mpsc::channel();
        let name = plugin.to_owned();
        let running = self.lock();
        let Some(found) = running.iter().find(|it| it.config.name == plugin) else {
            drop(running);
            return Err(self.no_plugin(plugin));
        };
        // Nobody waits any more where the daemon stops.
        match &found.place {
            Place::Queue(worker) => worker.queue().order(Box::new(move |runner| {
                let _ = answer.send(Some(work(Standing::Reporter(runner))));
            })),
            Place::Chain => {
                let stage = self.stage().ok_or_else(stopping)?;
                stage.queue().order(Box::new(move |filters| {
                    let filter = filters.iter_mut().find(|it| it.board().name() == name);
                    let _ = answer.send(filter.map(|filter| work(Standing::Filter(filter))));
                }));
            }
            Place::Desk => {
                let desk = self.explainers().ok_or_else(stopping)?;
                desk.order(Box::new(move |explainers| {
                    let explainer = explainers.iter_mut().find(|it| it.board().name() == name);
                    let _ = answer.send(explainer.map(|it| work(Standing::Explainer(it))));
                }));
            }
        }
        drop(running);
        let done = answers.recv().map_err(|_| stopping())?;
        done.ok_or_else(|| SwapError::Unplaced { plugin: plugin.to_owned() })
    }
}

//! Dispatch: every batch and tick to every plugin. The last station of the capture thread.
//!
//! Never blocks and never fails: what a plugin's queue does not take is counted there. Where there are
//! filters, batches and ticks go by way of their stage.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::event::{Batch, Tick};
use crate::kinds::Kinds;
use crate::plugin::{Queue, StageQueue};
use crate::recording::Tap;

/// Where batches and ticks go. Changed by the plugin host while events flow.
#[derive(Default)]
pub(crate) struct Routes {
    /// The queues of all plugins but filters. Locked only while the list is copied or replaced.
    queues: RwLock<Arc<[Arc<Queue>]>>,
    /// Where filters wait. Once there is a stage, it stays.
    stage: OnceLock<Arc<StageQueue>>,
}

impl Routes {
    /// Replaces the queues, between two batches.
    pub(crate) fn lead_to(&self, queues: Vec<Arc<Queue>>) {
        *self.queues.write().unwrap_or_else(PoisonError::into_inner) = queues.into();
    }

    /// Leads by way of a stage from now on.
    pub(crate) fn lead_through(&self, stage: Arc<StageQueue>) {
        // One that is there already stays.
        let _ = self.stage.set(stage);
    }

    /// Hands a batch to every plugin.
    pub(crate) fn batch(&self, batch: &Arc<Batch>) {
        let kinds = batch.events.iter().map(|event| Kinds::of(event.kind));
        let kinds = kinds.fold(Kinds::NONE, Kinds::with);
        self.queues().iter().for_each(|queue| queue.push_batch(batch, kinds));
    }

    /// Hands a tick to every plugin.
    pub(crate) fn tick(&self, tick: &Arc<Tick>) {
        self.queues().iter().for_each(|queue| queue.push_tick(tick));
    }

    fn queues(&self) -> Arc<[Arc<Queue>]> {
        Arc::clone(&self.queues.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A hand that gives batches and ticks to every plugin.
pub struct Dispatcher {
    routes: Arc<Routes>,
    recorder: Option<Tap>,
}

impl Dispatcher {
    pub(crate) fn new(routes: Arc<Routes>) -> Dispatcher {
        Dispatcher { routes, recorder: None }
    }

    /// Gives everything to a recorder too, before any filter.
    pub fn record_to(&mut self, recorder: Tap) {
        self.recorder = Some(recorder);
    }

    /// Whether batches go by way of filters. Then every event has to be handed over, repeats too: what
    /// the filters keep is deduplicated behind them.
    pub fn has_filters(&self) -> bool {
        self.routes.stage.get().is_some()
    }

    /// The kinds about processes that some plugin gets: what nobody gets is never made.
    pub fn wanted_of_processes(&self) -> Kinds {
        let queues = self.routes.queues();
        let wanted = queues.iter().map(|queue| queue.wanted());
        wanted.fold(Kinds::NONE, Kinds::with).only(Kinds::PROCESSES)
    }

    /// Hands over a batch. A full queue drops it and counts.
    pub fn batch(&self, batch: Arc<Batch>) {
        self.recorder.iter().for_each(|recorder| recorder.batch(&batch));
        match self.routes.stage.get() {
            Some(stage) => stage.push_batch(&batch),
            None => self.routes.batch(&batch),
        }
    }

    /// Hands over a tick, which is never dropped. One of the interval that still waits is replaced,
    /// if no batch came after it.
    pub fn tick(&self, tick: Arc<Tick>) {
        self.recorder.iter().for_each(|recorder| recorder.tick(&tick));
        match self.routes.stage.get() {
            Some(stage) => stage.push_tick(&tick),
            None => self.routes.tick(&tick),
        }
    }

    /// Waits until filters and plugins have done with what they were given. Never called while
    /// capturing.
    pub fn wait_until_idle(&self) {
        self.routes.stage.get().into_iter().for_each(|stage| stage.wait_until_idle());
        self.routes.queues().iter().for_each(|queue| queue.wait_until_idle());
    }

    /// Makes every repeat news once more, behind the filters.
    pub fn forget_repeats(&self) {
        self.routes.stage.get().into_iter().for_each(|stage| stage.forget_repeats());
    }

    /// Events that some plugin did not get, or got into an instance that was lost, since the last
    /// call. Above 0, repeats of what was sent before are news to that plugin.
    pub fn lost_since(&mut self) -> u64 {
        let by_stage: u64 = self.routes.stage.get().into_iter().map(|it| it.take_lost()).sum();
        by_stage + self.routes.queues().iter().map(|queue| queue.take_lost()).sum::<u64>()
    }
}

//! Dispatch: every batch and tick to every plugin. The last station of the capture thread.
//!
//! Never blocks and never fails: what a plugin's queue does not take is counted there.

use std::sync::Arc;

use crate::event::{Batch, Tick};
use crate::plugin::Queue;
use crate::recording::Tap;

/// A hand that gives batches and ticks to every plugin.
pub struct Dispatcher {
    queues: Vec<Arc<Queue>>,
    recorder: Option<Tap>,
}

impl Dispatcher {
    pub(crate) fn new(queues: Vec<Arc<Queue>>) -> Dispatcher {
        Dispatcher { queues, recorder: None }
    }

    /// Gives everything to a recorder too.
    pub fn record_to(&mut self, recorder: Tap) {
        self.recorder = Some(recorder);
    }

    /// Hands over a batch. A full queue drops it and counts.
    pub fn batch(&self, batch: Arc<Batch>) {
        if !batch.is_empty() {
            self.recorder.iter().for_each(|recorder| recorder.batch(&batch));
            self.queues.iter().for_each(|queue| queue.push_batch(&batch));
        }
    }

    /// Hands over a tick, which is never dropped. One of the interval that still waits is replaced,
    /// if no batch came after it.
    pub fn tick(&self, tick: Arc<Tick>) {
        self.recorder.iter().for_each(|recorder| recorder.tick(&tick));
        self.queues.iter().for_each(|queue| queue.push_tick(&tick));
    }

    /// Waits until every plugin has done with what it was given. Never called while capturing.
    pub fn wait_until_idle(&self) {
        self.queues.iter().for_each(|queue| queue.wait_until_idle());
    }

    /// Events that some plugin did not get, or got into an instance that was lost, since the last
    /// call. Above 0, repeats of what was sent before are news to that plugin.
    pub fn lost_since(&mut self) -> u64 {
        self.queues.iter().map(|queue| queue.take_lost()).sum()
    }
}

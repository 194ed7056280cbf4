//! Dispatch: every batch and tick to every plugin. The last station of the capture thread.
//!
//! Never blocks and never fails: what a plugin's queue does not take is counted there.

use std::sync::Arc;

use crate::event::{Batch, Tick};
use crate::plugin::Queue;

/// A hand that gives batches and ticks to every plugin.
pub struct Dispatcher {
    queues: Vec<Arc<Queue>>,
}

impl Dispatcher {
    pub(crate) fn new(queues: Vec<Arc<Queue>>) -> Dispatcher {
        Dispatcher { queues }
    }

    /// Hands over a batch. A full queue drops it and counts.
    pub fn batch(&self, batch: Arc<Batch>) {
        if !batch.is_empty() {
            self.queues.iter().for_each(|queue| queue.push_batch(&batch));
        }
    }

    /// Hands over a tick, which is never dropped. One of the interval that still waits is replaced,
    /// if no batch came after it.
    pub fn tick(&self, tick: Arc<Tick>) {
        self.queues.iter().for_each(|queue| queue.push_tick(&tick));
    }

    /// Events that some plugin did not get, or got into an instance that was lost, since the last
    /// call. Above 0, repeats of what was sent before are news to that plugin.
    pub fn lost_since(&mut self) -> u64 {
        self.queues.iter().map(|queue| queue.take_lost()).sum()
    }
}

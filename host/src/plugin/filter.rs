//! One filter: asked about batches, and never waited for.
//!
//! While it has no instance, its events are judged by its `on_failure`. The stage calls; this decides
//! what becomes of events that the guest did not judge.

use std::sync::Arc;
use std::time::Instant;

use super::bindings::exports::whodunit::plugin::filter::Verdict;
use super::instance::{Answers, Loss, Parts};
use super::load::LoadError;
use super::lower::Lowered;
use super::status::{Board, PluginState};
use super::subscription::Subscription;
use super::supervisor::{RestartPolicy, Supervisor};
use crate::admission::Judgement;
use crate::config::OnFailure;
use crate::event::Batch;

/// A filter in its place of the chain.
pub(super) struct Filter {
    pub(super) supervisor: Supervisor,
    pub(super) subscription: Subscription,
    pub(super) on_failure: OnFailure,
    /// Events that it did not judge or that never came here, and that it was not told of.
    untold: u64,
    lowered: Lowered,
}

impl Filter {
    /// Starts the first instance.
    ///
    /// # Errors
    ///
    /// If it refuses, or is not what its exports promise. One that merely dies is replaced later.
    pub(super) fn start(
        parts: Parts,
        subscription: Subscription,
        on_failure: OnFailure,
        policy: RestartPolicy,
    ) -> Result<Filter, LoadError> {
        let (untold, lowered) = (0, Lowered::default());
        let supervisor = Supervisor::new(parts, policy);
        let mut filter = Filter { supervisor, subscription, on_failure, untold, lowered };
        filter.supervisor.start_first()?;
        Ok(filter)
    }

    pub(super) fn board(&self) -> &Arc<Board> {
        &self.supervisor.parts.board
    }

    /// Events were dropped ahead of the filters: it is told at its next call.
    pub(super) fn missed(&mut self, events: u64) {
        self.untold += events;
    }

    /// Judges the events of a batch that the filters before kept. Tags are added with the index of
    /// their event.
    pub(super) fn judge(
        &mut self,
        batch: &Batch,
        judgements: &mut [Judgement],
        tags: &mut Vec<(usize, u32)>,
    ) {
        let asked: Vec<usize> = batch
            .events
            .iter()
            .enumerate()
            .filter(|(index, event)| {
                judgements[*index] == Judgement::Keep && self.subscription.wants(event)
            })
            .map(|(index, _)| index)
            .collect();
        if asked.is_empty() {
            return;
        }
        let narrow = (asked.len() < batch.events.len()).then(|| {
            let mut narrow = Batch::default();
            for index in &asked {
                narrow.push_event_of(batch, &batch.events[*index]);
            }
            narrow
        });
        let Some(verdicts) = self.verdicts(narrow.as_ref().unwrap_or(batch)) else {
            self.untold += asked.len() as u64;
            self.board().unjudged.add(asked.len() as u64);
            if self.on_failure == OnFailure::Closed {
                asked.into_iter().for_each(|index| judgements[index] = Judgement::Unjudged);
            }
            return;
        };
        let mut dropped = 0;
        for (index, verdict) in asked.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Keep | Verdict::Other(_) => {}
                Verdict::Drop => {
                    judgements[index] = Judgement::Drop;
                    dropped += 1;
                }
                Verdict::Tag(tag) => tags.push((index, tag)),
            }
        }
        self.board().filtered.add(dropped);
    }

    /// Puts another version in the place of the one that runs. On failure that one goes on.
    pub(super) fn switch(
        &mut self,
        parts: Parts,
        subscription: Subscription,
        on_failure: OnFailure,
    ) -> Result<(), String> {
        self.keep_state();
        self.supervisor.switch(parts).map_err(|loss| loss.sentence())?;
        self.subscription = subscription;
        self.on_failure = on_failure;
        Ok(())
    }

    /// Keeps the state of the instance for the one after it.
    pub(super) fn keep_state(&mut self) {
        if let Err(loss) = self.supervisor.save() {
            self.lose(&loss);
        }
    }

    /// Says that no more events come.
    pub(super) fn end(&mut self) {
        if !self.supervisor.is_quarantined() {
            let reason = "it finished what waited for it".to_owned();
            self.board().is(PluginState::Stopped { reason });
        }
    }

    /// One verdict an event. None where there are none.
    fn verdicts(&mut self, batch: &Batch) -> Option<Vec<Verdict>> {
        if !self.has_instance() {
            return None;
        }
        let dropped = std::mem::take(&mut self.untold);
        let events = batch.events.len();
        let instance = self.supervisor.instance()?;
        let lowered = self.lowered.batch(batch, dropped);
        let result = instance.call(|store, answers| match answers {
            Answers::Filter(filter) => filter.call_on_batch(store, lowered),
            // Only filters are put into the chain.
            Answers::Reporter(_) | Answers::Explainer(_) => Ok(Ok(Vec::new())),
        });
        let sentence = match result {
            Err(loss) => {
                self.untold = dropped;
                self.lose(&loss);
                return None;
            }
            Ok(Ok(verdicts)) if verdicts.len() == events => {
                self.board().calls.add(1);
                self.board().events.add(events as u64);
                return Some(verdicts);
            }
            Ok(Ok(verdicts)) => format!("it gave {} verdicts for {events} events", verdicts.len()),
            Ok(Err(sentence)) => sentence,
        };
        self.supervisor.guest_error("on-batch", &sentence);
        None
    }

    /// Whether there is an instance. Starts one if its time has come.
    fn has_instance(&mut self) -> bool {
        if self.supervisor.instance().is_some() {
            return true;
        }
        if self.supervisor.is_quarantined() || Instant::now() < self.supervisor.not_before() {
            return false;
        }
        match self.supervisor.start() {
            Ok(()) => true,
            Err(loss) => {
                self.lose(&loss);
                false
            }
        }
    }

    fn lose(&mut self, loss: &Loss) {
        // Quarantine shows in the supervisor from now on.
        let _ = self.supervisor.lose(loss, 0);
    }
}

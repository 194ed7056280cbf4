//! One filter: asked about batches, and never waited for.
//!
//! While it has no instance, its events are judged by its `on_failure`. The stage calls; this decides
//! what becomes of events that the guest did not judge.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::bindings::exports::whodunit::plugin::filter::Verdict;
use super::instance::{Answers, Instance, Loss, Parts};
use super::judgements::Judging;
use super::load::LoadError;
use super::lower::Lowered;
use super::second::{Beside, Case, Second};
use super::status::{Board, PluginState};
use super::subscription::Subscription;
use super::supervisor::{RestartPolicy, Supervisor};
use crate::admission::Judgement;
use crate::config::OnFailure;
use crate::event::Batch;

/// What a filter says of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    Keep,
    Drop,
    /// Keep, with this tag.
    Tag(u32),
}

impl Judged {
    /// What it does with the event.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Judged::Keep => "keep",
            Judged::Drop => "drop",
            Judged::Tag(_) => "tag",
        }
    }
}

impl From<Verdict> for Judged {
    fn from(verdict: Verdict) -> Judged {
        match verdict {
            Verdict::Keep | Verdict::Other(_) => Judged::Keep,
            Verdict::Drop => Judged::Drop,
            Verdict::Tag(tag) => Judged::Tag(tag),
        }
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Judged::Tag(tag) => write!(formatter, "{} {tag}", self.word()),
            Judged::Keep | Judged::Drop => formatter.write_str(self.word()),
        }
    }
}

/// Asks an instance about a batch, before which so many events were dropped: one judgement an event. The inner
/// error is the guest's own, or that they are too many or too few.
pub(super) fn ask(
    instance: &mut Instance,
    lowered: &mut Lowered,
    batch: &Batch,
    dropped: u64,
) -> Result<Result<Vec<Judged>, String>, Loss> {
    let events = batch.events.len();
    let lowered = lowered.batch(batch, dropped);
    let answered = instance.call(|store, answers| match answers {
        Answers::Filter { on_batch } => on_batch.call(store, lowered),
        // Only filters are put into the chain.
        Answers::Reporter { .. } | Answers::Explainer(_) => Ok(Ok(Vec::new())),
    })?;
    Ok(answered.and_then(|verdicts| match verdicts.len() {
        number if number == events => Ok(verdicts.into_iter().map(Judged::from).collect()),
        number => Err(format!("it gave {number} verdicts for {events} events")),
    }))
}

/// The batch with these events only.
fn only(batch: &Arc<Batch>, indices: &[usize]) -> Arc<Batch> {
    if indices.len() == batch.events.len() {
        return Arc::clone(batch);
    }
    let mut narrow = Batch::default();
    for index in indices {
        narrow.push_event_of(batch, &batch.events[*index]);
    }
    Arc::new(narrow)
}

/// A filter in its place of the chain.
pub(super) struct Filter {
    pub(super) supervisor: Supervisor,
    pub(super) subscription: Subscription,
    pub(super) on_failure: OnFailure,
    /// Events that it did not judge or that never came here, and that it was not told of.
    untold: u64,
    lowered: Lowered,
    /// A version that is asked the same.
    pub(super) beside: Beside<Judging>,
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
        let mut filter = Filter {
            supervisor: Supervisor::new(parts, policy),
            subscription,
            on_failure,
            untold: 0,
            lowered: Lowered::default(),
            beside: Beside::empty(),
        };
        filter.supervisor.start_first()?;
        Ok(filter)
    }

    pub(super) fn board(&self) -> &Arc<Board> {
        &self.supervisor.parts.board
    }

    /// Events were dropped ahead of the filters: it is told at its next call.
    pub(super) fn missed(&mut self, events: u64) {
        self.untold += events;
        self.beside.missed(events);
    }

    /// Judges the events of a batch that the filters before kept. Tags are added with the index of
    /// their event.
    pub(super) fn judge(
        &mut self,
        batch: &Arc<Batch>,
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
        let about = only(batch, &asked);
        let began = Instant::now();
        let judged = self.judged(&about);
        self.beside.put(|| Case {
            took: began.elapsed(),
            weight: asked.len() as u64,
            answer: judged.clone(),
            question: about,
        });
        let Some(judged) = judged else {
            self.untold += asked.len() as u64;
            self.board().unjudged.add(asked.len() as u64);
            if self.on_failure == OnFailure::Closed {
                asked.into_iter().for_each(|index| judgements[index] = Judgement::Unjudged);
            }
            return;
        };
        let mut dropped = 0;
        for (index, judged) in asked.into_iter().zip(judged) {
            match judged {
                Judged::Keep => {}
                Judged::Drop => {
                    judgements[index] = Judgement::Drop;
                    dropped += 1;
                }
                Judged::Tag(tag) => tags.push((index, tag)),
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
        self.beside.leave();
        self.subscription = subscription;
        self.on_failure = on_failure;
        Ok(())
    }

    /// Has another version run beside this one: it goes on from where this one stands, and is asked what this one
    /// is asked. So many events may wait for it.
    pub(super) fn begin_beside(
        &mut self,
        parts: Parts,
        capacity_events: usize,
        judging: Judging,
    ) -> Result<Second<Judging>, String> {
        self.keep_state();
        let capacity = capacity_events as u64;
        let second = self.beside.begin(&self.supervisor, parts, capacity, judging)?;
        self.beside.missed(self.untold);
        Ok(second)
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

    /// One judgement an event. None where there are none.
    fn judged(&mut self, batch: &Batch) -> Option<Vec<Judged>> {
        if !self.has_instance() {
            return None;
        }
        let dropped = std::mem::take(&mut self.untold);
        let instance = self.supervisor.instance()?;
        match ask(instance, &mut self.lowered, batch, dropped) {
            Err(loss) => {
                self.untold = dropped;
                self.lose(&loss);
                None
            }
            Ok(Ok(judged)) => {
                self.board().calls.add(1);
                self.board().events.add(judged.len() as u64);
                Some(judged)
            }
            Ok(Err(sentence)) => {
                self.supervisor.guest_error("on-batch", &sentence);
                None
            }
        }
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

//! Dedup behind the filters: what becomes of each event that they were asked about.
//!
//! Without a filter, the pipeline drops repeats by itself, before an event is ever made. With one, it
//! sends every event to the filters and counts it as admitted, and what they kept comes here. Owns the
//! memories of that way, and corrects the totals of each tick: what did not go on was not admitted.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use crate::dedup::{Dedup, FileCounts, FileKey, OutcomeClass, PathHasher, SAME_PATH, Verdict};
use crate::event::{
    AttributeKey, Batch, ContainerId, ContainerTotals, Counter, Event, Flags, Kind, Tick,
};
use crate::kinds::Kinds;

/// What the filters said of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It goes on.
    Keep,
    /// A filter dropped it.
    Drop,
    /// A filter should have judged it, did not, and lets nothing through that it did not judge.
    Unjudged,
}

/// The memories and counts behind the filters.
pub(crate) struct Admission {
    hasher: PathHasher,
    dedup_capacity: NonZeroUsize,
    accounts: HashMap<ContainerId, Account>,
}

struct Account {
    dedup: Dedup,
    counts: FileCounts,
    filtered: u64,
    unjudged: u64,
    /// Events that the queue ahead of the filters did not take.
    overflowed: u64,
}

impl Admission {
    /// Nothing seen, nothing counted.
    pub(crate) fn new(dedup_capacity: NonZeroUsize) -> Admission {
        Admission { hasher: PathHasher::new(), dedup_capacity, accounts: HashMap::new() }
    }

    /// Counts an event by what became of it. Whether it goes on to the plugins.
    pub(crate) fn admit(&mut self, batch: &Batch, event: &Event, judgement: Judgement) -> bool {
        if !Admission::is_counted(event) {
            return judgement == Judgement::Keep;
        }
        let key = (judgement == Judgement::Keep).then(|| self.key(batch, event));
        let account = self.account(event.container);
        match (judgement, key) {
            (Judgement::Drop, _) => account.filtered += 1,
            (Judgement::Unjudged, _) => account.unjudged += 1,
            (Judgement::Keep, None) => return true,
            (Judgement::Keep, Some(key)) => {
                let verdict = account.dedup.admit(key);
                account.counts.count(verdict);
                return verdict != Verdict::Repeat;
            }
        }
        false
    }

    /// Counts events that the queue ahead of the filters did not take.
    pub(crate) fn overflowed(&mut self, container: ContainerId, events: u64) {
        self.account(container).overflowed += events;
    }

    /// Makes every repeat news once more.
    pub(crate) fn forget_repeats(&mut self) {
        self.accounts.values_mut().for_each(|account| account.dedup.forget());
    }

    /// Adds what was counted here to a tick. The account of a container that ended is closed.
    pub(crate) fn add_to(&mut self, tick: &mut Tick) {
        self.correct(tick);
        let ended = tick.containers.iter().filter(|totals| totals.ended.is_some());
        ended.for_each(|totals| drop(self.accounts.remove(&totals.container)));
    }

    /// Adds what was counted here so far to a tick that is only shown.
    pub(crate) fn correct(&self, tick: &mut Tick) {
        for totals in &mut tick.containers {
            if let Some(account) = self.accounts.get(&totals.container) {
                account.add_to(totals);
            }
        }
    }

    /// Whether an event is in the totals: one of a file that the kernel told of. What the resolver adds to
    /// the stream is in no counter.
    pub(crate) fn is_counted(event: &Event) -> bool {
        let is_inferred = event.flags.contains(Flags::INFERRED);
        let is_added = event.kind == Kind::Follow || (event.kind == Kind::Load && is_inferred);
        !is_added && Kinds::FILES.meet(Kinds::of(event.kind))
    }

    fn account(&mut self, container: ContainerId) -> &mut Account {
        let capacity = self.dedup_capacity;
        self.accounts.entry(container).or_insert_with(|| Account {
            dedup: Dedup::new(capacity),
            counts: FileCounts::default(),
            filtered: 0,
            unjudged: 0,
            overflowed: 0,
        })
    }

    fn key(&self, batch: &Batch, event: &Event) -> FileKey {
        let attribute = |key| {
            let attributes = batch.attributes_of(event).iter();
            attributes.into_iter().find(|it| it.key == key).map_or(0, |it| it.value)
        };
        let inode = attribute(AttributeKey::Inode);
        let (path, requested) = (batch.text_of(event.path), batch.text_of(event.requested));
        FileKey {
            path: self.hasher.hash(path),
            requested: if requested == path { SAME_PATH } else { self.hasher.hash(requested) },
            no_follow: event.standpoint.no_follow,
            inode,
            device: attribute(AttributeKey::Device) as u32,
            operation: event.kind,
            outcome: OutcomeClass::of(event.outcome),
            setup: event.flags.contains(Flags::SETUP),
            destination: event.flags.contains(Flags::DESTINATION),
            mount_namespace: if inode == 0 { event.standpoint.mount_namespace } else { 0 },
        }
    }
}

impl Account {
    fn add_to(&self, totals: &mut ContainerTotals) {
        let counters = &mut totals.counters;
        let repeats = self.counts.duplicate;
        let files = self.dedup.files();
        let withheld = repeats + self.filtered + self.unjudged + self.overflowed;
        if let Some(admitted) = counters.iter_mut().find(|it| it.name == "admitted") {
            admitted.value = admitted.value.saturating_sub(withheld);
        }
        for (name, value, is_shown) in [
            ("duplicate", repeats, true),
            ("evicted", self.counts.evicted, true),
            (files.name, files.value, true),
            ("filtered", self.filtered, true),
            ("lost.filter-failed", self.unjudged, self.unjudged > 0),
            ("lost.filter-queue-full", self.overflowed, self.overflowed > 0),
        ] {
            match counters.iter_mut().find(|counter| counter.name == name) {
                Some(counter) => counter.value += value,
                None if is_shown => counters.push(Counter { name, value }),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Attribute, Span, TickCause, UnixNanos};

    fn push(batch: &mut Batch, kind: Kind, path: &str, inode: u64) {
        let path = batch.push_text(path.as_bytes());
        batch.attributes.push(Attribute { key: AttributeKey::Inode, value: inode });
        batch.events.push(Event {
            sequence: batch.events.len() as u64 + 1,
            time: UnixNanos(1),
            container: ContainerId(1),
            process: None,
            kind,
            flags: Flags::default(),
            outcome: 0,
            path,
            requested: Span::default(),
            attributes_first: batch.attributes.len() as u32 - 1,
            attributes_count: 1,
            standpoint: crate::event::Standpoint::default(),
        });
    }

    fn tick(counters: Vec<Counter>) -> Tick {
        let totals = ContainerTotals {
            container: ContainerId(1),
            watched_since: UnixNanos(1),
            from_birth: true,
            first_exec_seen: true,
            last_event: None,
            ended: Some(UnixNanos(9)),
            counters,
        };
        let (time, cause) = (UnixNanos(9), TickCause::Interval);
        Tick { time, cause, containers: vec![totals], counters: Vec::new() }
    }

    #[test]
    fn every_event_is_counted_once_by_what_became_of_it() {
        let mut batch = Batch::default();
        for (path, inode) in [("/a", 1), ("/a", 1), ("/a", 2), ("/b", 3), ("/c", 4)] {
            push(&mut batch, Kind::Open, path, inode);
        }
        let mut admission = Admission::new(NonZeroUsize::MIN);
        let judgements = [
            Judgement::Keep,
            Judgement::Keep,
            Judgement::Keep,
            Judgement::Drop,
            Judgement::Unjudged,
        ];
        let went_on: Vec<_> = batch
            .events
            .iter()
            .zip(judgements)
            .map(|(event, judgement)| admission.admit(&batch, event, judgement))
            .collect();
        assert_eq!(went_on, [true, false, true, false, false]);
        admission.overflowed(ContainerId(1), 7);
        let mut tick = tick(vec![
            Counter { name: "duplicate", value: 10 },
            Counter { name: "admitted", value: 20 },
        ]);
        admission.add_to(&mut tick);
        let counters = &tick.containers[0].counters;
        let counted = |name| counters.iter().find(|it| it.name == name).map(|it| it.value);
        // Two repeats or drops, one unjudged, and seven that were not taken did not go on.
        assert_eq!(counted("admitted"), Some(10));
        assert_eq!(counted("duplicate"), Some(11));
        assert_eq!(counted("evicted"), Some(1));
        assert_eq!(counted("filtered"), Some(1));
        assert_eq!(counted("lost.filter-failed"), Some(1));
        assert_eq!(counted("lost.filter-queue-full"), Some(7));
        assert!(admission.accounts.is_empty(), "the container has ended");
    }

    #[test]
    fn forgotten_repeats_are_news_and_a_start_is_never_a_repeat() {
        let mut batch = Batch::default();
        push(&mut batch, Kind::Open, "/a", 1);
        push(&mut batch, Kind::ContainerStarted, "/a", 1);
        let mut admission = Admission::new(NonZeroUsize::new(8).unwrap());
        let admit = |admission: &mut Admission| {
            let events = batch.events.iter();
            let admitted = events.map(|event| admission.admit(&batch, event, Judgement::Keep));
            admitted.collect::<Vec<_>>()
        };
        assert_eq!(admit(&mut admission), [true, true]);
        assert_eq!(admit(&mut admission), [false, true]);
        admission.forget_repeats();
        assert_eq!(admit(&mut admission), [true, true]);
    }
}

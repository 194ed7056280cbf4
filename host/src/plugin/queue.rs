//! What waits for one plugin: bounded in events, never blocking for whoever puts in.
//!
//! A full queue drops the newest batch and counts; the count goes to the guest, in order, with the
//! next batch or ahead of the next tick. Ticks are never dropped. An older tick of the interval is
//! replaced where no events stand between and it tells of no container's end, so the ticks that wait
//! are bounded by the batches and the ends.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use crate::event::{Batch, Tick, TickCause};

/// One thing to hand to a plugin.
#[derive(Debug)]
pub(super) enum Item {
    /// Events, and how many were dropped before them.
    Batch { batch: Arc<Batch>, dropped: u64 },
    /// Events that were dropped, with none after them.
    Dropped(u64),
    /// Totals.
    Tick(Arc<Tick>),
}

/// The queue of one plugin.
pub(crate) struct Queue {
    capacity_events: usize,
    state: Mutex<State>,
    changed: Condvar,
    /// The worker waits for the next item.
    idle: Condvar,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// Events of the batches that wait.
    events: usize,
    /// Dropped since the last item that tells of it.
    untold: u64,
    /// Dropped in all.
    dropped: u64,
    /// Dropped here or lost with an instance, since somebody asked.
    lost_since_asked: u64,
    /// Nothing more comes in.
    closed: bool,
    /// Nobody takes anything any more.
    abandoned: bool,
    /// Whether the worker has done with what it took.
    idle: bool,
}

impl Queue {
    /// A queue for that many events. One batch is always taken, whatever its size.
    pub(super) fn new(capacity_events: usize) -> Queue {
        Queue {
            capacity_events,
            state: Mutex::default(),
            changed: Condvar::new(),
            idle: Condvar::new(),
        }
    }

    /// Puts in a batch, or drops and counts it.
    pub(crate) fn push_batch(&self, batch: &Arc<Batch>) {
        let number = batch.events.len();
        let mut state = self.lock();
        let is_full = state.events > 0 && state.events + number > self.capacity_events;
        if is_full || state.closed || state.abandoned {
            state.untold += number as u64;
            state.dropped += number as u64;
            // To a plugin that gets nothing more, nothing needs to be sent again.
            if !state.abandoned {
                state.lost_since_asked += number as u64;
            }
            return;
        }
        let dropped = std::mem::take(&mut state.untold);
        state.events += number;
        state.items.push_back(Item::Batch { batch: Arc::clone(batch), dropped });
        drop(state);
        self.changed.notify_one();
    }

    /// Puts in a tick.
    pub(crate) fn push_tick(&self, tick: &Arc<Tick>) {
        let mut state = self.lock();
        if state.closed || state.abandoned {
            return;
        }
        // A container that ended is in one tick only, so that tick has to arrive.
        let is_replaced = |item: &mut Item| match item {
            Item::Tick(tick) => {
                let tells_of_an_end = tick.containers.iter().any(|totals| totals.ended.is_some());
                tick.cause == TickCause::Interval && !tells_of_an_end
            }
            Item::Batch { .. } | Item::Dropped(_) => false,
        };
        state.items.pop_back_if(is_replaced);
        let mut dropped = std::mem::take(&mut state.untold);
        if let Some(Item::Dropped(before)) =
            state.items.pop_back_if(|item| matches!(item, Item::Dropped(_)))
        {
            dropped += before;
        }
        if dropped > 0 {
            state.items.push_back(Item::Dropped(dropped));
        }
        state.items.push_back(Item::Tick(Arc::clone(tick)));
        drop(state);
        self.changed.notify_one();
    }

    /// Takes the oldest item; waits for one. None when the queue is closed and empty, or abandoned.
    pub(super) fn pop(&self) -> Option<Item> {
        let waits = |state: &mut State| state.items.is_empty() && !state.closed && !state.abandoned;
        let mut state = self.lock();
        state.idle = true;
        self.idle.notify_all();
        let state = self.changed.wait_while(state, waits);
        let mut state = state.expect("no holder of this lock panics");
        state.idle = false;
        if state.abandoned {
            return None;
        }
        let item = state.items.pop_front()?;
        if let Item::Batch { batch, .. } = &item {
            state.events -= batch.events.len();
        }
        Some(item)
    }

    /// Waits until everything that was put in is done with, or is thrown away.
    pub(crate) fn wait_until_idle(&self) {
        let busy = |state: &mut State| !state.abandoned && !(state.idle && state.items.is_empty());
        drop(self.idle.wait_while(self.lock(), busy));
    }

    /// Waits until that time, or until the queue is closed.
    pub(super) fn wait_until(&self, time: Instant) {
        let patience = time.saturating_duration_since(Instant::now());
        let waits = |state: &mut State| !state.closed && !state.abandoned;
        drop(self.changed.wait_timeout_while(self.lock(), patience, waits));
    }

    /// Counts events that were lost with an instance.
    pub(super) fn lost_with_instance(&self, events: u64) {
        self.lock().lost_since_asked += events;
    }

    /// Lets nothing more in.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Throws away what waits, counting it, and whatever comes.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        let events = std::mem::take(&mut state.events) as u64;
        state.abandoned = true;
        state.items.clear();
        state.dropped += events;
        drop(state);
        self.changed.notify_all();
        self.idle.notify_all();
    }

    /// Events dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Events dropped or lost with an instance since the last call.
    pub(crate) fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.lock().lost_since_asked)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ContainerId, ContainerTotals, Event, Flags, Kind, Span, UnixNanos};

    fn batch(events: usize) -> Arc<Batch> {
        let event = Event {
            sequence: 1,
            time: UnixNanos(1),
            container: ContainerId(1),
            process: None,
            kind: Kind::Open,
            flags: Flags::default(),
            outcome: 0,
            path: Span::default(),
            requested: Span::default(),
            attributes_first: 0,
            attributes_count: 0,
            standpoint: crate::event::Standpoint::default(),
        };
        Arc::new(Batch { events: vec![event; events], ..Batch::default() })
    }

    fn tick(time: u64, cause: TickCause) -> Arc<Tick> {
        let (containers, counters) = (Vec::new(), Vec::new());
        Arc::new(Tick { time: UnixNanos(time), cause, containers, counters })
    }

    /// What waits, in words: `3-2` is a batch of 3 events that tells of 2 dropped ones.
    fn drain(queue: &Queue) -> Vec<String> {
        queue.close();
        let items = std::iter::from_fn(|| queue.pop());
        let word = |item| match item {
            Item::Batch { batch, dropped } => format!("{}-{dropped}", batch.events.len()),
            Item::Dropped(dropped) => format!("dropped {dropped}"),
            Item::Tick(tick) => format!("tick {}", tick.time.0),
        };
        items.map(word).collect()
    }

    #[test]
    fn full_queue_drops_newest_and_counts() {
        let queue = Queue::new(5);
        queue.push_batch(&batch(3));
        queue.push_batch(&batch(3));
        queue.push_batch(&batch(2));
        queue.push_batch(&batch(1));
        assert_eq!(queue.dropped(), 4);
        assert_eq!(queue.take_lost(), 4);
        assert_eq!(queue.take_lost(), 0);
        assert_eq!(drain(&queue), ["3-0", "2-3"]);
    }

    #[test]
    fn a_batch_above_the_capacity_is_taken_when_nothing_waits() {
        let queue = Queue::new(5);
        queue.push_batch(&batch(9));
        queue.push_batch(&batch(1));
        assert_eq!(drain(&queue), ["9-0"]);
        assert_eq!(queue.dropped(), 1);
    }

    #[test]
    fn drops_are_told_ahead_of_the_tick_that_follows_them() {
        let queue = Queue::new(1);
        queue.push_batch(&batch(1));
        queue.push_batch(&batch(7));
        queue.push_tick(&tick(1, TickCause::Interval));
        assert_eq!(drain(&queue), ["1-0", "dropped 7", "tick 1"]);
    }

    #[test]
    fn an_older_interval_tick_is_replaced_where_no_batch_stands_between() {
        let queue = Queue::new(9);
        queue.push_tick(&tick(1, TickCause::Interval));
        queue.push_batch(&batch(8));
        queue.push_tick(&tick(2, TickCause::Interval));
        queue.push_batch(&batch(5));
        queue.push_tick(&tick(3, TickCause::Interval));
        queue.push_batch(&batch(4));
        queue.push_tick(&tick(4, TickCause::Request));
        queue.push_tick(&tick(5, TickCause::Interval));
        queue.push_tick(&tick(6, TickCause::Stop));
        // The drops before the second and third interval tick are told together.
        assert_eq!(drain(&queue), ["tick 1", "8-0", "dropped 9", "tick 4", "tick 6"]);
    }

    #[test]
    fn a_tick_that_tells_of_an_end_is_not_replaced() {
        let queue = Queue::new(9);
        let mut first = Tick::clone(&tick(1, TickCause::Interval));
        first.containers.push(ContainerTotals {
            container: ContainerId(1),
            watched_since: UnixNanos(0),
            from_birth: true,
            first_exec_seen: true,
            last_event: None,
            ended: Some(UnixNanos(1)),
            counters: Vec::new(),
        });
        queue.push_tick(&Arc::new(first));
        queue.push_tick(&tick(2, TickCause::Interval));
        queue.push_tick(&tick(3, TickCause::Interval));
        assert_eq!(drain(&queue), ["tick 1", "tick 3"]);
    }

    #[test]
    fn an_abandoned_queue_counts_what_it_throws_away() {
        let queue = Queue::new(9);
        queue.push_batch(&batch(3));
        queue.abandon();
        queue.push_batch(&batch(2));
        queue.push_tick(&tick(1, TickCause::Stop));
        assert!(queue.pop().is_none());
        assert_eq!(queue.dropped(), 5);
        assert_eq!(queue.take_lost(), 0, "nothing is sent again for a plugin that is gone");
    }
}

//! What waits for one plugin: bounded in events, never blocking for whoever puts in.
//!
//! A full queue drops the newest batch, or the oldest ones, and counts; the count goes to the guest, in
//! order, with the next batch or ahead of the next tick. In a replay it may block instead. Events that the plugin did not subscribe to
//! do not count.
//!
//! An order is no item: it is done before the next item is taken, between two batches. Ticks are never dropped. An older tick of the interval is
//! replaced where no events stand between and it tells of no container's end, so the ticks that wait
//! are bounded by the batches and the ends.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use super::subscription::Subscription;
use super::worker::Runner;
use crate::config::{self, Overflow};
use crate::death::record::DeathRecord;
use crate::event::{Batch, Tick, TickCause};
use crate::kinds::Kinds;

/// One thing to hand to a plugin.
pub(super) enum Item {
    /// Events, and how many were dropped before them.
    Batch {
        batch: Arc<Batch>,
        /// How many of its events are wanted.
        wanted: usize,
        dropped: u64,
    },
    /// Events that were dropped, with none after them.
    Dropped(u64),
    /// Totals.
    Tick(Arc<Tick>),
    /// Something to do between two batches.
    Order(Order),
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Depth {
    /// Events that wait.
    pub(super) events: u64,
    /// Events that were dropped so far.
    pub(super) dropped: u64,
}

/// What a queue takes.
pub(super) struct Terms {
    /// So many events at most; one batch is always taken, whatever its size.
    pub(super) capacity_events: usize,
    pub(super) overflow: Overflow,
    pub(super) subscription: Arc<Subscription>,
}

impl Terms {
    /// What the TOML says.
    pub(super) fn of(plugin: &config::Plugin, subscription: Arc<Subscription>) -> Terms {
        let config::Plugin { overflow, ref limits, .. } = *plugin;
        Terms { capacity_events: limits.queue_events, overflow, subscription }
    }
}

/// Something for the worker to do between two batches.
pub(super) type Order = Box<dyn FnOnce(&mut Runner) + Send>;

/// What a plugin was handed last, to try another version of it with.
#[derive(Clone, Default)]
pub(super) struct Recent {
    pub(super) batches: VecDeque<Arc<Batch>>,
    pub(super) tick: Option<Arc<Tick>>,
    /// Of the explainers: the last death.
    pub(super) death: Option<Arc<DeathRecord>>,
}

impl Recent {
    /// So many batches are kept.
    const BATCHES: usize = 4;

    pub(super) fn keep(&mut self, batch: &Arc<Batch>) {
        if self.batches.len() == Recent::BATCHES {
            self.batches.pop_front();
        }
        self.batches.push_back(Arc::clone(batch));
    }

    /// Keeps a tick, without the containers that ended: each of those is told of once.
    fn keep_tick(&mut self, tick: &Arc<Tick>) {
        let mut tick = Arc::clone(tick);
        if tick.containers.iter().any(|totals| totals.ended.is_some()) {
            Arc::make_mut(&mut tick).containers.retain(|totals| totals.ended.is_none());
        }
        self.tick = Some(tick);
    }
}

/// The queue of one plugin.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// The worker waits for the next item.
    idle: Condvar,
    /// There may be room again for whoever waits with a batch.
    room: Condvar,
}

struct State {
    terms: Terms,
    orders: VecDeque<Order>,
    items: VecDeque<Item>,
    recent: Recent,
    /// Events of the batches that wait.
    events: usize,
    /// Dropped since the last item that tells of it.
    untold: u64,
    /// Dropped in all.
    dropped: u64,
    /// Dropped here or lost with an instance, since somebody asked.
    lost_since_asked: u64,
    /// The plugin gets nothing until further notice.
    refuses: bool,
    /// Nothing more comes in.
    closed: bool,
    /// Nobody takes anything any more.
    abandoned: bool,
    /// Whether the worker has done with what it took.
    idle: bool,
}

impl Queue {
    /// An empty queue on these terms.
    pub(super) fn new(terms: Terms) -> Queue {
        let state = State {
            terms,
            orders: VecDeque::new(),
            items: VecDeque::new(),
            recent: Recent::default(),
            events: 0,
            untold: 0,
            dropped: 0,
            lost_since_asked: 0,
            refuses: false,
            closed: false,
            abandoned: false,
            idle: false,
        };
        Queue {
            state: Mutex::new(state),
            changed: Condvar::new(),
            idle: Condvar::new(),
            room: Condvar::new(),
        }
    }

    /// Changes the terms, between two batches.
    pub(super) fn on_terms(&self, terms: Terms) {
        self.lock().terms = terms;
        self.room.notify_all();
    }

    /// The kinds of events that are taken.
    pub(crate) fn wanted(&self) -> Kinds {
        self.lock().terms.subscription.kinds()
    }

    /// Puts in a batch with events of those kinds, or drops and counts it. Waits for room where the terms say
    /// so, which is in a replay only.
    pub(crate) fn push_batch(&self, batch: &Arc<Batch>, kinds: Kinds) {
        let mut state = self.lock();
        let wanted = state.terms.subscription.count(batch, kinds);
        if wanted == 0 {
            return;
        }
        match state.terms.overflow {
            Overflow::DropNewest => {}
            Overflow::DropOldest if state.takes() => {
                let at_most = state.terms.capacity_events.saturating_sub(wanted);
                state.drop_oldest(at_most);
            }
            Overflow::DropOldest => {}
            Overflow::Block => {
                let waits = |state: &mut State| state.is_full_for(wanted) && state.takes();
                let waited = self.room.wait_while(state, waits);
                state = waited.expect("no holder of this lock panics");
            }
        }
        if state.is_full_for(wanted) || !state.takes() {
            state.untold += wanted as u64;
            state.count_dropped(wanted);
            return;
        }
        let dropped = std::mem::take(&mut state.untold);
        state.events += wanted;
        state.items.push_back(Item::Batch { batch: Arc::clone(batch), wanted, dropped });
        drop(state);
        self.changed.notify_one();
    }

    /// Puts in what another queue gave, with what was dropped before it.
    pub(super) fn push_copy(&self, item: &Item) {
        match item {
            Item::Batch { batch, dropped, .. } => {
                self.lock().untold += dropped;
                self.push_batch(batch, Kinds::ALL);
            }
            Item::Dropped(dropped) => self.lock().untold += dropped,
            Item::Tick(tick) => self.push_tick(tick),
            Item::Order(_) => {}
        }
    }

    /// Puts in a tick.
    pub(crate) fn push_tick(&self, tick: &Arc<Tick>) {
        let mut state = self.lock();
        if !state.takes() {
            return;
        }
        // A container that ended is in one tick only, so that tick has to arrive.
        let is_replaced = |item: &mut Item| match item {
            Item::Tick(tick) => {
                let tells_of_an_end = tick.containers.iter().any(|totals| totals.ended.is_some());
                tick.cause == TickCause::Interval && !tells_of_an_end
            }
            Item::Batch { .. } | Item::Dropped(_) | Item::Order(_) => false,
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

    /// Has the worker do something before it takes the next item. What comes too late is dropped.
    pub(super) fn order(&self, order: Order) {
        let mut state = self.lock();
        if !state.closed && !state.abandoned {
            state.orders.push_back(order);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The next order, if there is one.
    pub(super) fn take_order(&self) -> Option<Order> {
        self.lock().orders.pop_front()
    }

    /// Takes the next order or the oldest item; waits for one. None when the queue is closed and
    /// empty, or abandoned.
    pub(super) fn pop(&self) -> Option<Item> {
        let waits = |state: &mut State| {
            state.items.is_empty() && state.orders.is_empty() && !state.closed && !state.abandoned
        };
        let mut state = self.lock();
        state.idle = true;
        // Between two items nobody is woken who waits for the end of all.
        if !state.is_busy() {
            self.idle.notify_all();
        }
        let state = self.changed.wait_while(state, waits);
        let mut state = state.expect("no holder of this lock panics");
        state.idle = false;
        if state.abandoned {
            return None;
        }
        if let Some(order) = state.orders.pop_front() {
            return Some(Item::Order(order));
        }
        let item = state.items.pop_front()?;
        match &item {
            Item::Batch { batch, wanted, .. } => {
                state.events -= wanted;
                state.recent.keep(batch);
                self.room.notify_all();
            }
            Item::Tick(tick) => state.recent.keep_tick(tick),
            Item::Dropped(_) | Item::Order(_) => {}
        }
        Some(item)
    }

    /// Waits until everything that was put in is done with, or is thrown away.
    pub(crate) fn wait_until_idle(&self) {
        drop(self.idle.wait_while(self.lock(), |state| state.is_busy()));
    }

    /// What was taken last.
    pub(super) fn recent(&self) -> Recent {
        self.lock().recent.clone()
    }

    /// Waits until that time, until there is an order, or until the queue is closed.
    pub(super) fn wait_until(&self, time: Instant) {
        let patience = time.saturating_duration_since(Instant::now());
        let waits =
            |state: &mut State| state.orders.is_empty() && !state.closed && !state.abandoned;
        drop(self.changed.wait_timeout_while(self.lock(), patience, waits));
    }

    /// Throws away what waits and whatever comes, counting it, until [`Queue::accept`].
    pub(super) fn refuse(&self) {
        let mut state = self.lock();
        state.refuses = true;
        state.throw_away();
        drop(state);
        self.room.notify_all();
    }

    /// Takes what comes again. Whether it did not before: then much was missed.
    pub(super) fn accept(&self) {
        let mut state = self.lock();
        if std::mem::take(&mut state.refuses) {
            // What it missed has to be sent again.
            state.lost_since_asked += state.untold;
        }
    }

    /// Says that what was sent before is news to this plugin.
    pub(super) fn ask_for_repeats(&self) {
        self.lock().lost_since_asked += 1;
    }

    /// Counts events that were lost with an instance.
    pub(super) fn lost_with_instance(&self, events: u64) {
        self.lock().lost_since_asked += events;
    }

    /// Lets nothing more in.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
        self.room.notify_all();
    }

    /// Whether nothing more comes in.
    pub(super) fn is_closed(&self) -> bool {
        let state = self.lock();
        state.closed || state.abandoned
    }

    /// Throws away what waits, counting it, and whatever comes.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.orders.clear();
        state.throw_away();
        drop(state);
        self.changed.notify_all();
        self.idle.notify_all();
        self.room.notify_all();
    }

    /// What waits, and what was dropped so far.
    pub(super) fn depth(&self) -> Depth {
        let state = self.lock();
        Depth { events: state.events as u64, dropped: state.dropped }
    }

    /// Events dropped or lost with an instance since the last call.
    pub(crate) fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.lock().lost_since_asked)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    fn takes(&self) -> bool {
        !self.refuses && !self.closed && !self.abandoned
    }

    /// Whether something that was put in is not done with, and will be.
    fn is_busy(&self) -> bool {
        let is_at_rest = self.idle && self.items.is_empty() && self.orders.is_empty();
        !self.abandoned && !is_at_rest
    }

    /// Whether so many more events are too many. One batch is always taken.
    fn is_full_for(&self, wanted: usize) -> bool {
        self.events > 0 && self.events + wanted > self.terms.capacity_events
    }

    fn throw_away(&mut self) {
        let events = std::mem::take(&mut self.events) as u64;
        self.items.clear();
        self.dropped += events;
        self.untold += events;
    }

    /// Counts events that were dropped.
    fn count_dropped(&mut self, events: usize) {
        self.dropped += events as u64;
        // To a plugin that gets nothing more, nothing needs to be sent again.
        if !self.abandoned && !self.refuses {
            self.lost_since_asked += events as u64;
        }
    }

    /// Drops the oldest batches until at most so many events wait. What comes after each tells of it.
    fn drop_oldest(&mut self, at_most: usize) {
        let mut index = 0;
        let mut untold = 0;
        while self.events > at_most && index < self.items.len() {
            let Item::Batch { wanted, dropped, .. } = self.items[index] else {
                index += 1;
                continue;
            };
            self.events -= wanted;
            self.count_dropped(wanted);
            untold += wanted as u64 + dropped;
            // A tick between two batches counts what came before it: it is told first.
            if matches!(self.items.get(index + 1), Some(Item::Tick(_))) {
                self.items[index] = Item::Dropped(std::mem::take(&mut untold));
                index += 1;
            } else {
                self.items.remove(index);
            }
        }
        if untold > 0 {
            match self.items.get_mut(index) {
                Some(Item::Batch { dropped, .. } | Item::Dropped(dropped)) => *dropped += untold,
                Some(Item::Tick(_) | Item::Order(_)) => {
                    self.items.insert(index, Item::Dropped(untold));
                }
                None => self.untold += untold,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ContainerId, ContainerTotals, Event, UnixNanos};

    fn batch(events: usize) -> Arc<Batch> {
        let event = Event::plain(1, ContainerId(1));
        Arc::new(Batch { events: vec![event; events], ..Batch::default() })
    }

    fn queue_that(capacity: usize, overflow: Overflow) -> Queue {
        let subscription = Arc::new(Subscription::everything());
        Queue::new(Terms { capacity_events: capacity, overflow, subscription })
    }

    fn queue(capacity: usize) -> Queue {
        queue_that(capacity, Overflow::DropNewest)
    }

    fn push(queue: &Queue, batch: &Arc<Batch>) {
        queue.push_batch(batch, Kinds::ALL);
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
            Item::Batch { batch, dropped, .. } => format!("{}-{dropped}", batch.events.len()),
            Item::Dropped(dropped) => format!("dropped {dropped}"),
            Item::Tick(tick) => format!("tick {}", tick.time.0),
            Item::Order(_) => "order".to_owned(),
        };
        items.map(word).collect()
    }

    #[test]
    fn full_queue_drops_newest_and_counts() {
        let queue = queue(5);
        push(&queue, &batch(3));
        push(&queue, &batch(3));
        push(&queue, &batch(2));
        push(&queue, &batch(1));
        assert_eq!(queue.depth().dropped, 4);
        assert_eq!(queue.take_lost(), 4);
        assert_eq!(queue.take_lost(), 0);
        assert_eq!(drain(&queue), ["3-0", "2-3"]);
    }

    #[test]
    fn full_queue_drops_oldest_where_it_is_told_to_and_says_so_in_order() {
        let queue = queue_that(5, Overflow::DropOldest);
        push(&queue, &batch(2));
        push(&queue, &batch(1));
        queue.push_tick(&tick(1, TickCause::Interval));
        push(&queue, &batch(2));
        push(&queue, &batch(4));
        assert_eq!(queue.depth(), Depth { events: 4, dropped: 5 });
        assert_eq!(queue.take_lost(), 5);
        assert_eq!(drain(&queue), ["dropped 3", "tick 1", "4-2"]);
        let queue = queue_that(5, Overflow::DropOldest);
        for size in [3, 9, 1] {
            push(&queue, &batch(size));
        }
        assert_eq!(drain(&queue), ["1-12"], "one above the capacity waits only until the next");
    }

    #[test]
    fn full_queue_that_blocks_drops_nothing_and_goes_on_when_there_is_room() {
        let queue = queue_that(5, Overflow::Block);
        std::thread::scope(|scope| {
            let handing_over = scope.spawn(|| (0..50).for_each(|_| push(&queue, &batch(3))));
            for _ in 0..50 {
                assert!(queue.depth().events <= 5);
                assert!(matches!(queue.pop(), Some(Item::Batch { dropped: 0, .. })));
            }
            handing_over.join().unwrap();
        });
        assert_eq!(queue.depth(), Depth::default());
    }

    #[test]
    fn whoever_waits_for_a_plugin_that_is_given_up_goes_on() {
        for end in [Queue::refuse, Queue::close, Queue::abandon] {
            let queue = queue_that(5, Overflow::Block);
            push(&queue, &batch(5));
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| push(&queue, &batch(4)));
                end(&queue);
                waiting.join().unwrap();
            });
            assert!([4, 9].contains(&queue.depth().dropped), "{:?}", queue.depth());
        }
    }

    #[test]
    fn a_batch_above_the_capacity_is_taken_when_nothing_waits() {
        let queue = queue(5);
        push(&queue, &batch(9));
        push(&queue, &batch(1));
        assert_eq!(drain(&queue), ["9-0"]);
        assert_eq!(queue.depth().dropped, 1);
    }

    #[test]
    fn drops_are_told_ahead_of_the_tick_that_follows_them() {
        let queue = queue(1);
        push(&queue, &batch(1));
        push(&queue, &batch(7));
        queue.push_tick(&tick(1, TickCause::Interval));
        assert_eq!(drain(&queue), ["1-0", "dropped 7", "tick 1"]);
    }

    #[test]
    fn an_older_interval_tick_is_replaced_where_no_batch_stands_between() {
        let queue = queue(9);
        queue.push_tick(&tick(1, TickCause::Interval));
        push(&queue, &batch(8));
        queue.push_tick(&tick(2, TickCause::Interval));
        push(&queue, &batch(5));
        queue.push_tick(&tick(3, TickCause::Interval));
        push(&queue, &batch(4));
        queue.push_tick(&tick(4, TickCause::Request));
        queue.push_tick(&tick(5, TickCause::Interval));
        queue.push_tick(&tick(6, TickCause::Stop));
        // The drops before the second and third interval tick are told together.
        assert_eq!(drain(&queue), ["tick 1", "8-0", "dropped 9", "tick 4", "tick 6"]);
    }

    #[test]
    fn a_tick_that_tells_of_an_end_is_not_replaced() {
        let queue = queue(9);
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
        let queue = queue(9);
        push(&queue, &batch(3));
        queue.abandon();
        push(&queue, &batch(2));
        queue.push_tick(&tick(1, TickCause::Stop));
        assert!(queue.pop().is_none());
        assert_eq!(queue.depth().dropped, 5);
        assert_eq!(queue.take_lost(), 0, "nothing is sent again for a plugin that is gone");
    }
}

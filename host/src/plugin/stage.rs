//! The filter stage: the thread between capture and the plugins' queues, where there are filters.
//!
//! Capture puts every event into a queue that is bounded in events, and never waits: what the queue
//! does not take is dropped and counted, by container, and told to every filter at its next call. The stage asks the filters in the order of the
//! TOML, drops repeats of what they kept ([`Admission`]), and hands on the rest. Ticks pass in their
//! place and take the counts along, so they are exact whatever waited.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Instant;

use super::filter::Filter;
use super::load::LoadError;
use super::queue::Recent;
use crate::admission::{Admission, Judgement};
use crate::dispatch::Routes;
use crate::event::{Attribute, AttributeKey, Batch, ContainerId, Event, Tick};

/// Something to do with the filters, between two batches.
pub(super) type Order = Box<dyn FnOnce(&mut Vec<Filter>) + Send>;

/// One thing for the stage to do.
enum Item {
    Batch {
        batch: Arc<Batch>,
        /// Events that were dropped before it.
        dropped: u64,
    },
    Tick(Arc<Tick>),
    ForgetRepeats,
    Order(Order),
}

/// What waits for the filters.
pub(crate) struct StageQueue {
    capacity_events: usize,
    /// Whoever hands over waits for room.
    blocks: bool,
    state: Mutex<State>,
    changed: Condvar,
    /// The stage waits for the next item.
    idle: Condvar,
    /// There is room again.
    room: Condvar,
}

#[derive(Default)]
struct State {
    /// Ahead of every item: events that come later are what they are about.
    orders: VecDeque<Order>,
    items: VecDeque<Item>,
    recent: Recent,
    /// Events of the batches that wait.
    events: usize,
    /// Events that were not taken since the last tick.
    overflowed: HashMap<ContainerId, u64>,
    /// Events that were not taken since the last batch.
    untold: u64,
    /// Events that no plugin got because of the filters' state, since somebody asked.
    lost_since_asked: u64,
    closed: bool,
    /// Whether the stage has done with what it took.
    idle: bool,
}

impl State {
    /// Whether something that was put in has not gone on, and will.
    fn is_busy(&self) -> bool {
        let is_at_rest = self.idle && self.items.is_empty() && self.orders.is_empty();
        !self.closed && !is_at_rest
    }
}

impl StageQueue {
    /// Events that wait.
    pub(super) fn waiting_events(&self) -> u64 {
        self.lock().events as u64
    }

    /// An empty one. One that `blocks` drops nothing: whoever hands over waits.
    pub(super) fn new(capacity_events: usize, blocks: bool) -> StageQueue {
        StageQueue {
            capacity_events,
            blocks,
            state: Mutex::default(),
            changed: Condvar::new(),
            idle: Condvar::new(),
            room: Condvar::new(),
        }
    }

    /// Puts in a batch, or drops and counts it.
    pub(crate) fn push_batch(&self, batch: &Arc<Batch>) {
        let number = batch.events.len();
        if number == 0 {
            return;
        }
        let is_full =
            |state: &State| state.events > 0 && state.events + number > self.capacity_events;
        let mut state = self.lock();
        if self.blocks {
            let waits = |state: &mut State| is_full(state) && !state.closed;
            state = self.room.wait_while(state, waits).expect("no holder of this lock panics");
        }
        if is_full(&state) || state.closed {
            state.lost_since_asked += number as u64;
            state.untold += number as u64;
            for event in batch.events.iter().filter(|event| Admission::is_counted(event)) {
                *state.overflowed.entry(event.container).or_default() += 1;
            }
            return;
        }
        state.events += number;
        let dropped = std::mem::take(&mut state.untold);
        self.put(state, Item::Batch { batch: Arc::clone(batch), dropped });
    }

    /// Puts in a tick.
    pub(crate) fn push_tick(&self, tick: &Arc<Tick>) {
        self.put(self.lock(), Item::Tick(Arc::clone(tick)));
    }

    /// Makes every repeat news once more, for the events that come after this.
    pub(crate) fn forget_repeats(&self) {
        self.put(self.lock(), Item::ForgetRepeats);
    }

    /// Does something between two batches.
    pub(super) fn order(&self, order: Order) {
        let mut state = self.lock();
        if !state.closed {
            state.orders.push_back(order);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Events that no plugin got because of the filters' state, since the last call.
    pub(crate) fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.lock().lost_since_asked)
    }

    /// What was taken last.
    pub(super) fn recent(&self) -> Recent {
        self.lock().recent.clone()
    }

    fn put(&self, mut state: MutexGuard<'_, State>, item: Item) {
        state.items.push_back(item);
        drop(state);
        self.changed.notify_one();
    }

    /// Takes the oldest item; waits for one. None when the queue is closed and empty.
    fn pop(&self) -> Option<Item> {
        let waits =
            |state: &mut State| state.items.is_empty() && state.orders.is_empty() && !state.closed;
        let mut state = self.lock();
        state.idle = true;
        // Between two items nobody is woken who waits for the end of all.
        if !state.is_busy() {
            self.idle.notify_all();
        }
        let state = self.changed.wait_while(state, waits);
        let mut state = state.expect("no holder of this lock panics");
        state.idle = false;
        if let Some(order) = state.orders.pop_front() {
            return Some(Item::Order(order));
        }
        let item = state.items.pop_front()?;
        if let Item::Batch { batch, .. } = &item {
            state.events -= batch.events.len();
            state.recent.keep(batch);
            self.room.notify_all();
        }
        Some(item)
    }

    /// Waits until everything that was put in has gone on.
    pub(crate) fn wait_until_idle(&self) {
        drop(self.idle.wait_while(self.lock(), |state| state.is_busy()));
    }

    /// Counts what was not taken since this was last done.
    fn count_overflowed(&self, admission: &mut Admission) {
        let overflowed = std::mem::take(&mut self.lock().overflowed);
        for (container, events) in overflowed {
            admission.overflowed(container, events);
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
        self.room.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// The stage's thread, seen from outside.
pub(super) struct Stage {
    queue: Arc<StageQueue>,
    admission: Arc<Mutex<Admission>>,
    /// Disconnected when the thread has ended.
    running: Mutex<Receiver<()>>,
}

impl Stage {
    /// Starts the thread, with these filters behind that queue.
    pub(super) fn spawn(
        filters: Vec<Filter>,
        queue: StageQueue,
        dedup_capacity: NonZeroUsize,
        routes: Arc<Routes>,
    ) -> Result<Stage, LoadError> {
        let queue = Arc::new(queue);
        let (alive, running) = mpsc::channel();
        let admission = Arc::new(Mutex::new(Admission::new(dedup_capacity)));
        let runner = Runner {
            filters,
            admission: Arc::clone(&admission),
            routes,
            queue: Arc::clone(&queue),
        };
        thread::Builder::new()
            .name("filters".to_owned())
            .spawn(move || runner.run(alive))
            .map_err(|cause| LoadError::NoThread { plugin: "filters".to_owned(), cause })?;
        Ok(Stage { queue, admission, running: Mutex::new(running) })
    }

    pub(super) fn queue(&self) -> Arc<StageQueue> {
        Arc::clone(&self.queue)
    }

    /// Adds what became of events here so far to totals that are only shown.
    pub(super) fn correct(&self, tick: &mut Tick) {
        let mut admission = self.admission.lock().expect("no holder of this lock panics");
        self.queue.count_overflowed(&mut admission);
        admission.correct(tick);
    }

    /// Lets the stage finish what waits, until that time at most.
    pub(super) fn finish(&self, deadline: Instant) {
        self.queue.close();
        let patience = deadline.saturating_duration_since(Instant::now());
        let running = self.running.lock().expect("no holder of this lock panics");
        if running.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the filters did not finish in the time that there was");
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// The inside of the thread.
struct Runner {
    filters: Vec<Filter>,
    /// Locked for one batch or tick, and by whoever looks at the totals meanwhile.
    admission: Arc<Mutex<Admission>>,
    routes: Arc<Routes>,
    queue: Arc<StageQueue>,
}

impl Runner {
    /// `_alive` is dropped when the thread ends, which is how others see it.
    fn run(mut self, _alive: Sender<()>) {
        while let Some(item) = self.queue.pop() {
            match item {
                Item::Batch { batch, dropped } => {
                    self.filters.iter_mut().for_each(|filter| filter.missed(dropped));
                    self.pass_batch(&batch);
                }
                Item::Tick(tick) => self.pass_tick(&tick),
                Item::ForgetRepeats => self.admission().forget_repeats(),
                Item::Order(order) => order(&mut self.filters),
            }
        }
        self.filters.iter_mut().for_each(Filter::end);
    }

    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().expect("no holder of this lock panics")
    }

    fn pass_batch(&mut self, batch: &Arc<Batch>) {
        let mut judgements = vec![Judgement::Keep; batch.events.len()];
        let mut tags: Vec<(usize, u32)> = Vec::new();
        for filter in &mut self.filters {
            filter.judge(batch, &mut judgements, &mut tags);
        }
        let unjudged = judgements.iter().filter(|it| **it == Judgement::Unjudged).count();
        if unjudged > 0 {
            self.queue.lock().lost_since_asked += unjudged as u64;
        }
        // In the order of the filters for each event.
        tags.sort_by_key(|(index, _)| *index);
        let mut tags = tags.into_iter().peekable();
        let mut admitted = Batch::default();
        let mut admission = self.admission();
        for (index, (event, judgement)) in batch.events.iter().zip(judgements).enumerate() {
            let own_tags = std::iter::from_fn(|| tags.next_if(|(tagged, _)| *tagged == index));
            let own_tags: Vec<u32> = own_tags.map(|(_, tag)| tag).collect();
            if admission.admit(batch, event, judgement) {
                push_tagged(&mut admitted, batch, event, &own_tags);
            }
        }
        drop(admission);
        self.routes.batch(&Arc::new(admitted));
    }

    fn pass_tick(&mut self, tick: &Tick) {
        let mut tick = tick.clone();
        {
            let mut admission = self.admission();
            self.queue.count_overflowed(&mut admission);
            admission.add_to(&mut tick);
        }
        self.routes.tick(&Arc::new(tick));
        self.filters.iter_mut().for_each(Filter::keep_state);
    }
}

fn push_tagged(to: &mut Batch, from: &Batch, event: &Event, tags: &[u32]) {
    to.push_event_of(from, event).attributes_count += tags.len() as u32;
    let tag = |tag: &u32| Attribute { key: AttributeKey::Tag, value: u64::from(*tag) };
    to.attributes.extend(tags.iter().map(tag));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(events: usize) -> Arc<Batch> {
        let event = Event::plain(1, ContainerId(7));
        Arc::new(Batch { events: vec![event; events], ..Batch::default() })
    }

    /// What waits: the events of each batch, and how many were dropped before it.
    fn drain(queue: &StageQueue) -> Vec<(usize, u64)> {
        queue.close();
        let items = std::iter::from_fn(|| queue.pop());
        items
            .filter_map(|item| match item {
                Item::Batch { batch, dropped } => Some((batch.events.len(), dropped)),
                Item::Tick(_) | Item::ForgetRepeats | Item::Order(_) => None,
            })
            .collect()
    }

    #[test]
    fn full_queue_drops_the_newest_counts_it_by_container_and_tells_the_next_batch() {
        let queue = StageQueue::new(5, false);
        for events in [3, 4, 3, 2, 1] {
            queue.push_batch(&batch(events));
        }
        assert_eq!(queue.take_lost(), 8);
        assert_eq!(queue.lock().overflowed[&ContainerId(7)], 8);
        assert_eq!(drain(&queue), [(3, 0), (2, 7)]);
        let queue = StageQueue::new(5, false);
        queue.push_batch(&batch(5));
        queue.push_batch(&batch(2));
        queue.pop();
        queue.push_batch(&batch(1));
        assert_eq!(drain(&queue), [(1, 2)]);
    }

    #[test]
    fn full_queue_that_blocks_drops_nothing() {
        let queue = StageQueue::new(5, true);
        thread::scope(|scope| {
            let handing_over = scope.spawn(|| (0..50).for_each(|_| queue.push_batch(&batch(3))));
            for _ in 0..50 {
                assert!(matches!(queue.pop(), Some(Item::Batch { dropped: 0, .. })));
            }
            handing_over.join().unwrap();
            queue.push_batch(&batch(4));
            let waiting = scope.spawn(|| queue.push_batch(&batch(2)));
            queue.close();
            waiting.join().unwrap();
        });
        assert!(queue.lock().overflowed.values().all(|events| *events == 2));
        assert_eq!(drain(&queue), [(4, 0)]);
    }
}

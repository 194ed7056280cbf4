//! A worker: the thread of one plugin that takes what happens from a queue of its own.
//!
//! Reporters and explainers have one. While a lost instance is not replaced yet, the queue fills and
//! drops; a plugin in quarantine gets nothing.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use super::collected::Collected;
use super::instance::{Answers, Loss, Parts};
use super::load::LoadError;
use super::lower::{Lowered, with_tick};
use super::queue::{Item, Queue, Terms};
use super::status::{Board, PluginState, PluginStatus};
use super::subscription::Subscription;
use super::supervisor::{Quarantined, RestartPolicy, Supervisor};
use crate::event::{Batch, Tick, TickCause, UnixNanos};

/// The thread of one plugin, seen from outside.
pub(super) struct Worker {
    board: Arc<Board>,
    queue: Arc<Queue>,
    first_start: Mutex<Receiver<Result<(), LoadError>>>,
    /// Disconnected when the thread has ended.
    running: Mutex<Receiver<()>>,
}

impl Worker {
    /// Starts the thread, which starts the first instance.
    pub(super) fn spawn(
        parts: Parts,
        terms: Terms,
        policy: RestartPolicy,
    ) -> Result<Worker, LoadError> {
        Worker::of(Supervisor::new(parts, policy), terms)
    }

    fn of(supervisor: Supervisor, terms: Terms) -> Result<Worker, LoadError> {
        let board = Arc::clone(&supervisor.parts.board);
        let subscription = Arc::clone(&terms.subscription);
        let queue = Arc::new(Queue::new(terms));
        let (first_start_sender, first_start) = mpsc::channel();
        let (alive, running) = mpsc::channel();
        let runner = Runner {
            supervisor,
            queue: Arc::clone(&queue),
            beside: None,
            subscription,
            unsaved: Unsaved::default(),
            untold: 0,
            lowered: Lowered::default(),
        };
        thread::Builder::new()
            .name(format!("plugin {}", board.name()))
            .spawn(move || runner.run(&first_start_sender, alive))
            .map_err(|cause| LoadError::NoThread { plugin: board.name().to_owned(), cause })?;
        Ok(Worker {
            board,
            queue,
            first_start: Mutex::new(first_start),
            running: Mutex::new(running),
        })
    }

    /// Waits until the first instance has started, or refused to.
    pub(super) fn wait_for_first_start(&self) -> Result<(), LoadError> {
        let first_start = self.first_start.lock().expect("no holder of this lock panics");
        // A thread that ended without a word has said why in the status.
        first_start.recv().unwrap_or(Ok(()))
    }

    pub(super) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }

    pub(super) fn status(&self) -> PluginStatus {
        self.board.read(self.queue.depth())
    }

    /// Lets the plugin finish what waits for it, and nothing more.
    pub(super) fn finish(&self) {
        self.queue.close();
    }

    /// Waits until the thread has ended, or leaves it behind at that time.
    pub(super) fn join(&self, deadline: Instant) -> PluginStatus {
        let patience = deadline.saturating_duration_since(Instant::now());
        let running = self.running.lock().expect("no holder of this lock panics");
        if running.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            let reason = "it did not finish in the time that there was".to_owned();
            tracing::warn!(plugin = self.board.name(), "{reason}");
            self.queue.abandon();
            self.board.is(PluginState::Stopped { reason });
        }
        self.status()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The thread ends with its current call, which its limit ends.
        self.queue.abandon();
    }
}

/// Another version of a plugin.
pub(super) struct Next {
    pub(super) parts: Parts,
    pub(super) terms: Terms,
}

/// What an instance was handed since its state was last kept: what goes away with it.
#[derive(Clone, Copy, Debug, Default)]
struct Unsaved {
    events: u64,
    /// Dropped events that it was told of.
    told: u64,
}

/// The inside of the thread.
pub(super) struct Runner {
    supervisor: Supervisor,
    queue: Arc<Queue>,
    /// The queue of a version that runs beside this one.
    beside: Option<Arc<Queue>>,
    subscription: Arc<Subscription>,
    unsaved: Unsaved,
    /// Lost with instances or dropped, and to be told to the next instance.
    untold: u64,
    lowered: Lowered,
}

impl Runner {
    /// `_alive` is dropped when the thread ends, which is how others see it.
    fn run(mut self, first_start: &Sender<Result<(), LoadError>>, _alive: Sender<()>) {
        if let Err(error) = self.supervisor.start_first() {
            return self.give_up(first_start, error);
        }
        let _ = first_start.send(Ok(()));
        if self.supervisor.is_quarantined() {
            self.queue.refuse();
        }
        while let Some(item) = self.queue.pop() {
            if self.take(item) == Err(Quarantined) {
                self.queue.refuse();
            }
        }
        if !self.supervisor.is_quarantined() {
            let reason = "it finished what waited for it".to_owned();
            self.board().is(PluginState::Stopped { reason });
        }
    }

    fn board(&self) -> &Arc<Board> {
        &self.supervisor.parts.board
    }

    /// Ends the thread of a plugin that never started.
    fn give_up(self, first_start: &Sender<Result<(), LoadError>>, error: LoadError) {
        self.board().is(PluginState::Stopped { reason: "it does not start".to_owned() });
        self.queue.abandon();
        // Nobody listens where the daemon gave up already.
        let _ = first_start.send(Err(error));
    }

    fn take(&mut self, item: Item) -> Result<(), Quarantined> {
        if let Some(beside) = &self.beside {
            beside.push_copy(&item);
        }
        match item {
            Item::Batch { batch, dropped, .. } => {
                let narrow = self.subscription.narrowed(&batch);
                self.deliver_batch(narrow.as_ref().unwrap_or(&batch), dropped)?;
            }
            Item::Dropped(dropped) => self.deliver_batch(&Batch::default(), dropped)?,
            Item::Tick(tick) => {
                let narrow = self.subscription.narrowed_tick(&tick);
                self.deliver_tick(narrow.as_ref().unwrap_or(&tick))?;
            }
            Item::Order(order) => order(self),
        }
        Ok(())
    }

    /// Hands over a batch. One that an instance was lost in is not tried again: it may be why.
    fn deliver_batch(&mut self, batch: &Batch, dropped: u64) -> Result<(), Quarantined> {
        self.untold += dropped;
        self.ensure_instance()?;
        match self.hand_over_batch(batch) {
            Ok(()) => Ok(()),
            Err(loss) => self.lose(&loss),
        }
    }

    /// Hands over a tick: a second time where an instance was lost in the first.
    fn deliver_tick(&mut self, tick: &Tick) -> Result<(), Quarantined> {
        for _ in 0..2 {
            self.ensure_instance()?;
            let told =
                if self.untold > 0 { self.hand_over_batch(&Batch::default()) } else { Ok(()) };
            match told.and_then(|()| self.hand_over_tick(tick)) {
                Ok(()) => break,
                Err(loss) => self.lose(&loss)?,
            }
        }
        Ok(())
    }

    /// Makes sure that there is an instance. Waits for the end of a pause, and follows orders
    /// meanwhile; a queue that is being closed cuts it short, so that the last tick still finds a
    /// plugin.
    fn ensure_instance(&mut self) -> Result<(), Quarantined> {
        while self.supervisor.instance().is_none() {
            self.queue.wait_until(self.supervisor.not_before());
            if let Some(order) = self.queue.take_order() {
                order(self);
            } else if let Err(loss) = self.supervisor.start() {
                self.lose(&loss)?;
            }
        }
        Ok(())
    }

    fn hand_over_batch(&mut self, batch: &Batch) -> Result<(), Loss> {
        let Some(instance) = self.supervisor.instance() else {
            return Ok(());
        };
        let events = batch.events.len() as u64;
        let dropped = std::mem::take(&mut self.untold);
        // Counted before the call, so that a loss in it takes them along.
        self.unsaved.events += events;
        self.unsaved.told += dropped;
        let batch = self.lowered.batch(batch, dropped);
        let result = instance.call(|store, answers| match answers {
            Answers::Reporter { on_batch, .. } => on_batch.call(store, batch),
            // Only reporters are routed to.
            Answers::Filter { .. } | Answers::Explainer(_) => Ok(Ok(())),
        })?;
        self.settle(result, "on-batch");
        self.board().events.add(events);
        Ok(())
    }

    fn hand_over_tick(&mut self, tick: &Tick) -> Result<(), Loss> {
        let Some(instance) = self.supervisor.instance() else {
            return Ok(());
        };
        let result = with_tick(tick, |tick| {
            instance.call(|store, answers| match answers {
                Answers::Reporter { guest, .. } => guest.call_on_tick(store, tick),
                Answers::Filter { .. } | Answers::Explainer(_) => Ok(Ok(())),
            })
        })?;
        self.settle(result, "on-tick");
        // What it was handed is in its documents now, or in what it saves.
        self.supervisor.save()?;
        self.unsaved = Unsaved::default();
        Ok(())
    }

    /// Has another version run beside this one: it goes on from where this one stands, and is handed what this
    /// one takes. What this one makes is kept in `collected`.
    pub(super) fn begin_beside(
        &mut self,
        parts: Parts,
        terms: Terms,
        policy: RestartPolicy,
        collected: Arc<Collected>,
    ) -> Result<Worker, String> {
        if self.beside.is_some() {
            return Err("another version runs beside it already".to_owned());
        }
        let takes_state = parts.loaded.exports.state.is_some();
        if let Err(loss) = self.settle_before_switch(takes_state) {
            // The other one starts without what this one knew.
            let _ = self.lose(&loss);
        }
        let saved = if takes_state { self.supervisor.saved() } else { None };
        let supervisor = Supervisor::beside(parts, policy, saved);
        let worker = Worker::of(supervisor, terms).map_err(|error| error.to_string())?;
        self.supervisor.parts.grants.collect_into(Some(collected));
        self.beside = Some(worker.queue());
        Ok(worker)
    }

    /// Ends that: both are handed the totals once more, so that both make their documents at the same moment.
    /// Whether it is the queue of the version that runs beside this one.
    pub(super) fn end_beside(&mut self, queue: &Arc<Queue>) -> bool {
        let Some(beside) = self.beside.take_if(|beside| Arc::ptr_eq(beside, queue)) else {
            return false;
        };
        let tick = Tick { cause: TickCause::Request, ..self.last_totals() };
        beside.push_tick(&Arc::new(tick.clone()));
        if self.deliver_tick(&tick) == Err(Quarantined) {
            self.queue.refuse();
        }
        self.supervisor.parts.grants.collect_into(None);
        true
    }

    /// Puts another version in the place of the one that runs, between two batches. On failure that
    /// one goes on.
    pub(super) fn switch(&mut self, next: Next) -> Result<(), String> {
        let settled = self.settle_before_switch(next.parts.loaded.exports.state.is_some());
        if let Err(loss) = settled {
            // The next one starts without what this one knew, and is told so.
            let _ = self.lose(&loss);
        }
        let Next { parts, terms } = next;
        if let Err(loss) = self.supervisor.switch(parts) {
            if self.supervisor.is_quarantined() {
                self.queue.refuse();
            }
            return Err(loss.sentence());
        }
        self.count_unsaved_as_lost();
        // There is nothing to compare with any more.
        if let Some(beside) = self.beside.take() {
            beside.close();
        }
        self.subscription = Arc::clone(&terms.subscription);
        self.queue.on_terms(terms);
        self.queue.accept();
        Ok(())
    }

    /// Has the instance that runs put what it knows where the next one finds it: into its state if
    /// both know how, else into its documents.
    fn settle_before_switch(&mut self, takes_state: bool) -> Result<(), Loss> {
        let Some(instance) = self.supervisor.instance() else {
            return Ok(());
        };
        if instance.has_state() && takes_state {
            if self.supervisor.save()? {
                self.unsaved = Unsaved::default();
            }
        } else if self.unsaved.events + self.untold > 0 {
            // Its totals are those of the tick before, until the next one.
            let tick = self.last_totals();
            self.hand_over_tick(&Tick { cause: TickCause::Request, ..tick })?;
        }
        Ok(())
    }

    /// The totals that the plugin was handed last. Before its first tick there are none, as of its newest
    /// event.
    fn last_totals(&self) -> Tick {
        let recent = self.queue.recent();
        if let Some(tick) = &recent.tick {
            return self.subscription.narrowed_tick(tick).unwrap_or_else(|| Tick::clone(tick));
        }
        let newest = recent.batches.iter().flat_map(|batch| &batch.events).map(|event| event.time);
        Tick {
            time: newest.max().unwrap_or(UnixNanos(0)),
            cause: TickCause::Request,
            containers: Vec::new(),
            counters: Vec::new(),
        }
    }

    /// Counts a call that ended without a loss.
    fn settle(&self, result: Result<(), String>, call: &str) {
        match result {
            Ok(()) => self.board().calls.add(1),
            Err(sentence) => self.supervisor.guest_error(call, &sentence),
        }
    }

    /// Drops the instance with what it was handed.
    fn lose(&mut self, loss: &Loss) -> Result<(), Quarantined> {
        let lost_events = self.count_unsaved_as_lost();
        self.supervisor.lose(loss, lost_events)
    }

    fn count_unsaved_as_lost(&mut self) -> u64 {
        let lost = std::mem::take(&mut self.unsaved);
        self.untold += lost.events + lost.told;
        self.queue.lost_with_instance(lost.events);
        self.board().lost_with_instance.add(lost.events);
        lost.events
    }
}

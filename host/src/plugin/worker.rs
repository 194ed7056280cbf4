//! A worker: the thread of one reporter.
//!
//! Takes items from its queue and calls the guest. While a fresh instance waits for its start, the
//! queue fills and drops.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use super::bindings::exports::whodunit::plugin::reporter;
use super::bindings::whodunit::plugin::types;
use super::engine::Engine;
use super::imports::Grants;
use super::life::{Life, Loaded, Loss, Quarantined, RestartPolicy, Role};
use super::load::LoadError;
use super::queue::{Item, Queue};
use super::status::{Board, PluginState, PluginStatus};
use super::world::World;
use crate::config;
use crate::event::{self, Batch, Tick, TickCause};
use crate::sink::Outlet;

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
        engine: &Arc<Engine>,
        plugin: &config::Plugin,
        loaded: Loaded<reporter::GuestIndices>,
        world: Arc<World>,
        outlet: Outlet,
        policy: RestartPolicy,
    ) -> Result<Worker, LoadError> {
        let role = reporter::GuestIndices::NAME;
        let board = Arc::new(Board::new(plugin.name.clone(), loaded.source_name.clone(), role));
        let queue = Arc::new(Queue::new(plugin.limits.queue_events));
        let (first_start_sender, first_start) = mpsc::channel();
        let (alive, running) = mpsc::channel();
        let grants = Arc::new(Grants::new(plugin, world, outlet, Arc::clone(&board)));
        let limits = plugin.limits.clone();
        let life =
            Life::new(Arc::clone(engine), loaded, limits, grants, Arc::clone(&board), policy);
        let runner = Runner {
            life,
            queue: Arc::clone(&queue),
            since_tick: SinceTick::default(),
            untold: 0,
            events: Vec::new(),
            attributes: Vec::new(),
        };
        thread::Builder::new()
            .name(format!("plugin {}", plugin.name))
            .spawn(move || runner.run(&first_start_sender, alive))
            .map_err(|cause| LoadError::NoThread { plugin: plugin.name.clone(), cause })?;
        Ok(Worker {
            board,
            queue,
            first_start: Mutex::new(first_start),
            running: Mutex::new(running),
        })
    }

    /// Waits until the first instance has started, or refused to.
    pub(super) fn wait_for_first_start(&mut self) -> Result<(), LoadError> {
        let first_start = self.first_start.get_mut().expect("no holder of this lock panics");
        // A thread that ended without a word has said why in the status.
        first_start.recv().unwrap_or(Ok(()))
    }

    pub(super) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }

    pub(super) fn status(&self) -> PluginStatus {
        self.board.read(self.queue.dropped())
    }

    /// Lets the plugin finish what waits for it, and nothing more.
    pub(super) fn finish(&self) {
        self.queue.close();
    }

    /// Waits until the thread has ended, or leaves it behind at that time.
    pub(super) fn join(mut self, deadline: Instant) -> PluginStatus {
        let patience = deadline.saturating_duration_since(Instant::now());
        let running = self.running.get_mut().expect("no holder of this lock panics");
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

/// What an instance was handed since its last tick: what goes away with it.
#[derive(Clone, Copy, Debug, Default)]
struct SinceTick {
    events: u64,
    /// Dropped events that it was told of.
    told: u64,
}

/// The inside of the thread.
struct Runner {
    life: Life<reporter::GuestIndices>,
    queue: Arc<Queue>,
    since_tick: SinceTick,
    /// Lost with instances, and to be told to the next one.
    untold: u64,
    /// The batch in the contract's shape; kept for their memory.
    events: Vec<types::Event>,
    attributes: Vec<types::Attribute>,
}

impl Runner {
    /// `_alive` is dropped when the thread ends, which is how others see it.
    fn run(mut self, first_start: &Sender<Result<(), LoadError>>, _alive: Sender<()>) {
        let started = match self.life.start() {
            Err(loss) => match LoadError::of_first_start(&self.life, &loss) {
                Some(error) => return self.give_up(first_start, error),
                None => self.lose(&loss),
            },
            Ok(()) => Ok(()),
        };
        let _ = first_start.send(Ok(()));
        let outcome = started.and_then(|()| self.work());
        match outcome {
            Ok(()) => {
                let reason = "it finished what waited for it".to_owned();
                self.life.board.is(PluginState::Stopped { reason });
            }
            Err(Quarantined) => self.queue.abandon(),
        }
    }

    /// Ends the thread of a plugin that never started.
    fn give_up(self, first_start: &Sender<Result<(), LoadError>>, error: LoadError) {
        self.life.board.is(PluginState::Stopped { reason: "it does not start".to_owned() });
        self.queue.abandon();
        // Nobody listens where the daemon gave up already.
        let _ = first_start.send(Err(error));
    }

    fn work(&mut self) -> Result<(), Quarantined> {
        while let Some(item) = self.queue.pop() {
            match item {
                Item::Batch { batch, dropped } => self.deliver_batch(&batch, dropped)?,
                Item::Dropped(dropped) => self.deliver_batch(&Batch::default(), dropped)?,
                Item::Tick(tick) => self.deliver_tick(&tick)?,
            }
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

    /// Makes sure that there is an instance. Waits for the end of a pause; a queue that is being
    /// closed cuts it short, so that the last tick still finds a plugin.
    fn ensure_instance(&mut self) -> Result<(), Quarantined> {
        let queue = &self.queue;
        self.life.ensure(|time| queue.wait_until(time))
    }

    fn hand_over_batch(&mut self, batch: &Batch) -> Result<(), Loss> {
        let events = batch.events.len() as u64;
        batch.events.last().inspect(|event| self.life.grants().item_is_of(event.time));
        let dropped = std::mem::take(&mut self.untold);
        // Counted before the call, so that a loss in it takes them along.
        self.since_tick.events += events;
        self.since_tick.told += dropped;
        self.events.clear();
        self.events.extend(batch.events.iter().map(event_of));
        self.attributes.clear();
        self.attributes.extend(batch.attributes.iter().map(attribute_of));
        let batch = reporter::Batch {
            events: &self.events,
            attributes: &self.attributes,
            text: &batch.text,
            dropped,
        };
        self.life.call("on-batch", |guest, store| guest.call_on_batch(store, batch))?;
        self.life.board.events.add(events);
        Ok(())
    }

    fn hand_over_tick(&mut self, tick: &Tick) -> Result<(), Loss> {
        self.life.grants().item_is_of(tick.time);
        let containers: Vec<Vec<_>> =
            tick.containers.iter().map(|totals| counters_of(&totals.counters)).collect();
        let containers: Vec<_> = tick
            .containers
            .iter()
            .zip(&containers)
            .map(|(totals, counters)| reporter::ContainerTotals {
                container: totals.container.0,
                watched_since: totals.watched_since.0,
                from_birth: totals.from_birth,
                first_exec_seen: totals.first_exec_seen,
                last_event: totals.last_event.map(|time| time.0),
                ended: totals.ended.map(|time| time.0),
                counters,
            })
            .collect();
        let tick = reporter::Tick {
            time: tick.time.0,
            cause: match tick.cause {
                TickCause::Interval => reporter::Cause::Interval,
                TickCause::Stop => reporter::Cause::Stop,
                TickCause::Request => reporter::Cause::Request,
            },
            containers: &containers,
            counters: &counters_of(&tick.counters),
        };
        self.life.call("on-tick", |guest, store| guest.call_on_tick(store, tick))?;
        self.since_tick = SinceTick::default();
        Ok(())
    }

    /// Counts what went with an instance, and decides what comes.
    fn lose(&mut self, loss: &Loss) -> Result<(), Quarantined> {
        let lost = std::mem::take(&mut self.since_tick);
        self.untold += lost.events + lost.told;
        self.queue.lost_with_instance(lost.events);
        self.life.lose(loss, lost.events)
    }
}

fn event_of(event: &event::Event) -> types::Event {
    types::Event {
        sequence: event.sequence,
        time: event.time.0,
        container: event.container.0,
        process: event.process.map_or(0, |process| process.0),
        kind: event.kind.code(),
        flags: event.flags.0,
        outcome: event.outcome,
        path: span_of(event.path),
        requested: span_of(event.requested),
        attributes_first: event.attributes_first,
        attributes_count: event.attributes_count,
    }
}

fn span_of(span: event::Span) -> types::Span {
    types::Span { offset: span.offset, length: span.length }
}

fn attribute_of(attribute: &event::Attribute) -> types::Attribute {
    types::Attribute { key: attribute.key.code(), value: attribute.value }
}

fn counters_of(counters: &[event::Counter]) -> Vec<types::Counter<'static>> {
    let counter =
        |counter: &event::Counter| types::Counter { name: counter.name, value: counter.value };
    counters.iter().map(counter).collect()
}

//! A worker: the thread of one plugin, with the one instance that it runs.
//!
//! Takes items from its queue and calls the guest. An instance that is lost is dropped, never entered
//! again, and replaced by a fresh one after a pause that grows; while the worker waits, its queue
//! fills and drops. After too many losses in a row the plugin is quarantined.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use wasmtime::{Store, Trap};

use super::bindings::ReporterPlugin;
use super::bindings::exports::whodunit::plugin::{lifecycle, reporter};
use super::bindings::whodunit::plugin::types;
use super::engine::{Engine, chain};
use super::imports::{Grants, Guest};
use super::load::{LoadError, Loaded};
use super::queue::{Item, Queue};
use super::status::{Board, PluginState, PluginStatus};
use super::world::World;
use crate::config::{self, Limits};
use crate::event::{self, Batch, Tick, TickCause};
use crate::sink::Outlet;

/// Starting may take this many times as long as a call: it may read a large document.
const START_FACTOR: u32 = 10;

/// What a call may hand over beside a document.
const HANDOVER_SLACK_BYTES: usize = 1 << 20;

/// Resources of its own that a guest may hold at once. The contract has none.
const MAX_HANDLES: usize = 1024;

/// How lost instances are replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct RestartPolicy {
    /// The pause after the first loss. It doubles with every further one.
    pub(super) first_pause: Duration,
    /// The longest pause.
    pub(super) longest_pause: Duration,
    /// An instance that lived this long ends a row of losses.
    pub(super) good_life: Duration,
    /// So many losses in a row are the end.
    pub(super) budget: u32,
}

impl Default for RestartPolicy {
    fn default() -> RestartPolicy {
        RestartPolicy {
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(30),
            good_life: Duration::from_secs(60),
            budget: 10,
        }
    }
}

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
        loaded: Loaded,
        world: Arc<World>,
        outlet: Outlet,
        policy: RestartPolicy,
    ) -> Result<Worker, LoadError> {
        let board = Arc::new(Board::new(plugin.name.clone(), loaded.source_name.clone()));
        let queue = Arc::new(Queue::new(plugin.limits.queue_events));
        let (first_start_sender, first_start) = mpsc::channel();
        let (alive, running) = mpsc::channel();
        let runner = Runner {
            engine: Arc::clone(engine),
            loaded,
            limits: plugin.limits.clone(),
            grants: Arc::new(Grants::new(plugin, world, outlet, Arc::clone(&board))),
            board: Arc::clone(&board),
            queue: Arc::clone(&queue),
            policy,
            instance: None,
            instances: 0,
            lost_because: None,
            losses_in_a_row: 0,
            not_before: Instant::now(),
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

/// How an instance was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Loss {
    Trap(String),
    Timeout(Duration),
    Memory(usize),
    Oversized(usize),
    /// It refused to start.
    Refused(String),
    /// It is not what the names of its exports promise.
    Invalid(String),
}

impl Loss {
    fn sentence(&self) -> String {
        match self {
            Loss::Trap(trap) => format!("it trapped ({trap})"),
            Loss::Timeout(limit) => format!("a call took longer than its limit of {limit:?}"),
            Loss::Memory(limit) => format!("it ran out of its memory limit of {limit} bytes"),
            Loss::Oversized(limit) => {
                format!("it handed over more than its limit of {limit} bytes in one call")
            }
            Loss::Refused(sentence) => format!("it does not start: {sentence}"),
            Loss::Invalid(cause) => format!("it is not a valid reporter ({cause})"),
        }
    }
}

/// What an instance was handed since its last tick: what goes away with it.
#[derive(Clone, Copy, Debug, Default)]
struct SinceTick {
    events: u64,
    /// Dropped events that it was told of.
    told: u64,
}

/// An instance, from its start to its loss.
struct Instance {
    store: Store<Guest>,
    plugin: ReporterPlugin,
    started: Instant,
}

/// The inside of the thread.
struct Runner {
    engine: Arc<Engine>,
    loaded: Loaded,
    limits: Limits,
    grants: Arc<Grants>,
    board: Arc<Board>,
    queue: Arc<Queue>,
    policy: RestartPolicy,
    instance: Option<Instance>,
    instances: u32,
    /// Why the instance before was lost.
    lost_because: Option<String>,
    losses_in_a_row: u32,
    /// When the next instance may start.
    not_before: Instant,
    since_tick: SinceTick,
    /// Lost with instances, and to be told to the next one.
    untold: u64,
    /// The batch in the contract's shape; kept for their memory.
    events: Vec<types::Event>,
    attributes: Vec<types::Attribute>,
}

/// The plugin gets no more instances.
struct Quarantined;

impl Runner {
    /// `_alive` is dropped when the thread ends, which is how others see it.
    fn run(mut self, first_start: &Sender<Result<(), LoadError>>, _alive: Sender<()>) {
        let plugin = self.board.name().to_owned();
        let started = match self.start() {
            Err(Loss::Refused(sentence)) => {
                return self.give_up(first_start, LoadError::Refused { plugin, sentence });
            }
            Err(Loss::Invalid(cause)) => {
                let source_name = self.loaded.source_name.clone();
                let error = LoadError::Invalid { plugin, source_name, cause };
                return self.give_up(first_start, error);
            }
            Err(loss) => self.lose(&loss),
            Ok(()) => Ok(()),
        };
        let _ = first_start.send(Ok(()));
        let outcome = started.and_then(|()| self.work());
        match outcome {
            Ok(()) => {
                let reason = "it finished what waited for it".to_owned();
                self.board.is(PluginState::Stopped { reason });
            }
            Err(Quarantined) => self.queue.abandon(),
        }
    }

    /// Ends the thread of a plugin that never started.
    fn give_up(self, first_start: &Sender<Result<(), LoadError>>, error: LoadError) {
        self.board.is(PluginState::Stopped { reason: "it does not start".to_owned() });
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
        while self.instance.is_none() {
            self.queue.wait_until(self.not_before);
            if let Err(loss) = self.start() {
                self.lose(&loss)?;
            }
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(), Loss> {
        self.instances += 1;
        self.board.instance_is(self.instances);
        let mut store = Store::new(self.engine.wasmtime(), Guest::new(Arc::clone(&self.grants)));
        store.limiter(|guest| &mut guest.memory);
        store.set_hostcall_fuel(self.limits.output_bytes.saturating_add(HANDOVER_SLACK_BYTES));
        store.set_max_component_handles(MAX_HANDLES);
        let limit = self.limits.call.saturating_mul(START_FACTOR);
        store.set_epoch_deadline(Engine::ticks(limit));
        let entered = self.engine.enter();
        let lost = |error, store: &Store<Guest>| loss_of(&error, store, &self.limits, limit);
        let plugin = match self.loaded.pre.instantiate(&mut store) {
            Ok(plugin) => plugin,
            Err(error) => {
                // Where no code of the guest has failed, its types are not those of the contract.
                let has_trapped = error.downcast_ref::<Trap>().is_some();
                return Err(match lost(error, &store) {
                    Loss::Trap(cause) if !has_trapped => Loss::Invalid(cause),
                    loss => loss,
                });
            }
        };
        let guest = plugin.whodunit_plugin_lifecycle();
        match guest.call_describe(&mut store) {
            Ok(description) => self.board.describes_itself(description.name, description.version),
            Err(error) => return Err(lost(error, &store)),
        }
        let context = lifecycle::Context {
            name: self.board.name(),
            instance: self.instances,
            cause: match &self.lost_because {
                None => lifecycle::Cause::Start,
                Some(why) => lifecycle::Cause::Replaced(why),
            },
        };
        match guest.call_start(&mut store, context) {
            Ok(Ok(())) => {}
            Ok(Err(sentence)) => return Err(Loss::Refused(sentence)),
            Err(error) => return Err(lost(error, &store)),
        }
        drop(entered);
        self.board.is(PluginState::Running);
        self.board.calls.add(2);
        tracing::debug!(plugin = self.board.name(), instance = self.instances, "started");
        self.instance = Some(Instance { store, plugin, started: Instant::now() });
        Ok(())
    }

    fn hand_over_batch(&mut self, batch: &Batch) -> Result<(), Loss> {
        let events = batch.events.len() as u64;
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
        let Some(instance) = &mut self.instance else {
            return Ok(());
        };
        let store = &mut instance.store;
        store.set_epoch_deadline(Engine::ticks(self.limits.call));
        let entered = self.engine.enter();
        let result = instance.plugin.whodunit_plugin_reporter().call_on_batch(&mut *store, batch);
        drop(entered);
        self.settle(result, "on-batch")?;
        self.board.events.add(events);
        Ok(())
    }

    fn hand_over_tick(&mut self, tick: &Tick) -> Result<(), Loss> {
        let Some(instance) = &mut self.instance else {
            return Ok(());
        };
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
        let store = &mut instance.store;
        store.set_epoch_deadline(Engine::ticks(self.limits.call));
        let entered = self.engine.enter();
        let result = instance.plugin.whodunit_plugin_reporter().call_on_tick(&mut *store, tick);
        drop(entered);
        self.settle(result, "on-tick")?;
        self.since_tick = SinceTick::default();
        Ok(())
    }

    /// Judges how a call ended.
    fn settle(
        &mut self,
        result: wasmtime::Result<Result<(), String>>,
        call: &str,
    ) -> Result<(), Loss> {
        match result {
            Ok(Ok(())) => self.board.calls.add(1),
            Ok(Err(sentence)) => {
                let sentence = format!("`{call}` failed: {sentence}");
                tracing::warn!(plugin = self.board.name(), "{sentence}");
                self.board.failed(&sentence);
                self.board.guest_error.add(1);
            }
            Err(error) => {
                let Some(instance) = &self.instance else {
                    return Ok(());
                };
                return Err(loss_of(&error, &instance.store, &self.limits, self.limits.call));
            }
        }
        Ok(())
    }

    /// Drops the instance, counts what went with it, and decides what comes.
    fn lose(&mut self, loss: &Loss) -> Result<(), Quarantined> {
        let lost = std::mem::take(&mut self.since_tick);
        self.untold += lost.events + lost.told;
        self.board.lost_with_instance.add(lost.events);
        self.queue.lost_with_instance(lost.events);
        let lived = self.instance.take().map(|instance| instance.started.elapsed());
        if lived.is_some_and(|lived| lived >= self.policy.good_life) {
            self.losses_in_a_row = 0;
        }
        self.losses_in_a_row += 1;
        let sentence = loss.sentence();
        // The reason first: whoever sees the count finds it.
        self.board.failed(&sentence);
        match loss {
            Loss::Trap(_) => self.board.trap.add(1),
            Loss::Timeout(_) => self.board.timeout.add(1),
            Loss::Memory(_) => self.board.memory.add(1),
            Loss::Oversized(_) => self.board.oversized.add(1),
            Loss::Refused(_) | Loss::Invalid(_) => self.board.guest_error.add(1),
        }
        self.lost_because = Some(sentence.clone());
        let plugin = self.board.name();
        if self.losses_in_a_row >= self.policy.budget {
            let reason = format!(
                "it lost {} instances in a row, the last one because {sentence}",
                self.losses_in_a_row
            );
            tracing::error!(plugin, "quarantined until the daemon restarts: {reason}");
            self.board.is(PluginState::Quarantined { reason });
            return Err(Quarantined);
        }
        let doublings = self.losses_in_a_row.saturating_sub(1).min(20);
        let pause = self.policy.first_pause.saturating_mul(1 << doublings);
        let pause = pause.min(self.policy.longest_pause);
        self.not_before = Instant::now() + pause;
        tracing::error!(
            plugin,
            instance = self.instances,
            lost_events = lost.events,
            "an instance was lost: {sentence}; a fresh one starts in {pause:?}"
        );
        self.board.is(PluginState::BackingOff { reason: sentence });
        Ok(())
    }
}

/// What the engine's error means. An instance that it came from is never entered again.
fn loss_of(
    error: &wasmtime::Error,
    store: &Store<Guest>,
    limits: &Limits,
    time_limit: Duration,
) -> Loss {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Loss::Timeout(time_limit),
        _ if store.data().memory.was_refused => Loss::Memory(limits.memory_bytes),
        Some(trap) => Loss::Trap(trap.to_string()),
        None if is_handover_limit(error) => Loss::Oversized(limits.output_bytes),
        None => Loss::Trap(chain(error)),
    }
}

/// Whether a call was ended because it handed over too much. The engine has no type for that error;
/// a test holds on to its words.
fn is_handover_limit(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| cause.to_string().contains("fuel allocated for hostcalls"))
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

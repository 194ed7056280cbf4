//! The plugin host: loads, checks and runs components. The only user of wasmtime.
//!
//! Each plugin has a worker thread and a bounded queue of its own. Takes batches and ticks through
//! [`Dispatcher`], gives documents to the sinks. A guest that traps, runs
//! on or grows without end costs its own instance and nothing else: capture never waits for a plugin,
//! and a trapped instance is never entered again.

mod allowance;
mod apply;
mod between;
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod bindings;
mod builtin;
mod collected;
mod compare;
mod engine;
mod explainers;
mod explanations;
mod filter;
mod imports;
mod inspect;
mod instance;
mod judgements;
mod layout;
mod load;
mod lower;
mod passport;
mod queue;
mod role;
mod second;
mod shadow;
mod stage;
mod status;
mod subscription;
mod supervisor;
mod swap;
mod wasi;
mod worker;
mod world;

#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{self, Overflow};
use crate::dispatch::{Dispatcher, Routes};
use crate::event::Tick;
use crate::sink::Outlet;
use engine::Engine;
use explainers::Explainers;
use filter::Filter;
use imports::{Delivery, Grants};
use instance::Parts;
use load::Loaded;
use queue::{Depth, Terms};
use stage::Stage;
use status::Board;
use subscription::Subscription;
use supervisor::{RestartPolicy, Supervisor};
use worker::Worker;

pub use apply::{Applied, ApplyError};
pub use builtin::names as builtin_names;
pub use collected::ComparedOutput;
pub use compare::Difference;
pub use engine::CacheDirError;
pub use explainers::{Deaths, Deliver};
pub use explanations::{ExplainedOtherwise, OtherExplanations};
pub use judgements::{JudgedEvent, OtherJudgement};
pub use load::LoadError;
pub use passport::{Passport, passport, plugin_role};
pub(crate) use queue::Queue;
pub use role::Role;
pub use second::Asked;
pub use shadow::{Compared, Promotion, ShadowError, Shadowed};
pub(crate) use stage::StageQueue;
pub use status::{CALL_TIME_BOUNDS_NS, CallTime, Faults, PluginState, PluginStatus, Swap};
pub use swap::{SwapError, SwapReport};
pub use world::{Clock, Probe, Surroundings, World};

/// Name and version of the contract that this daemon speaks.
pub const CONTRACT: &str = "whodunit:plugin@0.1.0";

/// The running plugins.
pub struct PluginHost {
    engine: Arc<Engine>,
    world: Arc<World>,
    outlet: Outlet,
    policy: RestartPolicy,
    dedup_capacity: NonZeroUsize,
    routes: Arc<Routes>,
    /// Held by whoever changes which plugins run: one at a time.
    changing: Mutex<()>,
    /// In the order of the TOML.
    running: Mutex<Vec<Running>>,
    /// There from the first filter on.
    stage: OnceLock<Stage>,
    /// There from the start on, also without an explainer: deaths pass through here.
    explainers: OnceLock<Explainers>,
}

/// A plugin that runs.
struct Running {
    config: config::Plugin,
    board: Arc<Board>,
    place: Place,
}

/// A plugin that is started and not in its place yet.
enum Unplaced {
    Filter(Box<Filter>),
    Explainer(Box<Supervisor>),
}

/// Where a plugin stands.
enum Place {
    /// Behind a queue of its own.
    Queue(Worker),
    /// In the chain of filters.
    Chain,
    /// Among the explainers, which share a queue of deaths.
    Desk,
}

impl PluginHost {
    /// Loads, checks and starts every plugin. `deliver` gets every death with its explanation.
    ///
    /// # Errors
    ///
    /// A sentence about the first plugin that is no plugin, or that refuses its configuration. One
    /// that merely dies in its start is no error: it is started again, later, as it would be at any
    /// other time.
    pub fn load(
        plugins: &[config::Plugin],
        files: &config::Files,
        cache_dir: &Path,
        world: World,
        outlet: Outlet,
        deliver: Deliver,
    ) -> Result<PluginHost, LoadError> {
        let policy = RestartPolicy::default();
        PluginHost::load_with(plugins, files, cache_dir, world, outlet, deliver, policy)
    }

    fn load_with(
        plugins: &[config::Plugin],
        files: &config::Files,
        cache_dir: &Path,
        world: World,
        outlet: Outlet,
        deliver: Deliver,
        policy: RestartPolicy,
    ) -> Result<PluginHost, LoadError> {
        let host = PluginHost {
            engine: Arc::new(Engine::new(cache_dir)?),
            world: Arc::new(world),
            outlet,
            policy,
            dedup_capacity: NonZeroUsize::new(files.dedup_capacity).unwrap_or(NonZeroUsize::MIN),
            routes: Arc::default(),
            changing: Mutex::default(),
            running: Mutex::default(),
            stage: OnceLock::new(),
            explainers: OnceLock::new(),
        };
        let loaded = plugins.iter().map(|plugin| host.read(plugin));
        let loaded: Vec<_> = loaded.collect::<Result<_, _>>()?;
        let (mut filters, mut explainers) = (Vec::new(), Vec::new());
        for (plugin, loaded) in plugins.iter().zip(loaded) {
            let (running, unplaced) = host.start(plugin, &Arc::new(loaded))?;
            match unplaced {
                Some(Unplaced::Filter(filter)) => filters.push(*filter),
                Some(Unplaced::Explainer(explainer)) => explainers.push(*explainer),
                None => {}
            }
            host.lock().push(running);
        }
        let explainers = Explainers::spawn(explainers, deliver)?;
        host.lock().iter().try_for_each(Running::wait_for_first_start)?;
        explainers.wait_for_first_start()?;
        // It is there once only.
        let _ = host.explainers.set(explainers);
        if !filters.is_empty() {
            host.chain(filters)?;
        }
        host.lead_to_queues();
        Ok(host)
    }

    /// Loads and checks every plugin without starting one.
    ///
    /// # Errors
    ///
    /// A sentence about the first plugin that is no plugin.
    pub fn check(plugins: &[config::Plugin], cache_dir: &Path) -> Result<(), LoadError> {
        let engine = Arc::new(Engine::new(cache_dir)?);
        plugins.iter().try_for_each(|plugin| load::load(&engine, plugin).map(drop))
    }

    /// A hand that gives batches and ticks to every plugin.
    pub fn dispatcher(&self) -> Dispatcher {
        Dispatcher::new(Arc::clone(&self.routes))
    }

    /// A hand that gives deaths to the explainers.
    ///
    /// # Panics
    ///
    /// Never: a host that was loaded has a thread for them.
    pub fn deaths(&self) -> Deaths {
        self.explainers.get().expect("a loaded host has a thread for deaths").deaths()
    }

    /// Totals as capture took them, with what became of events behind the filters so far. Capture counts what it handed to
    /// filters as admitted.
    pub fn behind_filters(&self, tick: &Tick) -> Tick {
        let mut tick = tick.clone();
        self.stage.get().inspect(|stage| stage.correct(&mut tick));
        tick
    }

    /// What became of each plugin so far, in the order of the TOML.
    pub fn status(&self) -> Vec<PluginStatus> {
        let chain = self.stage.get().map_or(0, |stage| stage.queue().waiting_events());
        let desk = self.explainers.get().map_or(0, |explainers| explainers.deaths().waiting());
        self.lock().iter().map(|running| running.status(chain, desk)).collect()
    }

    /// Lets every plugin finish what waits for it, for at most that long together, and ends them.
    pub fn stop(&self, at_most: Duration) -> Vec<PluginStatus> {
        let deadline = Instant::now() + at_most;
        // What the filters keep goes to the others.
        self.stage.get().inspect(|stage| stage.finish(deadline));
        self.explainers.get().inspect(|explainers| explainers.finish());
        let running = self.lock();
        running.iter().for_each(Running::finish);
        self.explainers.get().inspect(|explainers| explainers.join(deadline));
        running.iter().map(|running| running.join(deadline)).collect()
    }

    /// Reads, checks, compiles and links a plugin that may run in this host.
    fn read(&self, plugin: &config::Plugin) -> Result<Loaded, LoadError> {
        if plugin.overflow == Overflow::Block && self.world.clock.standing().is_none() {
            return Err(LoadError::Blocks { plugin: plugin.name.clone() });
        }
        load::load(&self.engine, plugin)
    }

    /// Starts a plugin, but for an explainer, which is started by its thread. One without a queue of its
    /// own is given back, to be put where it belongs.
    fn start(
        &self,
        config: &config::Plugin,
        loaded: &Arc<Loaded>,
    ) -> Result<(Running, Option<Unplaced>), LoadError> {
        let board = Arc::new(Board::new(config.name.clone(), loaded));
        let parts = self.parts(config, loaded, &board);
        let subscription = Subscription::new(config, loaded.role, &self.world.directory);
        let (place, unplaced) = match loaded.role {
            Role::Filter => {
                let filter = Filter::start(parts, subscription, config.on_failure, self.policy)?;
                (Place::Chain, Some(Unplaced::Filter(Box::new(filter))))
            }
            Role::Explainer => {
                let explainer = Box::new(Supervisor::new(parts, self.policy));
                (Place::Desk, Some(Unplaced::Explainer(explainer)))
            }
            Role::Reporter => {
                let terms = Terms::of(config, Arc::new(subscription));
                (Place::Queue(Worker::spawn(parts, terms, self.policy)?), None)
            }
        };
        Ok((Running { config: config.clone(), board, place }, unplaced))
    }

    /// What the instances of a plugin are made of.
    fn parts(&self, config: &config::Plugin, loaded: &Arc<Loaded>, board: &Arc<Board>) -> Parts {
        let delivery = Delivery::To(self.outlet.clone());
        let grants = Grants::new(config, Arc::clone(&self.world), delivery, Arc::clone(board));
        Parts {
            engine: Arc::clone(&self.engine),
            loaded: Arc::clone(loaded),
            limits: config.limits.clone(),
            grants: Arc::new(grants),
            board: Arc::clone(board),
        }
    }

    /// Starts the stage with these filters.
    fn chain(&self, filters: Vec<Filter>) -> Result<(), LoadError> {
        let running = self.lock();
        let chained = || running.iter().filter(|it| matches!(it.place, Place::Chain));
        let queue_events = chained().map(|it| it.config.limits.queue_events).max();
        let blocks = chained().any(|it| it.config.overflow == Overflow::Block);
        let queue = StageQueue::new(queue_events.unwrap_or_default(), blocks);
        drop(running);
        let routes = Arc::clone(&self.routes);
        let stage = Stage::spawn(filters, queue, self.dedup_capacity, routes)?;
        self.routes.lead_through(stage.queue());
        // There is none yet: only one thread changes plugins at a time.
        let _ = self.stage.set(stage);
        Ok(())
    }

    /// Leads batches and ticks to the queues of the plugins that run now.
    fn lead_to_queues(&self) {
        let queues = self.lock().iter().filter_map(Running::queue).collect();
        self.routes.lead_to(queues);
    }

    fn explainers(&self) -> Option<&Explainers> {
        self.explainers.get()
    }

    fn stage(&self) -> Option<&Stage> {
        self.stage.get()
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Running>> {
        self.running.lock().expect("no holder of this lock panics")
    }
}

impl Running {
    fn queue(&self) -> Option<Arc<Queue>> {
        match &self.place {
            Place::Queue(worker) => Some(worker.queue()),
            Place::Chain | Place::Desk => None,
        }
    }

    fn wait_for_first_start(&self) -> Result<(), LoadError> {
        match &self.place {
            Place::Queue(worker) => worker.wait_for_first_start(),
            Place::Chain | Place::Desk => Ok(()),
        }
    }

    /// With so many events that wait for the chain of filters, and so many deaths for the explainers.
    fn status(&self, chain: u64, desk: u64) -> PluginStatus {
        match &self.place {
            Place::Queue(worker) => worker.status(),
            Place::Chain => self.board.read(Depth { events: chain, dropped: 0 }),
            Place::Desk => self.board.read(Depth { events: desk, dropped: 0 }),
        }
    }

    fn finish(&self) {
        if let Place::Queue(worker) = &self.place {
            worker.finish();
        }
    }

    fn join(&self, deadline: Instant) -> PluginStatus {
        match &self.place {
            Place::Queue(worker) => worker.join(deadline),
            Place::Chain | Place::Desk => self.status(0, 0),
        }
    }
}

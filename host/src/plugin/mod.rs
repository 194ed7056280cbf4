//! The plugin host: loads, checks and runs components. The only user of wasmtime.
//!
//! Each plugin has a worker thread and a bounded queue of its own. Takes batches and ticks through
//! [`Dispatcher`], gives documents to the sinks. Explainers share one thread, and take deaths through [`Deaths`]. A guest that traps, runs
//! on or grows without end costs its own instance and nothing else: capture never waits for a plugin,
//! and a trapped instance is never entered again.

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod bindings;
mod builtin;
mod engine;
mod explainers;
mod imports;
mod inspect;
mod life;
mod load;
mod passport;
mod queue;
mod status;
mod worker;
mod world;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config;
use crate::dispatch::Dispatcher;
use crate::sink::Outlet;
use engine::Engine;
use explainers::Explainers;
use life::RestartPolicy;
use load::AnyLoaded;
use worker::Worker;

pub use builtin::names as builtin_names;
pub use engine::CacheDirError;
pub use explainers::{Deaths, Deliver};
pub use load::LoadError;
pub use passport::{Passport, passport, sha256_of};
pub(crate) use queue::Queue;
pub use status::{Faults, PluginState, PluginStatus};
pub use world::{Clock, Probe, Surroundings, World};

/// Name and version of the contract that this daemon speaks.
pub const CONTRACT: &str = "whodunit:plugin@0.1.0";

/// The running plugins.
pub struct PluginHost {
    /// In the order of the TOML, as its explainers.
    workers: Vec<Worker>,
    explainers: Explainers,
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
        cache_dir: &Path,
        world: World,
        outlet: &Outlet,
        deliver: Deliver,
    ) -> Result<PluginHost, LoadError> {
        PluginHost::load_with(plugins, cache_dir, world, outlet, deliver, RestartPolicy::default())
    }

    fn load_with(
        plugins: &[config::Plugin],
        cache_dir: &Path,
        world: World,
        outlet: &Outlet,
        deliver: Deliver,
        policy: RestartPolicy,
    ) -> Result<PluginHost, LoadError> {
        let engine = Arc::new(Engine::new(cache_dir)?);
        let world = Arc::new(world);
        let loaded = plugins.iter().map(|plugin| load::load(&engine, plugin));
        let loaded: Vec<_> = loaded.collect::<Result<_, _>>()?;
        let (mut workers, mut explainers) = (Vec::new(), Vec::new());
        for (plugin, loaded) in plugins.iter().zip(loaded) {
            match loaded {
                AnyLoaded::Reporter(loaded) => {
                    let (world, outlet) = (Arc::clone(&world), outlet.clone());
                    workers.push(Worker::spawn(&engine, plugin, loaded, world, outlet, policy)?);
                }
                AnyLoaded::Explainer(loaded) => explainers.push((plugin, loaded)),
            }
        }
        let outlet = || outlet.clone();
        let mut explainers =
            Explainers::spawn(&engine, explainers, &world, outlet, policy, deliver)?;
        for worker in &mut workers {
            worker.wait_for_first_start()?;
        }
        explainers.wait_for_first_start()?;
        Ok(PluginHost { workers, explainers })
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

    /// A hand that gives batches and ticks to every reporter.
    pub fn dispatcher(&self) -> Dispatcher {
        Dispatcher::new(self.workers.iter().map(Worker::queue).collect())
    }

    /// A hand that gives deaths to the explainers.
    pub fn deaths(&self) -> Deaths {
        self.explainers.deaths()
    }

    /// What became of each plugin so far: reporters, then explainers, both in the order of the TOML.
    pub fn status(&self) -> Vec<PluginStatus> {
        self.workers.iter().map(Worker::status).chain(self.explainers.status()).collect()
    }

    /// Lets every plugin finish what waits for it, for at most that long together, and ends them.
    pub fn stop(self, at_most: Duration) -> Vec<PluginStatus> {
        let deadline = Instant::now() + at_most;
        self.workers.iter().for_each(Worker::finish);
        self.explainers.finish();
        let mut ended: Vec<_> =
            self.workers.into_iter().map(|worker| worker.join(deadline)).collect();
        ended.extend(self.explainers.join(deadline));
        ended
    }
}

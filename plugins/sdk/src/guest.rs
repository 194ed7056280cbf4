//! The instance behind the exports: what `export_reporter!` expands to calls in here.

use std::cell::RefCell;
use std::thread::LocalKey;

use crate::bindings::exports::whodunit::plugin::{lifecycle, reporter};
use crate::{Batch, Reporter, Tick, config, imports};

pub use lifecycle::{Cause, Context};

/// Where `export_reporter!` keeps the one reporter of an instance.
pub type Instance<R> = LocalKey<RefCell<Option<R>>>;

/// Compiles for reporters only.
pub fn is_reporter<R: Reporter>() {}

/// Starts the reporter.
pub fn start<R: Reporter>(instance: &'static Instance<R>, context: Context) -> Result<(), String> {
    // A panic is a trap without words; this puts its words into the daemon's log.
    std::panic::set_hook(Box::new(|panic| {
        crate::log::write(crate::log::Level::Error, &panic.to_string())
    }));
    let reporter = started(&context)?;
    instance.set(Some(reporter));
    Ok(())
}

/// A reporter with its typed configuration.
pub(crate) fn started<R: Reporter>(context: &Context) -> Result<R, String> {
    R::start(context, config::parse(&imports::configuration())?)
}

/// Hands a batch to the reporter.
pub fn on_batch<R: Reporter>(
    instance: &'static Instance<R>,
    batch: reporter::Batch,
) -> Result<(), String> {
    with(instance, |reporter| {
        reporter.on_batch(&Batch::new(batch));
        Ok(())
    })
}

/// Hands a tick to the reporter.
pub fn on_tick<R: Reporter>(
    instance: &'static Instance<R>,
    tick: reporter::Tick,
) -> Result<(), String> {
    with(instance, |reporter| reporter.on_tick(&Tick::new(tick)))
}

fn with<R: Reporter>(
    instance: &'static Instance<R>,
    call: impl FnOnce(&mut R) -> Result<(), String>,
) -> Result<(), String> {
    instance.with_borrow_mut(|reporter| match reporter {
        Some(reporter) => call(reporter),
        None => Err("the plugin was called before it was started".to_owned()),
    })
}

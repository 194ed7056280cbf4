//! The instance behind the exports: what `export_reporter!` and its like expand to calls in here.

use std::cell::RefCell;
use std::thread::LocalKey;

use crate::bindings::explainer::exports::whodunit::plugin::explainer;
use crate::bindings::exports::whodunit::plugin::lifecycle;
use crate::bindings::filter::exports::whodunit::plugin::filter as raw_filter;
use crate::bindings::reporter::exports::whodunit::plugin::reporter;
use crate::{
    Batch, Death, Explainer, Explanation, Filter, Reporter, Tick, Verdict, config, filter, imports,
};

pub use lifecycle::{Cause, Context};

/// Where the macros keep the one plugin of an instance.
pub type Instance<P> = LocalKey<RefCell<Option<P>>>;

/// Compiles for reporters only.
pub fn is_reporter<R: Reporter>() {}

/// Compiles for filters only.
pub fn is_filter<F: Filter>() {}

/// Compiles for explainers only.
pub fn is_explainer<E: Explainer>() {}

/// Starts the reporter.
pub fn start<R: Reporter>(instance: &'static Instance<R>, context: Context) -> Result<(), String> {
    start_with(instance, || started(&context))
}

/// Starts the filter.
pub fn start_filter<F: Filter>(
    instance: &'static Instance<F>,
    context: Context,
) -> Result<(), String> {
    start_with(instance, || started_filter(&context))
}

/// Starts the explainer.
pub fn start_explainer<E: Explainer>(
    instance: &'static Instance<E>,
    context: Context,
) -> Result<(), String> {
    start_with(instance, || started_explainer(&context))
}

fn start_with<P>(
    instance: &'static Instance<P>,
    start: impl FnOnce() -> Result<P, String>,
) -> Result<(), String> {
    // A panic is a trap without words; this puts its words into the daemon's log.
    std::panic::set_hook(Box::new(|panic| {
        crate::log::write(crate::log::Level::Error, &panic.to_string())
    }));
    instance.set(Some(start()?));
    Ok(())
}

/// A filter with its typed configuration.
pub(crate) fn started_filter<F: Filter>(context: &Context) -> Result<F, String> {
    F::start(context, config::parse(&imports::configuration())?)
}

/// An explainer with its typed configuration.
pub(crate) fn started_explainer<E: Explainer>(context: &Context) -> Result<E, String> {
    E::start(context, config::parse(&imports::configuration())?)
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

/// Hands a batch to the filter.
pub fn judge<F: Filter>(
    instance: &'static Instance<F>,
    batch: raw_filter::Batch,
) -> Result<Vec<Verdict>, String> {
    with(instance, |plugin| Ok(filter::verdicts(plugin, &Batch::new(batch))))
}

/// Hands a tick to the reporter.
pub fn on_tick<R: Reporter>(
    instance: &'static Instance<R>,
    tick: reporter::Tick,
) -> Result<(), String> {
    with(instance, |reporter| reporter.on_tick(&Tick::new(tick)))
}

/// Hands a death to the explainer.
pub fn explain<E: Explainer>(
    instance: &'static Instance<E>,
    death: explainer::Death,
) -> Result<Explanation, String> {
    with(instance, |explainer| explainer.explain(&Death::new(death)))
}

fn with<P, T>(
    instance: &'static Instance<P>,
    call: impl FnOnce(&mut P) -> Result<T, String>,
) -> Result<T, String> {
    instance.with_borrow_mut(|plugin| match plugin {
        Some(plugin) => call(plugin),
        None => Err("the plugin was called before it was started".to_owned()),
    })
}

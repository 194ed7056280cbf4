//! Filters: which events go on.

use serde::de::DeserializeOwned;

use crate::{Batch, Context, Event};

pub use crate::bindings::filter::exports::whodunit::plugin::filter::Verdict;

/// A plugin that keeps, drops or tags events, before the daemon's dedup.
pub trait Filter: Sized {
    /// The plugin's own table of the daemon's TOML, as [`crate::Reporter::Config`].
    type Config: DeserializeOwned;

    /// Called once in an instance's life. An error is a sentence for the operator: what is wrong,
    /// and what to do.
    fn start(context: &Context, config: Self::Config) -> Result<Self, String>;

    /// Called before the first event of each batch: what is remembered of containers and processes
    /// may be another one by now.
    fn on_batch(&mut self) {}

    /// What becomes of an event. A tag is added to those that other filters gave it.
    fn judge(&mut self, event: &Event<'_>) -> Verdict;
}

/// One verdict an event, in the order of the batch.
pub(crate) fn verdicts<F: Filter>(filter: &mut F, batch: &Batch) -> Vec<Verdict> {
    filter.on_batch();
    batch.events().map(|event| filter.judge(&event)).collect()
}

/// Makes a component of a [`Filter`]. Its name and version are those of the crate.
///
/// Expands to nothing but a check of the type where the target is not WebAssembly.
#[macro_export]
macro_rules! export_filter {
    ($filter:ty) => {
        const _: fn() = $crate::guest::is_filter::<$filter>;

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::filter::exports::whodunit::plugin::filter;

            $crate::export_life!($filter, $crate::guest::start_filter);

            impl filter::Guest for Exports {
                fn on_batch(
                    batch: filter::Batch,
                ) -> ::std::result::Result<::std::vec::Vec<filter::Verdict>, ::std::string::String>
                {
                    $crate::guest::judge(&INSTANCE, batch)
                }
            }

            $crate::bindings::filter::export_filter_bindings!(
            Exports with_types_in $crate::bindings::filter
                );
        };
    };
}

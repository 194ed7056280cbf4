//! What a whodunit plugin is written with.
//!
//! A reporter turns events into documents. It is a type with three functions; [`export_reporter!`]
//! makes a component of it. This one counts the opens below each top folder:
//!
//! ```
//! use std::collections::BTreeMap;
//! use whodunit_sdk::{Batch, Context, Kind, NoConfig, Reporter, Tick, documents, export_reporter};
//!
//! struct TopFolders(BTreeMap<String, u64>);
//!
//! impl Reporter for TopFolders {
//!     type Config = NoConfig;
//!
//!     fn start(_: &Context, _: NoConfig) -> Result<TopFolders, String> {
//!         Ok(TopFolders(BTreeMap::new()))
//!     }
//!
//!     fn on_batch(&mut self, batch: &Batch) {
//!         for event in batch.events().filter(|event| event.kind() == Kind::Open) {
//!             let path = event.path_text();
//!             let folder = path.split('/').nth(1).unwrap_or_default();
//!             *self.0.entry(format!("/{folder}")).or_default() += 1;
//!         }
//!     }
//!
//!     fn on_tick(&mut self, _: &Tick) -> Result<(), String> {
//!         Ok(documents::emit_json("report", &self.0)?)
//!     }
//! }
//!
//! export_reporter!(TopFolders);
//!
//! // Natively, the same type runs against `whodunit_sdk::testing`.
//! use whodunit_sdk::testing::{BatchBuilder, Harness};
//! let mut harness = Harness::<TopFolders>::new().start().unwrap();
//! harness.batch(BatchBuilder::new().open(1, "/etc/passwd").open(1, "/etc/hosts").build());
//! harness.interval().unwrap();
//! assert_eq!(harness.document("report").unwrap(), br#"{"/etc":2}"#);
//! ```
//!
//! A filter says which events go on; [`export_filter!`] makes a component of it:
//!
//! ```
//! use whodunit_sdk::{Context, Event, Filter, NoConfig, Verdict, export_filter};
//!
//! struct NoPython;
//!
//! impl Filter for NoPython {
//!     type Config = NoConfig;
//!
//!     fn start(_: &Context, _: NoConfig) -> Result<NoPython, String> {
//!         Ok(NoPython)
//!     }
//!
//!     fn judge(&mut self, event: &Event<'_>) -> Verdict {
//!         if event.path().ends_with(b".pyc") { Verdict::Drop } else { Verdict::Keep }
//!     }
//! }
//!
//! export_filter!(NoPython);
//!
//! use whodunit_sdk::testing::{BatchBuilder, FilterHarness};
//! let mut harness = FilterHarness::<NoPython>::start("{}", &[]).unwrap();
//! let batch = BatchBuilder::new().open(1, "/a.pyc").open(1, "/a.py").build();
//! assert_eq!(harness.judge(&batch), [Verdict::Drop, Verdict::Keep]);
//! ```
//!
//! An explainer says what a death means; [`export_explainer!`] makes a component of it:
//!
//! ```
//! use whodunit_sdk::death::WaitStatus;
//! use whodunit_sdk::{Context, Death, Explainer, Explanation, NoConfig, export_explainer};
//!
//! struct LicenceServer;
//!
//! impl Explainer for LicenceServer {
//!     type Config = NoConfig;
//!
//!     fn start(_: &Context, _: NoConfig) -> Result<LicenceServer, String> {
//!         Ok(LicenceServer)
//!     }
//!
//!     fn explain(&mut self, death: &Death) -> Result<Explanation, String> {
//!         Ok(match death.status() {
//!             WaitStatus::Exited(42) => Explanation::new("no-licence", "It found no licence", 95),
//!             _ => Explanation::unknown("That is not one of ours"),
//!         })
//!     }
//! }
//!
//! export_explainer!(LicenceServer);
//!
//! use whodunit_sdk::testing::{DeathBuilder, explainer};
//! let mut plugin = explainer::<LicenceServer>("{}").unwrap();
//! let verdict = |plugin: &mut LicenceServer, code| {
//!     plugin.explain(&DeathBuilder::exited(code).build()).unwrap().verdict
//! };
//! assert_eq!(verdict(&mut plugin, 42), "no-licence");
//! assert_eq!(verdict(&mut plugin, 1), "unknown");
//! ```
//!
//! Build it for `wasm32-unknown-unknown` as a `cdylib`, and make the core module a component with
//! `wasm-tools component new` (or the `wit-component` crate).
//!
//! The crate owns the shape of the contract and hides it: batches are flat records with one blob of
//! text, and nothing here copies them. It never decides what a report says.

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
#[doc(hidden)]
pub mod bindings;

mod batch;
pub mod clock;
mod config;
pub mod death;
pub mod directory;
pub mod documents;
pub mod escape;
mod explainer;
mod export;
mod filter;
#[doc(hidden)]
pub mod guest;
mod imports;
pub mod log;
pub mod place;
mod process;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod tick;

pub use batch::{AttributeKey, Batch, Event, Events, Flags, Kind, Outcome};
pub use config::NoConfig;
pub use death::Death;
pub use explainer::{Explainer, Explanation};
pub use filter::{Filter, Verdict};
pub use guest::{Cause, Context};
pub use process::{ProcessEvent, Sender};
pub use tick::{ContainerTotals, Tick, TickCause};

use serde::de::DeserializeOwned;

/// A plugin that makes documents from events.
pub trait Reporter: Sized {
    /// The plugin's own table of the daemon's TOML. Put `#[serde(deny_unknown_fields)]` on it, so
    /// that a misspelt key is an error and not a silence. [`NoConfig`] where there is nothing to set.
    type Config: DeserializeOwned;

    /// Called once in an instance's life. An error is a sentence for the operator: what is wrong,
    /// and what to do.
    fn start(context: &Context, config: Self::Config) -> Result<Self, String>;

    /// Takes the next events.
    fn on_batch(&mut self, batch: &Batch);

    /// Takes the exact totals: the moment to emit documents. An error is logged and counted by the
    /// daemon; the instance goes on.
    fn on_tick(&mut self, tick: &Tick) -> Result<(), String>;
}

/// Makes a component of a [`Reporter`]. Its name and version are those of the crate.
///
/// Expands to nothing but a check of the type where the target is not WebAssembly, so that a plugin
/// also builds, and is tested, as an ordinary crate.
#[macro_export]
macro_rules! export_reporter {
    ($reporter:ty) => {
        const _: fn() = $crate::guest::is_reporter::<$reporter>;

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::reporter::exports::whodunit::plugin::reporter;

            $crate::export_life!($reporter, $crate::guest::start);

            impl reporter::Guest for Exports {
                fn on_batch(
                    batch: reporter::Batch,
                ) -> ::std::result::Result<(), ::std::string::String> {
                    $crate::guest::on_batch(&INSTANCE, batch)
                }

                fn on_tick(
                    tick: reporter::Tick,
                ) -> ::std::result::Result<(), ::std::string::String> {
                    $crate::guest::on_tick(&INSTANCE, tick)
                }
            }

            $crate::bindings::reporter::export_reporter_bindings!(
                Exports with_types_in $crate::bindings::reporter
            );
        };
    };
}

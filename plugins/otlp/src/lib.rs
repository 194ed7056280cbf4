//! Deaths as OTLP log records, with the verdicts of the death explainer.
//!
//! An explainer: it gives the daemon what `death-explainer` gives, and hands over each death as a document of its own, a
//! request of OTLP/HTTP in JSON for the path `/v1/logs`. `docs/otlp.md` has every attribute. The shape of records and of
//! resources is here for the plugins that hand over others. Keeps nothing; a document that is not taken costs no verdict.

mod deaths;
pub mod record;
pub mod resource;

pub use deaths::{Config, Deaths};

#[cfg(feature = "component")]
whodunit_sdk::export_explainer!(Deaths);

//! Deaths: who killed it, why, and how sure are we.
//!
//! Owns everything about the end of processes behind the kernel's ring: what is remembered of the living (`processes`,
//! `census`), the words of their cgroups (`words`), joining (`join`, `build`), the thread that does it (`watch`), the death
//! record (`record`) and its flat form in the contract (`flat`), what explainers make of it (`explanation`), its history
//! on disk (`history`), the lines of JSON for others (`lines`), and the events of processes for plugins (`feed`). A record is facts only: what they mean is an explainer's work.

mod build;
mod census;
mod decode;
pub mod explanation;
pub mod feed;
pub mod flat;
pub mod history;
mod join;
pub mod lines;
mod memory;
mod processes;
pub mod record;
mod relation;
mod signals;
mod watch;
mod words;

pub use watch::{DeathCounts, DeathLosses, DeathWatch};

//! The JSON report of the files that each container used.
//!
//! Takes the events and totals of the plugin contract; gives one document, `report`, at every tick.
//! `docs/report.md` explains each of its fields and `report.schema.json` is its schema. Goes on from
//! the document before it, of a lost instance or of an earlier run of the daemon. Never lists a file
//! as used that was not, and never leaves one out in silence.

mod container;
mod document;
mod layout;
mod paths;
mod previous;
mod report;

pub use report::{Config, Report};

whodunit_sdk::export_reporter!(Report);

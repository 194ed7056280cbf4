//! The whodunit daemon: which files does each container use, and who killed it?
//!
//! `ARCHITECTURE.md` at the top of the repository has the map.

pub mod attribute;
pub mod capture;
pub mod config;
pub mod decode;
pub mod dedup;
pub mod directory;
pub mod discovery;
pub mod event;
pub mod filter;
pub mod kernel;
pub mod pipeline;

//! The whodunit daemon: which files does each container use, and who killed it?
//!
//! `ARCHITECTURE.md` at the top of the repository has the map.

pub mod config;
pub mod directory;
pub mod event;
pub mod kernel;

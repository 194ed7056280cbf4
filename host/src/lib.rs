//! The whodunit daemon: which files does each container use, and who killed it?
//!
//! `ARCHITECTURE.md` at the top of the repository has the map.

mod admission;
pub mod attribute;
pub mod capture;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod death;
pub mod decode;
pub mod dedup;
pub mod directory;
pub mod discovery;
pub mod dispatch;
pub mod doctor;
pub mod event;
pub mod exit;
pub mod filter;
pub mod http;
pub mod kernel;
pub mod kinds;
pub mod lock;
pub mod lockdown;
pub mod logging;
pub mod names;
mod patterns;
pub mod pipeline;
pub mod plugin;
mod post;
pub mod privilege;
pub mod recording;
pub mod registry;
pub mod reload;
pub mod report;
pub mod resolve;
pub mod scaffold;
pub mod service;
pub mod sink;
pub mod status;
pub mod telemetry;
pub mod why;

#[cfg(test)]
mod docs;

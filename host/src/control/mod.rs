//! The control socket: what changes the daemon's state, and what only root may see.
//!
//! A Unix socket `control.sock` in the state folder, for root and for the user that the daemon runs as:
//! the mode of the file says so, and the kernel's word on the peer (`SO_PEERCRED`) is checked too. A
//! request is a JSON object on one line, `{"command": "status"}`; so is its answer, `{"ok": ...}` or
//! `{"error": "..."}`. Requests of one connection are answered in their order. Nothing here is ever
//! reachable over TCP.
//!
//! A command is a case of [`Request`] and an arm of `Room::answer`.

mod client;
pub mod reload;
mod server;
pub mod shadow;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plugin::Promotion;
use crate::status::Observer;

pub use client::{AskError, ask};
pub use server::{BindError, Server};

/// Name of the socket in the state folder.
pub const FILE_NAME: &str = "control.sock";

/// The longest line of a request, in bytes.
const MAX_REQUEST_BYTES: usize = 64 << 10;

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What the daemon is doing: [`crate::status::Status`].
    Status {},
    /// Reads the component of a plugin again, or of every plugin, and puts it in the place of what runs:
    /// a list of [`reload::Reloaded`].
    Reload {
        /// Its name in the TOML. None is every plugin.
        plugin: Option<String>,
    },
    /// Runs another version of a plugin beside it and compares what both make:
    /// [`crate::plugin::Shadowed`].
    Shadow {
        /// Its name in the TOML.
        plugin: String,
        /// The component of the other version.
        file: PathBuf,
        /// For how long, in nanoseconds.
        time_ns: u64,
        /// When the other version takes over.
        promotion: Promotion,
    },
}

impl Request {
    /// How long the daemon works on it before it answers, beside what every answer takes.
    fn takes(&self) -> Duration {
        match self {
            Request::Status {} | Request::Reload { .. } => Duration::ZERO,
            Request::Shadow { time_ns, .. } => Duration::from_nanos(*time_ns),
        }
    }
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// What was asked for.
    Ok(Value),
    /// Why not, in one sentence.
    Error(String),
}

/// What the commands work on.
#[derive(Clone)]
pub struct Room {
    /// What the daemon is doing.
    pub observer: Observer,
}

impl Room {
    async fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Status {} => ok(&self.observer.status().await),
            Request::Reload { plugin } => {
                let plugins = Arc::clone(&self.observer.plugins);
                match reload::reload_aside(plugins, plugin).await {
                    Ok(reloaded) => ok(&reloaded),
                    Err(sentence) => Reply::Error(sentence),
                }
            }
            Request::Shadow { plugin, file, time_ns, promotion } => {
                let plugins = Arc::clone(&self.observer.plugins);
                let time = Duration::from_nanos(time_ns);
                let trial = shadow::Trial { plugin, file, time, promotion };
                match shadow::shadow_aside(plugins, trial).await {
                    Ok(shadowed) => ok(&shadowed),
                    Err(sentence) => Reply::Error(sentence),
                }
            }
        }
    }
}

/// An answer that is a document.
fn ok(document: &impl Serialize) -> Reply {
    match serde_json::to_value(document) {
        Ok(value) => Reply::Ok(value),
        Err(error) => Reply::Error(format!("the answer cannot be written as JSON: {error}")),
    }
}

/// The socket of the daemon that has this state folder.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE_NAME)
}

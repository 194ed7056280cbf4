//! HTTP with servers of others: bodies by `POST` (outputs of plugins, the daemon's own telemetry), and what is at a URL
//! by `GET` (plugins from registries, the API of Kubernetes).
//!
//! Owns one thread for each endpoint, with a bounded queue, its connection, and the retries. Takes bodies and never makes
//! whoever hands them over wait; what is given up is counted by reason. Knows nothing of what is in a body but whether it
//! looks like JSON.

mod connection;
mod courier;
mod endpoint;
mod get;
mod media;
mod resolve;
mod retry;
mod tls;

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use connection::{NoAnswer, connect, handshake};
pub(crate) use courier::{Courier, GivenUp};
pub(crate) use endpoint::Endpoint;
pub(crate) use get::{Got, get};
pub(crate) use tls::client;

/// How long what waits may take to be sent once the daemon stops.
pub(crate) const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The file of headers cannot be used.
    #[error("the file of headers {} cannot be used ({reason}): write one `Name: value` a line", path.display())]
    Headers {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The certificates cannot be used.
    #[error(
        "the certificates in {} cannot be used ({reason}): name a file with certificates in PEM",
        path.display()
    )]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The system gave no thread or no runtime.
    #[error("the thread that sends cannot be started ({0}): raise the limit of threads")]
    NoThread(io::Error),
}

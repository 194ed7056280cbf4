//! One output: the document that waits, the one that is being written, and what became of those before.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::target::Target;
use super::{SinkId, SinkStatus};
use crate::config;
use crate::post::GivenUp;

/// How long after a failure a document is tried again, unless a newer one comes before.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// What waits at most for a file that grows. A document that comes when there is more is left out.
pub(super) const WAITING_LINES_BYTES: usize = 16 << 20;

/// An output of a plugin, as long as the TOML has it or something waits for it.
pub(super) struct Slot {
    pub(super) output: config::Output,
    pub(super) target: Arc<Target>,
    /// It is not in the TOML any more.
    pub(super) retired: bool,
    /// It goes as soon as nothing waits to be written.
    pub(super) leaving: bool,
    /// The newest document, until it is written.
    pub(super) waiting: Option<Arc<Vec<u8>>>,
    /// The document that is being written.
    pub(super) writing: Option<Arc<Vec<u8>>>,
    /// The newest document for a server, which nobody can read back from there.
    pub(super) sent: Option<Arc<Vec<u8>>>,
    /// Not before then, unless a newer document comes.
    pub(super) retry_at: Option<Instant>,
    pub(super) status: SinkStatus,
}

impl Slot {
    pub(super) fn new(sink: SinkId, output: config::Output, target: Arc<Target>) -> Slot {
        Slot {
            output,
            target,
            retired: false,
            leaving: false,
            waiting: None,
            writing: None,
            sent: None,
            retry_at: None,
            status: SinkStatus {
                sink,
                last_write: None,
                last_bytes: 0,
                writes: 0,
                failures: 0,
                dropped: BTreeMap::new(),
                waiting_bytes: 0,
                last_error: None,
            },
        }
    }

    /// What became of it so far.
    pub(super) fn status(&self) -> SinkStatus {
        let waits = [&self.waiting, &self.writing].into_iter().flatten();
        let waiting_bytes = waits.map(|body| body.len()).sum();
        let status = SinkStatus { waiting_bytes, ..self.status.clone() };
        let Some(courier) = self.target.courier() else {
            return status;
        };
        let tally = courier.tally();
        SinkStatus {
            last_write: tally.last_sent,
            last_bytes: tally.last_bytes,
            writes: tally.sent,
            failures: tally.failures,
            dropped: tally.given_up.iter().map(|(why, count)| (why.name(), *count)).collect(),
            waiting_bytes: tally.waiting_bytes,
            last_error: tally.last_error,
            ..status
        }
    }

    /// Takes a document. It replaces the one that waits, or comes after it where documents are lines or go to a server.
    pub(super) fn take(&mut self, body: Arc<Vec<u8>>) {
        if let Some(courier) = self.target.courier() {
            courier.put(body.to_vec());
            self.sent = Some(body);
            return;
        }
        if !matches!(*self.target, Target::Lines(_)) {
            self.waiting = Some(body);
            self.retry_at = None;
            return;
        }
        let mut waiting = self.waiting.take().map(Arc::unwrap_or_clone).unwrap_or_default();
        let ends = body.is_empty() || body.ends_with(b"\n");
        let length = body.len() + usize::from(!ends);
        if waiting.len() + length > WAITING_LINES_BYTES && !waiting.is_empty() {
            let sink = &self.status.sink;
            if self.status.dropped.is_empty() {
                tracing::warn!(%sink, "documents come faster than they can be written: some are left out");
            }
            *self.status.dropped.entry(GivenUp::QueueFull.name()).or_default() += 1;
        } else {
            waiting.extend_from_slice(&body);
            waiting.extend_from_slice(if ends { b"" } else { b"\n" });
        }
        self.waiting = Some(Arc::new(waiting));
    }

    pub(super) fn is_due(&self, now: Instant, stopping: bool) -> bool {
        let later = self.retry_at.is_some_and(|at| at > now);
        self.waiting.is_some() && (stopping || !later)
    }

    /// Notes how a write ended. A document that was not written waits again, if no newer one does.
    pub(super) fn settle(&mut self, result: io::Result<()>, stopping: bool) {
        let Some(body) = self.writing.take() else {
            return;
        };
        let sink = &self.status.sink;
        match result {
            Ok(()) => {
                if self.status.last_error.take().is_some() {
                    tracing::info!(%sink, "documents can be written again");
                }
                self.retry_at = None;
                self.status.last_write = Some(SystemTime::now());
                self.status.last_bytes = body.len();
                self.status.writes += 1;
            }
            Err(cause) => {
                self.status.failures += 1;
                let sentence = format!(
                    "a document of {} bytes was not written to {}: {cause}",
                    body.len(),
                    self.target.place()
                );
                // Said once, not at every attempt.
                if self.status.last_error.is_none() {
                    tracing::error!(%sink, "{sentence}; it is kept and tried again");
                }
                self.status.last_error = Some(sentence);
                if stopping {
                    self.waiting = None;
                } else if matches!(*self.target, Target::Lines(_)) {
                    // What came meanwhile comes after it.
                    let mut body = Arc::unwrap_or_clone(body);
                    body.extend_from_slice(self.waiting.as_ref().map_or(&[], |newer| &newer[..]));
                    self.waiting = Some(Arc::new(body));
                    self.retry_at = Some(Instant::now() + RETRY_AFTER);
                } else if self.waiting.is_none() {
                    self.waiting = Some(body);
                    self.retry_at = Some(Instant::now() + RETRY_AFTER);
                }
            }
        }
    }
}

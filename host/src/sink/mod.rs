//! Sinks: where documents go. One thread writes them; the newest document of an output wins.
//!
//! Takes whole documents from the plugin workers and never makes them wait for a disk or a server. A document
//! that could not be written is kept and tried again, until it is written or a newer one replaces
//! it. Documents for a server have a thread and a queue of their own (`post`), and none replaces another. Knows nothing
//! of what is in a document.

mod change;
mod file;
mod growing;
mod slot;
mod stdout;
mod target;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crate::config;
use crate::post::{Courier, FLUSH_WITHIN, PostError};
use crate::status::Pulse;
use file::FileSink;
pub(crate) use growing::GrowingFile;
use slot::Slot;
pub(crate) use stdout::StdoutSink;
use target::Target;

/// How long writing one document may take before the thread counts as stuck.
const WRITE_WITHIN: Duration = Duration::from_secs(60);

/// What stands for a plugin in the outputs of the daemon itself. No plugin can be called so.
const DAEMON: &str = "(daemon)";

/// An output of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SinkId {
    plugin: Arc<str>,
    output: Arc<str>,
}

impl SinkId {
    /// The output of that name of the plugin of that name.
    pub fn new(plugin: &str, output: &str) -> SinkId {
        SinkId { plugin: plugin.into(), output: output.into() }
    }

    /// An output of that name of the daemon itself, beside those of the TOML.
    pub fn of_daemon(output: &str) -> SinkId {
        SinkId::new(DAEMON, output)
    }

    /// Name of the plugin; `(daemon)` for an output of the daemon itself.
    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Name of the output.
    pub fn output(&self) -> &str {
        &self.output
    }
}

impl fmt::Display for SinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.plugin, self.output)
    }
}

/// Every output that the plugins are configured with.
pub fn outputs_of(plugins: &[config::Plugin]) -> impl Iterator<Item = (SinkId, config::Output)> {
    plugins.iter().flat_map(|plugin| {
        let outputs = plugin.outputs.iter();
        outputs.map(|(name, output)| (SinkId::new(&plugin.name, name), output.clone()))
    })
}

/// Why an output cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The folder is not there.
    #[error("the folder {} of output `{sink}` does not exist: make it, or change the output's path", folder.display())]
    NoFolder {
        /// The output.
        sink: SinkId,
        /// The folder that its file would be in.
        folder: PathBuf,
    },
    /// What should be the folder is something else.
    #[error("{} of output `{sink}` is not a folder: change the output's path", folder.display())]
    NotAFolder {
        /// The output.
        sink: SinkId,
        /// What should be a folder.
        folder: PathBuf,
    },
    /// The path names no file.
    #[error("the path {} of output `{sink}` is a folder: name a file in it", path.display())]
    NotAFile {
        /// The output.
        sink: SinkId,
        /// What should be a file.
        path: PathBuf,
    },
    /// No file can be written there.
    #[error(
        "no file can be written in the folder {} of output `{sink}` ({cause}): let the daemon write there, or change the output's path",
        folder.display()
    )]
    NotWritable {
        /// The output.
        sink: SinkId,
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Nothing fits there any more.
    #[error(
        "the disk with the folder {} of output `{sink}` is full: free some space on it, or change the output's path",
        folder.display()
    )]
    Full {
        /// The output.
        sink: SinkId,
        /// The folder.
        folder: PathBuf,
    },
    /// Two outputs would overwrite each other.
    #[error("the outputs `{first}` and `{second}` both go to {}: give each a file of its own", path.display())]
    SamePath {
        /// One of them.
        first: SinkId,
        /// The other.
        second: SinkId,
        /// Their file.
        path: PathBuf,
    },
    /// A server cannot be spoken to.
    #[error("output `{sink}`: {cause}")]
    Http {
        /// The output.
        sink: SinkId,
        /// Why.
        cause: PostError,
    },
    /// The system gave no thread.
    #[error("the thread that writes documents cannot be started ({0}): raise the limit of threads")]
    NoThread(io::Error),
}

/// What became of an output so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkStatus {
    /// The output.
    pub sink: SinkId,
    /// When a document was last written.
    pub last_write: Option<SystemTime>,
    /// Size of that document, in bytes.
    pub last_bytes: usize,
    /// Documents that were written.
    pub writes: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Documents that were left out, by reason: of lines and for servers, where none replaces another.
    pub dropped: BTreeMap<&'static str, u64>,
    /// What waits to be written, in bytes.
    pub waiting_bytes: usize,
    /// Why the newest attempt failed, in one sentence. None after one that did not.
    pub last_error: Option<String>,
}

/// The running sinks.
pub struct Sinks {
    outlet: Outlet,
    writer: JoinHandle<()>,
}

/// A hand that gives documents to the sinks. Each plugin worker has one.
#[derive(Clone)]
pub struct Outlet(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    pulse: Arc<Pulse>,
    /// Takes every document, whatever its output, in the place of the sinks.
    taker: Option<Taker>,
}

/// What is done with a document of an output.
type Take = dyn Fn(&SinkId, &[u8]) + Send + Sync;

/// Takes documents at once, in the thread of the plugin.
struct Taker {
    take: Box<Take>,
    newest: Mutex<BTreeMap<SinkId, Vec<u8>>>,
}

struct State {
    slots: BTreeMap<SinkId, Slot>,
    #[cfg(test)]
    tap: Option<std::sync::mpsc::Sender<(SinkId, Arc<Vec<u8>>)>>,
    stopping: bool,
}

impl Sinks {
    /// Checks that every output can be written, by really trying, and starts the writing thread.
    pub fn start(
        outputs: impl Iterator<Item = (SinkId, config::Output)>,
    ) -> Result<Sinks, SinkError> {
        let opened = change::open(outputs, |_, _| None)?;
        let slots = opened
            .into_iter()
            .map(|(sink, (output, target))| (sink.clone(), Slot::new(sink, output, target)));
        let slots = slots.collect();
        let state = State {
            slots,
            #[cfg(test)]
            tap: None,
            stopping: false,
        };
        let state = Mutex::new(state);
        let pulse = Arc::new(Pulse::new("sinks", WRITE_WITHIN));
        let shared = Arc::new(Shared { state, wake: Condvar::new(), pulse, taker: None });
        let outlet = Outlet(Arc::clone(&shared));
        let writer = thread::Builder::new()
            .name("sinks".to_owned())
            .spawn(move || shared.write_until_stopped())
            .map_err(SinkError::NoThread)?;
        Ok(Sinks { outlet, writer })
    }

    /// Hands over a document, which replaces one of the same output that is not written yet.
    pub fn put(&self, sink: SinkId, body: Vec<u8>) {
        self.outlet.put(&sink, body);
    }

    /// The newest document of an output. None where there is none, where it is larger than
    /// `at_most` bytes, and where the sink cannot be read.
    pub fn read(&self, sink: SinkId, at_most: usize) -> Option<Vec<u8>> {
        self.outlet.read(&sink, at_most)
    }

    /// What became of each output so far.
    pub fn status(&self) -> Vec<SinkStatus> {
        self.outlet.status()
    }

    /// The sign of life of the writing thread.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.outlet.0.pulse)
    }

    /// Gives every document to `documents` too, in the order in which they come.
    #[cfg(test)]
    pub(crate) fn tap(&self, documents: std::sync::mpsc::Sender<(SinkId, Arc<Vec<u8>>)>) {
        self.outlet.0.lock().tap = Some(documents);
    }

    /// A hand that gives documents to these sinks.
    pub fn outlet(&self) -> Outlet {
        self.outlet.clone()
    }

    /// Ends the writing threads after everything that was put is written, or was tried once more; what goes to servers, for at
    /// most 5 seconds.
    pub fn stop(self) -> Vec<SinkStatus> {
        let targets = {
            let mut state = self.outlet.0.lock();
            state.stopping = true;
            let targets = state.slots.values().map(|slot| Arc::clone(&slot.target));
            targets.collect::<Vec<_>>()
        };
        let couriers = || targets.iter().filter_map(|target| target.courier());
        couriers().for_each(|courier| courier.close(FLUSH_WITHIN));
        self.outlet.0.wake.notify_all();
        if self.writer.join().is_err() {
            tracing::error!("the thread that writes documents ended early");
        }
        couriers().for_each(Courier::join);
        self.outlet.status()
    }
}

impl Outlet {
    /// A hand that gives each document, of whatever output, to `take` at once.
    pub fn taking_any(take: impl Fn(&SinkId, &[u8]) + Send + Sync + 'static) -> Outlet {
        let state = State {
            slots: BTreeMap::new(),
            #[cfg(test)]
            tap: None,
            stopping: false,
        };
        Outlet(Arc::new(Shared {
            state: Mutex::new(state),
            wake: Condvar::new(),
            pulse: Arc::new(Pulse::new("sinks", WRITE_WITHIN)),
            taker: Some(Taker { take: Box::new(take), newest: Mutex::default() }),
        }))
    }

    /// Whether there is a place for documents of any output.
    pub fn takes_any(&self) -> bool {
        self.0.taker.is_some()
    }

    /// See [`Sinks::put`]. A document for an output that there is not goes nowhere.
    pub fn put(&self, sink: &SinkId, body: Vec<u8>) {
        if let Some(taker) = &self.0.taker {
            (taker.take)(sink, &body);
            taker.lock().insert(sink.clone(), body);
            return;
        }
        let body = Arc::new(body);
        let mut state = self.0.lock();
        #[cfg(test)]
        if let Some(tap) = &state.tap {
            let _ = tap.send((sink.clone(), Arc::clone(&body)));
        }
        if let Some(slot) = state.slots.get_mut(sink) {
            slot.take(body);
            self.0.wake.notify_all();
        }
    }

    /// See [`Sinks::status`].
    pub fn status(&self) -> Vec<SinkStatus> {
        self.0.lock().slots.values().map(Slot::status).collect()
    }

    /// See [`Sinks::read`].
    pub fn read(&self, sink: &SinkId, at_most: usize) -> Option<Vec<u8>> {
        if let Some(taker) = &self.0.taker {
            return taker.lock().get(sink).filter(|body| body.len() <= at_most).cloned();
        }
        let (newest, target) = {
            let state = self.0.lock();
            let slot = state.slots.get(sink)?;
            if let Some(sent) = &slot.sent {
                return (sent.len() <= at_most).then(|| sent.to_vec());
            }
            let newest = slot.waiting.as_ref().or(slot.writing.as_ref()).cloned();
            (newest, Arc::clone(&slot.target))
        };
        match newest {
            // Not from what cannot be read back once it is written.
            Some(body) if matches!(*target, Target::File(_)) => {
                (body.len() <= at_most).then(|| body.to_vec())
            }
            Some(_) | None => target.read(at_most),
        }
    }
}

impl Taker {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SinkId, Vec<u8>>> {
        self.newest.lock().expect("no holder of this lock panics")
    }
}

impl State {
    fn drop_left(&mut self) {
        let stays = |slot: &Slot| !slot.leaving || slot.waiting.is_some() || slot.writing.is_some();
        self.slots.retain(|_, slot| stays(slot));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn write_until_stopped(&self) {
        let mut state = self.lock();
        loop {
            let (now, stopping) = (Instant::now(), state.stopping);
            let due = state.slots.values_mut().find(|slot| slot.is_due(now, stopping));
            if let Some(slot) = due {
                let sink = slot.status.sink.clone();
                let target = Arc::clone(&slot.target);
                slot.writing = slot.waiting.take();
                let body = slot.writing.clone().unwrap_or_default();
                drop(state);
                self.pulse.turn();
                let result = target.write(&body);
                self.pulse.rest();
                state = self.lock();
                let stopping = state.stopping;
                if let Some(slot) = state.slots.get_mut(&sink) {
                    slot.settle(result, stopping);
                }
                state.drop_left();
            } else if stopping {
                return;
            } else {
                let waiting = state.slots.values().filter(|slot| slot.waiting.is_some());
                let next = waiting.filter_map(|slot| slot.retry_at).min();
                state = match next {
                    Some(at) => {
                        let timeout = at.saturating_duration_since(now);
                        self.wake.wait_timeout(state, timeout).expect("no holder panics").0
                    }
                    None => self.wake.wait(state).expect("no holder panics"),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests;

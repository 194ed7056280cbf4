//! Sinks: where documents go. One thread writes them; the newest document of an output wins.
//!
//! Takes whole documents from the plugin workers and never makes them wait for a disk or a server. A document
//! that could not be written is kept and tried again, until it is written or a newer one replaces
//! it. Documents for a server have a thread and a queue of their own (`post`), and none replaces another. Knows nothing
//! of what is in a document.

mod change;
mod file;
mod growing;
mod stdout;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crate::config;
use crate::post::{Courier, FLUSH_WITHIN, GivenUp, PostError};
use crate::status::Pulse;
use file::FileSink;
pub(crate) use growing::GrowingFile;
pub(crate) use stdout::StdoutSink;

/// How long after a failure a document is tried again, unless a newer one comes before.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// What waits at most for a file that grows. A document that comes when there is more is left out.
const WAITING_LINES_BYTES: usize = 16 << 20;
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

struct Slot {
    output: config::Output,
    target: Arc<Target>,
    /// It is not in the TOML any more.
    retired: bool,
    /// It goes as soon as nothing waits to be written.
    leaving: bool,
    /// The newest document, until it is written.
    waiting: Option<Arc<Vec<u8>>>,
    /// The document that is being written.
    writing: Option<Arc<Vec<u8>>>,
    /// The newest document for a server, which nobody can read back from there.
    sent: Option<Arc<Vec<u8>>>,
    /// Not before then, unless a newer document comes.
    retry_at: Option<Instant>,
    status: SinkStatus,
}

enum Target {
    File(FileSink),
    /// Grows by each document: none replaces another. Locked by the one thread that writes.
    Lines(Mutex<GrowingFile>),
    Stdout(StdoutSink),
    /// Writes by itself.
    Http(Courier),
}

impl Target {
    fn write(&self, body: &[u8]) -> io::Result<()> {
        match self {
            Target::File(file) => file.write(body),
            Target::Lines(file) => file.lock().expect("no writer panics").write(body),
            Target::Stdout(stdout) => stdout.write(body),
            Target::Http(courier) => {
                courier.put(body.to_vec());
                Ok(())
            }
        }
    }

    fn read(&self, at_most: usize) -> Option<Vec<u8>> {
        match self {
            Target::File(file) => file.read(at_most),
            Target::Lines(_) | Target::Stdout(_) | Target::Http(_) => None,
        }
    }

    /// The file that it writes, absolute.
    fn path(&self) -> Option<PathBuf> {
        match self {
            Target::File(file) => Some(file.path().to_owned()),
            Target::Lines(file) => Some(file.lock().expect("no writer panics").path().to_owned()),
            Target::Stdout(_) | Target::Http(_) => None,
        }
    }

    /// Where documents go, in words.
    fn place(&self) -> String {
        match self {
            Target::Http(courier) => courier.place().to_owned(),
            Target::File(_) | Target::Lines(_) | Target::Stdout(_) => {
                let path = self.path().map(|path| path.display().to_string());
                path.unwrap_or_else(|| "standard output".to_owned())
            }
        }
    }

    /// What sends documents, where a server gets them.
    fn courier(&self) -> Option<&Courier> {
        match self {
            Target::Http(courier) => Some(courier),
            Target::File(_) | Target::Lines(_) | Target::Stdout(_) => None,
        }
    }
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

impl Slot {
    fn new(sink: SinkId, output: config::Output, target: Arc<Target>) -> Slot {
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
    fn status(&self) -> SinkStatus {
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
    fn take(&mut self, body: Arc<Vec<u8>>) {
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

    fn is_due(&self, now: Instant, stopping: bool) -> bool {
        let later = self.retry_at.is_some_and(|at| at > now);
        self.waiting.is_some() && (stopping || !later)
    }

    /// Notes how a write ended. A document that was not written waits again, if no newer one does.
    fn settle(&mut self, result: io::Result<()>, stopping: bool) {
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
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::post::tests::{Deed, Server};

    fn sinks(path: &Path) -> (Sinks, SinkId) {
        let sink = SinkId::new("p", "report");
        let output = config::Output::File(path.to_owned());
        (Sinks::start([(sink.clone(), output)].into_iter()).unwrap(), sink)
    }

    fn wait_for(sinks: &Sinks, condition: impl Fn(&SinkStatus) -> bool) -> SinkStatus {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status = sinks.status().remove(0);
            if condition(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "the condition never held: {status:?}");
            thread::yield_now();
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn stop_writes_the_newest_document_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let (sinks, sink) = sinks(&path);
        for number in 0..100 {
            sinks.put(sink.clone(), format!("document {number}").into_bytes());
        }
        let status = sinks.stop().remove(0);
        assert_eq!(fs::read(&path).unwrap(), b"document 99");
        assert_eq!(names(folder.path()), ["report.json"]);
        assert!(status.writes >= 1 && status.last_bytes == 11 && status.last_error.is_none());
    }

    #[test]
    fn what_was_put_is_read_back_before_and_after_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        fs::write(&path, "from the run before").unwrap();
        let (sinks, sink) = sinks(&path);
        assert_eq!(sinks.read(sink.clone(), 100).unwrap(), b"from the run before");
        assert_eq!(sinks.read(sink.clone(), 10), None, "larger than asked for");
        sinks.put(sink.clone(), b"new".to_vec());
        assert_eq!(sinks.read(sink.clone(), 100).unwrap(), b"new");
        wait_for(&sinks, |status| status.writes == 1);
        assert_eq!(sinks.read(sink.clone(), 100).unwrap(), b"new");
        assert_eq!(sinks.read(SinkId::new("p", "other"), 100), None);
        sinks.stop();
    }

    #[test]
    fn a_vanished_folder_is_survived_and_the_document_comes_later() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("report.json");
        let (sinks, sink) = sinks(&path);
        fs::remove_dir(&inner).unwrap();
        sinks.put(sink.clone(), b"first".to_vec());
        let status = wait_for(&sinks, |status| status.failures > 0);
        assert!(status.last_error.unwrap().contains("was not written"));
        assert_eq!(sinks.read(sink.clone(), 100).unwrap(), b"first", "it is kept");
        fs::create_dir(&inner).unwrap();
        // A newer document is tried at once; the old one alone would be, some seconds later.
        sinks.put(sink.clone(), b"second".to_vec());
        let status = wait_for(&sinks, |status| status.writes == 1);
        assert_eq!(status.last_error, None);
        assert_eq!(fs::read(&path).unwrap(), b"second");
        sinks.stop();
    }

    #[test]
    fn a_kept_document_is_written_when_stopping() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let (sinks, sink) = sinks(&inner.join("report.json"));
        fs::remove_dir(&inner).unwrap();
        sinks.put(sink.clone(), b"only".to_vec());
        wait_for(&sinks, |status| status.failures > 0);
        fs::create_dir(&inner).unwrap();
        assert_eq!(sinks.stop().remove(0).writes, 1);
        assert_eq!(fs::read(inner.join("report.json")).unwrap(), b"only");
    }

    #[test]
    fn a_full_disk_leaves_the_old_document_and_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let Ok(_mount) = SmallDisk::mount(folder.path()) else {
            eprintln!("skipped: this test mounts a tmpfs, which needs root");
            return;
        };
        let path = folder.path().join("report.json");
        fs::write(&path, "old").unwrap();
        let (sinks, sink) = sinks(&path);
        sinks.put(sink.clone(), vec![b'x'; 1 << 20]);
        let status = wait_for(&sinks, |status| status.failures > 0);
        assert!(status.last_error.unwrap().contains("No space left"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["report.json"]);
        sinks.put(sink, b"fits".to_vec());
        wait_for(&sinks, |status| status.writes == 1);
        assert_eq!(fs::read(&path).unwrap(), b"fits");
        sinks.stop();
    }

    struct SmallDisk<'a>(&'a Path);

    impl SmallDisk<'_> {
        fn mount(path: &Path) -> io::Result<SmallDisk<'_>> {
            let flags = rustix::mount::MountFlags::NOSUID;
            rustix::mount::mount("whodunit-test", path, "tmpfs", flags, c"size=64k")?;
            Ok(SmallDisk(path))
        }
    }

    impl Drop for SmallDisk<'_> {
        fn drop(&mut self) {
            let flags = rustix::mount::UnmountFlags::DETACH;
            rustix::mount::unmount(self.0, flags).expect("what was mounted can be unmounted");
        }
    }

    #[test]
    fn stale_temporary_files_of_ours_are_removed_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let others = [
            ".other.json.whodunit-1-1.tmp",
            ".report.json.whodunit-1-x.tmp",
            ".report.json.whodunit-1.tmp",
            "report.json.tmp",
        ];
        for name in others.iter().chain(&[".report.json.whodunit-4711-3.tmp"]) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let (sinks, _) = sinks(&folder.path().join("report.json"));
        assert_eq!(names(folder.path()), others);
        sinks.stop();
    }

    #[test]
    fn an_output_that_cannot_be_written_is_refused_in_one_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let check = |path: &Path, sentence: &str| {
            let output = config::Output::File(path.to_owned());
            let outputs = [(SinkId::new("p", "report"), output)];
            let error = Sinks::start(outputs.into_iter()).err().expect("it is refused").to_string();
            assert!(error.contains(sentence), "{error}");
            assert!(error.contains("`p.report`"), "{error}");
        };
        check(&folder.path().join("none/report.json"), "does not exist");
        check(&file.join("report.json"), "is not a folder");
        check(folder.path(), "is a folder");
        check(Path::new("/proc/self/report.json"), "no file can be written");
        assert_eq!(names(folder.path()), ["file"]);
    }

    fn lines(path: &Path) -> (Sinks, SinkId) {
        let sink = SinkId::new("p", "events");
        let outputs = [(sink.clone(), config::Output::Lines(path.to_owned()))];
        (Sinks::start(outputs.into_iter()).unwrap(), sink)
    }

    #[test]
    fn lines_come_one_after_the_other_and_none_replaces_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        fs::write(&path, "before\n").unwrap();
        let (sinks, sink) = lines(&path);
        for number in 0..1000 {
            // With and without its end.
            let end = if number % 2 == 0 { "\n" } else { "" };
            sinks.put(sink.clone(), format!("{number}{end}").into_bytes());
        }
        assert_eq!(sinks.read(sink, 100), None);
        let status = sinks.stop().remove(0);
        assert_eq!((status.dropped.len(), status.failures), (0, 0));
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("before\n{expected}"));
    }

    #[test]
    fn lines_that_find_no_room_are_counted_and_those_that_wait_keep_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = GrowingFile::open(&folder.path().join("a")).unwrap();
        let target = Arc::new(Target::Lines(Mutex::new(file)));
        let output = config::Output::Lines(folder.path().join("a"));
        let mut slot = Slot::new(SinkId::new("p", "events"), output, target);
        slot.take(Arc::new(b"first\n".to_vec()));
        slot.writing = slot.waiting.take();
        slot.take(Arc::new(b"second\n".to_vec()));
        slot.settle(Err(io::Error::other("the disk is full")), false);
        slot.take(Arc::new(vec![b'x'; WAITING_LINES_BYTES]));
        slot.take(Arc::new(b"third".to_vec()));
        assert_eq!(
            slot.waiting.as_deref().map(Vec::as_slice),
            Some(&b"first\nsecond\nthird\n"[..])
        );
        assert_eq!((slot.status.dropped["queue-full"], slot.status.failures), (1, 1));
        assert!(slot.retry_at.is_some());
    }

    fn http(address: std::net::SocketAddr) -> config::Output {
        let url = config::Url::read(&format!("http://{address}/")).unwrap();
        config::Output::Http(Box::new(config::HttpOutput::new(url)))
    }

    #[test]
    fn a_server_gets_every_document_and_a_file_beside_one_that_hangs_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (path, hanging) = (folder.path().join("report.json"), Server::doing(&[Deed::Hang]));
        let server = Server::doing(&[Deed::Answer(200, "", "")]);
        let [file, good, bad] = ["file", "good", "bad"].map(|name| SinkId::new("p", name));
        let outputs = [
            (file.clone(), config::Output::File(path.clone())),
            (good.clone(), http(server.address)),
            (bad.clone(), http(hanging.address)),
        ];
        let sinks = Sinks::start(outputs.into_iter()).unwrap();
        for number in 0..10 {
            for sink in [&bad, &good, &file] {
                sinks.put(sink.clone(), format!("{number}").into_bytes());
            }
        }
        for number in 0..10 {
            assert_eq!(server.next().body, format!("{number}").into_bytes());
        }
        assert_eq!(
            sinks.read(good.clone(), 100).unwrap(),
            b"9",
            "the newest, for the next instance"
        );
        assert_eq!(sinks.read(good, 0), None);
        let status = sinks.stop();
        assert_eq!(fs::read(&path).unwrap(), b"9");
        let dropped: Vec<_> = status.iter().map(|it| (it.writes, it.dropped.clone())).collect();
        // In the order of their names.
        assert_eq!(dropped[0], (0, BTreeMap::from([("stopped", 10)])));
        assert_eq!(dropped[2], (10, BTreeMap::new()));
    }

    #[test]
    fn an_output_that_goes_elsewhere_now_still_sends_what_waited() {
        let (before, after) = (Deed::Answer(503, "", ""), Deed::Answer(200, "", ""));
        let server = Server::doing(&[before, after.clone()]);
        let other = Server::doing(&[after]);
        let sink = SinkId::new("p", "logs");
        let sinks = Sinks::start([(sink.clone(), http(server.address))].into_iter()).unwrap();
        sinks.put(sink.clone(), b"one".to_vec());
        wait_for(&sinks, |status| status.failures == 1);
        sinks.outlet().change([(sink.clone(), http(other.address))].into_iter()).unwrap();
        sinks.put(sink, b"two".to_vec());
        assert_eq!([server.next().body, server.next().body], [b"one", b"one"]);
        assert_eq!(other.next().body, b"two");
        sinks.stop();
    }

    #[test]
    fn two_outputs_do_not_share_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let other = folder.path().join(".").join("report.json");
        let outputs = [
            (SinkId::new("a", "report"), config::Output::File(path)),
            (SinkId::new("b", "report"), config::Output::File(other)),
        ];
        let error = Sinks::start(outputs.into_iter()).err().expect("it is refused");
        assert!(matches!(error, SinkError::SamePath { .. }), "{error}");
    }
}

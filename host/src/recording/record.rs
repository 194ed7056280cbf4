//! The recorder beside a running daemon: a thread that takes what is dispatched and writes it.
//!
//! Capture never waits for it: what its queue does not take is counted, and the recording says so where
//! it happened. Looks up names in the directory when they are first needed.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Start, Summary, Writer};
use crate::death::record::DeathRecord;
use crate::directory::{Container, Directory};
use crate::event::{Batch, ContainerId, ProcessId, Tick, UnixNanos};
use crate::exit::{Exit, Exits};

/// Batches and ticks that wait at most.
const QUEUE: usize = 512;
/// What was not written for so long is written, however little it is.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Why a recording was not made.
#[derive(Debug, thiserror::Error)]
#[error("the recording {} cannot be written: {source}", path.display())]
pub struct RecordError {
    path: PathBuf,
    source: io::Error,
}

impl Exits for RecordError {
    fn exit(&self) -> Exit {
        Exit::Failure
    }
}

enum Item {
    Batch(Arc<Batch>),
    Tick(Arc<Tick>),
    Death(Box<DeathRecord>),
    /// Nothing comes after it, whoever still has a hand.
    End,
}

/// A hand that gives batches, ticks and deaths to the recorder.
#[derive(Clone)]
pub struct Tap {
    items: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Tap {
    /// Hands over a batch, or counts what the recorder does not take.
    pub fn batch(&self, batch: &Arc<Batch>) {
        if batch.is_empty() {
            return;
        }
        match self.items.try_send(Item::Batch(Arc::clone(batch))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(batch.events.len() as u64, Ordering::Relaxed);
            }
        }
    }

    /// Hands over a tick. One that finds no room is left out: the next one tells the same and more.
    pub fn tick(&self, tick: &Arc<Tick>) {
        let _ = self.items.try_send(Item::Tick(Arc::clone(tick)));
    }

    /// Hands over a death, or counts it with the events that the recorder does not take.
    pub fn death(&self, record: &DeathRecord) {
        if self.items.try_send(Item::Death(Box::new(record.clone()))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The running recorder.
pub struct Recorder {
    path: PathBuf,
    items: SyncSender<Item>,
    thread: JoinHandle<io::Result<Summary>>,
}

impl Recorder {
    /// Makes the file and starts the thread. `ended` hears when it writes no more.
    ///
    /// # Errors
    ///
    /// If the file cannot be made or written.
    pub fn start(
        path: &Path,
        start: &Start,
        directory: Arc<Directory>,
        ended: oneshot::Sender<()>,
    ) -> Result<(Recorder, Tap), RecordError> {
        let error = |source| RecordError { path: path.to_owned(), source };
        let file = File::create(path).map_err(error)?;
        let writer = Writer::new(file, start).map_err(error)?;
        let (items, inbox) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let scribe = Scribe {
            writer,
            directory,
            dropped: Arc::clone(&dropped),
            containers: HashMap::new(),
            processes: HashSet::new(),
            time: start.time,
        };
        let work = move || {
            let written = scribe.write(&inbox);
            // Whoever waits hears of the end itself: nobody need be there any more.
            let _ = ended.send(());
            written
        };
        let thread = std::thread::Builder::new().name("recorder".to_owned()).spawn(work);
        let thread = thread.map_err(error)?;
        let recorder = Recorder { path: path.to_owned(), items: items.clone(), thread };
        Ok((recorder, Tap { items, dropped }))
    }

    /// Waits until everything that was handed over before is written.
    ///
    /// # Errors
    ///
    /// What the system said when it could not go on.
    pub fn finish(self) -> Result<Summary, RecordError> {
        // A recorder that ended before takes no more, and says why.
        let _ = self.items.send(Item::End);
        let ended = self.thread.join().unwrap_or_else(|_| {
            Err(io::Error::other("the recorder ended early; its last message says why"))
        });
        ended.map_err(|source| RecordError { path: self.path, source })
    }
}

/// The inside of the thread.
struct Scribe {
    writer: Writer<File>,
    directory: Arc<Directory>,
    dropped: Arc<AtomicU64>,
    /// As they were written last.
    containers: HashMap<ContainerId, Container>,
    processes: HashSet<ProcessId>,
    /// Of the newest item.
    time: UnixNanos,
}

impl Scribe {
    fn write(mut self, inbox: &Receiver<Item>) -> io::Result<Summary> {
        let mut next_flush = Instant::now() + FLUSH_EVERY;
        loop {
            let patience = next_flush.saturating_duration_since(Instant::now());
            match inbox.recv_timeout(patience) {
                Ok(Item::Batch(batch)) => self.batch(&batch)?,
                Ok(Item::Tick(tick)) => self.tick(&tick)?,
                Ok(Item::Death(record)) => self.death(&record)?,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Item::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= next_flush {
                self.writer.flush()?;
                next_flush = Instant::now() + FLUSH_EVERY;
            }
        }
        let dropped = self.take_dropped();
        let (file, summary) = self.writer.end(self.time, dropped)?;
        file.sync_all()?;
        Ok(summary)
    }

    fn batch(&mut self, batch: &Batch) -> io::Result<()> {
        for event in &batch.events {
            self.time = event.time;
            if !self.containers.contains_key(&event.container) {
                self.container(event.container)?;
            }
            if let Some(id) = event.process
                && self.processes.insert(id)
                && let Some(process) = self.directory.process(id)
            {
                self.writer.process(&process)?;
            }
        }
        let dropped = self.take_dropped();
        self.writer.batch(batch, dropped)
    }

    fn tick(&mut self, tick: &Tick) -> io::Result<()> {
        self.time = tick.time;
        for totals in &tick.containers {
            self.container(totals.container)?;
        }
        self.writer.tick(tick)
    }

    fn death(&mut self, record: &DeathRecord) -> io::Result<()> {
        self.container(ContainerId(record.container.id))?;
        self.writer.death(record)
    }

    /// Writes what the directory says of a container, if that is news: names arrive later than events.
    fn container(&mut self, id: ContainerId) -> io::Result<()> {
        let Some(container) = self.directory.container(id) else {
            return Ok(());
        };
        if self.containers.get(&id) != Some(&container) {
            self.writer.container(&container)?;
            self.containers.insert(id, container);
        }
        Ok(())
    }

    fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

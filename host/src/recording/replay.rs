//! Hands a recording to plugins, one thing after the other: the next one only when every plugin has
//! done with the last. So a replay is the same every time, and no event is dropped.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::{Ending, Entry, ReadError, Reader, Start};
use crate::directory::Directory;
use crate::dispatch::Dispatcher;
use crate::event::{Tick, TickCause, UnixNanos};
use crate::exit::{Exit, Exits};
use crate::plugin::{Clock, Deaths};

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
#[error("the recording {} was not replayed to its end: {source}", path.display())]
pub struct ReplayError {
    path: PathBuf,
    source: ReadError,
}

impl Exits for ReplayError {
    fn exit(&self) -> Exit {
        Exit::Failure
    }
}

/// What was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Replayed {
    /// Events.
    pub events: u64,
    /// Ticks, with the last one.
    pub ticks: u64,
    /// Deaths.
    pub deaths: u64,
    /// Events and deaths that the recording says are missing from it.
    pub missing: u64,
    /// Entries and events of kinds that this daemon does not know.
    pub unknown: u64,
    /// Bytes at the end that are no whole block: the recorder was killed, or the file was cut.
    pub cut_off_bytes: u64,
}

/// An opened recording.
pub struct Replay {
    path: PathBuf,
    reader: Reader<BufReader<File>>,
}

impl Replay {
    /// Opens a recording and reads its beginning.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn open(path: &Path) -> Result<Replay, ReplayError> {
        let error = |source| ReplayError { path: path.to_owned(), source };
        let file = File::open(path).map_err(|cause| error(ReadError::Io(cause)))?;
        let reader = Reader::new(BufReader::new(file)).map_err(error)?;
        Ok(Replay { path: path.to_owned(), reader })
    }

    /// Where and when it was made.
    pub fn start(&self) -> &Start {
        self.reader.start()
    }

    /// Hands everything over. The last tick is always one that says that the daemon stops: where the
    /// recording was cut off, it has the totals of the tick before.
    ///
    /// # Errors
    ///
    /// If the recording is damaged. What came before was handed over.
    pub fn run(
        mut self,
        directory: &Directory,
        dispatcher: &Dispatcher,
        deaths: &Deaths,
        clock: &Clock,
    ) -> Result<Replayed, ReplayError> {
        let mut replayed = Replayed::default();
        let result = self.hand_over(directory, dispatcher, deaths, clock, &mut replayed);
        replayed.unknown = self.reader.unknown();
        match self.reader.ending() {
            Some(Ending::Whole { dropped, .. }) => replayed.missing += dropped,
            Some(Ending::CutOff { bytes }) => replayed.cut_off_bytes = bytes,
            None => {}
        }
        result.map(|()| replayed).map_err(|source| ReplayError { path: self.path, source })
    }

    fn hand_over(
        &mut self,
        directory: &Directory,
        dispatcher: &Dispatcher,
        deaths: &Deaths,
        clock: &Clock,
        replayed: &mut Replayed,
    ) -> Result<(), ReadError> {
        let mut last: Option<Tick> = None;
        let mut time = self.start().time;
        let outcome = loop {
            let entry = match self.reader.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            match entry {
                Entry::Container(container) => directory.put_container(container),
                Entry::Process(process) => directory.put_process(process),
                Entry::Batch { batch, dropped } => {
                    replayed.missing += dropped;
                    replayed.events += batch.events.len() as u64;
                    time = batch.events.last().map_or(time, |event| event.time);
                    clock.is_at(time);
                    dispatcher.batch(Arc::new(batch));
                }
                Entry::Tick(tick) => {
                    replayed.ticks += 1;
                    time = tick.time;
                    clock.is_at(time);
                    dispatcher.tick(Arc::new(tick.clone()));
                    last = Some(tick);
                }
                Entry::Death(record) => {
                    replayed.deaths += 1;
                    clock.is_at(UnixNanos(record.time_ns));
                    deaths.put(*record);
                    deaths.wait_until_idle();
                }
            }
            dispatcher.wait_until_idle();
        };
        if last.as_ref().is_none_or(|tick| tick.cause != TickCause::Stop) {
            let totals = |tick: Tick| (tick.containers, tick.counters);
            let (containers, counters) = last.map(totals).unwrap_or_default();
            replayed.ticks += 1;
            let tick = Tick { time, cause: TickCause::Stop, containers, counters };
            dispatcher.tick(Arc::new(tick));
            dispatcher.wait_until_idle();
        }
        outcome
    }
}

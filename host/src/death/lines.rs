//! Deaths as lines of JSON for whoever reads along: a file that grows, and standard output.
//!
//! Takes explained deaths and never makes the thread that hands them over wait: a thread of its own writes them, from a bounded
//! queue. What does not fit, or cannot be written, is counted and stands in the history all the same. A line is written whole or
//! taken back.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::explanation::ExplainedDeath;
use crate::config;
use crate::sink::{GrowingFile, StdoutSink};

/// Lines that wait at most: a few megabytes of them.
const CAPACITY: usize = 1_024;

/// Why deaths cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The file cannot be opened.
    #[error(
        "the file of deaths {} cannot be written ({source}): let the daemon write there, or change `deaths.file`",
        path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no thread.
    #[error("the thread that writes deaths cannot be started ({0}): raise the limit of threads")]
    NoThread(io::Error),
}

/// The hand that gives deaths to the writing thread. Dropped, it waits until what was given is written.
pub struct Lines {
    /// None once nothing more comes.
    queue: Option<SyncSender<Vec<u8>>>,
    closing: Arc<AtomicBool>,
    writer: Option<JoinHandle<()>>,
    lost: u64,
}

impl Lines {
    /// Opens what the TOML names, and starts the thread. None where it names nothing.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, and if the system gives no thread.
    pub fn start(config: &config::Deaths) -> Result<Option<Lines>, LinesError> {
        let open = |path: &PathBuf| {
            let failed = |source| LinesError::File { path: path.clone(), source };
            GrowingFile::open(path).map_err(failed)
        };
        let file = config.file.as_ref().map(open).transpose()?;
        let stdout = config.stdout.then_some(StdoutSink);
        if file.is_none() && stdout.is_none() {
            return Ok(None);
        }
        let (queue, lines) = sync_channel(CAPACITY);
        let closing = Arc::new(AtomicBool::new(false));
        let places = file.map(Place::File).into_iter().chain(stdout.map(Place::Stdout));
        let writer = Writer {
            places: places.map(|place| (place, Health::default())).collect(),
            closing: Arc::clone(&closing),
        };
        let writer = thread::Builder::new()
            .name("death-lines".to_owned())
            .spawn(move || writer.run(&lines))
            .map_err(LinesError::NoThread)?;
        Ok(Some(Lines { queue: Some(queue), closing, writer: Some(writer), lost: 0 }))
    }

    /// Hands over a death. Never blocks; where too many wait, it is counted and left out.
    pub fn put(&mut self, death: &ExplainedDeath) {
        let mut line = serde_json::to_vec(death).expect("a record is plain values");
        line.push(b'\n');
        let is_taken = self.queue.as_ref().is_some_and(|queue| queue.try_send(line).is_ok());
        if !is_taken {
            if self.lost == 0 {
                tracing::warn!(
                    "deaths come faster than they can be written: some are in the history alone"
                );
            }
            self.lost += 1;
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        self.queue = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the thread that writes deaths ended early; its last message says why");
        }
        if self.lost > 0 {
            tracing::warn!(lost = self.lost, "deaths that are in the history alone");
        }
    }
}

/// Where lines go.
enum Place {
    File(GrowingFile),
    Stdout(StdoutSink),
}

impl Place {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Place::File(file) => file.write(line),
            Place::Stdout(stdout) => stdout.write(line),
        }
    }

    /// In words.
    fn name(&self) -> String {
        match self {
            Place::File(file) => file.path().display().to_string(),
            Place::Stdout(_) => "standard output".to_owned(),
        }
    }
}

/// How a place did so far.
#[derive(Default)]
struct Health {
    /// The newest attempt failed.
    fails: bool,
    failures: u64,
}

/// The inside of the thread.
struct Writer {
    places: Vec<(Place, Health)>,
    closing: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self, lines: &Receiver<Vec<u8>>) {
        while let Ok(line) = lines.recv() {
            for (place, health) in &mut self.places {
                // A reader that stands still must not hold up the end of the daemon once for each line.
                if health.fails && self.closing.load(Ordering::Acquire) {
                    health.failures += 1;
                    continue;
                }
                match place.write(&line) {
                    Ok(()) => health.fails = false,
                    Err(error) => {
                        if !health.fails {
                            let place = place.name();
                            tracing::warn!(place, %error, "a death cannot be written: it is in the history alone");
                        }
                        health.fails = true;
                        health.failures += 1;
                    }
                }
            }
        }
        for (place, health) in self.places.iter().filter(|(_, health)| health.failures > 0) {
            tracing::warn!(
                place = place.name(),
                deaths = health.failures,
                "deaths were not written"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::history;
    use super::super::record::Subject;
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_said_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = Some(folder.path().join("none/deaths.jsonl"));
        let Err(error) = Lines::start(&config::Deaths { file, stdout: false }) else {
            panic!("nothing can be written there")
        };
        assert!(error.to_string().contains("none/deaths.jsonl cannot be written"), "{error}");
        assert!(Lines::start(&config::Deaths::default()).unwrap().is_none());
    }

    #[test]
    fn nobody_waits_for_a_writer_that_stands_still() {
        let (queue, stuck) = sync_channel(1);
        let closing = Arc::new(AtomicBool::new(false));
        let mut lines = Lines { queue: Some(queue), closing, writer: None, lost: 0 };
        for _ in 0..3 {
            lines.put(&history::tests::death("/a", Subject::Process, 1));
        }
        assert_eq!(lines.lost, 2);
        assert_eq!(stuck.try_iter().count(), 1);
    }
}

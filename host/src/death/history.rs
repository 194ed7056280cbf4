//! The history of deaths on disk: what outlives the container, the daemon and the boot.
//!
//! One line of JSON a death, the oldest first, in one file of the state folder. A line is written whole or, where the
//! daemon is killed in between, is the last one and left out by the next reader. Bounded: when it has grown to twice its
//! size it is written anew, with a share for each container, so that a container that dies all day does not push out the
//! one death of another.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use super::explanation::ExplainedDeath;
use super::record::Subject;

/// Name of the file in the state folder.
pub const FILE: &str = "deaths.jsonl";

/// How many deaths are kept.
const DEATHS: usize = 4_096;
/// How many of them one container may have, and how many of those may be of processes inside of it.
const OF_A_CONTAINER: usize = 512;
const OF_ITS_PROCESSES: usize = 256;
/// The longest line that is read. A record with all its evidence takes a tenth of it.
const LINE_BYTES: usize = 1 << 20;

/// Why the history cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be read or written.
    #[error("the history of deaths {} cannot be {action}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The history, open for writing. There is one in the process that holds the state folder's lock.
pub struct History {
    path: PathBuf,
    file: File,
    lines: usize,
    /// Whether something was written that the disk may not have yet.
    unsynced: bool,
}

impl History {
    /// Opens the history in this folder, and cuts off a line that a killed daemon left unfinished.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, read or cut.
    pub fn open(state_dir: &Path) -> Result<History, HistoryError> {
        let path = state_dir.join(FILE);
        let mut options = OpenOptions::new();
        let opened = options.create(true).append(true).read(true).open(&path);
        let file = opened.map_err(failed(&path, "opened"))?;
        let (lines, whole_bytes) = measure(&file).map_err(failed(&path, "read"))?;
        let mut history = History { path, file, lines, unsynced: false };
        history.file.set_len(whole_bytes).map_err(failed(&history.path, "cut"))?;
        if history.lines > 2 * DEATHS {
            history.compact()?;
        }
        Ok(history)
    }

    /// Appends deaths.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or not be written anew when it has grown too long.
    pub fn append(&mut self, deaths: &[ExplainedDeath]) -> Result<(), HistoryError> {
        if deaths.is_empty() {
            return Ok(());
        }
        let mut text = Vec::with_capacity(deaths.len() * 4_096);
        for death in deaths {
            serde_json::to_writer(&mut text, death).expect("a record is plain values");
            text.push(b'\n');
        }
        self.file.write_all(&text).map_err(failed(&self.path, "written"))?;
        self.lines += deaths.len();
        self.unsynced = true;
        if self.lines > 2 * DEATHS { self.compact() } else { Ok(()) }
    }

    /// Makes sure that the disk has everything.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    pub fn sync(&mut self) -> Result<(), HistoryError> {
        if std::mem::take(&mut self.unsynced) {
            self.file.sync_data().map_err(failed(&self.path, "written"))?;
        }
        Ok(())
    }

    /// Writes the file anew with what is to be kept.
    fn compact(&mut self) -> Result<(), HistoryError> {
        let kept = select(read_path(&self.path)?);
        let mut text = Vec::new();
        for death in &kept {
            serde_json::to_writer(&mut text, death).expect("a record is plain values");
            text.push(b'\n');
        }
        let new = self.path.with_extension("jsonl.new");
        let written = (|| {
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
            if let Some(folder) = self.path.parent() {
                File::open(folder)?.sync_all()?;
            }
            OpenOptions::new().append(true).read(true).open(&self.path)
        })();
        self.file = written.map_err(failed(&self.path, "written anew"))?;
        self.lines = kept.len();
        self.unsynced = false;
        Ok(())
    }
}

impl Drop for History {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = self.sync();
    }
}

/// Reads the deaths of a state folder, the oldest first. Also while a daemon writes them. A line that is no death, because
/// another version of the daemon wrote it or it was cut, is left out.
///
/// # Errors
///
/// If there is a file and it cannot be read.
pub fn read(state_dir: &Path) -> Result<Vec<ExplainedDeath>, HistoryError> {
    read_path(&state_dir.join(FILE))
}

fn read_path(path: &Path) -> Result<Vec<ExplainedDeath>, HistoryError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(path, "read")(source)),
    };
    let mut deaths = Vec::new();
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(failed(path, "read"))?;
        if read == 0 {
            return Ok(deaths);
        }
        if line.len() <= LINE_BYTES
            && let Ok(death) = serde_json::from_slice(&line)
        {
            deaths.push(death);
        }
    }
}

/// How many lines a file has, and how many bytes up to the end of the last whole one.
fn measure(file: &File) -> io::Result<(usize, u64)> {
    let mut reader = BufReader::new(file);
    let (mut lines, mut whole, mut at) = (0, 0, 0);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok((lines, whole));
        }
        for (index, byte) in bytes.iter().enumerate() {
            if *byte == b'\n' {
                lines += 1;
                whole = at + index as u64 + 1;
            }
        }
        let length = bytes.len();
        at += length as u64;
        reader.consume(length);
    }
}

/// The newest deaths, with a share for each container.
fn select(deaths: Vec<ExplainedDeath>) -> Vec<ExplainedDeath> {
    let mut shares: HashMap<String, (usize, usize)> = HashMap::new();
    let mut kept: Vec<ExplainedDeath> = deaths
        .into_iter()
        .rev()
        .filter(|death| {
            let record = &death.death;
            let (all, processes) = shares.entry(record.container.cgroup_path.clone()).or_default();
            let is_process = record.subject == Subject::Process;
            if *all >= OF_A_CONTAINER || (is_process && *processes >= OF_ITS_PROCESSES) {
                return false;
            }
            *all += 1;
            *processes += usize::from(is_process);
            true
        })
        .take(DEATHS)
        .collect();
    kept.reverse();
    kept
}

fn failed<'a>(
    path: &'a Path,
    action: &'static str,
) -> impl FnOnce(io::Error) -> HistoryError + use<'a> {
    move |source| HistoryError::File { path: path.to_owned(), action, source }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::explanation::Explanation;
    use super::super::record::{Container, DeadProcess, DeathRecord, Losses, SCHEMA, WaitStatus};
    use super::*;

    pub(crate) fn death(container: &str, subject: Subject, time_ns: u64) -> ExplainedDeath {
        ExplainedDeath {
            death: DeathRecord {
                schema: SCHEMA,
                time_ns,
                subject,
                container: Container { cgroup_path: container.to_owned(), ..Container::default() },
                process: DeadProcess::default(),
                status: WaitStatus::Exited { code: 1 },
                evidence: Vec::new(),
                decided_by: None,
                unseen: Vec::new(),
                losses: Losses::default(),
            },
            explanation: Explanation::Unexplained { reason: "no explainer".to_owned() },
        }
    }

    #[test]
    fn what_was_written_is_read_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), []);
        let deaths = [death("/a", Subject::Process, 1), death("/a", Subject::Container, 2)];
        History::open(folder.path()).unwrap().append(&deaths[..1]).unwrap();
        let mut history = History::open(folder.path()).unwrap();
        history.append(&deaths[1..]).unwrap();
        history.sync().unwrap();
        assert_eq!(read(folder.path()).unwrap(), deaths);
    }

    #[test]
    fn a_line_that_a_killed_daemon_left_unfinished_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let deaths = [death("/a", Subject::Container, 1), death("/a", Subject::Container, 2)];
        History::open(folder.path()).unwrap().append(&deaths[..1]).unwrap();
        let path = folder.path().join(FILE);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"death\":{\"schema\":1,\"tim").unwrap();
        assert_eq!(read(folder.path()).unwrap(), deaths[..1]);
        History::open(folder.path()).unwrap().append(&deaths[1..]).unwrap();
        assert_eq!(read(folder.path()).unwrap(), deaths);
    }

    #[test]
    fn foreign_lines_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), b"nonsense\n{}\n\xff\xfe\n").unwrap();
        let deaths = [death("/a", Subject::Container, 1)];
        History::open(folder.path()).unwrap().append(&deaths).unwrap();
        assert_eq!(read(folder.path()).unwrap(), deaths);
    }

    #[test]
    fn it_stays_bounded_and_every_container_keeps_its_share() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = History::open(folder.path()).unwrap();
        history.append(&[death("/quiet", Subject::Container, 1)]).unwrap();
        let flood: Vec<ExplainedDeath> =
            (0..2 * DEATHS as u64).map(|time| death("/loud", Subject::Process, time)).collect();
        history.append(&flood).unwrap();
        let kept = read(folder.path()).unwrap();
        assert_eq!(kept.len(), 1 + OF_ITS_PROCESSES);
        assert_eq!(kept[0].death.container.cgroup_path, "/quiet");
        assert_eq!(kept.last(), flood.last());
        history.append(&[death("/quiet", Subject::Container, 2)]).unwrap();
        assert_eq!(read(folder.path()).unwrap().len(), 2 + OF_ITS_PROCESSES);
    }
}

//! Reads the history of deaths: JSON lines, the oldest first.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::death::explanation::ExplainedDeath;
use crate::exit::{Exit, Exits};

/// Name of the file in the state folder.
const FILE: &str = "deaths.jsonl";

/// The history is there and cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the history of deaths {} cannot be read: {source}", path.display())]
pub(super) struct HistoryError {
    path: PathBuf,
    source: io::Error,
}

impl Exits for HistoryError {
    fn exit(&self) -> Exit {
        match self.source.kind() {
            io::ErrorKind::PermissionDenied => Exit::Permission,
            _ => Exit::Failure,
        }
    }
}

/// Every death of the history. A line that is none (cut by a crash, or of another version) is left out.
pub(super) fn read(state_dir: &Path) -> Result<Vec<ExplainedDeath>, HistoryError> {
    let path = state_dir.join(FILE);
    let failed = |source| HistoryError { path: path.clone(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut deaths = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        deaths.extend(serde_json::from_slice::<ExplainedDeath>(&line.map_err(failed)?).ok());
    }
    Ok(deaths)
}

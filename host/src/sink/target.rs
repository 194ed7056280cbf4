//! What an output writes to.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use super::{FileSink, GrowingFile, StdoutSink};
use crate::post::Courier;

pub(super) enum Target {
    File(FileSink),
    /// Grows by each document: none replaces another. Locked by the one thread that writes.
    Lines(Mutex<GrowingFile>),
    Stdout(StdoutSink),
    /// Writes by itself.
    Http(Courier),
}

impl Target {
    pub(super) fn write(&self, body: &[u8]) -> io::Result<()> {
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

    pub(super) fn read(&self, at_most: usize) -> Option<Vec<u8>> {
        match self {
            Target::File(file) => file.read(at_most),
            Target::Lines(_) | Target::Stdout(_) | Target::Http(_) => None,
        }
    }

    /// The file that it writes, absolute.
    pub(super) fn path(&self) -> Option<PathBuf> {
        match self {
            Target::File(file) => Some(file.path().to_owned()),
            Target::Lines(file) => Some(file.lock().expect("no writer panics").path().to_owned()),
            Target::Stdout(_) | Target::Http(_) => None,
        }
    }

    /// Where documents go, in words.
    pub(super) fn place(&self) -> String {
        match self {
            Target::Http(courier) => courier.place().to_owned(),
            Target::File(_) | Target::Lines(_) | Target::Stdout(_) => {
                let path = self.path().map(|path| path.display().to_string());
                path.unwrap_or_else(|| "standard output".to_owned())
            }
        }
    }

    /// What sends documents, where a server gets them.
    pub(super) fn courier(&self) -> Option<&Courier> {
        match self {
            Target::Http(courier) => Some(courier),
            Target::File(_) | Target::Lines(_) | Target::Stdout(_) => None,
        }
    }
}

//! A file that grows: what is written comes after what is there, whole or not at all.
//!
//! Where the file was moved away, as who makes room does it, a new one is begun: nobody has to be told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file that grows.
pub(crate) struct GrowingFile {
    path: PathBuf,
    file: File,
}

impl GrowingFile {
    /// Opens the file, or makes it. Its folder has to be there.
    pub(crate) fn open(path: &Path) -> io::Result<GrowingFile> {
        Ok(GrowingFile { path: path.to_owned(), file: append_to(path)? })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds lines. Where that fails, nothing of them stays.
    pub(crate) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let ours = self.file.metadata()?;
        let is_there = fs::metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        if !is_there {
            // It was moved away to make room for a new one.
            self.file = append_to(&self.path)?;
        }
        let before = self.file.metadata()?.len();
        self.file.write_all(lines).inspect_err(|_| {
            // Half a line is no line. Where not even that can be undone, the disk is to blame, and that is said already.
            let _ = self.file.set_len(before);
        })
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("deaths.jsonl"), folder.path().join("old.jsonl"));
        fs::write(&path, "before\n").unwrap();
        let mut growing = GrowingFile::open(&path).unwrap();
        growing.write(b"one\n").unwrap();
        fs::rename(&path, &old).unwrap();
        growing.write(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "before\none\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        fs::remove_file(&path).unwrap();
        growing.write(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }
}

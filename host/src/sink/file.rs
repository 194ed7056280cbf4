//! A document as a file: always whole. Temporary file in the same folder, fsync, rename, fsync of the
//! folder. A killed daemon leaves the old document or the new one, and at most a temporary file that
//! the next start removes.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{SinkError, SinkId};

/// A file that is replaced whole.
pub(super) struct FileSink {
    folder: PathBuf,
    path: PathBuf,
    /// `.<name>.whodunit-`; a process id, a number and `.tmp` follow.
    temporary_prefix: OsString,
    temporaries: AtomicU64,
}

/// What must fit for a folder to count as writable: a block of a file system.
const TRIAL_BYTES: usize = 4096;

const TEMPORARY_SUFFIX: &[u8] = b".tmp";

impl FileSink {
    /// Where a file of an output is, absolute: its folder is there, and no folder has its name.
    pub(super) fn place(sink: &SinkId, path: &Path) -> Result<PathBuf, SinkError> {
        let not_a_file = || SinkError::NotAFile { sink: sink.clone(), path: path.to_owned() };
        let name = path.file_name().ok_or_else(not_a_file)?;
        let named_folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            Some(_) | None => Path::new("."),
        };
        // Absolute, so that a later change of the working folder changes nothing.
        let folder = fs::canonicalize(named_folder).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => {
                SinkError::NoFolder { sink: sink.clone(), folder: named_folder.to_owned() }
            }
            io::ErrorKind::NotADirectory => {
                SinkError::NotAFolder { sink: sink.clone(), folder: named_folder.to_owned() }
            }
            _ => SinkError::NotWritable {
                sink: sink.clone(),
                folder: named_folder.to_owned(),
                cause,
            },
        })?;
        if !folder.is_dir() {
            return Err(SinkError::NotAFolder { sink: sink.clone(), folder });
        }
        let path = folder.join(name);
        if path.is_dir() {
            return Err(not_a_file());
        }
        Ok(path)
    }

    /// Checks the folder, removes what a killed predecessor left, and tries to write.
    pub(super) fn open(sink: &SinkId, path: &Path) -> Result<FileSink, SinkError> {
        let path = FileSink::place(sink, path)?;
        let folder = path.parent().unwrap_or(&path).to_owned();
        let name = path.file_name().unwrap_or_default();
        let mut temporary_prefix = OsString::from(".");
        temporary_prefix.push(name);
        temporary_prefix.push(".whodunit-");
        let file = FileSink { folder, path, temporary_prefix, temporaries: AtomicU64::new(0) };
        file.remove_stale_temporaries().and_then(|()| file.try_to_write()).map_err(|cause| {
            let (sink, folder) = (sink.clone(), file.folder.clone());
            match cause.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    SinkError::Full { sink, folder }
                }
                _ => SinkError::NotWritable { sink, folder, cause },
            }
        })?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn write(&self, body: &[u8]) -> io::Result<()> {
        let temporary = self.temporary()?;
        let mut file = &temporary.file;
        file.write_all(body)?;
        file.sync_all()?;
        fs::rename(&temporary.path, &self.path)?;
        temporary.keep();
        File::open(&self.folder)?.sync_all()
    }

    pub(super) fn read(&self, at_most: usize) -> Option<Vec<u8>> {
        let file = File::open(&self.path).ok()?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut body = Vec::new();
        file.take(at_most as u64 + 1).read_to_end(&mut body).ok()?;
        (body.len() <= at_most).then_some(body)
    }

    /// Writes something and syncs it: on a full disk an empty file can be made all the same.
    fn try_to_write(&self) -> io::Result<()> {
        let temporary = self.temporary()?;
        let mut file = &temporary.file;
        file.write_all(&[0; TRIAL_BYTES])?;
        file.sync_all()
    }

    fn temporary(&self) -> io::Result<Temporary> {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        let mut name = self.temporary_prefix.clone();
        name.push(format!("{}-{number}.tmp", process::id()));
        let path = self.folder.join(name);
        // Of this process's number, so of nobody who still lives.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path)?;
        Ok(Temporary { path, file, renamed: false })
    }

    fn remove_stale_temporaries(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if self.is_temporary_of_ours(&entry.file_name()) {
                fs::remove_file(entry.path())?;
                tracing::info!(
                    path = %entry.path().display(),
                    "removed a temporary file that a killed daemon left"
                );
            }
        }
        Ok(())
    }

    /// Exactly the names that this sink gives: nobody else's file is ever removed.
    fn is_temporary_of_ours(&self, name: &OsStr) -> bool {
        let rest = name.as_bytes().strip_prefix(self.temporary_prefix.as_bytes());
        let Some(numbers) = rest.and_then(|rest| rest.strip_suffix(TEMPORARY_SUFFIX)) else {
            return false;
        };
        let is_number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let mut parts = numbers.split(|byte| *byte == b'-');
        let (process, number) = (parts.next(), parts.next());
        process.is_some_and(is_number) && number.is_some_and(is_number) && parts.next().is_none()
    }
}

/// A file that is removed unless it was renamed.
struct Temporary {
    path: PathBuf,
    file: File,
    renamed: bool,
}

impl Temporary {
    fn keep(mut self) {
        self.renamed = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // Where even this fails, the next start removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

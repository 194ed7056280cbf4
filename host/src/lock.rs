//! One daemon for each state folder.
//!
//! Owns the file `lock` in it: the daemon that holds the kernel's lock on that file (`flock`) has the
//! folder for itself, and its process id stands in the file for whoever comes second. The kernel
//! releases the lock when the process ends in whatever way, so nothing has to be cleaned up; the file
//! is never removed, since a lock on a removed file excludes nobody.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::exit::{Exit, Exits};

/// Name of the file in the state folder.
pub const FILE_NAME: &str = "lock";

/// Mode of a state folder that is made here: others have no business with what containers do.
const FOLDER_MODE: u32 = 0o750;

/// The right to use a state folder, for as long as this value lives.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon uses it.
    #[error(
        "another whodunit{} uses the state folder {}: stop it, or choose another with `state_dir`",
        .pid.map_or(String::new(), |pid| format!(" (process {pid})")), .folder.display()
    )]
    Held {
        /// The state folder.
        folder: PathBuf,
        /// The other daemon, as its own pid namespace numbers it. None in the moment between its
        /// locking and its writing.
        pid: Option<u32>,
    },
    /// Something on the way to it is not a folder.
    #[error(
        "the state folder {} cannot be made, since a part of that path is not a folder: \
         choose another with `state_dir`",
        .folder.display()
    )]
    NotAFolder {
        /// The state folder.
        folder: PathBuf,
    },
    /// Its file system cannot be written.
    #[error(
        "the state folder {} is on a read-only file system: mount one that can be written, \
         or choose another folder with `state_dir`",
        .folder.display()
    )]
    ReadOnly {
        /// The state folder.
        folder: PathBuf,
    },
    /// This user may not write it.
    #[error(
        "no permission to write in the state folder {}: run as root, \
         or choose another folder with `state_dir`",
        .folder.display()
    )]
    Permission {
        /// The state folder.
        folder: PathBuf,
    },
    /// Its lock file is something else than a plain file.
    #[error("{} is not a plain file: remove it, or choose another folder with `state_dir`", .path.display())]
    NotAFile {
        /// The lock file.
        path: PathBuf,
    },
    /// Anything else, such as a full disk.
    #[error(
        "cannot lock the state folder {}: {source}: repair that, \
         or choose another folder with `state_dir`",
        .folder.display()
    )]
    Other {
        /// The state folder.
        folder: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Exits for LockError {
    fn exit(&self) -> Exit {
        match self {
            LockError::Held { .. } | LockError::Other { .. } => Exit::Failure,
            LockError::Permission { .. } => Exit::Permission,
            LockError::NotAFolder { .. }
            | LockError::ReadOnly { .. }
            | LockError::NotAFile { .. } => Exit::Configuration,
        }
    }
}

impl Lock {
    /// Takes a state folder for this process, and makes the folder where it is missing.
    pub fn take(folder: &Path) -> Result<Lock, LockError> {
        let refused = |error: io::Error| refused(folder, error);
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(refused)?;
        let path = folder.join(FILE_NAME);
        // Not truncated: until the lock is ours, the content is another daemon's. A symbolic link
        // is not followed, and a FIFO does not make the daemon wait.
        let flags = OFlags::RDWR
            | OFlags::CREATE
            | OFlags::CLOEXEC
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY;
        let opened = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o640));
        let mut file = match opened {
            Ok(file) => File::from(file),
            Err(Errno::LOOP | Errno::ISDIR) => return Err(LockError::NotAFile { path }),
            Err(error) => return Err(refused(error.into())),
        };
        if !file.metadata().map_err(refused)?.is_file() {
            return Err(LockError::NotAFile { path });
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(LockError::Held { folder: folder.to_owned(), pid: written_pid(&file) });
            }
            Err(error) => return Err(refused(error.into())),
        }
        let record = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        record(&mut file).map_err(refused)?;
        Ok(Lock { file })
    }
}

impl Drop for Lock {
    /// The kernel releases the lock with the file; the number goes first, so that it never stands for
    /// a process that is gone. A failure to remove it harms nobody: it is read only while the lock
    /// is held, and then it is the holder's.
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

fn written_pid(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn refused(folder: &Path, error: io::Error) -> LockError {
    let folder = folder.to_owned();
    match error.kind() {
        // `create_dir_all` says "already exists" where the last part is a file.
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            LockError::NotAFolder { folder }
        }
        io::ErrorKind::ReadOnlyFilesystem => LockError::ReadOnly { folder },
        io::ErrorKind::PermissionDenied => LockError::Permission { folder },
        _ => LockError::Other { folder, source: error },
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Child, ChildStdout, Command, Stdio};

    use super::*;

    /// Names the folder that a second process of this test binary locks.
    const FOLDER_FOR_HOLDER: &str = "WHODUNIT_TEST_LOCK_FOLDER";

    /// Not a claim of its own: the body of the second process of the tests below.
    #[test]
    fn second_process_holds_the_lock_until_its_input_ends() {
        let Some(folder) = std::env::var_os(FOLDER_FOR_HOLDER) else {
            return;
        };
        let lock = Lock::take(Path::new(&folder)).expect("the folder is free");
        println!("\nheld");
        io::stdin().read_line(&mut String::new()).expect("standard input can be read");
        drop(lock);
    }

    /// The second process. Its output stays open: a test binary that cannot print fails.
    struct Holder {
        process: Child,
        _output: BufReader<ChildStdout>,
    }

    fn holder(folder: &Path) -> Holder {
        let this_binary = std::env::current_exe().unwrap();
        let mut process = Command::new(this_binary)
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("lock::tests::second_process_holds_the_lock_until_its_input_ends")
            .env(FOLDER_FOR_HOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let held = output.by_ref().lines().map_while(Result::ok).any(|line| line == "held");
        assert!(held, "the second process has ended without the lock");
        Holder { process, _output: output }
    }

    fn pid_of_holder(folder: &Path) -> Option<u32> {
        match Lock::take(folder) {
            Err(LockError::Held { pid, .. }) => pid,
            other => panic!("the lock is not held by another: {other:?}"),
        }
    }

    #[test]
    fn a_second_daemon_is_refused_and_told_which_process_and_folder() {
        let folder = tempfile::tempdir().unwrap();
        let Holder { process: mut child, _output } = holder(folder.path());
        let error = Lock::take(folder.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "another whodunit (process {}) uses the state folder {}: stop it, \
                 or choose another with `state_dir`",
                child.id(),
                folder.path().display()
            )
        );
        assert_eq!(error.exit(), Exit::Failure);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        Lock::take(folder.path()).expect("the lock is released with the process");
    }

    #[test]
    fn the_lock_of_a_killed_daemon_is_free_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let Holder { process: mut child, _output } = holder(folder.path());
        assert_eq!(pid_of_holder(folder.path()), Some(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        let lock = Lock::take(folder.path()).expect("the kernel has released the lock");
        assert_eq!(pid_of_holder(folder.path()), Some(std::process::id()));
        drop(lock);
        assert_eq!(std::fs::read(folder.path().join(FILE_NAME)).unwrap(), b"");
    }

    #[test]
    fn a_missing_folder_is_made_for_the_owner_and_the_group() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("one/two");
        let _lock = Lock::take(&folder).unwrap();
        let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777 & !FOLDER_MODE, 0, "{mode:o}");
    }

    #[test]
    fn a_path_through_a_file_is_refused_in_one_sentence() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        for folder in [file.clone(), file.join("below")] {
            let error = Lock::take(&folder).unwrap_err();
            assert!(matches!(error, LockError::NotAFolder { .. }), "{error:?}");
            assert_eq!(error.exit(), Exit::Configuration);
        }
    }

    #[test]
    fn a_lock_file_that_is_a_link_or_a_folder_is_never_written_through() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("target");
        std::fs::write(&target, "precious").unwrap();
        let linked = parent.path().join("linked");
        let foldered = parent.path().join("foldered");
        std::fs::create_dir(&linked).unwrap();
        std::os::unix::fs::symlink(&target, linked.join(FILE_NAME)).unwrap();
        std::fs::create_dir_all(foldered.join(FILE_NAME)).unwrap();
        for folder in [linked, foldered] {
            let error = Lock::take(&folder).unwrap_err();
            assert!(matches!(error, LockError::NotAFile { .. }), "{error:?}");
        }
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    }

    #[test]
    fn a_folder_of_the_kernel_is_refused_in_one_sentence() {
        // Root may write anywhere but where the kernel itself says no, which `/proc` does for
        // everybody. It answers "no such file" to the making of a folder.
        let error = Lock::take(Path::new("/proc/whodunit")).unwrap_err();
        assert!(error.to_string().contains("/proc/whodunit"), "{error}");
        assert!(error.to_string().contains("`state_dir`"), "{error}");
    }

    #[test]
    fn every_refusal_of_the_kernel_has_its_sentence_and_exit() {
        for (errno, exit, part) in [
            (Errno::ROFS, Exit::Configuration, "read-only file system"),
            (Errno::ACCESS, Exit::Permission, "no permission"),
            (Errno::PERM, Exit::Permission, "no permission"),
            (Errno::NOTDIR, Exit::Configuration, "not a folder"),
            (Errno::NOSPC, Exit::Failure, "No space left"),
        ] {
            let error = refused(Path::new("/var/lib/whodunit"), errno.into());
            assert_eq!(error.exit(), exit, "{error}");
            assert!(error.to_string().contains(part), "{error}");
            assert!(error.to_string().contains("/var/lib/whodunit"), "{error}");
        }
    }
}

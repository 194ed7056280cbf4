//! Mounts that go away again.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

/// What can go wrong with a mount.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} a tmpfs at {}: {source}", path.display())]
pub struct MountError {
    action: &'static str,
    path: PathBuf,
    source: rustix::io::Errno,
}

/// A tmpfs of a fixed size, for disks that are full or read-only.
#[derive(Debug)]
pub struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    /// Mounts one over the folder `path`, which exists. `size_bytes` is rounded up to whole pages.
    pub fn mount(path: impl Into<PathBuf>, size_bytes: u64) -> Result<Tmpfs, MountError> {
        let path = path.into();
        let options = CString::new(format!("size={size_bytes},mode=0755"))
            .expect("a number holds no NUL byte");
        mount("tmpfs", &path, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, options.as_c_str())
            .map_err(|source| MountError { action: "mount", path: path.clone(), source })?;
        Ok(Tmpfs { path })
    }

    /// Lets nobody write any more.
    pub fn make_read_only(&self) -> Result<(), MountError> {
        let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
        mount_remount(&self.path, flags, c"").map_err(|source| MountError {
            action: "make read-only",
            path: self.path.clone(),
            source,
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills it with a file of this name until not one more byte fits.
    pub fn fill(&self, name: &str) -> Result<(), MountError> {
        let error = |source| MountError { action: "fill", path: self.path.clone(), source };
        let flags =
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE | rustix::fs::OFlags::APPEND;
        let file = rustix::fs::open(self.path.join(name), flags, Mode::from_raw_mode(0o644))
            .map_err(error)?;
        let mut chunk = vec![0; 64 << 10];
        while !chunk.is_empty() {
            match rustix::io::write(&file, &chunk) {
                Ok(_) => {}
                Err(rustix::io::Errno::NOSPC) => chunk.truncate(chunk.len() / 2),
                Err(source) => return Err(error(source)),
            }
        }
        Ok(())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Detached, so that a process that still holds a file there does not keep it mounted.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

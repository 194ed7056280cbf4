//! What a guest finds: the tree of files that its kernel unpacks into memory (an initramfs, a cpio
//! archive in the format `newc`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cpio::newc::{self, ModeFileType};

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// A file or folder.
    #[error("{} cannot be {action}: {cause}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// Nobody says which libraries a program needs.
    #[error("`ldd {}` does not run: {cause}", path.display())]
    Libraries {
        /// The program.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

fn file_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |cause| ImageError::File { path, action, cause }
}

#[derive(Debug)]
enum Entry {
    Folder,
    Content { bytes: Vec<u8>, mode: u32 },
    Copy { from: PathBuf },
}

/// A tree of files in the making, by absolute paths.
#[derive(Debug, Default)]
pub(crate) struct Image {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Image {
    /// Adds an empty folder.
    pub(crate) fn folder(&mut self, path: impl AsRef<Path>) {
        for folder in path.as_ref().ancestors().filter(|folder| folder.parent().is_some()) {
            self.entries.entry(folder.to_owned()).or_insert(Entry::Folder);
        }
    }

    /// Adds a file with this content.
    pub(crate) fn content(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>, mode: u32) {
        let bytes = bytes.as_ref().to_owned();
        self.add(path.as_ref(), Entry::Content { bytes, mode });
    }

    /// Adds the file of this machine at `from`, under the name `path`, with its permissions.
    pub(crate) fn copy(&mut self, from: impl Into<PathBuf>, path: impl AsRef<Path>) {
        self.add(path.as_ref(), Entry::Copy { from: from.into() });
    }

    /// Adds a program of this machine where it is here, with the libraries that it needs.
    pub(crate) fn program(&mut self, path: &Path) -> Result<(), ImageError> {
        self.copy(path, path);
        for library in libraries(path)? {
            self.copy(&library, &library);
        }
        Ok(())
    }

    fn add(&mut self, path: &Path, entry: Entry) {
        if let Some(folder) = path.parent() {
            self.folder(folder);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Writes the archive.
    pub(crate) fn write(&self, path: &Path) -> Result<(), ImageError> {
        let mut archive = BufWriter::new(File::create(path).map_err(file_error(path, "made"))?);
        for (name, entry) in &self.entries {
            let (kind, mode, content) = match entry {
                Entry::Folder => (ModeFileType::Directory, 0o755, Vec::new()),
                Entry::Content { bytes, mode } => (ModeFileType::Regular, *mode, bytes.clone()),
                Entry::Copy { from } => {
                    let mode = fs::metadata(from).map_err(file_error(from, "read"))?.permissions();
                    let bytes = fs::read(from).map_err(file_error(from, "read"))?;
                    (ModeFileType::Regular, mode.mode() & 0o7777, bytes)
                }
            };
            append(&mut archive, name, u32::from(kind) | mode, &content)
                .map_err(file_error(path, "written"))?;
        }
        newc::trailer(&mut archive)
            .and_then(|archive| archive.flush())
            .map_err(file_error(path, "written"))
    }
}

fn append(archive: &mut impl Write, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let size = u32::try_from(content.len()).map_err(io::Error::other)?;
    let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy().into_owned();
    let mut entry = newc::Builder::new(&name).mode(mode).write(archive, size);
    entry.write_all(content)?;
    entry.finish().map(drop)
}

/// The libraries of a program, its loader included. None for a static one.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let output = Command::new("ldd")
        .arg(program)
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| ImageError::Libraries { path: program.to_owned(), cause })?;
    // For a static program it fails, and says so.
    Ok(paths_of(&output.stdout))
}

/// The paths in lines such as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)`.
fn paths_of(listing: &[u8]) -> Vec<PathBuf> {
    listing
        .split(|byte| byte.is_ascii_whitespace())
        .filter(|word| word.starts_with(b"/"))
        .map(|word| PathBuf::from(std::ffi::OsStr::from_bytes(word)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found() {
        let listing = b"\tlinux-vdso.so.1 (0x00007ffe)\n\
            \tlibseccomp.so.2 => /lib/libseccomp.so.2 (0x00007f1c)\n\
            \tlibgone.so => not found\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f2d)\n";
        assert_eq!(
            paths_of(listing),
            [Path::new("/lib/libseccomp.so.2"), Path::new("/lib64/ld-linux-x86-64.so.2")]
        );
        assert_eq!(paths_of(b"\tnot a dynamic executable\n"), Vec::<PathBuf>::new());
    }

    #[test]
    fn an_archive_holds_folders_before_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let mut image = Image::default();
        image.content("/etc/deep/file", "text", 0o600);
        image.copy("/proc/self/cmdline", "/bin/program");
        image.folder("/empty");
        image.write(&path).unwrap();

        let mut archive = io::Cursor::new(fs::read(&path).unwrap());
        let mut found = Vec::new();
        loop {
            let reader = newc::Reader::new(archive).unwrap();
            let entry = reader.entry().clone();
            if entry.is_trailer() {
                break;
            }
            found.push((entry.name().to_owned(), entry.mode()));
            archive = reader.finish().unwrap();
        }
        let expected = [
            ("bin", 0o040755),
            ("bin/program", 0o100444),
            ("empty", 0o040755),
            ("etc", 0o040755),
            ("etc/deep", 0o040755),
            ("etc/deep/file", 0o100600),
        ];
        assert_eq!(found, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }
}

//! A new plugin: a project that builds and passes its test at once.
//!
//! The projects are the examples of this repository under another name, so what is tested there is what
//! a user gets. Everything that a project needs of whodunit (the contract, the SDK, bindings for C) is
//! in the binary and is written into the project: it builds without this repository, and goes on
//! building when the daemon moves on.

mod languages;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::exit::{Exit, Exits};
use crate::plugin::Role;

/// What is written into projects: `WIT`, `SDK` and `C_BINDINGS`, by the build script.
mod embedded {
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// What a plugin is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Rust, with the SDK.
    Rust,
    /// JavaScript, by componentize-qjs.
    Js,
    /// Python, by componentize-py.
    Python,
    /// C, by any clang that knows WebAssembly.
    C,
}

/// Why there is no new project.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// The name does not do.
    #[error(
        "{name:?} is no name for a plugin: take lower case letters, digits and hyphens, a letter first"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Something is there already.
    #[error("{} is there already: take another name, or remove it", path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Exits for ScaffoldError {
    fn exit(&self) -> Exit {
        match self {
            ScaffoldError::Name { .. } => Exit::Usage,
            ScaffoldError::Exists { .. } | ScaffoldError::Write { .. } => Exit::Failure,
        }
    }
}

/// A file of a project.
struct ProjectFile {
    path: String,
    bytes: Vec<u8>,
    /// Whether it is a program.
    runs: bool,
}

impl ProjectFile {
    fn new(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> ProjectFile {
        ProjectFile { path: path.into(), bytes: bytes.into(), runs: false }
    }

    fn program(path: &str, text: &str) -> ProjectFile {
        ProjectFile { path: path.to_owned(), bytes: text.as_bytes().to_vec(), runs: true }
    }
}

/// Makes the folder `name` in `parent` with a project in it, and gives its path.
///
/// # Errors
///
/// If the name does not do, if the folder is there, or if it cannot be written.
pub fn new_project(
    parent: &Path,
    name: &str,
    role: Role,
    language: Language,
) -> Result<PathBuf, ScaffoldError> {
    if !is_name(name) {
        return Err(ScaffoldError::Name { name: name.to_owned() });
    }
    let files = languages::project(name, role, language);
    let folder = parent.join(name);
    match fs::create_dir(&folder) {
        Ok(()) => {}
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
            return Err(ScaffoldError::Exists { path: folder });
        }
        Err(source) => return Err(ScaffoldError::Write { path: folder, source }),
    }
    for file in files {
        let path = folder.join(&file.path);
        write(&path, &file).map_err(|source| ScaffoldError::Write { path, source })?;
    }
    Ok(folder)
}

fn write(path: &Path, file: &ProjectFile) -> io::Result<()> {
    path.parent().map(fs::create_dir_all).transpose()?;
    fs::write(path, &file.bytes)?;
    if file.runs {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests;

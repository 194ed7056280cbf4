//! Reports as commands read them: what `builtin:report-json` wrote, in numbers and lists for people.
//!
//! Takes documents of its schema (`plugins/report-json/report.schema.json`); gives tables and JSON. Reads
//! files and nothing else: no daemon and no kernel is needed.

mod diff;
mod document;
mod merge;
mod summary;
mod table;
mod view;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use diff::Difference;
pub use document::{Container, Detail, Link, Mount, Refusal, Report};
pub use merge::Merged;
pub use summary::Summary;
pub use view::{container_table, overview_table};

use crate::exit::{Exit, Exits};

/// The version of the schema that is read here.
pub const SCHEMA_VERSION: u64 = 2;

/// Why a report is not read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// There is none, or it may not be read.
    #[error("the report {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no report.
    #[error("{} is no report of whodunit: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It is one of another version.
    #[error(
        "the report {} has schema version {found}, and this whodunit reads {SCHEMA_VERSION}: use the \
         whodunit that wrote it",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// It has no such container.
    #[error(
        "the report {} has no container {name:?}; it has {}", path.display(),
        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
    )]
    NoContainer {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        name: String,
        /// The names that it has.
        known: Vec<String>,
    },
}

impl Exits for ReportError {
    fn exit(&self) -> Exit {
        Exit::Failure
    }
}

/// Reads a report.
///
/// # Errors
///
/// If there is none, or if the file is none of the right version.
pub fn read(path: &Path) -> Result<Report, ReportError> {
    #[derive(serde::Deserialize)]
    struct Version {
        schema_version: u64,
    }
    let bytes =
        fs::read(path).map_err(|source| ReportError::Read { path: path.to_owned(), source })?;
    let parse = |source| ReportError::Parse { path: path.to_owned(), source };
    let version: Version = serde_json::from_slice(&bytes).map_err(parse)?;
    if version.schema_version != SCHEMA_VERSION {
        return Err(ReportError::Version { path: path.to_owned(), found: version.schema_version });
    }
    serde_json::from_slice(&bytes).map_err(parse)
}

/// The containers of a report that go by this name, or by an id that begins so.
///
/// # Errors
///
/// If there is none.
pub fn containers_called<'a>(
    report: &'a Report,
    path: &Path,
    name: &str,
) -> Result<Vec<&'a Container>, ReportError> {
    let named: Vec<_> = report.every_container().filter(|it| it.name == name).collect();
    if !named.is_empty() {
        return Ok(named);
    }
    let by_id: Vec<_> = report.every_container().filter(|it| it.id.starts_with(name)).collect();
    if !name.is_empty() && !by_id.is_empty() {
        return Ok(by_id);
    }
    Err(ReportError::NoContainer {
        path: path.to_owned(),
        name: name.to_owned(),
        known: report.every_container().map(|container| container.name.clone()).collect(),
    })
}

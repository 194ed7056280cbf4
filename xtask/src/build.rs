//! `cargo xtask build`: the daemon as it is shipped.
//!
//! Gives `<target>/whodunit/whodunit`: static, without symbols, and beside it the list of what is inside,
//! `whodunit.cdx.json`. Refuses a binary that would need anything of the machine that it runs on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::elf::{self, Linkage};
use crate::sbom;
use crate::setup::{self, Purpose, SetupError};
use crate::workspace::{CargoError, Workspace};

/// Why there is no daemon to ship.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// Something is missing and cannot be installed.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Cargo failed.
    #[error(transparent)]
    Cargo(#[from] CargoError),
    /// A file could not be read or written.
    #[error("{} cannot be {action}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// The binary is not static.
    #[error(
        "{} is linked dynamically and would not start in an empty container image: build it with \
         the flags of `.cargo/config.toml`, without RUSTFLAGS of your own", .0.display()
    )]
    Dynamic(PathBuf),
    /// `strip` failed.
    #[error("`strip` failed on {}: {cause}; it comes with the package binutils", path.display())]
    Strip {
        /// The file.
        path: PathBuf,
        /// How.
        cause: String,
    },
}

/// Builds, checks, strips, and prints where it is and how large.
pub(crate) fn run(workspace: &Workspace) -> Result<(), BuildError> {
    setup::run(&[Purpose::Build])?;
    let binary = workspace.build_daemon()?;
    let shipped = ship(&binary, &workspace.target_dir.join("whodunit"))?;
    let size = fs::metadata(&shipped).map_err(file_error(&shipped, "read"))?.len();
    let list = shipped.with_file_name("whodunit.cdx.json");
    let bill = sbom::of(workspace, &shipped)?;
    let bill = serde_json::to_vec_pretty(&bill).expect("a JSON value can always be written");
    fs::write(&list, bill).map_err(file_error(&list, "written"))?;
    println!("{}: {size} bytes ({:.1} MB), static", shipped.display(), size as f64 / 1e6);
    Ok(())
}

fn ship(binary: &Path, folder: &Path) -> Result<PathBuf, BuildError> {
    match elf::linkage(binary).map_err(file_error(binary, "read"))? {
        Linkage::Static => {}
        Linkage::Dynamic => return Err(BuildError::Dynamic(binary.to_owned())),
    }
    fs::create_dir_all(folder).map_err(file_error(folder, "made"))?;
    let shipped = folder.join("whodunit");
    let status =
        Command::new("strip").arg("--strip-all").arg("-o").arg(&shipped).arg(binary).status();
    match status {
        Ok(status) if status.success() => Ok(shipped),
        Ok(status) => Err(strip_error(binary, status.to_string())),
        Err(cause) => Err(strip_error(binary, cause.to_string())),
    }
}

fn strip_error(path: &Path, cause: String) -> BuildError {
    BuildError::Strip { path: path.to_owned(), cause }
}

fn file_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> BuildError {
    let path = path.to_owned();
    move |cause| BuildError::File { path, action, cause }
}

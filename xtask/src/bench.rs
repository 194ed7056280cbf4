//! `cargo xtask bench`: what tracing costs.
//!
//! Every row does the same work untraced, traced by a peer, and traced by us, in one run and in the order
//! base-peer-ours-ours-peer-base, so that a machine that slows down slows down all of them. Shows medians
//! as ratios to the untraced work. A row that does not do what it should, such as one that loses events,
//! fails the run; one that is slower than its target is only shown as missed.

mod files;
mod idle;
mod measure;
mod peer;
mod plugins;
mod processes;
mod real;
mod table;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::builder::PossibleValuesParser;
use whodunit_containers::{CgroupError, DaemonError};

use measure::{Bench, Programs};
use table::Row;

use crate::setup::{self, Purpose, SetupError};
use crate::workspace::{Built, CargoError, Workspace};

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// Something is missing and cannot be installed.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The daemon or the load could not be built.
    #[error(transparent)]
    Cargo(#[from] CargoError),
    /// A cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The daemon.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A file or a program.
    #[error("cannot {action}: {cause}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system said.
        cause: io::Error,
    },
    /// A program did not do what it should.
    #[error("{0}")]
    Wrong(String),
}

fn io_error(action: impl Into<String>) -> impl FnOnce(io::Error) -> BenchError {
    let action = action.into();
    move |cause| BenchError::Io { action, cause }
}

/// The bench of `host` that measures plugins.
const PLUGINS: &str = "plugins";

/// Rows that are measured together, by the name that selects them.
type Group = (&'static str, fn(&Bench) -> Result<Vec<Row>, BenchError>);

const GROUPS: [Group; 10] = [
    ("hot", Bench::hot_opens),
    ("cold", Bench::cold_opens),
    ("rates", Bench::rates),
    ("bystander", Bench::bystander_rows),
    ("processes", Bench::processes),
    ("explanations", Bench::explanations),
    ("start", Bench::start),
    ("plugins", Bench::plugin_rows),
    ("real", Bench::real_work),
    ("idle", Bench::idle),
];

/// What is to be measured, and where the result goes beside the table.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Writes the rows as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How often there and back
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Which rows. Without: all
    #[arg(value_name = "ROWS", value_parser = PossibleValuesParser::new(GROUPS.map(|(name, _)| name)))]
    groups: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode, BenchError> {
    setup::run(&[Purpose::Build, Purpose::Containers, Purpose::Test, Purpose::Bench])?;
    // What every other command builds, too: another selection would have other features, and build anew.
    let built = workspace.build(&["build", "--release", "--workspace", "--all-targets"], &[])?;
    let find = |name: &str| {
        // The unit tests of the daemon have its name, too; a bench is built as a test is.
        let is = |built: &&Built| built.target == name && (!built.is_test || name == PLUGINS);
        let missing = || BenchError::Wrong(format!("cargo built no `{name}`"));
        built.iter().find(is).map(|built| built.path.clone()).ok_or_else(missing)
    };
    let programs = Programs {
        daemon: find("whodunit")?,
        load: find("load")?,
        storm: compile_storm(workspace)?,
        plugins: find(PLUGINS)?,
    };
    let bench = Bench::new(programs, options.rounds.into())?;
    let (mut rows, mut failed) = (Vec::new(), false);
    for (name, measure) in select(&options.groups) {
        match measure(&bench) {
            Ok(measured) => rows.extend(measured),
            // The other rows are worth having.
            Err(error) => {
                eprintln!("error: {name}: {error}");
                failed = true;
            }
        }
    }
    table::print(&rows);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&rows).expect("rows are plain values");
        fs::write(path, text + "\n").map_err(io_error(format!("write {}", path.display())))?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The groups of these names, or all, in the order of the table.
fn select(asked: &[String]) -> impl Iterator<Item = Group> {
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|one| one == name);
    GROUPS.into_iter().filter(move |(name, _)| is_asked(name))
}

/// The program that starts and ends processes.
fn compile_storm(workspace: &Workspace) -> Result<PathBuf, BenchError> {
    let program = workspace.target_dir.join("storm");
    let source = workspace.root.join("tests/programs/storm.c");
    let said = run_compiler(&source, &program).map_err(io_error("run the C compiler `cc`"))?;
    match said {
        None => Ok(program),
        Some(why) => Err(BenchError::Wrong(format!("cc fails on {}: {why}", source.display()))),
    }
}

/// Gives what the compiler complains about, if it does.
fn run_compiler(source: &Path, program: &Path) -> io::Result<Option<String>> {
    let mut cc = Command::new("cc");
    let output = cc.args(["-O2", "-Wall", "-static", "-o"]).arg(program).arg(source).output()?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok((!output.status.success()).then_some(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_selected_by_their_names() {
        let names = |asked: &[&str]| {
            let asked: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
            select(&asked).map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]).len(), GROUPS.len());
        assert_eq!(names(&["idle", "hot"]), ["hot", "idle"]);
    }
}

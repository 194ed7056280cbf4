//! `cargo xtask`: the project's own commands.
//!
//! Each command is a module with one `run` at its door. What a command needs on the machine is
//! installed by `setup`, which every command asks for its own needs first.

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod build;
mod contract;
mod coverage;
mod demo;
mod elf;
mod invariants;
mod sbom;
mod setup;
mod steps;
mod tally;
mod test;
mod vm;
mod workspace;

use setup::Purpose;
use workspace::Workspace;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what is missing on this machine
    Setup {
        /// What for. Without: for everything but `bench`
        #[arg(value_enum)]
        purposes: Vec<Purpose>,
    },
    /// Builds the daemon: one static binary for release
    Build,
    /// Shows the daemon at work on a pod of real containers
    Demo {
        /// Where the JSON report is left
        #[arg(long, value_name = "FILE")]
        report: Option<std::path::PathBuf>,
    },
    /// Runs every check and test
    Test,
    /// Runs the integration tests on other kernels, in virtual machines
    Vm {
        /// Versions, such as 5.10. Without: every known one
        #[arg(value_name = "KERNEL")]
        kernels: Vec<String>,
        /// Runs only the tests whose names contain one of these
        #[arg(last = true, value_name = "FILTER")]
        filters: Vec<String>,
    },
    /// Measures what tracing costs, beside the same work untraced and traced by others
    Bench(bench::Options),
    /// Measures the line coverage of the daemon and the plugins
    Coverage,
}

fn main() -> ExitCode {
    if let Some(status) = coverage::run_as_compiler() {
        return status;
    }
    match run(Arguments::parse().command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    let workspace = Workspace::find()?;
    match command {
        Command::Setup { purposes } if purposes.is_empty() => setup::run(&Purpose::USUAL)?,
        Command::Setup { purposes } => setup::run(&purposes)?,
        Command::Build => build::run(&workspace)?,
        Command::Demo { report } => return Ok(demo::run(&workspace, report)?),
        Command::Test => return Ok(test::run(&workspace)?),
        Command::Vm { kernels, filters } => return Ok(vm::run(&workspace, &kernels, &filters)?),
        Command::Bench(options) => return Ok(bench::run(&workspace, &options)?),
        Command::Coverage => return Ok(coverage::run(&workspace)?),
    }
    Ok(ExitCode::SUCCESS)
}

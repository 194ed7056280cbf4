//! `whodunit`: see `whodunit help`.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use whodunit::cli::{self, Commands, Console, FindingsFormat};
use whodunit::config::{Config, STANDARD_FILE};
use whodunit::exit::{Exit, Failure};
use whodunit::lock::Lock;

fn main() -> ExitCode {
    let commands = Commands { run, doctor };
    let mut console = Console {
        variable: &|name| std::env::var_os(name),
        standard_file: Path::new(STANDARD_FILE),
        out: &mut io::stdout(),
        err: &mut io::stderr(),
        err_is_terminal: io::stderr().is_terminal(),
    };
    cli::execute(std::env::args_os(), &commands, &mut console).into()
}

fn run(config: &Config) -> Result<(), Failure> {
    let _lock = Lock::take(&config.daemon.state_dir)?;
    Err(Failure::new(Exit::Failure, "this build has no capture"))
}

fn doctor(_: &Config, _: FindingsFormat, _: &mut dyn io::Write) -> Result<Exit, Failure> {
    Err(Failure::new(
        Exit::Failure,
        "this build has no capture to examine",
    ))
}

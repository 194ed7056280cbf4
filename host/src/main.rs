//! `whodunit`: see `whodunit help`.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use whodunit::cli::{self, Commands, Console};
use whodunit::config::STANDARD_FILE;
use whodunit::{control, daemon, doctor, status, why};

fn main() -> ExitCode {
    let commands = Commands {
        run: daemon::run,
        record: daemon::record,
        doctor: doctor::run,
        why: why::run,
        status: status::run,
        reload: control::reload::run,
        shadow: control::shadow::run,
    };
    let mut console = Console {
        variable: &|name| std::env::var_os(name),
        standard_file: Path::new(STANDARD_FILE),
        out: &mut io::stdout(),
        err: &mut io::stderr(),
        err_is_terminal: io::stderr().is_terminal(),
    };
    cli::execute(std::env::args_os(), &commands, &mut console).into()
}

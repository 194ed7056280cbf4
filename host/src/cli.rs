//! The command line: commands, flags, and what the user gets to read.
//!
//! Takes arguments and environment, loads the configuration, calls the command, and turns its error
//! into one sentence and an exit code. The commands that need a kernel are given by `main`. Reads
//! neither arguments nor environment of the process by itself, so that tests can give their own.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::config::{self, Config, LoadError, Loaded, Override, Setting, Sources};
use crate::exit::{Exit, Exits, Failure};
use crate::logging;

/// The environment variable that names the configuration file.
pub const FILE_VARIABLE: &str = "WHODUNIT_CONFIG";

/// The plugin contract that this daemon speaks.
pub const CONTRACT: &str = "whodunit:plugin@0.1.0";

/// The commands that touch the machine.
#[derive(Clone, Copy, Debug)]
pub struct Commands {
    /// Watches containers until it is told to stop.
    pub run: fn(&Config) -> Result<(), Failure>,
    /// Writes what this machine can do, and says how the process ends.
    pub doctor: fn(&Config, FindingsFormat, &mut dyn Write) -> Result<Exit, Failure>,
}

/// What the command line is connected to.
pub struct Console<'a> {
    /// Looks up an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The configuration file that is read where no other is named.
    pub standard_file: &'a Path,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    /// Whether standard error is a terminal.
    pub err_is_terminal: bool,
}

/// How `doctor` writes its findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FindingsFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Runs the command that the arguments name. `arguments` starts with the name of the program.
pub fn execute(
    arguments: impl IntoIterator<Item = OsString>,
    commands: &Commands,
    console: &mut Console<'_>,
) -> Exit {
    let parsed = CommandLine::command()
        .try_get_matches_from(arguments)
        .and_then(|matches| CommandLine::from_arg_matches(&matches));
    let result = match parsed {
        Ok(CommandLine { command }) => command.execute(commands, console),
        Err(error) => return say_usage(&error, console),
    };
    match result {
        Ok(exit) => exit,
        Err(failure) => {
            // Where standard error is gone there is nobody left to tell.
            let _ = say_failure(&failure, console);
            failure.exit()
        }
    }
}

/// The command line itself, for the documentation.
pub fn command_line() -> clap::Command {
    CommandLine::command()
}

/// Watches containers with eBPF and hands what happens to sandboxed Wasm plugins.
#[derive(Debug, Parser)]
#[command(name = "whodunit", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch containers until SIGTERM or Ctrl-C
    Run(ConfigurationFlags),
    /// Check the configuration and print the one in force
    Check {
        #[command(flatten)]
        flags: ConfigurationFlags,
        /// How the configuration is printed
        #[arg(long, value_enum, default_value = "toml", value_name = "FORMAT")]
        output: ConfigurationFormat,
    },
    /// Say what this machine can do: kernel, BTF, capabilities, probes
    Doctor {
        #[command(flatten)]
        flags: ConfigurationFlags,
        /// How the findings are printed
        #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
        output: FindingsFormat,
    },
    /// Print the version of the daemon and of its plugin contract
    Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ConfigurationFormat {
    /// TOML that can be loaded again.
    Toml,
    /// A JSON object with the names of the TOML.
    Json,
}

/// Every flag here has an environment variable of its name: `--log-level` is `WHODUNIT_LOG_LEVEL`.
/// Values are texts for clap: the rules of the TOML apply to them, wherever they come from.
#[derive(Debug, Args)]
struct ConfigurationFlags {
    /// The configuration file, instead of /etc/whodunit/whodunit.toml [env: WHODUNIT_CONFIG]
    #[arg(short = 'c', long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What is watched: auto, pod, node or cgroups [env: WHODUNIT_SCOPE]
    #[arg(long, value_name = "SCOPE")]
    scope: Option<OsString>,
    /// Where the cgroup v2 hierarchy is mounted [env: WHODUNIT_CGROUP_ROOT]
    #[arg(long, value_name = "FOLDER")]
    cgroup_root: Option<OsString>,
    /// How often reports are written, such as 30s [env: WHODUNIT_INTERVAL]
    #[arg(long, value_name = "DURATION")]
    interval: Option<OsString>,
    /// Folder for the lock and for what must survive a restart [env: WHODUNIT_STATE_DIR]
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<OsString>,
    /// Where the output `report` of the plugin `report` goes; - is standard output [env: WHODUNIT_REPORT]
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    report: Option<OsString>,
    /// The least urgent messages: error, warn, info, debug or trace [env: WHODUNIT_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<OsString>,
    /// How messages look: text or json [env: WHODUNIT_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<OsString>,
}

impl ConfigurationFlags {
    fn load(&self, console: &Console<'_>) -> Result<Loaded, LoadError> {
        let flag = |setting| {
            let text = match setting {
                Setting::Scope => &self.scope,
                Setting::CgroupRoot => &self.cgroup_root,
                Setting::Interval => &self.interval,
                Setting::StateDir => &self.state_dir,
                Setting::Report => &self.report,
                Setting::LogLevel => &self.log_level,
                Setting::LogFormat => &self.log_format,
            };
            text.clone()
        };
        let named = (console.variable)(FILE_VARIABLE).filter(|file| !file.is_empty());
        let file = self.config.clone().or(named.map(PathBuf::from));
        config::load(Sources {
            file: file.as_deref(),
            standard_file: console.standard_file,
            overrides: &Override::collect(flag, console.variable),
        })
    }
}

impl Command {
    fn execute(self, commands: &Commands, console: &mut Console<'_>) -> Result<Exit, Failure> {
        match self {
            Command::Run(flags) => {
                let loaded = flags.load(console)?;
                logging::start(loaded.config.log, console.wants_colours())?;
                tracing::info!(from = %provenance(&loaded), "configuration read");
                (commands.run)(&loaded.config)?;
            }
            Command::Check { flags, output } => {
                let loaded = flags.load(console)?;
                let text = match output {
                    ConfigurationFormat::Toml => {
                        format!(
                            "# From {}.\n{}",
                            provenance(&loaded),
                            loaded.config.to_toml()
                        )
                    }
                    ConfigurationFormat::Json => loaded.config.to_json() + "\n",
                };
                written(console.out.write_all(text.as_bytes()))?;
            }
            Command::Doctor { flags, output } => {
                let loaded = flags.load(console)?;
                return (commands.doctor)(&loaded.config, output, console.out);
            }
            Command::Version => written(console.out.write_all(version().as_bytes()))?,
        }
        Ok(Exit::Success)
    }
}

impl Console<'_> {
    /// Whether standard error shows colours: <https://no-color.org>.
    fn wants_colours(&self) -> bool {
        let set = |name| (self.variable)(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == OsStr::new("dumb"));
        self.err_is_terminal && set("NO_COLOR").is_none() && !dumb
    }
}

/// What a command prints cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
struct OutputError(#[source] io::Error);

impl Exits for OutputError {
    fn exit(&self) -> Exit {
        Exit::Failure
    }
}

/// A reader that has seen enough, such as `head`, is no error.
fn written(result: io::Result<()>) -> Result<(), OutputError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(OutputError),
    }
}

/// clap's own text: help and version on standard output, a wrong command line on standard error.
fn say_usage(error: &clap::Error, console: &mut Console<'_>) -> Exit {
    let text = error.render();
    let written = match (error.use_stderr(), console.wants_colours()) {
        (true, true) => write!(console.err, "{}", text.ansi()),
        (true, false) => write!(console.err, "{text}"),
        (false, _) => write!(console.out, "{text}"),
    };
    match (error.use_stderr(), written) {
        (false, Ok(())) => Exit::Success,
        (false, Err(_)) => Exit::Failure,
        (true, _) => Exit::Usage,
    }
}

fn say_failure(failure: &Failure, console: &mut Console<'_>) -> io::Result<()> {
    match failure.cause() {
        Some(LoadError::Invalid(invalid)) if console.wants_colours() => {
            write!(console.err, "{}", invalid.picture())
        }
        Some(LoadError::Invalid(invalid)) => writeln!(console.err, "{invalid}"),
        _ => writeln!(console.err, "whodunit: error: {}", failure.sentence()),
    }
}

/// What a configuration was made of, such as `/etc/whodunit/whodunit.toml, --scope`.
fn provenance(loaded: &Loaded) -> String {
    let base = match &loaded.file {
        Some(path) => path.display().to_string(),
        None => String::from("defaults"),
    };
    let origins = loaded.origins.iter().map(|origin| format!(", {origin}"));
    base + &origins.collect::<String>()
}

fn version() -> String {
    let linked = if cfg!(target_feature = "crt-static") {
        "static"
    } else {
        "dynamic"
    };
    let machine = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let target = option_env!("WHODUNIT_TARGET").unwrap_or(&machine);
    let mut text = format!(
        "whodunit {}\ntarget: {target} ({linked})\nplugin contract: {CONTRACT}\n",
        env!("CARGO_PKG_VERSION"),
    );
    if let Some(compiler) = option_env!("WHODUNIT_RUSTC") {
        text.push_str(&format!("compiler: {compiler}\n"));
    }
    text
}

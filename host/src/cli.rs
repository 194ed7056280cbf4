//! The command line: commands, flags, and what the user gets to read.
//!
//! Takes arguments and environment, loads the configuration, calls the command, and turns its error
//! into one sentence and an exit code. The commands that need a kernel are given by `main`. Reads
//! neither arguments nor environment of the process by itself, so that tests can give their own.

mod plugin;
mod plugin_project;
mod recordings;
mod reports;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::config::{Config, LoadError, Loaded, Overflow, Override, Reread, Setting};
use crate::control::shadow::Trial;
use crate::exit::{Exit, Exits, Failure};
use crate::logging;
use crate::plugin::{CONTRACT, LoadError as PluginError};
use crate::recording::Summary;
use crate::status::plain;
use crate::why::{Question, StoryFormat};

pub use recordings::RecordRequest;

/// The environment variable that names the configuration file.
pub const FILE_VARIABLE: &str = "WHODUNIT_CONFIG";

/// The commands that touch the machine.
#[derive(Clone, Copy, Debug)]
pub struct Commands {
    /// Watches containers until it is told to stop.
    pub run: fn(&Config, Reread) -> Result<(), Failure>,
    /// Watches containers and writes a recording, until it is told to stop or its time is over.
    pub record: fn(&Config, Reread, &RecordRequest) -> Result<Summary, Failure>,
    /// Writes what this machine can do, and says how the process ends.
    pub doctor: fn(&Config, FindingsFormat, &mut dyn Write) -> Result<Exit, Failure>,
    /// Tells the last deaths, and says how the process ends.
    pub why: fn(&Config, &Question, &mut dyn Write) -> Result<Exit, Failure>,
    /// Writes what the running daemon is doing.
    pub status: fn(&Config, FindingsFormat, &mut dyn Write) -> Result<Exit, Failure>,
    /// Has the running daemon reload a plugin, or all, and writes what came of it.
    pub reload: Reload,
    /// Has the running daemon run a version beside a plugin, and writes how they differ.
    pub shadow: fn(&Config, &Trial, FindingsFormat, &mut dyn Write) -> Result<Exit, Failure>,
}

/// A command about one plugin, by its name, or about all.
pub type Reload =
    fn(&Config, Option<&str>, FindingsFormat, &mut dyn Write) -> Result<Exit, Failure>;

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

/// How `doctor` and `status` write what they found.
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
    /// Show which files containers used, from the report
    Files(reports::FilesCommand),
    /// Compare, join and count reports
    #[command(subcommand)]
    Report(reports::ReportCommand),
    /// Tell the last deaths: who did it, why, and how sure that is
    Why {
        /// Name of a container or pod, or the beginning of a container's id; all if left out
        container: Option<String>,
        /// How many deaths at most, the newest first
        #[arg(short = 'n', long, default_value_t = 5, value_name = "NUMBER")]
        last: usize,
        /// Also processes that ended by themselves or went down with their container
        #[arg(long)]
        all: bool,
        /// How the deaths are told
        #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
        output: StoryFormat,
        #[command(flatten)]
        flags: ConfigurationFlags,
    },
    /// Say what the running daemon is doing: containers, plugins, probes, losses
    Status {
        #[command(flatten)]
        flags: ConfigurationFlags,
        /// How the status is printed
        #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
        output: FindingsFormat,
    },
    /// Write what happens to a file, for plugins to be tried on later
    Record(recordings::RecordFlags),
    /// Hand a recording to the plugins of the configuration
    Replay(recordings::ReplayFlags),
    /// Look at, try and make plugins
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
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
    /// Where HTTP is answered, such as 127.0.0.1:9479, or a port of it [env: WHODUNIT_HTTP]
    #[arg(long, value_name = "ADDRESS")]
    http: Option<OsString>,
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
        self.sources(console).load()
    }

    fn sources(&self, console: &Console<'_>) -> Reread {
        let flag = |setting| {
            let text = match setting {
                Setting::Scope => &self.scope,
                Setting::CgroupRoot => &self.cgroup_root,
                Setting::Interval => &self.interval,
                Setting::StateDir => &self.state_dir,
                Setting::Http => &self.http,
                Setting::Report => &self.report,
                Setting::LogLevel => &self.log_level,
                Setting::LogFormat => &self.log_format,
            };
            text.clone()
        };
        let named = (console.variable)(FILE_VARIABLE).filter(|file| !file.is_empty());
        let file = self.config.clone().or(named.map(PathBuf::from));
        Reread {
            named: file,
            standard_file: console.standard_file.to_owned(),
            overrides: Override::collect(flag, console.variable),
        }
    }
}

impl Command {
    fn execute(self, commands: &Commands, console: &mut Console<'_>) -> Result<Exit, Failure> {
        match self {
            Command::Run(flags) => {
                let sources = flags.sources(console);
                let loaded = sources.load()?;
                logging::start(loaded.config.log, console.wants_colours())?;
                tracing::info!(from = %provenance(&loaded), "configuration read");
                (commands.run)(&loaded.config, sources)?;
            }
            Command::Check { flags, output } => {
                let loaded = flags.load(console)?;
                let text = match output {
                    ConfigurationFormat::Toml => {
                        format!("# From {}.\n{}", provenance(&loaded), loaded.config.to_toml())
                    }
                    ConfigurationFormat::Json => loaded.config.to_json() + "\n",
                };
                written(console.out.write_all(text.as_bytes()))?;
                say_what_only_replays_take(&loaded.config, console)?;
            }
            Command::Doctor { flags, output } => {
                let loaded = flags.load(console)?;
                return (commands.doctor)(&loaded.config, output, console.out);
            }
            Command::Files(command) => return command.execute(console),
            Command::Report(command) => return command.execute(console),
            Command::Why { container, last, all, output, flags } => {
                let loaded = flags.load(console)?;
                let question = Question { container, last, all, format: output };
                return (commands.why)(&loaded.config, &question, console.out);
            }
            Command::Status { flags, output } => {
                let loaded = flags.load(console)?;
                return (commands.status)(&loaded.config, output, console.out);
            }
            Command::Record(flags) => return flags.execute(commands, console),
            Command::Replay(flags) => return flags.execute(console),
            Command::Plugin(command) => return command.execute(commands, console),
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

/// Says what is right for `whodunit replay`, and what `whodunit run` refuses.
fn say_what_only_replays_take(
    config: &Config,
    console: &mut Console<'_>,
) -> Result<(), OutputError> {
    let blocks = config.plugins.iter().filter(|it| it.overflow == Overflow::Block);
    for blocking in blocks {
        let refusal = PluginError::Blocks { plugin: blocking.name.clone() };
        written(writeln!(console.err, "whodunit: `whodunit run` refuses this: {refusal}"))?;
    }
    Ok(())
}

/// An argument that cannot be what was meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

impl Exits for UsageError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// What a command prints cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub(crate) struct OutputError(#[source] io::Error);

impl Exits for OutputError {
    fn exit(&self) -> Exit {
        Exit::Failure
    }
}

/// A reader that has seen enough, such as `head`, is no error.
pub(crate) fn written(result: io::Result<()>) -> Result<(), OutputError> {
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
        // It may hold what others wrote, such as a plugin that does not start.
        _ => writeln!(console.err, "whodunit: error: {}", plain(&failure.sentence())),
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
    let linked = if cfg!(target_feature = "crt-static") { "static" } else { "dynamic" };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What one run of the program gives its user.
    #[derive(Debug)]
    pub(super) struct Told {
        pub(super) exit: Exit,
        pub(super) out: String,
        pub(super) err: String,
    }

    fn run_that_fails(config: &Config, _: Reread) -> Result<(), Failure> {
        let cause = format!("no permission to watch {}", config.discovery.scope.name());
        Err(Failure::new(Exit::Permission, cause))
    }

    fn doctor_that_finds(
        _: &Config,
        format: FindingsFormat,
        out: &mut dyn Write,
    ) -> Result<Exit, Failure> {
        written(writeln!(out, "{format:?}"))?;
        Ok(Exit::Failure)
    }

    fn record_that_counts(
        _: &Config,
        _: Reread,
        request: &RecordRequest,
    ) -> Result<Summary, Failure> {
        let events = request.duration.map_or(0, |duration| duration.as_secs());
        Ok(Summary { events, ..Summary::default() })
    }

    fn why_that_repeats(
        _: &Config,
        question: &Question,
        out: &mut dyn Write,
    ) -> Result<Exit, Failure> {
        written(write!(out, "{question:?}"))?;
        Ok(Exit::Success)
    }

    fn reload_that_repeats(
        _: &Config,
        plugin: Option<&str>,
        format: FindingsFormat,
        out: &mut dyn Write,
    ) -> Result<Exit, Failure> {
        if let Some(unknown) = plugin.filter(|name| *name != "report") {
            return Err(Failure::new(Exit::Failure, format!("there is no {unknown}")));
        }
        written(write!(out, "{plugin:?} {format:?}"))?;
        Ok(Exit::Success)
    }

    #[test]
    fn reload_is_of_one_plugin_or_of_all() {
        assert_eq!(told(&["plugin", "reload"], &[]).out, "None Table");
        let one = told(&["plugin", "reload", "report", "--output", "json"], &[]);
        assert_eq!(one.out, "Some(\"report\") Json");
    }

    fn shadow_that_repeats(
        _: &Config,
        trial: &Trial,
        _: FindingsFormat,
        out: &mut dyn Write,
    ) -> Result<Exit, Failure> {
        let Trial { plugin, file, time, promotion } = trial;
        written(write!(out, "{plugin} {} {time:?} {promotion:?}", file.display()))?;
        Ok(Exit::Success)
    }

    #[test]
    fn a_version_beside_a_plugin_is_named_by_its_whole_path_and_runs_for_half_a_minute() {
        let shadow = |more: &[&str]| {
            told(&[&["plugin", "shadow", "report", "/new.wasm"], more].concat(), &[])
        };
        assert_eq!(shadow(&[]).out, "report /new.wasm 30s Never");
        assert_eq!(shadow(&["--for", "5m", "--promote"]).out, "report /new.wasm 300s IfSame");
        let whatever = shadow(&["--promote", "--accept-differences"]);
        assert_eq!(whatever.out, "report /new.wasm 30s IfSound");
        assert_eq!(shadow(&["--accept-differences"]).exit, Exit::Usage);
        for (wrong, words) in [("soon", "--for is \"soon\""), ("2h", "1h at most")] {
            let refused = shadow(&["--for", wrong]);
            assert_eq!(refused.exit, Exit::Usage);
            assert!(refused.err.contains(words), "{refused:?}");
        }
        let folder = std::env::current_dir().unwrap();
        let relative = told(&["plugin", "shadow", "report", "new.wasm"], &[]).out;
        assert!(relative.contains(folder.join("new.wasm").to_str().unwrap()), "{relative}");
    }

    const COMMANDS: Commands = Commands {
        run: run_that_fails,
        record: record_that_counts,
        doctor: doctor_that_finds,
        why: why_that_repeats,
        status: doctor_that_finds,
        reload: reload_that_repeats,
        shadow: shadow_that_repeats,
    };

    #[test]
    fn why_asks_for_a_container_or_for_all() {
        let ask = |arguments: &[&str]| {
            told_at(arguments, &[], false, Path::new("/nonexistent/whodunit.toml")).out
        };
        assert_eq!(
            ask(&["why"]),
            "Question { container: None, last: 5, all: false, format: Text }"
        );
        assert_eq!(
            ask(&["why", "web", "-n", "2", "--all", "--output", "json"]),
            "Question { container: Some(\"web\"), last: 2, all: true, format: Json }"
        );
    }

    fn told_at(
        arguments: &[&str],
        variables: &[(&str, &str)],
        err_is_terminal: bool,
        standard_file: &Path,
    ) -> Told {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let mut console = Console {
            variable: &variable,
            standard_file,
            out: &mut out,
            err: &mut err,
            err_is_terminal,
        };
        let arguments = std::iter::once("whodunit").chain(arguments.iter().copied());
        let exit = execute(arguments.map(OsString::from), &COMMANDS, &mut console);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Told { exit, out: text(out), err: text(err) }
    }

    pub(super) fn told(arguments: &[&str], variables: &[(&str, &str)]) -> Told {
        told_at(arguments, variables, false, Path::new("/nonexistent/whodunit.toml"))
    }

    fn broken_file() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[daemon]\nintervall = \"30s\"\n").unwrap();
        file
    }

    #[test]
    fn check_prints_the_configuration_in_force_and_what_it_was_made_of() {
        let told = told(&["check", "--scope", "node"], &[("WHODUNIT_INTERVAL", "5s")]);
        assert_eq!(told.exit, Exit::Success, "{told:?}");
        assert_eq!(told.err, "");
        assert!(told.out.starts_with("# From defaults, --scope, WHODUNIT_INTERVAL.\n"), "{told:?}");
        assert!(told.out.contains("\nscope = \"node\"\n"), "{told:?}");
        assert!(told.out.contains("\ninterval = \"5s\"\n"), "{told:?}");
    }

    #[test]
    fn check_says_what_only_a_replay_takes() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let plugin = "[[plugin]]\nname = \"p\"\nsource = \"builtin:death-explainer\"\noverflow = ";
        writeln!(file, "{plugin}\"block\"").unwrap();
        let told = told(&["check", "-c", file.path().to_str().unwrap()], &[]);
        assert_eq!(told.exit, Exit::Success, "{told:?}");
        assert!(
            told.err.starts_with("whodunit: `whodunit run` refuses this: plugin `p`: "),
            "{told:?}"
        );
        assert_eq!(told.err.lines().count(), 1, "{told:?}");
    }

    #[test]
    fn check_prints_json_for_programs() {
        let told = told(&["check", "--output", "json", "--log-level", "debug"], &[]);
        let config: serde_json::Value = serde_json::from_str(&told.out).unwrap();
        assert_eq!(config["log"]["level"], "debug");
        assert_eq!(
            config["plugin"][0]["outputs"]["report"]["file"],
            "/var/lib/whodunit/report.json"
        );
    }

    #[test]
    fn a_broken_file_is_one_line_a_problem_for_logs_and_a_picture_for_a_terminal() {
        let file = broken_file();
        let path = file.path().to_str().unwrap();
        let line =
            format!("{path}:2:1: unknown key `daemon.intervall`: did you mean `interval`?\n");
        for variables in [vec![], vec![("TERM", "xterm")]] {
            let told = told(&["check", "-c", path], &variables);
            assert_eq!((told.exit, told.out.as_str()), (Exit::Configuration, ""));
            assert_eq!(told.err, line);
        }
        let nowhere = Path::new("/nonexistent/whodunit.toml");
        for plain in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            assert_eq!(told_at(&["run", "-c", path], &[plain], true, nowhere).err, line);
        }
        let picture = told_at(&["run", "-c", path], &[("NO_COLOR", "")], true, nowhere);
        assert_eq!(picture.exit, Exit::Configuration);
        assert!(picture.err.contains("\u{1b}["), "{}", picture.err);
        assert!(picture.err.contains("did you mean `interval`?"), "{}", picture.err);
    }

    #[test]
    fn the_file_is_named_by_the_flag_or_else_by_the_variable() {
        let file = broken_file();
        let path = file.path().to_str().unwrap();
        let by_variable = told(&["check"], &[(FILE_VARIABLE, path)]);
        assert_eq!(by_variable.exit, Exit::Configuration);
        let by_flag = told(&["check", "--config", path], &[(FILE_VARIABLE, "/nonexistent")]);
        assert_eq!(by_flag.err, by_variable.err);
        let empty = told(&["check"], &[(FILE_VARIABLE, "")]);
        assert_eq!(empty.exit, Exit::Success);
        let standard = told_at(&["check"], &[], false, file.path());
        assert_eq!(standard.err, by_variable.err);
    }

    #[test]
    fn a_missing_file_is_one_sentence_and_78() {
        let told = told(&["run", "-c", "/nonexistent/a.toml"], &[]);
        assert_eq!(told.exit.code(), 78);
        assert_eq!(
            told.err,
            "whodunit: error: the configuration file /nonexistent/a.toml does not exist: \
             create it, or name another with --config\n"
        );
    }

    #[test]
    fn a_wrong_value_is_a_fault_of_usage_by_flag_and_of_configuration_by_variable() {
        let by_flag = told(&["check", "--scope", "nod"], &[]);
        assert_eq!(by_flag.exit.code(), 2);
        assert!(by_flag.err.starts_with("whodunit: error: --scope is \"nod\""), "{}", by_flag.err);
        let by_variable = told(&["check"], &[("WHODUNIT_SCOPE", "nod")]);
        assert_eq!(by_variable.exit.code(), 78);
        assert!(by_variable.err.starts_with("whodunit: error: WHODUNIT_SCOPE is \"nod\""));
    }

    #[test]
    fn a_wrong_command_line_is_2_and_help_is_0() {
        for arguments in [&["chekc"][..], &["check", "--scoop", "pod"], &["check", "--cgroup", "x"]]
        {
            let told = told(arguments, &[]);
            assert_eq!((told.exit.code(), told.out.as_str()), (2, ""), "{told:?}");
            assert!(told.err.starts_with("error: "), "{told:?}");
        }
        for arguments in [&["help"][..], &["--help"], &["help", "run"], &["--version"]] {
            let told = told(arguments, &[]);
            assert_eq!((told.exit.code(), told.err.as_str()), (0, ""), "{told:?}");
            assert!(told.out.contains("whodunit"), "{told:?}");
        }
        assert_eq!(told(&[], &[]).exit.code(), 2);
    }

    #[test]
    fn a_command_that_fails_says_one_sentence_and_ends_with_its_code() {
        let told = told(&["run", "--scope", "node", "--log-level", "error"], &[]);
        assert_eq!(told.exit.code(), 77);
        assert_eq!(told.err, "whodunit: error: no permission to watch node\n");
        assert_eq!(told.out, "");
    }

    #[test]
    fn a_failure_is_one_line_that_no_terminal_obeys() {
        let told = told(&["plugin", "reload", "a\n\x1b[2Jb"], &[]);
        assert_eq!(told.err, "whodunit: error: there is no a\\n\\u{1b}[2Jb\n");
    }

    #[test]
    fn doctor_writes_in_the_format_that_was_asked_for_and_decides_the_exit() {
        let table = told(&["doctor"], &[]);
        assert_eq!((table.exit, table.out.as_str()), (Exit::Failure, "Table\n"));
        assert_eq!(told(&["doctor", "--output", "json"], &[]).out, "Json\n");
    }

    #[test]
    fn version_names_the_daemon_its_target_and_its_contract() {
        let told = told(&["version"], &[]);
        let mut lines = told.out.lines();
        assert_eq!(lines.next(), Some(concat!("whodunit ", env!("CARGO_PKG_VERSION"))));
        assert!(lines.next().unwrap().starts_with("target: "));
        assert_eq!(lines.next(), Some("plugin contract: whodunit:plugin@0.1.0"));
    }

    #[test]
    fn the_contract_is_that_of_the_wit_package() {
        let wit = include_str!("../../wit/types.wit");
        let package = wit.lines().find_map(|line| line.strip_prefix("package "));
        assert_eq!(package.map(|it| it.trim_end_matches(';')), Some(CONTRACT));
    }

    #[test]
    fn the_help_of_every_flag_names_its_variable() {
        for setting in Setting::ALL {
            let command = command_line();
            let run = command.find_subcommand("run").unwrap();
            let flag = run.get_arguments().find(|it| it.get_long() == Some(setting.flag()));
            let help = flag.unwrap().get_help().unwrap().to_string();
            assert!(help.contains(&format!("[env: {}]", setting.variable())), "{help}");
        }
    }

    #[test]
    fn a_reader_that_has_left_is_no_error_and_a_full_disk_is() {
        assert!(written(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        let error = written(Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert_eq!(error.exit(), Exit::Failure);
        assert_eq!(error.to_string(), "cannot write to standard output: no storage space");
    }
}

//! `whodunit plugin`: for whoever writes, checks and ships plugins. Nothing but `reload`, which speaks to a
//! running daemon, needs root or a kernel.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::plugin_project::{ComponentizeFlags, NewFlags};
use super::recordings::{duration, sentence, world_of};
use super::{Commands, ConfigurationFlags, Console, FindingsFormat, UsageError, written};
use crate::config::{self, BUILTINS, PluginSource};
use crate::control::shadow::{LONGEST, Trial};
use crate::death::explanation::{ExplainedDeath, Explanation};
use crate::directory::Directory;
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::plugin::{Passport, PluginHost, PluginStatus, Promotion, Role, passport, plugin_role};
use crate::recording::{Replay, ReplayError, Replayed};
use crate::registry::Reference;
use crate::sink::{Outlet, SinkId};

/// How long a plugin gets, after everything was handed over, to end.
const LAST_WORDS: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Say what a plugin file is: role, version, what it wants, its hash
    Inspect(InspectFlags),
    /// List the plugins inside the binary and those of the configuration
    List(ListFlags),
    /// Run one plugin on a recording and print what it emits
    Run(RunFlags),
    /// Have the running daemon read a plugin again, or every plugin
    Reload(ReloadFlags),
    /// Have the running daemon run another version beside a plugin, and show how they differ
    Shadow(ShadowFlags),
    /// Make a project for a new plugin
    New(NewFlags),
    /// Make a component of a core module
    Componentize(ComponentizeFlags),
}

impl PluginCommand {
    pub(super) fn execute(
        self,
        commands: &Commands,
        console: &mut Console<'_>,
    ) -> Result<Exit, Failure> {
        match self {
            PluginCommand::Inspect(flags) => flags.execute(console),
            PluginCommand::List(flags) => flags.execute(console),
            PluginCommand::Run(flags) => flags.execute(console),
            PluginCommand::Reload(ReloadFlags { plugin, flags, output }) => {
                let loaded = flags.load(console)?;
                (commands.reload)(&loaded.config, plugin.as_deref(), output, console.out)
            }
            PluginCommand::Shadow(flags) => flags.execute(commands, console),
            PluginCommand::New(flags) => flags.execute(console),
            PluginCommand::Componentize(flags) => flags.execute(console),
        }
    }
}

/// What `plugin inspect` is asked.
#[derive(Debug, Args)]
pub(super) struct InspectFlags {
    /// A component file, builtin:NAME, or oci://REGISTRY/NAME:TAG
    #[arg(value_name = "PLUGIN")]
    plugin: String,
    /// How the findings are printed
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: FindingsFormat,
}

impl InspectFlags {
    /// Ends with a failure where the daemon would not run it, so that a script can ask.
    fn execute(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let plugin = plugin_of(&self.plugin, serde_json::Value::Null);
        let cache = CacheDir::of(console)?;
        let passport = passport(&plugin, cache.path())?;
        let text = match self.output {
            FindingsFormat::Table => passport_table(&passport),
            FindingsFormat::Json => json_text(&passport),
        };
        written(console.out.write_all(text.as_bytes()))?;
        Ok(if passport.accepted { Exit::Success } else { Exit::Failure })
    }
}

fn passport_table(passport: &Passport) -> String {
    let unknown = || "not said".to_owned();
    let name = match (&passport.name, &passport.version) {
        (Some(name), Some(version)) => format!("{name} {version}"),
        _ => unknown(),
    };
    let names = |names: &[String]| match names {
        [] => "nothing".to_owned(),
        names => names.join("\n            "),
    };
    let verdict = passport.refusal.as_deref().unwrap_or("this daemon runs it");
    format!(
        "plugin      {name}\n\
         role        {}\n\
         built for   {} (this daemon speaks {})\n\
         size        {} bytes\n\
         sha256      {}\n\
         imports     {}\n\
         exports     {}\n\
         wants       {}\n\
         verdict     {verdict}\n\
         \n{}",
        passport.role.clone().unwrap_or_else(|| "none".to_owned()),
        passport.contract.clone().unwrap_or_else(unknown),
        passport.spoken,
        passport.bytes,
        passport.sha256,
        names(&passport.imports),
        names(&passport.exports),
        names(&passport.wants),
        passport.toml,
    )
}

/// What `plugin list` is asked.
#[derive(Debug, Args)]
pub(super) struct ListFlags {
    #[command(flatten)]
    flags: ConfigurationFlags,
    /// How the list is printed
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: FindingsFormat,
}

#[derive(Serialize)]
struct List {
    builtins: Vec<ListedBuiltin>,
    configured: Vec<config::Plugin>,
}

#[derive(Serialize)]
struct ListedBuiltin {
    source: String,
    outputs: &'static [&'static str],
    meaning: &'static str,
}

impl ListFlags {
    fn execute(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let loaded = self.flags.load(console)?;
        let builtin = |builtin: &config::Builtin| ListedBuiltin {
            source: format!("builtin:{}", builtin.name),
            outputs: builtin.outputs,
            meaning: builtin.meaning,
        };
        let list = List {
            builtins: BUILTINS.iter().map(builtin).collect(),
            configured: loaded.config.plugins,
        };
        let text = match self.output {
            FindingsFormat::Table => list.table(),
            FindingsFormat::Json => json_text(&list),
        };
        written(console.out.write_all(text.as_bytes()))?;
        Ok(Exit::Success)
    }
}

impl List {
    fn table(&self) -> String {
        let mut text = String::from("IN THE BINARY\n");
        for ListedBuiltin { source, outputs, meaning } in &self.builtins {
            text += &format!("  {source:<28} {meaning} (outputs: {})\n", outputs.join(", "));
        }
        text += "IN THE CONFIGURATION\n";
        for plugin in &self.configured {
            let outputs: Vec<&str> = plugin.outputs.keys().map(String::as_str).collect();
            text += &format!(
                "  {:<28} {} (outputs: {})\n",
                plugin.name,
                source_text(&plugin.source),
                if outputs.is_empty() { "none".to_owned() } else { outputs.join(", ") }
            );
        }
        text
    }
}

/// What `plugin reload` is asked.
#[derive(Debug, Args)]
pub(super) struct ReloadFlags {
    /// Its name in the TOML; every plugin if left out
    #[arg(value_name = "NAME")]
    plugin: Option<String>,
    #[command(flatten)]
    flags: ConfigurationFlags,
    /// How it is printed what came of it
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: FindingsFormat,
}

/// What `plugin shadow` is asked.
#[derive(Debug, Args)]
pub(super) struct ShadowFlags {
    /// Its name in the TOML
    #[arg(value_name = "NAME")]
    plugin: String,
    /// The component of the other version, as the daemon finds it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How long it runs beside the plugin, such as 5m; 1h at most
    #[arg(long = "for", default_value = "30s", value_name = "DURATION")]
    time: OsString,
    /// Put it in the place of the plugin if it fails in nothing and makes the same
    #[arg(long)]
    promote: bool,
    /// With --promote: also where it makes something else
    #[arg(long, requires = "promote")]
    accept_differences: bool,
    #[command(flatten)]
    flags: ConfigurationFlags,
    /// How the differences are printed
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: FindingsFormat,
}

impl ShadowFlags {
    fn execute(&self, commands: &Commands, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let time = duration("--for", &self.time)?;
        if time > LONGEST {
            return Err(UsageError(format!("--for is {:?}, and 1h at most", self.time)).into());
        }
        let file = std::path::absolute(&self.file).map_err(|cause| {
            UsageError(format!("{} is no path of a file: {cause}", self.file.display()))
        })?;
        let loaded = self.flags.load(console)?;
        let promotion = match (self.promote, self.accept_differences) {
            (false, _) => Promotion::Never,
            (true, false) => Promotion::IfSame,
            (true, true) => Promotion::IfSound,
        };
        let trial = Trial { plugin: self.plugin.clone(), file, time, promotion };
        (commands.shadow)(&loaded.config, &trial, self.output, console.out)
    }
}

/// What `plugin run` is asked.
#[derive(Debug, Args)]
pub(super) struct RunFlags {
    /// A component file, builtin:NAME, or oci://REGISTRY/NAME:TAG
    #[arg(value_name = "PLUGIN")]
    plugin: String,
    /// The recording that it is run on
    #[arg(long, value_name = "FILE")]
    events: PathBuf,
    /// The plugin's own settings: JSON, TOML, or a file with either
    #[arg(long, value_name = "TEXT|FILE")]
    config: Option<String>,
    /// What it gets of the system interface, as the TOML has it in `grants`: TOML, such as '{ clocks = true }', or a
    /// file with it
    #[arg(long, value_name = "TEXT|FILE")]
    grants: Option<String>,
    /// Print the last document of each output only
    #[arg(long)]
    last: bool,
}

/// The plugin that writes down what a filter keeps. No file gives a plugin such a name.
const KEPT: &str = "what it keeps";

impl RunFlags {
    /// Prints every document in the order in which the plugin hands them over; of a filter, the events that
    /// it keeps; of an explainer, its explanations. Ends with a failure where an instance of the plugin was
    /// lost or one of its calls failed.
    fn execute(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let settings = self.config.as_deref().map(settings).transpose()?;
        let mut plugin = plugin_of(&self.plugin, settings.unwrap_or(serde_json::Value::Null));
        if let Some(text) = &self.grants {
            plugin.wasi = config::Wasi::P2;
            plugin.grants = grants(text)?;
        }
        logging::start(config::Log::default(), console.wants_colours())?;
        let cache = CacheDir::of(console)?;
        let role = plugin_role(&plugin, cache.path())?;
        let mut plugins = vec![plugin];
        if role == Some(Role::Filter) {
            let lines = PluginSource::Builtin("jsonl".to_owned());
            plugins.push(config::Plugin::new(KEPT.to_owned(), lines));
        }
        let ran = self.run(&plugins, cache.path())?;
        ran.print(console)?;
        let replayed = ran.replayed?;
        let mut told = vec![sentence(&replayed)];
        let PluginStatus { filtered, events, .. } = ran.statuses[0];
        match role {
            Some(Role::Filter) => told.push(format!("it dropped {filtered} of {events} events")),
            _ => told.push(format!("{} documents came out", ran.documents.len())),
        }
        written(writeln!(console.err, "-- {}", told.join("; ")))?;
        match ran.statuses.iter().find_map(fault) {
            None => Ok(Exit::Success),
            Some(fault) => Err(Failure::new(Exit::Failure, fault)),
        }
    }

    fn run(&self, plugins: &[config::Plugin], cache: &Path) -> Result<Ran, Failure> {
        let replay = Replay::open(&self.events)?;
        let directory = Arc::new(Directory::new(crate::daemon::PROCESSES));
        let documents: Arc<Mutex<Documents>> = Arc::default();
        let taken = Arc::clone(&documents);
        let last_only = self.last;
        let outlet = Outlet::taking_any(move |sink, body| {
            let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            if last_only && sink.plugin() != KEPT {
                taken.retain(|(other, _)| other != sink);
            }
            taken.push((sink.clone(), body.to_vec()));
        });
        let world = world_of(replay.start(), &directory);
        let (files, clock) = (config::Files::default(), world.clock.clone());
        let explanations: Arc<Mutex<Vec<Explanation>>> = Arc::default();
        let told = Arc::clone(&explanations);
        let deliver = Box::new(move |death: ExplainedDeath| {
            told.lock().unwrap_or_else(PoisonError::into_inner).push(death.explanation);
        });
        let host = PluginHost::load(plugins, &files, cache, world, outlet, deliver)?;
        let replayed = replay.run(&directory, &host.dispatcher(), &host.deaths(), &clock);
        let statuses = host.stop(LAST_WORDS);
        let documents =
            std::mem::take(&mut *documents.lock().unwrap_or_else(PoisonError::into_inner));
        let mut explanations =
            std::mem::take(&mut *explanations.lock().unwrap_or_else(PoisonError::into_inner));
        if statuses[0].role != Role::Explainer {
            explanations.clear();
        }
        Ok(Ran { replayed, statuses, documents, explanations })
    }
}

/// What came out, in its order.
type Documents = Vec<(SinkId, Vec<u8>)>;

/// What became of plugins that were run on a recording.
struct Ran {
    replayed: Result<Replayed, ReplayError>,
    /// The plugin's first.
    statuses: Vec<PluginStatus>,
    documents: Documents,
    explanations: Vec<Explanation>,
}

impl Ran {
    /// What came out: on standard output, and what it is on standard error.
    fn print(&self, console: &mut Console<'_>) -> Result<(), Failure> {
        for (sink, body) in &self.documents {
            if sink.plugin() != KEPT {
                written(writeln!(console.err, "-- {} ({} bytes)", sink.output(), body.len()))?;
            }
            written(console.out.write_all(body))?;
            if !body.ends_with(b"\n") {
                written(console.out.write_all(b"\n"))?;
            }
        }
        for explanation in &self.explanations {
            written(console.out.write_all(json_text(explanation).as_bytes()))?;
        }
        Ok(())
    }
}

/// What went wrong with a plugin, in one sentence.
fn fault(status: &PluginStatus) -> Option<String> {
    let error = status.last_error.as_ref()?;
    Some(format!("plugin `{}`: {error}", status.name))
}

/// A plugin as a TOML would describe it that says nothing but its source.
fn plugin_of(source: &str, config: serde_json::Value) -> config::Plugin {
    let (name, source) = match source.strip_prefix("builtin:") {
        Some(name) => (name.to_owned(), PluginSource::Builtin(name.to_owned())),
        None => match Reference::read(source) {
            Some(reference) => {
                (name_of(Path::new(&reference.repository)), PluginSource::Registry(reference))
            }
            None => (name_of(Path::new(source)), PluginSource::File(PathBuf::from(source))),
        },
    };
    config::Plugin { config, ..config::Plugin::new(name, source) }
}

/// A name that the TOML takes, made of a file's.
fn name_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let stem = stem.strip_suffix(".component").unwrap_or(&stem);
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = stem.chars().map(allowed).take(63).collect();
    if name.is_empty() { "plugin".to_owned() } else { name }
}

fn source_text(source: &PluginSource) -> String {
    match source {
        PluginSource::Builtin(name) => format!("builtin:{name}"),
        PluginSource::File(path) => path.display().to_string(),
        PluginSource::Registry(reference) => reference.to_string(),
    }
}

/// Settings as JSON: from JSON, from TOML, or from a file with either.
fn settings(text: &str) -> Result<serde_json::Value, UsageError> {
    let wrong = |why: String| UsageError(format!("--config is neither JSON nor TOML: {why}"));
    let read = text_or_file("--config", text)?;
    if read.trim_start().starts_with('{') {
        return serde_json::from_str(&read).map_err(|cause| wrong(cause.to_string()));
    }
    toml::from_str(&read).map_err(|cause: toml::de::Error| wrong(cause.message().to_owned()))
}

/// What is granted, from TOML or from a file with it.
fn grants(text: &str) -> Result<config::Grants, UsageError> {
    let read = text_or_file("--grants", text)?;
    config::read_grants(&read).map_err(|why| UsageError(format!("--grants: {why}")))
}

/// What the file of that name holds, or the text itself where there is none.
fn text_or_file(flag: &str, text: &str) -> Result<String, UsageError> {
    match Path::new(text).is_file() {
        true => std::fs::read_to_string(text)
            .map_err(|cause| UsageError(format!("{flag} {text} cannot be read: {cause}"))),
        false => Ok(text.to_owned()),
    }
}

fn json_text(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("what is printed holds only JSON values") + "\n"
}

/// Where compiled plugins are kept for a user who is no daemon.
enum CacheDir {
    Kept(PathBuf),
    /// Gone afterwards: there is no home to keep it in.
    Passing(tempfile::TempDir),
}

impl CacheDir {
    fn of(console: &Console<'_>) -> Result<CacheDir, UsageError> {
        let folder = |name| {
            let folder = (console.variable)(name).filter(|folder| !folder.is_empty())?;
            Some(PathBuf::from(folder)).filter(|folder| folder.is_absolute())
        };
        let kept = folder("XDG_CACHE_HOME")
            .or_else(|| Some(folder("HOME")?.join(".cache")))
            .map(|folder| folder.join(OsStr::new("whodunit")));
        match kept {
            Some(folder) => Ok(CacheDir::Kept(folder)),
            None => tempfile::tempdir()
                .map(CacheDir::Passing)
                .map_err(|cause| UsageError(format!("no temporary folder can be made: {cause}"))),
        }
    }

    fn path(&self) -> &Path {
        match self {
            CacheDir::Kept(folder) => folder,
            CacheDir::Passing(folder) => folder.path(),
        }
    }
}

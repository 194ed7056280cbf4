//! `whodunit record` and `whodunit replay`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{Commands, ConfigurationFlags, Console, UsageError, written};
use crate::config::Config;
use crate::death::lines::Lines;
use crate::directory::Directory;
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::plugin::{Clock, Deliver, PluginHost, World};
use crate::recording::{Replay, Replayed, Start};
use crate::sink::{self, Sinks};

/// How long plugins get, after everything was handed over, to end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What `record` is asked.
#[derive(Debug, Args)]
pub(super) struct RecordFlags {
    /// The file that becomes the recording; one that is there is replaced
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    out: PathBuf,
    /// End after this time, such as 10s; without it, SIGTERM or Ctrl-C ends it
    #[arg(long, value_name = "DURATION")]
    duration: Option<OsString>,
    #[command(flatten)]
    flags: ConfigurationFlags,
}

/// What the daemon is asked to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRequest {
    /// The file.
    pub path: PathBuf,
    /// For how long. None: until a signal.
    pub duration: Option<Duration>,
}

impl RecordFlags {
    /// Plugins of the configuration do not run: a recording is for them to be tried on later.
    pub(super) fn execute(
        &self,
        commands: &Commands,
        console: &mut Console<'_>,
    ) -> Result<Exit, Failure> {
        let sources = self.flags.sources(console);
        let loaded = sources.load()?;
        let duration = self.duration.as_deref();
        let duration = duration.map(|text| self::duration("--duration", text)).transpose()?;
        logging::start(loaded.config.log, console.wants_colours())?;
        let request = RecordRequest { path: self.out.clone(), duration };
        let summary = (commands.record)(&loaded.config, sources, &request)?;
        written(writeln!(
            console.err,
            "whodunit: {}: {} events of {} containers, {} ticks, {} bytes{}",
            self.out.display(),
            summary.events,
            summary.containers,
            summary.ticks,
            summary.bytes,
            match summary.dropped {
                0 => String::new(),
                dropped => format!("; {dropped} events were too many and are missing"),
            }
        ))?;
        Ok(Exit::Success)
    }
}

/// The duration that stands behind a flag.
pub(super) fn duration(flag: &str, text: &OsStr) -> Result<Duration, UsageError> {
    let read = crate::config::read_duration(&text.to_string_lossy());
    read.map_err(|expected| UsageError(format!("{flag} is {text:?}, expected {expected}")))
}

/// What `replay` is asked.
#[derive(Debug, Args)]
pub(super) struct ReplayFlags {
    /// The recording
    #[arg(value_name = "FILE")]
    recording: PathBuf,
    #[command(flatten)]
    flags: ConfigurationFlags,
}

impl ReplayFlags {
    pub(super) fn execute(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let loaded = self.flags.load(console)?;
        logging::start(loaded.config.log, console.wants_colours())?;
        let replayed = replay(&loaded.config, &self.recording)?;
        written(writeln!(console.err, "whodunit: {}", sentence(&replayed)))?;
        Ok(Exit::Success)
    }
}

fn replay(config: &Config, recording: &std::path::Path) -> Result<Replayed, Failure> {
    let replay = Replay::open(recording)?;
    let directory = Arc::new(Directory::new(crate::daemon::PROCESSES));
    let sinks = Sinks::start(sink::outputs_of(&config.plugins))?;
    let world = world_of(replay.start(), &directory);
    let (cache_dir, clock, outlet) =
        (&config.daemon.cache_dir, world.clock.clone(), sinks.outlet());
    let files = &config.files;
    let mut lines = Lines::start(&config.deaths)?;
    let deliver: Deliver = Box::new(move |death| {
        lines.iter_mut().for_each(|lines| lines.put(&death));
    });
    let plugins = PluginHost::load(&config.plugins, files, cache_dir, world, outlet, deliver)?;
    let replayed = replay.run(&directory, &plugins.dispatcher(), &plugins.deaths(), &clock);
    crate::daemon::report_end(plugins.stop(LAST_WORDS), sinks.stop());
    Ok(replayed?)
}

/// What plugins are told about where they run: where the recording was made.
pub(super) fn world_of(start: &Start, directory: &Arc<Directory>) -> World {
    World {
        directory: Arc::clone(directory),
        surroundings: start.surroundings.clone(),
        probes: start.probes.clone(),
        clock: Clock::recorded(start.time, start.booted),
    }
}

/// What was handed over, and what is missing from it.
pub(super) fn sentence(replayed: &Replayed) -> String {
    let mut sentence =
        format!("{} events and {} ticks were handed over", replayed.events, replayed.ticks);
    if replayed.deaths > 0 {
        sentence += &format!("; {} deaths were explained", replayed.deaths);
    }
    if replayed.missing > 0 {
        sentence += &format!("; {} events are missing from the recording", replayed.missing);
    }
    if replayed.cut_off_bytes > 0 {
        let bytes = replayed.cut_off_bytes;
        sentence += &format!("; the recording was cut off, its last {bytes} bytes are no block");
    }
    if replayed.unknown > 0 {
        sentence += &format!("; {} are of kinds that this daemon does not know", replayed.unknown);
    }
    sentence
}

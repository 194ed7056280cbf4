//! The daemon: starts everything in order, waits for signals, stops everything in reverse.
//!
//! Owns the life of the process between the first check and the last report. Does nothing itself.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use crate::capture::{Capture, Command};
use crate::cli::RecordRequest;
use crate::config::{Config, Scope};
use crate::death::explanation::{ExplainedDeath, Explanation};
use crate::death::record::Subject;
use crate::directory::Directory;
use crate::discovery::root::{CgroupRoot, RootError};
use crate::discovery::{Discovery, DiscoveryError};
use crate::event::{TickCause, UnixNanos};
use crate::exit::{Exit, Exits, Failure};
use crate::filter::Excluded;
use crate::kernel::{Kernel, ProbeStatus, StartError, boot_time_ns, real_time_ns};
use crate::lock::Lock;
use crate::pipeline::Pipeline;
use crate::plugin::{Clock, LoadError, PluginHost, PluginStatus, Probe, Surroundings, World};
use crate::recording::{Recorder, Start, Summary};
use crate::resolve::Resolver;
use crate::resolve::stage::Stage;
use crate::sink::{self, SinkError, SinkStatus, Sinks};

/// How many processes are remembered by name.
pub(crate) const PROCESSES: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();
/// How long plugins get, after the last tick, to hand out their last documents.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl Exits for StartError {
    fn exit(&self) -> Exit {
        match self {
            StartError::Permission(_) => Exit::Permission,
            StartError::Layout(_)
            | StartError::Load(_)
            | StartError::Map { .. }
            | StartError::OwnCgroup(_)
            | StartError::Wait(_) => Exit::Failure,
        }
    }
}

impl Exits for RootError {
    fn exit(&self) -> Exit {
        match self {
            RootError::NotMounted | RootError::Mounts { .. } => Exit::Failure,
            RootError::Unreadable { .. } | RootError::NotCgroup2 { .. } => Exit::Configuration,
        }
    }
}

impl Exits for DiscoveryError {
    fn exit(&self) -> Exit {
        match self {
            DiscoveryError::NoSubtrees | DiscoveryError::Subtree { .. } => Exit::Configuration,
            DiscoveryError::PrivateNamespace { .. }
            | DiscoveryError::OwnNotFound { .. }
            | DiscoveryError::NoPod
            | DiscoveryError::OnlyUs
            | DiscoveryError::Read { .. } => Exit::Failure,
        }
    }
}

impl Exits for LoadError {
    fn exit(&self) -> Exit {
        match self {
            LoadError::Engine { .. } | LoadError::NoThread { .. } => Exit::Failure,
            // Everything else is a plugin, a folder or a table that the TOML names.
            _ => Exit::Configuration,
        }
    }
}

impl Exits for SinkError {
    fn exit(&self) -> Exit {
        match self {
            SinkError::SamePath { .. } => Exit::Configuration,
            // The TOML may be right and the machine not ready.
            SinkError::NoFolder { .. }
            | SinkError::NotAFolder { .. }
            | SinkError::NotAFile { .. }
            | SinkError::NotWritable { .. }
            | SinkError::Full { .. }
            | SinkError::NoThread(_) => Exit::Failure,
        }
    }
}

/// Something that the daemon asks of the system and does not get.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be set up: {source}")]
struct SystemError {
    what: &'static str,
    source: std::io::Error,
}

impl Exits for SystemError {
    fn exit(&self) -> Exit {
        Exit::Failure
    }
}

/// Runs until SIGTERM, SIGINT or SIGHUP, then writes the last reports.
///
/// # Errors
///
/// If it cannot start. Once it runs, nothing but a signal ends it.
pub fn run(config: &Config) -> Result<(), Failure> {
    watch(config, None).map(drop)
}

/// Runs as a daemon beside any other, with a recorder in the place of plugins.
///
/// # Errors
///
/// If it cannot start, or if the recording cannot be written.
pub fn record(config: &Config, request: &RecordRequest) -> Result<Summary, Failure> {
    let state = tempfile::tempdir()
        .map_err(|source| SystemError { what: "a temporary state folder", source })?;
    let mut config = config.clone();
    config.daemon.state_dir = state.path().to_owned();
    watch(&config, Some(request))
}

/// The life of the daemon. The summary is that of the recording, if one is made.
fn watch(config: &Config, recording: Option<&RecordRequest>) -> Result<Summary, Failure> {
    let started = UnixNanos(real_time_ns());
    let _lock = Lock::take(&config.daemon.state_dir)?;
    let root = CgroupRoot::open(config.discovery.cgroup_root.as_deref())?;
    let cgroup_root = root.path().to_owned();
    let kernel = Kernel::start(&config.capture)?;
    say_coverage(kernel.probes());

    let directory = Arc::new(Directory::new(PROCESSES));
    let discovery = Discovery::new(
        root,
        config.discovery.scope,
        config.discovery.cgroups.clone(),
        kernel.own_cgroup(),
        Arc::clone(&directory),
    )?;
    let sinks = Sinks::start(sink::outputs_of(&config.plugins))?;
    let world = World {
        directory: Arc::clone(&directory),
        surroundings: surroundings(discovery.scope(), started),
        probes: kernel.probes().iter().map(Probe::from).collect(),
        clock: Clock::Machine,
    };
    let start = Start {
        time: started,
        booted: UnixNanos(real_time_ns().saturating_sub(boot_time_ns())),
        surroundings: world.surroundings.clone(),
        probes: world.probes.clone(),
    };
    let (failed, recorder_failed) = oneshot::channel();
    let recorder = recording
        .map(|request| Recorder::start(&request.path, &start, Arc::clone(&directory), failed))
        .transpose()?;
    let cache_dir = &config.daemon.cache_dir;
    let plugins =
        PluginHost::load(&config.plugins, cache_dir, world, &sinks.outlet(), Box::new(say_death))?;
    let mut dispatcher = plugins.dispatcher();
    let recorder = recorder.map(|(recorder, tap)| {
        dispatcher.record_to(tap);
        recorder
    });
    let resolver =
        Resolver::new(Arc::clone(&directory), Excluded::new(&config.files.exclude), cgroup_root);
    let stage = Stage::start(resolver, dispatcher)
        .map_err(|source| SystemError { what: "the resolving thread", source })?;
    let pipeline = Pipeline::new(&config.files, directory);
    let scope = discovery.scope();
    let capture = Capture::new(
        kernel,
        discovery,
        pipeline,
        plugins.dispatcher(),
        stage,
        config.discovery.rescan,
    )?;

    tracing::info!(
        scope = scope.name(),
        containers = capture.containers(),
        plugins = config.plugins.len(),
        "ready"
    );
    let (commands, inbox) = channel();
    let thread = std::thread::Builder::new()
        .name("capture".to_owned())
        .spawn(move || capture.run(&inbox))
        .map_err(|source| SystemError { what: "the capture thread", source })?;
    let end = RecordingEnd {
        after: recording.and_then(|request| request.duration),
        failed: recorder.is_some().then_some(recorder_failed),
    };
    let until_signal = wait_for_signal(config.daemon.interval, end, &commands, &thread);
    // Also where waiting failed: what was captured is reported in any case.
    let _ = commands.send(Command::Stop);
    let capture_ended = thread.join();
    report_end(plugins.stop(LAST_WORDS), sinks.stop());
    let recorded = recorder.map(Recorder::finish).transpose();
    until_signal.map_err(|source| SystemError { what: "waiting for signals", source })?;
    capture_ended.map_err(|_| {
        Failure::new(Exit::Failure, "the capture thread ended early; its last message says why")
    })?;
    Ok(recorded?.unwrap_or_default())
}

/// What ends a recording beside a signal.
struct RecordingEnd {
    after: Option<Duration>,
    /// Hears when the recorder writes no more.
    failed: Option<oneshot::Receiver<()>>,
}

impl RecordingEnd {
    async fn wait(self) -> &'static str {
        let over = async {
            match self.after {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
        };
        let failed = async {
            match self.failed {
                Some(failed) => drop(failed.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => "the time of the recording is over",
            () = failed => "the recording cannot be written",
        }
    }
}

/// Ticks every interval, until SIGTERM, SIGINT, SIGHUP, the end of a recording, or the end of the
/// capture thread.
fn wait_for_signal(
    interval: Duration,
    end: RecordingEnd,
    commands: &Sender<Command>,
    capture: &JoinHandle<()>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate: Signal = signal(SignalKind::terminate())?;
        let mut interrupt: Signal = signal(SignalKind::interrupt())?;
        // Without a handler a terminal that is closed would end the daemon without its last report.
        let mut hang_up: Signal = signal(SignalKind::hangup())?;
        // The first document is there at once: whoever waits for a report sees that there is one.
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = end.wait();
        tokio::pin!(end);
        loop {
            tokio::select! {
                _ = terminate.recv() => {
                    tracing::info!(signal = "SIGTERM", "stopping");
                    return Ok(());
                }
                _ = interrupt.recv() => {
                    tracing::info!(signal = "SIGINT", "stopping");
                    return Ok(());
                }
                _ = hang_up.recv() => {
                    tracing::info!(signal = "SIGHUP", "stopping");
                    return Ok(());
                }
                why = &mut end => {
                    tracing::info!(why, "stopping");
                    return Ok(());
                }
                _ = ticks.tick() => {
                    let told = commands.send(Command::Tick(TickCause::Interval));
                    if told.is_err() || capture.is_finished() {
                        return Ok(());
                    }
                }
            }
        }
    })
}

/// Says how plugins and sinks ended.
pub(crate) fn report_end(plugins: Vec<PluginStatus>, sinks: Vec<SinkStatus>) {
    for plugin in plugins {
        tracing::info!(
            plugin = plugin.name,
            events = plugin.events,
            dropped = plugin.dropped,
            instances = plugin.instance,
            last_error = plugin.last_error,
            "plugin ended"
        );
    }
    for sink in sinks {
        tracing::info!(
            plugin = sink.sink.plugin(),
            output = sink.sink.output(),
            writes = sink.writes,
            failures = sink.failures,
            last_error = sink.last_error,
            "output closed"
        );
    }
}

/// Tells of a death in the log: a container's always, another process's where somebody looks for a fault.
fn say_death(explained: ExplainedDeath) {
    let ExplainedDeath { death, explanation } = explained;
    let container = death.container.name;
    let (verdict, said, confidence) = match &explanation {
        Explanation::Explained(answer) => {
            (Some(answer.verdict.as_str()), answer.headline.as_str(), Some(answer.confidence))
        }
        Explanation::Unexplained { reason } => (None, reason.as_str(), None),
    };
    match death.subject {
        Subject::Container => {
            tracing::info!(container, pid = death.process.pid, verdict, confidence, "{said}");
        }
        Subject::Process => {
            tracing::debug!(container, pid = death.process.pid, verdict, confidence, "{said}");
        }
    }
}

fn say_coverage(probes: &[ProbeStatus]) {
    for probe in probes {
        match &probe.reason {
            None => tracing::info!(probe = probe.name, sees = probe.sees, "probe live"),
            Some(reason) => {
                tracing::warn!(probe = probe.name, unseen = probe.sees, reason, "probe not live")
            }
        }
    }
}

impl From<&ProbeStatus> for Probe {
    fn from(probe: &ProbeStatus) -> Probe {
        Probe {
            name: probe.name.to_owned(),
            live: probe.live(),
            reason: probe.reason.clone().unwrap_or_default(),
        }
    }
}

fn surroundings(scope: Scope, started: UnixNanos) -> Surroundings {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let node_name = variable("NODE_NAME")
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    Surroundings {
        pod_name: variable("POD_NAME"),
        namespace: variable("POD_NAMESPACE"),
        node_name,
        boot_id: boot_id.trim().to_owned(),
        scope: scope.name().to_owned(),
        daemon_version: env!("CARGO_PKG_VERSION").to_owned(),
        started,
    }
}

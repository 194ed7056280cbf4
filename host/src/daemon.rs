//! The daemon: starts everything in order, waits for signals, stops everything in reverse.
//!
//! Owns the life of the process between the first check and the last report. Does nothing itself.

use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use crate::capture::{Capture, Command};
use crate::cli::RecordRequest;
use crate::config::{Config, Deaths, Output, Reread, Scope};
use crate::control;
use crate::death::DeathWatch;
use crate::death::explanation::{ExplainedDeath, Explanation};
use crate::death::feed::Feed;
use crate::death::history::{self, History, HistoryError};
use crate::death::lines::{Lines, LinesError};
use crate::death::record::Subject;
use crate::directory::Directory;
use crate::discovery::root::{CgroupRoot, RootError};
use crate::discovery::{Discovery, DiscoveryError};
use crate::event::{TickCause, UnixNanos};
use crate::exit::{Exit, Exits, Failure};
use crate::filter::Excluded;
use crate::http;
use crate::kernel::{
    INTERPRETERS, Kernel, Meter, ProbeStatus, StartError, Tier, boot_time_ns, real_time_ns,
};
use crate::lock::Lock;
use crate::lockdown;
use crate::names::Namer;
use crate::pipeline::Pipeline;
use crate::plugin::{Clock, LoadError, PluginHost, PluginStatus, Probe, Surroundings, World};
use crate::post::PostError;
use crate::privilege;
use crate::recording::{Recorder, Start, Summary};
use crate::reload::Reloader;
use crate::resolve::Resolver;
use crate::resolve::stage::Stage;
use crate::service;
use crate::sink::{self, SinkError, SinkStatus, Sinks};
use crate::status::deaths::Ledger;
use crate::status::{Board, Observer, Pulse, Vitals};
use crate::telemetry;

/// How many processes are remembered by name.
pub(crate) const PROCESSES: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();
/// How long plugins get, after the last tick, to hand out their last documents.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long it may take between two beats.
const MAIN_TURN: Duration = Duration::from_secs(10);

/// How often the history of deaths is forced to the disk at most.
const SYNC_EVERY: Duration = Duration::from_secs(1);

impl Exits for StartError {
    fn exit(&self) -> Exit {
        match self {
            StartError::Permission(_) | StartError::Forbidden(_) | StartError::Locked { .. } => {
                Exit::Permission
            }
            StartError::Layout(_)
            | StartError::Load(_)
            | StartError::Map { .. }
            | StartError::OwnCgroup(_)
            | StartError::Wait(_) => Exit::Failure,
            StartError::Tier { .. } => Exit::Configuration,
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
            SinkError::SamePath { .. }
            | SinkError::Http {
                cause: PostError::Headers { .. } | PostError::Certificates { .. },
                ..
            } => Exit::Configuration,
            // The TOML may be right and the machine not ready.
            SinkError::NoFolder { .. }
            | SinkError::NotAFolder { .. }
            | SinkError::NotAFile { .. }
            | SinkError::NotWritable { .. }
            | SinkError::Full { .. }
            | SinkError::Http { cause: PostError::NoThread(_), .. }
            | SinkError::NoThread(_) => Exit::Failure,
        }
    }
}

impl Exits for HistoryError {
    fn exit(&self) -> Exit {
        match self {
            HistoryError::File { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                Exit::Permission
            }
            HistoryError::File { .. } => Exit::Failure,
        }
    }
}

impl Exits for LinesError {
    fn exit(&self) -> Exit {
        match self {
            LinesError::File { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                Exit::Permission
            }
            LinesError::File { .. } | LinesError::NoThread(_) => Exit::Failure,
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

/// Runs until SIGTERM or SIGINT, then writes the last reports. SIGHUP reads the configuration again,
/// which came from `sources`.
///
/// # Errors
///
/// If it cannot start. Once it runs, nothing but a signal ends it.
pub fn run(config: &Config, sources: Reread) -> Result<(), Failure> {
    watch(config, sources, None).map(drop)
}

/// Runs beside any daemon, with a recorder in the place of plugins: a state folder of its own that goes
/// away, and no network.
///
/// # Errors
///
/// If it cannot start, or if the recording cannot be written.
pub fn record(
    config: &Config,
    sources: Reread,
    request: &RecordRequest,
) -> Result<Summary, Failure> {
    let state = tempfile::tempdir()
        .map_err(|source| SystemError { what: "a temporary state folder", source })?;
    let mut config = config.clone();
    config.daemon.state_dir = state.path().to_owned();
    config.http.listen = None;
    config.plugins.clear();
    // Deaths are told by the daemon that runs beside.
    config.deaths = Deaths::default();
    watch(&config, sources, Some(request))
}

/// The life of the daemon. The summary is that of the recording, if one is made.
fn watch(
    config: &Config,
    sources: Reread,
    recording: Option<&RecordRequest>,
) -> Result<Summary, Failure> {
    let started = UnixNanos(real_time_ns());
    let _lock = Lock::take(&config.daemon.state_dir)?;
    let root = CgroupRoot::open(config.discovery.cgroup_root.as_deref())?;
    let cgroup_root = root.path().to_owned();
    let mut kernel = Kernel::start(&config.capture)?;
    let history = History::open(&config.daemon.state_dir)?;
    let missing = privilege::missing();
    for need in &missing {
        let capability = need.capability.to_string();
        tracing::warn!(capability, without = need.without, "a capability is missing");
    }
    let meter = config.capture.measure.then(|| measure(&kernel)).flatten();
    confine(config);
    say_coverage(kernel.probes());

    let directory = Arc::new(Directory::new(PROCESSES));
    let discovery = Discovery::new(
        root.clone(),
        config.discovery.scope,
        config.discovery.cgroups.clone(),
        kernel.own_cgroup(),
        Arc::clone(&directory),
    )?;
    let telemetry = telemetry_plan(recording.is_some());
    let sinks = Sinks::start(sink::outputs_of(&config.plugins).chain(telemetry.outputs()))?;
    let surroundings = Arc::new(surroundings(discovery.scope(), started));
    let world = World {
        directory: Arc::clone(&directory),
        surroundings: Surroundings::clone(&surroundings),
        probes: kernel.probes().iter().map(Probe::from).collect(),
        clock: Clock::Machine,
    };
    let start = Start {
        time: started,
        booted: UnixNanos(real_time_ns().saturating_sub(boot_time_ns())),
        surroundings: Surroundings::clone(&surroundings),
        probes: world.probes.clone(),
    };
    let (failed, recorder_failed) = oneshot::channel();
    let recorder = recording
        .map(|request| Recorder::start(&request.path, &start, Arc::clone(&directory), failed))
        .transpose()?;
    let lines = Lines::start(&config.deaths)?;
    let told = telemetry.deaths(sinks.outlet(), &surroundings);
    let ledger = Arc::new(Ledger::default());
    ledger.recall(history::read(&config.daemon.state_dir)?);
    let mut historian =
        Historian { history, lines, told, ledger: Arc::clone(&ledger), synced: Instant::now() };
    let deliver = Box::new(move |death| historian.take(death));
    let plugins = Arc::new(PluginHost::load(
        &config.plugins,
        &config.files,
        &config.daemon.cache_dir,
        world,
        sinks.outlet(),
        deliver,
    )?);
    let mut dispatcher = plugins.dispatcher();
    let (recorder, tap) = recorder.unzip();
    tap.clone().into_iter().for_each(|tap| dispatcher.record_to(tap));
    let resolver = Resolver::new(
        Arc::clone(&directory),
        Excluded::new(&config.files.exclude),
        cgroup_root,
        kernel.probes().iter().any(|probe| probe.name == INTERPRETERS && probe.live()),
    );
    let stage = Stage::start(resolver, dispatcher)
        .map_err(|source| SystemError { what: "the resolving thread", source })?;
    let board = Arc::new(Board::default());
    let main_pulse = Arc::new(Pulse::new("main", MAIN_TURN));
    let pulses = vec![Arc::clone(board.pulse()), Arc::clone(&main_pulse), sinks.pulse()];
    let scope = discovery.scope();
    let mut namer = Namer::new(&config.discovery, &config.names, scope, Arc::clone(&directory));
    let observer = Observer {
        board,
        directory: Arc::clone(&directory),
        probes: kernel.probes().into(),
        plugins: Arc::clone(&plugins),
        sinks: sinks.outlet(),
        surroundings,
        vitals: Arc::new(Vitals::new(pulses)),
        ledger,
        names: namer.standings(),
        missing: missing.into(),
        meter,
    };
    let pipeline = Pipeline::new(&config.files, Arc::clone(&directory));
    let ring = kernel.take_deaths();
    let probes = kernel.probes().to_vec();
    let mut capture = Capture::new(
        kernel,
        discovery,
        pipeline,
        plugins.dispatcher(),
        stage,
        &config.discovery,
        Arc::clone(&observer.board),
    )?;
    // Who is there already is named before anything is said about it.
    namer.first_look().into_iter().for_each(|unwanted| capture.leave_out(unwanted));
    capture.check_company()?;
    let feed = Arc::new(Feed::default());
    capture.feed_from(Arc::clone(&feed));
    // After the first look at what is there: whoever lives in it is read before anything else happens.
    let explainers = plugins.deaths();
    let deaths = ring
        .map(|ring| {
            DeathWatch::start(ring, &probes, directory, root, feed, move |death| {
                tap.iter().for_each(|tap| tap.death(&death));
                explainers.put(death);
            })
        })
        .transpose()
        .map_err(|source| SystemError { what: "the thread of deaths", source })?;
    let control = control::Server::bind(&config.daemon.state_dir)?;
    let http = http::Server::start(&config.http, observer.clone())?;

    // Before anybody is told that the daemon is there: a stop may come at once.
    let signals =
        Signals::listen().map_err(|source| SystemError { what: "waiting for signals", source })?;
    tracing::info!(
        scope = scope.name(),
        containers = capture.containers(),
        plugins = config.plugins.len(),
        "ready"
    );
    let (commands, inbox) = channel();
    let to_capture = commands.clone();
    let names = namer
        .start(move |unwanted| {
            // Nobody listens any more once capture has ended.
            let _ = to_capture.send(Command::LeaveOut(unwanted));
        })
        .map_err(|source| SystemError { what: "the thread for names", source })?;
    let thread = std::thread::Builder::new()
        .name("capture".to_owned())
        .spawn(move || capture.run(&inbox))
        .map_err(|source| SystemError { what: "the capture thread", source })?;
    // A recorder runs no plugins, so it has nothing to read again.
    let identity = http.as_ref().and_then(http::Server::identity);
    let reloader = match recording {
        Some(_) => None,
        None => Some(Reloader::start(sources, config.clone(), Arc::clone(&plugins), identity)),
    };
    let reloader =
        reloader.transpose().map_err(|source| SystemError { what: "the reload thread", source })?;
    let end = RecordingEnd {
        after: recording.and_then(|request| request.duration),
        failed: recorder.is_some().then_some(recorder_failed),
    };
    let vitals = Arc::clone(&observer.vitals);
    let metrics =
        telemetry::Metrics::start(&telemetry, observer.clone(), config.http.metrics_containers)
            .map_err(|source| SystemError { what: "the thread that tells metrics", source })?;
    let room = control::Room { observer };
    service::ready();
    let side = async {
        tokio::select! {
            ended = control.serve(room) => ended,
            never = service::beat(&vitals, &main_pulse) => match never {},
            why = end.wait() => {
                tracing::info!(why, "stopping");
                Ok(())
            }
        }
    };
    let served = signals.wait(config.daemon.interval, &commands, &thread, reloader.as_ref(), side);
    service::stopping();
    // While capture still answers: its last metrics.
    drop((control, http, metrics));
    // It may have ended by itself.
    let _ = commands.send(Command::Stop);
    let capture_ended = thread.join();
    // The programs are off their hooks by now: what is in the ring is all there is.
    deaths.into_iter().for_each(DeathWatch::stop);
    drop(names);
    report_end(plugins.stop(LAST_WORDS), sinks.stop());
    let recorded = recorder.map(Recorder::finish).transpose();
    served.map_err(|source| SystemError { what: "the control socket", source })?;
    capture_ended.map_err(|_| {
        Failure::new(Exit::Failure, "the capture thread ended early; its last message says why")
    })?;
    Ok(recorded?.unwrap_or_default())
}

/// What is told over OTLP. A recorder runs beside a daemon that tells.
fn telemetry_plan(is_recorder: bool) -> telemetry::Plan {
    if is_recorder {
        return telemetry::Plan::off();
    }
    let plan = telemetry::Plan::read(|name| std::env::var(name).ok());
    for (sink, output) in plan.outputs() {
        if let Output::Http(http) = output {
            tracing::info!(output = sink.output(), url = %http.url, "telemetry is told over OTLP");
        }
    }
    plan
}

/// Has the kernel measure its programs, or says why it does not.
fn measure(kernel: &Kernel) -> Option<Arc<Meter>> {
    let begun =
        kernel.measure().inspect_err(|error| tracing::warn!("nothing is measured: {error}"));
    begun.ok().map(Arc::new)
}

/// Gives up what is not needed once the programs are loaded. Before any thread starts: each would have capabilities and
/// filters of its own.
fn confine(config: &Config) {
    if let Err(error) = privilege::give_up(&config.http) {
        tracing::warn!(%error, "the daemon keeps privileges that it does not need");
    }
    if let Err(error) = lockdown::shut() {
        tracing::warn!(%error, "the daemon may make system calls that it does not need");
    }
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

/// Writes explained deaths into the history and wherever else they go, and tells the log.
struct Historian {
    history: History,
    lines: Option<Lines>,
    told: Option<telemetry::Deaths>,
    ledger: Arc<Ledger>,
    synced: Instant,
}

impl Historian {
    fn take(&mut self, explained: ExplainedDeath) {
        // Who finds it on disk finds it in the API as well.
        self.ledger.add(&explained);
        let mut written = self.history.append(std::slice::from_ref(&explained));
        // What is written outlives the daemon at once, and the machine's power from the next second on.
        if self.synced.elapsed() >= SYNC_EVERY {
            self.synced = Instant::now();
            written = written.and_then(|()| self.history.sync());
        }
        if let Err(error) = written {
            tracing::error!(%error, "a death is not in the history");
        }
        if let Some(lines) = &mut self.lines {
            lines.put(&explained);
        }
        self.told.iter().for_each(|told| told.put(&explained));
        say_death(explained);
    }
}

/// The signals that the daemon acts on. From here on SIGTERM and SIGINT end it with its last reports, and
/// not at once; SIGHUP reads the configuration again.
struct Signals {
    runtime: tokio::runtime::Runtime,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let [terminate, interrupt, hang_up] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        drop(inside);
        Ok(Signals { runtime, terminate: terminate?, interrupt: interrupt?, hang_up: hang_up? })
    }

    /// Ticks every interval, and lets `side` go on beside that, until a signal that ends the daemon comes, or
    /// until the capture thread or `side` ends.
    fn wait(
        self,
        interval: Duration,
        commands: &Sender<Command>,
        capture: &JoinHandle<()>,
        reloader: Option<&Reloader>,
        side: impl Future<Output = std::io::Result<()>>,
    ) -> std::io::Result<()> {
        let Signals { runtime, mut terminate, mut interrupt, mut hang_up } = self;
        runtime.block_on(async {
            // The first document is there at once: whoever waits for a report sees that there is one.
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut side = std::pin::pin!(side);
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                    _ = hang_up.recv() => {
                        tracing::info!(signal = "SIGHUP", "reloading");
                        reloader.iter().for_each(|reloader| reloader.reload());
                        continue;
                    }
                    ended = &mut side => return ended,
                    _ = ticks.tick() => {
                        let told = commands.send(Command::Tick(TickCause::Interval));
                        if told.is_err() || capture.is_finished() {
                            return Ok(());
                        }
                        continue;
                    }
                };
                tracing::info!(signal = name, "stopping");
                return Ok(());
            }
        })
    }
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
            dropped = sink.dropped.values().sum::<u64>(),
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
            Some(reason) if probe.tier == Tier::Exact => {
                tracing::info!(probe = probe.name, unseen = probe.sees, reason, "probe not live")
            }
            Some(reason) => {
                tracing::warn!(probe = probe.name, unseen = probe.sees, reason, "probe not live")
            }
        }
    }
    tracing::info!(tier = Tier::of(probes).name(), "files are captured");
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

//! The daemon under test: its configuration, where it runs, its log and its report.
//!
//! A configuration keeps its folder (state, cache, report) and its cgroup for as long as it lives, so
//! starting it twice is a restart.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;
use tempfile::TempDir;

use crate::cgroup::{Cgroup, CgroupError, Hierarchies, remove_tree};
use crate::condition::{PATIENCE, slowness, wait_for};
use crate::container::{Container, ContainerError};
use crate::pod::Pod;
use crate::unique_suffix;

/// What can go wrong with a daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// No binary.
    #[error(
        "there is no daemon to run at {}; build it with `cargo build --release`, or name it in \
         WHODUNIT_BIN",
        .0.display()
    )]
    NoBinary(PathBuf),
    /// A file or folder.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("the daemon ended before it was ready, with {exit}")]
    Ended {
        /// How.
        exit: Box<Exit>,
    },
    /// Something did not happen in time.
    #[error("waited {} s in vain for {what}", after.as_secs())]
    TimedOut {
        /// What was waited for, and what was there instead.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// The report is no JSON.
    #[error("the report {} does not parse: {source}; it holds {text:?}", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
        /// What the file holds, or its beginning.
        text: String,
    },
    /// Its cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Its container.
    #[error(transparent)]
    Container(#[from] ContainerError),
}

impl DaemonError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DaemonError {
        let path = path.to_owned();
        move |source| DaemonError::Io { action, path, source }
    }
}

/// The daemon's binary: what `WHODUNIT_BIN` names, else the release build beside the program that
/// calls.
pub fn binary() -> Result<PathBuf, DaemonError> {
    let path = match std::env::var_os("WHODUNIT_BIN") {
        Some(named) => PathBuf::from(named),
        None => built_binary(),
    };
    if path.is_file() { Ok(path) } else { Err(DaemonError::NoBinary(path)) }
}

/// Programs and tests of this workspace are built to `<profile>/` and `<profile>/deps/` below the
/// folder of the target.
fn built_binary() -> PathBuf {
    let profile = std::env::current_exe().ok().and_then(|program| {
        program.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).map(Path::to_owned)
    });
    profile.unwrap_or_default().join("whodunit")
}

/// Where the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In a cgroup of its own, in the namespaces of this machine.
    Cgroup,
    /// The same, in a cgroup namespace of its own: `/proc/self/cgroup` says `0::/`.
    PrivateCgroupNamespace,
    /// As a container of the pod, with pid, mount and cgroup namespaces of its own, and with this
    /// machine's cgroup v2 hierarchy mounted at another place: a sidecar.
    Sidecar,
}

/// Where a sidecar finds this machine's cgroup v2 hierarchy.
pub const SIDECAR_CGROUP_ROOT: &str = "/host/cgroup";

/// Names a folder where all daemons keep compiled plugins, on machines that are slow to compile them.
const CACHE_VARIABLE: &str = "WHODUNIT_SHARED_CACHE";

/// A daemon that is being described.
#[derive(Debug)]
#[must_use = "a described daemon does nothing until it is started"]
pub struct DaemonConfig {
    /// Gone after the daemon, before the pod.
    cgroup: Cgroup,
    folder: TempDir,
    pod: Option<Pod>,
    placement: Placement,
    scope: &'static str,
    cgroups: Vec<String>,
    cgroup_root: Option<PathBuf>,
    host_root: Option<PathBuf>,
    interval: Duration,
    rescan: Duration,
    exclude: Option<Vec<String>>,
    dedup_capacity: Option<usize>,
    report: PathBuf,
    report_events: Option<String>,
    report_limits: String,
    more_toml: String,
    environment: Vec<(String, String)>,
    wrapper: Vec<OsString>,
    sidecar_mounts: Vec<(PathBuf, PathBuf)>,
    binary: Option<PathBuf>,
    recording: Option<PathBuf>,
    cache_dir: PathBuf,
    runs: AtomicU32,
}

/// How long a plugin's call may take, as the daemon reads it: its default, or longer on a machine that is
/// said to be slow.
pub fn call_limit() -> String {
    let seconds = if slowness() > 1 { 5 * slowness() } else { 1 };
    format!("{seconds}s")
}

impl DaemonConfig {
    /// Scope `pod`: watches the other containers of this pod, from a cgroup in it.
    pub fn for_pod(pod: &Pod) -> Result<DaemonConfig, DaemonError> {
        let parent = pod.cgroup_path();
        let parent = parent.trim_start_matches('/').to_owned();
        let mut config = DaemonConfig::new(&parent, "pod")?;
        config.environment = vec![
            ("POD_NAME".into(), pod.name().to_owned()),
            ("POD_NAMESPACE".into(), "default".into()),
        ];
        config.pod = Some(pod.clone());
        Ok(config)
    }

    /// Scope `node`: watches every container of this machine.
    pub fn for_node() -> Result<DaemonConfig, DaemonError> {
        DaemonConfig::new("system.slice", "node")
    }

    /// Scope `cgroups`: watches these subtrees, given relative to the root of the hierarchy.
    pub fn for_cgroups<S: AsRef<str>>(cgroups: &[S]) -> Result<DaemonConfig, DaemonError> {
        let mut config = DaemonConfig::new("system.slice", "cgroups")?;
        config.cgroups = cgroups
            .iter()
            .map(|cgroup| cgroup.as_ref().trim_start_matches('/').to_owned())
            .collect();
        Ok(config)
    }

    fn new(parent_cgroup: &str, scope: &'static str) -> Result<DaemonConfig, DaemonError> {
        let folder = tempfile::Builder::new()
            .prefix("whodunit-daemon-")
            .tempdir()
            .map_err(DaemonError::io("make a folder in", &std::env::temp_dir()))?;
        for part in ["state", "cache", "out"] {
            let path = folder.path().join(part);
            fs::create_dir(&path).map_err(DaemonError::io("make", &path))?;
        }
        let name = format!("whodunit-{}", unique_suffix());
        Ok(DaemonConfig {
            cgroup: Cgroup::make(format!("{parent_cgroup}/{name}"))?,
            report: folder.path().join("out/report.json"),
            cache_dir: folder.path().join("cache"),
            folder,
            pod: None,
            placement: Placement::Cgroup,
            scope,
            cgroups: Vec::new(),
            cgroup_root: None,
            host_root: None,
            interval: Duration::from_millis(200),
            rescan: Duration::from_secs(30),
            exclude: None,
            dedup_capacity: None,
            report_events: None,
            report_limits: String::new(),
            more_toml: String::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
            sidecar_mounts: Vec::new(),
            binary: None,
            recording: None,
            runs: AtomicU32::new(0),
        })
    }

    /// Where the daemon runs.
    pub fn placed(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// What it watches, instead of what it was described for: `pod`, `node` or `cgroups`.
    pub fn scope(mut self, scope: &'static str) -> Self {
        self.scope = scope;
        self
    }

    /// How often the report is written.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How often the whole tree of cgroups is read again.
    pub fn rescan(mut self, rescan: Duration) -> Self {
        self.rescan = rescan;
        self
    }

    /// The excluded prefixes, instead of the defaults.
    pub fn exclude<S: AsRef<str>>(mut self, prefixes: &[S]) -> Self {
        self.exclude = Some(prefixes.iter().map(|prefix| prefix.as_ref().to_owned()).collect());
        self
    }

    /// Entries of each container's dedup cache.
    pub fn dedup_capacity(mut self, entries: usize) -> Self {
        self.dedup_capacity = Some(entries);
        self
    }

    /// Where the cgroup v2 hierarchy is said to be.
    pub fn cgroup_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.cgroup_root = Some(root.into());
        self
    }

    /// Where the root of the machine's file system is said to be.
    pub fn host_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.host_root = Some(root.into());
        self
    }

    /// Where the report goes.
    pub fn report_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.report = path.into();
        self
    }

    /// The only kind of events that the plugin that writes the report is told of. The totals are in the report all the same.
    pub fn report_events(mut self, kind: &str) -> Self {
        self.report_events = Some(kind.to_owned());
        self
    }

    /// Lines for the `[plugin.limits]` of the plugin that writes the report.
    pub fn report_limits(mut self, toml: &str) -> Self {
        self.report_limits = toml.to_owned();
        self
    }

    /// TOML that is added at the end: further plugins.
    pub fn more_toml(mut self, toml: &str) -> Self {
        self.more_toml.push_str(toml);
        self.more_toml.push('\n');
        self
    }

    /// Sets an environment variable.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A program, with its arguments, that executes the daemon in its own place, such as `setpriv`.
    pub fn wrapped<S: AsRef<str>>(mut self, wrapper: &[S]) -> Self {
        self.wrapper = wrapper.iter().map(|argument| argument.as_ref().into()).collect();
        self
    }

    /// Mounts a file or folder of this machine into the container of a sidecar, read-only.
    pub fn mounted(mut self, source: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> Self {
        self.sidecar_mounts.push((source.into(), destination.into()));
        self
    }

    /// Where it keeps compiled plugins, instead of in its folder.
    pub fn cache_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache_dir = path.into();
        self
    }

    /// Makes it a recorder: `whodunit record`, which writes this file and runs no plugin.
    pub fn recording_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.recording = Some(path.into());
        self
    }

    /// The daemon's binary, instead of the one that [`binary`] finds.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// The folder of this daemon: `state`, `cache`, `out`, and the configuration.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of its state: the lock, and the history of deaths.
    pub fn state_dir(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// Where the report goes.
    pub fn report_path(&self) -> &Path {
        &self.report
    }

    /// The cgroup that the daemon runs in, except as a sidecar.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Where its configuration is.
    pub fn toml_path(&self) -> PathBuf {
        self.folder().join("whodunit.toml")
    }

    /// Where it keeps compiled plugins: in its own folder or the one that was asked for, or where every
    /// daemon may that runs as we do and sees our files.
    fn cache(&self) -> PathBuf {
        let alike = self.placement != Placement::Sidecar && self.wrapper.is_empty();
        match std::env::var_os(CACHE_VARIABLE) {
            Some(shared) if alike => shared.into(),
            _ => self.cache_dir.clone(),
        }
    }

    /// Its configuration.
    pub fn toml(&self) -> String {
        let mut toml = String::new();
        let mut line = |text: String| writeln!(toml, "{text}").expect("a string takes any text");
        line("[discovery]".into());
        line(format!("scope = {}", quoted(self.scope)));
        if !self.cgroups.is_empty() {
            line(format!("cgroups = {}", quoted_list(&self.cgroups)));
        }
        match (&self.cgroup_root, self.placement) {
            (Some(root), _) => line(format!("cgroup_root = {}", quoted_path(root))),
            (None, Placement::Sidecar) => {
                line(format!("cgroup_root = {}", quoted(SIDECAR_CGROUP_ROOT)));
            }
            (None, Placement::Cgroup | Placement::PrivateCgroupNamespace) => {}
        }
        if let Some(root) = &self.host_root {
            line(format!("host_root = {}", quoted_path(root)));
        }
        line(format!("rescan = {}", quoted(&milliseconds(self.rescan))));
        if self.exclude.is_some() || self.dedup_capacity.is_some() {
            line("\n[files]".into());
        }
        if let Some(prefixes) = &self.exclude {
            line(format!("exclude = {}", quoted_list(prefixes)));
        }
        if let Some(entries) = self.dedup_capacity {
            line(format!("dedup_capacity = {entries}"));
        }
        line("\n[daemon]".into());
        line(format!("state_dir = {}", quoted_path(&self.state_dir())));
        line(format!("cache_dir = {}", quoted_path(&self.cache())));
        line(format!("interval = {}", quoted(&milliseconds(self.interval))));
        line("\n[[plugin]]".into());
        line("name = \"report\"".into());
        line("source = \"builtin:report-json\"".into());
        if let Some(kind) = &self.report_events {
            line(format!("events = [{}]", quoted(kind)));
        }
        line("[plugin.outputs]".into());
        line(format!("report = {{ file = {} }}", quoted_path(&self.report)));
        line("[plugin.limits]".into());
        if !self.report_limits.contains("call = ") {
            line(format!("call = {}", quoted(&call_limit())));
        }
        line(self.report_limits.clone());
        line("\n[[plugin]]".into());
        line("name = \"death-explainer\"".into());
        line("source = \"builtin:death-explainer\"".into());
        line(format!("limits = {{ call = {} }}", quoted(&call_limit())));
        line(self.more_toml.clone());
        toml
    }

    /// Starts it, and waits until its probes are attached and the first discovery is done.
    pub fn start(&self) -> Result<Daemon<'_>, DaemonError> {
        let mut daemon = self.spawn()?;
        daemon.await_ready()?;
        Ok(daemon)
    }

    /// Starts it and does not wait.
    pub fn spawn(&self) -> Result<Daemon<'_>, DaemonError> {
        fs::write(self.toml_path(), self.toml())
            .map_err(DaemonError::io("write", &self.toml_path()))?;
        self.spawn_with(&[OsString::from("-c"), self.toml_path().into()])
    }

    /// Starts `whodunit run` with these arguments and does not wait.
    pub fn spawn_with(&self, arguments: &[OsString]) -> Result<Daemon<'_>, DaemonError> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let log = self.folder().join(format!("log-{run}"));
        let process = match self.placement {
            Placement::Cgroup => self.spawn_process(&[], arguments, &log)?,
            Placement::PrivateCgroupNamespace => {
                self.spawn_process(&["unshare", "--cgroup"], arguments, &log)?
            }
            Placement::Sidecar => self.spawn_sidecar(arguments)?,
        };
        Ok(Daemon { config: self, process, log })
    }

    /// Runs it to its end, for configurations that it must refuse.
    pub fn run(&self) -> Result<Exit, DaemonError> {
        self.spawn()?.await_end()
    }

    fn binary_path(&self) -> Result<PathBuf, DaemonError> {
        self.binary.clone().map_or_else(binary, Ok)
    }

    fn spawn_process(
        &self,
        wrapper: &[&str],
        arguments: &[OsString],
        log: &Path,
    ) -> Result<Process, DaemonError> {
        // The shell moves itself and then becomes the daemon: not one instruction of the daemon runs
        // outside its cgroup.
        let log_file = File::create(log).map_err(DaemonError::io("make", log))?;
        let command: Vec<OsString> = match &self.recording {
            None => vec!["run".into()],
            Some(path) => vec!["record".into(), "--out".into(), path.into()],
        };
        Command::new("/bin/sh")
            .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(self.cgroup.folder())
            .args(wrapper)
            .args(&self.wrapper)
            .arg(self.binary_path()?)
            .args(command)
            .args(arguments)
            .args(["--log-format", "json"])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .spawn()
            .map(Process::Child)
            .map_err(DaemonError::io("run", Path::new("/bin/sh")))
    }

    fn spawn_sidecar(&self, arguments: &[OsString]) -> Result<Process, DaemonError> {
        let Some(pod) = &self.pod else {
            panic!("a sidecar is a container of a pod: describe it with `for_pod`");
        };
        // A sidecar has a container of its own: the cgroup made for a plain process would be one more
        // container of the pod.
        remove_tree(&self.cgroup.folder());
        let mut command = vec!["/whodunit".to_owned(), "run".to_owned()];
        for argument in arguments {
            command.push(argument.to_string_lossy().into_owned());
        }
        command.extend(["--log-format".to_owned(), "json".to_owned()]);
        let mut builder = pod
            .container("whodunit")
            .copy(self.binary_path()?, "/whodunit")
            .program(&command)
            .bind_writable(self.folder(), self.folder())
            .bind(Hierarchies::find()?.unified, SIDECAR_CGROUP_ROOT)
            .private_cgroup_namespace()
            .capabilities(&SIDECAR_CAPABILITIES);
        let tracing = Path::new("/sys/kernel/tracing");
        if tracing.join("events").is_dir() {
            builder = builder.bind(tracing, tracing);
        }
        for (source, destination) in &self.sidecar_mounts {
            builder = builder.bind(source, destination);
        }
        for (name, value) in &self.environment {
            builder = builder.environment(name, value);
        }
        Ok(Process::Sidecar(Box::new(builder.start()?)))
    }
}

/// What a sidecar may do, as in `deploy/kubernetes`: load programs and read their maps, attach to
/// tracepoints, and look into the processes of other containers.
const SIDECAR_CAPABILITIES: [&str; 4] =
    ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"];

/// How a daemon ended.
#[derive(Debug)]
pub struct Exit {
    /// Its status.
    pub status: ExitStatus,
    /// Everything that it wrote to standard error.
    pub stderr: String,
}

impl Exit {
    /// Its exit code. None where a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// What it wrote to standard error for people: the lines that are no log lines below `ERROR`.
    pub fn complaints(&self) -> Vec<String> {
        self.stderr.lines().filter_map(complaint).collect()
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; it wrote: {}", self.status, self.stderr)
    }
}

/// The message of a line of standard error, where it is an error or not from the log at all.
fn complaint(line: &str) -> Option<String> {
    match serde_json::from_str::<Value>(line) {
        Ok(entry) => (entry["level"] == "ERROR").then(|| message(&entry).to_owned()),
        Err(_) => (!line.trim().is_empty()).then(|| line.to_owned()),
    }
}

/// The message of a log line, which stands at the top or among its fields.
fn message(entry: &Value) -> &str {
    entry["message"].as_str().or_else(|| entry["fields"]["message"].as_str()).unwrap_or_default()
}

/// The daemon's process, or the container that it is.
#[derive(Debug)]
enum Process {
    Child(Child),
    Sidecar(Box<Container>),
}

/// A daemon that was started. Dropped, it is killed.
#[derive(Debug)]
pub struct Daemon<'a> {
    config: &'a DaemonConfig,
    process: Process,
    log: PathBuf,
}

impl Daemon<'_> {
    /// Its process, as this machine numbers it.
    pub fn pid(&self) -> u32 {
        match &self.process {
            Process::Child(child) => child.id(),
            Process::Sidecar(container) => container.pid(),
        }
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        match &self.process {
            Process::Child(_) => fs::read(&self.log)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default(),
            Process::Sidecar(container) => container.stderr(),
        }
    }

    /// Waits until its probes are attached and the first discovery is done.
    pub fn await_ready(&mut self) -> Result<(), DaemonError> {
        self.await_log("ready", |entry| message(entry) == "ready")
    }

    /// Waits for a line of its log. `what` says what is waited for.
    pub fn await_log(
        &mut self,
        what: &str,
        mut fits: impl FnMut(&Value) -> bool,
    ) -> Result<(), DaemonError> {
        let found = wait_for(PATIENCE, || {
            // Asked first: what an ended process wrote is all there.
            let ended = self.ended();
            let stderr = self.stderr();
            let mut entries = stderr.lines().filter_map(|line| serde_json::from_str(line).ok());
            match (entries.any(|entry| fits(&entry)), ended) {
                (true, _) => Some(Ok(())),
                (false, Some(status)) => Some(Err(Box::new(Exit { status, stderr }))),
                (false, None) => None,
            }
        });
        match found {
            Some(Ok(())) => Ok(()),
            Some(Err(exit)) => Err(DaemonError::Ended { exit }),
            None => Err(DaemonError::TimedOut {
                what: format!("a log line of the daemon: {what}; its log is {}", self.stderr()),
                after: PATIENCE,
            }),
        }
    }

    /// Its status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        match &mut self.process {
            Process::Child(child) => child.try_wait().ok().flatten(),
            Process::Sidecar(container) => {
                if container.is_running() {
                    None
                } else {
                    container.wait().ok()
                }
            }
        }
    }

    /// Reads the report as it is now.
    pub fn report(&self) -> Result<Value, DaemonError> {
        read_report(self.config.report_path())
    }

    /// Reads the report until it fits, at most 30 seconds. A report that is not there yet does not
    /// fit; one that does not parse is an error at once.
    pub fn wait_report(
        &mut self,
        what: &str,
        mut fits: impl FnMut(&Value) -> bool,
    ) -> Result<Value, DaemonError> {
        let mut last = None;
        let found = wait_for(PATIENCE, || match self.report() {
            Ok(report) => {
                let fitting = fits(&report);
                last = Some(report);
                match fitting {
                    true => Some(Ok(())),
                    false => self.ended().map(|status| {
                        Err(DaemonError::Ended {
                            exit: Box::new(Exit { status, stderr: self.stderr() }),
                        })
                    }),
                }
            }
            Err(DaemonError::Io { .. }) => None,
            Err(error) => Some(Err(error)),
        });
        match (found, last) {
            (Some(Ok(())), Some(report)) => Ok(report),
            (Some(Err(error)), _) => Err(error),
            (_, last) => Err(DaemonError::TimedOut {
                what: format!(
                    "a report with {what}; the last one was {}; the log is {}",
                    last.map_or("never written".into(), |report| format!("{report:#}")),
                    self.stderr()
                ),
                after: PATIENCE,
            }),
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(self) -> Result<Exit, DaemonError> {
        self.signal(Signal::TERM)?;
        self.await_end()
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill9(self) -> Result<Exit, DaemonError> {
        self.signal(Signal::KILL)?;
        self.await_end()
    }

    /// Sends a signal to its process.
    pub fn signal(&self, signal: Signal) -> Result<(), DaemonError> {
        kill_process(self.process(), signal).map_err(|errno| {
            DaemonError::io("send a signal to the daemon of", self.config.folder())(errno.into())
        })
    }

    /// Stops it as a shell's ctrl-Z does, and waits until not one of its threads runs any more: a signal
    /// alone says nothing about when. SIGCONT lets it go on.
    pub fn pause(&self) -> Result<(), DaemonError> {
        self.signal(Signal::STOP)?;
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.process()), stopped).map(drop).map_err(|errno| {
            DaemonError::io("wait until the daemon stands still, of", self.config.folder())(
                errno.into(),
            )
        })
    }

    /// Its process, as the kernel's calls name one.
    fn process(&self) -> Pid {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        pid.expect("a running process has a positive number")
    }

    /// Waits for its end.
    pub fn await_end(mut self) -> Result<Exit, DaemonError> {
        match wait_for(PATIENCE, || self.ended()) {
            Some(status) => Ok(Exit { status, stderr: self.stderr() }),
            None => Err(DaemonError::TimedOut {
                what: format!("the end of the daemon; its log is {}", self.stderr()),
                after: PATIENCE,
            }),
        }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        if let Process::Child(child) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Reads a report file.
pub fn read_report(path: &Path) -> Result<Value, DaemonError> {
    let bytes = fs::read(path).map_err(DaemonError::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|source| DaemonError::Report {
        path: path.to_owned(),
        source,
        text: String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).into_owned(),
    })
}

fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// A TOML basic string: JSON's escapes are among TOML's.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn quoted_list(texts: &[String]) -> String {
    Value::from(texts).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_and_plain_lines_are_complaints() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(complaint(line).as_deref(), expected, "{line}");
        };
        check(r#"{"level":"INFO","fields":{"message":"ready"}}"#, None);
        check(r#"{"level":"ERROR","fields":{"message":"disk full"}}"#, Some("disk full"));
        check(r#"{"level":"ERROR","message":"disk full"}"#, Some("disk full"));
        check("whodunit: no such file", Some("whodunit: no such file"));
        check("", None);
    }
}

//! `cargo xtask bench`: what tracing costs.
//!
//! Every row does the same work untraced, traced by a peer, and traced by us, in one run and in the order
//! base-peer-ours-ours-peer-base, so that a machine that slows down slows down all of them. Shows medians
//! as ratios to the untraced work. A row that does not do what it should, such as one that loses events,
//! fails the run; one that is slower than its target is only shown as missed.

mod peer;
mod real;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use whodunit_containers::condition::wait_until;
use whodunit_containers::daemon::read_report;
use whodunit_containers::{Cgroup, CgroupError, Daemon, DaemonConfig, DaemonError};

use peer::Peer;
use real::{RealPrograms, RealWork};

use crate::setup::{self, Purpose, SetupError};
use crate::workspace::{Built, CargoError, Workspace};

const HOT_OPENS: u64 = 1_000_000;
const HOT_FILES: u64 = 1_000;
const COLD_FILES: u64 = 100_000;
const CALLS: u64 = 20_000_000;
const IDLE_CONTAINERS: usize = 50;
const IDLE_TIME: Duration = Duration::from_secs(20);
/// How long a peer may take until it traces.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// Something is missing and cannot be installed.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The daemon or the load could not be built.
    #[error(transparent)]
    Cargo(#[from] CargoError),
    /// A cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The daemon.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A file or a program.
    #[error("cannot {action}: {cause}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system said.
        cause: io::Error,
    },
    /// A program did not do what it should.
    #[error("{0}")]
    Wrong(String),
}

fn io_error(action: impl Into<String>) -> impl FnOnce(io::Error) -> BenchError {
    let action = action.into();
    move |cause| BenchError::Io { action, cause }
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Row {
    row: &'static str,
    unit: &'static str,
    /// What was measured of us.
    ours: f64,
    /// The same, of the peers.
    others: Vec<(String, f64)>,
    /// At most this.
    target: f64,
    met: bool,
    remark: String,
}

impl Row {
    fn new(row: &'static str, unit: &'static str, ours: f64, target: f64) -> Row {
        let met = ours <= target;
        Row::judged(row, unit, ours, target, met)
    }

    /// A row of which more is better.
    fn at_least(row: &'static str, unit: &'static str, ours: f64, target: f64) -> Row {
        Row::judged(row, unit, ours, target, ours >= target)
    }

    fn judged(row: &'static str, unit: &'static str, ours: f64, target: f64, met: bool) -> Row {
        Row { row, unit, ours, others: Vec::new(), target, met, remark: String::new() }
    }
}

/// Whoever traces while work is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tracer {
    Nobody,
    Opensnoop,
    Bpftrace,
    Whodunit,
}

impl Tracer {
    const PEERS: [Tracer; 2] = [Tracer::Opensnoop, Tracer::Bpftrace];

    fn name(self) -> &'static str {
        match self {
            Tracer::Nobody => "untraced",
            Tracer::Opensnoop => "opensnoop",
            Tracer::Bpftrace => "bpftrace map",
            Tracer::Whodunit => "whodunit",
        }
    }
}

/// What a row does its work with.
struct Bench {
    load: PathBuf,
    /// The cgroup that the daemon traces.
    traced: Cgroup,
    /// One that it does not.
    bystander: Cgroup,
    files: tempfile::TempDir,
    rounds: usize,
}

/// Some work, and where it is done.
struct Work {
    arguments: Vec<String>,
    /// File events that it makes, its start included.
    events: u64,
    /// Different files that it uses, its program included.
    files: u64,
    /// Whether it is done in the traced cgroup.
    traced: bool,
}

/// What the report of some work must count; None where nobody knows it.
#[derive(Clone, Copy, Debug)]
struct Expected {
    events: Option<u64>,
    files: Option<u64>,
}

/// Nanoseconds of one turn of some work, by who traced it. Medians.
struct Measured(Vec<(Tracer, f64)>);

impl Measured {
    fn of(&self, wanted: Tracer) -> f64 {
        let found = self.0.iter().find(|(tracer, _)| *tracer == wanted);
        found.map_or(f64::NAN, |(_, value)| *value)
    }

    fn row(
        &self,
        name: &'static str,
        unit: &'static str,
        target: f64,
        compare: impl Fn(f64) -> f64,
    ) -> Row {
        let mut row = Row::new(name, unit, compare(self.of(Tracer::Whodunit)), target);
        row.others = self
            .0
            .iter()
            .filter(|(tracer, _)| Tracer::PEERS.contains(tracer))
            .map(|(tracer, value)| (tracer.name().to_owned(), compare(*value)))
            .collect();
        row.remark = format!("untraced {:.0} ns", self.of(Tracer::Nobody));
        row
    }

    fn times_untraced(&self, name: &'static str, target: f64) -> Row {
        let base = self.of(Tracer::Nobody);
        self.row(name, "times untraced", target, |value| value / base)
    }

    fn more_than_untraced(&self, name: &'static str, target: f64) -> Row {
        let base = self.of(Tracer::Nobody);
        self.row(name, "ns more", target, |value| value - base)
    }
}

/// What the daemon said of itself after some work.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    cpu_per_event_ns: f64,
    resident_bytes: f64,
}

pub(crate) fn run(
    workspace: &Workspace,
    json: Option<PathBuf>,
    rounds: usize,
) -> Result<ExitCode, BenchError> {
    setup::run(&[Purpose::Build, Purpose::Containers, Purpose::Test, Purpose::Bench])?;
    let built = workspace.build(
        &["build", "--release", "--package=whodunit", "--package=whodunit-tests", "--bins"],
        &[],
    )?;
    let find = |name: &str| {
        let is = |built: &&Built| built.target == name && !built.is_test;
        built.iter().find(is).map(|built| built.path.clone())
    };
    let missing = || BenchError::Wrong("cargo built no `whodunit` or no `load`".to_owned());
    let daemon = find("whodunit").ok_or_else(missing)?;
    let bench = Bench::new(find("load").ok_or_else(missing)?, rounds.max(1))?;
    let rows = bench.rows(&daemon)?;
    print_table(&rows);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&rows).expect("rows are plain values");
        fs::write(&path, text + "\n").map_err(io_error(format!("write {}", path.display())))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Bench {
    fn new(load: PathBuf, rounds: usize) -> Result<Bench, BenchError> {
        let files = tempfile::Builder::new()
            .prefix("whodunit-bench-")
            .tempdir_in("/dev/shm")
            .map_err(io_error("make a folder in /dev/shm"))?;
        for file in 0..COLD_FILES {
            let path = files.path().join(format!("{file:05}"));
            fs::write(&path, "").map_err(io_error(format!("write {}", path.display())))?;
        }
        Ok(Bench {
            load,
            traced: Cgroup::make("whodunit-bench/traced")?,
            bystander: Cgroup::make("whodunit-bench/bystander")?,
            files,
            rounds,
        })
    }

    fn rows(&self, daemon: &Path) -> Result<Vec<Row>, BenchError> {
        let mut rows = self.opens(daemon, "hot opens", HOT_OPENS, HOT_FILES, 1.30)?;
        rows.extend(self.opens(daemon, "cold opens", COLD_FILES, COLD_FILES, 1.50)?);
        rows.extend(self.rates(daemon)?);
        rows.extend(self.bystander(daemon)?);
        rows.extend(self.real_work(daemon)?);
        rows.extend(self.idle(daemon)?);
        Ok(rows)
    }

    /// `times` opens of `files` files, in the traced cgroup.
    fn opens(
        &self,
        daemon: &Path,
        name: &'static str,
        times: u64,
        files: u64,
        target: f64,
    ) -> Result<Vec<Row>, BenchError> {
        let work = Work {
            arguments: vec![
                "opens".to_owned(),
                times.to_string(),
                self.files.path().display().to_string(),
                files.to_string(),
            ],
            // Its exec, and the standard library's look at `/proc/self/maps`.
            events: times + 2,
            files: files + 1,
            traced: true,
        };
        let mut own = Vec::new();
        let measured = self.measure(daemon, name, &Tracer::PEERS, &work, &mut own)?;
        let mut row = measured.times_untraced(name, target);
        row.remark += "; totals exact, 0 lost";
        let cpu = median(own.iter().map(|own| own.cpu_per_event_ns).collect());
        let mut cpu_row = Row::new("daemon CPU per raw event", "ns", cpu, 300.0);
        cpu_row.remark = format!("in {name}, one plugin");
        let resident = median(own.iter().map(|own| own.resident_bytes).collect());
        cpu_row.remark += &format!("; resident afterwards {:.1} MB", resident / 1e6);
        Ok(vec![row, cpu_row])
    }

    /// How many events of as many processes as there are CPUs arrive, or are counted, without a loss.
    fn rates(&self, daemon: &Path) -> Result<Vec<Row>, BenchError> {
        let processes = thread::available_parallelism().map_or(1, usize::from);
        let mut rows = Vec::new();
        for (name, times, files, target) in [
            ("most events without loss, hot", HOT_OPENS, HOT_FILES, 1.0),
            ("most events without loss, new", COLD_FILES, COLD_FILES, 0.3),
        ] {
            let arguments = [
                "opens".to_owned(),
                times.to_string(),
                self.files.path().display().to_string(),
                files.to_string(),
            ];
            let events = (times + 2) * processes as u64;
            let work =
                Work { arguments: arguments.to_vec(), events, files: files + 1, traced: true };
            let run = || -> Result<f64, BenchError> {
                let start = Instant::now();
                let all: Vec<Result<f64, BenchError>> = thread::scope(|scope| {
                    let threads: Vec<_> =
                        (0..processes).map(|_| scope.spawn(|| self.load(&work))).collect();
                    threads
                        .into_iter()
                        .map(|thread| thread.join().expect("a load does not panic"))
                        .collect()
                });
                all.into_iter().collect::<Result<Vec<f64>, _>>()?;
                Ok(start.elapsed().as_nanos() as f64 / events as f64)
            };
            let expected = Expected { events: Some(events), files: Some(work.files) };
            let measured =
                self.measure_with(daemon, name, &Tracer::PEERS, &run, expected, &mut Vec::new())?;
            // Millions a second from nanoseconds of one.
            let rate = |nanoseconds: f64| 1e3 / nanoseconds;
            let mut row = Row::at_least(name, "M/s", rate(measured.of(Tracer::Whodunit)), target);
            row.others = Tracer::PEERS
                .map(|peer| (peer.name().to_owned(), rate(measured.of(peer))))
                .to_vec();
            row.remark = format!(
                "{processes} processes, as fast as they can; untraced {:.2}; ours exact, 0 lost; what peers \
                 lose is not counted",
                rate(measured.of(Tracer::Nobody))
            );
            rows.push(row);
        }
        Ok(rows)
    }

    /// Programs that people run.
    fn real_work(&self, daemon: &Path) -> Result<Vec<Row>, BenchError> {
        progress("real work: unpacking");
        let programs = RealPrograms::unpack()?;
        let mut rows = Vec::new();
        for work in RealWork::ALL {
            let run = || programs.measure(work, &self.traced);
            let expected = Expected { events: None, files: None };
            let measured = self.measure_with(
                daemon,
                work.name(),
                &Tracer::PEERS,
                &run,
                expected,
                &mut Vec::new(),
            )?;
            let mut row = measured.times_untraced(work.name(), work.target());
            row.remark += " a turn; 0 lost";
            rows.push(row);
        }
        Ok(rows)
    }

    /// What a container that nobody asked about pays.
    fn bystander(&self, daemon: &Path) -> Result<Vec<Row>, BenchError> {
        let folder = self.files.path().display().to_string();
        let opens = Work {
            arguments: ["opens", &HOT_OPENS.to_string(), &folder, &HOT_FILES.to_string()]
                .map(str::to_owned)
                .to_vec(),
            events: 0,
            files: 0,
            traced: false,
        };
        let calls = Work {
            arguments: ["calls", &CALLS.to_string()].map(str::to_owned).to_vec(),
            events: 0,
            files: 0,
            traced: false,
        };
        let mut rows = Vec::new();
        let measured =
            self.measure(daemon, "bystander opens", &Tracer::PEERS, &opens, &mut Vec::new())?;
        rows.push(measured.times_untraced("bystander opens", 1.15));
        let measured =
            self.measure(daemon, "bystander calls", &Tracer::PEERS, &calls, &mut Vec::new())?;
        let mut row = measured.more_than_untraced("bystander, any other call", 25.0);
        row.remark += ", getppid";
        rows.push(row);
        Ok(rows)
    }

    /// The daemon with many containers in which nothing happens.
    fn idle(&self, daemon: &Path) -> Result<Vec<Row>, BenchError> {
        progress("idle: whodunit");
        let containers: Vec<Cgroup> = (0..IDLE_CONTAINERS)
            .map(|number| Cgroup::make(format!("whodunit-bench/idle/{number}")))
            .collect::<Result<_, _>>()?;
        let paths: Vec<String> = containers.iter().map(Cgroup::path).collect();
        // Three plugins, as in the target.
        let more: String = ["second", "third"]
            .iter()
            .map(|name| {
                format!(
                    "[[plugin]]\nname = \"{name}\"\nsource = \"builtin:report-json\"\n\
                     outputs = {{ report = {{ file = \"/dev/shm/whodunit-bench-{name}.json\" }} }}\n"
                )
            })
            .collect();
        let config = DaemonConfig::for_cgroups(&paths)?
            .binary(daemon)
            .interval(Duration::from_secs(30))
            .more_toml(&more);
        let running = config.start()?;
        // What a start leaves behind, such as pages of compilation, is not idleness.
        thread::sleep(Duration::from_secs(2));
        let before = cpu_time(running.pid())?;
        thread::sleep(IDLE_TIME);
        let cpu = (cpu_time(running.pid())? - before).as_secs_f64() / IDLE_TIME.as_secs_f64();
        let resident = resident_bytes(running.pid())? / 1e6;
        running.stop()?;
        for name in ["second", "third"] {
            let _ = fs::remove_file(format!("/dev/shm/whodunit-bench-{name}.json"));
        }
        let mut memory = Row::new("idle resident memory", "MB", resident, 25.0);
        for peer in Tracer::PEERS {
            progress(&format!("idle: {}", peer.name()));
            let tracing = Peer::start(peer)?;
            memory.others.push((peer.name().to_owned(), tracing.resident_bytes()? / 1e6));
        }
        memory.remark = format!("{IDLE_CONTAINERS} containers, three plugins");
        let mut idle = Row::new("idle CPU", "% of a core", cpu * 100.0, 0.2);
        idle.remark = format!("{IDLE_CONTAINERS} containers, {} s", IDLE_TIME.as_secs());
        Ok(vec![memory, idle])
    }

    /// Does the work untraced, with each peer, and with us; there and back, as often as there are rounds.
    fn measure(
        &self,
        daemon: &Path,
        name: &str,
        peers: &[Tracer],
        work: &Work,
        own: &mut Vec<Own>,
    ) -> Result<Measured, BenchError> {
        let expected = Expected { events: Some(work.events), files: Some(work.files) };
        self.measure_with(daemon, name, peers, &|| self.load(work), expected, own)
    }

    /// As `measure`, of any work. It gives the nanoseconds of one turn.
    fn measure_with(
        &self,
        daemon: &Path,
        name: &str,
        peers: &[Tracer],
        run: &dyn Fn() -> Result<f64, BenchError>,
        expected: Expected,
        own: &mut Vec<Own>,
    ) -> Result<Measured, BenchError> {
        let mut order = vec![Tracer::Nobody];
        order.extend(peers);
        order.push(Tracer::Whodunit);
        let mut times: Vec<(Tracer, Vec<f64>)> =
            order.iter().map(|tracer| (*tracer, Vec::new())).collect();
        for round in 1..=self.rounds {
            let there_and_back = order.iter().chain(order.iter().rev());
            for tracer in there_and_back {
                progress(&format!("{name}: round {round} of {}: {}", self.rounds, tracer.name()));
                let time = match tracer {
                    Tracer::Nobody => run()?,
                    Tracer::Opensnoop | Tracer::Bpftrace => {
                        let _peer = Peer::start(*tracer)?;
                        run()?
                    }
                    Tracer::Whodunit => self.run_traced(daemon, run, expected, own)?,
                };
                let slot = times.iter_mut().find(|(known, _)| known == tracer);
                slot.into_iter().for_each(|(_, times)| times.push(time));
            }
        }
        Ok(Measured(times.into_iter().map(|(tracer, times)| (tracer, median(times))).collect()))
    }

    /// Does the work in its cgroup and gives the nanoseconds of one turn.
    fn load(&self, work: &Work) -> Result<f64, BenchError> {
        let cgroup = if work.traced { &self.traced } else { &self.bystander };
        // The shell moves itself and becomes the load, as a container runtime does.
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.folder().display());
        let output = Command::new("/bin/sh")
            .args(["-c", &script, "sh"])
            .arg(&self.load)
            .args(&work.arguments)
            .stderr(Stdio::inherit())
            .output()
            .map_err(io_error("start the load"))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match said.parse() {
            Ok(nanoseconds) if output.status.success() => Ok(nanoseconds),
            _ => Err(BenchError::Wrong(format!("the load failed ({}): {said}", output.status))),
        }
    }

    /// Does the work while the daemon watches, and holds its report against the truth.
    fn run_traced(
        &self,
        daemon: &Path,
        run: &dyn Fn() -> Result<f64, BenchError>,
        expected: Expected,
        own: &mut Vec<Own>,
    ) -> Result<f64, BenchError> {
        let config = DaemonConfig::for_cgroups(&[self.traced.path()])?
            .binary(daemon)
            // The files stand in memory, below `/dev`.
            .exclude(&["/proc/"])
            .interval(Duration::from_secs(30));
        let running = config.start()?;
        let before = cpu_time(running.pid())?;
        let time = run()?;
        if let Some(events) = expected.events.filter(|events| *events > 0) {
            let used = wait_for_quiet(&running)? - before;
            own.push(Own {
                cpu_per_event_ns: used.as_nanos() as f64 / events as f64,
                resident_bytes: resident_bytes(running.pid())?,
            });
        }
        running.stop()?;
        let report = read_report(config.report_path())?;
        let events = report["total_events"].as_u64();
        let dropped = report["dropped_events"].as_u64();
        let files = report["containers"][0]["unique_files"].as_u64();
        let right = |found: Option<u64>, truth: Option<u64>| truth.is_none() || found == truth;
        if !right(events, expected.events) || dropped != Some(0) || !right(files, expected.files) {
            return Err(BenchError::Wrong(format!(
                "the report counts {events:?} events, {dropped:?} dropped and {files:?} files, and \
                 the truth is {:?}, 0 and {:?}",
                expected.events, expected.files
            )));
        }
        Ok(time)
    }
}

/// Waits until the daemon has worked off what it has, and gives the CPU time that it used so far.
fn wait_for_quiet(daemon: &Daemon<'_>) -> Result<Duration, BenchError> {
    let mut last = cpu_time(daemon.pid())?;
    wait_until(PATIENCE, || {
        thread::sleep(Duration::from_millis(200));
        let now = cpu_time(daemon.pid()).unwrap_or(last);
        let quiet = now.saturating_sub(last) < Duration::from_millis(20);
        last = now;
        quiet
    });
    Ok(last)
}

/// The CPU time that a process has used, from the scheduler's own clock of each thread.
fn cpu_time(pid: u32) -> Result<Duration, BenchError> {
    let folder = format!("/proc/{pid}/task");
    let mut sum = 0;
    for thread in fs::read_dir(&folder).map_err(io_error(format!("read {folder}")))?.flatten() {
        // A thread that ended meanwhile has no file any more.
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(sum))
}

fn resident_bytes(pid: u32) -> Result<f64, BenchError> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(io_error(format!("read {path}")))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kilobytes| kilobytes.parse::<f64>().ok())
        .map(|kilobytes| kilobytes * 1024.0)
        .ok_or_else(|| BenchError::Wrong(format!("{path} has no VmRSS")))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

fn progress(what: &str) {
    let since = START.get_or_init(Instant::now).elapsed().as_secs();
    eprintln!("bench [{since:>4} s] {what}");
}

static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();

fn print_table(rows: &[Row]) {
    println!("| row | ours | peers | target | | |");
    println!("|---|---|---|---|---|---|");
    for row in rows {
        let others: Vec<String> =
            row.others.iter().map(|(name, value)| format!("{name} {value:.2}")).collect();
        println!(
            "| {} ({}) | {:.2} | {} | {} | {} | {} |",
            row.row,
            row.unit,
            row.ours,
            others.join(", "),
            row.target,
            if row.met { "met" } else { "missed" },
            row.remark
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn a_row_is_met_at_its_target_and_missed_above() {
        assert!(Row::new("row", "ns", 1.3, 1.3).met);
        assert!(!Row::new("row", "ns", 1.31, 1.3).met);
        assert!(!Row::new("row", "ns", f64::NAN, 1.3).met);
    }

    #[test]
    fn the_cpu_time_and_memory_of_a_living_process_are_read() {
        let own = std::process::id();
        assert!(cpu_time(own).unwrap() > Duration::ZERO);
        assert!(resident_bytes(own).unwrap() > 0.0);
    }
}

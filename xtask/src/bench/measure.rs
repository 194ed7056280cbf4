//! Measuring: the same work untraced, traced by peers, and traced by us, there and back, with medians.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use whodunit_containers::condition::wait_until;
use whodunit_containers::daemon::read_report;
use whodunit_containers::{Cgroup, Daemon, DaemonConfig};

use super::peer::{Peer, PeerKind};
use super::table::Row;
use super::{BenchError, io_error};

/// How long a program may take until it does what is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How many files there are to open.
pub(super) const FILES: u64 = 100_000;

/// Whoever traces while work is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracer {
    Nobody,
    Peer(PeerKind),
    Whodunit,
}

impl Tracer {
    fn name(self) -> &'static str {
        match self {
            Tracer::Nobody => "untraced",
            Tracer::Peer(kind) => kind.name(),
            Tracer::Whodunit => "whodunit",
        }
    }
}

/// The programs that rows run.
pub(super) struct Programs {
    pub(super) daemon: PathBuf,
    /// Opens files and makes calls.
    pub(super) load: PathBuf,
    /// Starts and ends processes.
    pub(super) storm: PathBuf,
    /// Runs plugins, with no kernel.
    pub(super) plugins: PathBuf,
}

/// What rows do their work with.
pub(super) struct Bench {
    pub(super) programs: Programs,
    /// The cgroup that the daemon traces.
    pub(super) traced: Cgroup,
    /// One that it does not.
    pub(super) bystander: Cgroup,
    pub(super) files: tempfile::TempDir,
    pub(super) rounds: usize,
}

/// Some work, and where it is done. It prints the nanoseconds of one turn.
pub(super) struct Work<'a> {
    pub(super) program: &'a Path,
    pub(super) arguments: Vec<String>,
    /// Whether it is done in the traced cgroup.
    pub(super) traced: bool,
}

/// What the daemon must have written of some work.
#[derive(Clone, Copy, Debug)]
pub(super) enum Truth {
    /// Nobody knows it, but nothing may be lost.
    NothingLost,
    /// So many file events, to so many files.
    Files { events: u64, files: u64 },
    /// So many deaths of processes, each so.
    Deaths { count: usize, end: End },
}

/// How the processes of a storm end.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// With this exit code.
    Exit(i32),
    /// By this signal from their parent.
    Signal(i32),
}

/// What the daemon said of itself after some work.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Own {
    pub(super) cpu: Duration,
    pub(super) resident_bytes: f64,
}

/// Nanoseconds of one turn of some work, by who traced it. Medians.
pub(super) struct Measured {
    times: Vec<(Tracer, f64)>,
    /// Of each run that we traced.
    pub(super) own: Vec<Own>,
}

impl Measured {
    pub(super) fn of(&self, wanted: Tracer) -> f64 {
        let found = self.times.iter().find(|(tracer, _)| *tracer == wanted);
        found.map_or(f64::NAN, |(_, value)| *value)
    }

    /// What was measured of the peers.
    pub(super) fn peers(&self, compare: impl Fn(f64) -> f64) -> Vec<(String, f64)> {
        let peers = self.times.iter().filter(|(tracer, _)| matches!(tracer, Tracer::Peer(_)));
        peers.map(|(tracer, value)| (tracer.name().to_owned(), compare(*value))).collect()
    }

    pub(super) fn times_untraced(&self, name: &'static str, target: f64) -> Row {
        let base = self.of(Tracer::Nobody);
        self.row(name, "times untraced", target, |value| value / base)
    }

    pub(super) fn more_than_untraced(&self, name: &'static str, target: f64) -> Row {
        let base = self.of(Tracer::Nobody);
        self.row(name, "ns more", target, |value| value - base)
    }

    fn row(
        &self,
        name: &'static str,
        unit: &'static str,
        target: f64,
        compare: impl Fn(f64) -> f64,
    ) -> Row {
        let mut row = Row::new(name, unit, compare(self.of(Tracer::Whodunit)), target);
        row.others = self.peers(compare);
        row.remark = format!("untraced {:.0} ns", self.of(Tracer::Nobody));
        row
    }
}

impl Bench {
    pub(super) fn new(programs: Programs, rounds: usize) -> Result<Bench, BenchError> {
        let files = tempfile::Builder::new()
            .prefix("whodunit-bench-")
            .tempdir_in("/dev/shm")
            .map_err(io_error("make a folder in /dev/shm"))?;
        for file in 0..FILES {
            let path = files.path().join(format!("{file:05}"));
            fs::write(&path, "").map_err(io_error(format!("write {}", path.display())))?;
        }
        Ok(Bench {
            programs,
            traced: Cgroup::make("whodunit-bench/traced")?,
            bystander: Cgroup::make("whodunit-bench/bystander")?,
            files,
            rounds,
        })
    }

    /// The daemon as it runs beside work in the traced cgroup.
    pub(super) fn config(&self) -> Result<DaemonConfig, BenchError> {
        Ok(DaemonConfig::for_cgroups(&[self.traced.path()])?
            .binary(&self.programs.daemon)
            // The files stand in memory, below `/dev`.
            .exclude(&["/proc/"])
            .interval(Duration::from_secs(30)))
    }

    /// Does the work untraced, with each peer, and with us; there and back, as often as there are rounds.
    pub(super) fn measure(
        &self,
        name: &str,
        peers: &[PeerKind],
        work: &Work<'_>,
        truth: Truth,
    ) -> Result<Measured, BenchError> {
        self.measure_with(name, peers, &|| self.work(work), truth)
    }

    /// As `measure`, of any work. It gives the nanoseconds of one turn.
    pub(super) fn measure_with(
        &self,
        name: &str,
        peers: &[PeerKind],
        run: &dyn Fn() -> Result<f64, BenchError>,
        truth: Truth,
    ) -> Result<Measured, BenchError> {
        let mut order = vec![Tracer::Nobody];
        order.extend(peers.iter().map(|kind| Tracer::Peer(*kind)));
        order.push(Tracer::Whodunit);
        let mut times: Vec<(Tracer, Vec<f64>)> =
            order.iter().map(|tracer| (*tracer, Vec::new())).collect();
        let mut own = Vec::new();
        for round in 1..=self.rounds {
            let there_and_back = order.iter().chain(order.iter().rev());
            for tracer in there_and_back {
                progress(&format!("{name}: round {round} of {}: {}", self.rounds, tracer.name()));
                let time = match tracer {
                    Tracer::Nobody => run()?,
                    Tracer::Peer(kind) => {
                        let _peer = Peer::start(*kind)?;
                        run()?
                    }
                    Tracer::Whodunit => self.run_traced(run, truth, &mut own)?,
                };
                let slot = times.iter_mut().find(|(known, _)| known == tracer);
                slot.into_iter().for_each(|(_, times)| times.push(time));
            }
        }
        let times = times.into_iter().map(|(tracer, times)| (tracer, median(times))).collect();
        Ok(Measured { times, own })
    }

    /// Does the work in its cgroup and gives the nanoseconds of one turn.
    pub(super) fn work(&self, work: &Work<'_>) -> Result<f64, BenchError> {
        let cgroup = if work.traced { &self.traced } else { &self.bystander };
        let output = in_cgroup(cgroup)
            .arg(work.program)
            .args(&work.arguments)
            .stderr(Stdio::inherit())
            .output()
            .map_err(io_error(format!("start {}", work.program.display())))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match said.parse() {
            Ok(nanoseconds) if output.status.success() => Ok(nanoseconds),
            _ => Err(BenchError::Wrong(format!("the load failed ({}): {said}", output.status))),
        }
    }

    /// Does the work while the daemon watches, and holds what it wrote against the truth.
    fn run_traced(
        &self,
        run: &dyn Fn() -> Result<f64, BenchError>,
        truth: Truth,
        own: &mut Vec<Own>,
    ) -> Result<f64, BenchError> {
        let config = self.config()?;
        let running = config.start()?;
        let before = cpu_time(running.pid())?;
        let time = run()?;
        let cpu = wait_for_quiet(&running)?.saturating_sub(before);
        own.push(Own { cpu, resident_bytes: resident_bytes(running.pid())? });
        running.stop()?;
        expect(&config, truth)?;
        Ok(time)
    }
}

/// Holds what the daemon wrote against the truth.
fn expect(config: &DaemonConfig, truth: Truth) -> Result<(), BenchError> {
    let report = read_report(config.report_path())?;
    let dropped = &report["dropped_events"];
    if dropped != 0 {
        let reasons = &report["containers"][0]["lost"];
        return Err(BenchError::Wrong(format!(
            "the report says that {dropped} events are lost: {reasons}"
        )));
    }
    match truth {
        Truth::NothingLost => Ok(()),
        Truth::Files { events, files } => {
            let told = (&report["total_events"], &report["containers"][0]["unique_files"]);
            if told == (&Value::from(events), &Value::from(files)) {
                return Ok(());
            }
            Err(BenchError::Wrong(format!(
                "the report counts {} events to {} files, and there were {events} to {files}",
                told.0, told.1
            )))
        }
        Truth::Deaths { count, end } => {
            let path = config.state_dir().join("deaths.jsonl");
            let text =
                fs::read_to_string(&path).map_err(io_error(format!("read {}", path.display())))?;
            let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            let right = lines.filter(|line: &Value| is_right(&line["death"], end)).count();
            if right == count {
                return Ok(());
            }
            Err(BenchError::Wrong(format!(
                "{right} deaths are on record as they were, and there were {count}"
            )))
        }
    }
}

/// Whether a death is one of a storm that ends so.
fn is_right(death: &Value, end: End) -> bool {
    if death["subject"] != "process" {
        return false;
    }
    match end {
        End::Exit(code) => death["status"]["how"] == "exited" && death["status"]["code"] == code,
        End::Signal(signal) => {
            let decided = death["decided_by"].as_u64().map(|index| index as usize);
            decided.is_some_and(|index| {
                let evidence = &death["evidence"][index];
                evidence["number"] == signal
                    && evidence["relation"] == "parent"
                    && evidence["sender"]["comm"] == "storm"
            })
        }
    }
}

/// A shell that moves itself into the cgroup and becomes what its arguments say, as a container runtime does.
pub(super) fn in_cgroup(cgroup: &Cgroup) -> Command {
    let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.folder().display());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script, "sh"]);
    command
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
pub(super) fn cpu_time(pid: u32) -> Result<Duration, BenchError> {
    let folder = format!("/proc/{pid}/task");
    let mut sum = 0;
    for thread in fs::read_dir(&folder).map_err(io_error(format!("read {folder}")))?.flatten() {
        // A thread that ended meanwhile has no file any more.
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(sum))
}

pub(super) fn resident_bytes(pid: u32) -> Result<f64, BenchError> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(io_error(format!("read {path}")))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kilobytes| kilobytes.parse::<f64>().ok())
        .map(|kilobytes| kilobytes * 1024.0)
        .ok_or_else(|| BenchError::Wrong(format!("{path} has no VmRSS")))
}

pub(super) fn median(values: Vec<f64>) -> f64 {
    let mut values = values;
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

pub(super) fn progress(what: &str) {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed().as_secs();
    eprintln!("bench [{since:>4} s] {what}");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn the_cpu_time_and_memory_of_a_living_process_are_read() {
        let own = std::process::id();
        assert!(cpu_time(own).unwrap() > Duration::ZERO);
        assert!(resident_bytes(own).unwrap() > 0.0);
    }

    #[test]
    fn a_death_is_right_with_its_signal_and_sender_only() {
        let killed = |sender: &str| {
            json!({
                "subject": "process",
                "decided_by": 0,
                "evidence": [{"number": 15, "relation": "parent", "sender": {"comm": sender}}],
            })
        };
        assert!(is_right(&killed("storm"), End::Signal(15)));
        assert!(!is_right(&killed("another"), End::Signal(15)));
        assert!(!is_right(&killed("storm"), End::Signal(9)));
        assert!(!is_right(&killed("storm"), End::Exit(0)));
        let exited =
            |code: i32| json!({"subject": "process", "status": {"how": "exited", "code": code}});
        assert!(is_right(&exited(3), End::Exit(3)));
        assert!(!is_right(&exited(1), End::Exit(3)));
        assert!(!is_right(&exited(3), End::Signal(15)));
    }
}

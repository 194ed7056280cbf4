//! What watching processes costs, and how soon a death is explained.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::measure::{Bench, End, PATIENCE, Truth, Work, in_cgroup, progress};
use super::peer::PeerKind;
use super::table::Row;
use super::{BenchError, io_error};

/// Fewer than the history of deaths keeps, so that every one is on record.
const DEATHS: usize = 4_000;
const VICTIMS: usize = 100;
const SIGTERM: i32 = 15;
/// How a child of `storm forks` exits.
const FAILURE: i32 = 3;

impl Bench {
    pub(super) fn processes(&self) -> Result<Vec<Row>, BenchError> {
        let both = PeerKind::ExitsnoopAndSigsnoop;
        let deaths = |end| Truth::Deaths { count: DEATHS, end };
        let mut spawns = self.storm_row(
            "spawn and wait",
            "spawns",
            &[PeerKind::Execsnoop, both],
            // Who succeeds gets no record.
            Truth::NothingLost,
            1.03,
        )?;
        spawns.remark += "; of /bin/true";
        let storms = [
            ("fork, exit, wait", "forks", PeerKind::Exitsnoop, End::Exit(FAILURE)),
            ("fork, SIGTERM, wait", "signals", PeerKind::Sigsnoop, End::Signal(SIGTERM)),
        ];
        let mut rows = vec![spawns];
        for (name, what, peer, end) in storms {
            let mut row = self.storm_row(name, what, &[peer, both], deaths(end), 1.05)?;
            row.remark += "; every death on record, with its cause and an explanation";
            rows.push(row);
        }
        Ok(rows)
    }

    fn storm_row(
        &self,
        name: &'static str,
        what: &str,
        peers: &[PeerKind],
        truth: Truth,
        target: f64,
    ) -> Result<Row, BenchError> {
        let arguments = vec![what.to_owned(), DEATHS.to_string(), "/bin/true".to_owned()];
        let work = Work { program: &self.programs.storm, arguments, traced: true };
        Ok(self.measure(name, peers, &work, truth)?.times_untraced(name, target))
    }

    /// From the signal to the line with the explanation in the history.
    pub(super) fn explanations(&self) -> Result<Vec<Row>, BenchError> {
        let config = self.config()?;
        let running = config.start()?;
        progress("signal to explanation");
        let mut storm = in_cgroup(&self.traced)
            .arg(&self.programs.storm)
            .args(["victims", &VICTIMS.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(io_error("start the storm"))?;
        let seen = watch_deaths(&config.state_dir().join("deaths.jsonl"), VICTIMS)?;
        let mut said = String::new();
        if let Some(mut pipe) = storm.stdout.take() {
            pipe.read_to_string(&mut said).map_err(io_error("read what the storm says"))?;
        }
        storm.wait().map_err(io_error("wait for the storm"))?;
        running.stop()?;
        let mut delays: Vec<f64> = said
            .lines()
            .filter_map(|line| {
                let (pid, sent) = line.split_once(' ')?;
                let written = seen.get(&pid.parse().ok()?)?;
                Some((written - sent.parse::<f64>().ok()?) / 1e6)
            })
            .collect();
        if delays.len() != VICTIMS {
            return Err(BenchError::Wrong(format!(
                "{} of {VICTIMS} victims have an explanation",
                delays.len()
            )));
        }
        delays.sort_by(f64::total_cmp);
        let p99 = delays[VICTIMS * 99 / 100 - 1];
        let mut row = Row::new("signal sent to explanation written, p99", "ms", p99, 50.0);
        row.remark = format!("{VICTIMS} deaths; median {:.2} ms", delays[VICTIMS / 2]);
        Ok(vec![row])
    }

    /// From the start of the daemon, its plugins compiled before, to the first file that it sees.
    pub(super) fn start(&self) -> Result<Vec<Row>, BenchError> {
        let config = self.config()?;
        // Compiles the plugins.
        config.start()?.stop()?;
        let folder = self.files.path().join("clock");
        std::fs::create_dir(&folder).map_err(io_error("make a folder"))?;
        let mut delays = Vec::new();
        for round in 1..=2 * self.rounds {
            progress(&format!("start: round {round} of {}", 2 * self.rounds));
            delays.push(self.start_once(&config, &folder)?);
        }
        let _ = std::fs::remove_dir_all(&folder);
        let mut row =
            Row::new("start to first event", "ms", super::measure::median(delays.clone()), 300.0);
        let least = delays.iter().copied().fold(f64::INFINITY, f64::min);
        row.remark =
            format!("{} starts, plugins compiled before; least {least:.0} ms", delays.len());
        Ok(vec![row])
    }

    fn start_once(
        &self,
        config: &whodunit_containers::DaemonConfig,
        folder: &Path,
    ) -> Result<f64, BenchError> {
        let mut clock = in_cgroup(&self.traced)
            .arg(&self.programs.storm)
            .arg("clock")
            .arg(folder)
            .stdin(Stdio::null())
            .spawn()
            .map_err(io_error("start the storm"))?;
        let started = monotonic_ns() / 1e6;
        let measured = (|| {
            config.start()?.stop()?;
            let report = whodunit_containers::daemon::read_report(config.report_path())?;
            let files = report["containers"][0]["files"].as_array().cloned().unwrap_or_default();
            let moments = files.iter().filter_map(|file| moment_of(file, folder));
            let first =
                moments.filter(|moment| *moment >= started.floor()).fold(f64::INFINITY, f64::min);
            if first.is_finite() {
                Ok(first - started)
            } else {
                Err(BenchError::Wrong(format!("the report has no file below {}", folder.display())))
            }
        })();
        let _ = clock.kill();
        let _ = clock.wait();
        // The next daemon begins with an empty report.
        let _ = std::fs::remove_file(config.report_path());
        measured
    }
}

/// The moment that a file of the storm's clock is named after, in milliseconds of `CLOCK_MONOTONIC`.
fn moment_of(file: &Value, folder: &Path) -> Option<f64> {
    Path::new(file.as_str()?).strip_prefix(folder).ok()?.to_str()?.parse().ok()
}

/// Reads the history of deaths as it grows. Gives for each process when its line was there, in nanoseconds of
/// `CLOCK_MONOTONIC`, which is up to a fifth of a millisecond late.
fn watch_deaths(path: &Path, count: usize) -> Result<HashMap<u64, f64>, BenchError> {
    let mut file = File::open(path).map_err(io_error(format!("open {}", path.display())))?;
    let mut seen = HashMap::new();
    let mut unread = Vec::new();
    let give_up = Instant::now() + PATIENCE + Duration::from_millis(200) * VICTIMS as u32;
    while seen.len() < count && Instant::now() < give_up {
        thread::sleep(Duration::from_micros(200));
        let read = file.read_to_end(&mut unread);
        read.map_err(io_error(format!("read {}", path.display())))?;
        let now = monotonic_ns();
        let whole = unread.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in unread.drain(..whole).collect::<Vec<u8>>().split(|byte| *byte == b'\n') {
            let death = serde_json::from_slice::<Value>(line).unwrap_or_default();
            if let Some(pid) = death["death"]["process"]["pid"].as_u64() {
                seen.insert(pid, now);
            }
        }
    }
    Ok(seen)
}

fn monotonic_ns() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_clock_tells_its_moment() {
        let folder = Path::new("/dev/shm/x/clock");
        assert_eq!(moment_of(&"/dev/shm/x/clock/4711".into(), folder), Some(4711.0));
        assert_eq!(moment_of(&"/dev/shm/x/other/4711".into(), folder), None);
        assert_eq!(moment_of(&"/dev/shm/x/clock/x".into(), folder), None);
    }
}

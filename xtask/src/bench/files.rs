//! What file access costs: traced, cold, in a container that nobody asked about, and as fast as it goes.

use std::thread;
use std::time::Instant;

use super::BenchError;
use super::measure::{Bench, FILES, Tracer, Truth, Work, median};
use super::peer::PeerKind;
use super::table::Row;

const HOT_OPENS: u64 = 1_000_000;
const HOT_FILES: u64 = 1_000;
const CALLS: u64 = 20_000_000;
/// Events of the load's start: its exec, the C library's look at `/proc/self/exe`, and the standard library's
/// at `/proc/self/maps`.
const AT_START: u64 = 3;
/// Who traces the opening of files.
pub(super) const PEERS: [PeerKind; 2] = [PeerKind::Opensnoop, PeerKind::BpftraceMap];

impl Bench {
    pub(super) fn hot_opens(&self) -> Result<Vec<Row>, BenchError> {
        self.opens("hot opens", HOT_OPENS, HOT_FILES, 1.30)
    }

    pub(super) fn cold_opens(&self) -> Result<Vec<Row>, BenchError> {
        self.opens("cold opens", FILES, FILES, 1.50)
    }

    /// `times` opens of `files` files.
    fn open_work(&self, times: u64, files: u64, traced: bool) -> Work<'_> {
        let folder = self.files.path().display().to_string();
        let arguments = vec!["opens".to_owned(), times.to_string(), folder, files.to_string()];
        Work { program: &self.programs.load, arguments, traced }
    }

    fn opens(
        &self,
        name: &'static str,
        times: u64,
        files: u64,
        target: f64,
    ) -> Result<Vec<Row>, BenchError> {
        let events = times + AT_START;
        let work = self.open_work(times, files, true);
        let truth = Truth::Files { events, files: files + 1 };
        let measured = self.measure(name, &PEERS, &work, truth)?;
        let mut row = measured.times_untraced(name, target);
        row.remark += "; totals exact, 0 lost";
        let own = &measured.own;
        let cpu = median(own.iter().map(|own| own.cpu.as_nanos() as f64 / events as f64).collect());
        let mut cpu_row = Row::new("daemon CPU per raw event", "ns", cpu, 300.0);
        let resident = median(own.iter().map(|own| own.resident_bytes).collect());
        cpu_row.remark =
            format!("in {name}, one reporter; resident afterwards {:.1} MB", resident / 1e6);
        Ok(vec![row, cpu_row])
    }

    /// How many events of as many processes as there are CPUs arrive, or are counted, without a loss.
    pub(super) fn rates(&self) -> Result<Vec<Row>, BenchError> {
        let mut rows = Vec::new();
        for (name, times, files, target) in [
            ("most events without loss, hot", HOT_OPENS, HOT_FILES, 1.0),
            ("most events without loss, new", FILES, FILES, 0.3),
        ] {
            rows.push(self.rate(name, times, files, target)?);
        }
        Ok(rows)
    }

    fn rate(
        &self,
        name: &'static str,
        times: u64,
        files: u64,
        target: f64,
    ) -> Result<Row, BenchError> {
        let processes = thread::available_parallelism().map_or(1, usize::from);
        let events = (times + AT_START) * processes as u64;
        let work = self.open_work(times, files, true);
        let run = || -> Result<f64, BenchError> {
            let start = Instant::now();
            thread::scope(|scope| {
                let all: Vec<_> =
                    (0..processes).map(|_| scope.spawn(|| self.work(&work))).collect();
                all.into_iter().try_for_each(|one| {
                    one.join().expect("a load does not panic").map(|_nanoseconds| ())
                })
            })?;
            Ok(start.elapsed().as_nanos() as f64 / events as f64)
        };
        let measured =
            self.measure_with(name, &PEERS, &run, Truth::Files { events, files: files + 1 })?;
        // Millions a second from nanoseconds of one.
        let rate = |nanoseconds: f64| 1e3 / nanoseconds;
        let mut row = Row::at_least(name, "M/s", rate(measured.of(Tracer::Whodunit)), target);
        row.others = measured.peers(rate);
        row.remark = format!(
            "{processes} processes, as fast as they can; untraced {:.2}; ours exact, 0 lost; what \
             peers lose is not counted",
            rate(measured.of(Tracer::Nobody))
        );
        Ok(row)
    }

    /// What a container that nobody asked about pays.
    pub(super) fn bystander_rows(&self) -> Result<Vec<Row>, BenchError> {
        let name = "bystander opens";
        let opens = self.open_work(HOT_OPENS, HOT_FILES, false);
        let measured = self.measure(name, &PEERS, &opens, Truth::NothingLost)?;
        let opens = measured.times_untraced(name, 1.15);
        let arguments = vec!["calls".to_owned(), CALLS.to_string()];
        let calls = Work { program: &self.programs.load, arguments, traced: false };
        let name = "bystander, any other call";
        let measured = self.measure(name, &PEERS, &calls, Truth::NothingLost)?;
        let mut calls = measured.more_than_untraced(name, 25.0);
        calls.remark += ", getppid";
        Ok(vec![opens, calls])
    }
}

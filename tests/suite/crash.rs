//! `kill -9` at any moment leaves a report that parses.

use std::time::Duration;

use libtest_mimic::Trial;
use whodunit_containers::daemon::read_report;
use whodunit_containers::{DaemonConfig, DaemonError, Pod};

use crate::report::{Report, expect, expect_eq};
use crate::{Outcome, about_capture};

pub(crate) fn trials() -> Vec<Trial> {
    vec![about_capture("crash::killed_100_times_the_report_always_parses", killed_100_times)]
}

const KILLS: u64 = 100;

/// The shortest that the configuration allows: as many moments of writing as there can be.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Delays that are spread evenly and differ from run to run of the loop: a low-discrepancy sequence
/// needs no seed and still hits every phase of writing.
fn delay(kill: u64, at_most: Duration) -> Duration {
    const GOLDEN_RATIO: f64 = 0.618_033_988_749_894_9;
    at_most.mul_f64((kill as f64 * GOLDEN_RATIO).fract())
}

fn killed_100_times() -> Outcome {
    let pod = Pod::new("killed")?;
    // New files all the time, so that every interval has something to write.
    let script = "i=0; while :; do i=$(( (i + 1) % 5000 )); : > /data/$i; done";
    let _writers = [
        pod.container("writer").folder("/data").shell(script).start()?,
        pod.container("writer").folder("/data").shell(script).start()?,
    ];
    let config = DaemonConfig::for_pod(&pod)?.interval(SHORTEST_INTERVAL);
    let mut total_before = 0;
    for kill in 0..KILLS {
        // Every other time while it is still starting and reads the report of before.
        let daemon = match kill % 2 {
            0 => config.start()?,
            _ => config.spawn()?,
        };
        std::thread::sleep(match kill % 2 {
            0 => delay(kill, SHORTEST_INTERVAL * 2),
            _ => delay(kill, Duration::from_millis(300)),
        });
        let exit = daemon.kill9()?;
        expect_eq(&format!("the signal that ended run {kill}: {exit}"), &exit.signal(), &Some(9))?;
        match read_report(config.report_path()) {
            Ok(report) => {
                let report = Report::check(report)?;
                let total = report.number("total_events");
                expect(
                    format!("totals grow: {total} after {total_before}"),
                    total >= total_before,
                )?;
                total_before = total;
            }
            // Until the first report is written there is none, and never half of one.
            Err(DaemonError::Io { .. }) if total_before == 0 => {}
            Err(error) => return Err(error.into()),
        }
    }
    expect("there were reports", total_before > 0)?;
    // The containers write on all the time, so its totals are those of a moment, not of an end.
    let exit = config.start()?.stop()?;
    expect_eq(&format!("exit code, of {exit}"), &exit.code(), &Some(0))?;
    Report::check(read_report(config.report_path())?)?;
    let folder = config.report_path().parent().expect("the report lies in a folder");
    let left: Vec<_> = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    expect_eq("what lies beside the report", &left, &vec!["report.json".into()])
}

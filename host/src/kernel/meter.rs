//! What the kernel measures of the programs: how often and how long it ran them, and what it kept from them.
//!
//! Times are measured while somebody asks for them (`BPF_ENABLE_STATS`, Linux 5.8), and then of every program of the machine.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use aya::Ebpf;
use aya::sys::{Stats, enable_stats};
use thiserror::Error;

use super::probes;

/// Why nothing is measured.
#[derive(Debug, Error)]
pub enum MeterError {
    /// The kernel does not begin to measure.
    #[error(
        "the kernel does not measure how long programs run ({0}): grant CAP_SYS_ADMIN, which that takes, or set \
         `kernel.bpf_stats_enabled` to 1"
    )]
    Refused(#[source] io::Error),
    /// There are no more descriptors.
    #[error("the programs cannot be held open to be measured")]
    Descriptors(#[source] io::Error),
}

/// How often and how long the programs of a probe ran, of all CPUs, since they were loaded or since the kernel measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// How often.
    pub count: u64,
    /// How long, in nanoseconds.
    pub time_ns: u64,
}

/// Has the kernel measure while it lives, and reads what it measured.
pub struct Meter {
    /// The programs of each probe that runs.
    probes: Vec<(&'static str, Vec<OwnedFd>)>,
    /// The kernel measures while this is open. None where it does so anyway.
    _measuring: Option<OwnedFd>,
}

impl Meter {
    /// Begins to measure. To be called before privileges are given up.
    pub(super) fn begin(programs: &Ebpf) -> Result<Meter, MeterError> {
        let measuring = match enable_stats(Stats::RunTime) {
            Ok(descriptor) => Some(descriptor),
            Err(_) if measures_anyway() => None,
            Err(error) => return Err(MeterError::Refused(error.io_error)),
        };
        let probes = probes::loaded(programs).map_err(MeterError::Descriptors)?;
        Ok(Meter { probes, _measuring: measuring })
    }

    /// What was measured of a probe, by its name. None for one that does not run.
    pub fn runs(&self, probe: &str) -> Option<Runs> {
        let (_, programs) = self.probes.iter().find(|(name, _)| *name == probe)?;
        let mut sum = Runs::default();
        for Counts { runs, .. } in programs.iter().map(Counts::of) {
            sum.count += runs.count;
            sum.time_ns += runs.time_ns;
        }
        Some(sum)
    }
}

/// Whether whoever runs the machine has it measure.
fn measures_anyway() -> bool {
    let setting = std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled");
    setting.is_ok_and(|setting| setting.trim() == "1")
}

/// What the kernel counts of one program, by `bpf_prog_show_fdinfo` (`kernel/bpf/syscall.c`). What a kernel does not
/// tell is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Since Linux 5.1.
    runs: Runs,
    /// How often it was not run because it was running on that CPU already. Since Linux 5.12.
    pub(super) misses: u64,
}

impl Counts {
    /// Those of the program with this descriptor.
    pub(super) fn of(program: impl AsFd) -> Counts {
        let path = format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd());
        Counts::read(&std::fs::read_to_string(path).unwrap_or_default())
    }

    fn read(text: &str) -> Counts {
        let mut counts = Counts::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = || value.trim().parse().unwrap_or(0);
            match name {
                "run_time_ns" => counts.runs.time_ns = value(),
                "run_cnt" => counts.runs.count = value(),
                "recursion_misses" => counts.misses = value(),
                _ => {}
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_counts_is_read_and_the_rest_is_zero() {
        let new = "pos:\t0\nflags:\t02000002\nprog_type:\t17\nprog_tag:\ta04f5eef06a7f555\nrun_time_ns:\t1250\n\
                   run_cnt:\t3\nrecursion_misses:\t2\nverified_insns:\t9\n";
        let runs = Runs { count: 3, time_ns: 1_250 };
        assert_eq!(Counts::read(new), Counts { runs, misses: 2 });
        let old = "pos:\t0\nrun_time_ns:\t7\nrun_cnt:\t1\n";
        assert_eq!(Counts::read(old).misses, 0);
        assert_eq!(Counts::read("run_cnt:\tmany\n"), Counts::default());
    }
}

//! What the daemon may do: the capabilities that it needs, and giving up the others.
//!
//! `doctor`, the log and the status name what is missing from [`NEEDED`]. Once the programs are loaded and before any other
//! thread starts, since capabilities belong to threads, everything but [`KEPT`] is given up for good.

use caps::{CapSet, Capability, CapsHashSet};

use crate::config::Http;

/// A capability and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The capability.
    pub capability: Capability,
    /// What for.
    pub purpose: &'static str,
    /// What is missing without it.
    pub without: &'static str,
}

/// What the daemon needs. Kernels before 5.8 know only `CAP_SYS_ADMIN` for the first two.
pub const NEEDED: &[Need] = &[
    Need {
        capability: Capability::CAP_BPF,
        purpose: "load programs and maps",
        without: "the daemon does not start",
    },
    Need {
        capability: Capability::CAP_PERFMON,
        purpose: "read kernel structures and attach to tracepoints",
        without: "the daemon does not start",
    },
    Need {
        capability: Capability::CAP_DAC_READ_SEARCH,
        purpose: "look into folders that are another user's alone",
        without: "symbolic links and interpreters in such folders of containers are not found, nor is what \
                  they lead to",
    },
    Need {
        capability: Capability::CAP_SYS_PTRACE,
        purpose: "reach the files of containers and their mounts through their processes",
        without: "of processes of other users, or with capabilities that the daemon lacks, nobody finds \
                  symbolic links, interpreters, mounts, and the program that ran before the daemon came",
    },
];

/// What takes a further capability, and only where it is asked for.
pub const SOMETIMES: &[Need] = &[
    Need {
        capability: Capability::CAP_DAC_OVERRIDE,
        purpose: "write reports and state into folders that root may not write by itself",
        without: "the daemon says so and does not start",
    },
    Need {
        capability: Capability::CAP_SYS_RESOURCE,
        purpose: "lift the limit of locked memory, which maps count against before Linux 5.11",
        without: "the kernel refuses the maps, unless the limit was lifted before (`LimitMEMLOCK=infinity`, \
                  `ulimit -l unlimited`)",
    },
    Need {
        capability: Capability::CAP_NET_BIND_SERVICE,
        purpose: "answer HTTP at a port below 1024",
        without: "the daemon says so and does not start",
    },
    Need {
        capability: Capability::CAP_SYS_ADMIN,
        purpose: "have the kernel measure how long its programs run (`capture.measure`); given up once it does",
        without: "the daemon says so and measures nothing, unless `kernel.bpf_stats_enabled` is 1",
    },
];

/// What stays after the start, as far as it was there: maps are read with `CAP_BPF` (all of `bpf()` asks for it before
/// Linux 5.19), containers and their processes are read, and reports are written wherever the TOML says.
pub const KEPT: [Capability; 4] = [
    Capability::CAP_BPF,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SYS_PTRACE,
];

/// Why nothing could be given up.
#[derive(Debug, thiserror::Error)]
#[error("privileges cannot be given up: {0}")]
pub struct KeepError(String);

/// The needed ones that this process lacks.
pub fn missing() -> Vec<Need> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let stands_in = |need: &Need| {
        has(Capability::CAP_SYS_ADMIN)
            && matches!(need.capability, Capability::CAP_BPF | Capability::CAP_PERFMON)
    };
    NEEDED.iter().filter(|need| !has(need.capability) && !stands_in(need)).copied().collect()
}

/// Whether this process has what BPF asks for.
pub fn may_use_bpf() -> bool {
    let bpf = [Capability::CAP_BPF, Capability::CAP_PERFMON];
    missing().iter().all(|need| !bpf.contains(&need.capability))
}

/// The ports that only a privileged process may listen at.
const PRIVILEGED_PORTS: std::ops::Range<u16> = 1..1024;

/// Gives up every capability but [`KEPT`] and what HTTP needs, and that of ever getting one back by executing a program. Where
/// `CAP_SYS_ADMIN` stands in for `CAP_BPF` it stays too.
///
/// Called on the only thread of the process: others would keep theirs.
///
/// # Errors
///
/// If the kernel refuses. Nothing depends on it: the daemon goes on with what it has.
pub fn give_up(http: &Http) -> Result<(), KeepError> {
    let failed = |error: caps::errors::CapsError| KeepError(error.to_string());
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let mut kept: CapsHashSet = KEPT.into_iter().filter(|it| permitted.contains(it)).collect();
    if !kept.contains(&Capability::CAP_BPF) && permitted.contains(&Capability::CAP_SYS_ADMIN) {
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    let listens_low = http.listen.is_some_and(|at| PRIVILEGED_PORTS.contains(&at.port()));
    if listens_low && permitted.contains(&Capability::CAP_NET_BIND_SERVICE) {
        kept.insert(Capability::CAP_NET_BIND_SERVICE);
    }
    // Without the right to do so the bounding set stays, which no program can use after the last line.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding).map_err(failed)? {
            if !kept.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(failed)?;
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)?;
    rustix::thread::set_no_new_privs(true).map_err(|error| KeepError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_given_up_for_good_on_this_thread() {
        // On a thread of its own: the others of this test binary keep theirs.
        std::thread::spawn(|| {
            give_up(&Http::default()).unwrap();
            let left = caps::read(None, CapSet::Permitted).unwrap();
            assert!(left.iter().all(|it| KEPT.contains(it) || *it == Capability::CAP_SYS_ADMIN));
            assert!(caps::raise(None, CapSet::Effective, Capability::CAP_NET_ADMIN).is_err());
            assert!(rustix::thread::no_new_privs().unwrap());
        })
        .join()
        .unwrap();
    }
}

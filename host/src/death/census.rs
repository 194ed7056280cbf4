//! Who lives in a container that was there before the daemon: read from `/proc`, once.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use super::decode::ProcessKey;
use crate::discovery::escaped;

/// A process that was there before the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inhabitant {
    /// Who. The start is that of `/proc/<pid>/stat`: in clock ticks, rounded down.
    pub(crate) key: ProcessKey,
    /// Its parent.
    pub(crate) parent: u32,
    /// The program that it executes.
    pub(crate) exe: Option<String>,
    /// The one above it in the same container whose parent lives elsewhere: itself, if its own does.
    pub(crate) line: ProcessKey,
}

/// Nanoseconds of a clock tick of `/proc`.
pub(crate) fn tick_ns() -> u64 {
    1_000_000_000 / rustix::param::clock_ticks_per_second()
}

/// `PROC_PID_INIT_INO` of `include/linux/proc_ns.h`: the initial pid namespace (Linux 3.8).
const INITIAL_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Whether `/proc` numbers processes as the kernel's records do. A sidecar's own namespace has other numbers.
fn numbers_are_the_kernels() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|found| found.ino() == INITIAL_NAMESPACE)
}

/// Reads these processes, the oldest first. One that is gone by now is left out; in another pid namespace than the initial one
/// all are.
pub(crate) fn inhabitants(pids: &[u32]) -> Vec<Inhabitant> {
    if !numbers_are_the_kernels() {
        return Vec::new();
    }
    let mut found: Vec<Inhabitant> = pids
        .iter()
        .filter_map(|pid| {
            let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
            let (parent, ticks) = parse_stat(&stat)?;
            let exe = fs::read_link(format!("/proc/{pid}/exe")).ok();
            let key = ProcessKey { pid: *pid, started_ns: ticks * tick_ns() };
            Some(Inhabitant {
                key,
                parent,
                exe: exe.map(|path| escaped(path.as_os_str().as_bytes())),
                line: key,
            })
        })
        .collect();
    draw_lines(&mut found);
    found
}

fn draw_lines(found: &mut [Inhabitant]) {
    found.sort_by_key(|inhabitant| (inhabitant.key.started_ns, inhabitant.key.pid));
    let parents: HashMap<u32, (u32, ProcessKey)> = found
        .iter()
        .map(|inhabitant| (inhabitant.key.pid, (inhabitant.parent, inhabitant.key)))
        .collect();
    for inhabitant in found {
        let mut above = inhabitant.parent;
        // No process is its own parent, and there are no more steps than processes.
        for _ in 0..parents.len() {
            let Some((parent, key)) = parents.get(&above) else { break };
            inhabitant.line = *key;
            above = *parent;
        }
    }
}

/// Parent and start of a process, from `/proc/<pid>/stat`: the fourth and the 22nd field. The second, its name, may hold
/// anything, and ends at the last parenthesis.
fn parse_stat(stat: &[u8]) -> Option<(u32, u64)> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let ticks = fields.nth(17)?.parse().ok()?;
    Some((parent, ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_is_no_trouble() {
        let stat = b"7 (a) b (c) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1 2 3";
        assert_eq!(parse_stat(stat), Some((3, 4242)));
        assert_eq!(parse_stat(b"7 (a"), None);
        assert_eq!(parse_stat(b"7 (a) S"), None);
    }

    #[test]
    fn the_running_process_is_found_as_the_kernel_has_it() {
        if !numbers_are_the_kernels() {
            assert_eq!(inhabitants(&[std::process::id()]), []);
            return;
        }
        let found = inhabitants(&[std::process::id(), u32::MAX]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].parent, std::os::unix::process::parent_id());
        assert!(found[0].exe.is_some());
    }

    #[test]
    fn each_line_begins_with_who_came_from_outside() {
        let inhabitant = |pid, parent, started_ns| {
            let key = ProcessKey { pid, started_ns };
            Inhabitant { key, parent, exe: None, line: key }
        };
        // 10 is the first; 20 came later from outside; the others descend from these.
        let mut found = [
            inhabitant(21, 20, 6),
            inhabitant(11, 10, 2),
            inhabitant(10, 1, 1),
            inhabitant(12, 11, 3),
            inhabitant(20, 2, 5),
        ];
        draw_lines(&mut found);
        let lines: Vec<(u32, u32)> =
            found.iter().map(|found| (found.key.pid, found.line.pid)).collect();
        assert_eq!(lines, [(10, 10), (11, 10), (12, 10), (20, 20), (21, 20)]);
    }
}

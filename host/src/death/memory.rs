//! Which memory ran out when the kernel killed for want of it.
//!
//! The kernel says in whose allocation it happened, and what the memory cgroups above that process, and from Linux 6.8 on above
//! the victim, used and were allowed. The one that was full is found by that: the tracepoint does not name it.

use whodunit_ebpf::{RawMemory, RawVictim};

use super::record::OomScope;

/// How far below its limit a cgroup may be whose limit stood in the way: an allocation takes up to a huge page (512 pages)
/// and is tried in batches of 64 (`MEMCG_CHARGE_BATCH`), and others may have given back some meanwhile.
const SLACK_PAGES: u64 = 512 + 64;

/// From here on a limit is none (`PAGE_COUNTER_MAX`, in pages).
const NO_LIMIT_PAGES: u64 = 1 << 50;

/// The memory that was full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) scope: OomScope,
    /// Path of its cgroup. Empty for the machine's.
    pub(crate) path: Vec<u8>,
    pub(crate) limit_pages: Option<u64>,
    pub(crate) usage_pages: Option<u64>,
    /// Whether the kernel kills all of its cgroup together.
    pub(crate) kills_all: bool,
}

/// How long the kernel may take to kill all of a cgroup, in nanoseconds, on a machine that is busy beyond measure.
const GROUP_NS: u64 = 5_000_000_000;

/// The first kill of a group.
///
/// Where the kernel kills all of a cgroup together (`memory.oom.group`), the first victim may have given back its memory before the last
/// one is marked, and nothing is full any more by then.
#[derive(Debug, Default)]
pub(crate) struct Group {
    first: Option<Box<RawVictim>>,
}

impl Group {
    /// Gives a kill what was full when the first one of its group was chosen.
    pub(crate) fn complete(&mut self, kill: &mut RawVictim) {
        match &self.first {
            Some(first) if is_of_one_group(first, kill) => {
                kill.levels = first.levels;
                kill.victim_levels = first.victim_levels;
            }
            Some(_) | None => self.first = Some(Box::new(*kill)),
        }
    }
}

/// Whether two kills are of one allocation, in which the kernel kills all of a cgroup.
fn is_of_one_group(first: &RawVictim, kill: &RawVictim) -> bool {
    let is_of_cgroup = |level: &RawMemory| {
        let mut own = kill.victim_levels.iter();
        // What is above the victim is told since Linux 6.8.
        kill.victim_levels[0].cgroup == 0 || own.any(|own| own.cgroup == level.cgroup)
    };
    let together = first.levels.iter().filter(|level| level.kills_all != 0);
    let trigger = |kill: &RawVictim| (kill.trigger.pid, kill.trigger.started_ns);
    trigger(first) == trigger(kill)
        && kill.time_ns.saturating_sub(first.time_ns) < GROUP_NS
        && together.into_iter().any(is_of_cgroup)
}

/// Finds the memory that was full, seen from a container whose own and upper memory cgroups are `line`.
///
/// It is above the victim in any case, and above the allocating process mostly: not where somebody lowers a limit, and where the
/// machine's is full everybody allocates. At the moment of the kill that process stands at the limit, while the victim may have
/// other full ones above it.
pub(crate) fn full(kill: &RawVictim, line: &[(u64, Vec<u8>)]) -> Full {
    let full = full_among(&kill.levels, line);
    match full.scope {
        OomScope::Unknown => full_among(&kill.victim_levels, line),
        OomScope::Own | OomScope::Ancestor | OomScope::Node => full,
    }
}

/// Finds it among those of one process.
fn full_among(levels: &[RawMemory], line: &[(u64, Vec<u8>)]) -> Full {
    let levels: Vec<&RawMemory> = levels.iter().take_while(|level| level.cgroup != 0).collect();
    let unknown = Full {
        scope: OomScope::Unknown,
        path: Vec::new(),
        limit_pages: None,
        usage_pages: None,
        kills_all: false,
    };
    if levels.is_empty() {
        return unknown;
    }
    let room = |level: &RawMemory| level.limit_pages.saturating_sub(level.usage_pages);
    let limited = |level: &&(usize, &&RawMemory)| {
        level.1.limit_pages < NO_LIMIT_PAGES && room(level.1) <= SLACK_PAGES
    };
    // The fullest; of two that are equally full the lower one, since its limit is tried first.
    let fullest =
        levels.iter().enumerate().filter(|level| limited(&level)).min_by_key(|level| room(level.1));
    let Some((index, level)) = fullest else {
        // Only a process of the container tells that it was none of the container's.
        let is_of_container =
            line.first().is_some_and(|(own, _)| levels.iter().any(|level| level.cgroup == *own));
        let scope = if is_of_container { OomScope::Node } else { OomScope::Unknown };
        return Full { scope, ..unknown };
    };
    let position = |cgroup: u64| line.iter().position(|(id, _)| *id == cgroup);
    let (scope, path) = match position(level.cgroup) {
        Some(0) => (OomScope::Own, line[0].1.clone()),
        Some(above) => (OomScope::Ancestor, line[above].1.clone()),
        // Not on the container's line: inside of it, if the container's own stands above.
        None => {
            let own = line.first().map(|(id, _)| *id);
            let inside = levels[index..].iter().any(|above| Some(above.cgroup) == own);
            (if inside { OomScope::Own } else { OomScope::Unknown }, Vec::new())
        }
    };
    Full {
        scope,
        path,
        limit_pages: Some(level.limit_pages),
        usage_pages: Some(level.usage_pages),
        kills_all: levels[..=index].iter().any(|level| level.kills_all != 0),
    }
}

#[cfg(test)]
mod tests {
    use whodunit_ebpf::{MEMORY_LEVELS, RawProcess};
    use zerocopy::FromZeros as _;

    use super::*;

    const APP: u64 = 30;
    const POD: u64 = 20;
    const SLICE: u64 = 10;

    fn level(cgroup: u64, usage_pages: u64, limit_pages: u64) -> RawMemory {
        RawMemory { cgroup, usage_pages, limit_pages, kills_all: 0 }
    }

    fn check(levels: &[RawMemory], scope: OomScope, path: &[u8]) {
        let line = [(APP, b"/pod/app".to_vec()), (POD, b"/pod".to_vec()), (SLICE, b"/".to_vec())];
        let found = full_among(levels, &line);
        assert_eq!((found.scope, found.path.as_slice()), (scope, path), "{levels:?}");
    }

    fn levels(own: &[RawMemory]) -> [RawMemory; MEMORY_LEVELS] {
        std::array::from_fn(|index| own.get(index).copied().unwrap_or_default())
    }

    #[test]
    fn the_last_of_a_group_has_the_memory_that_was_full_for_the_first() {
        let line = [(APP, b"/pod/app".to_vec())];
        let at = |time_ns: u64, usage_pages: u64, kills_all: u64| RawVictim {
            time_ns,
            trigger: RawProcess { pid: 7, started_ns: 3, ..RawProcess::default() },
            levels: levels(&[RawMemory { kills_all, ..level(APP, usage_pages, 8192) }]),
            victim_levels: levels(&[RawMemory { kills_all, ..level(APP, usage_pages, 8192) }]),
            ..RawVictim::new_zeroed()
        };
        let second = |first: RawVictim, mut second: RawVictim| {
            let mut group = Group::default();
            group.complete(&mut first.clone());
            group.complete(&mut second);
            let full = full(&second, &line);
            (full.scope, full.kills_all)
        };
        let own = (OomScope::Own, true);
        let node = (OomScope::Node, false);
        assert_eq!(second(at(1, 8192, 1), at(50, 5000, 1)), own);
        // None of a group; later; of another allocation; of another cgroup.
        assert_eq!(second(at(1, 8192, 0), at(50, 5000, 0)), node);
        assert_eq!(second(at(1, 8192, 1), at(2 + GROUP_NS, 5000, 1)), node);
        let mut other = at(50, 5000, 1);
        other.trigger.pid = 8;
        assert_eq!(second(at(1, 8192, 1), other), node);
        let mut elsewhere = at(1, 8192, 1);
        elsewhere.levels[0].cgroup = 77;
        assert_eq!(second(elsewhere, at(50, 5000, 1)), node);
    }

    #[test]
    fn where_the_allocation_is_elsewhere_the_victim_tells() {
        let line = [(APP, b"/pod/app".to_vec()), (POD, b"/pod".to_vec())];
        let free = u64::MAX >> 12;
        let elsewhere = [level(77, 1000, free)];
        for (victim, scope) in [
            // A lowered limit, the machine's memory, and a kernel that tells no more than the victim's number.
            (&[level(APP, 5000, 4096), level(POD, 6000, free)][..], OomScope::Own),
            (&[level(APP, 5000, free), level(POD, 6000, 5500)], OomScope::Ancestor),
            (&[level(APP, 5000, free), level(POD, 6000, free)], OomScope::Node),
            (&[], OomScope::Unknown),
        ] {
            let kill = RawVictim {
                levels: levels(&elsewhere),
                victim_levels: levels(victim),
                ..RawVictim::new_zeroed()
            };
            assert_eq!(full(&kill, &line).scope, scope, "{victim:?}");
        }
        // Where it is the container's own, its word counts.
        let kill = RawVictim {
            levels: levels(&[level(APP, 3000, free), level(POD, 8192, 8192)]),
            victim_levels: levels(&[level(APP, 4096, 4096), level(POD, 8192, 8192)]),
            ..RawVictim::new_zeroed()
        };
        assert_eq!(full(&kill, &line).scope, OomScope::Ancestor);
    }

    #[test]
    fn the_cgroup_at_its_limit_is_the_one() {
        let free = u64::MAX >> 12;
        let own = [level(APP, 4096, 4096), level(POD, 5000, free)];
        check(&own, OomScope::Own, b"/pod/app");
        let pod = [level(APP, 3000, free), level(POD, 8190, 8192), level(SLICE, 9000, free)];
        check(&pod, OomScope::Ancestor, b"/pod");
        check(&[level(APP, 3000, free), level(POD, 3000, free)], OomScope::Node, b"");
        check(&[level(APP, 1000, 4096)], OomScope::Node, b"");
        // Somebody else's allocation, or somebody who lowered the container's limit.
        check(&[level(77, 1000, free)], OomScope::Unknown, b"");
        check(&[], OomScope::Unknown, b"");
    }

    #[test]
    fn of_two_full_ones_the_fuller_and_then_the_lower_is_the_one() {
        check(&[level(APP, 4000, 4096), level(POD, 8192, 8192)], OomScope::Ancestor, b"/pod");
        check(&[level(APP, 4096, 4096), level(POD, 8192, 8192)], OomScope::Own, b"/pod/app");
    }

    #[test]
    fn a_cgroup_inside_the_container_is_its_own_and_a_stranger_s_is_unknown() {
        check(&[level(77, 10, 10), level(APP, 10, 4096)], OomScope::Own, b"");
        check(&[level(77, 10, 10), level(78, 10, 4096)], OomScope::Unknown, b"");
    }
}

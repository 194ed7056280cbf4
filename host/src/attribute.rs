//! Whose is it? An access names a cgroup; discovery knows whose that is, or does not know it yet.
//!
//! Owns the accesses that wait for their cgroup to become known. The kernel traces a new cgroup before
//! the daemon has heard of it, so an access can be here first. It waits a short time and in bounded
//! room; what never finds its owner is counted as unattributed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::event::CgroupId;

/// How long an access waits for its cgroup. A rescan, which finds every cgroup, comes earlier.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many bytes of records wait at most.
const ROOM_BYTES: usize = 8 << 20;

/// The records that wait for their cgroup to become known.
#[derive(Default)]
pub struct WaitingRoom {
    records: VecDeque<Waiting>,
    bytes: usize,
    unattributed: u64,
}

struct Waiting {
    cgroup: CgroupId,
    since: Instant,
    record: Box<[u8]>,
}

impl WaitingRoom {
    /// Lets a record wait. Where there is no room it is counted as unattributed at once.
    pub fn enter(&mut self, cgroup: CgroupId, record: &[u8], now: Instant) {
        if self.bytes + record.len() > ROOM_BYTES {
            self.unattributed += 1;
            return;
        }
        self.bytes += record.len();
        self.records.push_back(Waiting { cgroup, since: now, record: record.into() });
    }

    /// Takes out, in their order, the records whose cgroup is known by now. Those that waited too long
    /// are counted as unattributed.
    pub fn leave(&mut self, now: Instant, known: impl Fn(CgroupId) -> bool) -> Vec<Box<[u8]>> {
        if self.records.is_empty() {
            return Vec::new();
        }
        let mut ready = Vec::new();
        let mut rest = VecDeque::new();
        for waiting in self.records.drain(..) {
            if known(waiting.cgroup) {
                ready.push(waiting.record);
            } else if now.duration_since(waiting.since) >= PATIENCE {
                self.unattributed += 1;
            } else {
                rest.push_back(waiting);
            }
        }
        self.bytes = rest.iter().map(|waiting| waiting.record.len()).sum();
        self.records = rest;
        ready
    }

    /// Whether anybody waits.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many records never found an owner.
    pub fn unattributed(&self) -> u64 {
        self.unattributed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: CgroupId = CgroupId(7);
    const OTHER: CgroupId = CgroupId(8);

    #[test]
    fn a_record_leaves_when_its_cgroup_is_known_and_keeps_its_place() {
        let mut room = WaitingRoom::default();
        let start = Instant::now();
        room.enter(EARLY, b"first", start);
        room.enter(OTHER, b"stranger", start);
        room.enter(EARLY, b"second", start);
        assert!(room.leave(start, |_| false).is_empty());
        let ready = room.leave(start, |cgroup| cgroup == EARLY);
        assert_eq!(ready, [b"first".as_slice().into(), b"second".as_slice().into()]);
        assert!(!room.is_empty());
        assert_eq!(room.unattributed(), 0);
    }

    #[test]
    fn a_record_that_waited_too_long_is_counted() {
        let mut room = WaitingRoom::default();
        let start = Instant::now();
        room.enter(OTHER, b"stranger", start);
        assert!(room.leave(start + PATIENCE, |_| false).is_empty());
        assert!(room.is_empty());
        assert_eq!(room.unattributed(), 1);
    }

    #[test]
    fn a_full_room_counts_what_it_cannot_take() {
        let mut room = WaitingRoom::default();
        let start = Instant::now();
        room.enter(OTHER, &vec![0; ROOM_BYTES], start);
        room.enter(OTHER, b"one too many", start);
        assert_eq!(room.unattributed(), 1);
        assert_eq!(room.leave(start, |_| true).len(), 1);
        room.enter(OTHER, b"room again", start);
        assert_eq!(room.unattributed(), 1);
    }
}

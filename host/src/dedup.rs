//! Has this container's file been seen already?
//!
//! Owns what makes two accesses the same (`FileKey`), the bounded memory of one container (`Dedup`)
//! and the counts of what became of its events (`FileCounts`). The memory is no result set: an entry
//! that is pushed out means that an event may be sent again, never that a file is lost.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroUsize;

use foldhash::fast;
use foldhash::{SharedSeed, quality};
use lru::LruCache;

use crate::event::{Counter, Kind};

/// Hash of a path's bytes, with the seed of this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PathHash(pub u64);

/// Stands for no path of its own.
pub const SAME_PATH: PathHash = PathHash(0);

/// Hashes paths with a seed that nobody outside of this run knows, so that a container cannot choose
/// paths that collide.
#[derive(Clone, Debug)]
pub struct PathHasher {
    state: quality::SeedableRandomState,
}

impl PathHasher {
    /// A hasher with a random seed.
    pub fn new() -> PathHasher {
        // The standard library takes its keys from the kernel's random numbers; foldhash by itself
        // mixes addresses and the time.
        let seed = std::hash::RandomState::new().build_hasher().finish();
        PathHasher {
            state: quality::SeedableRandomState::with_seed(seed, SharedSeed::global_random()),
        }
    }

    /// The hash of a path.
    pub fn hash(&self, path: &[u8]) -> PathHash {
        let mut hasher = self.state.build_hasher();
        hasher.write(path);
        // A hasher need not mix in the length of what is written to it.
        hasher.write_usize(path.len());
        PathHash(hasher.finish())
    }
}

impl Default for PathHasher {
    fn default() -> PathHasher {
        PathHasher::new()
    }
}

/// How an access ended, as far as it makes a difference to what is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutcomeClass {
    /// It worked.
    Done,
    /// There is no such file (`ENOENT`, `ENOTDIR`).
    Absent,
    /// It was not allowed (`EACCES`, `EPERM`, `EROFS`).
    Denied,
    /// Anything else.
    Failed,
}

impl OutcomeClass {
    /// The class of an outcome: 0, or a negative errno.
    pub fn of(outcome: i32) -> OutcomeClass {
        use rustix::io::Errno;
        if outcome >= 0 {
            return OutcomeClass::Done;
        }
        match outcome.checked_neg().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR) => OutcomeClass::Absent,
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => OutcomeClass::Denied,
            Some(_) | None => OutcomeClass::Failed,
        }
    }
}

/// What two accesses of one container have in common if the second one is a repeat.
///
/// The same path with another inode is another file: it was replaced, or something was mounted over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// The resolved path.
    pub path: PathHash,
    /// The path as asked for, where that is another one: it may lead over other symbolic links. 0 where
    /// it is the same.
    pub requested: PathHash,
    /// Whether a symbolic link that the path itself names is not followed.
    pub no_follow: bool,
    /// Inode number; 0 where there is no file.
    pub inode: u64,
    /// Device of the file's file system as the kernel packs it; 0 where there is no file.
    pub device: u32,
    /// What was done.
    pub operation: Kind,
    /// How it ended.
    pub outcome: OutcomeClass,
    /// Whether the container runtime did it before the container's program ran.
    pub setup: bool,
    /// Whether it is the second path of a call with two.
    pub destination: bool,
    /// Mount namespace of a path that is not resolved; 0 where there is a file, which is itself anywhere.
    pub mount_namespace: u32,
}

/// Whether an event is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not seen before, or not since it was evicted.
    New,
    /// New, and the least recently seen entry had to make room for it.
    NewAfterEvicting,
    /// Seen before.
    Repeat,
}

/// The memory of one container: its most recently seen accesses.
pub struct Dedup {
    /// Unbounded as far as `lru` knows, so that a container with few files pays for few: a bounded
    /// cache takes the memory for its whole capacity at once. `admit` keeps the bound.
    seen: LruCache<FileKey, (), fast::RandomState>,
    /// The paths at which the container's own programs found something, for their number alone.
    found: HashSet<PathHash, fast::RandomState>,
    capacity: NonZeroUsize,
}

impl Dedup {
    /// An empty memory for at most `capacity` accesses.
    pub fn new(capacity: NonZeroUsize) -> Dedup {
        Dedup {
            seen: LruCache::unbounded_with_hasher(fast::RandomState::default()),
            found: HashSet::default(),
            capacity,
        }
    }

    /// Remembers an access and says whether it is news.
    pub fn admit(&mut self, key: FileKey) -> Verdict {
        if self.seen.get(&key).is_some() {
            return Verdict::Repeat;
        }
        let full = self.seen.len() >= self.capacity.get();
        if full {
            self.seen.pop_lru();
        }
        self.seen.put(key, ());
        let is_own = key.outcome == OutcomeClass::Done && !key.setup;
        if is_own && self.found.len() < self.capacity.get() {
            self.found.insert(key.path);
        }
        if full { Verdict::NewAfterEvicting } else { Verdict::New }
    }

    /// Forgets every access, so that each is news once more.
    pub fn forget(&mut self) {
        self.seen = LruCache::unbounded_with_hasher(fast::RandomState::default());
    }

    /// How many distinct paths the container's own programs found something at, since the beginning: what is forgotten or evicted
    /// is not counted again. Where it is the capacity, it is at least so many.
    pub fn files(&self) -> Counter {
        Counter { name: "files", value: self.found.len() as u64 }
    }

    /// How many accesses are remembered.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

/// What became of one container's file events in the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FileCounts {
    /// Sent to plugins.
    pub admitted: u64,
    /// Left out for the prefix of their path.
    pub excluded: u64,
    /// Repeats.
    pub duplicate: u64,
    /// Entries that made room for others in `Dedup`.
    pub evicted: u64,
}

impl FileCounts {
    /// Counts what `Dedup::admit` said of one event.
    pub fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::New => self.admitted += 1,
            Verdict::NewAfterEvicting => {
                self.admitted += 1;
                self.evicted += 1;
            }
            Verdict::Repeat => self.duplicate += 1,
        }
    }

    /// Counts one event under an excluded prefix.
    pub fn count_excluded(&mut self) {
        self.excluded += 1;
    }

    /// The counts by their names in the plugin contract.
    pub fn counters(&self) -> [Counter; 4] {
        let counter = |name, value| Counter { name, value };
        [
            counter("admitted", self.admitted),
            counter("excluded", self.excluded),
            counter("duplicate", self.duplicate),
            counter("evicted", self.evicted),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(entries: usize) -> NonZeroUsize {
        NonZeroUsize::new(entries).unwrap()
    }

    fn key(path: u64) -> FileKey {
        FileKey {
            path: PathHash(path),
            requested: PathHash(0),
            no_follow: false,
            inode: 1,
            device: 8 << 20,
            operation: Kind::Open,
            outcome: OutcomeClass::Done,
            setup: false,
            destination: false,
            mount_namespace: 0,
        }
    }

    #[test]
    fn the_same_file_in_two_containers_is_news_in_both() {
        let (mut web, mut db) = (Dedup::new(capacity(8)), Dedup::new(capacity(8)));
        assert_eq!(web.admit(key(1)), Verdict::New);
        assert_eq!(db.admit(key(1)), Verdict::New);
        assert_eq!(web.admit(key(1)), Verdict::Repeat);
        assert_eq!(db.admit(key(1)), Verdict::Repeat);
    }

    #[test]
    fn a_flood_in_one_container_evicts_nothing_of_another() {
        let (mut flooded, mut quiet) = (Dedup::new(capacity(2)), Dedup::new(capacity(2)));
        quiet.admit(key(1));
        for path in 0..1_000 {
            flooded.admit(key(path));
        }
        assert_eq!(quiet.admit(key(1)), Verdict::Repeat);
        assert_eq!(flooded.len(), 2);
    }

    #[test]
    fn each_part_of_the_key_makes_another_entry() {
        let base = key(1);
        let others = [
            FileKey { path: PathHash(2), ..base },
            FileKey { requested: PathHash(2), ..base },
            FileKey { no_follow: true, ..base },
            FileKey { inode: 2, ..base },
            FileKey { device: 9, ..base },
            FileKey { operation: Kind::Exec, ..base },
            FileKey { outcome: OutcomeClass::Absent, ..base },
            FileKey { setup: true, ..base },
            FileKey { destination: true, ..base },
            FileKey { mount_namespace: 1, ..base },
        ];
        let mut dedup = Dedup::new(capacity(16));
        assert_eq!(dedup.admit(base), Verdict::New);
        for other in others {
            assert_eq!(dedup.admit(other), Verdict::New, "{other:?}");
            assert_eq!(dedup.admit(other), Verdict::Repeat, "{other:?}");
        }
        assert_eq!(dedup.admit(base), Verdict::Repeat);
    }

    #[test]
    fn evictions_are_counted_and_the_file_is_news_again() {
        let mut dedup = Dedup::new(capacity(2));
        let mut counts = FileCounts::default();
        for path in [1, 2, 1, 3, 2] {
            // 3 pushes out 2, which was seen longest ago; 2 then pushes out 1.
            counts.count(dedup.admit(key(path)));
        }
        counts.count_excluded();
        assert_eq!(counts, FileCounts { admitted: 4, excluded: 1, duplicate: 1, evicted: 2 });
        let named: Vec<_> =
            counts.counters().into_iter().map(|each| (each.name, each.value)).collect();
        assert_eq!(named, [("admitted", 4), ("excluded", 1), ("duplicate", 1), ("evicted", 2)]);
    }

    #[test]
    fn a_file_is_counted_once_however_it_is_used_and_remembered() {
        let mut dedup = Dedup::new(capacity(3));
        let missing = FileKey { outcome: OutcomeClass::Absent, ..key(7) };
        let by_the_runtime = FileKey { setup: true, ..key(8) };
        let executed = FileKey { operation: Kind::Exec, ..key(1) };
        for each in [key(1), executed, missing, by_the_runtime, key(2), key(1)] {
            dedup.admit(each);
        }
        dedup.forget();
        dedup.admit(key(1));
        assert_eq!(dedup.files().value, 2);
        for path in 3..9 {
            dedup.admit(key(path));
        }
        assert_eq!(dedup.files().value, 3, "no more are told apart than there is room for");
    }

    #[test]
    fn what_is_forgotten_is_news_again() {
        let mut dedup = Dedup::new(capacity(4));
        dedup.admit(key(1));
        dedup.forget();
        assert!(dedup.is_empty());
        assert_eq!(dedup.admit(key(1)), Verdict::New);
    }

    /// The same rules in the plainest form: a list, most recently seen last.
    struct Naive {
        seen: Vec<FileKey>,
        capacity: usize,
    }

    impl Naive {
        fn admit(&mut self, key: FileKey) -> Verdict {
            if let Some(at) = self.seen.iter().position(|seen| *seen == key) {
                let again = self.seen.remove(at);
                self.seen.push(again);
                return Verdict::Repeat;
            }
            self.seen.push(key);
            if self.seen.len() > self.capacity {
                self.seen.remove(0);
                return Verdict::NewAfterEvicting;
            }
            Verdict::New
        }
    }

    #[test]
    fn every_short_sequence_matches_the_naive_rules() {
        const PATHS: u64 = 4;
        const LENGTH: u32 = 7;
        for entries in 1..=4 {
            for mut sequence in 0..PATHS.pow(LENGTH) {
                let mut dedup = Dedup::new(capacity(entries));
                let mut naive = Naive { seen: Vec::new(), capacity: entries };
                for step in 0..LENGTH {
                    let next = key(sequence % PATHS);
                    sequence /= PATHS;
                    assert_eq!(
                        dedup.admit(next),
                        naive.admit(next),
                        "step {step}, {entries} entries"
                    );
                    assert_eq!(dedup.len(), naive.seen.len());
                }
            }
        }
    }

    #[test]
    fn path_hashes_agree_in_a_run_and_differ_between_runs() {
        let hasher = PathHasher::new();
        assert_eq!(hasher.hash(b"/etc/passwd"), hasher.clone().hash(b"/etc/passwd"));
        assert_ne!(hasher.hash(b"/etc/passwd"), hasher.hash(b"/etc/passwe"));
        assert_ne!(hasher.hash(b""), hasher.hash(b"\0"));
        assert_ne!(hasher.hash(b"/etc/passwd"), PathHasher::new().hash(b"/etc/passwd"));
    }

    #[test]
    fn outcomes_fall_into_their_classes() {
        let errno = |errno: rustix::io::Errno| OutcomeClass::of(-errno.raw_os_error());
        assert_eq!(OutcomeClass::of(0), OutcomeClass::Done);
        assert_eq!(OutcomeClass::of(3), OutcomeClass::Done);
        assert_eq!(errno(rustix::io::Errno::NOENT), OutcomeClass::Absent);
        assert_eq!(errno(rustix::io::Errno::ROFS), OutcomeClass::Denied);
        assert_eq!(errno(rustix::io::Errno::MFILE), OutcomeClass::Failed);
        assert_eq!(OutcomeClass::of(i32::MIN), OutcomeClass::Failed);
    }
}

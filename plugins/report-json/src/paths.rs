//! The paths of one container: each once, with what happened to it.
//!
//! Compact, because a container may use a million files: a path costs its bytes, 8 bytes for its
//! entry, 4 for its place in the sorted order and about 16 in the hash table. Sorted when a document
//! is made, by merging what is new into what was sorted before.

use std::cmp::Ordering;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use whodunit_sdk::escape::escape;

/// What happened to a path: a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks(u8);

impl Marks {
    /// Opened or executed by the container's own programs.
    pub(crate) const USED: Marks = Marks(1 << 0);
    /// Executed.
    pub(crate) const EXECUTED: Marks = Marks(1 << 1);
    /// Used by the container runtime before the container's program.
    pub(crate) const SETUP: Marks = Marks(1 << 2);
    /// Looked for and not there.
    pub(crate) const MISSING: Marks = Marks(1 << 3);
    /// Failed in another way; the entry has the errno.
    pub(crate) const REFUSED: Marks = Marks(1 << 4);
    /// Used, by a path that was not resolved.
    pub(crate) const UNRESOLVED: Marks = Marks(1 << 5);
    /// The path's text is not its bytes.
    const ESCAPED: Marks = Marks(1 << 6);

    pub(crate) const fn with(self, other: Marks) -> Marks {
        Marks(self.0 | other.0)
    }

    const fn contain(self, other: Marks) -> bool {
        self.0 & other.0 == other.0
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Place of the first byte: the chunk in the upper half, the byte in the lower.
    place: u32,
    length: u16,
    marks: Marks,
    /// Of `REFUSED`. Those of Linux that user space sees end at 133.
    errno: u8,
}

#[derive(Clone, Copy, Debug)]
struct Key {
    hash: u32,
    number: u32,
}

/// Whether a path was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is in the set.
    Yes,
    /// The set is full, and the path is not in it.
    Full,
}

/// A set of paths with marks.
#[derive(Debug)]
pub(crate) struct Paths {
    capacity: usize,
    state: FixedState,
    /// Numbers of entries with the hashes of their paths, so that growth need not read the paths.
    index: HashTable<Key>,
    entries: Vec<Entry>,
    /// Bytes of the paths. No path spans two chunks, and a full chunk is never moved, so growth
    /// copies at most one chunk.
    chunks: Vec<Vec<u8>>,
    /// Entries in the order of their text; the newest are missing until [`Paths::sort`].
    sorted: Vec<u32>,
}

const CHUNK_BYTES: usize = 1 << 16;

/// So many new paths at most wait for their place in the order: sorting a million at once would take
/// longer than a call may.
const UNSORTED_AT_MOST: usize = 1 << 16;

impl Paths {
    /// An empty set of at most `capacity` paths. The seed keeps a container from choosing paths
    /// that collide.
    pub(crate) fn new(capacity: usize, seed: u64) -> Paths {
        Paths {
            capacity,
            state: FixedState::with_seed(seed),
            index: HashTable::new(),
            entries: Vec::new(),
            chunks: Vec::new(),
            sorted: Vec::new(),
        }
    }

    /// How many paths there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds marks to a path, and the path if it is new.
    pub(crate) fn mark(&mut self, path: &[u8], marks: Marks, errno: u8) -> Taken {
        let Ok(length) = u16::try_from(path.len()) else {
            return Taken::Full;
        };
        let hash = hash(&self.state, path);
        let (entries, chunks) = (&mut self.entries, &mut self.chunks);
        let same =
            |key: &Key| key.hash == hash && bytes_of(chunks, entries[key.number as usize]) == path;
        match self.index.entry(spread(hash), same, |key| spread(key.hash)) {
            Slot::Occupied(slot) => {
                let entry = &mut entries[slot.get().number as usize];
                entry.marks = entry.marks.with(marks);
                if marks.contain(Marks::REFUSED) {
                    entry.errno = errno;
                }
            }
            Slot::Vacant(slot) => {
                if entries.len() >= self.capacity {
                    return Taken::Full;
                }
                slot.insert(Key { hash, number: entries.len() as u32 });
                let escaped = escape(path).as_bytes() != path;
                let marks = if escaped { marks.with(Marks::ESCAPED) } else { marks };
                entries.push(Entry { place: push(chunks, path), length, marks, errno });
                if entries.len() - self.sorted.len() >= UNSORTED_AT_MOST {
                    self.sort();
                }
            }
        }
        Taken::Yes
    }

    /// Brings the newest paths into the order of the others.
    pub(crate) fn sort(&mut self) {
        let sorted_before = self.sorted.len();
        self.sorted.extend(sorted_before as u32..self.entries.len() as u32);
        let (entries, chunks) = (&self.entries, &self.chunks);
        let order = |left: &u32, right: &u32| {
            compare(chunks, entries[*left as usize], entries[*right as usize])
        };
        self.sorted[sorted_before..].sort_unstable_by(order);
        // Two sorted runs: the stable sort finds and merges them.
        self.sorted.sort_by(order);
    }

    /// The paths with all of these marks, and their errnos, in the order of the last sort.
    pub(crate) fn marked(&self, marks: Marks) -> impl Iterator<Item = (&[u8], u8)> {
        let entries = self.sorted.iter().map(|number| self.entries[*number as usize]);
        entries
            .filter(move |entry| entry.marks.contain(marks))
            .map(|entry| (bytes_of(&self.chunks, entry), entry.errno))
    }

    /// How many paths have all of these marks.
    pub(crate) fn count(&self, marks: Marks) -> usize {
        self.entries.iter().filter(|entry| entry.marks.contain(marks)).count()
    }
}

fn hash(state: &FixedState, path: &[u8]) -> u32 {
    let mut hasher = state.build_hasher();
    hasher.write(path);
    hasher.finish() as u32
}

/// The table takes its two parts of a hash from both ends of 64 bits, or of the lower 32.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

fn bytes_of(chunks: &[Vec<u8>], entry: Entry) -> &[u8] {
    let start = (entry.place & 0xffff) as usize;
    &chunks[(entry.place >> 16) as usize][start..start + usize::from(entry.length)]
}

/// The order of the texts, which is that of the bytes where neither is escaped.
fn compare(chunks: &[Vec<u8>], left: Entry, right: Entry) -> Ordering {
    let (left_bytes, right_bytes) = (bytes_of(chunks, left), bytes_of(chunks, right));
    if left.marks.with(right.marks).contain(Marks::ESCAPED) {
        escape(left_bytes).cmp(&escape(right_bytes))
    } else {
        left_bytes.cmp(right_bytes)
    }
}

fn push(chunks: &mut Vec<Vec<u8>>, path: &[u8]) -> u32 {
    let room = chunks.last().map_or(0, |chunk| CHUNK_BYTES - chunk.len());
    if path.len() > room || chunks.is_empty() {
        // The first chunk grows with its use, so that a quiet container stays small.
        let bytes = if chunks.is_empty() { 0 } else { CHUNK_BYTES };
        chunks.push(Vec::with_capacity(bytes));
    }
    let number = chunks.len() - 1;
    let chunk = &mut chunks[number];
    let start = chunk.len();
    chunk.extend_from_slice(path);
    (number as u32) << 16 | start as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(capacity: usize) -> Paths {
        Paths::new(capacity, 7)
    }

    fn list(paths: &Paths, marks: Marks) -> Vec<&[u8]> {
        paths.marked(marks).map(|(path, _)| path).collect()
    }

    #[test]
    fn a_path_is_kept_once_with_all_that_happened_to_it() {
        let mut paths = paths(9);
        paths.mark(b"/b", Marks::MISSING, 0);
        paths.mark(b"/a", Marks::USED, 0);
        paths.mark(b"/b", Marks::USED, 0);
        paths.mark(b"/c", Marks::REFUSED, 13);
        paths.mark(b"/c", Marks::USED, 0);
        paths.sort();
        assert_eq!(paths.len(), 3);
        assert_eq!(list(&paths, Marks::USED), [b"/a", b"/b", b"/c"]);
        assert_eq!(list(&paths, Marks::MISSING), [b"/b"]);
        assert_eq!(paths.marked(Marks::REFUSED).collect::<Vec<_>>(), [(&b"/c"[..], 13)]);
        assert_eq!(paths.count(Marks::USED), 3);
    }

    #[test]
    fn later_paths_are_merged_into_the_order() {
        let mut paths = paths(usize::MAX);
        let mut expected = Vec::new();
        for round in 0..5 {
            for number in 0..2000_u32 {
                let path = format!("/usr/share/{}/{round}", number.wrapping_mul(2_654_435_761));
                assert_eq!(paths.mark(path.as_bytes(), Marks::USED, 0), Taken::Yes);
                expected.push(path);
            }
            paths.sort();
            expected.sort();
            let texts: Vec<_> = expected.iter().map(|path| path.as_bytes()).collect();
            assert_eq!(list(&paths, Marks::USED), texts);
        }
        assert!(paths.chunks.len() > 1, "the paths do not fit into one chunk");
    }

    #[test]
    fn the_order_is_that_of_the_texts() {
        let mut paths = paths(9);
        for path in [&b"/\xff"[..], b"/a", b"/Z", b"/\\"] {
            paths.mark(path, Marks::USED, 0);
        }
        paths.sort();
        let texts: Vec<_> = list(&paths, Marks::USED).into_iter().map(escape).collect();
        assert!(texts.is_sorted(), "{texts:?}");
    }

    #[test]
    fn a_full_set_takes_marks_of_known_paths_only() {
        let mut paths = paths(1);
        assert_eq!(paths.mark(b"/a", Marks::USED, 0), Taken::Yes);
        assert_eq!(paths.mark(b"/b", Marks::USED, 0), Taken::Full);
        assert_eq!(paths.mark(b"/a", Marks::EXECUTED, 0), Taken::Yes);
        assert_eq!(paths.len(), 1);
        assert_eq!(paths.mark(&[b'/'; 70_000], Marks::USED, 0), Taken::Full);
    }

    #[test]
    fn a_path_of_40_bytes_costs_less_than_80() {
        let mut paths = paths(usize::MAX);
        let files = 100_000;
        for number in 0..files {
            paths.mark(
                format!("/usr/lib/python3/dist-packages/{number:09}").as_bytes(),
                Marks::USED,
                0,
            );
        }
        paths.sort();
        let bytes = paths.index.allocation_size()
            + paths.entries.capacity() * size_of::<Entry>()
            + paths.sorted.capacity() * size_of::<u32>()
            + paths.chunks.iter().map(Vec::capacity).sum::<usize>();
        assert!(bytes / files < 80, "{} bytes a path", bytes / files);
    }
}

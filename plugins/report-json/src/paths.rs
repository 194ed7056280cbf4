//! The paths of one container: each once, with what happened to it.
//!
//! Compact, because a container may use a million files: a path costs its bytes, 28 bytes for its
//! entry, 4 for its place in the sorted order and about 16 in the hash table. What few paths have
//! (the forms in which they were asked for, a link's target) stands aside, and so does what many
//! share (mount, device, type of file system). Sorted when a document is made, by merging what is new
//! into what was sorted before.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use whodunit_sdk::Kind;
use whodunit_sdk::escape::escape;

/// What happened to a path: a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks(u8);

impl Marks {
    /// Used by the container's own programs.
    pub(crate) const USED: Marks = Marks(1 << 0);
    /// Changed by them: made, renamed, removed, ...
    pub(crate) const CHANGED: Marks = Marks(1 << 1);
    /// Used by the container runtime before the container's program.
    pub(crate) const SETUP: Marks = Marks(1 << 2);
    /// Looked for and not there.
    pub(crate) const MISSING: Marks = Marks(1 << 3);
    /// Failed in another way; the entry has the errno.
    pub(crate) const REFUSED: Marks = Marks(1 << 4);
    /// Used, by a path that was not resolved.
    pub(crate) const UNRESOLVED: Marks = Marks(1 << 5);
    /// A symbolic link that was crossed; the entry has its target.
    pub(crate) const LINK: Marks = Marks(1 << 6);
    /// The path's text is not its bytes.
    const ESCAPED: Marks = Marks(1 << 7);

    pub(crate) const fn with(self, other: Marks) -> Marks {
        Marks(self.0 | other.0)
    }

    pub(crate) const fn contain(self, other: Marks) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What was done to a file, with success: a set of kinds of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Operations(u32);

impl Operations {
    pub(crate) const NONE: Operations = Operations(0);

    /// The code of the first kind that is about files.
    const FIRST: u16 = 16;

    /// Every kind that is about files and has a name.
    fn kinds() -> impl Iterator<Item = Kind> {
        (Operations::FIRST..Operations::FIRST + u32::BITS as u16)
            .map(Kind::of)
            .filter(|kind| !matches!(kind, Kind::Other(_)))
    }

    /// The set of one kind; none for one that is not about files.
    pub(crate) const fn of(kind: Kind) -> Operations {
        match kind.code().checked_sub(Operations::FIRST) {
            Some(bit) if (bit as u32) < u32::BITS => Operations(1 << bit),
            _ => Operations::NONE,
        }
    }

    /// The kind of that name, as a set.
    pub(crate) fn named(name: &str) -> Operations {
        Operations::kinds()
            .find(|kind| kind.name() == name)
            .map_or(Operations::NONE, Operations::of)
    }

    /// The names of the kinds, in the order of their codes.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        Operations::kinds()
            .filter(move |kind| self.contain(Operations::of(*kind)))
            .map(|kind| kind.name())
    }

    pub(crate) const fn with(self, other: Operations) -> Operations {
        Operations(self.0 | other.0)
    }

    pub(crate) const fn both(self, other: Operations) -> Operations {
        Operations(self.0 & other.0)
    }

    pub(crate) const fn contain(self, other: Operations) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Where a file is, apart from its path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    /// The kernel's id of the mount.
    pub(crate) mount: u32,
    /// Device of the file system, as the kernel's `MKDEV` packs it.
    pub(crate) device: u32,
    /// Magic number of the file system's type.
    pub(crate) file_system: u64,
}

/// Which file, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) inode: u64,
    pub(crate) whereabouts: Whereabouts,
}

/// What is added to a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addition<'a> {
    pub(crate) marks: Marks,
    /// Of `REFUSED`; else 0.
    pub(crate) errno: u8,
    pub(crate) operations: Operations,
    pub(crate) identity: Option<Identity>,
    /// The path as it was asked for; empty where that is the path itself, or not known.
    pub(crate) requested: &'a [u8],
    /// Of `LINK`: the text of the link.
    pub(crate) target: &'a [u8],
}

impl Addition<'_> {
    /// Marks and nothing else.
    pub(crate) fn marks(marks: Marks) -> Addition<'static> {
        Addition {
            marks,
            errno: 0,
            operations: Operations::NONE,
            identity: None,
            requested: &[],
            target: &[],
        }
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
    operations: Operations,
    /// Lower and upper half, so that the entry needs no more alignment than its other fields.
    inode: [u32; 2],
    /// Number of the first extra text, counted from 1; 0 is none.
    extra: u32,
    /// Number of the whereabouts, counted from 1; 0 is none.
    whereabouts: u16,
}

/// A text that few paths have.
#[derive(Clone, Copy, Debug)]
struct Extra {
    place: u32,
    length: u16,
    is_target: bool,
    /// Number of the next extra text of the same path, counted from 1; 0 is none.
    next: u32,
}

/// Other forms in which a path was asked for, and targets of one link: more are not kept.
const FORMS_AT_MOST: usize = 8;

/// A path as it stands in the set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    paths: &'a Paths,
    entry: Entry,
}

impl<'a> Known<'a> {
    pub(crate) fn path(&self) -> &'a [u8] {
        bytes_of(&self.paths.chunks, self.entry.place, self.entry.length)
    }

    pub(crate) fn errno(&self) -> u8 {
        self.entry.errno
    }

    pub(crate) fn operations(&self) -> Operations {
        self.entry.operations
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        let place = usize::from(self.entry.whereabouts).checked_sub(1)?;
        let [low, high] = self.entry.inode;
        Some(Identity {
            inode: u64::from(high) << 32 | u64::from(low),
            whereabouts: self.paths.whereabouts[place],
        })
    }

    /// The forms in which it was asked for, other than the path itself.
    pub(crate) fn requested(&self) -> impl Iterator<Item = &'a [u8]> {
        self.paths.extras(self.entry, false)
    }

    /// The text of the link that it is.
    pub(crate) fn target(&self) -> &'a [u8] {
        self.paths.extras(self.entry, true).last().unwrap_or_default()
    }
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
    extras: Vec<Extra>,
    whereabouts: Vec<Whereabouts>,
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
            extras: Vec::new(),
            whereabouts: Vec::new(),
            chunks: Vec::new(),
            sorted: Vec::new(),
        }
    }

    /// How many paths there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds to what is known of a path, and the path if it is new.
    pub(crate) fn add(&mut self, path: &[u8], addition: &Addition<'_>) -> Taken {
        let Ok(length) = u16::try_from(path.len()) else {
            return Taken::Full;
        };
        let hash = hash(&self.state, path);
        let (entries, chunks) = (&mut self.entries, &mut self.chunks);
        let same = |key: &Key| {
            let entry = entries[key.number as usize];
            key.hash == hash && is_same(bytes_of(chunks, entry.place, entry.length), path)
        };
        let number = match self.index.entry(spread(hash), same, |key| spread(key.hash)) {
            Slot::Occupied(slot) => slot.get().number as usize,
            Slot::Vacant(slot) => {
                let number = entries.len();
                if number >= self.capacity {
                    return Taken::Full;
                }
                slot.insert(Key { hash, number: number as u32 });
                let escaped = matches!(escape(path), Cow::Owned(_));
                entries.push(Entry {
                    place: push(chunks, path),
                    length,
                    marks: if escaped { Marks::ESCAPED } else { Marks(0) },
                    errno: 0,
                    operations: Operations::NONE,
                    inode: [0; 2],
                    extra: 0,
                    whereabouts: 0,
                });
                if entries.len() - self.sorted.len() >= UNSORTED_AT_MOST {
                    self.sort();
                }
                number
            }
        };
        if let Some(identity) = addition.identity {
            let whereabouts = self.number_of(identity.whereabouts);
            let entry = &mut self.entries[number];
            // The newest: a file may be replaced by another of its name.
            entry.whereabouts = whereabouts;
            entry.inode = [identity.inode as u32, (identity.inode >> 32) as u32];
        }
        let entry = &mut self.entries[number];
        entry.marks = entry.marks.with(addition.marks);
        entry.operations = entry.operations.with(addition.operations);
        if addition.marks.contain(Marks::REFUSED) {
            entry.errno = addition.errno;
        }
        if !addition.requested.is_empty() && !is_same(addition.requested, path) {
            self.add_form(number, addition.requested);
        }
        if addition.marks.contain(Marks::LINK) {
            self.add_target(number, addition.target);
        }
        Taken::Yes
    }

    /// The number of these whereabouts, counted from 1; 0 where there are too many.
    fn number_of(&mut self, wanted: Whereabouts) -> u16 {
        // The newest are the likeliest, and a container has few.
        let known = self.whereabouts.iter().rposition(|known| *known == wanted);
        let place = known.unwrap_or_else(|| {
            if self.whereabouts.len() < usize::from(u16::MAX) {
                self.whereabouts.push(wanted);
            }
            self.whereabouts.len() - 1
        });
        let found = self.whereabouts[place] == wanted;
        if found { place as u16 + 1 } else { 0 }
    }

    fn add_form(&mut self, number: usize, form: &[u8]) {
        let entry = self.entries[number];
        let mut forms = 0;
        for known in self.extras(entry, false) {
            if known == form {
                return;
            }
            forms += 1;
        }
        if forms < FORMS_AT_MOST {
            self.add_extra(number, form, false);
        }
    }

    fn add_target(&mut self, number: usize, target: &[u8]) {
        let entry = self.entries[number];
        let (mut newest, mut targets) = (None, 0);
        for known in self.extras(entry, true) {
            newest = Some(known);
            targets += 1;
        }
        // The newest is what counts; a link that is changed without end gets no memory without end.
        if newest != Some(target) && targets < FORMS_AT_MOST {
            self.add_extra(number, target, true);
        }
    }

    fn add_extra(&mut self, number: usize, text: &[u8], is_target: bool) {
        let (Ok(length), Ok(new)) =
            (u16::try_from(text.len()), u32::try_from(self.extras.len() + 1))
        else {
            return;
        };
        let place = push(&mut self.chunks, text);
        self.extras.push(Extra { place, length, is_target, next: 0 });
        let mut last = self.entries[number].extra;
        if last == 0 {
            self.entries[number].extra = new;
            return;
        }
        loop {
            let extra = &mut self.extras[last as usize - 1];
            if extra.next == 0 {
                extra.next = new;
                return;
            }
            last = extra.next;
        }
    }

    fn extras(&self, entry: Entry, targets: bool) -> impl Iterator<Item = &[u8]> {
        let extra = |number: u32| self.extras.get((number as usize).checked_sub(1)?);
        std::iter::successors(extra(entry.extra), move |last| extra(last.next))
            .filter(move |extra| extra.is_target == targets)
            .map(|extra| bytes_of(&self.chunks, extra.place, extra.length))
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

    /// The paths with all of these marks and operations, in the order of the last sort.
    pub(crate) fn select(
        &self,
        marks: Marks,
        operations: Operations,
    ) -> impl Iterator<Item = Known<'_>> {
        let entries = self.sorted.iter().map(|number| self.entries[*number as usize]);
        entries
            .filter(move |entry| entry.marks.contain(marks) && entry.operations.contain(operations))
            .map(|entry| Known { paths: self, entry })
    }

    /// How many paths have all of these marks and operations.
    pub(crate) fn count(&self, marks: Marks, operations: Operations) -> usize {
        let entries = self.entries.iter();
        entries
            .filter(|entry| entry.marks.contain(marks) && entry.operations.contain(operations))
            .count()
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

/// Whether two texts are the same. Word by word: the comparison that guests have goes byte by byte, and most of what is compared here is
/// the same to its end.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    const WORD: usize = size_of::<u64>();
    let word = |bytes: &[u8; WORD]| u64::from_ne_bytes(*bytes);
    if one.len() != other.len() {
        return false;
    }
    let (words, rest) = one.as_chunks::<WORD>();
    let (other_words, other_rest) = other.as_chunks::<WORD>();
    let same = words.iter().zip(other_words).all(|(one, other)| word(one) == word(other));
    // The last word once more, with the rest behind it.
    same && match (one.last_chunk(), other.last_chunk()) {
        (Some(one), Some(other)) => word(one) == word(other),
        _ => rest == other_rest,
    }
}

fn bytes_of(chunks: &[Vec<u8>], place: u32, length: u16) -> &[u8] {
    let start = (place & 0xffff) as usize;
    &chunks[(place >> 16) as usize][start..start + usize::from(length)]
}

/// The order of the texts, which is that of the bytes where neither is escaped.
fn compare(chunks: &[Vec<u8>], left: Entry, right: Entry) -> Ordering {
    let bytes = |entry: Entry| bytes_of(chunks, entry.place, entry.length);
    let (left_bytes, right_bytes) = (bytes(left), bytes(right));
    if left.marks.with(right.marks).contain(Marks::ESCAPED) {
        escape(left_bytes).cmp(&escape(right_bytes))
    } else {
        order_of(left_bytes, right_bytes)
    }
}

/// The order of the bytes. Word by word, as in [`is_same`]: paths begin alike.
fn order_of(left: &[u8], right: &[u8]) -> Ordering {
    const WORD: usize = size_of::<u64>();
    let words = left.as_chunks::<WORD>().0.iter().zip(right.as_chunks::<WORD>().0);
    let mut alike = 0;
    for (left, right) in words {
        if left != right {
            return u64::from_be_bytes(*left).cmp(&u64::from_be_bytes(*right));
        }
        alike += WORD;
    }
    left[alike..].cmp(&right[alike..])
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

    #[test]
    fn texts_are_the_same_if_every_byte_is() {
        let text: Vec<u8> = (1..=40).collect();
        for length in 0..=text.len() {
            let copy = text[..length].to_vec();
            assert!(is_same(&text[..length], &copy));
            for wrong in 0..length {
                let mut other = copy.clone();
                other[wrong] ^= 0x80;
                assert!(!is_same(&text[..length], &other), "{wrong} of {length}");
            }
            assert_eq!(is_same(&text[..length], &text), length == text.len());
        }
    }

    fn list(paths: &Paths, marks: Marks) -> Vec<&[u8]> {
        paths.select(marks, Operations::NONE).map(|known| known.path()).collect()
    }

    fn mark(paths: &mut Paths, path: &[u8], marks: Marks, errno: u8) -> Taken {
        paths.add(path, &Addition { errno, ..Addition::marks(marks) })
    }

    fn only<'a>(paths: &'a Paths, path: &[u8]) -> Known<'a> {
        let mut all = paths.select(Marks(0), Operations::NONE);
        all.find(|known| known.path() == path).expect("the path is in the set")
    }

    #[test]
    fn a_path_is_kept_once_with_all_that_happened_to_it() {
        let mut paths = paths(9);
        mark(&mut paths, b"/b", Marks::MISSING, 0);
        mark(&mut paths, b"/a", Marks::USED, 0);
        mark(&mut paths, b"/b", Marks::USED, 0);
        mark(&mut paths, b"/c", Marks::REFUSED, 13);
        mark(&mut paths, b"/c", Marks::USED, 0);
        paths.sort();
        assert_eq!(paths.len(), 3);
        assert_eq!(list(&paths, Marks::USED), [b"/a", b"/b", b"/c"]);
        assert_eq!(list(&paths, Marks::MISSING), [b"/b"]);
        assert_eq!(list(&paths, Marks::REFUSED), [b"/c"]);
        assert_eq!(only(&paths, b"/c").errno(), 13);
        assert_eq!(paths.count(Marks::USED, Operations::NONE), 3);
    }

    #[test]
    fn operations_have_the_names_of_the_contract_and_come_back_from_them() {
        let both = Operations::of(Kind::Open).with(Operations::of(Kind::OtherUse));
        assert_eq!(both.names().collect::<Vec<_>>(), ["open", "other-use"]);
        assert_eq!(both, Operations::named("open").with(Operations::named("other-use")));
        assert_eq!(Operations::of(Kind::ContainerStarted), Operations::NONE);
        assert_eq!(Operations::of(Kind::Other(4711)), Operations::NONE);
        assert_eq!(Operations::named("container-started"), Operations::NONE);
    }

    #[test]
    fn a_path_is_selected_by_what_was_done_to_it() {
        let mut paths = paths(9);
        let used =
            Addition { operations: Operations::of(Kind::Open), ..Addition::marks(Marks::USED) };
        paths.add(b"/a", &used);
        paths.add(b"/b", &Addition { operations: Operations::of(Kind::List), ..used });
        paths.add(b"/b", &used);
        paths.sort();
        assert_eq!(paths.count(Marks::USED, Operations::of(Kind::Open)), 2);
        let listed = paths.select(Marks::USED, Operations::of(Kind::List));
        assert_eq!(listed.map(|known| known.path()).collect::<Vec<_>>(), [b"/b"]);
    }

    #[test]
    fn forms_and_the_newest_target_stand_aside() {
        let mut paths = paths(9);
        for form in [&b"b"[..], b"/b", b"./b", b"b"] {
            paths.add(b"/b", &Addition { requested: form, ..Addition::marks(Marks::USED) });
        }
        for target in [&b"old"[..], b"/new", b"/new"] {
            paths.add(b"/b", &Addition { target, ..Addition::marks(Marks::LINK) });
        }
        for number in 0..20 {
            let form = format!("../{number}");
            let requested = form.as_bytes();
            paths.add(b"/c", &Addition { requested, ..Addition::marks(Marks::USED) });
        }
        paths.sort();
        let known = only(&paths, b"/b");
        assert_eq!(known.requested().collect::<Vec<_>>(), [&b"b"[..], b"./b"]);
        assert_eq!(known.target(), b"/new");
        assert_eq!(only(&paths, b"/c").requested().count(), FORMS_AT_MOST);
    }

    #[test]
    fn the_newest_identity_of_a_path_is_kept() {
        let mut paths = paths(9);
        let identity = |inode, mount| Identity {
            inode,
            whereabouts: Whereabouts { mount, device: 7, file_system: 9 },
        };
        paths.add(b"/none", &Addition::marks(Marks::USED));
        for found in [identity(1 << 40, 1), identity(u64::MAX, 2), identity(3, 1)] {
            paths.add(b"/a", &Addition { identity: Some(found), ..Addition::marks(Marks::USED) });
        }
        paths.sort();
        assert_eq!(only(&paths, b"/none").identity(), None);
        assert_eq!(only(&paths, b"/a").identity(), Some(identity(3, 1)));
        assert_eq!(paths.whereabouts.len(), 2);
    }

    #[test]
    fn later_paths_are_merged_into_the_order() {
        let mut paths = paths(usize::MAX);
        let mut expected = Vec::new();
        for round in 0..5 {
            for number in 0..2000_u32 {
                let path = format!("/usr/share/{}/{round}", number.wrapping_mul(2_654_435_761));
                assert_eq!(mark(&mut paths, path.as_bytes(), Marks::USED, 0), Taken::Yes);
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
            mark(&mut paths, path, Marks::USED, 0);
        }
        paths.sort();
        let texts: Vec<_> = list(&paths, Marks::USED).into_iter().map(escape).collect();
        assert!(texts.is_sorted(), "{texts:?}");
    }

    #[test]
    fn the_order_word_by_word_is_that_byte_by_byte() {
        let mut texts: Vec<Vec<u8>> = vec![b"/".repeat(40)];
        for length in 0..40 {
            for last in [0, b'/', 0xff] {
                let mut text = b"/".repeat(length);
                text.push(last);
                texts.push([text.clone(), b"/tail".to_vec()].concat());
                texts.push(text);
            }
        }
        for left in &texts {
            for right in &texts {
                assert_eq!(order_of(left, right), left.cmp(right), "{left:?} {right:?}");
            }
        }
    }

    #[test]
    fn a_full_set_takes_marks_of_known_paths_only() {
        let mut paths = paths(1);
        assert_eq!(mark(&mut paths, b"/a", Marks::USED, 0), Taken::Yes);
        assert_eq!(mark(&mut paths, b"/b", Marks::USED, 0), Taken::Full);
        assert_eq!(mark(&mut paths, b"/a", Marks::SETUP, 0), Taken::Yes);
        assert_eq!(paths.len(), 1);
        assert_eq!(mark(&mut paths, &[b'/'; 70_000], Marks::USED, 0), Taken::Full);
    }

    #[test]
    fn a_path_of_40_bytes_costs_less_than_120_with_all_that_is_known_of_it() {
        let mut paths = paths(usize::MAX);
        let files = 100_000;
        for number in 0..files {
            paths.add(
                format!("/usr/lib/python3/dist-packages/{number:09}").as_bytes(),
                &Addition {
                    operations: Operations::of(Kind::Open),
                    identity: Some(Identity {
                        inode: number as u64,
                        whereabouts: Whereabouts { mount: 1, device: 2, file_system: 3 },
                    }),
                    ..Addition::marks(Marks::USED)
                },
            );
        }
        paths.sort();
        let bytes = paths.index.allocation_size()
            + paths.entries.capacity() * size_of::<Entry>()
            + paths.extras.capacity() * size_of::<Extra>()
            + paths.sorted.capacity() * size_of::<u32>()
            + paths.chunks.iter().map(Vec::capacity).sum::<usize>();
        assert!(bytes / files < 120, "{} bytes a path", bytes / files);
    }
}

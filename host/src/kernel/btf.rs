//! The BPF Type Format: where the running kernel keeps the members of its structures.
//!
//! Reads the little of it that offsets need: structures, unions, their members, and the modifiers in
//! between. Total over any bytes: what does not fit the format is an error. The format is specified in
//! the kernel's `Documentation/bpf/btf.rst`.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why there is no type information.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are no BTF, or of a newer kind.
    #[error("byte {0} of the kernel's BTF is not what the format says")]
    Format(usize),
}

/// The types of a kernel.
pub(crate) struct Btf {
    bytes: Vec<u8>,
    strings: usize,
    /// Where each type begins, by its id. The first one, `void`, has no bytes.
    types: Vec<u32>,
    /// The ids of the structures and unions that have a name.
    named: Vec<u32>,
    /// The ids of the enumerations that have a name.
    enumerations: Vec<u32>,
    /// The ids of the type definitions.
    definitions: Vec<u32>,
}

/// The kinds that matter here, and how many bytes follow the others.
mod kind {
    pub(super) const POINTER: u32 = 2;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const FUNCTION: u32 = 12;
    pub(super) const PROTOTYPE: u32 = 13;

    /// Bytes that follow a type of that kind with that many elements. None for a kind of the future.
    pub(super) fn tail(kind: u32, elements: usize) -> Option<usize> {
        Some(match kind {
            // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
            POINTER | 7..=12 | 16 | 18 => 0,
            // Integer, variable, declaration tag.
            1 | 14 | 17 => 4,
            // Array.
            3 => 12,
            // Structure, union, data section, 64-bit enumeration.
            STRUCT | UNION | 15 | 19 => 12 * elements,
            ENUM | PROTOTYPE => 8 * elements,
            _ => return None,
        })
    }

    /// Whether a type of that kind only says something more about another one.
    pub(super) fn is_modifier(kind: u32) -> bool {
        // Typedef, volatile, const, restrict, type tag.
        matches!(kind, TYPEDEF | 9..=11 | 18)
    }
}

/// The head of a type.
struct Head {
    name: u32,
    kind: u32,
    elements: usize,
    /// Whether the offsets of members carry the width of bit fields in their upper byte.
    wide: bool,
    /// Size, or the type that this one is about.
    about: u32,
}

const HEAD_BYTES: usize = 12;
const MEMBER_BYTES: usize = 12;
const ENUMERATOR_BYTES: usize = 8;
const PARAMETER_BYTES: usize = 8;
/// How deep anonymous structures and modifiers are followed. Real kernels need about five.
const DEPTH: u32 = 32;

impl Btf {
    pub(crate) fn from_file(path: &Path) -> Result<Btf, BtfError> {
        let bytes = std::fs::read(path)
            .map_err(|source| BtfError::Read { path: path.to_owned(), source })?;
        Btf::from_bytes(bytes)
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Btf, BtfError> {
        const MAGIC: u16 = 0xeb9f;
        let magic = bytes.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk));
        if magic != Some(MAGIC) {
            return Err(BtfError::Format(0));
        }
        let mut btf = Btf {
            bytes,
            strings: 0,
            types: vec![0],
            named: Vec::new(),
            enumerations: Vec::new(),
            definitions: Vec::new(),
        };
        let header = |at| btf.word(at).map(|word| word as usize).ok_or(BtfError::Format(at));
        let header_bytes = header(4)?;
        let mut at = header_bytes.saturating_add(header(8)?);
        let end = at.saturating_add(header(12)?);
        btf.strings = header_bytes.saturating_add(header(16)?);
        while at < end {
            let wrong = BtfError::Format(at);
            let Some(head) = btf.head_at(at) else { return Err(wrong) };
            let Some(tail) = kind::tail(head.kind, head.elements) else { return Err(wrong) };
            let id = btf.types.len() as u32;
            match head.kind {
                kind::STRUCT | kind::UNION if head.name != 0 => btf.named.push(id),
                kind::ENUM if head.name != 0 => btf.enumerations.push(id),
                kind::TYPEDEF => btf.definitions.push(id),
                _ => {}
            }
            btf.types.push(u32::try_from(at).map_err(|_| BtfError::Format(at))?);
            at += HEAD_BYTES + tail;
        }
        Ok(btf)
    }

    /// Whether anything has this name.
    pub(crate) fn mentions(&self, name: &str) -> bool {
        let names = self.bytes.get(self.strings..).unwrap_or_default();
        names.split(|byte| *byte == 0).any(|found| found == name.as_bytes())
    }

    /// Offset of a member in bytes, also of one inside an anonymous structure or union.
    pub(crate) fn offset_of(&self, structure: &str, member: &str) -> Option<u32> {
        self.named
            .iter()
            .filter(|id| self.head(**id).is_some_and(|head| self.is_name(head.name, structure)))
            .find_map(|id| self.member_bits(*id, member, DEPTH))
            .map(|bits| bits / 8)
    }

    /// Size of a structure in bytes.
    pub(crate) fn size_of(&self, structure: &str) -> Option<u32> {
        self.named.iter().find_map(|id| {
            let head = self.head(*id)?;
            (head.elements > 0 && self.is_name(head.name, structure)).then_some(head.about)
        })
    }

    /// Value of an enumerator.
    pub(crate) fn value_of(&self, enumeration: &str, enumerator: &str) -> Option<u32> {
        self.enumerations.iter().find_map(|id| {
            let head = self.head(*id)?;
            if !self.is_name(head.name, enumeration) {
                return None;
            }
            self.elements(*id, head.elements, ENUMERATOR_BYTES).find_map(|at| {
                self.is_name(self.word(at)?, enumerator).then(|| self.word(at + 4)).flatten()
            })
        })
    }

    /// What the functions behind a tracepoint get, of which the first is the tracepoint's own: for each whether it is a
    /// pointer. The kernel defines the type `btf_trace_<name>` for every tracepoint (Linux 5.5).
    pub(crate) fn tracepoint_pointers(&self, tracepoint: &str) -> Option<Vec<bool>> {
        let wanted = format!("btf_trace_{tracepoint}");
        let definition = self.definitions.iter().find_map(|id| {
            let head = self.head(*id)?;
            self.is_name(head.name, &wanted).then_some(head.about)
        })?;
        let pointer = self.head(self.unmodified(definition)?)?;
        let prototype_id = self.unmodified(pointer.about)?;
        let prototype = self.head(prototype_id)?;
        if pointer.kind != kind::POINTER || prototype.kind != kind::PROTOTYPE {
            return None;
        }
        self.elements(prototype_id, prototype.elements, PARAMETER_BYTES)
            .skip(1)
            .map(|at| {
                let about = self.unmodified(self.word(at + 4)?)?;
                Some(self.head(about)?.kind == kind::POINTER)
            })
            .collect()
    }

    /// The ids of the functions with these names.
    pub(crate) fn functions<const COUNT: usize>(
        &self,
        names: [&str; COUNT],
    ) -> [Option<u32>; COUNT] {
        let mut found = [None; COUNT];
        for id in 1..self.types.len() as u32 {
            let Some(head) = self.head(id).filter(|head| head.kind == kind::FUNCTION) else {
                continue;
            };
            let which = names.iter().position(|name| self.is_name(head.name, name));
            if let Some(which) = which {
                found[which].get_or_insert(id);
            }
        }
        found
    }

    /// Where the elements of a type stand.
    fn elements(&self, id: u32, count: usize, bytes: usize) -> impl Iterator<Item = usize> + '_ {
        let first = self.types.get(id as usize).map_or(0, |at| *at as usize) + HEAD_BYTES;
        (0..count).map(move |index| first + index * bytes)
    }

    /// Offset of a member of this structure in bits.
    fn member_bits(&self, id: u32, wanted: &str, depth: u32) -> Option<u32> {
        let head = self.head(id)?;
        if !matches!(head.kind, kind::STRUCT | kind::UNION) {
            return None;
        }
        self.elements(id, head.elements, MEMBER_BYTES).find_map(|at| {
            let (name, about, offset) = (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
            let bits = if head.wide { offset & 0x00ff_ffff } else { offset };
            if name != 0 {
                return self.is_name(name, wanted).then_some(bits);
            }
            let inner = self.unmodified(about)?;
            Some(bits + self.member_bits(inner, wanted, depth.checked_sub(1)?)?)
        })
    }

    /// The type behind typedefs and qualifiers.
    fn unmodified(&self, mut id: u32) -> Option<u32> {
        for _ in 0..DEPTH {
            let head = self.head(id)?;
            if !kind::is_modifier(head.kind) {
                return Some(id);
            }
            id = head.about;
        }
        None
    }

    fn head(&self, id: u32) -> Option<Head> {
        let at = *self.types.get(id as usize)?;
        // Type 0 is `void`.
        (id != 0).then(|| self.head_at(at as usize)).flatten()
    }

    fn head_at(&self, at: usize) -> Option<Head> {
        let info = self.word(at + 4)?;
        Some(Head {
            name: self.word(at)?,
            kind: info >> 24 & 0x1f,
            elements: (info & 0xffff) as usize,
            wide: info >> 31 == 1,
            about: self.word(at + 8)?,
        })
    }

    fn is_name(&self, name: u32, wanted: &str) -> bool {
        self.bytes
            .get(self.strings.saturating_add(name as usize)..)
            .and_then(|rest| rest.strip_prefix(wanted.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `enum color { red = 3, blue = 4 }`, and `typedef void (*btf_trace_seen)(void *, int, struct outer *)` behind the
    /// types of `sample`, whose own ids go up to 5.
    fn sample_with_more() -> Vec<u8> {
        let mut bytes = sample();
        let types_bytes = u32::from_ne_bytes(bytes[12..16].try_into().unwrap());
        let strings_bytes = u32::from_ne_bytes(bytes[20..24].try_into().unwrap());
        let more_strings = b"color\0red\0blue\0btf_trace_seen\0";
        let [color, red, blue, seen] = [0, 6, 10, 15].map(|at| strings_bytes + at);
        let info = |kind: u32, elements: u32| kind << 24 | elements;
        let more_types: Vec<u32> = [
            vec![color, info(kind::ENUM, 2), 4, red, 3, blue, 4],
            vec![0, info(kind::POINTER, 0), 0],
            vec![0, info(kind::POINTER, 0), 5],
            vec![0, info(kind::PROTOTYPE, 3), 0, 0, 7, 0, 1, 0, 8],
            vec![0, info(kind::POINTER, 0), 9],
            vec![seen, info(kind::TYPEDEF, 0), 10],
        ]
        .concat();
        let more_types: Vec<u8> = more_types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let grown = types_bytes + more_types.len() as u32;
        bytes[12..16].copy_from_slice(&grown.to_ne_bytes());
        bytes[16..20].copy_from_slice(&grown.to_ne_bytes());
        let strings_grown = strings_bytes + more_strings.len() as u32;
        bytes[20..24].copy_from_slice(&strings_grown.to_ne_bytes());
        let strings_at = 24 + types_bytes as usize;
        bytes.splice(strings_at..strings_at, more_types);
        bytes.extend(more_strings);
        bytes
    }

    #[test]
    fn sizes_enumerators_and_what_tracepoints_give_are_found() {
        let btf = Btf::from_bytes(sample_with_more()).unwrap();
        assert_eq!(btf.size_of("outer"), Some(20));
        assert_eq!(btf.size_of("inner"), None);
        assert_eq!(btf.value_of("color", "blue"), Some(4));
        assert_eq!(btf.value_of("color", "green"), None);
        assert_eq!(btf.value_of("colors", "blue"), None);
        assert_eq!(btf.tracepoint_pointers("seen"), Some(vec![false, true]));
        assert_eq!(btf.tracepoint_pointers("unseen"), None);
    }

    /// `struct outer { int first; const struct { int inner; } ; union { int one; int two; } }`, with
    /// the anonymous ones at 8 and 16 bytes.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0outer\0first\0inner\0one\0two\0";
        let name = |wanted: &str| {
            let wanted = [b"\0", wanted.as_bytes(), b"\0"].concat();
            strings.windows(wanted.len()).position(|window| window == wanted).unwrap() as u32 + 1
        };
        let info = |kind: u32, elements: u32| kind << 24 | elements;
        let types: Vec<u32> = [
            vec![name("int"), info(1, 0), 4, 32],
            vec![0, info(kind::STRUCT, 1), 4, name("inner"), 1, 0],
            vec![0, info(10, 0), 2],
            vec![0, info(kind::UNION, 2), 4, name("one"), 1, 0, name("two"), 1, 0],
            vec![
                name("outer"),
                info(kind::STRUCT, 3),
                20,
                name("first"),
                1,
                0,
                0,
                3,
                64,
                0,
                4,
                128,
            ],
        ]
        .concat();
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let header = [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(header.iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn a_member_is_found_through_anonymous_structures_and_qualifiers() {
        let btf = Btf::from_bytes(sample()).unwrap();
        for (member, offset) in
            [("first", Some(0)), ("inner", Some(8)), ("two", Some(16)), ("in", None)]
        {
            assert_eq!(btf.offset_of("outer", member), offset, "{member}");
        }
        assert_eq!(btf.offset_of("int", "first"), None);
        assert_eq!(btf.offset_of("oute", "first"), None);
    }

    #[test]
    fn cut_and_changed_bytes_are_an_error_or_an_answer_and_never_a_panic() {
        let whole = sample();
        for length in 0..whole.len() {
            if let Ok(btf) = Btf::from_bytes(whole[..length].to_vec()) {
                btf.offset_of("outer", "two");
            }
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            if let Ok(btf) = Btf::from_bytes(changed) {
                btf.offset_of("outer", "two");
            }
        }
    }

    #[test]
    fn a_kind_of_the_future_is_an_error_and_not_misread() {
        let mut bytes = sample();
        bytes[24 + 4 + 3] = 31;
        assert!(matches!(Btf::from_bytes(bytes), Err(BtfError::Format(24))));
    }

    #[test]
    fn a_type_that_contains_itself_ends() {
        let mut bytes = sample();
        // The anonymous structure's member becomes the anonymous structure itself.
        let member = 24 + 16 + 12;
        bytes[member..member + 4].copy_from_slice(&0_u32.to_ne_bytes());
        bytes[member + 4..member + 8].copy_from_slice(&2_u32.to_ne_bytes());
        let btf = Btf::from_bytes(bytes).unwrap();
        assert_eq!(btf.offset_of("outer", "inner"), None);
    }
}

//! Sets of event kinds, and the words that name them in the TOML.

use crate::event::Kind;

/// A set of event kinds: a bit for each code of `kind` in `wit/types.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u64);

/// Words for several kinds at once, with the codes that they cover.
const GROUPS: [(&str, std::ops::RangeInclusive<u16>); 3] =
    [("containers", 1..=15), ("files", 16..=47), ("processes", 48..=63)];

impl Kinds {
    /// No kind.
    pub const NONE: Kinds = Kinds(0);
    /// The kinds about files.
    pub const FILES: Kinds = Kinds(0xffff_ffff << 16);
    /// The kinds about processes.
    pub const PROCESSES: Kinds = Kinds(0xffff << 48);
    /// Every kind, those that this daemon does not know included.
    pub const ALL: Kinds = Kinds(u64::MAX);

    /// The set with that kind alone.
    pub const fn of(kind: Kind) -> Kinds {
        // Codes stay below 64; a test holds on to it.
        Kinds(1 << (kind.code() & 63))
    }

    /// The kinds that a word stands for: the name of one, or of a group.
    pub fn named(word: &str) -> Option<Kinds> {
        let group = GROUPS.iter().find(|(name, _)| *name == word);
        let of_group = group.map(|(_, codes)| {
            codes.clone().fold(Kinds::NONE, |kinds, code| Kinds(kinds.0 | 1 << code))
        });
        let kind = || Kind::ALL.into_iter().find(|kind| kind.name() == word);
        of_group.or_else(|| kind().map(Kinds::of))
    }

    /// Every word that [`Kinds::named`] knows.
    pub fn words() -> impl Iterator<Item = &'static str> {
        GROUPS.iter().map(|(name, _)| *name).chain(Kind::ALL.into_iter().map(Kind::name))
    }

    /// The set as a number: a bit for each code.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The set that is such a number.
    pub const fn from_bits(bits: u64) -> Kinds {
        Kinds(bits)
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    /// The kinds that are in both sets.
    #[must_use]
    pub const fn only(self, other: Kinds) -> Kinds {
        Kinds(self.0 & other.0)
    }

    /// The kinds of this set that are not in the other.
    #[must_use]
    pub const fn without(self, other: Kinds) -> Kinds {
        Kinds(self.0 & !other.0)
    }

    /// Whether the sets have a kind in common.
    pub const fn meet(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_bit_of_its_own_and_every_kind_is_in_one_group() {
        for kind in Kind::ALL {
            assert!(kind.code() < 64, "{}", kind.name());
            let groups = GROUPS.iter().filter(|(_, codes)| codes.contains(&kind.code()));
            assert_eq!(groups.count(), 1, "{}", kind.name());
        }
    }

    #[test]
    fn words_stand_for_kinds() {
        let files = Kinds::named("files").unwrap();
        assert!(files.meet(Kinds::of(Kind::Open)) && files.meet(Kinds::of(Kind::Exec)));
        assert!(!files.meet(Kinds::of(Kind::ContainerStarted)));
        assert_eq!(files, Kinds::FILES);
        assert_eq!(Kinds::named("processes"), Some(Kinds::PROCESSES));
        assert_eq!(Kinds::named("open"), Some(Kinds::of(Kind::Open)));
        assert_eq!(Kinds::named("opens"), None);
        assert!(Kinds::words().all(|word| Kinds::named(word).is_some()));
    }
}

//! From the bytes of a record about processes to a fate: what the kernel said of one process at one moment.
//!
//! Total, like `crate::decode`: every slice of bytes is a fate or a reason why it is none.

use thiserror::Error;
use whodunit_ebpf::{
    RawDelivery, RawExit, RawFork, RawProcess, RawProgram, RawSignal, RawVictim, fate_kind,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// What the kernel said of a process.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It was made.
    Forked(RawFork),
    /// It executed a program.
    Executed(Box<RawProgram>),
    /// It ended.
    Exited(Box<RawExit>),
    /// A signal was generated for it.
    Signalled(Box<RawSignal>),
    /// A signal reached it.
    Delivered(RawDelivery),
    /// The kernel chose it to be killed for want of memory.
    OomVictim(Box<RawVictim>),
}

/// Why bytes are no fate.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum FateError {
    /// Shorter than its kind of record.
    #[error("a record about a process of {0} bytes is too short for its kind")]
    Short(usize),
    /// A kind that this daemon does not know.
    #[error("a record about a process of unknown kind {0}")]
    Kind(u16),
}

/// Decodes one record.
///
/// # Errors
///
/// If the bytes are no record of this build's kernel programs.
pub(crate) fn decode(bytes: &[u8]) -> Result<Fate, FateError> {
    let kind = bytes.first_chunk().ok_or(FateError::Short(bytes.len()))?;
    Ok(match u16::from_ne_bytes(*kind) {
        fate_kind::FORKED => Fate::Forked(read(bytes)?),
        fate_kind::EXECUTED => Fate::Executed(Box::new(read(bytes)?)),
        fate_kind::EXITED => Fate::Exited(Box::new(read(bytes)?)),
        fate_kind::SIGNALLED => Fate::Signalled(Box::new(read(bytes)?)),
        fate_kind::DELIVERED => Fate::Delivered(read(bytes)?),
        fate_kind::OOM_VICTIM => Fate::OomVictim(Box::new(read(bytes)?)),
        unknown => return Err(FateError::Kind(unknown)),
    })
}

fn read<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Result<T, FateError> {
    T::read_from_prefix(bytes).map(|(record, _)| record).map_err(|_| FateError::Short(bytes.len()))
}

/// A process, by what never belongs to another one in a boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ProcessKey {
    /// Process id in the initial pid namespace.
    pub(crate) pid: u32,
    /// When it started, in nanoseconds since boot.
    pub(crate) started_ns: u64,
}

impl From<&RawProcess> for ProcessKey {
    fn from(raw: &RawProcess) -> ProcessKey {
        ProcessKey { pid: raw.pid, started_ns: raw.started_ns }
    }
}

/// The name of a process as text: up to the first NUL, other bytes than UTF-8 escaped.
pub(crate) fn comm(raw: &[u8; 16]) -> String {
    let end = raw.iter().position(|byte| *byte == 0).unwrap_or(raw.len());
    crate::discovery::escaped(&raw[..end])
}

/// The path of a program. None where it was not read, or did not fit.
pub(crate) fn program_bytes(raw: &RawProgram) -> Option<&[u8]> {
    let length = usize::from(raw.path_length);
    if length < 2 || length >= raw.path.len() {
        return None;
    }
    Some(&raw.path[..length - 1])
}

/// The same as text.
pub(crate) fn program_path(raw: &RawProgram) -> Option<String> {
    program_bytes(raw).map(crate::discovery::escaped)
}

#[cfg(test)]
mod tests {
    use whodunit_ebpf::PROGRAM_MAX;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    #[test]
    fn records_cut_anywhere_are_short_and_never_read_past_their_end() {
        let mut exit = RawExit::new_zeroed();
        exit.kind = fate_kind::EXITED;
        let whole = exit.as_bytes();
        assert!(matches!(decode(whole), Ok(Fate::Exited(_))));
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length]).err(), Some(FateError::Short(length)));
        }
    }

    #[test]
    fn an_unknown_kind_is_no_fate() {
        assert_eq!(decode(&[7, 0, 0, 0]).err(), Some(FateError::Kind(u16::from_ne_bytes([7, 0]))));
    }

    #[test]
    fn a_path_that_was_cut_is_none() {
        let mut program = RawProgram::new_zeroed();
        program.path[..5].copy_from_slice(b"/bin\0");
        program.path_length = 5;
        assert_eq!(program_path(&program).as_deref(), Some("/bin"));
        program.path_length = PROGRAM_MAX as u16;
        assert_eq!(program_path(&program), None);
        program.path_length = 0;
        assert_eq!(program_path(&program), None);
    }

    #[test]
    fn a_name_ends_at_its_nul_and_stays_text() {
        assert_eq!(comm(b"cat\0garbage\0\0\0\0\0"), "cat");
        assert_eq!(comm(b"0123456789abcdef"), "0123456789abcdef");
        assert_eq!(comm(b"a\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), "a\\xff");
    }
}

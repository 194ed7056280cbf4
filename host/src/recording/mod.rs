//! Recordings: what the daemon hands to plugins, in a file, to be handed to plugins again anywhere.
//!
//! A recording holds typed events and ticks in their order, with the containers and processes that they
//! name and the surroundings of the daemon. `writer` makes one beside a running daemon, `reader` reads
//! one whatever its bytes are, `replay` hands one to plugins with no kernel and no root.
//!
//! # The file
//!
//! | bytes | meaning |
//! |---|---|
//! | 8 | `WHODUNIT` |
//! | 2 | version of the format, little-endian |
//! | ... | blocks |
//!
//! A block is the length of what is stored (4 bytes), its length when unpacked (4), the CRC-32 of what is
//! stored (4), all little-endian, and a zstd frame. Unpacked, it is a sequence of entries: the entry's
//! kind (1 byte), its length (4) and a value in postcard's encoding. A block is written whole; a daemon
//! that is killed leaves a file whose last block may be missing. A reader skips kinds that it does not
//! know, so new kinds need no new version.

mod format;
mod reader;
mod record;
mod replay;
mod writer;

pub use format::Start;
pub use reader::{Ending, Entry, ReadError, Reader};
pub use record::{RecordError, Recorder, Tap};
pub use replay::{Replay, ReplayError, Replayed};
pub use writer::{Summary, Writer};

#[cfg(test)]
mod tests;

//! Reads a recording, whatever its bytes are: it gives entries, or one sentence. Never more memory than
//! a block may have, never a value that lies outside its batch.

use std::io::{self, Read};

use serde::de::DeserializeOwned;

use super::Start;
use super::format::{
    BLOCK_HEADER_BYTES, BatchRow, ContainerRow, DeathRow, ENTRY_HEADER_BYTES, EndRow, HEADER_BYTES,
    MAGIC, MAX_BLOCK_BYTES, Malformed, ProcessRow, StartRow, TickRow, VERSION, entry_kind,
};
use crate::death::record::DeathRecord;
use crate::directory::{Container, Process};
use crate::event::{Batch, Tick, UnixNanos};

/// Why a file is not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is something else.
    #[error("it is no recording: `whodunit record -o FILE` makes one")]
    NotARecording,
    /// It is of another version.
    #[error(
        "it is a recording of version {found}, and this daemon reads version {VERSION}: replay it with the daemon that made it"
    )]
    OtherVersion {
        /// Its version.
        found: u16,
    },
    /// Something in it cannot be.
    #[error("it is damaged at byte {at} ({why}): copy it again, or make a new one")]
    Damaged {
        /// Where the block with it begins.
        at: u64,
        /// What cannot be.
        why: String,
    },
    /// The system does not give its bytes.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// One thing that stands in a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A container, or what has changed about it. Stands before the first event of it.
    Container(Container),
    /// A process. Stands before the first event of it.
    Process(Process),
    /// Events, and how many the recorder could not take before them.
    Batch {
        /// The events.
        batch: Batch,
        /// Events that are missing before them.
        dropped: u64,
    },
    /// Totals.
    Tick(Tick),
    /// A death. Stands after what was seen before it.
    Death(Box<DeathRecord>),
}

/// How a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As its recorder ended it.
    Whole {
        /// When.
        time: UnixNanos,
        /// Events that the recorder could not take at the end.
        dropped: u64,
    },
    /// Its recorder was killed, or the file was cut: so many bytes at its end are no whole block.
    CutOff {
        /// How many.
        bytes: u64,
    },
}

/// Reads entries from a file, or from anything else.
pub struct Reader<R: Read> {
    from: R,
    /// Bytes that were read, up to the block at hand.
    at: u64,
    start: Start,
    /// Unpacked, and how much of it was taken.
    block: Vec<u8>,
    taken: usize,
    ending: Option<Ending>,
    unknown: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the header and the first entry.
    ///
    /// # Errors
    ///
    /// See [`ReadError`]. A file that ends before its first entry is no recording.
    pub fn new(mut from: R) -> Result<Reader<R>, ReadError> {
        let header = read_up_to(&mut from, HEADER_BYTES)?;
        let (magic, version) = header.split_at_checked(MAGIC.len()).unwrap_or_default();
        if magic != MAGIC {
            return Err(ReadError::NotARecording);
        }
        let version: [u8; 2] = version.try_into().map_err(|_| ReadError::NotARecording)?;
        let found = u16::from_le_bytes(version);
        if found != VERSION {
            return Err(ReadError::OtherVersion { found });
        }
        let mut reader = Reader {
            from,
            at: HEADER_BYTES as u64,
            start: Start::from(StartRow::default()),
            block: Vec::new(),
            taken: 0,
            ending: None,
            unknown: 0,
        };
        match reader.next_raw()? {
            Some((entry_kind::START, range)) => {
                reader.start = Start::from(reader.value::<StartRow>(range)?);
                Ok(reader)
            }
            Some(_) | None => Err(ReadError::NotARecording),
        }
    }

    /// Where and when it was made.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// How it ends; known once there is no next entry.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Entries and events so far of kinds that this daemon does not know.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// The next entry. None at the end.
    ///
    /// # Errors
    ///
    /// See [`ReadError`]. What came before stays good.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        while self.ending.is_none() {
            let Some((kind, range)) = self.next_raw()? else {
                break;
            };
            match kind {
                entry_kind::CONTAINER => {
                    let row: ContainerRow = self.value(range)?;
                    let container = row.try_into().map_err(|why| self.malformed(&why))?;
                    return Ok(Some(Entry::Container(container)));
                }
                entry_kind::PROCESS => {
                    let row: ProcessRow = self.value(range)?;
                    return Ok(Some(Entry::Process(row.into())));
                }
                entry_kind::BATCH => {
                    let row: BatchRow = self.value(range)?;
                    let (batch, dropped, unknown) =
                        row.batch().map_err(|why| self.malformed(&why))?;
                    self.unknown += unknown;
                    return Ok(Some(Entry::Batch { batch, dropped }));
                }
                entry_kind::TICK => {
                    let row: TickRow = self.value(range)?;
                    let tick = row.try_into().map_err(|why| self.malformed(&why))?;
                    return Ok(Some(Entry::Tick(tick)));
                }
                entry_kind::DEATH => {
                    let row: DeathRow = self.value(range)?;
                    match serde_json::from_str(&row.record) {
                        Ok(record) => return Ok(Some(Entry::Death(record))),
                        // A record of another schema.
                        Err(_) => self.unknown += 1,
                    }
                }
                entry_kind::END => {
                    let row: EndRow = self.value(range)?;
                    let time = UnixNanos(row.time);
                    self.ending = Some(Ending::Whole { time, dropped: row.dropped });
                }
                _ => self.unknown += 1,
            }
        }
        Ok(None)
    }

    /// Kind and place of the next entry in the block at hand; of the next block where that is empty.
    fn next_raw(&mut self) -> Result<Option<(u8, std::ops::Range<usize>)>, ReadError> {
        while self.taken == self.block.len() {
            if !self.next_block()? {
                return Ok(None);
            }
        }
        let rest = &self.block[self.taken..];
        let Some((header, rest)) = rest.split_at_checked(ENTRY_HEADER_BYTES) else {
            return Err(self.damaged("an entry without its length"));
        };
        let length = u32_of(&header[1..]) as usize;
        if length > rest.len() {
            return Err(self.damaged("an entry that is longer than its block"));
        }
        let begin = self.taken + ENTRY_HEADER_BYTES;
        self.taken = begin + length;
        Ok(Some((header[0], begin..begin + length)))
    }

    /// Reads the next block. False at the end of the file, whole or not.
    fn next_block(&mut self) -> Result<bool, ReadError> {
        let header = read_up_to(&mut self.from, BLOCK_HEADER_BYTES)?;
        if header.len() < BLOCK_HEADER_BYTES {
            self.ending = Some(Ending::CutOff { bytes: header.len() as u64 });
            return Ok(false);
        }
        let (stored_bytes, unpacked_bytes, crc) =
            (u32_of(&header), u32_of(&header[4..]), u32_of(&header[8..]));
        if stored_bytes as usize > MAX_BLOCK_BYTES || unpacked_bytes as usize > MAX_BLOCK_BYTES {
            return Err(self.damaged("a block that is larger than any"));
        }
        let stored = read_up_to(&mut self.from, stored_bytes as usize)?;
        if stored.len() < stored_bytes as usize {
            let bytes = (header.len() + stored.len()) as u64;
            self.ending = Some(Ending::CutOff { bytes });
            return Ok(false);
        }
        if crc32fast::hash(&stored) != crc {
            return Err(self.damaged("its checksum differs"));
        }
        let unpacked = zstd::bulk::decompress(&stored, unpacked_bytes as usize)
            .map_err(|_| self.damaged("a block that cannot be unpacked"))?;
        if unpacked.len() != unpacked_bytes as usize {
            return Err(self.damaged("a block of another length than it says"));
        }
        self.at += (BLOCK_HEADER_BYTES + stored.len()) as u64;
        self.block = unpacked;
        self.taken = 0;
        Ok(true)
    }

    fn value<T: DeserializeOwned>(&self, range: std::ops::Range<usize>) -> Result<T, ReadError> {
        match postcard::take_from_bytes(&self.block[range]) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(self.damaged("an entry that is longer than its value")),
            Err(error) => Err(self.damaged(&error.to_string())),
        }
    }

    fn malformed(&self, why: &Malformed) -> ReadError {
        self.damaged(why.0)
    }

    fn damaged(&self, why: &str) -> ReadError {
        ReadError::Damaged { at: self.at, why: why.to_owned() }
    }
}

/// At most that many bytes; fewer only at the end of the file. A length that a file claims costs no
/// memory before its bytes are there.
fn read_up_to(from: &mut impl Read, bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    from.take(bytes as u64).read_to_end(&mut read)?;
    Ok(read)
}

/// The first four bytes as a number; their presence was checked before.
fn u32_of(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |four| u32::from_le_bytes(*four))
}

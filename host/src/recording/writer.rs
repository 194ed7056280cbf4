//! Writes a recording: entries into blocks, blocks into the file.

use std::collections::HashSet;
use std::io::{self, Write};

use serde::Serialize;

use super::Start;
use super::format::{
    BatchRow, ContainerRow, DeathRow, ENTRY_HEADER_BYTES, EndRow, MAGIC, ProcessRow, StartRow,
    TickRow, VERSION, entry_kind,
};
use crate::death::record::DeathRecord;
use crate::directory::{Container, Process};
use crate::event::{Batch, ContainerId, Tick, UnixNanos};

/// A block is written when it holds this much, unpacked.
const BLOCK_BYTES: usize = 256 << 10;
/// zstd's own default: about 5 times smaller at a cost of some nanoseconds a byte.
const COMPRESSION_LEVEL: i32 = 3;

/// What a recording holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// Containers that were named in it.
    pub containers: u64,
    /// Processes that were named in it.
    pub processes: u64,
    /// Events.
    pub events: u64,
    /// Ticks.
    pub ticks: u64,
    /// Deaths.
    pub deaths: u64,
    /// Events and deaths that the recorder could not take.
    pub dropped: u64,
    /// Size of the file, in bytes.
    pub bytes: u64,
}

/// Writes entries to a file, or to anything else.
pub struct Writer<W: Write> {
    to: W,
    /// The entries of the block that is not written yet.
    block: Vec<u8>,
    summary: Summary,
    containers: HashSet<ContainerId>,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new(mut to: W, start: &Start) -> io::Result<Writer<W>> {
        to.write_all(&MAGIC)?;
        to.write_all(&VERSION.to_le_bytes())?;
        let summary = Summary { bytes: super::format::HEADER_BYTES as u64, ..Summary::default() };
        let mut writer = Writer { to, block: Vec::new(), summary, containers: HashSet::new() };
        writer.entry(entry_kind::START, &StartRow::from(start))?;
        writer.flush()?;
        Ok(writer)
    }

    /// Names a container, or says what has changed about it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn container(&mut self, container: &Container) -> io::Result<()> {
        self.containers.insert(container.id);
        self.summary.containers = self.containers.len() as u64;
        self.entry(entry_kind::CONTAINER, &ContainerRow::from(container))
    }

    /// Names a process.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn process(&mut self, process: &Process) -> io::Result<()> {
        self.summary.processes += 1;
        self.entry(entry_kind::PROCESS, &ProcessRow::from(process))
    }

    /// Adds events, and how many could not be taken before them.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn batch(&mut self, batch: &Batch, dropped: u64) -> io::Result<()> {
        self.summary.events += batch.events.len() as u64;
        self.summary.dropped += dropped;
        self.entry(entry_kind::BATCH, &BatchRow::new(batch, dropped))
    }

    /// Adds totals.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn tick(&mut self, tick: &Tick) -> io::Result<()> {
        self.summary.ticks += 1;
        self.entry(entry_kind::TICK, &TickRow::from(tick))
    }

    /// Adds a death.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn death(&mut self, record: &DeathRecord) -> io::Result<()> {
        self.summary.deaths += 1;
        let record = serde_json::to_string(record)?;
        self.entry(entry_kind::DEATH, &DeathRow { record })
    }

    /// Ends the recording, so that a reader knows that nothing is missing.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn end(mut self, time: UnixNanos, dropped: u64) -> io::Result<(W, Summary)> {
        self.summary.dropped += dropped;
        self.entry(entry_kind::END, &EndRow { time: time.0, dropped })?;
        self.flush()?;
        Ok((self.to, self.summary))
    }

    /// Writes what there is, so that a killed process loses no more than what comes.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let stored = zstd::bulk::compress(&self.block, COMPRESSION_LEVEL)?;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(io::Error::other);
        let mut whole = Vec::with_capacity(super::format::BLOCK_HEADER_BYTES + stored.len());
        whole.extend(length(&stored)?.to_le_bytes());
        whole.extend(length(&self.block)?.to_le_bytes());
        whole.extend(crc32fast::hash(&stored).to_le_bytes());
        whole.extend(&stored);
        // One call, so that a block is there whole or in part and never in pieces between others.
        self.to.write_all(&whole)?;
        self.to.flush()?;
        self.summary.bytes += whole.len() as u64;
        self.block.clear();
        Ok(())
    }

    /// Bytes that were written so far.
    pub fn bytes_so_far(&self) -> u64 {
        self.summary.bytes
    }

    fn entry(&mut self, kind: u8, value: &impl Serialize) -> io::Result<()> {
        let start = self.block.len();
        self.block.push(kind);
        self.block.extend([0; ENTRY_HEADER_BYTES - 1]);
        let block = std::mem::take(&mut self.block);
        self.block = postcard::to_extend(value, block).map_err(io::Error::other)?;
        let length = self.block.len() - start - ENTRY_HEADER_BYTES;
        let length = u32::try_from(length).map_err(io::Error::other)?;
        self.block[start + 1..start + ENTRY_HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
        if self.block.len() >= BLOCK_BYTES { self.flush() } else { Ok(()) }
    }
}

//! The rings, and waiting for them: those of the capture thread, and that of deaths.
//!
//! A program that writes a file record does not wake anybody, so the file ring is looked at in time. It
//! is waited for by edges: by level, a ring that holds anything would end every wait at once.

use std::os::fd::AsFd as _;
use std::time::Duration;

use aya::maps::{MapData, PerCpuArray, RingBuf};
use rustix::event::Timespec;
use rustix::event::epoll;
use whodunit_ebpf::machine_counter;

/// The ring of deaths: read by a thread of its own, so that nothing else that happens can delay a death.
pub struct DeathRing {
    ring: RingBuf<MapData>,
    /// The machine-wide counters, among them that of the records that found the ring full.
    machine: PerCpuArray<MapData, u64>,
    epoll: rustix::fd::OwnedFd,
}

impl DeathRing {
    pub(crate) fn open(
        ring: RingBuf<MapData>,
        machine: PerCpuArray<MapData, u64>,
    ) -> std::io::Result<DeathRing> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, ring.as_fd(), epoll::EventData::new_u64(0), edges)?;
        Ok(DeathRing { ring, machine, epoll })
    }

    /// Waits until a death, a signal or an OOM kill was recorded, or until the time is over.
    pub fn wait(&mut self, at_most: Duration) {
        wait(&self.epoll, at_most);
    }

    /// How many records found the ring full so far.
    pub fn lost(&self) -> u64 {
        let lost = self.machine.get(&machine_counter::DEATHS_LOST, 0);
        lost.map_or(0, |values| values.iter().copied().sum())
    }

    /// Takes every record that waits.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) {
        while let Some(record) = self.ring.next() {
            each(&record);
        }
    }
}

/// The rings of the capture thread.
pub(crate) struct Rings {
    files: RingBuf<MapData>,
    lifecycle: RingBuf<MapData>,
    epoll: rustix::fd::OwnedFd,
}

impl Rings {
    pub(crate) fn open(
        files: RingBuf<MapData>,
        lifecycle: RingBuf<MapData>,
    ) -> std::io::Result<Rings> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, files.as_fd(), epoll::EventData::new_u64(0), edges)?;
        epoll::add(&epoll, lifecycle.as_fd(), epoll::EventData::new_u64(1), edges)?;
        Ok(Rings { files, lifecycle, epoll })
    }

    pub(crate) fn wait(&mut self, at_most: Duration) {
        wait(&self.epoll, at_most);
    }

    pub(crate) fn drain_lifecycle(&mut self, mut each: impl FnMut(&[u8])) {
        while let Some(record) = self.lifecycle.next() {
            each(&record);
        }
    }

    pub(crate) fn drain_files(&mut self, at_most: usize, mut each: impl FnMut(&[u8])) -> usize {
        let mut drained = 0;
        while drained < at_most {
            let Some(record) = self.files.next() else { break };
            each(&record);
            drained += 1;
        }
        drained
    }
}

fn wait(epoll: &rustix::fd::OwnedFd, at_most: Duration) {
    let mut events: [epoll::Event; 2] = std::array::from_fn(|_| epoll::Event {
        flags: epoll::EventFlags::empty(),
        data: epoll::EventData::new_u64(0),
    });
    let timeout =
        Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: i64::from(at_most.subsec_nanos()) };
    // An interrupted wait is a short one; which ring woke us does not matter, all of them are drained.
    let _ = epoll::wait(epoll, &mut events[..], Some(&timeout));
}

//! The thread of deaths: reads its ring, joins, and hands finished records on.
//!
//! A thread of its own with a queue of its own: neither a flood of files nor a slow plugin delays or sheds a death. What
//! takes the records must not block for long; the ring holds a few thousand of them meanwhile.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::feed::Feed;
use super::join::{Frame, Joiner, Moment};
use super::record::DeathRecord;
use crate::directory::Directory;
use crate::discovery::root::CgroupRoot;
use crate::kernel::{DeathRing, ProbeStatus, boot_time_ns, real_time_ns};

/// How often every container's cgroup is listened to.
const LISTEN_EVERY: Duration = Duration::from_secs(5);
/// How long to wait where a death waits for something.
const HOLDING_WAIT: Duration = Duration::from_millis(5);
/// How long to wait at most where somebody wants the events of forks and programs, which wake nobody.
const FEEDING_WAIT: Duration = Duration::from_millis(20);
/// How long to wait at most: forks, programs, and ends of programs that succeeded inside a container wake nobody.
const IDLE_WAIT: Duration = Duration::from_millis(250);

/// What was seen of deaths and did not become a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeathLosses {
    /// Records that the ring had no room for.
    pub ring_full: u64,
    /// Deaths whose container never became known.
    pub unattributed: u64,
    /// Records that made no sense.
    pub undecodable: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    deaths: AtomicU64,
    ring_full: AtomicU64,
    unattributed: AtomicU64,
    undecodable: AtomicU64,
}

/// How the thread of deaths is doing, for whoever reports it.
#[derive(Clone)]
pub struct DeathCounts(Arc<Shared>);

impl DeathCounts {
    /// How many records were handed on.
    pub fn deaths(&self) -> u64 {
        self.0.deaths.load(Ordering::Relaxed)
    }

    /// What did not become one.
    pub fn losses(&self) -> DeathLosses {
        DeathLosses {
            ring_full: self.0.ring_full.load(Ordering::Relaxed),
            unattributed: self.0.unattributed.load(Ordering::Relaxed),
            undecodable: self.0.undecodable.load(Ordering::Relaxed),
        }
    }
}

/// The running thread.
pub struct DeathWatch {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl DeathWatch {
    /// Begins to read the ring. `deliver` gets every death, on the thread of deaths, and `feed` what happens to processes.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn start(
        ring: DeathRing,
        probes: &[ProbeStatus],
        directory: Arc<Directory>,
        root: CgroupRoot,
        feed: Arc<Feed>,
        deliver: impl FnMut(DeathRecord) + Send + 'static,
    ) -> std::io::Result<DeathWatch> {
        let live = |name: &str| probes.iter().any(|probe| probe.name == name && probe.live());
        let frame = Frame {
            started_ns: boot_time_ns(),
            signals_watched: live("signal"),
            oom_watched: live("oom"),
            page_bytes: rustix::param::page_size() as u64,
        };
        let shared = Arc::new(Shared::default());
        let mut watch = Watch {
            ring,
            joiner: Joiner::new(frame, directory, root, Arc::clone(&feed)),
            feed,
            deliver,
            shared: Arc::clone(&shared),
            epoch: None,
        };
        // Who lives in the containers that are there is read before anything happens to them.
        watch.joiner.listen(moment(&watch.ring, &mut watch.epoch));
        let thread =
            std::thread::Builder::new().name("deaths".to_owned()).spawn(move || watch.run())?;
        Ok(DeathWatch { shared, thread })
    }

    /// How it is doing.
    pub fn counts(&self) -> DeathCounts {
        DeathCounts(Arc::clone(&self.shared))
    }

    /// Hands on what is in the ring and ends. To be called when the programs are off their hooks.
    pub fn stop(self) {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the thread of deaths ended early; its last message says why");
        }
    }
}

struct Watch<D> {
    ring: DeathRing,
    joiner: Joiner,
    feed: Arc<Feed>,
    deliver: D,
    shared: Arc<Shared>,
    epoch: Option<NonZeroU64>,
}

impl<D: FnMut(DeathRecord)> Watch<D> {
    fn run(mut self) {
        let mut next_listening = Instant::now() + LISTEN_EVERY;
        loop {
            let stop = self.shared.stop.load(Ordering::Acquire);
            let until = next_listening.saturating_duration_since(Instant::now());
            let at_most = if self.joiner.is_holding() {
                HOLDING_WAIT
            } else if self.feed.wants_any() {
                FEEDING_WAIT
            } else {
                IDLE_WAIT
            };
            if !stop {
                self.ring.wait(at_most.min(until));
            }
            let now = moment(&self.ring, &mut self.epoch);
            let joiner = &mut self.joiner;
            self.ring.drain(|record| joiner.take(record, now));
            let now = moment(&self.ring, &mut self.epoch);
            let deaths = self.joiner.due(now, stop);
            let (unattributed, undecodable) = self.joiner.losses();
            self.shared.deaths.fetch_add(deaths.len() as u64, Ordering::Relaxed);
            self.shared.ring_full.store(now.lost, Ordering::Relaxed);
            self.shared.unattributed.store(unattributed, Ordering::Relaxed);
            self.shared.undecodable.store(undecodable, Ordering::Relaxed);
            deaths.into_iter().for_each(&mut self.deliver);
            if stop {
                return;
            }
            if Instant::now() >= next_listening {
                next_listening = Instant::now() + LISTEN_EVERY;
                self.joiner.listen(now);
            }
        }
    }
}

fn moment(ring: &DeathRing, epoch: &mut Option<NonZeroU64>) -> Moment {
    let boot_ns = boot_time_ns();
    let epoch_ns = real_time_ns().saturating_sub(boot_ns);
    // Two clocks read one after the other: small differences would let one moment have two times.
    const STEP_NS: u64 = 1_000_000;
    let kept = match *epoch {
        Some(kept) if kept.get().abs_diff(epoch_ns) < STEP_NS => kept.get(),
        _ => epoch_ns,
    };
    *epoch = NonZeroU64::new(kept);
    Moment { boot_ns, epoch_ns: kept, lost: ring.lost() }
}

//! The capture thread: from the rings to dispatch.
//!
//! Owns the kernel room, discovery and the pipeline, all on one thread, so that an event meets no lock.
//! Takes commands, gives batches and ticks to the resolving stage. Never waits for anybody but the kernel.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use crate::attribute::WaitingRoom;
use crate::config::{self, Alone};
use crate::death::feed::{Feed, ProcessEvent};
use crate::decode::{Observation, decode};
use crate::discovery::{CgroupMade, Change, Discovery, DiscoveryError, Owner};
use crate::dispatch::Dispatcher;
use crate::event::{CgroupId, ContainerId, ContainerTotals, Counter, Tick, TickCause, UnixNanos};
use crate::kernel::gate::Gate as _;
use crate::kernel::{Kernel, KernelCounters, boot_time_ns, real_time_ns};
use crate::pipeline::Pipeline;
use crate::resolve::stage::Stage;
use crate::status::{Board, PUBLISH_EVERY, Standstill};

/// The shortest time between two looks at the rings, while events flow. A wakeup for each event would
/// cost more than the event; in this time the fastest producer fills a small part of the ring.
const BUSY_WAIT: Duration = Duration::from_millis(1);
/// The longest time between two looks at the rings. A ring that fills up wakes the thread earlier, and
/// so does a cgroup.
const IDLE_WAIT: Duration = Duration::from_millis(50);
/// File records taken at once, before cgroups are looked at again.
const FILES_AT_ONCE: usize = 4096;
/// How often the kernel programs are told that nobody is in setup.
const SETTLE_EVERY: Duration = Duration::from_millis(100);
/// How often the tree is read at most, for records whose cgroup is not known.
const REPAIR_EVERY: Duration = Duration::from_millis(200);
/// How long the event of a process waits for its container to become known.
const UNSETTLED_NS: u64 = 10_000_000_000;
/// How often the dedup is restarted at most, for plugins that lost events.
const FORGET_EVERY: Duration = Duration::from_secs(5);

/// What the capture thread can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Hand out totals.
    Tick(TickCause),
    /// Let go of a container that is not wanted.
    LeaveOut(ContainerId),
    /// Take the programs off their hooks, hand out what is left and the last totals, and end.
    Stop,
}

/// The state of the capture thread.
pub struct Capture {
    kernel: Kernel,
    discovery: Discovery,
    pipeline: Pipeline,
    dispatcher: Dispatcher,
    stage: Stage,
    waiting: WaitingRoom,
    /// Where the thread of deaths puts what happens to processes, and what of it has no owner yet.
    feed: Arc<Feed>,
    unsettled: VecDeque<ProcessEvent>,
    /// Events of processes whose cgroup never became known.
    unsettled_lost: u64,
    rescan: Duration,
    /// Whether nobody needs to be there but the daemon.
    may_be_alone: bool,
    next_scan: Instant,
    next_repair: Instant,
    next_settle: Instant,
    next_forget: Instant,
    /// Where totals are pinned for whoever asks.
    board: Arc<Board>,
    next_publish: Instant,
    /// Cgroups that were removed, whose last records may still be in the ring.
    departing: Vec<CgroupId>,
    /// Last totals of the containers that ended since the last tick.
    ended: Vec<ContainerTotals>,
    undecodable: u64,
    scan_failing: bool,
}

impl Capture {
    /// Finds what is in scope and begins to trace it.
    ///
    /// # Errors
    ///
    /// If the hierarchy cannot be read, or if there is nothing to watch where there must be something.
    pub fn new(
        mut kernel: Kernel,
        mut discovery: Discovery,
        pipeline: Pipeline,
        dispatcher: Dispatcher,
        stage: Stage,
        config: &config::Discovery,
        board: Arc<Board>,
    ) -> Result<Capture, DiscoveryError> {
        let now = UnixNanos(real_time_ns());
        let changes = discovery.scan(&mut kernel, now)?;
        let begin = Instant::now();
        let mut capture = Capture {
            kernel,
            discovery,
            pipeline,
            dispatcher,
            stage,
            waiting: WaitingRoom::default(),
            feed: Arc::default(),
            unsettled: VecDeque::new(),
            unsettled_lost: 0,
            rescan: config.rescan,
            may_be_alone: config.alone == Alone::Wait,
            next_scan: begin + config.rescan,
            next_repair: begin,
            next_settle: begin,
            next_forget: begin,
            board,
            next_publish: begin,
            departing: Vec::new(),
            ended: Vec::new(),
            undecodable: 0,
            scan_failing: false,
        };
        capture.apply(changes, now);
        Ok(capture)
    }

    /// Lets go of a container that is not wanted: plugins are told that it ended.
    pub fn leave_out(&mut self, container: ContainerId) {
        let now = UnixNanos(real_time_ns());
        let counters = self.counters_of(container);
        if self.discovery.leave_out(container, &mut self.kernel, now) {
            self.ended.extend(self.pipeline.ended(container, counters, now));
        }
    }

    /// Whether nothing is watched where there must be something.
    ///
    /// # Errors
    ///
    /// If so.
    pub fn check_company(&self) -> Result<(), DiscoveryError> {
        match self.discovery.check_company() {
            Err(DiscoveryError::OnlyUs) if self.may_be_alone => {
                tracing::info!("nobody else is in the pod yet");
                Ok(())
            }
            company => company,
        }
    }

    /// What the kernel counted of a container, but for its cgroups that are gone.
    fn counters_of(&self, container: ContainerId) -> KernelCounters {
        let mut sum = KernelCounters::default();
        for cgroup in self.discovery.cgroups_of(container) {
            sum.add(&self.kernel.counters(*cgroup));
        }
        sum
    }

    /// Says where events of processes come from, and which of them are wanted.
    pub fn feed_from(&mut self, feed: Arc<Feed>) {
        feed.want(self.dispatcher.wanted_of_processes());
        self.feed = feed;
    }

    /// How many containers are watched.
    pub fn containers(&self) -> usize {
        self.pipeline.containers().count()
    }

    /// Runs until it is told to stop, or until nobody can tell it anything any more.
    pub fn run(mut self, commands: &Receiver<Command>) {
        let mut wait = BUSY_WAIT;
        let mut standstill = Standstill::of_this_thread();
        loop {
            self.kernel.wait(wait);
            // The look costs about as much as a turn in which nothing happens.
            if wait < IDLE_WAIT {
                standstill.begin();
            }
            let events = self.turn();
            self.publish_if_wanted();
            wait = if events > 0 { BUSY_WAIT } else { (wait * 2).min(IDLE_WAIT) };
            match commands.try_recv() {
                Ok(Command::Tick(cause)) => self.tick(cause),
                Ok(Command::LeaveOut(container)) => self.leave_out(container),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {}
            }
            standstill.end().into_iter().for_each(|time| self.board.stood_still(time));
        }
        self.kernel.detach();
        self.turn();
        self.tick(TickCause::Stop);
        self.stage.finish();
    }

    /// One look at everything. Returns how many file records there were.
    fn turn(&mut self) -> usize {
        if self.dispatcher.has_filters() {
            self.pipeline.leave_repeats_to_filters();
        }
        let mut drained = 0;
        // Bounded, so that a flood of files cannot keep commands waiting.
        for _ in 0..16 {
            // On a slow machine a whole ring takes long, and is no sign of being stuck.
            self.board.pulse().turn();
            self.cgroups();
            let files = self.files();
            self.let_in();
            self.processes();
            self.depart();
            drained += files;
            if files < FILES_AT_ONCE {
                break;
            }
        }
        self.flush();
        self.now_and_then();
        drained
    }

    fn cgroups(&mut self) {
        let mut made: Vec<(CgroupId, CgroupId, Box<[u8]>)> = Vec::new();
        self.kernel.drain_lifecycle(|record| match decode(record) {
            Ok(Observation::CgroupMade { cgroup, parent, path }) => {
                made.push((cgroup, parent, path.into()));
            }
            Ok(Observation::CgroupGone { cgroup }) => self.departing.push(cgroup),
            Ok(Observation::File(_)) | Err(_) => self.undecodable += 1,
        });
        let now = UnixNanos(real_time_ns());
        for (id, parent, path) in made {
            let made = CgroupMade { id, parent, path: &path };
            let changes = self.discovery.made(&made, &mut self.kernel, now);
            self.apply(changes, now);
        }
        if self.discovery.scan_due() {
            self.scan(now);
        }
    }

    fn scan(&mut self, now: UnixNanos) {
        self.next_scan = Instant::now() + self.rescan;
        match self.discovery.scan(&mut self.kernel, now) {
            Ok(changes) => {
                self.scan_failing = false;
                self.apply(changes, now);
            }
            // Once, and not every time: what is known stays known meanwhile.
            Err(error) if !self.scan_failing => {
                self.scan_failing = true;
                tracing::error!(%error, "the cgroup hierarchy cannot be read");
            }
            Err(_) => {}
        }
    }

    fn files(&mut self) -> usize {
        let Capture { kernel, discovery, pipeline, stage, waiting, undecodable, .. } = self;
        let now = Instant::now();
        let epoch_ns = boot_epoch_ns();
        kernel.drain_files(FILES_AT_ONCE, |record| {
            let Ok(Observation::File(access)) = decode(record) else {
                *undecodable += 1;
                return;
            };
            match discovery.owner(access.cgroup) {
                Owner::Container(container) => {
                    let time = UnixNanos(epoch_ns + access.time_ns);
                    pipeline.file(container, &access, time);
                    if pipeline.batch_is_full() {
                        pipeline.take_batch().into_iter().for_each(|batch| stage.batch(batch));
                    }
                }
                Owner::Ignored => {}
                Owner::Unknown => waiting.enter(access.cgroup, record, now),
            }
        })
    }

    /// Lets in what waited for its cgroup.
    fn let_in(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let epoch_ns = boot_epoch_ns();
        let discovery = &self.discovery;
        let known = |cgroup| discovery.owner(cgroup) != Owner::Unknown;
        for record in self.waiting.leave(Instant::now(), known) {
            if let Ok(Observation::File(access)) = decode(&record)
                && let Owner::Container(container) = self.discovery.owner(access.cgroup)
            {
                self.pipeline.file(container, &access, UnixNanos(epoch_ns + access.time_ns));
            }
        }
        if !self.waiting.is_empty() && Instant::now() >= self.next_repair {
            // Its cgroup's record was lost, or is late: the tree itself knows.
            self.next_repair = Instant::now() + REPAIR_EVERY;
            self.scan(UnixNanos(real_time_ns()));
        }
    }

    /// Admits what the thread of deaths saw of processes.
    fn processes(&mut self) {
        let mut events = std::mem::take(&mut self.unsettled);
        events.extend(self.feed.take());
        if events.is_empty() {
            return;
        }
        let (epoch_ns, now_ns) = (boot_epoch_ns(), boot_time_ns());
        for event in events {
            let container = match self.discovery.owner(event.cgroup) {
                Owner::Container(container) => container,
                Owner::Ignored => continue,
                Owner::Unknown if now_ns.saturating_sub(event.time_ns) < UNSETTLED_NS => {
                    self.unsettled.push_back(event);
                    continue;
                }
                Owner::Unknown => {
                    self.unsettled_lost += 1;
                    continue;
                }
            };
            let actor = event.actor.and_then(|actor| match self.discovery.owner(actor.cgroup) {
                Owner::Container(container) => Some(container),
                Owner::Ignored | Owner::Unknown => None,
            });
            let time = UnixNanos(epoch_ns + event.time_ns);
            self.pipeline.process(container, &event, actor, time);
            if self.pipeline.batch_is_full() {
                self.flush();
            }
        }
    }

    /// Ends the removed cgroups. Their last records were in the ring before the record of their
    /// removal, so by now they have passed.
    fn depart(&mut self) {
        let now = UnixNanos(real_time_ns());
        for cgroup in std::mem::take(&mut self.departing) {
            let changes = self.discovery.gone(cgroup, now);
            self.apply(changes, now);
            self.kernel.untrace(cgroup);
            self.kernel.unwatch(cgroup);
        }
    }

    fn apply(&mut self, changes: Vec<Change>, now: UnixNanos) {
        for change in changes {
            match change {
                Change::Started(container) => {
                    self.pipeline.started(container, now);
                    self.say(container, "container found");
                }
                Change::Ended(container) => {
                    self.say(container, "container ended");
                    let own = self.discovery.cgroups_of(container).first().copied();
                    let counters =
                        own.map_or_else(KernelCounters::default, |own| self.kernel.counters(own));
                    self.ended.extend(self.pipeline.ended(container, counters, now));
                    own.into_iter().for_each(|own| self.kernel.untrace(own));
                }
                Change::Nested(..) => {}
                Change::NestedGone(cgroup, container) => {
                    let counters = self.kernel.counters(cgroup);
                    self.pipeline.retire(container, &counters);
                    self.kernel.untrace(cgroup);
                }
            }
        }
    }

    fn say(&self, container: ContainerId, what: &'static str) {
        if let Some(known) = self.pipeline.known(container) {
            tracing::info!(
                container = known.name,
                cgroup_id = known.cgroup.0,
                cgroup_path = %String::from_utf8_lossy(&known.cgroup_path),
                runtime = known.runtime,
                "{what}"
            );
        }
    }

    fn flush(&mut self) {
        self.pipeline.take_batch().into_iter().for_each(|batch| self.stage.batch(batch));
    }

    fn now_and_then(&mut self) {
        let now = Instant::now();
        if now >= self.next_settle {
            self.next_settle = now + SETTLE_EVERY;
            self.kernel.settle();
            self.feed.want(self.dispatcher.wanted_of_processes());
        }
        if now >= self.next_scan {
            self.scan(UnixNanos(real_time_ns()));
        }
        if now >= self.next_forget && self.dispatcher.lost_since() > 0 {
            // A plugin lost events that would never come again: let each be news once more.
            self.next_forget = now + FORGET_EVERY;
            self.kernel.forget_repeats();
            self.pipeline.forget_repeats();
            self.stage.forget_told();
            self.dispatcher.forget_repeats();
        }
    }

    /// Hands out the totals.
    fn tick(&mut self, cause: TickCause) {
        let mut tick = self.totals(cause);
        tick.containers.append(&mut self.ended);
        tick.containers.sort_by_key(|totals| totals.container);
        let tick = Arc::new(tick);
        self.pin(&tick);
        self.stage.tick(tick);
    }

    /// Pins totals for whoever asked, at most once a second.
    fn publish_if_wanted(&mut self) {
        if self.board.is_wanted() && Instant::now() >= self.next_publish {
            let tick = Arc::new(self.totals(TickCause::Request));
            self.pin(&tick);
        }
    }

    fn pin(&mut self, tick: &Arc<Tick>) {
        self.next_publish = Instant::now() + PUBLISH_EVERY;
        self.board.publish(Arc::clone(tick));
    }

    /// The totals of every watched container. What they count was handed out before: the counters are
    /// read first, and whatever they count is in the rings by then.
    fn totals(&mut self, cause: TickCause) -> Tick {
        let counters: Vec<(ContainerId, KernelCounters)> = self
            .pipeline
            .containers()
            .map(|container| (container, self.counters_of(container)))
            .collect();
        let machine = self.kernel.machine_counters();
        self.turn();
        let now = UnixNanos(real_time_ns());
        // One that ended in this turn is among the ended already.
        let totals = |(container, counters)| self.pipeline.totals(container, counters, now);
        let mut containers: Vec<ContainerTotals> =
            counters.into_iter().filter_map(totals).collect();
        containers.sort_by_key(|totals| totals.container);
        let daemon = [
            ("lost.unattributed", self.waiting.unattributed()),
            ("lost.undecodable", self.undecodable),
            ("lost.cgroup-records", machine.lifecycle_lost),
            ("untraced.cgroups-full", machine.cgroups_full),
            ("setup.untracked", machine.entering_full),
            ("lost.deaths", machine.deaths_lost),
            ("lost.interrupted", machine.interrupted),
            ("lost.process-events", self.feed.lost() + self.unsettled_lost),
        ];
        let counters = daemon
            .into_iter()
            .filter(|(_, value)| *value != 0)
            .map(|(name, value)| Counter { name, value })
            .collect();
        Tick { time: now, cause, containers, counters }
    }
}

/// The moment of boot, in nanoseconds since the Unix epoch, as the clocks stand now.
fn boot_epoch_ns() -> u64 {
    real_time_ns().saturating_sub(boot_time_ns())
}

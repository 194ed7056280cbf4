//! The thread that resolves, between capture and dispatch.
//!
//! Takes batches and ticks in their order from capture, which never waits for it, and hands them to the
//! dispatcher in the same order. Two things may go wrong, and neither stops events:
//!
//! - It falls behind: then batches go on as they are, without being resolved, until it has caught up.
//! - A walk does not return, since a file system does not answer: then whoever comes next hands out
//!   everything that waits, and the thread is left behind. From then on nothing is resolved, which the log
//!   says.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Resolver;
use crate::dispatch::Dispatcher;
use crate::event::{Batch, Counter, Tick};

/// So many batches at most wait to be resolved. One that comes when there are more goes on as it is.
const BACKLOG: usize = 64;
/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end waits for the thread.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// Who looks.
trait Resolve: Send {
    /// Resolves the events of a batch. None where nothing came of it.
    fn resolve(&mut self, batch: &Batch) -> Option<Batch>;
    /// Makes everything that was told before news once more.
    fn forget_told(&mut self);
    /// Lets go of what nobody used for a while.
    fn forget_idle(&mut self);
}

impl Resolve for Resolver {
    fn resolve(&mut self, batch: &Batch) -> Option<Batch> {
        Resolver::resolve(self, batch)
    }

    fn forget_told(&mut self) {
        Resolver::forget_told(self);
    }

    fn forget_idle(&mut self) {
        Resolver::forget_idle(self);
    }
}

/// Who gets what comes out.
pub trait Next: Send {
    /// Takes a batch.
    fn batch(&mut self, batch: Arc<Batch>);
    /// Takes a tick.
    fn tick(&mut self, tick: Arc<Tick>);
}

impl Next for Dispatcher {
    fn batch(&mut self, batch: Arc<Batch>) {
        Dispatcher::batch(self, batch);
    }

    fn tick(&mut self, tick: Arc<Tick>) {
        Dispatcher::tick(self, tick);
    }
}

/// The way from capture to dispatch.
pub struct Stage {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// Held for a moment only, because capture comes here.
    line: Mutex<Line>,
    /// Locked after `line`, and while something is handed out. Capture waits for that only where nobody
    /// resolves any more.
    exit: Mutex<Exit>,
    /// Something came, or the end.
    came: Condvar,
    /// Everything that came went on.
    empty: Condvar,
    /// A look that takes longer will not come back.
    patience: Duration,
}

struct Line {
    /// The first one stays while it is resolved, so that it is not lost with the thread.
    waiting: VecDeque<Item>,
    /// Since when the first one is being resolved.
    working_since: Option<Instant>,
    /// Nobody resolves any more: everything goes on as it is.
    abandoned: bool,
    ended: bool,
    forget: bool,
    /// Events that went on without being looked at.
    skipped: u64,
}

/// Where everything goes on.
struct Exit {
    next: Box<dyn Next>,
    /// How many events were put into the stream so far, less those that were taken out.
    added: i64,
}

#[derive(Clone)]
enum Item {
    /// Events, and whether they are to be resolved.
    Batch(Arc<Batch>, bool),
    Tick(Arc<Tick>),
}

impl Stage {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub fn start(resolver: Resolver, next: impl Next + 'static) -> std::io::Result<Stage> {
        Stage::start_with(resolver, next, PATIENCE)
    }

    fn start_with(
        resolver: impl Resolve + 'static,
        next: impl Next + 'static,
        patience: Duration,
    ) -> std::io::Result<Stage> {
        let shared = Arc::new(Shared {
            line: Mutex::new(Line {
                waiting: VecDeque::new(),
                working_since: None,
                abandoned: false,
                ended: false,
                forget: false,
                skipped: 0,
            }),
            exit: Mutex::new(Exit { next: Box::new(next), added: 0 }),
            came: Condvar::new(),
            empty: Condvar::new(),
            patience,
        });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("resolve".to_owned())
            .spawn(move || of_thread.work(resolver))?;
        Ok(Stage { shared, thread: Some(thread) })
    }

    /// Takes a batch. Never waits.
    pub fn batch(&self, batch: Arc<Batch>) {
        if batch.is_empty() {
            return;
        }
        let mut line = self.shared.lock();
        let resolved = line.waiting.len() < BACKLOG;
        if !resolved {
            line.skipped += batch.events.len() as u64;
        }
        self.take(line, Item::Batch(batch, resolved));
    }

    /// Takes a tick. Never waits.
    pub fn tick(&self, tick: Arc<Tick>) {
        self.take(self.shared.lock(), Item::Tick(tick));
    }

    /// Makes what was found and told before news once more.
    pub fn forget_told(&self) {
        self.shared.lock().forget = true;
    }

    fn take(&self, mut line: MutexGuard<'_, Line>, item: Item) {
        line.waiting.push_back(item);
        if line.working_since.is_some_and(|since| since.elapsed() > self.shared.patience) {
            line.abandon();
        }
        if line.abandoned {
            self.shared.hand_out_all(&mut line);
        }
        self.shared.came.notify_one();
    }

    /// Waits until everything that came went on, and ends the thread.
    pub fn finish(mut self) {
        let mut line = self.shared.lock();
        line.ended = true;
        self.shared.came.notify_one();
        let deadline = Instant::now() + LAST_PATIENCE;
        while !line.waiting.is_empty() {
            let patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                line.abandon();
                self.shared.hand_out_all(&mut line);
                return;
            }
            let waited = self.shared.empty.wait_timeout(line, patience);
            line = waited.expect("no holder of this lock panics").0;
        }
        let abandoned = line.abandoned;
        drop(line);
        if let Some(thread) = self.thread.take()
            && !abandoned
            && thread.join().is_err()
        {
            tracing::error!("the resolving thread ended early; its last message says why");
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.came.notify_one();
    }
}

impl Line {
    fn abandon(&mut self) {
        if !self.abandoned {
            self.abandoned = true;
            tracing::error!(
                "a look at a container's files does not return; from now on paths stay unresolved \
                 until the daemon is started again"
            );
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().expect("no holder of this lock panics")
    }

    /// The life of the thread.
    fn work(&self, mut resolver: impl Resolve) {
        let mut line = self.lock();
        loop {
            if line.abandoned {
                return;
            }
            if std::mem::take(&mut line.forget) {
                drop(line);
                resolver.forget_told();
                line = self.lock();
                continue;
            }
            let Some(item) = line.waiting.front().cloned() else {
                self.empty.notify_all();
                if line.ended {
                    return;
                }
                line = self.came.wait(line).expect("no holder of this lock panics");
                continue;
            };
            let better = match &item {
                Item::Batch(batch, true) => {
                    line.working_since = Some(Instant::now());
                    drop(line);
                    let better = resolver.resolve(batch);
                    line = self.lock();
                    line.working_since = None;
                    if line.abandoned {
                        // Somebody else has handed it out meanwhile.
                        return;
                    }
                    better
                }
                Item::Batch(_, false) | Item::Tick(_) => None,
            };
            line.waiting.pop_front();
            let skipped = line.skipped;
            // From the line to the exit without a gap, so that nobody overtakes.
            let mut exit = self.exit();
            drop(line);
            if matches!(item, Item::Tick(_)) {
                resolver.forget_idle();
            }
            exit.hand_out(item, better, skipped);
            drop(exit);
            line = self.lock();
        }
    }

    fn exit(&self) -> MutexGuard<'_, Exit> {
        self.exit.lock().expect("no holder of this lock panics")
    }

    fn hand_out_all(&self, line: &mut Line) {
        let mut exit = self.exit();
        while let Some(item) = line.waiting.pop_front() {
            if let Item::Batch(batch, true) = &item {
                line.skipped += batch.events.len() as u64;
            }
            exit.hand_out(item, None, line.skipped);
        }
        self.empty.notify_all();
    }
}

impl Exit {
    /// Hands an item on, and with a tick how many events went on without being looked at. The place of its
    /// events in the stream is that after all that came before.
    fn hand_out(&mut self, item: Item, better: Option<Batch>, skipped: u64) {
        match item {
            Item::Batch(batch, _) => {
                let first = batch.events.first().map_or(0, |event| event.sequence);
                let came = batch.events.len() as i64;
                let batch = match better {
                    Some(better) => Arc::new(better),
                    None => batch,
                };
                let batch = self.numbered(batch, first, came);
                self.next.batch(batch);
            }
            Item::Tick(mut tick) => {
                if skipped > 0 {
                    let counter = Counter { name: "unresolved.busy", value: skipped };
                    Arc::make_mut(&mut tick).counters.push(counter);
                }
                self.next.tick(tick);
            }
        }
    }

    /// Numbers the events of a batch that began at `first` and had `came` events before it was resolved.
    fn numbered(&mut self, batch: Arc<Batch>, first: u64, came: i64) -> Arc<Batch> {
        let start = first.saturating_add_signed(self.added);
        let right = batch.events.iter().zip(start..).all(|(event, place)| event.sequence == place);
        self.added += batch.events.len() as i64 - came;
        // Taking an event out may not make two of the same number: the stream only has gaps then.
        self.added = self.added.max(0);
        if right {
            return batch;
        }
        let mut batch = Arc::unwrap_or_clone(batch);
        for (event, place) in batch.events.iter_mut().zip(start..) {
            event.sequence = place;
        }
        Arc::new(batch)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::event::{ContainerId, Event, TickCause, UnixNanos};

    /// What came out: the sequence numbers of a batch, or the counters of a tick.
    #[derive(Debug, PartialEq, Eq)]
    enum Out {
        Batch(Vec<u64>),
        Tick(Vec<(&'static str, u64)>),
    }

    struct Tape(Sender<Out>);

    impl Next for Tape {
        fn batch(&mut self, batch: Arc<Batch>) {
            let numbers = batch.events.iter().map(|event| event.sequence).collect();
            self.0.send(Out::Batch(numbers)).unwrap();
        }

        fn tick(&mut self, tick: Arc<Tick>) {
            let counters = tick.counters.iter().map(|counter| (counter.name, counter.value));
            self.0.send(Out::Tick(counters.collect())).unwrap();
        }
    }

    /// Does what each batch tells it by its first event's inode: as many events more, or fewer.
    struct Scripted {
        script: Vec<i64>,
        gate: Option<Receiver<()>>,
    }

    impl Resolve for Scripted {
        fn resolve(&mut self, batch: &Batch) -> Option<Batch> {
            if let Some(gate) = &self.gate {
                let _ = gate.recv();
            }
            let change = if self.script.is_empty() { 0 } else { self.script.remove(0) };
            let events = (batch.events.len() as i64 + change) as usize;
            let last = *batch.events.last()?;
            let mut better = batch.clone();
            better.events.resize(events, last);
            (change != 0).then_some(better)
        }

        fn forget_told(&mut self) {}

        fn forget_idle(&mut self) {}
    }

    fn event(sequence: u64) -> Event {
        Event::plain(sequence, ContainerId(1))
    }

    fn batch(numbers: std::ops::RangeInclusive<u64>) -> Arc<Batch> {
        Arc::new(Batch { events: numbers.map(event).collect(), ..Batch::default() })
    }

    fn tick() -> Arc<Tick> {
        Arc::new(Tick {
            time: UnixNanos(1),
            cause: TickCause::Interval,
            containers: Vec::new(),
            counters: Vec::new(),
        })
    }

    #[test]
    fn everything_comes_out_in_its_order_and_numbers_go_on_after_what_was_added() {
        let (sender, tape) = channel();
        let resolver = Scripted { script: vec![0, 2, -1, 0], gate: None };
        let stage = Stage::start_with(resolver, Tape(sender), PATIENCE).unwrap();
        stage.batch(batch(1..=2));
        stage.batch(batch(3..=3));
        stage.tick(tick());
        stage.batch(batch(4..=5));
        stage.batch(batch(6..=6));
        stage.finish();
        let out: Vec<Out> = tape.try_iter().collect();
        assert_eq!(
            out,
            [
                Out::Batch(vec![1, 2]),
                Out::Batch(vec![3, 4, 5]),
                Out::Tick(vec![]),
                Out::Batch(vec![6]),
                Out::Batch(vec![7]),
            ]
        );
    }

    #[test]
    fn what_comes_while_too_much_waits_goes_on_as_it_is_and_is_counted() {
        let (sender, tape) = channel();
        let (open, gate) = channel();
        let resolver = Scripted { script: vec![1], gate: Some(gate) };
        let stage = Stage::start_with(resolver, Tape(sender), Duration::MAX).unwrap();
        let batches = BACKLOG as u64 + 3;
        for number in 1..=batches {
            stage.batch(batch(number..=number));
        }
        stage.tick(tick());
        drop(open);
        stage.finish();
        let out: Vec<Out> = tape.try_iter().collect();
        assert_eq!(out.len() as u64, batches + 1);
        assert_eq!(out[0], Out::Batch(vec![1, 2]));
        assert_eq!(out[1], Out::Batch(vec![3]));
        assert_eq!(out.last(), Some(&Out::Tick(vec![("unresolved.busy", 3)])));
    }

    #[test]
    fn a_look_that_does_not_return_is_left_behind_and_nothing_is_lost() {
        let (sender, tape) = channel();
        let (open, gate) = channel();
        let resolver = Scripted { script: vec![5], gate: Some(gate) };
        let stage = Stage::start_with(resolver, Tape(sender), Duration::ZERO).unwrap();
        stage.batch(batch(1..=1));
        // Until the thread has taken it up, whoever comes next has nothing to hand out.
        while !stage.shared.lock().abandoned {
            stage.tick(tick());
        }
        stage.batch(batch(2..=2));
        drop(open);
        stage.finish();
        let batches: Vec<Out> =
            tape.try_iter().filter(|out| matches!(out, Out::Batch(_))).collect();
        assert_eq!(batches, [Out::Batch(vec![1]), Out::Batch(vec![2])]);
    }
}

//! Another version of a filter or an explainer, asked what the one that runs is asked, with their answers
//! compared.
//!
//! It has a thread of its own and a queue that is bounded and never waited for. What the plugin was asked goes
//! in with the plugin's answer, once that is there; so nothing waits for the other version, and nothing is done
//! about what it says. The first instance that it loses is its last.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::between::Standing;
use super::instance::{Instance, Loss, Parts, StartCause};
use super::queue::Depth;
use super::shadow::{Compared, Parting, Shadow};
use super::status::{Board, PluginState, PluginStatus};
use super::supervisor::Supervisor;

/// What came of asking two versions the same. A filter is asked about events, an explainer about deaths: those
/// are what is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked<T> {
    /// What both answered.
    pub compared: u64,
    /// What both answered alike.
    pub alike: u64,
    /// What the one that runs was asked and did not answer.
    pub running_silent: u64,
    /// What the one beside it answered with an error, or against the contract.
    pub shadow_silent: u64,
    /// How long the one that runs took for one of what both answered, in nanoseconds, on average.
    pub running_ns: u64,
    /// How long the one beside it took for it.
    pub shadow_ns: u64,
    /// What both answered differently.
    pub different: T,
}

impl<T> Asked<T> {
    /// How many were answered differently.
    pub fn otherwise(&self) -> u64 {
        self.compared - self.alike
    }
}

/// How versions of one role are asked, and how two answers are compared.
pub(super) trait Asker: Sized + Send + 'static {
    /// What a version is asked.
    type Question: Send + 'static;
    /// What it answers.
    type Answer: Send + 'static;
    /// What is kept of answers that differ.
    type Different: Default + Send + 'static;

    /// Asks an instance. `untold` events were dropped before. The inner error is the guest's own.
    fn ask(
        &mut self,
        instance: &mut Instance,
        question: &Self::Question,
        untold: u64,
    ) -> Result<Result<Self::Answer, String>, Loss>;

    /// Keeps where two answers differ. How much of what was asked was answered alike.
    fn compare(
        &self,
        question: &Self::Question,
        running: &Self::Answer,
        shadow: &Self::Answer,
        different: &mut Self::Different,
    ) -> u64;

    /// The place beside a plugin of this role.
    fn beside(standing: Standing<'_>) -> Option<&mut Beside<Self>>;

    /// What came of it, as it is told.
    fn told(asked: Asked<Self::Different>) -> Compared;
}

/// What the one that runs was asked.
pub(super) struct Case<A: Asker> {
    pub(super) question: A::Question,
    /// What it answered. None where it did not.
    pub(super) answer: Option<A::Answer>,
    /// How long it took.
    pub(super) took: Duration,
    /// Of so many events or deaths it is.
    pub(super) weight: u64,
}

/// The place beside a plugin: empty, or with a hand that gives cases to the version there.
pub(super) struct Beside<A: Asker>(Option<Hand<Case<A>>>);

impl<A: Asker> Beside<A> {
    /// Nothing runs beside it.
    pub(super) fn empty() -> Beside<A> {
        Beside(None)
    }

    /// Starts a version there, with the state that the plugin saved last.
    ///
    /// # Errors
    ///
    /// A sentence, where one runs there already or there is no thread for it.
    pub(super) fn begin(
        &mut self,
        supervisor: &Supervisor,
        parts: Parts,
        capacity: u64,
        asker: A,
    ) -> Result<Second<A>, String> {
        if self.0.as_ref().is_some_and(|hand| !hand.0.is_deserted()) {
            return Err("another version runs beside it already".to_owned());
        }
        let takes_state = parts.loaded.exports.state.is_some();
        let saved = if takes_state { supervisor.saved() } else { None };
        let second = Second::spawn(parts, saved, capacity, asker)?;
        self.0 = Some(Hand(Arc::clone(&second.cases)));
        Ok(second)
    }

    /// Ends that. Whether that version was there.
    pub(super) fn end(&mut self, cases: &Arc<Cases<Case<A>>>) -> bool {
        self.0.take_if(|hand| Arc::ptr_eq(&hand.0, cases)).is_some()
    }

    /// There is nothing to compare with any more.
    pub(super) fn leave(&mut self) {
        self.0 = None;
    }

    /// Events were dropped before the plugin: the version beside it is told, too.
    pub(super) fn missed(&self, events: u64) {
        self.0.iter().for_each(|hand| hand.0.missed(events));
    }

    /// Gives it a case, where there is one to give it to.
    pub(super) fn put(&self, case: impl FnOnce() -> Case<A>) {
        if let Some(Hand(cases)) = &self.0 {
            let case = case();
            let weight = case.weight;
            cases.put(case, weight);
        }
    }
}

/// A hand that gives cases. Let go, nothing more comes in, however the plugin ended.
struct Hand<C>(Arc<Cases<C>>);

impl<C> Drop for Hand<C> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What waits for the version beside: bounded, and never blocking for whoever puts in.
pub(super) struct Cases<C> {
    capacity: u64,
    state: Mutex<Waiting<C>>,
    changed: Condvar,
}

struct Waiting<C> {
    /// Each with its weight and what was dropped before it.
    cases: VecDeque<(C, u64, u64)>,
    /// Of all of them.
    weight: u64,
    /// Dropped since the last case that tells of it.
    untold: u64,
    /// What was not taken, in all.
    lost: u64,
    closed: bool,
    /// Nobody waits for what comes of it.
    deserted: bool,
}

impl<C> Cases<C> {
    fn new(capacity: u64) -> Cases<C> {
        let state = Waiting {
            cases: VecDeque::new(),
            weight: 0,
            untold: 0,
            lost: 0,
            closed: false,
            deserted: false,
        };
        Cases { capacity, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Puts in a case, or drops and counts it. One is always taken, whatever its weight.
    fn put(&self, case: C, weight: u64) {
        let mut state = self.lock();
        let is_full = state.weight > 0 && state.weight + weight > self.capacity;
        if is_full || state.closed {
            state.untold += weight;
            state.lost += weight;
            return;
        }
        let untold = std::mem::take(&mut state.untold);
        state.weight += weight;
        state.cases.push_back((case, weight, untold));
        drop(state);
        self.changed.notify_one();
    }

    /// Events were dropped that nobody was asked about.
    fn missed(&self, events: u64) {
        self.lock().untold += events;
    }

    /// The oldest case and what was dropped before it; waits for one. None when closed and empty.
    fn pop(&self) -> Option<(C, u64)> {
        let waits = |state: &mut Waiting<C>| state.cases.is_empty() && !state.closed;
        let waited = self.changed.wait_while(self.lock(), waits);
        let mut state = waited.expect("no holder of this lock panics");
        let (case, weight, untold) = state.cases.pop_front()?;
        state.weight -= weight;
        Some((case, untold))
    }

    /// Lets nothing more in.
    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Lets nothing more in, and throws away what waits, counting it.
    fn refuse(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.lost += std::mem::take(&mut state.weight);
        state.cases.clear();
        drop(state);
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn is_deserted(&self) -> bool {
        self.lock().deserted
    }

    fn lost(&self) -> u64 {
        self.lock().lost
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<C>> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// The version beside, seen from outside.
pub(super) struct Second<A: Asker> {
    board: Arc<Board>,
    cases: Arc<Cases<Case<A>>>,
    found: Arc<Mutex<Found<A>>>,
    /// Disconnected when the thread has ended.
    running: Receiver<()>,
}

impl<A: Asker> Second<A> {
    fn spawn(
        parts: Parts,
        saved: Option<Vec<u8>>,
        capacity: u64,
        asker: A,
    ) -> Result<Second<A>, String> {
        let board = Arc::clone(&parts.board);
        let cases = Arc::new(Cases::new(capacity));
        let found = Arc::new(Mutex::new(Found::default()));
        let (alive, running) = mpsc::channel();
        let inside = Inside { parts, saved, asker, cases: cases.clone(), found: found.clone() };
        thread::Builder::new()
            .name(format!("beside {}", board.name()))
            .spawn(move || inside.run(alive))
            .map_err(|cause| format!("there is no thread for it ({cause})"))?;
        Ok(Second { board, cases, found, running })
    }
}

impl<A: Asker> Shadow for Second<A> {
    fn is_over(&self) -> bool {
        self.cases.is_closed()
    }

    fn parting(&self) -> Parting {
        let cases = Arc::clone(&self.cases);
        Box::new(move |standing| A::beside(standing).is_some_and(|beside| beside.end(&cases)))
    }

    fn finish(self: Box<Self>, deadline: Instant) -> (PluginStatus, Compared) {
        self.cases.close();
        let patience = deadline.saturating_duration_since(Instant::now());
        if self.running.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            self.cases.refuse();
        }
        let depth = Depth { events: 0, dropped: self.cases.lost() };
        let found = std::mem::take(&mut *lock(&self.found));
        (self.board.read(depth), A::told(found.asked()))
    }
}

impl<A: Asker> Drop for Second<A> {
    fn drop(&mut self) {
        // The thread ends with its current call, which its limit ends.
        self.cases.refuse();
        self.cases.lock().deserted = true;
    }
}

/// What came of it so far.
struct Found<A: Asker> {
    /// Its times are not filled in.
    asked: Asked<A::Different>,
    /// For everything that both answered.
    running: Duration,
    shadow: Duration,
}

impl<A: Asker> Default for Found<A> {
    fn default() -> Found<A> {
        let (running, shadow) = (Duration::ZERO, Duration::ZERO);
        Found { asked: Asked::default(), running, shadow }
    }
}

impl<A: Asker> Found<A> {
    fn add(&mut self, asker: &A, case: &Case<A>, shadow: Option<&A::Answer>, took: Duration) {
        let (asked, running) = (&mut self.asked, case.answer.as_ref());
        if running.is_none() {
            asked.running_silent += case.weight;
        }
        if shadow.is_none() {
            asked.shadow_silent += case.weight;
        }
        if let Some((running, shadow)) = running.zip(shadow) {
            asked.compared += case.weight;
            asked.alike += asker.compare(&case.question, running, shadow, &mut asked.different);
            self.running += case.took;
            self.shadow += took;
        }
    }

    fn asked(self) -> Asked<A::Different> {
        let mean = |time: Duration| {
            let ns = time.as_nanos() / u128::from(self.asked.compared.max(1));
            u64::try_from(ns).unwrap_or(u64::MAX)
        };
        Asked { running_ns: mean(self.running), shadow_ns: mean(self.shadow), ..self.asked }
    }
}

fn lock<A: Asker>(found: &Mutex<Found<A>>) -> MutexGuard<'_, Found<A>> {
    found.lock().expect("no holder of this lock panics")
}

/// The inside of the thread.
struct Inside<A: Asker> {
    parts: Parts,
    saved: Option<Vec<u8>>,
    asker: A,
    cases: Arc<Cases<Case<A>>>,
    found: Arc<Mutex<Found<A>>>,
}

impl<A: Asker> Inside<A> {
    /// `_alive` is dropped when the thread ends, which is how others see it.
    fn run(mut self, _alive: Sender<()>) {
        if let Err(loss) = self.answer() {
            let board = &self.parts.board;
            let reason = loss.sentence();
            tracing::warn!(plugin = board.name(), "the version beside it is ended: {reason}");
            loss.count_on(board);
            board.is(PluginState::Stopped { reason });
        }
        // Before that: whoever sees the end finds what was lost.
        drop(self);
    }

    /// Answers everything. The error is why it did not.
    fn answer(&mut self) -> Result<(), Loss> {
        let mut instance = Instance::start(&self.parts, 1, &StartCause::Swapped)?;
        if let Some(saved) = self.saved.take() {
            instance.restore(&saved)?;
        }
        instance.show();
        let board = &self.parts.board;
        board.is(PluginState::Running);
        while let Some((case, untold)) = self.cases.pop() {
            let began = Instant::now();
            let answered = self.asker.ask(&mut instance, &case.question, untold);
            let took = began.elapsed();
            // What it was lost in counts as missed, as does what comes after it.
            let answered = answered.inspect_err(|_| board.lost_with_instance.add(case.weight))?;
            board.calls.add(1);
            board.events.add(case.weight);
            let answer = answered.inspect_err(|sentence| board.guest_failed(sentence)).ok();
            lock(&self.found).add(&self.asker, &case, answer.as_ref(), took);
        }
        Ok(())
    }
}

impl<A: Asker> Drop for Inside<A> {
    fn drop(&mut self) {
        // However the thread ended: nobody takes anything any more.
        self.cases.refuse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_queue_drops_the_newest_counts_it_and_tells_the_next_case() {
        let cases = Cases::new(5);
        cases.missed(1);
        for (case, weight) in [("first", 9), ("second", 1)] {
            cases.put(case, weight);
        }
        assert_eq!(cases.pop(), Some(("first", 1)), "one is always taken");
        cases.missed(2);
        cases.put("third", 5);
        cases.put("fourth", 1);
        assert_eq!(cases.pop(), Some(("third", 3)));
        cases.put("fifth", 1);
        assert_eq!(cases.pop(), Some(("fifth", 1)));
        assert_eq!(cases.lost(), 2);
    }

    #[test]
    fn closed_gives_what_waits_and_takes_nothing_and_refusing_throws_it_away() {
        let cases = Cases::new(9);
        cases.put("first", 1);
        cases.put("second", 2);
        cases.close();
        cases.put("third", 3);
        assert_eq!(cases.pop(), Some(("first", 0)));
        cases.refuse();
        assert_eq!(cases.pop(), None);
        assert_eq!(cases.lost(), 5);
    }

    #[test]
    fn a_hand_that_is_let_go_closes() {
        let cases = Arc::new(Cases::<()>::new(1));
        let hand = Hand(Arc::clone(&cases));
        assert!(!cases.is_closed());
        drop(hand);
        assert!(cases.is_closed() && cases.pop().is_none());
    }
}

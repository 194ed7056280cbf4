//! The explainers: one thread that hands every death to them, in the order of the TOML.
//!
//! Takes death records through [`Deaths`], a queue of its own that no event of another kind ever enters,
//! and gives each with its explanation to whoever stores it. The first verdict that is not `unknown` is
//! the explanation; where every answer is `unknown`, the first of them. Where nobody answers, the record
//! goes on with the reason, and without a verdict. An explainer that fails costs its own answer only.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Instant;

use super::bindings::exports::whodunit::plugin::explainer;
use super::bindings::whodunit::plugin::types;
use super::explanations::Explaining;
use super::imports::printable;
use super::instance::{Answers, Instance, Loss, Parts};
use super::load::LoadError;
use super::second::{Beside, Case, Second};
use super::status::{Board, PluginState};
use super::supervisor::Supervisor;
use crate::death::explanation::{Answer, ExplainedDeath, Explanation};
use crate::death::flat::FlatDeath;
use crate::death::record::{DeathRecord, Subject};
use crate::event;

/// Deaths that wait at most: about 30 MB of them.
const CAPACITY: usize = 16_384;
/// With more than that waiting, deaths go on unexplained until there are fewer: the record counts more
/// than what is made of it.
const EXPLAINED: usize = 8_192;
/// Deaths that wait at most for a version beside an explainer.
const BESIDE: u64 = 1_024;
/// Sentences of advice and the like that are taken from an explainer.
const MAX_SENTENCES: usize = 16;
/// Length of a verdict at most.
const MAX_VERDICT: usize = 64;

/// What is done with every explained death, on the explainers' thread.
pub type Deliver = Box<dyn FnMut(ExplainedDeath) + Send>;

/// A hand that gives deaths to the explainers.
#[derive(Clone)]
pub struct Deaths(Arc<Waiting>);

impl Deaths {
    /// Hands over a death. Never blocks; where too many wait, it is counted and lost.
    pub fn put(&self, record: DeathRecord) {
        let mut state = self.0.lock();
        if state.closed || state.records.len() >= CAPACITY {
            state.lost += 1;
            return;
        }
        state.records.push_back(record);
        drop(state);
        self.0.changed.notify_one();
    }

    /// Waits until every death that was handed over has gone on. Never called while capturing.
    pub fn wait_until_idle(&self) {
        drop(self.0.rests.wait_while(self.0.lock(), |state| state.is_busy()));
    }

    /// Deaths that wait.
    pub(super) fn waiting(&self) -> u64 {
        self.0.lock().records.len() as u64
    }

    /// Deaths that were lost because too many waited.
    pub fn lost(&self) -> u64 {
        self.0.lock().lost
    }
}

#[derive(Default)]
struct Waiting {
    state: Mutex<State>,
    changed: Condvar,
    /// The thread waits for the next death, or has ended.
    rests: Condvar,
}

#[derive(Default)]
struct State {
    orders: VecDeque<Order>,
    records: VecDeque<DeathRecord>,
    /// The one that was taken last.
    recent: Option<Arc<DeathRecord>>,
    lost: u64,
    closed: bool,
    /// Whether the thread has done with what it took.
    idle: bool,
    /// Whether there is no thread any more.
    ended: bool,
}

impl State {
    /// Whether a death that was handed over has not gone on, and will.
    fn is_busy(&self) -> bool {
        !(self.ended || self.idle && self.records.is_empty())
    }
}

impl Waiting {
    /// The next order, or the oldest death with how many wait behind it. None when closed and empty.
    fn pop(&self) -> Option<Item> {
        let waits = |state: &mut State| {
            state.records.is_empty() && state.orders.is_empty() && !state.closed
        };
        let mut state = self.lock();
        state.idle = true;
        // Between two deaths nobody is woken who waits for the end of all.
        if !state.is_busy() {
            self.rests.notify_all();
        }
        let state = self.changed.wait_while(state, waits);
        let mut state = state.expect("no holder of this lock panics");
        state.idle = false;
        if let Some(order) = state.orders.pop_front() {
            return Some(Item::Order(order));
        }
        let record = Arc::new(state.records.pop_front()?);
        state.recent = Some(Arc::clone(&record));
        Some(Item::Death(record, state.records.len()))
    }

    /// Waits until that time, or until the queue is closed.
    fn wait_until(&self, time: Instant) {
        let patience = time.saturating_duration_since(Instant::now());
        drop(self.changed.wait_timeout_while(self.lock(), patience, |state| !state.closed));
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// Something for the thread to do with the explainers, between two deaths.
pub(super) type Order = Box<dyn FnOnce(&mut Vec<Explainer>) + Send>;

/// One thing for the thread to do.
enum Item {
    /// A death, and how many wait behind it.
    Death(Arc<DeathRecord>, usize),
    Order(Order),
}

/// The thread of the explainers, seen from outside.
pub(super) struct Explainers {
    waiting: Arc<Waiting>,
    first_start: Mutex<Receiver<Result<(), LoadError>>>,
    /// Disconnected when the thread has ended.
    running: Mutex<Receiver<()>>,
}

impl Explainers {
    /// Starts the thread, which starts the first instances.
    pub(super) fn spawn(
        explainers: Vec<Supervisor>,
        deliver: Deliver,
    ) -> Result<Explainers, LoadError> {
        let waiting = Arc::new(Waiting::default());
        let (first_start_sender, first_start) = mpsc::channel();
        let (alive, running) = mpsc::channel();
        let explainers = explainers.into_iter().map(Explainer::new).collect();
        let desk = Desk { explainers, waiting: Arc::clone(&waiting), deliver };
        thread::Builder::new()
            .name("explainers".to_owned())
            .spawn(move || desk.run(&first_start_sender, alive))
            .map_err(|cause| LoadError::NoThread { plugin: "explainers".to_owned(), cause })?;
        let (first_start, running) = (Mutex::new(first_start), Mutex::new(running));
        Ok(Explainers { waiting, first_start, running })
    }

    /// Waits until the first instances have started, or one refused to.
    pub(super) fn wait_for_first_start(&self) -> Result<(), LoadError> {
        let first_start = self.first_start.lock().expect("no holder of this lock panics");
        first_start.recv().unwrap_or(Ok(()))
    }

    pub(super) fn deaths(&self) -> Deaths {
        Deaths(Arc::clone(&self.waiting))
    }

    /// The death that was explained last.
    pub(super) fn recent(&self) -> Option<Arc<DeathRecord>> {
        self.waiting.lock().recent.clone()
    }

    /// Has the thread do something with the explainers between two deaths.
    pub(super) fn order(&self, order: Order) {
        let mut state = self.waiting.lock();
        if !state.closed {
            state.orders.push_back(order);
        }
        drop(state);
        self.waiting.changed.notify_one();
    }

    /// Lets the explainers finish what waits, and nothing more.
    pub(super) fn finish(&self) {
        self.waiting.close();
    }

    /// Waits until the thread has ended, or leaves it behind at that time.
    pub(super) fn join(&self, deadline: Instant) {
        let patience = deadline.saturating_duration_since(Instant::now());
        let running = self.running.lock().expect("no holder of this lock panics");
        if running.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            let mut state = self.waiting.lock();
            let left = state.records.len();
            state.records.clear();
            state.lost += left as u64;
            drop(state);
            tracing::warn!(left, "the explainers did not finish in the time that there was");
        }
    }
}

impl Drop for Explainers {
    fn drop(&mut self) {
        self.waiting.close();
    }
}

/// Says that the thread has ended, however it ends.
struct Farewell(Arc<Waiting>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.rests.notify_all();
    }
}

/// The inside of the thread.
struct Desk {
    explainers: Vec<Explainer>,
    waiting: Arc<Waiting>,
    deliver: Deliver,
}

impl Desk {
    /// `_alive` is dropped when the thread ends, which is how others see it.
    fn run(mut self, first_start: &Sender<Result<(), LoadError>>, _alive: Sender<()>) {
        let _farewell = Farewell(Arc::clone(&self.waiting));
        for explainer in &mut self.explainers {
            if let Err(error) = explainer.supervisor.start_first() {
                let reason = "it does not start".to_owned();
                explainer.board().is(PluginState::Stopped { reason });
                // Nobody listens where the daemon gave up already.
                let _ = first_start.send(Err(error));
                return;
            }
        }
        let _ = first_start.send(Ok(()));
        while let Some(item) = self.waiting.pop() {
            match item {
                Item::Death(death, behind) => {
                    let explanation = if behind < EXPLAINED {
                        self.explain(&death)
                    } else {
                        unexplained("too many processes died at once")
                    };
                    let death = DeathRecord::clone(&death);
                    (self.deliver)(ExplainedDeath { death, explanation });
                }
                Item::Order(order) => order(&mut self.explainers),
            }
        }
        for explainer in self.explainers.iter().filter(|it| !it.supervisor.is_quarantined()) {
            let reason = "it finished what waited for it".to_owned();
            explainer.board().is(PluginState::Stopped { reason });
        }
        // Whoever takes the deaths may have something to finish, which counts as this thread's.
        drop(self);
    }

    fn explain(&mut self, death: &Arc<DeathRecord>) -> Explanation {
        let mut unknown = None;
        let mut reasons = Vec::new();
        let flat = FlatDeath::new(death);
        for explainer in &mut self.explainers {
            let began = Instant::now();
            let answered = explainer.ask(death, &flat, &self.waiting);
            explainer.beside.put(|| Case {
                question: Arc::clone(death),
                answer: answered.as_ref().ok().cloned(),
                took: began.elapsed(),
                weight: 1,
            });
            match answered {
                Ok(answer) if answer.verdict != Answer::UNKNOWN => {
                    return Explanation::Explained(answer);
                }
                Ok(answer) => unknown = unknown.or(Some(answer)),
                Err(reason) => reasons.push(format!("`{}`: {reason}", explainer.board().name())),
            }
        }
        match unknown {
            Some(answer) => Explanation::Explained(answer),
            None if reasons.is_empty() => unexplained("there is none"),
            None => unexplained(&reasons.join("; ")),
        }
    }
}

fn unexplained(reason: &str) -> Explanation {
    Explanation::Unexplained { reason: format!("no explainer answered: {reason}") }
}

/// One explainer.
pub(super) struct Explainer {
    supervisor: Supervisor,
    /// A version that is asked the same.
    pub(super) beside: Beside<Explaining>,
}

impl Explainer {
    pub(super) fn new(supervisor: Supervisor) -> Explainer {
        Explainer { supervisor, beside: Beside::empty() }
    }

    pub(super) fn board(&self) -> &Arc<Board> {
        &self.supervisor.parts.board
    }

    /// Puts another version in the place of the one that runs. On failure that one goes on.
    pub(super) fn switch(&mut self, parts: Parts) -> Result<(), String> {
        self.supervisor.switch(parts).map_err(|loss| loss.sentence())?;
        self.beside.leave();
        Ok(())
    }

    /// Has another version run beside this one, which is asked what this one is asked.
    pub(super) fn begin_beside(&mut self, parts: Parts) -> Result<Second<Explaining>, String> {
        self.beside.begin(&self.supervisor, parts, BESIDE, Explaining)
    }

    /// Its answer, or why there is none. A death that an instance was lost in is not tried again: it may
    /// be why.
    fn ask(
        &mut self,
        death: &DeathRecord,
        flat: &FlatDeath,
        waiting: &Waiting,
    ) -> Result<Answer, String> {
        let board = Arc::clone(self.board());
        if self.supervisor.is_quarantined() {
            return Err(format!("it is quarantined ({})", board.last_error()));
        }
        if self.supervisor.instance().is_none() {
            let pause = self.supervisor.not_before().saturating_duration_since(Instant::now());
            if pause > self.supervisor.parts.limits.call {
                return Err(format!("it is started again later ({})", board.last_error()));
            }
            waiting.wait_until(self.supervisor.not_before());
            let started = self.supervisor.start();
            self.unless_lost(started)?;
        }
        let Some(instance) = self.supervisor.instance() else {
            return Err("it has no instance".to_owned());
        };
        let answered = hand_over(instance, death, flat);
        let answer = self.unless_lost(answered)?;
        board.events.add(1);
        let answer =
            answer.inspect_err(|sentence| self.supervisor.guest_error("explain", sentence))?;
        board.calls.add(1);
        checked(board.name(), answer, death.evidence.len()).inspect_err(|reason| {
            tracing::warn!(plugin = board.name(), "{reason}");
            board.guest_failed(reason);
        })
    }

    /// Gives up the instance where it was lost, and says why.
    fn unless_lost<T>(&mut self, result: Result<T, Loss>) -> Result<T, String> {
        result.map_err(|loss| {
            let _ = self.supervisor.lose(&loss, 0);
            loss.sentence()
        })
    }
}

/// The guest's answer, or its own sentence.
fn hand_over(
    instance: &mut Instance,
    death: &DeathRecord,
    flat: &FlatDeath,
) -> Result<Result<explainer::Explanation, String>, Loss> {
    let evidence: Vec<_> = flat
        .evidence
        .iter()
        .map(|evidence| explainer::Evidence {
            before: evidence.before_ns,
            kind: evidence.kind,
            process: evidence.process,
            container: evidence.container,
            attributes_first: evidence.attributes_first,
            attributes_count: evidence.attributes_count,
            texts_first: evidence.texts_first,
            texts_count: evidence.texts_count,
        })
        .collect();
    let attribute = |&(key, value): &(u16, u64)| types::Attribute { key, value };
    let attributes: Vec<_> = flat.attributes.iter().map(attribute).collect();
    let text = |&(key, span): &(u16, event::Span)| explainer::Text {
        key,
        value: types::Span { offset: span.offset, length: span.length },
    };
    let texts: Vec<_> = flat.texts.iter().map(text).collect();
    let unseen: Vec<_> = death.unseen.iter().map(|unseen| unseen.name()).collect();
    let losses = death.losses.named();
    let losses = losses.map(|(name, value)| types::Counter { name, value });
    let handed = explainer::Death {
        time: death.time_ns,
        container_died: death.subject == Subject::Container,
        container: death.container.id,
        process: death.process.id,
        status: death.status.raw(),
        decided_by: death.decided_by,
        attributes_count: flat.attributes_count,
        texts_count: flat.texts_count,
        evidence: &evidence,
        attributes: &attributes,
        texts: &texts,
        blob: &flat.blob,
        unseen: &unseen,
        losses: &losses,
    };
    instance.call(|store, answers| match answers {
        Answers::Explainer(explainer) => explainer.call_explain(store, handed),
        // Only explainers are asked.
        Answers::Filter { .. } | Answers::Reporter { .. } => {
            Ok(Err("it is no explainer".to_owned()))
        }
    })
}

/// What an instance says of a death that is only tried, or compared: an answer that may be stored.
pub(super) fn explain(
    instance: &mut Instance,
    death: &DeathRecord,
) -> Result<Result<Answer, String>, Loss> {
    let answer = hand_over(instance, death, &FlatDeath::new(death))?;
    Ok(answer.and_then(|answer| checked("", answer, death.evidence.len())))
}

/// The answer as it may be stored: one that contradicts the contract is none.
fn checked(
    explainer: &str,
    answer: explainer::Explanation,
    evidence: usize,
) -> Result<Answer, String> {
    let explainer::Explanation {
        verdict,
        headline,
        explanation,
        confidence,
        rests_on,
        missing,
        advice,
    } = answer;
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if verdict.is_empty() || verdict.len() > MAX_VERDICT || !verdict.bytes().all(is_word) {
        return Err(format!("its verdict `{verdict:.64}` is not a lower case word with hyphens"));
    }
    if confidence > 100 {
        return Err(format!("its confidence is {confidence} percent"));
    }
    if let Some(index) = rests_on.iter().find(|index| **index as usize >= evidence) {
        return Err(format!("its verdict rests on evidence {index}, and there are {evidence}"));
    }
    let sentences = |sentences: Vec<String>| {
        sentences.iter().take(MAX_SENTENCES).map(|sentence| printable(sentence)).collect()
    };
    Ok(Answer {
        explainer: explainer.to_owned(),
        verdict,
        headline: printable(&headline),
        explanation: printable(&explanation),
        confidence,
        rests_on,
        missing: sentences(missing),
        advice: sentences(advice),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> explainer::Explanation {
        explainer::Explanation {
            verdict: "oom-own-limit".to_owned(),
            headline: "a\nb".to_owned(),
            explanation: String::new(),
            confidence: 100,
            rests_on: vec![0, 1],
            missing: Vec::new(),
            advice: vec!["c".to_owned(); 99],
        }
    }

    #[test]
    fn an_answer_is_stored_as_one_line_a_sentence() {
        let stored = checked("plugin", answer(), 2).unwrap();
        assert_eq!((stored.headline.as_str(), stored.advice.len()), ("a\\nb", MAX_SENTENCES));
        assert_eq!(stored.explainer, "plugin");
    }

    #[test]
    fn an_answer_that_contradicts_the_contract_is_none() {
        let refused = |change: fn(&mut explainer::Explanation)| {
            let mut answer = answer();
            change(&mut answer);
            checked("plugin", answer, 2).unwrap_err()
        };
        assert!(refused(|it| it.confidence = 101).contains("101 percent"));
        assert!(refused(|it| it.rests_on = vec![2]).contains("evidence 2"));
        for verdict in ["", "Two Words", "a\x1b[2J"] {
            let mut answer = answer();
            answer.verdict = verdict.to_owned();
            assert!(checked("plugin", answer, 2).is_err(), "{verdict:?}");
        }
    }
}

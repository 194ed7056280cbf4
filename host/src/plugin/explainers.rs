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
use super::engine::Engine;
use super::imports::{Grants, printable};
use super::life::{Life, Loaded, RestartPolicy, Role};
use super::load::LoadError;
use super::status::{Board, PluginState, PluginStatus};
use super::world::World;
use crate::config;
use crate::death::explanation::{Answer, ExplainedDeath, Explanation};
use crate::death::flat::FlatDeath;
use crate::death::record::{DeathRecord, Subject};
use crate::event;
use crate::sink::Outlet;

/// Deaths that wait at most: about 30 MB of them.
const CAPACITY: usize = 16_384;
/// With more than that waiting, deaths go on unexplained until there are fewer: the record counts more
/// than what is made of it.
const EXPLAINED: usize = 8_192;
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

    /// Deaths that were lost because too many waited.
    pub fn lost(&self) -> u64 {
        self.0.lock().lost
    }
}

#[derive(Default)]
struct Waiting {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    records: VecDeque<DeathRecord>,
    lost: u64,
    closed: bool,
}

impl Waiting {
    /// The oldest death, and how many wait behind it. None when closed and empty.
    fn pop(&self) -> Option<(DeathRecord, usize)> {
        let waits = |state: &mut State| state.records.is_empty() && !state.closed;
        let state = self.changed.wait_while(self.lock(), waits);
        let mut state = state.expect("no holder of this lock panics");
        let record = state.records.pop_front()?;
        Some((record, state.records.len()))
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

/// The thread of the explainers, seen from outside.
pub(super) struct Explainers {
    boards: Vec<Arc<Board>>,
    waiting: Arc<Waiting>,
    first_start: Mutex<Receiver<Result<(), LoadError>>>,
    /// Disconnected when the thread has ended.
    running: Mutex<Receiver<()>>,
}

impl Explainers {
    /// Starts the thread, which starts the first instances.
    pub(super) fn spawn(
        engine: &Arc<Engine>,
        plugins: Vec<(&config::Plugin, Loaded<explainer::GuestIndices>)>,
        world: &Arc<World>,
        outlet: impl Fn() -> Outlet,
        policy: RestartPolicy,
        deliver: Deliver,
    ) -> Result<Explainers, LoadError> {
        let waiting = Arc::new(Waiting::default());
        let mut boards = Vec::new();
        let mut explainers = Vec::new();
        for (plugin, loaded) in plugins {
            let (name, source) = (plugin.name.clone(), loaded.source_name.clone());
            let role = explainer::GuestIndices::NAME;
            let board = Arc::new(Board::new(name, source, role));
            let grants = Grants::new(plugin, Arc::clone(world), outlet(), Arc::clone(&board));
            explainers.push(Explainer {
                life: Life::new(
                    Arc::clone(engine),
                    loaded,
                    plugin.limits.clone(),
                    Arc::new(grants),
                    Arc::clone(&board),
                    policy,
                ),
                is_quarantined: false,
            });
            boards.push(board);
        }
        let (first_start_sender, first_start) = mpsc::channel();
        let (alive, running) = mpsc::channel();
        let desk = Desk { explainers, waiting: Arc::clone(&waiting), deliver };
        thread::Builder::new()
            .name("explainers".to_owned())
            .spawn(move || desk.run(&first_start_sender, alive))
            .map_err(|cause| LoadError::NoThread { plugin: "explainers".to_owned(), cause })?;
        let (first_start, running) = (Mutex::new(first_start), Mutex::new(running));
        Ok(Explainers { boards, waiting, first_start, running })
    }

    /// Waits until the first instances have started, or one refused to.
    pub(super) fn wait_for_first_start(&mut self) -> Result<(), LoadError> {
        let first_start = self.first_start.get_mut().expect("no holder of this lock panics");
        first_start.recv().unwrap_or(Ok(()))
    }

    pub(super) fn deaths(&self) -> Deaths {
        Deaths(Arc::clone(&self.waiting))
    }

    pub(super) fn status(&self) -> impl Iterator<Item = PluginStatus> {
        self.boards.iter().map(|board| board.read(0))
    }

    /// Lets the explainers finish what waits, and nothing more.
    pub(super) fn finish(&self) {
        self.waiting.close();
    }

    /// Waits until the thread has ended, or leaves it behind at that time.
    pub(super) fn join(mut self, deadline: Instant) -> Vec<PluginStatus> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let running = self.running.get_mut().expect("no holder of this lock panics");
        if running.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            let mut state = self.waiting.lock();
            let left = state.records.len();
            state.records.clear();
            state.lost += left as u64;
            drop(state);
            tracing::warn!(left, "the explainers did not finish in the time that there was");
        }
        self.status().collect()
    }
}

impl Drop for Explainers {
    fn drop(&mut self) {
        self.waiting.close();
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
        for explainer in &mut self.explainers {
            let Err(loss) = explainer.life.start() else {
                continue;
            };
            if let Some(error) = LoadError::of_first_start(&explainer.life, &loss) {
                let reason = "it does not start".to_owned();
                explainer.life.board.is(PluginState::Stopped { reason });
                // Nobody listens where the daemon gave up already.
                let _ = first_start.send(Err(error));
                return;
            }
            explainer.is_quarantined = explainer.life.lose(&loss, 0).is_err();
        }
        let _ = first_start.send(Ok(()));
        while let Some((death, behind)) = self.waiting.pop() {
            let explanation = if behind < EXPLAINED {
                self.explain(&death)
            } else {
                unexplained("too many processes died at once")
            };
            (self.deliver)(ExplainedDeath { death, explanation });
        }
        for explainer in &self.explainers {
            if !explainer.is_quarantined {
                let reason = "it finished what waited for it".to_owned();
                explainer.life.board.is(PluginState::Stopped { reason });
            }
        }
    }

    fn explain(&mut self, death: &DeathRecord) -> Explanation {
        let mut unknown = None;
        let mut reasons = Vec::new();
        let flat = FlatDeath::new(death);
        for explainer in &mut self.explainers {
            match explainer.ask(death, &flat, &self.waiting) {
                Ok(answer) if answer.verdict != Answer::UNKNOWN => {
                    return Explanation::Explained(answer);
                }
                Ok(answer) => unknown = unknown.or(Some(answer)),
                Err(reason) => reasons.push(format!("`{}`: {reason}", explainer.life.board.name())),
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
struct Explainer {
    life: Life<explainer::GuestIndices>,
    is_quarantined: bool,
}

impl Explainer {
    /// Its answer, or why there is none. A death that an instance was lost in is not tried again: it may
    /// be why.
    fn ask(
        &mut self,
        death: &DeathRecord,
        flat: &FlatDeath,
        waiting: &Waiting,
    ) -> Result<Answer, String> {
        let life = &mut self.life;
        if self.is_quarantined {
            return Err(format!("it is quarantined ({})", life.board.last_error()));
        }
        if !life.is_alive() {
            let pause = life.not_before().saturating_duration_since(Instant::now());
            if pause > life.limits.call {
                return Err(format!("it is started again later ({})", life.board.last_error()));
            }
            waiting.wait_until(life.not_before());
            if let Err(loss) = life.start() {
                self.is_quarantined = life.lose(&loss, 0).is_err();
                return Err(loss.sentence());
            }
        }
        let answer = match hand_over(life, death, flat) {
            Ok(answer) => answer?,
            Err(loss) => {
                self.is_quarantined = life.lose(&loss, 0).is_err();
                return Err(loss.sentence());
            }
        };
        checked(life.board.name(), answer, death.evidence.len()).inspect_err(|reason| {
            tracing::warn!(plugin = life.board.name(), "{reason}");
            life.board.failed(reason);
            life.board.guest_error.add(1);
        })
    }
}

/// The guest's answer, or its own sentence.
fn hand_over(
    life: &mut Life<explainer::GuestIndices>,
    death: &DeathRecord,
    flat: &FlatDeath,
) -> Result<Result<explainer::Explanation, String>, super::life::Loss> {
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
    let answer = life.call("explain", |guest, store| guest.call_explain(store, handed))?;
    life.board.events.add(1);
    Ok(answer.unwrap_or_else(|| Err("it has no instance".to_owned())))
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

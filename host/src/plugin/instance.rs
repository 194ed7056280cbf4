//! One instance of a component: started, called within its limits, and told why it was lost.
//!
//! Owns the engine's store. An instance that a call was lost in must never be entered again: whoever
//! gets a [`Loss`] drops it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{self, ComponentExportIndex, Lift, TypedFunc};
use wasmtime::{Store, Trap};

use super::allowance;
use super::bindings::exports::whodunit::plugin::{explainer, filter, lifecycle, reporter, state};
use super::engine::{Engine, Entered, chain};
use super::imports::{Grants, Guest};
use super::load::{AnswersIndices, LoadError, Loaded};
use super::lower::Batch;
use super::role::Role;
use super::status::Board;
use crate::config::Limits;

/// Starting may take this many times as long as a call: it may read a large document.
const START_FACTOR: u32 = 10;

/// What a call may hand over beside a document.
const HANDOVER_SLACK_BYTES: usize = 1 << 20;

/// Resources of its own that a guest may hold at once. The contract has none.
const MAX_HANDLES: usize = 1024;

/// What instances of a plugin are made of.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) engine: Arc<Engine>,
    pub(super) loaded: Arc<Loaded>,
    pub(super) limits: Limits,
    pub(super) grants: Arc<Grants>,
    pub(super) board: Arc<Board>,
}

impl Parts {
    /// The loss of a first instance as the reason not to run the plugin at all, if it is one.
    pub(super) fn refusal(&self, loss: &Loss) -> Option<LoadError> {
        let plugin = self.board.name().to_owned();
        match loss {
            Loss::Refused(sentence) => {
                Some(LoadError::Refused { plugin, sentence: sentence.clone() })
            }
            Loss::Invalid(role, cause) => Some(LoadError::Invalid {
                plugin,
                source_name: self.loaded.source_name.clone(),
                role: *role,
                cause: cause.clone(),
            }),
            Loss::Trap(_)
            | Loss::Timeout(_)
            | Loss::Memory(_)
            | Loss::Oversized(_)
            | Loss::StateRefused(_)
            | Loss::Failed(..) => None,
        }
    }
}

/// Why an instance starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StartCause {
    /// It is the first one.
    Start,
    /// The one before was lost, for that reason.
    Replaced(String),
    /// The operator put it in the place of the one before.
    Swapped,
}

/// How an instance was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    Trap(String),
    Timeout(Duration),
    Memory(usize),
    Oversized(usize),
    /// It refused to start.
    Refused(String),
    /// It refused the state that it was given.
    StateRefused(String),
    /// It failed in a call of that name when it was tried.
    Failed(&'static str, String),
    /// It is not what the names of its exports promise.
    Invalid(Role, String),
}

impl Loss {
    pub(super) fn sentence(&self) -> String {
        match self {
            Loss::Trap(trap) => format!("it trapped ({trap})"),
            Loss::Timeout(limit) => format!("a call took longer than its limit of {limit:?}"),
            Loss::Memory(limit) => format!("it ran out of its memory limit of {limit} bytes"),
            Loss::Oversized(limit) => {
                format!("it handed over more than its limit of {limit} bytes in one call")
            }
            Loss::Refused(sentence) => format!("it does not start: {sentence}"),
            Loss::StateRefused(sentence) => format!("it does not take its state: {sentence}"),
            Loss::Failed(call, sentence) => format!("`{call}` failed: {sentence}"),
            Loss::Invalid(role, cause) => format!("it is not a valid {} ({cause})", role.name()),
        }
    }

    /// Puts it into the status. The reason first: whoever sees the count finds it.
    pub(super) fn count_on(&self, board: &Board) {
        board.failed(&self.sentence());
        match self {
            Loss::Trap(_) => board.trap.add(1),
            Loss::Timeout(_) => board.timeout.add(1),
            Loss::Memory(_) => board.memory.add(1),
            Loss::Oversized(_) => board.oversized.add(1),
            Loss::Refused(_) | Loss::StateRefused(_) | Loss::Failed(..) | Loss::Invalid(..) => {
                board.guest_error.add(1);
            }
        }
        board.memory_is(0);
    }
}

/// An instance, from its start to its loss.
pub(super) struct Instance {
    store: Store<Guest>,
    /// Name and version, as it says.
    description: (String, String),
    /// How long its first two calls took, `describe` and `start`.
    first_calls: [Duration; 2],
    answers: Answers,
    state: Option<state::Guest>,
    started: Instant,
    limits: Limits,
    engine: Arc<Engine>,
    board: Arc<Board>,
}

/// The functions of a role.
pub(super) enum Answers {
    Filter {
        on_batch: OnBatch<Vec<filter::Verdict>>,
    },
    Reporter {
        on_batch: OnBatch<()>,
        /// The others.
        guest: reporter::Guest,
    },
    Explainer(explainer::Guest),
}

/// A function that takes batches. Not the one of the bindings, which takes records that are written to
/// the guest one field after the other.
pub(super) struct OnBatch<T: 'static>(TypedFunc<(Batch<'static>,), (Result<T, String>,)>);

impl<T: Lift + Send + Sync + 'static> OnBatch<T> {
    fn load(
        store: &mut Store<Guest>,
        instance: &component::Instance,
        index: ComponentExportIndex,
    ) -> wasmtime::Result<OnBatch<T>> {
        instance.get_typed_func(store, index).map(OnBatch)
    }

    /// Calls it. The inner error is the guest's own.
    pub(super) fn call(
        &self,
        store: &mut Store<Guest>,
        batch: Batch<'_>,
    ) -> wasmtime::Result<Result<T, String>> {
        let function: TypedFunc<(Batch<'_>,), (Result<T, String>,)> = self.0;
        let (answer,) = function.call(store, (batch,))?;
        Ok(answer)
    }
}

impl Instance {
    /// Instantiates, asks for a description and starts.
    pub(super) fn start(parts: &Parts, number: u32, cause: &StartCause) -> Result<Instance, Loss> {
        let Parts { engine, loaded, limits, grants, board } = parts;
        let mut store = Store::new(engine.wasmtime(), Guest::new(Arc::clone(grants)));
        store.limiter(|guest| &mut guest.memory);
        store.set_hostcall_fuel(limits.output_bytes.saturating_add(HANDOVER_SLACK_BYTES));
        store.set_max_component_handles(MAX_HANDLES);
        let limit = limits.call.saturating_mul(START_FACTOR);
        allowance::enforce(&mut store);
        allowance::begin(&mut store, limit);
        let _entered = engine.enter();
        let lost = |error, store: &Store<Guest>| loss_of(&error, store, limits, limit);
        let made = loaded.pre.instantiate(&mut store).and_then(|instance| {
            let exports = &loaded.exports;
            let lifecycle = exports.lifecycle.load(&mut store, &instance)?;
            let answers = match &exports.answers {
                AnswersIndices::Filter { on_batch } => {
                    Answers::Filter { on_batch: OnBatch::load(&mut store, &instance, *on_batch)? }
                }
                AnswersIndices::Reporter { on_batch, guest } => Answers::Reporter {
                    on_batch: OnBatch::load(&mut store, &instance, *on_batch)?,
                    guest: guest.load(&mut store, &instance)?,
                },
                AnswersIndices::Explainer(it) => {
                    Answers::Explainer(it.load(&mut store, &instance)?)
                }
            };
            let state = exports.state.as_ref().map(|it| it.load(&mut store, &instance));
            Ok((lifecycle, answers, state.transpose()?))
        });
        let (lifecycle, answers, state) = match made {
            Ok(made) => made,
            Err(error) => {
                // Where no code of the guest has failed, its types are not those of the contract.
                let has_trapped = error.downcast_ref::<Trap>().is_some();
                return Err(match lost(error, &store) {
                    Loss::Trap(cause) if !has_trapped => Loss::Invalid(loaded.role, cause),
                    loss => loss,
                });
            }
        };
        let made = Instant::now();
        let description = match lifecycle.call_describe(&mut store) {
            Ok(description) => (description.name, description.version),
            Err(error) => return Err(lost(error, &store)),
        };
        let described = Instant::now();
        let context = lifecycle::Context {
            name: board.name(),
            instance: number,
            cause: match cause {
                StartCause::Start => lifecycle::Cause::Start,
                StartCause::Replaced(why) => lifecycle::Cause::Replaced(why),
                StartCause::Swapped => lifecycle::Cause::Swapped,
            },
        };
        match lifecycle.call_start(&mut store, context) {
            Ok(Ok(())) => {}
            Ok(Err(sentence)) => return Err(Loss::Refused(sentence)),
            Err(error) => return Err(lost(error, &store)),
        }
        let started = Instant::now();
        Ok(Instance {
            store,
            description,
            first_calls: [described - made, started - described],
            answers,
            state,
            started,
            limits: limits.clone(),
            engine: Arc::clone(engine),
            board: Arc::clone(board),
        })
    }

    /// Shows it in the status: it is the plugin's instance from now on.
    pub(super) fn show(&self) {
        self.board.describes_itself(self.description.clone());
        self.board.calls.add(2);
        self.first_calls.into_iter().for_each(|time| self.board.call_took(time));
        self.board.memory_is(self.store.data().memory.used());
    }

    /// Whether it saves and restores state.
    pub(super) fn has_state(&self) -> bool {
        self.state.is_some()
    }

    /// How long it has lived.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Calls a function of the role. The inner error is the guest's own: the instance goes on.
    pub(super) fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Store<Guest>, &Answers) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<Result<T, String>, Loss> {
        let Instance { store, answers, .. } = self;
        let begun = begin(store, &self.engine, &self.limits);
        let result = call(store, answers);
        self.end(begun, result)
    }

    /// What the next instance needs to go on. None where the component keeps no state.
    pub(super) fn save(&mut self) -> Result<Option<Result<Vec<u8>, String>>, Loss> {
        let Some(state) = &self.state else {
            return Ok(None);
        };
        let begun = begin(&mut self.store, &self.engine, &self.limits);
        let result = state.call_save(&mut self.store);
        match self.end(begun, result)? {
            Ok(saved) if saved.len() > self.limits.output_bytes => {
                Err(Loss::Oversized(self.limits.output_bytes))
            }
            saved => Ok(Some(saved)),
        }
    }

    /// Hands over what an instance before saved. Nothing happens where the component keeps no state.
    pub(super) fn restore(&mut self, saved: &[u8]) -> Result<(), Loss> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        let begun = begin(&mut self.store, &self.engine, &self.limits);
        let result = state.call_restore(&mut self.store, saved);
        self.end(begun, result)?.map_err(Loss::StateRefused)
    }

    fn end<T>(
        &self,
        begun: Begun,
        result: wasmtime::Result<Result<T, String>>,
    ) -> Result<Result<T, String>, Loss> {
        self.board.call_took(begun.at.elapsed());
        drop(begun);
        self.board.memory_is(self.store.data().memory.used());
        result.map_err(|error| loss_of(&error, &self.store, &self.limits, self.limits.call))
    }
}

/// A call that has begun: time passes for guests while it lives.
struct Begun {
    at: Instant,
    _entered: Entered,
}

fn begin(store: &mut Store<Guest>, engine: &Engine, limits: &Limits) -> Begun {
    allowance::begin(store, limits.call);
    Begun { at: Instant::now(), _entered: engine.enter() }
}

/// What the engine's error means. An instance that it came from is never entered again.
fn loss_of(
    error: &wasmtime::Error,
    store: &Store<Guest>,
    limits: &Limits,
    time_limit: Duration,
) -> Loss {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Loss::Timeout(time_limit),
        _ if store.data().memory.was_refused => Loss::Memory(limits.memory_bytes),
        Some(trap) => Loss::Trap(trap.to_string()),
        None if is_handover_limit(error) => Loss::Oversized(limits.output_bytes),
        None => Loss::Trap(chain(error)),
    }
}

/// Whether a call was ended because it handed over too much. The engine has no type for that error;
/// a test holds on to its words.
fn is_handover_limit(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| cause.to_string().contains("fuel allocated for hostcalls"))
}

//! The life of a plugin, whatever its role: instances that start, are called, are lost and replaced.
//!
//! An instance that is lost is dropped, never entered again, and replaced by a fresh one after a pause
//! that grows. After too many losses in a row the plugin is quarantined.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{Instance, InstancePre};
use wasmtime::{Store, Trap};

use super::bindings::exports::whodunit::plugin::{explainer, lifecycle, reporter};
use super::engine::{Engine, chain};
use super::imports::{Grants, Guest};
use super::status::{Board, PluginState};
use crate::config::Limits;

/// Starting may take this many times as long as a call: it may read a large document.
const START_FACTOR: u32 = 10;

/// What a call may hand over beside a document.
const HANDOVER_SLACK_BYTES: usize = 1 << 20;

/// Resources of its own that a guest may hold at once. The contract has none.
const MAX_HANDLES: usize = 1024;

/// How lost instances are replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct RestartPolicy {
    /// The pause after the first loss. It doubles with every further one.
    pub(super) first_pause: Duration,
    /// The longest pause.
    pub(super) longest_pause: Duration,
    /// An instance that lived this long ends a row of losses.
    pub(super) good_life: Duration,
    /// So many losses in a row are the end.
    pub(super) budget: u32,
}

impl Default for RestartPolicy {
    fn default() -> RestartPolicy {
        RestartPolicy {
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(30),
            good_life: Duration::from_secs(60),
            budget: 10,
        }
    }
}

/// What is different between roles: the interface that a plugin exports beside `lifecycle`.
pub(super) trait Role: Sized + Send + 'static {
    /// Its functions in one instance.
    type Exports: Send;

    /// The name of the role and of its interface.
    const NAME: &'static str;

    /// Finds the interface in a component.
    fn find(pre: &InstancePre<Guest>) -> wasmtime::Result<Self>;

    /// Finds its functions in an instance, and checks their types.
    fn exports(
        &self,
        store: &mut Store<Guest>,
        instance: &Instance,
    ) -> wasmtime::Result<Self::Exports>;
}

impl Role for reporter::GuestIndices {
    type Exports = reporter::Guest;

    const NAME: &'static str = "reporter";

    fn find(pre: &InstancePre<Guest>) -> wasmtime::Result<Self> {
        Self::new(pre)
    }

    fn exports(
        &self,
        store: &mut Store<Guest>,
        instance: &Instance,
    ) -> wasmtime::Result<reporter::Guest> {
        self.load(store, instance)
    }
}

impl Role for explainer::GuestIndices {
    type Exports = explainer::Guest;

    const NAME: &'static str = "explainer";

    fn find(pre: &InstancePre<Guest>) -> wasmtime::Result<Self> {
        Self::new(pre)
    }

    fn exports(
        &self,
        store: &mut Store<Guest>,
        instance: &Instance,
    ) -> wasmtime::Result<explainer::Guest> {
        self.load(store, instance)
    }
}

/// A plugin that can be started, any number of times.
pub(super) struct Loaded<R> {
    pub(super) pre: InstancePre<Guest>,
    pub(super) lifecycle: lifecycle::GuestIndices,
    pub(super) role: R,
    pub(super) source_name: String,
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
    /// It is not what the names of its exports promise.
    Invalid {
        role: &'static str,
        cause: String,
    },
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
            Loss::Invalid { role, cause } => format!("it is not a valid {role} ({cause})"),
        }
    }
}

/// The plugin gets no more instances.
pub(super) struct Quarantined;

/// An instance, from its start to its loss.
struct Living<E> {
    store: Store<Guest>,
    exports: E,
    started: Instant,
}

/// The instances of one plugin, one after the other.
pub(super) struct Life<R: Role> {
    engine: Arc<Engine>,
    loaded: Loaded<R>,
    pub(super) limits: Limits,
    grants: Arc<Grants>,
    pub(super) board: Arc<Board>,
    policy: RestartPolicy,
    instance: Option<Living<R::Exports>>,
    instances: u32,
    /// Why the instance before was lost.
    lost_because: Option<String>,
    losses_in_a_row: u32,
    /// When the next instance may start.
    not_before: Instant,
}

impl<R: Role> Life<R> {
    pub(super) fn new(
        engine: Arc<Engine>,
        loaded: Loaded<R>,
        limits: Limits,
        grants: Arc<Grants>,
        board: Arc<Board>,
        policy: RestartPolicy,
    ) -> Life<R> {
        Life {
            engine,
            loaded,
            limits,
            grants,
            board,
            policy,
            instance: None,
            instances: 0,
            lost_because: None,
            losses_in_a_row: 0,
            not_before: Instant::now(),
        }
    }

    /// Where its component comes from, as in the TOML.
    pub(super) fn source_name(&self) -> &str {
        &self.loaded.source_name
    }

    /// What every instance may use.
    pub(super) fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Whether there is an instance.
    pub(super) fn is_alive(&self) -> bool {
        self.instance.is_some()
    }

    /// When the next instance may start.
    pub(super) fn not_before(&self) -> Instant {
        self.not_before
    }

    /// Makes sure that there is an instance. `wait` waits until that time, or until there is no more
    /// reason to wait.
    pub(super) fn ensure(&mut self, wait: impl Fn(Instant)) -> Result<(), Quarantined> {
        while self.instance.is_none() {
            wait(self.not_before);
            if let Err(loss) = self.start() {
                self.lose(&loss, 0)?;
            }
        }
        Ok(())
    }

    /// Starts an instance.
    pub(super) fn start(&mut self) -> Result<(), Loss> {
        self.instances += 1;
        self.board.instance_is(self.instances);
        let mut store = Store::new(self.engine.wasmtime(), Guest::new(Arc::clone(&self.grants)));
        store.limiter(|guest| &mut guest.memory);
        store.set_hostcall_fuel(self.limits.output_bytes.saturating_add(HANDOVER_SLACK_BYTES));
        store.set_max_component_handles(MAX_HANDLES);
        let limit = self.limits.call.saturating_mul(START_FACTOR);
        store.set_epoch_deadline(Engine::ticks(limit));
        let entered = self.engine.enter();
        let lost = |error, store: &Store<Guest>| loss_of(&error, store, &self.limits, limit);
        let loaded = &self.loaded;
        let found = loaded.pre.instantiate(&mut store).and_then(|instance| {
            let lifecycle = loaded.lifecycle.load(&mut store, &instance)?;
            Ok((lifecycle, loaded.role.exports(&mut store, &instance)?))
        });
        let (guest, exports) = match found {
            Ok(found) => found,
            Err(error) => {
                // Where no code of the guest has failed, its types are not those of the contract.
                let has_trapped = error.downcast_ref::<Trap>().is_some();
                return Err(match lost(error, &store) {
                    Loss::Trap(cause) if !has_trapped => Loss::Invalid { role: R::NAME, cause },
                    loss => loss,
                });
            }
        };
        match guest.call_describe(&mut store) {
            Ok(description) => self.board.describes_itself(description.name, description.version),
            Err(error) => return Err(lost(error, &store)),
        }
        let context = lifecycle::Context {
            name: self.board.name(),
            instance: self.instances,
            cause: match &self.lost_because {
                None => lifecycle::Cause::Start,
                Some(why) => lifecycle::Cause::Replaced(why),
            },
        };
        match guest.call_start(&mut store, context) {
            Ok(Ok(())) => {}
            Ok(Err(sentence)) => return Err(Loss::Refused(sentence)),
            Err(error) => return Err(lost(error, &store)),
        }
        drop(entered);
        self.board.is(PluginState::Running);
        self.board.calls.add(2);
        tracing::debug!(plugin = self.board.name(), instance = self.instances, "started");
        self.instance = Some(Living { store, exports, started: Instant::now() });
        Ok(())
    }

    /// Calls the guest, within its limit of time. None where there is no instance. The inner error is
    /// the guest's own sentence, already logged and counted.
    pub(super) fn call<T>(
        &mut self,
        name: &str,
        call: impl FnOnce(&R::Exports, &mut Store<Guest>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<Option<Result<T, String>>, Loss> {
        let Some(instance) = &mut self.instance else {
            return Ok(None);
        };
        instance.store.set_epoch_deadline(Engine::ticks(self.limits.call));
        let entered = self.engine.enter();
        let result = call(&instance.exports, &mut instance.store);
        drop(entered);
        match result {
            Ok(Ok(value)) => {
                self.board.calls.add(1);
                Ok(Some(Ok(value)))
            }
            Ok(Err(sentence)) => {
                let sentence = format!("`{name}` failed: {sentence}");
                tracing::warn!(plugin = self.board.name(), "{sentence}");
                self.board.failed(&sentence);
                self.board.guest_error.add(1);
                Ok(Some(Err(sentence)))
            }
            Err(error) => Err(loss_of(&error, &instance.store, &self.limits, self.limits.call)),
        }
    }

    /// Drops the instance, counts the events that went with it, and decides what comes.
    pub(super) fn lose(&mut self, loss: &Loss, lost_events: u64) -> Result<(), Quarantined> {
        self.board.lost_with_instance.add(lost_events);
        let lived = self.instance.take().map(|instance| instance.started.elapsed());
        if lived.is_some_and(|lived| lived >= self.policy.good_life) {
            self.losses_in_a_row = 0;
        }
        self.losses_in_a_row += 1;
        let sentence = loss.sentence();
        // The reason first: whoever sees the count finds it.
        self.board.failed(&sentence);
        match loss {
            Loss::Trap(_) => self.board.trap.add(1),
            Loss::Timeout(_) => self.board.timeout.add(1),
            Loss::Memory(_) => self.board.memory.add(1),
            Loss::Oversized(_) => self.board.oversized.add(1),
            Loss::Refused(_) | Loss::Invalid { .. } => self.board.guest_error.add(1),
        }
        self.lost_because = Some(sentence.clone());
        let plugin = self.board.name();
        if self.losses_in_a_row >= self.policy.budget {
            let reason = format!(
                "it lost {} instances in a row, the last one because {sentence}",
                self.losses_in_a_row
            );
            tracing::error!(plugin, "quarantined until the daemon restarts: {reason}");
            self.board.is(PluginState::Quarantined { reason });
            return Err(Quarantined);
        }
        let doublings = self.losses_in_a_row.saturating_sub(1).min(20);
        let pause = self.policy.first_pause.saturating_mul(1 << doublings);
        let pause = pause.min(self.policy.longest_pause);
        self.not_before = Instant::now() + pause;
        tracing::error!(
            plugin,
            instance = self.instances,
            lost_events,
            "an instance was lost: {sentence}; a fresh one starts in {pause:?}"
        );
        self.board.is(PluginState::BackingOff { reason: sentence });
        Ok(())
    }
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

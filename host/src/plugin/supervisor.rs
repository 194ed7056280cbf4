//! What becomes of a plugin's instances: lost ones are counted and replaced, until there are too many.
//!
//! Owns the instance, if there is one, and what the next one is to be told. Never sleeps and never
//! waits: it says when the next instance may start, and whoever drives it decides what happens until
//! then.

use std::time::{Duration, Instant};

use super::instance::{Instance, Loss, Parts, StartCause};
use super::load::LoadError;
use super::status::PluginState;

/// How lost instances are replaced, until the plugin has lost as many in a row as its limits allow.
#[derive(Clone, Copy, Debug)]
pub(super) struct RestartPolicy {
    /// The pause after the first loss. It doubles with every further one.
    pub(super) first_pause: Duration,
    /// The longest pause.
    pub(super) longest_pause: Duration,
    /// An instance that lived this long ends a row of losses.
    pub(super) good_life: Duration,
}

impl Default for RestartPolicy {
    fn default() -> RestartPolicy {
        RestartPolicy {
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(30),
            good_life: Duration::from_secs(60),
        }
    }
}

/// A plugin with its instances, one after the other.
pub(super) struct Supervisor {
    pub(super) parts: Parts,
    policy: RestartPolicy,
    instance: Option<Instance>,
    /// Number of the newest instance.
    instances: u32,
    cause: StartCause,
    losses_in_a_row: u32,
    /// When the next instance may start.
    not_before: Instant,
    quarantined: bool,
    /// What an instance saved last.
    saved: Option<Vec<u8>>,
}

/// The plugin gets no more instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quarantined;

impl Supervisor {
    pub(super) fn new(parts: Parts, policy: RestartPolicy) -> Supervisor {
        Supervisor {
            parts,
            policy,
            instance: None,
            instances: 0,
            cause: StartCause::Start,
            losses_in_a_row: 0,
            not_before: Instant::now(),
            quarantined: false,
            saved: None,
        }
    }

    /// One whose first instance goes on from a state, beside the instance that saved it.
    pub(super) fn beside(
        parts: Parts,
        policy: RestartPolicy,
        saved: Option<Vec<u8>>,
    ) -> Supervisor {
        let cause = StartCause::Swapped;
        Supervisor { cause, saved, ..Supervisor::new(parts, policy) }
    }

    /// What an instance saved last.
    pub(super) fn saved(&self) -> Option<Vec<u8>> {
        self.saved.clone()
    }

    /// The instance, if there is one.
    pub(super) fn instance(&mut self) -> Option<&mut Instance> {
        self.instance.as_mut()
    }

    /// When the next instance may start.
    pub(super) fn not_before(&self) -> Instant {
        self.not_before
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.quarantined
    }

    /// Starts the first instance.
    ///
    /// # Errors
    ///
    /// If it refuses, or is not what its exports promise. One that merely dies is replaced later.
    pub(super) fn start_first(&mut self) -> Result<(), LoadError> {
        let Err(loss) = self.start() else {
            return Ok(());
        };
        match self.parts.refusal(&loss) {
            Some(error) => Err(error),
            None => {
                // Quarantine shows from now on.
                let _ = self.lose(&loss, 0);
                Ok(())
            }
        }
    }

    /// Starts an instance, with what the one before saved.
    pub(super) fn start(&mut self) -> Result<(), Loss> {
        self.instances += 1;
        let board = &self.parts.board;
        board.instance_is(self.instances);
        let mut instance = Instance::start(&self.parts, self.instances, &self.cause)?;
        // State that an instance is lost with is not tried again: it may be why.
        if let Some(saved) = self.saved.take() {
            instance.restore(&saved)?;
            self.saved = Some(saved);
        }
        instance.show();
        board.is(PluginState::Running);
        tracing::debug!(plugin = board.name(), instance = self.instances, "started");
        self.instance = Some(instance);
        Ok(())
    }

    /// Puts an instance made of other parts in the place of the one that there is, with the state of
    /// that one, and lifts a quarantine. On failure everything stays as it was.
    pub(super) fn switch(&mut self, parts: Parts) -> Result<(), Loss> {
        let number = self.instances + 1;
        let mut next = Instance::start(&parts, number, &StartCause::Swapped)?;
        if let Some(saved) = &self.saved {
            next.restore(saved)?;
        }
        if !next.has_state() {
            self.saved = None;
        }
        let board = &parts.board;
        board.is_made_of(&parts.loaded);
        board.instance_is(number);
        next.show();
        board.is(PluginState::Running);
        self.instances = number;
        self.instance = Some(next);
        self.parts = parts;
        self.cause = StartCause::Swapped;
        self.losses_in_a_row = 0;
        self.not_before = Instant::now();
        self.quarantined = false;
        Ok(())
    }

    /// Takes the state of the instance, for the one after it. Whether there is any.
    pub(super) fn save(&mut self) -> Result<bool, Loss> {
        let Some(instance) = &mut self.instance else {
            return Ok(false);
        };
        match instance.save()? {
            None => Ok(false),
            Some(Ok(saved)) => {
                self.saved = Some(saved);
                Ok(true)
            }
            Some(Err(sentence)) => {
                self.guest_error("save", &sentence);
                Ok(false)
            }
        }
    }

    /// Says and counts that the guest answered a call with an error.
    pub(super) fn guest_error(&self, call: &str, sentence: &str) {
        let board = &self.parts.board;
        let sentence = format!("`{call}` failed: {sentence}");
        tracing::warn!(plugin = board.name(), "{sentence}");
        board.guest_failed(&sentence);
    }

    /// Drops the instance, counts what went with it, and decides what comes.
    pub(super) fn lose(&mut self, loss: &Loss, lost_events: u64) -> Result<(), Quarantined> {
        let board = &self.parts.board;
        let lived = self.instance.take().map(|instance| instance.age());
        if lived.is_some_and(|lived| lived >= self.policy.good_life) {
            self.losses_in_a_row = 0;
        }
        self.losses_in_a_row += 1;
        let sentence = loss.sentence();
        loss.count_on(board);
        self.cause = StartCause::Replaced(sentence.clone());
        let plugin = board.name();
        if self.losses_in_a_row >= self.parts.limits.instances {
            let reason = format!(
                "it lost {} instances in a row, the last one because {sentence}",
                self.losses_in_a_row
            );
            tracing::error!(plugin, "quarantined until it is reloaded: {reason}");
            board.is(PluginState::Quarantined { reason });
            self.quarantined = true;
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
        board.is(PluginState::BackingOff { reason: sentence });
        Ok(())
    }
}

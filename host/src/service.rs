//! What the service manager is told: ready, alive, stopping (`sd_notify`), and the beat of the main loop.
//!
//! Does nothing but beat where there is no service manager.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

use crate::status::{Pulse, Vitals};

/// How often the main loop shows that it turns.
const BEAT: Duration = Duration::from_secs(1);

/// Probes are attached and the first discovery is done.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// The last reports are being written.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

/// Shows that the main loop turns, and tells the service manager that the daemon lives, as often as it
/// wants to hear that. Where a loop is stuck it is not told, and restarts the daemon. Never ends.
pub async fn beat(vitals: &Vitals, pulse: &Pulse) -> std::convert::Infallible {
    // Half of the time that it waits, so that one late beat is no reason for a restart.
    let every = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    let mut beats = tokio::time::interval(every.unwrap_or(BEAT).min(BEAT));
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        pulse.turn();
        let health = vitals.health();
        if every.is_some() && health.ok {
            tell(NotifyState::Watchdog);
        }
        for stuck in health.checks.iter().filter(|check| !check.ok) {
            tracing::error!(what = stuck.name, finding = stuck.finding, "a loop is stuck");
        }
    }
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

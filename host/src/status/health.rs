//! Whether the daemon lives, and whether it does what it is there for.
//!
//! Health asks the loops alone: it never depends on whether anything happens in a container. Readiness
//! asks the probes, discovery and the plugins. Both say what, and since when.

use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::{Moment, Status};
use super::pulse::Pulse;

/// An answer of `/healthz` or `/readyz`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Whether every check holds.
    pub ok: bool,
    /// Since when that is so, as far as somebody looked.
    pub since: Moment,
    /// What was looked at.
    pub checks: Vec<Check>,
    /// What is worth knowing and makes nothing unready: a probe that this kernel cannot run, a
    /// container that has gone quiet.
    pub notes: Vec<String>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found, in one sentence.
    pub finding: String,
}

/// The loops of the daemon, and what was found when somebody last looked.
pub struct Vitals {
    pulses: Vec<Arc<Pulse>>,
    healthy: Since,
    ready: Since,
}

impl Vitals {
    /// Looks after these loops.
    pub fn new(pulses: Vec<Arc<Pulse>>) -> Vitals {
        Vitals { pulses, healthy: Since::default(), ready: Since::default() }
    }

    /// Whether every loop turns, or rests.
    pub fn health(&self) -> Health {
        let checks: Vec<Check> = self.pulses.iter().map(|pulse| loop_check(pulse)).collect();
        self.healthy.health(checks, Vec::new())
    }

    /// Whether events are captured and plugins get them.
    pub fn readiness(&self, status: &Status) -> Health {
        let live = status.probes.iter().filter(|probe| probe.live).count();
        let mut checks = vec![
            Check {
                name: "probes".to_owned(),
                ok: live > 0,
                finding: format!("{live} of {} probes are live", status.probes.len()),
            },
            Check {
                name: "discovery".to_owned(),
                ok: true,
                finding: format!("watches {} containers", status.containers.len()),
            },
        ];
        checks.extend(status.plugins.iter().map(|plugin| Check {
            name: format!("plugin {}", plugin.name),
            ok: plugin.state == "running",
            finding: match &plugin.reason {
                Some(reason) => format!("{}: {reason}", plugin.state),
                None => plugin.state.clone(),
            },
        }));
        let unseen = status.probes.iter().filter_map(|probe| {
            let reason = probe.reason.as_ref()?;
            Some(format!("nobody sees {}: {reason}", probe.sees))
        });
        let quiet = status.containers.iter().filter_map(|container| {
            Some(format!("{}: {}", container.name, container.quiet.as_ref()?))
        });
        let missing = status.daemon.missing_capabilities.iter();
        let missing = missing.map(|it| format!("{} is missing: {}", it.capability, it.without));
        self.ready.health(checks, unseen.chain(missing).chain(quiet).collect())
    }
}

fn loop_check(pulse: &Pulse) -> Check {
    let finding = match (pulse.stuck(), pulse.under_way()) {
        (Some(so_far), _) => format!(
            "stuck in one turn for {:.0} s, which may take {:.0} s",
            so_far.as_secs_f64(),
            pulse.limit().as_secs_f64()
        ),
        (None, Some(_)) => "turns".to_owned(),
        (None, None) => "waits for work".to_owned(),
    };
    Check { name: format!("loop {}", pulse.name()), ok: pulse.stuck().is_none(), finding }
}

/// What was found last, and when it was found first.
#[derive(Default)]
struct Since(Mutex<Option<(bool, Moment)>>);

impl Since {
    fn health(&self, checks: Vec<Check>, notes: Vec<String>) -> Health {
        let ok = checks.iter().all(|check| check.ok);
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *last {
            Some((before, since)) if before == ok => since,
            Some(_) | None => last.insert((ok, Moment::now())).1,
        };
        Health { ok, since, checks, notes }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stuck_loop_is_named_and_the_others_are_not_blamed() {
        let stuck = Arc::new(Pulse::new("capture", Duration::ZERO));
        let resting = Arc::new(Pulse::new("sinks", Duration::ZERO));
        let vitals = Vitals::new(vec![Arc::clone(&stuck), resting]);
        let before = vitals.health();
        assert!(before.ok);
        assert_eq!(vitals.health().since, before.since);
        stuck.turn();
        while vitals.health().ok {
            std::thread::yield_now();
        }
        let found = vitals.health();
        let failing: Vec<&str> =
            found.checks.iter().filter(|it| !it.ok).map(|it| it.name.as_str()).collect();
        assert_eq!(failing, ["loop capture"]);
        stuck.rest();
        assert!(vitals.health().ok);
    }
}

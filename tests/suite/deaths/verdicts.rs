//! No verdict where the trial withheld the evidence.

use rustix::process::{Pid, Signal, kill_process};
use whodunit_containers::{DaemonConfig, Pod};

use super::claim::Claim;
use super::{hear_nth, hear_numbers, mortal, process_death, stops};
use crate::Outcome;
use crate::report::{expect, expect_eq};

pub(super) fn claims() -> Vec<Claim> {
    vec![Claim::new(
        "verdicts::what_was_sent_before_the_daemon_came_is_unknown",
        &["unknown"],
        withheld,
    )]
}

fn withheld() -> Outcome {
    let pod = Pod::new("deaths")?;
    let app = mortal(&pod, &["run", "stop"]).start()?;
    let victim = hear_numbers(&app, "ready")?[0];
    let pid: Pid = stops::child_in_state(&app, 'T')?;
    // A stopped process takes the signal when it goes on, which is after the daemon came.
    kill_process(pid, Signal::TERM)?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    kill_process(pid, Signal::CONT)?;
    expect_eq("who was ended, and how", &hear_nth(&app, "buried", 0)?, &vec![victim, 15])?;
    let death = process_death(&config, &app, victim)?;
    death.expect_killed(15)?;
    for missing in ["started-before-daemon", "deciding-signal"] {
        expect(
            format!("{missing} is said: {:#}", death.record),
            death.unseen().contains(&missing),
        )?;
    }
    death.expect_verdict("unknown", 0..=0, &[])
}

//! Rules about signals that somebody sent.

use whodunit_sdk::death::{Disposition, Fact, Origin, Relation, Signal, SignalResult, Way};

use crate::case::{self, Case, SIGKILL, Seen};
use crate::finding::{Finding, SIGNAL};
use crate::words;

const SIGABRT: u8 = 6;

/// A stop signal so long before a kill belongs to something else. Grace periods of services reach that.
const LONGEST_GRACE_NS: u64 = 600_000_000_000;
/// The longest grace period that is common; beyond it, confidence falls.
const COMMON_GRACE_NS: u64 = 95_000_000_000;
/// Who was throttled for so many percent of the time that it had, could not stop.
const STARVED_PERCENT: u64 = 50;

/// The deciding signal, if a process sent it.
fn sent<'c, 'a>(case: &'c Case<'a>) -> Option<&'c Seen<Signal<'a>>> {
    case.decided_by.as_ref().filter(|decided_by| decided_by.what.origin == Origin::User)
}

/// It gave up by itself.
pub(crate) fn aborted(case: &Case<'_>) -> Option<Finding> {
    let decided_by = sent(case)?;
    let is_own = decided_by.what.relation == Relation::Oneself;
    if decided_by.what.number != SIGABRT || !is_own {
        return None;
    }
    let finding = Finding::new("aborted", 98).rests_on(decided_by.index).matters(&["signals-lost"]);
    Some(if case.core_dumped() { finding.also("The kernel wrote a core dump.") } else { finding })
}

/// The stop signal itself ended it: the default action of SIGTERM is the end.
pub(crate) fn stopped_in_time(case: &Case<'_>) -> Option<Finding> {
    let decided_by = sent(case)?;
    let signal = &decided_by.what;
    if signal.relation != Relation::Runtime || signal.number == SIGKILL {
        return None;
    }
    Some(
        Finding::new("stopped-in-time", 97)
            .word("sender", case::actor_name(&signal.sender))
            .word("signal", words::signal(signal.number))
            .word("gap", words::duration(decided_by.before))
            .rests_on(decided_by.index)
            .matters(SIGNAL)
            .also("It has no handler for it, so the signal itself ended it, without a chance to clean up."),
    )
}

/// It was asked to stop, did not, and was killed.
pub(crate) fn grace_exceeded(case: &Case<'_>) -> Option<Finding> {
    let decided_by = sent(case).filter(|decided_by| decided_by.what.number == SIGKILL)?;
    // Others kill without a grace period; what they sent before is in the timeline.
    if !matches!(decided_by.what.relation, Relation::Runtime | Relation::HostProcess)
        || is_doubtful(case, decided_by)
    {
        return None;
    }
    let stop = case.stop_signal().filter(|stop| {
        let gap = stop.before.saturating_sub(decided_by.before);
        gap <= LONGEST_GRACE_NS
            && matches!(stop.what.relation, Relation::Runtime | Relation::HostProcess)
    })?;
    let gap = stop.before.saturating_sub(decided_by.before);
    let throttling = case.last(|fact| match fact {
        Fact::Throttled { window, throttled } => Some((*window, *throttled)),
        _ => None,
    });
    let starved = throttling.as_ref().filter(|seen| {
        let (window, throttled) = seen.what;
        window > 0 && throttled.saturating_mul(100) >= window.saturating_mul(STARVED_PERCENT)
    });
    let had_no_effect = stop.what.result == SignalResult::Ignored;
    let (id, confidence) = match stop.what.disposition {
        Disposition::UnkillableInit => ("grace-exceeded-no-handler", 98),
        Disposition::Ignored => ("grace-exceeded-ignored", 98),
        // The kernel says `ignored` of both; which of them it was is what nobody read.
        Disposition::Default if had_no_effect && case.is_init() => {
            ("grace-exceeded-no-handler", 95)
        }
        Disposition::Unknown if had_no_effect => ("grace-exceeded", 85),
        Disposition::Blocked => ("grace-exceeded-blocked", 90),
        Disposition::Handler if starved.is_some() => ("grace-exceeded-starved", 92),
        Disposition::Handler => ("grace-exceeded-slow", 93),
        Disposition::Default | Disposition::Unknown => ("grace-exceeded", 85),
    };
    let mut finding = Finding::new(id, confidence)
        .word("sender", case::actor_name(&decided_by.what.sender))
        .word("signal", words::signal(stop.what.number))
        .word("gap", words::duration(gap))
        .rests_on(stop.index)
        .rests_on(decided_by.index)
        .matters(SIGNAL)
        .matters(&["disposition"]);
    if gap > COMMON_GRACE_NS {
        finding = finding.less(10);
    }
    match stop.what.disposition {
        Disposition::Handler => finding = finding.matters(&["throttling", "cpu"]),
        Disposition::Unknown if had_no_effect => {
            finding = finding.also("The kernel threw the signal away: the process ignores it, or has no handler for it.");
        }
        Disposition::Default
        | Disposition::Ignored
        | Disposition::Blocked
        | Disposition::UnkillableInit
        | Disposition::Unknown => {}
    }
    if let Some(seen) = &throttling {
        let (window, throttled) = (words::duration(seen.what.0), words::duration(seen.what.1));
        if id == "grace-exceeded-starved" {
            finding =
                finding.rests_on(seen.index).word("throttled", throttled).word("window", window);
        } else if seen.what.1 > 0 {
            finding = finding.also(format!(
                "In that time its container was throttled for {throttled} of {window}."
            ));
        }
    }
    Some(finding)
}

/// Who sent it.
pub(crate) fn killed_by(case: &Case<'_>) -> Option<Finding> {
    let decided_by = sent(case)?;
    let signal = &decided_by.what;
    if is_doubtful(case, decided_by) {
        return None;
    }
    let (id, confidence) = match signal.relation {
        Relation::Oneself => ("killed-by-self", 97),
        Relation::Parent => ("killed-by-parent", 97),
        Relation::Child => ("killed-by-child", 97),
        Relation::SameContainer => ("killed-by-same-container", 97),
        Relation::ExecSession => ("killed-by-exec", 95),
        Relation::Runtime => ("killed-by-runtime", 95),
        Relation::OtherContainer => ("killed-by-other-container", 97),
        Relation::HostProcess => ("killed-by-host-process", 97),
        Relation::CgroupKill
        | Relation::NamespaceTeardown
        | Relation::Kernel
        | Relation::Unknown => return None,
    };
    let mut finding = Finding::new(id, confidence)
        .word("sender", case::actor_name(&signal.sender))
        .word("signal", words::signal(signal.number))
        .rests_on(decided_by.index)
        .matters(SIGNAL);
    finding = match signal.way {
        Way::Group => finding.also("It was sent to a whole process group, or to every process."),
        Way::Thread if signal.relation != Relation::Oneself => {
            finding.also("It was sent to one thread, and ended the whole process.")
        }
        _ => finding,
    };
    finding = finding.also(format!("The sender: {}.", case::actor(&signal.sender)));
    if signal.relation == Relation::Runtime {
        // That there was no stop signal is a claim about what was not there.
        finding = finding.matters(&["started-before-daemon"]);
    }
    if let Some(stop) = case.stop_signal() {
        let gap = words::duration(stop.before.saturating_sub(decided_by.before));
        finding = finding.rests_on(stop.index).also(format!(
            "{gap} before, {} had come from {}.",
            words::signal(stop.what.number),
            case::actor_name(&stop.what.sender)
        ));
    }
    Some(finding)
}

/// Whether the sender may be somebody else than it seems: whose cgroup it was in is not known.
fn is_doubtful(case: &Case<'_>, decided_by: &Seen<Signal<'_>>) -> bool {
    let by_place = match decided_by.what.relation {
        Relation::HostProcess | Relation::OtherContainer => true,
        Relation::Oneself
        | Relation::Parent
        | Relation::Child
        | Relation::SameContainer
        | Relation::ExecSession
        | Relation::Runtime
        | Relation::CgroupKill
        | Relation::NamespaceTeardown
        | Relation::Kernel
        | Relation::Unknown => false,
    };
    by_place && case.is_unseen("sender-container")
}

/// Why there is no verdict.
pub(crate) fn unknown(case: &Case<'_>) -> Finding {
    let signal = case.killed_by().map(words::signal).unwrap_or_default();
    let Some(decided_by) = &case.decided_by else {
        let why = if case.is_unseen("signals-not-watched") {
            "signals are not watched"
        } else if case.is_unseen("signals-lost") || case.lost_records() > 0 {
            "records of signals were lost"
        } else {
            "that signal was not seen"
        };
        return Finding::unknown(format!("{signal} ended it, and {why}"));
    };
    let reason = match decided_by.what.origin {
        Origin::Kernel => format!("the kernel made {signal} for a reason that was not seen"),
        Origin::User | Origin::Unknown => {
            format!(
                "{signal} came from {}, and what that is to it was not seen",
                case::actor_name(&decided_by.what.sender)
            )
        }
    };
    Finding::unknown(reason).rests_on(decided_by.index)
}

//! Rules about processes that ended by themselves.

use whodunit_sdk::death::{Fact, Relation, Signal, WaitStatus};

use crate::case::{self, Case, Seen};
use crate::finding::Finding;
use crate::words;

/// A runtime that asked a container to stop would have killed it by then.
const LONGEST_STOP_NS: u64 = 600_000_000_000;
/// Beyond the common grace periods, that the one followed from the other is less sure.
const COMMON_STOP_NS: u64 = 35_000_000_000;
/// Others send SIGTERM for many reasons (to reload, to pass it on): only an end right after it follows from it.
const SOON_NS: u64 = 2_000_000_000;
/// A shell exits right after its child.
const CHILD_SOON_NS: u64 = 5_000_000_000;
/// Codes of shells: 126 and 127, and from 129 on 128 + a signal's number.
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;
const SIGNAL_BASE: u8 = 128;
const LAST_SIGNAL: u8 = 64;
/// Programs to which these codes mean that.
const SHELLS: [&str; 10] =
    ["sh", "ash", "bash", "dash", "zsh", "ksh", "mksh", "busybox", "toybox", "fish"];
const ENOENT: i32 = -2;
const ENOTDIR: i32 = -20;

/// What may change the code that a program exits with after a stop signal: 0, or 128 + its number.
fn is_orderly(code: u8, signal: u8) -> bool {
    code == 0 || code == SIGNAL_BASE.saturating_add(signal)
}

/// The stop signal that its end followed from.
fn followed<'c, 'a>(case: &'c Case<'a>) -> Option<&'c Seen<Signal<'a>>> {
    case.stop_signal().filter(|stop| {
        let within = match stop.what.relation {
            Relation::Runtime => LONGEST_STOP_NS,
            _ => SOON_NS,
        };
        stop.before <= within && case::may_notice(&stop.what)
    })
}

/// It was asked to stop, and did.
pub(crate) fn stopped(case: &Case<'_>) -> Option<Finding> {
    let code = case.exit_code()?;
    let stop = followed(case)?;
    let is_runtime = stop.what.relation == Relation::Runtime;
    let (id, confidence) = match (is_runtime, is_orderly(code, stop.what.number)) {
        (true, true) => ("stopped-in-time", 97),
        (true, false) => ("stopped-with-error", 90),
        (false, true) => ("stopped-on-request", 90),
        (false, false) => return None,
    };
    let finding = Finding::new(id, confidence)
        .word("sender", case::actor_name(&stop.what.sender))
        .word("signal", words::signal(stop.what.number))
        .word("gap", words::duration(stop.before))
        .word("code", code.to_string())
        .rests_on(stop.index)
        .matters(&["sender-name", "sender-container", "disposition"]);
    let finding = if stop.before > COMMON_STOP_NS { finding.less(15) } else { finding };
    Some(if code == 0 { finding } else { finding.also(format!("Its exit code was {code}.")) })
}

/// A signal ended its child, and it passed that on.
pub(crate) fn child_killed(case: &Case<'_>) -> Option<Finding> {
    let code = case.exit_code()?;
    let number = signal_of(code)?;
    let child = case.last(|fact| match fact {
        Fact::ChildExited { child, status: WaitStatus::Killed { signal, .. }, .. }
            if *signal == number =>
        {
            Some(format!("{} (pid {})", child.name, child.pid))
        }
        _ => None,
    });
    let child = child.filter(|child| child.before <= CHILD_SOON_NS)?;
    Some(
        Finding::new("child-killed", 93)
            .word("code", code.to_string())
            .word("signal", words::signal(number))
            .word("child", child.what)
            .rests_on(child.index),
    )
}

/// Its program, or its child's, could not be executed; or a shell says so.
pub(crate) fn not_executed(case: &Case<'_>) -> Option<Finding> {
    let code = case.exit_code()?;
    let id = match code {
        CANNOT_EXECUTE => "cannot-execute",
        NOT_FOUND => "not-found",
        _ => return None,
    };
    let fits = |outcome: i32| {
        let is_missing = matches!(outcome, ENOENT | ENOTDIR);
        is_missing == (code == NOT_FOUND)
    };
    let own = case.last(|fact| match fact {
        Fact::Executed { program, outcome } if *outcome < 0 && fits(*outcome) => {
            Some((*program, *outcome))
        }
        _ => None,
    });
    let child = case.last(|fact| match fact {
        Fact::ChildExited {
            status: WaitStatus::Exited(of_child), refused: Some(refused), ..
        } if *of_child == code && fits(refused.1) => Some(*refused),
        _ => None,
    });
    let child = child.filter(|child| child.before <= CHILD_SOON_NS);
    let refused = |seen: Seen<(&str, i32)>, who: &str, confidence| {
        let (program, outcome) = seen.what;
        Finding::new(id, confidence)
            .rests_on(seen.index)
            .also(format!("{who} `{program}`, and the kernel refused (errno {}).", -outcome))
    };
    let finding = match (own, child) {
        (Some(own), _) => refused(own, "It asked for", 97),
        (None, Some(child)) => refused(child, "Its child asked for", 95),
        // A shell looks for a command before it executes it, and then says so by its code alone. So does a script.
        (None, None) if is_shell(case) => Finding::new(id, 70)
            .also("That is what this code means to shells; no failed execution was seen, and a script may exit with any code.")
            .matters(&["program"]),
        (None, None) => return None,
    };
    Some(finding.word("code", code.to_string()))
}

/// Whether the process is a shell, or could not be seen to be none.
fn is_shell(case: &Case<'_>) -> bool {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let program = case.process.program.map(name);
    program.is_none_or(|program| SHELLS.contains(&program.as_str()))
        || SHELLS.contains(&case.process.name)
}

/// A code that stands for a signal, with no child that it fits.
pub(crate) fn like_signal(case: &Case<'_>) -> Option<Finding> {
    let code = case.exit_code()?;
    let number = signal_of(code)?;
    let finding = Finding::new("exited-like-signal", 80)
        .word("code", code.to_string())
        .word("signal", words::signal(number));
    Some(with_hints(case, finding))
}

/// It finished.
pub(crate) fn clean(case: &Case<'_>) -> Option<Finding> {
    (case.exit_code()? == 0).then(|| with_earlier_stop(case, Finding::new("clean-exit", 98)))
}

/// It reported an error.
pub(crate) fn error(case: &Case<'_>) -> Option<Finding> {
    let code = case.exit_code()?;
    let mut finding = Finding::new("application-error", 96).word("code", code.to_string());
    if matches!(code, CANNOT_EXECUTE | NOT_FOUND) {
        finding = finding.less(8).also(
            "To shells this code means that a program could not be executed, but this is no shell, and no failed execution was seen.",
        );
    }
    if code == NOT_FOUND {
        finding = finding.less(20).also(
            "The dynamic loader exits with it too, where a shared library is missing: then the last output names it.",
        );
    }
    Some(with_hints(case, with_earlier_stop(case, finding)))
}

/// Mentions a stop signal that its end did not follow from, as far as can be told.
fn with_earlier_stop(case: &Case<'_>, finding: Finding) -> Finding {
    let Some(stop) = case.stop_signal() else {
        return finding.matters(&["signals-lost", "signals-not-watched"]);
    };
    let (signal, gap) = (words::signal(stop.what.number), words::duration(stop.before));
    let sender = case::actor_name(&stop.what.sender);
    let said = format!("{signal} had come from {sender} {gap} before");
    if case::may_notice(&stop.what) {
        finding.less(10).also(format!("{said}; that it ended because of it is not likely."))
    } else {
        finding.also(format!("{said}, and had no effect on it."))
    }
}

/// Mentions what may be behind an error.
fn with_hints(case: &Case<'_>, mut finding: Finding) -> Finding {
    if let Some(failures) = case.fork_failures() {
        finding = finding.rests_on(failures.index).also(format!(
            "Its container could not start a process {} times: the limit of processes (`pids.max`) was reached.",
            failures.what
        ));
    }
    finding
}

fn signal_of(code: u8) -> Option<u8> {
    let number = code.checked_sub(SIGNAL_BASE)?;
    (1..=LAST_SIGNAL).contains(&number).then_some(number)
}

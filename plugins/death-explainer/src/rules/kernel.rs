//! Rules about signals that the kernel makes, each for a reason of its own.

use whodunit_sdk::death::{Actor, Disposition, Fact, Origin, Relation, Signal, Way};

use crate::case::{self, Case, SIGKILL, Seen};
use crate::finding::{Finding, SIGNAL};
use crate::words;

const SIGHUP: u8 = 1;
const SIGINT: u8 = 2;
const SIGQUIT: u8 = 3;
const SIGABRT: u8 = 6;
const SIGPIPE: u8 = 13;
const SIGALRM: u8 = 14;
const SIGXCPU: u8 = 24;
const SIGXFSZ: u8 = 25;
const SIGVTALRM: u8 = 26;
const SIGPROF: u8 = 27;
const SIGSYS: u8 = 31;

/// Faults, with their verdicts.
const FAULTS: [(u8, &str); 5] = [
    (4, "crashed-ill"),
    (5, "crashed-trap"),
    (7, "crashed-bus"),
    (8, "crashed-fpe"),
    (11, "crashed-segv"),
];

/// From a SIGABRT that came to nothing to the instruction behind it, on a machine under load.
const ABORT_NS: u64 = 1_000_000_000;
/// A fault so close to address 0 is a null pointer, with a member or an index added to it.
const NULL_PAGE: u64 = 0x1_0000;
/// `SEGV_MAPERR` and `SEGV_ACCERR`: nothing is there, and it is there and may not be used so.
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
/// `SI_TIMER`: a timer of `timer_create`, with whichever signal it was made.
const SI_TIMER: i32 = -2;
/// `SI_KERNEL`: the processor told the kernel no address.
const SI_KERNEL: i32 = 128;
/// `BUS_MCEERR_AR`: the memory itself is damaged.
const BUS_MCEERR_AR: i32 = 4;

/// The deciding signal, if the kernel made it.
fn made_by_kernel<'c, 'a>(case: &'c Case<'a>) -> Option<&'c Seen<Signal<'a>>> {
    case.decided_by.as_ref().filter(|decided_by| decided_by.what.origin == Origin::Kernel)
}

/// The deciding signal, if the kernel made it in the name of the process: `send_sig` without details
/// (SIGPIPE, SIGXFSZ) looks like a `kill` of oneself.
fn made_for_itself<'c, 'a>(case: &'c Case<'a>) -> Option<&'c Seen<Signal<'a>>> {
    case.decided_by.as_ref().filter(|decided_by| {
        let signal = &decided_by.what;
        signal.origin == Origin::Kernel
            || signal.way == Way::Exception
            || signal.relation == Relation::Oneself && signal.si_code == 0
    })
}

/// A filter did not allow a system call.
pub(crate) fn seccomp(case: &Case<'_>) -> Option<Finding> {
    if case.killed_by() != Some(SIGSYS) {
        return None;
    }
    let call = case.last(|fact| match fact {
        Fact::Seccomp { syscall, name } => Some(match name {
            Some(name) => (*name).to_owned(),
            None => format!("system call {syscall}"),
        }),
        _ => None,
    });
    let decided_by = made_by_kernel(case);
    let finding = match (&call, decided_by) {
        (Some(call), _) => {
            Finding::new("seccomp-violation", 99).word("syscall", &*call.what).rests_on(call.index)
        }
        (None, Some(_)) => {
            Finding::new("seccomp-violation", 90).word("syscall", "a system call that was not seen")
        }
        // Whoever sends a signal is seen. Only the filter of a kernel before 5.16 ends a process by it and sends none.
        (None, None) if case.is_unseen("seccomp-syscall") && !may_lack_signals(case) => {
            Finding::new("seccomp-violation", 90).word("syscall", "a system call that was not seen")
        }
        (None, None) => return None,
    };
    let finding = finding.matters(&["seccomp-syscall"]);
    Some(match decided_by {
        Some(decided_by) => finding.rests_on(decided_by.index),
        None => finding,
    })
}

/// Whether a signal may have come that was not seen.
fn may_lack_signals(case: &Case<'_>) -> bool {
    let unseen =
        ["started-before-daemon", "signals-not-watched", "signals-lost", "signals-forgotten"];
    unseen.into_iter().any(|identifier| case.is_unseen(identifier)) || case.lost_records() > 0
}

/// The first process of a pid namespace gave up by itself. It gets no SIGABRT from inside, so its C library goes on to an
/// instruction that the processor refuses: the status says SIGSEGV or the like, and no memory was touched.
pub(crate) fn init_aborted(case: &Case<'_>) -> Option<Finding> {
    let number = case.killed_by()?;
    let decided_by = made_by_kernel(case)?;
    let abort = case.signals.iter().rev().find(|seen| {
        let signal = &seen.what;
        let is_soon = seen.before.saturating_sub(decided_by.before) <= ABORT_NS;
        let came_to_nothing = signal.disposition == Disposition::UnkillableInit;
        let is_own = signal.relation == Relation::Oneself;
        signal.number == SIGABRT && is_own && came_to_nothing && is_soon
    })?;
    FAULTS.iter().find(|(signal, _)| *signal == number)?;
    let finding = Finding::new("aborted", 95)
        .rests_on(abort.index)
        .rests_on(decided_by.index)
        .matters(&["signals-lost"])
        .also(format!(
            "The first process of a container gets no SIGABRT of its own, so the C library ended it with an instruction that the processor refuses: that is why its status says {}.",
            words::signal(number)
        ));
    let fault = case.last(|fact| matches!(fact, Fact::Fault { .. }).then_some(()));
    Some(match fault {
        Some(fault) => finding.rests_on(fault.index),
        None => finding,
    })
}

/// The processor refused what the program did.
pub(crate) fn fault(case: &Case<'_>) -> Option<Finding> {
    let number = case.killed_by()?;
    let (_, id) = FAULTS.iter().find(|(signal, _)| *signal == number)?;
    let fault = case.last(|fact| match fact {
        Fact::Fault { signal, si_code, address } if *signal == number => Some((*si_code, *address)),
        _ => None,
    });
    let decided_by = made_by_kernel(case);
    // A signal of that number that somebody sent is no fault, and neither is one that nobody saw.
    if decided_by.is_none() && (case.decided_by.is_some() || fault.is_none()) {
        return None;
    }
    let told = fault.as_ref().filter(|fault| fault.what.0 != SI_KERNEL);
    let at = told.map(|fault| format!(" at address {:#x}", fault.what.1));
    let confidence = if decided_by.is_some() { 98 } else { 90 };
    let mut finding = Finding::new(id, confidence)
        .word("at", at.unwrap_or_default())
        .matters(&["fault-address", "signals-lost"]);
    if let Some(decided_by) = decided_by {
        finding = finding.rests_on(decided_by.index);
    }
    if let Some(fault) = fault {
        let (si_code, address) = fault.what;
        finding = finding.rests_on(fault.index);
        finding =
            match (number, si_code) {
                (11, SEGV_MAPERR) if address < NULL_PAGE => {
                    finding.also("The address is next to 0: a null pointer was followed.")
                }
                (11, SEGV_MAPERR) => finding.also("Nothing is mapped at that address."),
                (11, SEGV_ACCERR) => finding
                    .also("Something is mapped there, and may not be written or executed so."),
                (7, BUS_MCEERR_AR) => finding
                    .also("The memory itself is damaged: look at the machine's hardware log."),
                _ => finding,
            };
    }
    Some(if case.core_dumped() { finding.also("The kernel wrote a core dump.") } else { finding })
}

/// The process ran into a limit of its own.
pub(crate) fn own_limit(case: &Case<'_>) -> Option<Finding> {
    let limit = |name: &str| {
        case.last(|fact| match fact {
            Fact::ResourceLimit { resource, limit } if *resource == name => Some(*limit),
            _ => None,
        })
    };
    let (cpu, size) = (limit("cpu"), limit("fsize"));
    let number = case.killed_by()?;
    let (id, decided_by, limit, unit) = match number {
        SIGXCPU => ("cpu-limit", made_by_kernel(case)?, cpu, "s"),
        // The hard limit is a SIGKILL by the kernel.
        SIGKILL if cpu.is_some() => ("cpu-limit", made_by_kernel(case)?, cpu, "s"),
        SIGXFSZ => ("file-size-limit", made_for_itself(case)?, size, "bytes"),
        _ => return None,
    };
    let amount = limit.as_ref().and_then(|limit| limit.what);
    let finding = Finding::new(id, if limit.is_some() { 98 } else { 93 })
        .word("limit", amount.map_or(String::new(), |amount| format!(", {amount} {unit}")))
        .rests_on(decided_by.index)
        .matters(&["resource-limit", "signals-lost"]);
    Some(match limit {
        Some(limit) => finding.rests_on(limit.index),
        None => finding,
    })
}

/// It wrote to a pipe that nobody reads.
pub(crate) fn broken_pipe(case: &Case<'_>) -> Option<Finding> {
    let decided_by = made_for_itself(case).filter(|by| by.what.number == SIGPIPE)?;
    // `kill(getpid(), SIGPIPE)` looks the same where the road was not seen.
    let is_sure = decided_by.what.origin == Origin::Kernel || decided_by.what.way == Way::Exception;
    let finding = Finding::new("broken-pipe", if is_sure { 97 } else { 90 });
    Some(finding.rests_on(decided_by.index).matters(&["signals-lost"]))
}

/// A timer of its own ended it.
pub(crate) fn timer(case: &Case<'_>) -> Option<Finding> {
    let decided_by = made_by_kernel(case)?;
    let is_timers = decided_by.what.si_code == SI_TIMER
        || matches!(decided_by.what.number, SIGALRM | SIGVTALRM | SIGPROF);
    is_timers.then(|| {
        Finding::new("timer-expired", 95)
            .word("signal", words::signal(decided_by.what.number))
            .rests_on(decided_by.index)
            .matters(&["signals-lost"])
    })
}

/// Its terminal ended it.
pub(crate) fn terminal(case: &Case<'_>) -> Option<Finding> {
    let decided_by = made_by_kernel(case)?;
    let is_kernels_own = decided_by.what.way == Way::Kernel;
    let is_terminals = matches!(decided_by.what.number, SIGHUP | SIGINT | SIGQUIT);
    (is_kernels_own && is_terminals).then(|| {
        Finding::new("terminal-signal", 90)
            .word("signal", words::signal(decided_by.what.number))
            .rests_on(decided_by.index)
            .matters(&["signals-lost"])
    })
}

/// It had asked for a signal at its parent's end.
pub(crate) fn parent_death(case: &Case<'_>) -> Option<Finding> {
    let decided_by = case.decided_by.as_ref().filter(|by| by.what.way == Way::ParentDeath)?;
    Some(
        Finding::new("parent-death-signal", 97)
            .word("signal", words::signal(decided_by.what.number))
            .rests_on(decided_by.index)
            .matters(&["signals-lost"]),
    )
}

/// Somebody wrote to `cgroup.kill`.
pub(crate) fn cgroup_kill(case: &Case<'_>) -> Option<Finding> {
    let decided_by = case.decided_by.as_ref().filter(|by| {
        by.what.number == SIGKILL
            && (by.what.way == Way::CgroupKill || by.what.relation == Relation::CgroupKill)
    })?;
    let write = case.last(|fact| match fact {
        Fact::CgroupKill { cgroup, writer } => Some(((*cgroup).to_owned(), writer.clone())),
        _ => None,
    });
    let (cgroup, writer) = match &write {
        Some(write) => (write.what.0.as_str(), &write.what.1),
        None => ("", &decided_by.what.sender),
    };
    let cgroup = if cgroup.is_empty() { String::new() } else { format!(" (cgroup {cgroup})") };
    let is_named = matches!(writer, Actor::Process(_));
    let finding = Finding::new("cgroup-kill", if is_named { 97 } else { 85 })
        .word("sender", case::actor_name(writer))
        .word("cgroup", cgroup)
        .rests_on(decided_by.index)
        .matters(SIGNAL);
    Some(match write {
        Some(write) => finding.rests_on(write.index),
        None => finding,
    })
}

/// The first process of its pid namespace ended.
pub(crate) fn init_died(case: &Case<'_>) -> Option<Finding> {
    let decided_by = case.decided_by.as_ref().filter(|by| {
        by.what.number == SIGKILL
            && (by.what.way == Way::NamespaceTeardown
                || by.what.relation == Relation::NamespaceTeardown)
    })?;
    let death = case.last(|fact| match fact {
        Fact::InitDied { init, .. } => Some(format!("{} (pid {})", init.name, init.pid)),
        _ => None,
    });
    let init = match (&death, &decided_by.what.sender) {
        (Some(death), _) => death.what.clone(),
        (None, Actor::Process(init)) => format!("{} (pid {})", init.name, init.pid),
        (None, Actor::Kernel | Actor::Unknown) => "which was not seen".to_owned(),
    };
    let finding = Finding::new("init-died", if death.is_some() { 99 } else { 95 })
        .word("init", init)
        .rests_on(decided_by.index)
        .matters(&["signals-lost"]);
    Some(match death {
        Some(death) => finding.rests_on(death.index),
        None => finding,
    })
}

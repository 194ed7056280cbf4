//! Rules about want of memory.

use whodunit_sdk::death::{Fact, OomKill, OomScope, Origin, Relation, Way};

use crate::case::{Case, SIGKILL, Seen};
use crate::finding::Finding;
use crate::words;

/// A group kill ends its processes within that time of the first, on a machine under load.
const GROUP_KILL_NS: u64 = 5_000_000_000;
/// A first process that ends with an error so soon after a process of its container was killed followed it.
const FOLLOWED_NS: u64 = 10_000_000_000;

/// The kernel chose this process, or all of its cgroup with it.
pub(crate) fn oom_kill(case: &Case<'_>) -> Option<Finding> {
    if case.killed_by() != Some(SIGKILL) {
        return None;
    }
    let kernel_made = case.decided_by.as_ref().is_none_or(|decided_by| {
        decided_by.what.origin == Origin::Kernel || decided_by.what.way == Way::Oom
    });
    let by_oom = case.decided_by.as_ref().is_some_and(|decided_by| decided_by.what.way == Way::Oom);
    let kill = case.last(|fact| match fact {
        Fact::OomKill(kill) if kill.is_self => Some(kill.clone()),
        _ => None,
    });
    let kill = kill.or_else(|| {
        // Killed along: with its group, or because it shares the victim's memory.
        let seen = case.last(|fact| match fact {
            Fact::OomKill(kill) if kill.group_kill || by_oom => Some(kill.clone()),
            _ => None,
        })?;
        (case.decided_by.is_some() && kernel_made && seen.before <= GROUP_KILL_NS).then_some(seen)
    })?;
    if !kernel_made {
        // Whoever killed it first did it: the kernel may choose a process that is on its way out already.
        let earlier = case.decided_by.as_ref().is_some_and(|by| by.before > kill.before);
        if earlier {
            return None;
        }
    }
    Some(verdict(case, &kill))
}

fn verdict(case: &Case<'_>, seen: &Seen<OomKill<'_>>) -> Finding {
    let kill = &seen.what;
    let (id, confidence) = match kill.scope {
        OomScope::Own => ("oom-own-limit", 99),
        OomScope::Ancestor => ("oom-ancestor-limit", 99),
        OomScope::Node => ("oom-node", 97),
        OomScope::Unknown => ("oom-limit-unknown", 95),
    };
    let limit = match (kill.limit, kill.usage) {
        (Some(limit), _) => format!(" of {}", words::bytes(limit)),
        (None, _) => String::new(),
    };
    let cgroup = if kill.cgroup.is_empty() { "a cgroup above" } else { kill.cgroup };
    let mut finding = Finding::new(id, confidence)
        .word("limit", limit)
        .word("cgroup", cgroup)
        .rests_on(seen.index)
        .matters(&["oom-scope", "oom-trigger"]);
    if let Some(decided_by) = &case.decided_by {
        finding = finding.rests_on(decided_by.index);
    }
    if !kill.is_self {
        finding = finding.less(5).also(if kill.group_kill {
            format!(
                "The kernel killed the whole cgroup (`memory.oom.group`); it had chosen {} (pid {}).",
                kill.victim.name, kill.victim.pid
            )
        } else {
            format!(
                "The kernel chose {} (pid {}), whose memory this process shares.",
                kill.victim.name, kill.victim.pid
            )
        });
    }
    if let Some((pid, name)) = kill.trigger
        && pid != kill.victim.pid
    {
        finding = finding.also(format!(
            "It was {name} (pid {pid}) that asked for the memory that was not there."
        ));
    }
    if let (Some(usage), Some(limit)) = (kill.usage, kill.limit) {
        finding = finding.also(format!(
            "{} of {} were in use.",
            words::bytes(usage),
            words::bytes(limit)
        ));
    } else if let Some(memory) = case.memory() {
        finding = finding
            .rests_on(memory.index)
            .also(format!("The container's memory before its end: {}.", memory.what));
    }
    if !case.is_init() {
        finding = finding.also(
            "This was not the container's first process, so the container need not end with it.",
        );
    }
    finding
}

/// The first process ended by itself, after another process of its container was killed for want of memory.
pub(crate) fn oom_child(case: &Case<'_>) -> Option<Finding> {
    let code = case.exit_code()?;
    let is_init = case.is_init();
    let seen = case.last(|fact| match fact {
        Fact::OomKill(kill) if !kill.is_self && is_init => {
            Some((kill.victim.name, kill.victim.pid))
        }
        Fact::ChildExited { child, oom_killed: true, .. } => Some((child.name, child.pid)),
        _ => None,
    })?;
    let (name, pid) = seen.what;
    // What the first process saw is its child's end. The kernel tells of the kill at about that time: before, or after.
    let its_end = case.last(|fact| match fact {
        Fact::ChildExited { child, oom_killed: true, .. } if child.pid == pid => Some(()),
        _ => None,
    });
    let (index, before) = its_end.map_or((seen.index, seen.before), |end| (end.index, end.before));
    let sent_home = case
        .signals
        .iter()
        .any(|signal| signal.before < before && signal.what.relation == Relation::Runtime);
    let follows = before <= FOLLOWED_NS && !sent_home;
    let (id, confidence) = match code {
        0 => ("oom-child-survived", 95),
        137 if !sent_home => ("oom-child-followed", 95),
        _ if follows => ("oom-child-followed", 85),
        _ => return None,
    };
    Some(
        Finding::new(id, confidence)
            .word("code", code.to_string())
            .word("victim", format!("{name} (pid {pid})"))
            .word("gap", words::duration(before))
            .rests_on(index),
    )
}

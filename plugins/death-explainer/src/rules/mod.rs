//! The rules, in the order in which they are asked. Each gives a verdict, or nothing where it has no say.

mod exit;
mod kernel;
mod kill;
mod memory;

#[cfg(test)]
mod tests;

use crate::case::Case;
use crate::finding::Finding;

type Rule = fn(&Case<'_>) -> Option<Finding>;

/// What may have ended a process by a signal: first what the kernel did and why, then who sent it.
const KILLED: &[Rule] = &[
    memory::oom_kill,
    kernel::seccomp,
    kernel::init_aborted,
    kernel::fault,
    kernel::own_limit,
    kernel::broken_pipe,
    kernel::timer,
    kernel::terminal,
    kernel::parent_death,
    kernel::cgroup_kill,
    kernel::init_died,
    kill::aborted,
    kill::stopped_in_time,
    kill::grace_exceeded,
    kill::killed_by,
];

/// What may be behind an exit code.
const EXITED: &[Rule] = &[
    exit::stopped,
    memory::oom_child,
    exit::child_killed,
    exit::not_executed,
    exit::like_signal,
    exit::clean,
    exit::error,
];

/// The first verdict that a rule finds; `unknown` with the reason where none does.
pub(crate) fn decide(case: &Case<'_>) -> Finding {
    let rules = if case.killed_by().is_some() { KILLED } else { EXITED };
    rules.iter().find_map(|rule| rule(case)).unwrap_or_else(|| kill::unknown(case))
}

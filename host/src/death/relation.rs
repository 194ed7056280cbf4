//! What the sender of a signal is to its target.
//!
//! Pure: takes what is known of both, and gives one word. Where two words fit, the nearer one wins: a parent in the same
//! container is a parent.

use super::record::{Relation, SignalWay};

/// Programs that start and stop containers, by the names that the kernel gives them (at most 15 bytes).
const RUNTIMES: [&str; 14] = [
    "runc",
    "crun",
    "youki",
    "containerd",
    "containerd-shim",
    "conmon",
    "conmonrs",
    "dockerd",
    "docker-init",
    "kubelet",
    "crio",
    "podman",
    "systemd-nspawn",
    "lxc-start",
];

/// Whether a process is a container runtime's, as far as its name tells. runc calls its own threads `runc:[...]`.
pub(crate) fn is_runtime(comm: &str) -> bool {
    RUNTIMES.contains(&comm) || comm.starts_with("containerd-shim") || comm.starts_with("runc:[")
}

/// Where a process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// In the target's container.
    Same,
    /// In another container.
    Other,
    /// In none.
    Host,
    /// It is not known.
    Unknown,
}

/// What is known of the sender of a signal, seen from its target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing<'a> {
    /// The road that the signal came by.
    pub(crate) way: SignalWay,
    /// The sender is the target.
    pub(crate) is_target: bool,
    /// The sender is the target's parent.
    pub(crate) is_parent: bool,
    /// The target is among the sender's parents.
    pub(crate) is_descendant: bool,
    /// The sender came into the running container from outside, or descends from one that did.
    pub(crate) is_session: bool,
    /// Where the sender lives.
    pub(crate) home: Home,
    /// Names of the sender, its parent, the parent of that, ...
    pub(crate) names: &'a [String],
}

/// What the sender is to the target.
pub(crate) fn relation(standing: &Standing<'_>) -> Relation {
    match standing.way {
        SignalWay::CgroupKill => return Relation::CgroupKill,
        SignalWay::NamespaceTeardown => return Relation::NamespaceTeardown,
        SignalWay::ParentDeath => return Relation::Parent,
        SignalWay::Exception | SignalWay::Oom | SignalWay::Kernel => return Relation::Kernel,
        SignalWay::Unknown => return Relation::Unknown,
        SignalWay::Kill
        | SignalWay::Group
        | SignalWay::Thread
        | SignalWay::Queue
        | SignalWay::Pidfd => {}
    }
    if standing.is_target {
        return Relation::Oneself;
    }
    match standing.home {
        Home::Same if standing.is_parent => Relation::Parent,
        Home::Same if standing.is_session => Relation::ExecSession,
        Home::Same if standing.is_descendant => Relation::Child,
        Home::Same => Relation::SameContainer,
        Home::Other => Relation::OtherContainer,
        // Who was started by a shim or a monitor acts for it; who was started by runc alone may be anybody.
        Home::Host if standing.names.iter().any(|name| is_runtime(name)) => Relation::Runtime,
        Home::Host => Relation::HostProcess,
        Home::Unknown => Relation::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: Relation, names: &[&str], change: impl FnOnce(&mut Standing<'_>)) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut standing = Standing {
            way: SignalWay::Kill,
            is_target: false,
            is_parent: false,
            is_descendant: false,
            is_session: false,
            home: Home::Same,
            names: &names,
        };
        change(&mut standing);
        assert_eq!(relation(&standing), expected, "{standing:?}");
    }

    #[test]
    fn the_nearest_word_wins() {
        check(Relation::Oneself, &["app"], |standing| standing.is_target = true);
        check(Relation::Parent, &["sh"], |standing| {
            (standing.is_parent, standing.is_session) = (true, true)
        });
        check(Relation::ExecSession, &["sh"], |standing| standing.is_session = true);
        check(Relation::Child, &["app"], |standing| standing.is_descendant = true);
        check(Relation::SameContainer, &["app"], |_| {});
        check(Relation::OtherContainer, &["runc"], |standing| standing.home = Home::Other);
        check(Relation::Unknown, &["runc"], |standing| standing.home = Home::Unknown);
    }

    #[test]
    fn a_process_outside_is_the_runtime_by_its_name_or_by_its_parents() {
        let host = |standing: &mut Standing<'_>| standing.home = Home::Host;
        check(Relation::Runtime, &["runc", "bash", "systemd"], host);
        check(Relation::Runtime, &["helper", "containerd-shim", "systemd"], host);
        check(Relation::Runtime, &["runc:[2:INIT]"], host);
        check(Relation::HostProcess, &["kill", "bash", "sshd"], host);
        check(Relation::HostProcess, &["runcible"], host);
        // The parent of a container's first process is its runtime, and no relative.
        check(Relation::Runtime, &["conmon"], |standing| {
            (standing.home, standing.is_parent) = (Home::Host, true)
        });
    }

    #[test]
    fn the_kernel_has_no_home() {
        for (way, expected) in [
            (SignalWay::Oom, Relation::Kernel),
            (SignalWay::Exception, Relation::Kernel),
            (SignalWay::CgroupKill, Relation::CgroupKill),
            (SignalWay::NamespaceTeardown, Relation::NamespaceTeardown),
            (SignalWay::ParentDeath, Relation::Parent),
        ] {
            check(expected, &["app"], |standing| (standing.way, standing.is_target) = (way, true));
        }
    }
}

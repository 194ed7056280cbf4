//! A death with everything that rules ask of it, read once.

use whodunit_sdk::Death;
use whodunit_sdk::death::{
    Actor, Disposition, Fact, Limit, Party, Relation, Signal, SignalResult, WaitStatus,
};

use crate::words;

/// Signals that are sent to ask a container to stop: SIGTERM, and what images name in `STOPSIGNAL`
/// (SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGPWR, SIGRTMIN+3).
const STOP_SIGNALS: [u8; 9] = [1, 2, 3, 10, 12, 15, 28, 30, 37];
/// The one that every runtime sends where the image names none.
pub(crate) const SIGTERM: u8 = 15;
pub(crate) const SIGKILL: u8 = 9;

/// Something that was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen<T> {
    /// Its index in the evidence.
    pub(crate) index: u32,
    /// Nanoseconds before the death.
    pub(crate) before: u64,
    /// What it is.
    pub(crate) what: T,
}

/// A death, read.
pub(crate) struct Case<'a> {
    death: &'a Death,
    pub(crate) process: Party<'a>,
    pub(crate) status: WaitStatus,
    pub(crate) facts: Vec<Seen<Fact<'a>>>,
    pub(crate) signals: Vec<Seen<Signal<'a>>>,
    /// The signal that ended it, if that was seen and fits the status.
    pub(crate) decided_by: Option<Seen<Signal<'a>>>,
}

impl<'a> Case<'a> {
    pub(crate) fn new(death: &'a Death) -> Case<'a> {
        let facts: Vec<_> = death
            .evidence()
            .map(|evidence| Seen {
                index: evidence.index(),
                before: evidence.before(),
                what: evidence.fact(),
            })
            .collect();
        let signals = facts.iter().filter_map(|seen| match &seen.what {
            Fact::Signal(signal) => {
                Some(Seen { index: seen.index, before: seen.before, what: signal.clone() })
            }
            _ => None,
        });
        let signals: Vec<_> = signals.collect();
        let status = death.status();
        let decided_by = death.decided_by().and_then(|(evidence, signal)| {
            let fits =
                matches!(status, WaitStatus::Killed { signal: by, .. } if by == signal.number);
            fits.then(|| Seen { index: evidence.index(), before: evidence.before(), what: signal })
        });
        Case { death, process: death.process(), status, facts, signals, decided_by }
    }

    /// Whether the container died.
    pub(crate) fn container_died(&self) -> bool {
        self.death.container_died()
    }

    /// Whether the process was the first of its container.
    pub(crate) fn is_init(&self) -> bool {
        self.death.container_died() || self.death.is_container_init()
    }

    /// Number of the signal that ended it.
    pub(crate) fn killed_by(&self) -> Option<u8> {
        match self.status {
            WaitStatus::Killed { signal, .. } => Some(signal),
            WaitStatus::Exited(_) => None,
        }
    }

    /// The code that it exited with.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        match self.status {
            WaitStatus::Exited(code) => Some(code),
            WaitStatus::Killed { .. } => None,
        }
    }

    /// Whether a core was written, or meant to be.
    pub(crate) fn core_dumped(&self) -> bool {
        matches!(self.status, WaitStatus::Killed { core_dumped: true, .. })
    }

    /// Whether that could not be seen.
    pub(crate) fn is_unseen(&self, identifier: &str) -> bool {
        self.death.is_unseen(identifier)
    }

    /// What could not be seen.
    pub(crate) fn unseen(&self) -> impl Iterator<Item = &str> {
        self.death.unseen()
    }

    /// Whether records were lost while the process lived, so that a signal may be missing.
    pub(crate) fn lost_records(&self) -> u64 {
        self.death.losses().map(|(_, value)| value).sum()
    }

    /// Who died, at the beginning of a sentence.
    pub(crate) fn who(&self) -> String {
        let container = self.process.container.unwrap_or("an unknown container");
        if self.container_died() {
            format!("Container {container}")
        } else {
            format!("Process {} (pid {}) of {container}", self.process.name, self.process.pid)
        }
    }

    /// The newest signal that asked the process to stop, before the one that ended it: SIGTERM from anybody, another stop signal from
    /// the runtime.
    pub(crate) fn stop_signal(&self) -> Option<&Seen<Signal<'a>>> {
        let decided_by = self.decided_by.as_ref().map(|decided_by| decided_by.index);
        self.signals.iter().rev().find(|seen| {
            let is_earlier = decided_by.is_none_or(|index| seen.index < index);
            let number = seen.what.number;
            let is_stop = number == SIGTERM
                || seen.what.relation == Relation::Runtime && STOP_SIGNALS.contains(&number);
            is_earlier && is_stop && seen.what.relation != Relation::Oneself
        })
    }

    /// The last thing of a kind that was seen.
    pub(crate) fn last<T>(&self, pick: impl Fn(&Fact<'a>) -> Option<T>) -> Option<Seen<T>> {
        self.facts.iter().rev().find_map(|seen| {
            let what = pick(&seen.what)?;
            Some(Seen { index: seen.index, before: seen.before, what })
        })
    }

    /// What the container's cgroup said of memory, in words.
    pub(crate) fn memory(&self) -> Option<Seen<String>> {
        self.last(|fact| match fact {
            Fact::Memory { usage, limit, .. } => Some(match limit {
                Limit::At(limit) => {
                    format!("{} of {}", words::bytes(*usage), words::bytes(*limit))
                }
                Limit::Unlimited => format!("{}, without a limit", words::bytes(*usage)),
                Limit::Unknown => words::bytes(*usage),
            }),
            _ => None,
        })
    }

    /// How often the container could start no more process, if it ever ran into that limit.
    pub(crate) fn fork_failures(&self) -> Option<Seen<u64>> {
        self.last(|fact| match fact {
            Fact::Pids { limit_hits: Some(hits), .. } if *hits > 0 => Some(*hits),
            _ => None,
        })
    }
}

/// Whether its target may have learned of the signal.
pub(crate) fn may_notice(signal: &Signal<'_>) -> bool {
    match signal.disposition {
        Disposition::Handler | Disposition::Blocked => true,
        Disposition::Unknown => signal.result != SignalResult::Ignored,
        Disposition::Default | Disposition::Ignored | Disposition::UnkillableInit => false,
    }
}

/// A process in words, with its parents.
pub(crate) fn party(party: &Party<'_>) -> String {
    let mut text = match party.name {
        "" => format!("pid {}", party.pid),
        name => format!("{name} (pid {})", party.pid),
    };
    if let Some(container) = party.container {
        text.push_str(&format!(" of {container}"));
    }
    let parents: Vec<_> = party.ancestors.iter().map(|(_, name)| *name).collect();
    if !parents.is_empty() {
        text.push_str(&format!(", started by {}", parents.join(" < ")));
    }
    text
}

/// Who did something, in words.
pub(crate) fn actor(actor: &Actor<'_>) -> String {
    match actor {
        Actor::Process(process) => party(process),
        Actor::Kernel => "the kernel".to_owned(),
        Actor::Unknown => "somebody who was not seen".to_owned(),
    }
}

/// The name of who did something, without its parents.
pub(crate) fn actor_name(actor: &Actor<'_>) -> String {
    match actor {
        Actor::Process(process) if process.name.is_empty() => format!("pid {}", process.pid),
        Actor::Process(process) => format!("{} (pid {})", process.name, process.pid),
        Actor::Kernel | Actor::Unknown => self::actor(actor),
    }
}

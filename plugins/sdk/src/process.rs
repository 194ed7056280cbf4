//! Events of processes as a plugin reads them: what happened, and who did it.

use crate::death::{Disposition, SignalResult, WaitStatus};
use crate::{AttributeKey, Event, Kind};

/// What happened to the process of an event ([`Event::process`]), or to its whole container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessEvent<'a> {
    /// It was made.
    Forked {
        /// Number of its parent; see [`crate::directory::process`].
        parent: u32,
    },
    /// It executed a program.
    Executed {
        /// Path of the program as it was asked for.
        program: &'a [u8],
    },
    /// It ended, with its last thread.
    Exited {
        /// How.
        status: WaitStatus,
    },
    /// A signal was made for it.
    Signalled {
        /// Number of the signal.
        signal: u8,
        /// Its `si_code`.
        si_code: i32,
        /// Who sent it. None where the kernel made it.
        sender: Option<Sender>,
        /// What became of it.
        result: SignalResult,
        /// What the process had told the kernel to do with it.
        disposition: Disposition,
    },
    /// A signal reached it.
    Delivered {
        /// Number of the signal.
        signal: u8,
        /// Its `si_code`.
        si_code: i32,
    },
    /// The kernel killed it for want of memory.
    OomKilled {
        /// In whose allocation the memory ran out.
        trigger: Option<Sender>,
        /// Path of the cgroup whose memory that was. Empty for the machine's, and where it was not seen.
        cgroup: &'a [u8],
        /// Its limit, in bytes.
        limit: Option<u64>,
        /// What it used, in bytes.
        usage: Option<u64>,
    },
    /// The container used up its quota of CPU.
    Throttled {
        /// The time that this is about, up to the event's, in nanoseconds.
        window: u64,
        /// How long of it the container was not let run, in nanoseconds.
        throttled: u64,
        /// Periods of the quota in which that was so.
        throttled_periods: u64,
        /// Periods of the quota.
        periods: u64,
    },
}

/// Who did something to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Number of the process; see [`crate::directory::process`].
    pub process: u32,
    /// Number of its container; see [`crate::directory::container`]. None where that is not watched.
    pub container: Option<u32>,
}

/// Results of signals by their numbers in the contract.
const RESULTS: [SignalResult; 5] = [
    SignalResult::Delivered,
    SignalResult::Ignored,
    SignalResult::AlreadyPending,
    SignalResult::OverflowFail,
    SignalResult::LoseInfo,
];

/// What targets do with signals, by their numbers in the contract.
const DISPOSITIONS: [Disposition; 5] = [
    Disposition::Default,
    Disposition::Handler,
    Disposition::Ignored,
    Disposition::Blocked,
    Disposition::UnkillableInit,
];

impl<'a> Event<'a> {
    /// What happened to a process. None for events of other kinds.
    pub fn process_event(&self) -> Option<ProcessEvent<'a>> {
        let number = |key| self.attribute(key).unwrap_or_default();
        let signal = || number(AttributeKey::Signal) as u8;
        let si_code = || number(AttributeKey::SiCode) as i32;
        Some(match self.kind() {
            Kind::ProcessForked => {
                ProcessEvent::Forked { parent: number(AttributeKey::Actor) as u32 }
            }
            Kind::ProcessExecuted => ProcessEvent::Executed { program: self.path() },
            Kind::ProcessExited => {
                ProcessEvent::Exited { status: WaitStatus::of(number(AttributeKey::Status) as u32) }
            }
            Kind::SignalGenerated => ProcessEvent::Signalled {
                signal: signal(),
                si_code: si_code(),
                sender: self.actor(),
                result: self
                    .one_of(&RESULTS, AttributeKey::Result)
                    .unwrap_or(SignalResult::Unknown),
                disposition: self
                    .one_of(&DISPOSITIONS, AttributeKey::Disposition)
                    .unwrap_or(Disposition::Unknown),
            },
            Kind::SignalDelivered => {
                ProcessEvent::Delivered { signal: signal(), si_code: si_code() }
            }
            Kind::OomKill => ProcessEvent::OomKilled {
                trigger: self.actor(),
                cgroup: self.path(),
                limit: self.attribute(AttributeKey::Limit),
                usage: self.attribute(AttributeKey::Usage),
            },
            Kind::CpuThrottled => ProcessEvent::Throttled {
                window: number(AttributeKey::Window),
                throttled: number(AttributeKey::Throttled),
                throttled_periods: number(AttributeKey::ThrottledPeriods),
                periods: number(AttributeKey::Periods),
            },
            _ => return None,
        })
    }

    /// What an attribute stands for. None for a number of a newer daemon.
    fn one_of<T: Copy>(&self, known: &[T], key: AttributeKey) -> Option<T> {
        known.get(usize::try_from(self.attribute(key)?).ok()?).copied()
    }

    /// Who did it, where that is another process.
    pub fn actor(&self) -> Option<Sender> {
        let process = self.attribute(AttributeKey::Actor)? as u32;
        let container = self.attribute(AttributeKey::ActorContainer);
        Some(Sender { process, container: container.map(|container| container as u32) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::BatchBuilder;

    #[track_caller]
    fn check(kind: Kind, numbers: &[(AttributeKey, u64)], expected: ProcessEvent<'_>) {
        let event = BatchBuilder::new().event(kind.code(), 1, b"/bin/app");
        let batch = numbers.iter().fold(event, |batch, (key, value)| batch.attribute(*key, *value));
        let batch = batch.build();
        let event = batch.events().next().unwrap();
        assert_eq!(event.process_event(), Some(expected));
    }

    #[test]
    fn each_kind_is_read_from_its_numbers() {
        use AttributeKey as Key;
        check(Kind::ProcessForked, &[(Key::Actor, 7)], ProcessEvent::Forked { parent: 7 });
        check(Kind::ProcessExecuted, &[], ProcessEvent::Executed { program: b"/bin/app" });
        let status = WaitStatus::Exited(3);
        check(Kind::ProcessExited, &[(Key::Status, 3 << 8)], ProcessEvent::Exited { status });
        let numbers = [
            (Key::Signal, 15),
            (Key::SiCode, (-1_i64).cast_unsigned()),
            (Key::Result, 1),
            (Key::Disposition, 4),
            (Key::Actor, 7),
            (Key::ActorContainer, 2),
        ];
        let signalled = ProcessEvent::Signalled {
            signal: 15,
            si_code: -1,
            sender: Some(Sender { process: 7, container: Some(2) }),
            result: SignalResult::Ignored,
            disposition: Disposition::UnkillableInit,
        };
        check(Kind::SignalGenerated, &numbers, signalled);
        let delivered = ProcessEvent::Delivered { signal: 15, si_code: -1 };
        check(Kind::SignalDelivered, &numbers, delivered);
        let killed = ProcessEvent::OomKilled {
            trigger: None,
            cgroup: b"/bin/app",
            limit: Some(64),
            usage: None,
        };
        check(Kind::OomKill, &[(Key::Limit, 64)], killed);
        let numbers =
            [(Key::Window, 5), (Key::Throttled, 4), (Key::ThrottledPeriods, 3), (Key::Periods, 6)];
        let throttled =
            ProcessEvent::Throttled { window: 5, throttled: 4, throttled_periods: 3, periods: 6 };
        check(Kind::CpuThrottled, &numbers, throttled);
    }

    #[test]
    fn numbers_of_a_newer_daemon_are_not_known() {
        let numbers = [(AttributeKey::Result, 99), (AttributeKey::Disposition, u64::MAX)];
        let expected = ProcessEvent::Signalled {
            signal: 0,
            si_code: 0,
            sender: None,
            result: SignalResult::Unknown,
            disposition: Disposition::Unknown,
        };
        check(Kind::SignalGenerated, &numbers, expected);
        let batch = BatchBuilder::new().open(1, "/etc/hosts").build();
        assert_eq!(batch.events().next().unwrap().process_event(), None);
    }
}

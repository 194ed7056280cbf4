//! What a seen signal was: by which road it came, whether a process or the kernel made it, and what its target made of it.
//!
//! Pure: from the bits of one record to the words of the death record. What its sender is to its target is `relation`'s.

use whodunit_ebpf::{RawSignal, signal_flag};

use super::decode::ProcessKey;
use super::processes::SeenSignal;
use super::record::{Disposition, SignalOrigin, SignalResult, SignalWay};

pub(crate) const SIGHUP: u32 = 1;
pub(crate) const SIGINT: u32 = 2;
pub(crate) const SIGQUIT: u32 = 3;
pub(crate) const SIGILL: u32 = 4;
pub(crate) const SIGTRAP: u32 = 5;
pub(crate) const SIGBUS: u32 = 7;
pub(crate) const SIGFPE: u32 = 8;
pub(crate) const SIGKILL: u32 = 9;
pub(crate) const SIGSEGV: u32 = 11;
pub(crate) const SIGTERM: u32 = 15;
pub(crate) const SIGXCPU: u32 = 24;
pub(crate) const SIGXFSZ: u32 = 25;
pub(crate) const SIGSYS: u32 = 31;

/// `si_code` of `include/uapi/asm-generic/siginfo.h`.
const SI_USER: i32 = 0;
const SI_QUEUE: i32 = -1;
const SI_TKILL: i32 = -6;
/// `SYS_SECCOMP`.
pub(crate) const SYS_SECCOMP: i32 = 1;

/// Numbers of system calls by which a signal is sent, and by which a file is written.
struct Calls {
    kill: i32,
    tkill: i32,
    tgkill: i32,
    queue: i32,
    queue_thread: i32,
    writes: [i32; 4],
}

/// `pidfd_send_signal`; the same everywhere (Linux 5.1).
const PIDFD_SEND_SIGNAL: i32 = 424;

/// `arch/x86/entry/syscalls/syscall_64.tbl`; `writes` are `write`, `pwrite64`, `writev`, `sendfile`.
#[cfg(target_arch = "x86_64")]
const CALLS: Calls = Calls {
    kill: 62,
    tkill: 200,
    tgkill: 234,
    queue: 129,
    queue_thread: 297,
    writes: [1, 18, 20, 40],
};

/// `include/uapi/asm-generic/unistd.h`.
#[cfg(not(target_arch = "x86_64"))]
const CALLS: Calls = Calls {
    kill: 129,
    tkill: 130,
    tgkill: 131,
    queue: 138,
    queue_thread: 240,
    writes: [64, 68, 66, 71],
};

impl Calls {
    fn sends(&self, call: i32) -> bool {
        [self.kill, self.tkill, self.tgkill, self.queue, self.queue_thread, PIDFD_SEND_SIGNAL]
            .contains(&call)
    }
}

/// Whether the signal has an address: the process touched what it must not.
pub(crate) const fn is_fault(signal: u32) -> bool {
    matches!(signal, SIGILL | SIGTRAP | SIGBUS | SIGFPE | SIGSEGV)
}

/// Whether the signal is one by which people and runtimes ask a process to end.
pub(crate) const fn asks_to_end(signal: u32) -> bool {
    matches!(signal, SIGHUP | SIGINT | SIGQUIT | SIGTERM | SIGKILL)
}

fn has(raw: &RawSignal, flag: u16) -> bool {
    raw.flags & flag != 0
}

/// Who made it. A kernel-made signal is never blamed on the process that happened to run.
pub(crate) fn origin(raw: &RawSignal) -> SignalOrigin {
    if has(raw, signal_flag::PRIVILEGED | signal_flag::KERNEL_THREAD) || raw.sender.pid == 0 {
        return SignalOrigin::Kernel;
    }
    if has(raw, signal_flag::NO_INFO) {
        // `kill` itself gives none where it need not (Linux 7.3): the call tells.
        let is_sent = CALLS.sends(raw.syscall) && !has(raw, signal_flag::SENDER_EXITS);
        return if is_sent { SignalOrigin::User } else { SignalOrigin::Kernel };
    }
    match raw.code {
        SI_USER | SI_QUEUE | SI_TKILL => SignalOrigin::User,
        // A caller may write any other code into `rt_sigqueueinfo`; a timer's is the kernel's own.
        _ if CALLS.sends(raw.syscall) => SignalOrigin::User,
        _ => SignalOrigin::Kernel,
    }
}

/// The road that it came by.
pub(crate) fn way(signal: &SeenSignal) -> SignalWay {
    let raw = &*signal.raw;
    if signal.oom {
        return SignalWay::Oom;
    }
    match origin(raw) {
        SignalOrigin::User => user_way(raw),
        SignalOrigin::Kernel => kernel_way(raw),
    }
}

fn user_way(raw: &RawSignal) -> SignalWay {
    match raw.syscall {
        PIDFD_SEND_SIGNAL => return SignalWay::Pidfd,
        call if call == CALLS.kill && raw.aimed_at <= 0 => return SignalWay::Group,
        call if call == CALLS.tkill || call == CALLS.tgkill => return SignalWay::Thread,
        call if call == CALLS.queue || call == CALLS.queue_thread => return SignalWay::Queue,
        _ => {}
    }
    match raw.code {
        SI_TKILL => SignalWay::Thread,
        SI_QUEUE => SignalWay::Queue,
        _ => SignalWay::Kill,
    }
}

fn kernel_way(raw: &RawSignal) -> SignalWay {
    let own = ProcessKey::from(&raw.sender) == ProcessKey::from(&raw.target);
    let exits = has(raw, signal_flag::SENDER_EXITS);
    if has(raw, signal_flag::PARENT_DEATH) {
        return SignalWay::ParentDeath;
    }
    if raw.signal == SIGKILL && !own {
        let is_init = raw.sender.namespace_pid == 1 && raw.sender.namespace_depth > 0;
        if exits && is_init && has(raw, signal_flag::PRIVILEGED) {
            return SignalWay::NamespaceTeardown;
        }
        // `cgroup.kill` sends as `send_sig(SIGKILL, task, 0)` from a write (`__cgroup_kill`, Linux 5.14).
        if has(raw, signal_flag::NO_INFO) && !exits && CALLS.writes.contains(&raw.syscall) {
            return SignalWay::CgroupKill;
        }
    }
    // What a process does itself reaches it in its own context.
    if own && !exits { SignalWay::Exception } else { SignalWay::Kernel }
}

/// Whether it looks like the SIGKILL by which the kernel ends a process that has used up its hard limit of CPU: in the process's
/// own context, without details, where there is such a limit.
pub(crate) fn is_cut_off(raw: &RawSignal) -> bool {
    let own = ProcessKey::from(&raw.sender) == ProcessKey::from(&raw.target);
    let is_limited = raw.limit != 0 && raw.limit != u64::MAX;
    own && is_limited && has(raw, signal_flag::PRIVILEGED) && !has(raw, signal_flag::SENDER_EXITS)
}

/// What its target had told the kernel to do with it.
pub(crate) fn disposition(raw: &RawSignal) -> Disposition {
    // A fault of a process that blocks or ignores it comes all the same: the kernel has put the default back by then.
    if has(raw, signal_flag::BLOCKED) {
        Disposition::Blocked
    } else if has(raw, signal_flag::HANDLER) {
        Disposition::Handler
    } else if has(raw, signal_flag::IGNORE) {
        Disposition::Ignored
    } else if has(raw, signal_flag::UNKILLABLE) && result(raw) == SignalResult::Ignored {
        Disposition::UnkillableInit
    } else {
        Disposition::Default
    }
}

/// What the kernel did with it.
pub(crate) fn result(raw: &RawSignal) -> SignalResult {
    // A number that it does not have comes from a newer kernel: what is known is that the signal was made.
    SignalResult::from_raw(raw.result).unwrap_or(SignalResult::Delivered)
}

/// Which of the signals, in their order, ended the process with this one.
pub(crate) fn deciding<'a>(
    signals: impl DoubleEndedIterator<Item = &'a SeenSignal> + Clone,
    number: u32,
) -> Option<usize> {
    let came = |signal: &SeenSignal| {
        signal.raw.signal == number
            && matches!(
                result(&signal.raw),
                SignalResult::Delivered | SignalResult::LoseInfo | SignalResult::OverflowFail
            )
    };
    // The kernel dooms the process with the first fatal signal and remembers which one it was.
    let doomed = |signal: &SeenSignal| {
        came(signal) && has(&signal.raw, signal_flag::DOOMED) && signal.raw.doom & 0x7f == number
    };
    let listed = || signals.clone().enumerate();
    listed()
        .find(|(_, signal)| doomed(signal))
        // One that leaves a core, or waited while it was blocked, is fatal only when it is taken.
        .or_else(|| listed().filter(|(_, signal)| came(signal) && signal.delivered).last())
        .or_else(|| listed().filter(|(_, signal)| came(signal)).last())
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use whodunit_ebpf::RawProcess;
    use zerocopy::FromZeros as _;

    use super::*;

    const INIT: RawProcess = RawProcess {
        started_ns: 1,
        cgroup: 1,
        pid: 100,
        namespace_pid: 1,
        uid: 0,
        namespace_depth: 1,
        comm: [0; 16],
    };
    const OTHER: RawProcess = RawProcess { pid: 200, namespace_pid: 9, ..INIT };

    fn seen(change: impl FnOnce(&mut RawSignal)) -> SeenSignal {
        let mut raw = Box::new(RawSignal::new_zeroed());
        (raw.signal, raw.syscall) = (SIGKILL, -1);
        (raw.target, raw.sender) = (OTHER, INIT);
        change(&mut raw);
        SeenSignal { raw, delivered: false, oom: false }
    }

    fn check(expected: (SignalWay, SignalOrigin), change: impl FnOnce(&mut RawSignal)) {
        let signal = seen(change);
        assert_eq!((way(&signal), origin(&signal.raw)), expected, "{:?}", signal.raw);
    }

    #[test]
    fn a_process_that_sends_is_the_sender_by_each_road() {
        let user = |way| (way, SignalOrigin::User);
        check(user(SignalWay::Kill), |raw| (raw.syscall, raw.aimed_at) = (CALLS.kill, 200));
        check(user(SignalWay::Group), |raw| (raw.syscall, raw.aimed_at) = (CALLS.kill, -200));
        check(user(SignalWay::Group), |raw| (raw.syscall, raw.aimed_at) = (CALLS.kill, 0));
        check(user(SignalWay::Kill), |raw| raw.syscall = -1);
        check(user(SignalWay::Thread), |raw| (raw.syscall, raw.code) = (CALLS.tgkill, SI_TKILL));
        check(user(SignalWay::Queue), |raw| (raw.syscall, raw.code) = (CALLS.queue, SI_QUEUE));
        check(user(SignalWay::Queue), |raw| (raw.syscall, raw.code) = (-1, SI_QUEUE));
        check(user(SignalWay::Pidfd), |raw| raw.syscall = PIDFD_SEND_SIGNAL);
        // From Linux 7.3 on `kill` leaves it to the kernel to fill in who sent it.
        check(user(SignalWay::Kill), |raw| {
            (raw.flags, raw.syscall, raw.aimed_at) = (signal_flag::NO_INFO, CALLS.kill, 200)
        });
        // A code that pretends to be a timer's.
        check(user(SignalWay::Queue), |raw| (raw.syscall, raw.code) = (CALLS.queue, -2));
    }

    #[test]
    fn what_the_kernel_makes_is_blamed_on_nobody() {
        let kernel = |way| (way, SignalOrigin::Kernel);
        check(kernel(SignalWay::Kernel), |raw| raw.flags = signal_flag::PRIVILEGED);
        check(kernel(SignalWay::Kernel), |raw| (raw.syscall, raw.code) = (0, -2));
        check(kernel(SignalWay::Kernel), |raw| raw.sender.pid = 0);
        check(kernel(SignalWay::Kernel), |raw| {
            (raw.flags, raw.syscall) = (signal_flag::PRIVILEGED, CALLS.kill)
        });
        check(kernel(SignalWay::CgroupKill), |raw| {
            (raw.flags, raw.syscall) = (signal_flag::NO_INFO, CALLS.writes[0])
        });
        check(kernel(SignalWay::NamespaceTeardown), |raw| {
            raw.flags = signal_flag::PRIVILEGED | signal_flag::SENDER_EXITS
        });
        check(kernel(SignalWay::ParentDeath), |raw| {
            raw.flags = signal_flag::NO_INFO | signal_flag::SENDER_EXITS | signal_flag::PARENT_DEATH
        });
        check(kernel(SignalWay::Exception), |raw| {
            (raw.signal, raw.code, raw.sender) = (SIGSEGV, 1, raw.target)
        });
    }

    #[test]
    fn a_process_is_cut_off_in_its_own_time_at_a_limit_that_there_is() {
        let check = |expected: bool, change: fn(&mut RawSignal)| {
            let signal = seen(|raw| {
                (raw.sender, raw.flags, raw.limit) = (raw.target, signal_flag::PRIVILEGED, 60);
                change(raw);
            });
            assert_eq!(is_cut_off(&signal.raw), expected, "{:?}", signal.raw);
        };
        check(true, |_| {});
        check(false, |raw| raw.limit = u64::MAX);
        check(false, |raw| raw.sender = INIT);
        check(false, |raw| raw.flags = signal_flag::NO_INFO);
        check(false, |raw| raw.flags |= signal_flag::SENDER_EXITS);
    }

    #[test]
    fn an_init_without_a_handler_is_unkillable_only_where_the_kernel_ignored_it() {
        let stance = |flags: u16, result: u32| {
            let signal = seen(|raw| (raw.flags, raw.result) = (flags, result));
            disposition(&signal.raw)
        };
        assert_eq!(stance(signal_flag::UNKILLABLE, 1), Disposition::UnkillableInit);
        assert_eq!(stance(signal_flag::UNKILLABLE, 0), Disposition::Default);
        assert_eq!(stance(signal_flag::UNKILLABLE | signal_flag::HANDLER, 0), Disposition::Handler);
        assert_eq!(stance(signal_flag::BLOCKED | signal_flag::IGNORE, 0), Disposition::Blocked);
        assert_eq!(stance(signal_flag::IGNORE, 1), Disposition::Ignored);
        assert_eq!(stance(0, 0), Disposition::Default);
    }

    #[test]
    fn the_first_that_doomed_the_process_decides() {
        let doomed = |signal: u32, doom: u32| {
            seen(|raw| {
                (raw.signal, raw.doom, raw.flags) = (signal, doom, signal_flag::DOOMED);
            })
        };
        let term = |result: u32| seen(|raw| (raw.signal, raw.result) = (SIGTERM, result));
        let signals = [term(1), term(0), doomed(SIGTERM, 15), doomed(SIGKILL, 15), term(0)];
        assert_eq!(deciding(signals.iter(), SIGTERM), Some(2));
        // A SIGKILL that came when the process was going to end already decided nothing.
        let late = [doomed(SIGTERM, 15), doomed(SIGKILL, 15)];
        assert_eq!(deciding(late.iter(), SIGTERM), Some(0));
        assert_eq!(deciding([term(1)].iter(), SIGTERM), None);
        assert_eq!(deciding(signals.iter(), SIGSEGV), None);
    }

    #[test]
    fn a_signal_that_leaves_a_core_decides_where_it_was_delivered() {
        let mut signals = [
            seen(|raw| raw.signal = SIGSEGV),
            seen(|raw| (raw.signal, raw.code) = (SIGSEGV, 1)),
            seen(|raw| raw.signal = SIGSEGV),
        ];
        assert_eq!(deciding(signals.iter(), SIGSEGV), Some(2));
        signals[1].delivered = true;
        assert_eq!(deciding(signals.iter(), SIGSEGV), Some(1));
    }
}

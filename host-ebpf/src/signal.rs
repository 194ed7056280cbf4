//! Signals: where they are generated, which is in their sender's context, and where they reach their process.
//!
//! Only for processes of traced cgroups, and only those that can matter to a death.

use aya_ebpf::bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::programs::RawTracePointContext;
use whodunit_ebpf::{RawDelivery, RawSignal, fate_kind, signal_flag};

use crate::maps::{DEATHS, HANDLED, fate, offset};
use crate::read::{Address, cgroup_of, current_task, process_of, read_or_zero};
use crate::run::on_tracepoint;
use crate::task::{
    describe, describe_ancestor, describe_ancestors, is_traced, leader_of, lost, now, parent_of,
    part, put, running_flags, system_call,
};

/// `SEND_SIG_NOINFO` and `SEND_SIG_PRIV` of `include/linux/sched/signal.h`: in place of an address (Linux 4.20).
const NO_INFO: Address = 0;
const PRIVILEGED: Address = 1;

/// `PF_EXITING` and `PF_KTHREAD` of `include/linux/sched.h`; the same from Linux 5.10 to 7.3.
const PF_EXITING: u32 = 0x4;
pub(crate) const PF_KTHREAD: u32 = 0x0020_0000;

/// `SIGNAL_GROUP_EXIT` and `SIGNAL_UNKILLABLE` of `include/linux/sched/signal.h`; the same from Linux 5.10 to 7.3.
const SIGNAL_GROUP_EXIT: u32 = 0x4;
const SIGNAL_UNKILLABLE: u32 = 0x40;

/// `SIG_IGN`.
const SIG_IGN: Address = 1;

/// `TRACE_SIGNAL_IGNORED` of `include/trace/events/signal.h`.
const RESULT_IGNORED: u32 = 1;

/// Signals that no process dies of, unless one is sent by a debugger: SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU,
/// SIGURG, SIGWINCH. The numbers are those of x86, ARM and most others (`signal(7)`).
const HARMLESS: u64 = 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23 | 1 << 28;

const SIGKILL: u32 = 9;
const SIGSYS: u32 = 31;
const SIGXCPU: u32 = 24;
const SIGXFSZ: u32 = 25;
/// SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV: those with an address.
const FAULTS: u64 = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 11;

/// A process handles or ignores some signals thousands of times a second (a profiler's timer, the faults of a virtual
/// machine). Of one kind one is sent in this time; those that can end the process always are.
const HANDLED_EVERY_NS: u64 = 20_000_000;

#[inline(always)]
fn is_one_of(signal: u32, set: u64) -> bool {
    signal < 64 && set & (1 << (signal & 63)) != 0
}

on_tracepoint! {
    /// `signal_generate(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)`, Linux 3.2.
    /// After the target was chosen and, where the signal is fatal, doomed.
    signal_generated, signal_generated_backup: tell_signal
}

#[inline(always)]
fn tell_signal(ctx: &RawTracePointContext) -> i32 {
    let signal = ctx.arg::<u64>(0) as u32;
    if is_one_of(signal, HARMLESS) || signal == 0 || signal > 64 {
        return 0;
    }
    let target: Address = ctx.arg(2);
    if !is_traced(cgroup_of(target)) {
        return 0;
    }
    let info: Address = ctx.arg(1);
    let result = ctx.arg::<u64>(4) as u32;
    let mut flags = if ctx.arg::<u64>(3) as u32 != 0 { signal_flag::GROUP } else { 0 };
    match info {
        NO_INFO => flags |= signal_flag::NO_INFO,
        PRIVILEGED => flags |= signal_flag::PRIVILEGED,
        _ => {}
    }
    flags |= stance(target, signal);
    let takes_it = flags & (signal_flag::HANDLER | signal_flag::IGNORE) != 0;
    if (takes_it || result == RESULT_IGNORED)
        && flags & signal_flag::DOOMED == 0
        && was_sent_lately(process_of(target), signal)
    {
        return 0;
    }
    flags |= sender_flags(target, signal, flags);

    let Some(mut entry) = DEATHS.reserve::<RawSignal>(0) else {
        lost();
        return 0;
    };
    let record = entry.as_mut_ptr();
    let group: Address = read_or_zero(target + offset!(task_signal) as u64);
    let (syscall, argument) = system_call();
    put!(record.kind, fate_kind::SIGNALLED);
    put!(record.flags, flags);
    put!(record.signal, signal);
    put!(record.time_ns, now());
    put!(record.result, result);
    put!(record.syscall, syscall);
    put!(record.aimed_at, argument);
    put!(record.thread, read_or_zero(target + offset!(task_pid) as u64));
    put!(record.doom, read_or_zero(group + offset!(signal_group_exit_code) as u64));
    let fields = info + offset!(siginfo_fields) as u64;
    let told = info > PRIVILEGED;
    put!(
        record.code,
        if told { read_or_zero::<i32>(info + offset!(siginfo_code) as u64) } else { 0 }
    );
    // The union's members stand as the system call interface lays them out (`__sifields` in
    // `include/uapi/asm-generic/siginfo.h`): `_sigfault._addr` first, `_sigsys._syscall` behind an address.
    put!(
        record.address,
        if told && is_one_of(signal, FAULTS) { read_or_zero::<u64>(fields) } else { 0 }
    );
    put!(
        record.refused_syscall,
        if told && signal == SIGSYS { read_or_zero::<i32>(fields + 8) } else { -1 }
    );
    put!(record.limit, own_limit(group, signal));
    describe(part!(record.target), target);
    describe_ancestor(part!(record.target_parent), parent_of(leader_of(target)));
    let sender = current_task();
    describe(part!(record.sender), sender);
    describe_ancestors(part!(record.ancestors), sender);
    entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
    0
}

/// What the target makes of the signal.
#[inline(always)]
fn stance(target: Address, signal: u32) -> u16 {
    let mut flags = 0;
    let handlers: Address = read_or_zero(target + offset!(task_sighand) as u64);
    let action = handlers
        + offset!(sighand_action) as u64
        + u64::from(signal - 1) * u64::from(fate!(action_bytes))
        + (offset!(k_sigaction_sa) + offset!(sigaction_handler)) as u64;
    match read_or_zero::<Address>(action) {
        0 => {}
        SIG_IGN => flags |= signal_flag::IGNORE,
        _ => flags |= signal_flag::HANDLER,
    }
    let blocked: u64 = read_or_zero(target + offset!(task_blocked) as u64);
    if blocked >> ((signal - 1) & 63) & 1 != 0 {
        flags |= signal_flag::BLOCKED;
    }
    let group: Address = read_or_zero(target + offset!(task_signal) as u64);
    let state: u32 = read_or_zero(group + offset!(signal_flags) as u64);
    if state & SIGNAL_UNKILLABLE != 0 {
        flags |= signal_flag::UNKILLABLE;
    }
    if state & SIGNAL_GROUP_EXIT != 0 {
        flags |= signal_flag::DOOMED;
    }
    flags
}

/// What the running task is.
#[inline(always)]
fn sender_flags(target: Address, signal: u32, so_far: u16) -> u16 {
    let mut flags = 0;
    let running = running_flags();
    if running & PF_KTHREAD != 0 {
        flags |= signal_flag::KERNEL_THREAD;
    }
    if running & PF_EXITING != 0 {
        flags |= signal_flag::SENDER_EXITS;
        // By now the target has another parent: the kernel looked for one before it sent this.
        let wanted: u32 = read_or_zero(target + offset!(task_pdeath_signal) as u64);
        if wanted == signal && so_far & signal_flag::NO_INFO != 0 {
            flags |= signal_flag::PARENT_DEATH;
        }
    }
    flags
}

/// The target's limit that the signal may be about; 0 for other signals.
#[inline(always)]
fn own_limit(group: Address, signal: u32) -> u64 {
    // `RLIMIT_CPU` 0 and `RLIMIT_FSIZE` 1 of `include/uapi/asm-generic/resource.h`; each is two numbers of which the
    // soft one comes first. Beyond the hard one of CPU the kernel kills (`check_process_timers`, Linux 2.6 to 7.3).
    let limit = match signal {
        SIGXCPU => 0,
        SIGKILL => 8,
        SIGXFSZ => 16,
        _ => return 0,
    };
    read_or_zero(group + offset!(signal_rlim) as u64 + limit)
}

/// Whether a signal of this kind was sent to the daemon a moment ago. Remembers this one if not.
#[inline(always)]
fn was_sent_lately(process: u32, signal: u32) -> bool {
    let key = u64::from(process) << 32 | u64::from(signal);
    let now = now();
    if let Some(last) = HANDLED.get_ptr(&key) {
        // SAFETY: a map value.
        let last = unsafe { core::ptr::read_volatile(last) };
        if now.wrapping_sub(last) < HANDLED_EVERY_NS {
            return true;
        }
    }
    // Where it cannot be remembered, the next one is sent as well.
    let _ = HANDLED.insert(&key, &now, 0);
    false
}

on_tracepoint! {
    /// `signal_deliver(int sig, struct kernel_siginfo *info, struct k_sigaction *ka)`, in the target's context.
    signal_delivered, signal_delivered_backup: tell_delivery
}

#[inline(always)]
fn tell_delivery(ctx: &RawTracePointContext) -> i32 {
    let signal = ctx.arg::<u64>(0) as u32;
    if is_one_of(signal, HARMLESS) || signal == 0 || signal > 64 {
        return 0;
    }
    let task = current_task();
    if !is_traced(cgroup_of(task)) {
        return 0;
    }
    let info: Address = ctx.arg(1);
    let action: Address = ctx.arg(2);
    let handler: Address =
        read_or_zero(action + (offset!(k_sigaction_sa) + offset!(sigaction_handler)) as u64);
    let handled = handler > SIG_IGN;
    // Apart from those that were generated, whose key has no such bit.
    if handled && was_sent_lately(process_of(task), signal | 1 << 8) {
        return 0;
    }
    let Some(mut entry) = DEATHS.reserve::<RawDelivery>(0) else {
        lost();
        return 0;
    };
    let record = entry.as_mut_ptr();
    put!(record.kind, fate_kind::DELIVERED);
    put!(record.flags, if handled { signal_flag::HANDLER } else { 0 });
    put!(record.signal, signal);
    put!(record.time_ns, now());
    put!(
        record.code,
        if info > PRIVILEGED {
            read_or_zero::<i32>(info + offset!(siginfo_code) as u64)
        } else {
            0
        }
    );
    put!(record.thread, read_or_zero(task + offset!(task_pid) as u64));
    describe(part!(record.process), task);
    // The record of the end, or of the next signal, wakes the daemon for this one too.
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    0
}

//! A death in words: who, the verdict, the timeline, and what to do.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;

use crate::death::explanation::{Answer, ExplainedDeath, Explanation};
use crate::death::record::{
    Ancestor, Container, DeadProcess, DeathRecord, Disposition, Fact, Limit, OomKill, OomScope,
    Party, Sender, Signal, SignalResult, Subject, WaitStatus,
};

/// Tells it.
pub(super) fn tell(explained: &ExplainedDeath) -> String {
    let ExplainedDeath { death, explanation } = explained;
    let mut text = format!("{}  {}  ", time(death.time_ns), who(death));
    let answer = match explanation {
        Explanation::Explained(answer) => {
            line(&mut text, &format!("{}, {} % sure", answer.verdict, answer.confidence));
            line(&mut text, &answer.headline);
            if !answer.explanation.is_empty() {
                line(&mut text, &format!("  {}", answer.explanation));
            }
            Some(answer)
        }
        Explanation::Unexplained { reason } => {
            line(&mut text, "no verdict");
            line(&mut text, reason);
            None
        }
    };
    line(&mut text, "");
    timeline(&mut text, death, answer);
    if let Some(answer) = answer {
        line(&mut text, "");
        list(&mut text, "what to do", &answer.advice);
        list(&mut text, "what would have made it surer", &answer.missing);
    }
    if !death.unseen.is_empty() {
        let names: Vec<_> = death.unseen.iter().map(|unseen| unseen.name()).collect();
        line(&mut text, &format!("  what was not seen: {}", names.join(", ")));
    }
    for (name, count) in death.losses.named() {
        if count > 0 {
            line(&mut text, &format!("  lost on the way: {count} ({name})"));
        }
    }
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn list(text: &mut String, title: &str, items: &[String]) {
    if !items.is_empty() {
        line(text, &format!("  {title}"));
        items.iter().for_each(|item| line(text, &format!("    - {item}")));
    }
}

fn timeline(text: &mut String, death: &DeathRecord, answer: Option<&Answer>) {
    let rests_on = answer.map(|answer| answer.rests_on.as_slice()).unwrap_or_default();
    for (index, evidence) in death.evidence.iter().enumerate() {
        let mark = if rests_on.iter().any(|it| *it as usize == index) { '*' } else { ' ' };
        let before = match evidence.before_ns {
            0 => "t".to_owned(),
            before => format!("t-{}", span(before)),
        };
        line(text, &format!("  {mark} {before:<10} {}", fact(&evidence.fact)));
    }
    let DeadProcess { comm, pid, .. } = &death.process;
    let end = match death.status {
        WaitStatus::Exited { code } => format!("exited with code {code}"),
        WaitStatus::Killed { signal, core_dumped } => {
            let core = if core_dumped { ", with a core dump" } else { "" };
            let code = 128 + u32::from(signal);
            format!("was ended by {}{core} (exit code {code} to a runtime)", signal_name(signal))
        }
    };
    line(text, &format!("    {:<10} {comm} (pid {pid}) {end}", "t"));
    if !rests_on.is_empty() {
        line(text, "    (* what the verdict rests on)");
    }
}

fn who(death: &DeathRecord) -> String {
    let Container { name, .. } = &death.container;
    let DeadProcess { comm, pid, .. } = &death.process;
    match death.subject {
        Subject::Container => format!("container {name}"),
        Subject::Process => format!("process {comm} (pid {pid}) of {name}"),
    }
}

/// One thing that was seen, in words.
fn fact(fact: &Fact) -> String {
    match fact {
        Fact::ContainerStarted => "the container started".to_owned(),
        Fact::Executed(execution) if execution.outcome < 0 => {
            format!("it could not execute {} (errno {})", execution.path, -execution.outcome)
        }
        Fact::Executed(execution) => format!("it executed {}", execution.path),
        Fact::Signal(signal) => self::signal(signal),
        Fact::ChildExited(exit) => {
            let why = if exit.oom_killed { ", for want of memory" } else { "" };
            let refused = match &exit.refused {
                Some(refused) => format!(
                    ", because it could not execute {} (errno {})",
                    refused.path, -refused.outcome
                ),
                None => String::new(),
            };
            format!("its child {} {}{why}{refused}", party(&exit.child), ended(exit.status))
        }
        Fact::OomKill(kill) => oom_kill(kill),
        Fact::Throttled(throttling) => format!(
            "throttled for {} of the last {}",
            span(throttling.throttled_ns),
            span(throttling.window_ns)
        ),
        Fact::Memory(sample) => {
            let kills = match sample.events_oom_kill {
                Some(kills) if kills > 0 => format!(", {kills} OOM kills so far"),
                _ => String::new(),
            };
            format!("memory: {}{}{kills}", bytes(sample.current_bytes), of(sample.limit, bytes))
        }
        Fact::Cpu(sample) => format!(
            "cpu: {} used, throttled in {} of {} periods",
            span(sample.usage_ns),
            sample.throttled_periods,
            sample.periods
        ),
        Fact::Pids(sample) => {
            let hits = match sample.events_max {
                Some(hits) if hits > 0 => format!(", {hits} forks failed"),
                _ => String::new(),
            };
            let limit = of(sample.limit, |limit| limit.to_string());
            format!("processes: {}{limit}{hits}", sample.current)
        }
        Fact::Pressure(sample) => format!(
            "pressure on {}: some {} %, all {} % of 10 s",
            sample.resource.name(),
            percent(sample.some_avg10),
            percent(sample.full_avg10)
        ),
        Fact::Fault(fault) => {
            let signal = signal_name(fault.signal);
            format!("{signal}: fault at address {:#x} (code {})", fault.address, fault.si_code)
        }
        Fact::Seccomp(seccomp) => match &seccomp.name {
            Some(name) => format!("its seccomp filter did not allow {name}"),
            None => format!("its seccomp filter did not allow system call {}", seccomp.syscall),
        },
        Fact::ResourceLimit(limit) => match limit.soft {
            Some(soft) => format!("it reached its limit of {} ({soft})", limit.resource),
            None => format!("it reached its limit of {}", limit.resource),
        },
        Fact::InitDied(death) => {
            format!("the first process, {}, {}", party(&death.init), ended(death.status))
        }
        Fact::CgroupKill(kill) => {
            format!("{} wrote to cgroup.kill of {}", sender(&kill.writer), kill.cgroup_path)
        }
    }
}

fn signal(signal: &Signal) -> String {
    let mut text = format!("{} from {}", signal_name(signal.number), sender(&signal.sender));
    let effect = match (signal.disposition, signal.result) {
        (Disposition::UnkillableInit, _) => {
            "no effect, the first process of a container has no handler for it"
        }
        (Disposition::Ignored, _) | (_, SignalResult::Ignored) => "ignored",
        (Disposition::Handler, _) => "the process has a handler for it",
        (Disposition::Blocked, _) => "blocked, it waits",
        (Disposition::Default | Disposition::Unknown, SignalResult::AlreadyPending) => {
            "one like it was waiting already"
        }
        (Disposition::Default | Disposition::Unknown, SignalResult::OverflowFail) => {
            "lost, the queue was full"
        }
        (
            Disposition::Default | Disposition::Unknown,
            SignalResult::Delivered | SignalResult::LoseInfo,
        ) => return text,
    };
    let _ = write!(text, ": {effect}");
    text
}

fn oom_kill(kill: &OomKill) -> String {
    let whom = if kill.is_self { "it".to_owned() } else { party(&kill.victim) };
    let place = match kill.scope {
        OomScope::Own => "the container's memory limit".to_owned(),
        OomScope::Ancestor => format!("the memory limit of {}", kill.cgroup_path),
        OomScope::Node => "the machine's memory".to_owned(),
        OomScope::Unknown => "a memory limit that was not seen".to_owned(),
    };
    let limit = kill.limit_bytes.map_or(String::new(), |limit| format!(" ({})", bytes(limit)));
    let group = if kill.group_kill { ", with its whole cgroup" } else { "" };
    format!("the OOM killer chose {whom}{group}: {place}{limit} ran out")
}

fn sender(sender: &Sender) -> String {
    match sender {
        Sender::Process(process) => party(process),
        Sender::Kernel => "the kernel".to_owned(),
        Sender::Unknown => "somebody who was not seen".to_owned(),
    }
}

fn party(party: &Party) -> String {
    let mut text = match party.comm.as_str() {
        "" => format!("pid {}", party.pid),
        comm => format!("{comm} (pid {})", party.pid),
    };
    if let Some(container) = &party.container {
        let _ = write!(text, " of {container}");
    }
    for Ancestor { comm, .. } in &party.ancestry {
        let _ = write!(text, " < {comm}");
    }
    text
}

fn ended(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited { code } => format!("exited with code {code}"),
        WaitStatus::Killed { signal, .. } => format!("was ended by {}", signal_name(signal)),
    }
}

fn of(limit: Limit, amount: impl Fn(u64) -> String) -> String {
    match limit {
        Limit::At(limit) => format!(" of {}", amount(limit)),
        Limit::Unlimited => ", without a limit".to_owned(),
        Limit::Unknown => String::new(),
    }
}

/// Hundredths of a percent as percent.
fn percent(hundredths: u32) -> String {
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn time(ns: u64) -> String {
    match Timestamp::from_nanosecond(i128::from(ns)) {
        // Nobody reads more than milliseconds, and nothing is ordered by them.
        Ok(time) => {
            let subsecond =
                Duration::from_nanos(u64::from(time.subsec_nanosecond().unsigned_abs()));
            let precision = if subsecond.is_zero() { 0 } else { 3 };
            format!("{time:.precision$}")
        }
        Err(_) => format!("{ns} ns"),
    }
}

/// A time span with the unit that fits.
fn span(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        1_000_000_000..120_000_000_000 => format!("{:.1} s", ns as f64 / 1e9),
        120_000_000_000..7_200_000_000_000 => format!("{} min", ns / 60_000_000_000),
        _ => format!("{} h", ns / 3_600_000_000_000),
    }
}

/// Bytes in the unit that fits.
fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1_024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// Name of a signal (`man 7 signal`, x86_64 and aarch64).
fn signal_name(number: u8) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    match number.checked_sub(1).and_then(|index| NAMES.get(usize::from(index))) {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {number}"),
    }
}

//! Processes that the kernel ends for what they did, or for what they had asked for.

use serde_json::json;

use super::claim::Claim;
use super::{PLAIN, die_each, in_children};
use crate::Outcome;
use crate::report::expect_eq;

pub(super) fn claims() -> Vec<Claim> {
    vec![
        Claim::new(
            "deaths::a_fault_has_its_address_and_no_sender",
            &["crashed-segv", "crashed-bus", "crashed-fpe", "crashed-ill", "crashed-trap"],
            faults,
        ),
        Claim::new(
            "deaths::an_init_crashes_like_any_other",
            &["crashed-segv", "crashed-ill"],
            init_faults,
        ),
        Claim::new("deaths::a_refused_system_call_has_its_number", &["seccomp-violation"], seccomp),
        Claim::new("deaths::a_limit_of_its_own_is_told", &["cpu-limit", "file-size-limit"], limits),
        Claim::new("deaths::a_broken_pipe_is_nobody_s_kill", &["broken-pipe"], broken_pipe),
        Claim::new("deaths::a_timer_of_its_own_is_nobody_s_kill", &["timer-expired"], timers),
        Claim::new("deaths::a_terminal_ends_what_runs_on_it", &["terminal-signal"], terminals),
    ]
}

fn faults() -> Outcome {
    // SIGSEGV: nothing is mapped there (`SEGV_MAPERR`). SIGBUS: behind the end of a file (`BUS_ADRERR`). SIGFPE: a division
    // (`FPE_INTDIV`). SIGILL: an instruction that there is not (`ILL_ILLOPN`). SIGTRAP: a breakpoint (`SI_KERNEL` on x86,
    // `TRAP_BRKPT` elsewhere).
    let trap = if cfg!(target_arch = "x86_64") { 128 } else { 1 };
    let expected = [
        (11, 1, "crashed-segv"),
        (7, 2, "crashed-bus"),
        (8, 1, "crashed-fpe"),
        (4, 2, "crashed-ill"),
        (5, trap, "crashed-trap"),
    ];
    let numbers = expected.map(|(signal, ..)| signal.to_string());
    let ways: Vec<[&str; 2]> = numbers.iter().map(|number| ["fault", number]).collect();
    let ways: Vec<&[&str]> = ways.iter().map(|way| way.as_slice()).collect();
    for ((death, told), (signal, code, verdict)) in
        in_children(PLAIN, &ways)?.into_iter().zip(expected)
    {
        expect_eq("what the parent was told", &(told & 0x7f), &(signal as u64))?;
        death.expect_killed(signal)?;
        death.expect_decided("exception", "kernel", None)?;
        let number = format!("signal {signal}");
        death.expect_verdict(verdict, 95..=99, &[&number, "fault"])?;
        let fault = death.fact("fault")?;
        expect_eq("si_code", &fault["si_code"], &json!(code))?;
        if signal == 11 {
            expect_eq("address", &fault["address"], &json!(0xdead000))?;
            death.expect_told("0xdead000")?;
        }
    }
    Ok(())
}

fn init_faults() -> Outcome {
    let dead = die_each(&[&["fault", "11"], &["fault", "4"]])?;
    let expected = [(11, "crashed-segv"), (4, "crashed-ill")];
    for ((death, told), (signal, verdict)) in dead.into_iter().zip(expected) {
        expect_eq("what the runtime was told", &told, &(128 + signal))?;
        death.expect_killed(signal)?;
        death.expect_decided("exception", "kernel", None)?;
        let number = format!("signal {signal}");
        death.expect_verdict(verdict, 95..=99, &[&number, "fault"])?;
    }
    Ok(())
}

fn seccomp() -> Outcome {
    const GETPPID: &str = if cfg!(target_arch = "x86_64") { "110" } else { "173" };
    for (death, told) in in_children(PLAIN, &[&["seccomp", GETPPID]])? {
        expect_eq("what the parent was told", &(told & 0x7f), &31)?;
        death.expect_killed(31)?;
        let call = death.fact("seccomp")?["syscall"].to_string();
        expect_eq("system call", &call.as_str(), &GETPPID)?;
        // Before Linux 5.16 the kernel kills without a signal.
        let rests_on: &[&str] = match death.facts("signal").is_empty() {
            true => &["seccomp"],
            false => &["signal 31", "seccomp"],
        };
        death.expect_verdict("seccomp-violation", 95..=99, rests_on)?;
        death.expect_told(GETPPID)?;
    }
    Ok(())
}

fn limits() -> Outcome {
    let dead = in_children(PLAIN, &[&["limit", "24"], &["limit", "25"], &["limit", "9"]])?;
    let expected = [
        (24, "cpu", 1, "cpu-limit"),
        (25, "fsize", 4096, "file-size-limit"),
        (9, "cpu", 1, "cpu-limit"),
    ];
    for ((death, told), (signal, resource, soft, verdict)) in dead.into_iter().zip(expected) {
        expect_eq("what the parent was told", &(told & 0x7f), &(signal as u64))?;
        death.expect_killed(signal)?;
        let limit = death.fact("resource-limit")?;
        expect_eq("resource", &limit["resource"], &json!(resource))?;
        expect_eq("soft limit", &limit["soft"], &json!(soft))?;
        let number = format!("signal {signal}");
        death.expect_verdict(verdict, 95..=99, &[&number, "resource-limit"])?;
        death.expect_told(&soft.to_string())?;
    }
    Ok(())
}

fn broken_pipe() -> Outcome {
    for (death, told) in in_children(PLAIN, &[&["pipe"]])? {
        expect_eq("what the parent was told", &(told & 0x7f), &13)?;
        death.expect_killed(13)?;
        death.expect_decided("exception", "kernel", None)?;
        death.expect_verdict("broken-pipe", 90..=99, &["signal 13"])?;
    }
    Ok(())
}

fn timers() -> Outcome {
    let signals = [14, 26, 27, 15];
    let ways: [&[&str]; 4] =
        [&["timer", "14"], &["timer", "26"], &["timer", "27"], &["timer", "15"]];
    for ((death, told), signal) in in_children(PLAIN, &ways)?.into_iter().zip(signals) {
        expect_eq("what the parent was told", &(told & 0x7f), &(signal as u64))?;
        death.expect_killed(signal)?;
        expect_eq("origin", &death.deciding()?["origin"], &json!("kernel"))?;
        expect_eq("sender", &death.deciding()?["sender"]["kind"], &json!("kernel"))?;
        let number = format!("signal {signal}");
        death.expect_verdict("timer-expired", 90..=97, &[&number])?;
    }
    Ok(())
}

fn terminals() -> Outcome {
    let with = |builder: whodunit_containers::ContainerBuilder| builder.terminals();
    let ways: [&[&str]; 3] = [&["terminal", "2"], &["terminal", "3"], &["terminal", "1"]];
    for ((death, told), signal) in super::of_those_buried(with, &ways)?.into_iter().zip([2, 3, 1]) {
        expect_eq("what the parent was told", &(told & 0x7f), &(signal as u64))?;
        death.expect_killed(signal)?;
        expect_eq("sender", &death.deciding()?["sender"]["kind"], &json!("kernel"))?;
        let number = format!("signal {signal}");
        death.expect_verdict("terminal-signal", 85..=95, &[&number])?;
    }
    Ok(())
}

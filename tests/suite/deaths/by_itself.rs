//! Processes that end by their own doing.

use libtest_mimic::{Failed, Trial};
use serde_json::json;
use whodunit_containers::{DaemonConfig, Pod};

use super::{Death, about_deaths, container_death, die_each, hear_numbers, mortal, process_death};
use crate::Outcome;
use crate::report::{expect, expect_eq};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        about_deaths("deaths::an_exit_code_is_the_process_s_own", exit_codes),
        about_deaths("deaths::what_a_shell_could_not_execute_is_its_code", shell_codes),
        about_deaths("deaths::abort_is_a_signal_of_its_own", aborts),
        about_deaths("deaths::a_fault_has_its_address_and_no_sender", faults),
        about_deaths("deaths::a_refused_system_call_has_its_number", seccomp),
        about_deaths("deaths::a_limit_of_its_own_is_told", limits),
        about_deaths("deaths::a_broken_pipe_is_nobody_s_kill", broken_pipe),
        about_deaths("deaths::the_code_of_a_process_is_never_a_thread_s", threads),
        about_deaths("deaths::a_thread_that_executes_becomes_the_process", thread_executes),
    ]
}

fn exit_codes() -> Outcome {
    let dead = die_each(&[&["exit", "0"], &["exit", "7"]])?;
    for ((death, told), code) in dead.into_iter().zip([0_u8, 7]) {
        expect_eq("what the runtime was told", &told, &i32::from(code))?;
        death.expect_exited(code)?;
        let process = &death.0["process"];
        expect_eq("comm", &process["comm"], &json!("mortal"))?;
        expect_eq("exe", &process["exe"], &json!("/mortal"))?;
        expect_eq("namespace_pid", &process["namespace_pid"], &json!(1))?;
        expect_eq("is_container_init", &process["is_container_init"], &json!(true))?;
        expect_eq("parent", &process["ancestry"][0]["comm"], &json!("runc"))?;
    }
    Ok(())
}

fn shell_codes() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    for (script, code) in [("/no/such/program", 127), ("/etc", 126), ("/etc/plain", 126)] {
        let app = pod.container("app").file("/etc/plain", "", 0o644).shell(script).run()?;
        expect_eq("what the runtime was told", &app.output.status.code(), &Some(code))?;
        container_death(&config, &app.id)?.expect_exited(code as u8)?;
    }
    Ok(())
}

fn aborts() -> Outcome {
    // The first process of a namespace gets no signal from inside; its child does.
    let (death, told) = in_child(&["abort"])?;
    expect_eq("what the parent was told", &(told & 0x7f), &6)?;
    death.expect_killed(6)?;
    death.expect_decided("thread", "self", Some("mortal"))
}

/// Lets a child of a container's first process die so, and gives the record and the status that its parent was told.
fn in_child(how: &[&str]) -> Result<(Death, u64), Failed> {
    let mut dead = in_children(&[how])?;
    dead.pop().ok_or_else(|| "one way, one death".into())
}

/// The same for several ways, each in a container of its own.
fn in_children(ways: &[&[&str]]) -> Result<Vec<(Death, u64)>, Failed> {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let start = |how: &&[&str]| {
        let words: Vec<&str> = std::iter::once("run").chain(how.iter().copied()).collect();
        mortal(&pod, &words).start()
    };
    let apps: Vec<_> = ways.iter().map(start).collect::<Result<_, _>>()?;
    let bury = |app| {
        let buried = hear_numbers(app, "buried")?;
        let death = process_death(&config, app, buried[0])?;
        death.expect_sound()?;
        expect_eq("subject", &death.0["subject"], &json!("process"))?;
        Ok((death, buried[1]))
    };
    apps.iter().map(bury).collect()
}

fn faults() -> Outcome {
    // SIGSEGV: nothing is mapped there (`SEGV_MAPERR`). SIGBUS: behind the end of a file (`BUS_ADRERR`). SIGFPE: a division
    // (`FPE_INTDIV`). SIGILL: an instruction that there is not (`ILL_ILLOPN`).
    let dead = in_children(&[&["fault", "11"], &["fault", "7"], &["fault", "8"], &["fault", "4"]])?;
    for ((death, told), (signal, code)) in dead.into_iter().zip([(11, 1), (7, 2), (8, 1), (4, 2)]) {
        expect_eq("what the parent was told", &(told & 0x7f), &(signal as u64))?;
        death.expect_killed(signal)?;
        death.expect_decided("exception", "kernel", None)?;
        let fault = death.fact("fault")?;
        expect_eq("si_code", &fault["si_code"], &json!(code))?;
        if signal == 11 {
            expect_eq("address", &fault["address"], &json!(0xdead000))?;
        }
    }
    Ok(())
}

fn seccomp() -> Outcome {
    const GETPPID: &str = if cfg!(target_arch = "x86_64") { "110" } else { "173" };
    let (death, told) = in_child(&["seccomp", GETPPID])?;
    expect_eq("what the parent was told", &(told & 0x7f), &31)?;
    death.expect_killed(31)?;
    let call = death.fact("seccomp")?["syscall"].to_string();
    expect_eq("system call", &call.as_str(), &GETPPID)
}

fn limits() -> Outcome {
    let dead = in_children(&[&["limit", "24"], &["limit", "25"]])?;
    let expected = [(24, "cpu", 1), (25, "fsize", 4096)];
    for ((death, told), (signal, resource, soft)) in dead.into_iter().zip(expected) {
        expect_eq("what the parent was told", &(told & 0x7f), &(signal as u64))?;
        death.expect_killed(signal)?;
        let limit = death.fact("resource-limit")?;
        expect_eq("resource", &limit["resource"], &json!(resource))?;
        expect_eq("soft limit", &limit["soft"], &json!(soft))?;
    }
    Ok(())
}

fn broken_pipe() -> Outcome {
    let (death, told) = in_child(&["pipe"])?;
    expect_eq("what the parent was told", &(told & 0x7f), &13)?;
    death.expect_killed(13)?;
    death.expect_decided("exception", "kernel", None)
}

fn threads() -> Outcome {
    // Where each thread ends by itself, older kernels tell the code of the first one (4) and newer ones that of the last (3).
    let dead = die_each(&[&["thread-exit", "9"], &["leader-first", "4"]])?;
    for ((death, told), codes) in dead.into_iter().zip([[9, 9], [4, 3]]) {
        expect(format!("the runtime was told {told}, of {codes:?}"), codes.contains(&told))?;
        death.expect_exited(told as u8)?;
    }
    Ok(())
}

fn thread_executes() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let mut app = mortal(&pod, &["thread-exec"]).start()?;
    app.hear("ready 1")?;
    app.kill("KILL")?;
    expect_eq("what the runtime was told", &app.wait()?.code(), &Some(128 + 9))?;
    let death = container_death(&config, app.id())?;
    death.expect_sound()?;
    death.expect_killed(9)?;
    death.expect_decided("kill", "runtime", Some("runc"))?;
    expect_eq("pid", &death.0["process"]["pid"], &json!(app.pid()))?;
    let programs: Vec<_> =
        death.facts("executed").iter().map(|fact| fact["path"].clone()).collect();
    expect_eq("programs", &programs, &vec![json!("/mortal"), json!("/proc/self/exe")])
}

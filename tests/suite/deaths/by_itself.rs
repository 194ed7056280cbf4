//! Processes that end by their own doing.

use std::process::Command;

use libtest_mimic::Failed;
use serde_json::json;
use whodunit_containers::cgroup::make_nested;
use whodunit_containers::condition::{PATIENCE, wait_until};
use whodunit_containers::{DaemonConfig, Pod};

use super::claim::Claim;
use super::{
    Death, PLAIN, container_death, die_each, end, hear_numbers, in_children, mortal, play,
    process_death,
};
use crate::Outcome;
use crate::report::{expect, expect_eq};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        Claim::new(
            "deaths::an_exit_code_is_the_process_s_own",
            &["clean-exit", "application-error"],
            exit_codes,
        ),
        Claim::new(
            "deaths::a_program_that_the_kernel_refused_is_named",
            &["not-found", "cannot-execute"],
            refused_programs,
        ),
        Claim::new(
            "deaths::what_a_shell_did_not_find_is_its_code",
            &["not-found", "cannot-execute"],
            shell_codes,
        ),
        Claim::new(
            "deaths::a_program_may_exit_with_the_codes_of_shells",
            &["application-error"],
            own_codes,
        ),
        Claim::new(
            "deaths::a_runtime_that_executes_itself_in_the_cgroup_is_not_the_container",
            &["application-error"],
            runtime_itself,
        ),
        Claim::new("deaths::abort_is_a_signal_of_its_own", &["aborted"], aborts),
        Claim::new("deaths::an_init_that_aborts_did_not_crash", &["aborted"], init_aborts),
        Claim::new("deaths::a_signal_to_oneself_is_one_s_own", &["killed-by-self"], by_self),
        Claim::new(
            "deaths::a_code_that_stands_for_a_signal_is_no_kill",
            &["exited-like-signal"],
            codes_like_signals,
        ),
        Claim::new(
            "deaths::a_shell_passes_on_what_ended_its_child",
            &["child-killed", "killed-by-exec"],
            passed_on,
        ),
        Claim::new(
            "deaths::the_code_of_a_process_is_never_a_thread_s",
            &["application-error"],
            threads,
        ),
        Claim::new(
            "deaths::a_thread_that_executes_becomes_the_process",
            &["killed-by-runtime"],
            thread_executes,
        ),
    ]
}

fn exit_codes() -> Outcome {
    let dead = die_each(&[&["exit", "0"], &["exit", "7"]])?;
    let verdicts = ["clean-exit", "application-error"];
    for (((death, told), code), verdict) in dead.into_iter().zip([0_u8, 7]).zip(verdicts) {
        expect_eq("what the runtime was told", &told, &i32::from(code))?;
        death.expect_exited(code)?;
        death.expect_verdict(verdict, 95..=99, &[])?;
        let process = &death["process"];
        expect_eq("comm", &process["comm"], &json!("mortal"))?;
        expect_eq("exe", &process["exe"], &json!("/mortal"))?;
        expect_eq("namespace_pid", &process["namespace_pid"], &json!(1))?;
        expect_eq("is_container_init", &process["is_container_init"], &json!(true))?;
        expect_eq("parent", &process["ancestry"][0]["comm"], &json!("runc"))?;
    }
    Ok(())
}

fn refused_programs() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    // The shell itself, and a child of it whose code it passes on.
    for (program, code, errno, verdict) in [
        ("/no/such/program", 127, -2, "not-found"),
        ("/etc/plain/program", 127, -20, "not-found"),
        ("/etc", 126, -13, "cannot-execute"),
        ("/etc/plain", 126, -13, "cannot-execute"),
    ] {
        let in_child = format!("{program}; exit $?");
        for (script, rests_on) in [(program, "executed"), (in_child.as_str(), "child-exited")] {
            let app = pod.container("app").file("/etc/plain", "", 0o644).shell(script).run()?;
            expect_eq("what the runtime was told", &app.output.status.code(), &Some(code))?;
            let death = container_death(&config, &app.id)?;
            death.expect_sound()?;
            death.expect_exited(code as u8)?;
            death.expect_verdict(verdict, 93..=98, &[rests_on])?;
            death.expect_told(program)?;
            let fact = death.fact(rests_on)?;
            let refused = if rests_on == "executed" { fact } else { &fact["refused"] };
            expect_eq("refused", &refused["path"], &json!(program))?;
            expect_eq("errno", &refused["outcome"], &json!(errno))?;
        }
    }
    Ok(())
}

fn shell_codes() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    // What a shell looks for along PATH it does not try to execute: by its convention only, so less sure.
    for (script, code, verdict) in
        [("no-such-program", 127, "not-found"), ("exit 126", 126, "cannot-execute")]
    {
        let app = pod.container("app").shell(script).run()?;
        expect_eq("what the runtime was told", &app.output.status.code(), &Some(code))?;
        let death = container_death(&config, &app.id)?;
        death.expect_sound()?;
        death.expect_exited(code as u8)?;
        death.expect_verdict(verdict, 60..=75, &[])?;
    }
    Ok(())
}

fn own_codes() -> Outcome {
    let dead = die_each(&[&["exit", "126"], &["exit", "127"]])?;
    // With 127 the dynamic loader exits as well.
    for ((death, told), (code, sure)) in dead.into_iter().zip([(126_u8, 80..=92), (127, 60..=75)]) {
        expect_eq("what the runtime was told", &told, &i32::from(code))?;
        death.expect_exited(code)?;
        death.expect_verdict("application-error", sure, &[])?;
        death.expect_told("this is no shell")?;
    }
    // What was refused before something else was executed is not the reason of the end.
    play(
        |pod| mortal(pod, &["search", "/no/such/program", "127"]),
        |config, _, app| {
            let death = end(config, app, 127)?;
            death.expect_exited(127)?;
            death.expect_verdict("application-error", 60..=75, &[])?;
            let outcomes: Vec<_> =
                death.facts("executed").iter().map(|fact| fact["outcome"].clone()).collect();
            expect_eq("outcomes of what it executed", &outcomes, &vec![json!(0), json!(0)])
        },
    )
}

fn runtime_itself() -> Outcome {
    let pod = Pod::new("deaths")?;
    let _neighbour = pod.container("neighbour").shell("read stay").start()?;
    let config = DaemonConfig::for_pod(&pod)?;
    let _daemon = config.start()?;
    let name = format!("itself-{}", std::process::id());
    let folder = make_nested(&pod.cgroup_folder(), &name)?;
    let program = super::program().as_ref().map_err(|error| Failed::from(error.clone()))?;
    let mut runtime = Command::new(program);
    let runtime = runtime.arg("itself").arg(folder.join("cgroup.procs")).arg(program).arg("7");
    expect_eq("how the runtime ended", &runtime.status()?.code(), &Some(0))?;
    let death = container_death(&config, &name)?;
    death.expect_exited(7)?;
    death.expect_verdict("application-error", 95..=99, &[])?;
    let programs: Vec<_> =
        death.facts("executed").iter().map(|fact| fact["path"].clone()).collect();
    expect_eq("programs", &programs, &vec![json!(program.display().to_string())])?;
    expect("its cgroup goes", wait_until(PATIENCE, || std::fs::remove_dir(&folder).is_ok()))
}

fn aborts() -> Outcome {
    let mut dead = in_children(PLAIN, &[&["abort"]])?;
    let (death, told) = dead.pop().ok_or_else(|| Failed::from("one way, one death"))?;
    expect_eq("what the parent was told", &(told & 0x7f), &6)?;
    death.expect_killed(6)?;
    death.expect_decided("thread", "self", Some("mortal"))?;
    death.expect_verdict("aborted", 95..=99, &["signal 6"])
}

fn init_aborts() -> Outcome {
    // The first process of a namespace gets no signal from inside, so the C library goes on to an instruction that no process
    // may execute: the runtime is told of SIGSEGV.
    let (death, told) = die_each(&[&["abort"]])?.remove(0);
    expect_eq("what the runtime was told", &told, &(128 + 11))?;
    death.expect_killed(11)?;
    death.expect_verdict("aborted", 90..=98, &["signal 6", "signal 11", "fault"])
}

fn by_self() -> Outcome {
    let mut dead = in_children(PLAIN, &[&["self", "10"]])?;
    let (death, told) = dead.pop().ok_or_else(|| Failed::from("one way, one death"))?;
    expect_eq("what the parent was told", &(told & 0x7f), &10)?;
    death.expect_killed(10)?;
    death.expect_decided("kill", "self", Some("mortal"))?;
    death.expect_verdict("killed-by-self", 95..=99, &["signal 10"])
}

fn codes_like_signals() -> Outcome {
    for ((death, told), code) in
        die_each(&[&["exit", "137"], &["exit", "143"]])?.into_iter().zip([137_u8, 143])
    {
        expect_eq("what the runtime was told", &told, &i32::from(code))?;
        death.expect_exited(code)?;
        death.expect_verdict("exited-like-signal", 70..=85, &[])?;
    }
    Ok(())
}

fn passed_on() -> Outcome {
    play(
        |pod| mortal(pod, &[]).shell("/mortal pause; exit $?"),
        |config, _, app| {
            let victim = hear_numbers(app, "ready")?[0];
            app.exec(&["/mortal", "send", "kill", &victim.to_string(), "9"])?;
            let death = end(config, app, 128 + 9)?;
            death.expect_exited(128 + 9)?;
            let child = death.fact("child-exited")?;
            expect_eq("child", &child["child"]["comm"], &json!("mortal"))?;
            death.expect_verdict("child-killed", 90..=97, &["child-exited"])?;
            let child = process_death(config, app, victim)?;
            child.expect_killed(9)?;
            child.expect_verdict("killed-by-exec", 90..=97, &["signal 9"])
        },
    )
}

fn threads() -> Outcome {
    // Where each thread ends by itself, older kernels tell the code of the first one (4) and newer ones that of the last (3).
    let dead = die_each(&[&["thread-exit", "9"], &["leader-first", "4"]])?;
    for ((death, told), codes) in dead.into_iter().zip([[9, 9], [4, 3]]) {
        expect(format!("the runtime was told {told}, of {codes:?}"), codes.contains(&told))?;
        death.expect_exited(told as u8)?;
        death.expect_verdict("application-error", 95..=99, &[])?;
        death.expect_told(&format!("exit code {told}"))?;
    }
    Ok(())
}

fn thread_executes() -> Outcome {
    play(
        |pod| mortal(pod, &["thread-exec"]),
        |config, _, app| {
            app.hear("ready 1")?;
            app.kill("KILL")?;
            let death: Death = end(config, app, 128 + 9)?;
            death.expect_killed(9)?;
            death.expect_decided("kill", "runtime", Some("runc"))?;
            death.expect_verdict("killed-by-runtime", 90..=97, &["signal 9"])?;
            expect_eq("pid", &death["process"]["pid"], &json!(app.pid()))?;
            let programs: Vec<_> =
                death.facts("executed").iter().map(|fact| fact["path"].clone()).collect();
            expect_eq("programs", &programs, &vec![json!("/mortal"), json!("/proc/self/exe")])
        },
    )
}

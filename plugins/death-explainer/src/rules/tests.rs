//! Every verdict, and what comes close to it and is none.

use std::collections::BTreeSet;
use std::sync::Mutex;

use whodunit_sdk::death::Disposition as D;
use whodunit_sdk::death::Relation as R;
use whodunit_sdk::death::{OomScope, Way, key};
use whodunit_sdk::testing::{DeathBuilder, explainer};
use whodunit_sdk::{Explainer, Explanation};

use crate::{DeathExplainer, VERDICTS};

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// Every verdict that some test got.
static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

#[track_caller]
fn explain(death: DeathBuilder) -> Explanation {
    let mut plugin = explainer::<DeathExplainer>("{}").unwrap();
    let explanation = plugin.explain(&death.build()).unwrap();
    let texts = [&explanation.headline, &explanation.explanation];
    for text in texts.into_iter().chain(&explanation.advice) {
        assert!(!text.contains(['{', '}']), "a template was not filled: {text}");
        assert!(!text.is_empty());
    }
    assert!(explanation.headline.len() < 200, "{}", explanation.headline);
    SEEN.lock().unwrap().insert(explanation.verdict.clone());
    explanation
}

#[track_caller]
fn check(death: DeathBuilder, verdict: &str, rests_on: &[u32]) -> Explanation {
    let explanation = explain(death);
    assert_eq!(explanation.verdict, verdict, "{explanation:#?}");
    assert_eq!(explanation.rests_on, rests_on, "{explanation:#?}");
    assert_eq!(explanation.confidence == 0, verdict == "unknown", "{explanation:#?}");
    explanation
}

/// The runtime stops a container: SIGTERM at t-30 s, SIGKILL at the end.
fn stopped(disposition: D) -> DeathBuilder {
    DeathBuilder::killed(9)
        .container_init()
        .signal(30 * S, 15, disposition, R::Runtime)
        .by(812, "runc")
        .ancestor(700, "containerd-shim")
        .signal(MS, 9, D::Default, R::Runtime)
        .by(813, "runc")
        .ancestor(700, "containerd-shim")
        .decides()
}

fn killed(signal: u8, relation: R) -> DeathBuilder {
    DeathBuilder::killed(signal).signal(MS, signal, D::Default, relation).by(55, "sh").decides()
}

fn crashed(signal: u8, si_code: i32, address: u64) -> DeathBuilder {
    DeathBuilder::killed(signal)
        .kernel_signal(0, signal, si_code, Way::Exception)
        .decides()
        .evidence(key::kind::FAULT, 0)
        .number(key::SIGNAL, u64::from(signal))
        .number(key::SI_CODE, u64::from(si_code.unsigned_abs()))
        .number(key::ADDRESS, address)
}

fn out_of_memory(scope: OomScope) -> DeathBuilder {
    DeathBuilder::killed(9)
        .container_init()
        .oom_kill(2 * MS, scope, true, "/kubepods/pod1")
        .number(key::PROCESS, 100)
        .number(key::LIMIT, 64 << 20)
        .kernel_signal(MS, 9, 128, Way::Oom)
        .decides()
}

fn child_exited(death: DeathBuilder, before: u64, status: u64) -> DeathBuilder {
    death
        .evidence(key::kind::PROCESS_EXITED, before)
        .number(key::STATUS, status)
        .number(key::PROCESS, 101)
        .text(key::text::NAME, "worker")
}

#[test]
fn exits() {
    check(DeathBuilder::exited(0), "clean-exit", &[]);
    check(DeathBuilder::exited(3), "application-error", &[]);
    check(DeathBuilder::exited(128), "application-error", &[]);
    check(DeathBuilder::exited(255), "application-error", &[]);
    let failed = |outcome: i64| {
        let death = DeathBuilder::exited(if outcome == -2 { 127 } else { 126 });
        death
            .evidence(key::kind::PROCESS_EXECUTED, MS)
            .text(key::text::PROGRAM, "/bin/nope")
            .number(key::OUTCOME, outcome.cast_unsigned())
    };
    assert!(check(failed(-2), "not-found", &[0]).explanation.contains("/bin/nope"));
    check(failed(-13), "cannot-execute", &[0]);
    // By the code alone, less sure.
    let by_code = check(DeathBuilder::exited(127), "not-found", &[]).confidence;
    assert!(by_code < check(failed(-2), "not-found", &[0]).confidence);
    check(DeathBuilder::exited(126), "cannot-execute", &[]);
    // Of a shell. Any other program may mean what it likes by the code.
    let program = |path| DeathBuilder::exited(127).text(key::text::PROGRAM, path);
    check(program("/usr/bin/bash"), "not-found", &[]);
    check(program("/bin/worker"), "application-error", &[]);
    let child = |outcome: i64, before| {
        child_exited(program("/bin/worker"), before, 127 << 8)
            .text(key::text::REFUSED, "/bin/nope")
            .number(key::OUTCOME, outcome.cast_unsigned())
    };
    assert!(check(child(-2, MS), "not-found", &[0]).explanation.contains("/bin/nope"));
    check(child(-13, MS), "application-error", &[]);
    check(child(-2, 3600 * S), "application-error", &[]);
}

#[test]
fn codes_that_stand_for_signals() {
    check(child_exited(DeathBuilder::exited(137), MS, 9), "child-killed", &[0]);
    // No child, another signal, or long ago.
    check(DeathBuilder::exited(137), "exited-like-signal", &[]);
    check(child_exited(DeathBuilder::exited(137), MS, 15), "exited-like-signal", &[]);
    check(child_exited(DeathBuilder::exited(137), 3600 * S, 9), "exited-like-signal", &[]);
    check(DeathBuilder::exited(137 + 64), "application-error", &[]);
}

#[test]
fn a_stop_is_not_a_kill() {
    let asked = |code, before, relation| {
        DeathBuilder::exited(code)
            .container_init()
            .signal(before, 15, D::Handler, relation)
            .by(812, "runc")
    };
    let explanation = check(asked(0, 3 * S, R::Runtime), "stopped-in-time", &[0]);
    assert_eq!(
        explanation.headline,
        "Container web was asked to stop by runc (pid 812) and did, 3.0 s later"
    );
    check(asked(143, 3 * S, R::Runtime), "stopped-in-time", &[0]);
    check(asked(1, 3 * S, R::Runtime), "stopped-with-error", &[0]);
    check(asked(0, 300 * MS, R::SameContainer), "stopped-on-request", &[0]);
    // Long before, and from somebody who is no runtime: an exit of its own.
    check(asked(0, 20 * S, R::SameContainer), "clean-exit", &[]);
    check(asked(1, 20 * S, R::HostProcess), "application-error", &[]);
    check(asked(0, 3600 * S, R::Runtime), "clean-exit", &[]);
    // One that had no effect on it.
    let ignored = DeathBuilder::exited(0)
        .container_init()
        .signal(S, 15, D::UnkillableInit, R::Runtime)
        .by(812, "runc");
    assert!(check(ignored, "clean-exit", &[]).explanation.contains("had no effect"));
    // By the default action of SIGTERM.
    check(killed(15, R::Runtime), "stopped-in-time", &[0]);
    // The image names another STOPSIGNAL.
    let quit = DeathBuilder::exited(0).signal(S, 3, D::Handler, R::Runtime).by(812, "runc");
    check(quit, "stopped-in-time", &[0]);
}

#[test]
fn grace_periods() {
    let no_handler = check(stopped(D::UnkillableInit), "grace-exceeded-no-handler", &[0, 1]);
    assert!(no_handler.confidence >= 95);
    assert!(no_handler.headline.contains("30.0 s after SIGTERM"), "{}", no_handler.headline);
    assert!(no_handler.advice.join(" ").contains("tini"));
    check(stopped(D::Ignored), "grace-exceeded-ignored", &[0, 1]);
    check(stopped(D::Blocked), "grace-exceeded-blocked", &[0, 1]);
    check(stopped(D::Handler), "grace-exceeded-slow", &[0, 1]);
    check(stopped(D::Unknown), "grace-exceeded", &[0, 1]);
    check(stopped(D::Default), "grace-exceeded", &[0, 1]);
    let throttled = |disposition, throttled| {
        stopped(disposition)
            .evidence(key::kind::CPU_THROTTLED, 0)
            .number(key::WINDOW, 30 * S)
            .number(key::THROTTLED, throttled)
    };
    let starved = check(throttled(D::Handler, 24 * S), "grace-exceeded-starved", &[0, 1, 2]);
    assert!(starved.explanation.contains("24.0 s of 30.0 s"), "{}", starved.explanation);
    // A little throttling explains nothing, and neither does any where the signal had no effect.
    check(throttled(D::Handler, 2 * S), "grace-exceeded-slow", &[0, 1]);
    check(throttled(D::UnkillableInit, 24 * S), "grace-exceeded-no-handler", &[0, 1]);
}

#[test]
fn a_kill_that_no_stop_came_before() {
    let death = killed(9, R::Runtime);
    let sure = check(death.clone(), "killed-by-runtime", &[0]).confidence;
    let less = check(death.unseen("started-before-daemon"), "killed-by-runtime", &[0]).confidence;
    assert!(less < sure);
    // A SIGTERM of an hour ago belongs to something else.
    let old = DeathBuilder::killed(9)
        .signal(3600 * S, 15, D::Handler, R::Runtime)
        .by(1, "runc")
        .signal(MS, 9, D::Default, R::Runtime)
        .by(2, "runc")
        .decides();
    check(old, "killed-by-runtime", &[0, 1]);
}

#[test]
fn who_sent_it() {
    for (relation, verdict) in [
        (R::Oneself, "killed-by-self"),
        (R::Parent, "killed-by-parent"),
        (R::Child, "killed-by-child"),
        (R::SameContainer, "killed-by-same-container"),
        (R::ExecSession, "killed-by-exec"),
        (R::OtherContainer, "killed-by-other-container"),
        (R::HostProcess, "killed-by-host-process"),
    ] {
        for signal in [9, 15, 11] {
            let explanation = check(killed(signal, relation), verdict, &[0]);
            if relation != R::Oneself {
                assert!(explanation.headline.contains("sh (pid 55)"), "{}", explanation.headline);
            }
        }
    }
    // Inside a container, SIGTERM and SIGKILL are no grace period of anybody.
    let impatient = DeathBuilder::killed(9)
        .signal(S, 15, D::Ignored, R::SameContainer)
        .by(55, "sh")
        .signal(MS, 9, D::Default, R::SameContainer)
        .by(55, "sh")
        .decides();
    check(impatient, "killed-by-same-container", &[0, 1]);
}

#[test]
fn no_verdict_where_the_evidence_does_not_tell() {
    let reason = check(DeathBuilder::killed(9).unseen("signals-lost"), "unknown", &[]);
    assert!(reason.headline.contains("records of signals were lost"), "{}", reason.headline);
    assert_eq!(reason.missing.len(), 1);
    check(DeathBuilder::killed(15), "unknown", &[]);
    check(DeathBuilder::killed(11), "unknown", &[]);
    check(killed(9, R::Unknown), "unknown", &[0]);
    check(killed(9, R::Kernel), "unknown", &[0]);
    // Whose cgroup the sender was in is not known, and that is what the verdict would say.
    check(killed(9, R::HostProcess).unseen("sender-container"), "unknown", &[0]);
    check(killed(9, R::OtherContainer).unseen("sender-container"), "unknown", &[0]);
    // The kernel made it, for a reason that was not seen.
    let kernel = DeathBuilder::killed(9).kernel_signal(MS, 9, 128, Way::Unknown).decides();
    check(kernel, "unknown", &[0]);
    // A full memory is no OOM kill.
    let full = DeathBuilder::killed(9)
        .evidence(key::kind::MEMORY, S)
        .number(key::USAGE, 64 << 20)
        .number(key::LIMIT, 64 << 20)
        .number(key::OOM_KILLS, 3);
    check(full, "unknown", &[]);
    // A deciding signal that does not fit the status is a wrong join.
    let wrong = DeathBuilder::killed(9).signal(MS, 15, D::Default, R::Parent).by(1, "a").decides();
    check(wrong, "unknown", &[]);
}

#[test]
fn lost_evidence_costs_confidence() {
    let sure = explain(killed(9, R::Parent)).confidence;
    let lossy = explain(killed(9, R::Parent).lost("ring-full", 1));
    assert!(lossy.confidence < sure);
    assert!(lossy.missing[0].contains("1 records"), "{:?}", lossy.missing);
    let unnamed = explain(killed(9, R::Parent).unseen("sender-name"));
    assert!(unnamed.confidence < sure);
    // What does not matter to a verdict costs it nothing.
    let unrelated = explain(killed(9, R::Parent).unseen("pressure").unseen("oom-scope"));
    assert_eq!((unrelated.confidence, unrelated.missing.len()), (sure, 0));
    // What this plugin has no words for is handed on.
    assert_eq!(explain(killed(9, R::Parent).unseen("new-thing")).missing, ["new-thing"]);
}

#[test]
fn crashes() {
    let null = check(crashed(11, 1, 0x10), "crashed-segv", &[0, 1]);
    assert!(null.explanation.contains("null pointer"), "{}", null.explanation);
    assert!(null.headline.contains("0x10"), "{}", null.headline);
    check(crashed(11, 2, 0x55_0000), "crashed-segv", &[0, 1]);
    check(crashed(7, 2, 0x7f00_0000), "crashed-bus", &[0, 1]);
    check(crashed(4, 2, 0x40_1000), "crashed-ill", &[0, 1]);
    check(crashed(8, 1, 0x40_1000), "crashed-fpe", &[0, 1]);
    check(crashed(5, 128, 0), "crashed-trap", &[0, 1]);
    let trap = check(crashed(5, 128, 0), "crashed-trap", &[0, 1]);
    assert!(!trap.headline.contains("address"), "{}", trap.headline);
    // The first process of a container aborts, which nobody tells it: the C library's next instruction ends it.
    let aborts = |disposition, gap| {
        DeathBuilder::killed(11)
            .container_init()
            .signal(gap, 6, disposition, R::Oneself)
            .kernel_signal(0, 11, 128, Way::Exception)
            .decides()
    };
    check(aborts(D::UnkillableInit, MS), "aborted", &[0, 1]);
    check(aborts(D::UnkillableInit, 60 * S), "crashed-segv", &[1]);
    check(aborts(D::Default, MS), "crashed-segv", &[1]);
    // Sent, and no crash.
    check(killed(11, R::SameContainer), "killed-by-same-container", &[0]);
    check(killed(6, R::Oneself), "aborted", &[0]);
    check(killed(6, R::Parent), "killed-by-parent", &[0]);
}

#[test]
fn what_the_kernel_does_for_reasons_of_its_own() {
    let seccomp = DeathBuilder::killed(31)
        .kernel_signal(0, 31, 1, Way::Exception)
        .decides()
        .evidence(key::kind::SECCOMP, 0)
        .number(key::SYSCALL, 59)
        .text(key::text::SYSCALL, "execve");
    assert!(check(seccomp, "seccomp-violation", &[0, 1]).headline.contains("execve"));
    // Before Linux 5.16 without a signal, before 5.15 without the number.
    let bare = DeathBuilder::killed(31).unseen("seccomp-syscall");
    check(bare.clone(), "seccomp-violation", &[]);
    check(bare.unseen("signals-lost"), "unknown", &[]);
    let cpu = |signal| {
        DeathBuilder::killed(signal)
            .kernel_signal(MS, signal, 128, Way::Exception)
            .decides()
            .evidence(key::kind::RESOURCE_LIMIT, MS)
            .text(key::text::RESOURCE, "cpu")
            .number(key::LIMIT, 1)
    };
    check(cpu(24), "cpu-limit", &[0, 1]);
    check(cpu(9), "cpu-limit", &[0, 1]);
    check(killed(25, R::Oneself), "file-size-limit", &[0]);
    check(killed(13, R::Oneself), "broken-pipe", &[0]);
    check(killed(13, R::Parent), "killed-by-parent", &[0]);
    let kernel =
        |signal, way| DeathBuilder::killed(signal).kernel_signal(0, signal, 128, way).decides();
    check(kernel(14, Way::Kernel), "timer-expired", &[0]);
    check(killed(14, R::Parent), "killed-by-parent", &[0]);
    // `timer_create` with another signal: `SI_TIMER` says so.
    let timer = DeathBuilder::killed(15).kernel_signal(0, 15, -2, Way::Kernel).decides();
    check(timer, "timer-expired", &[0]);
    check(kernel(2, Way::Kernel), "terminal-signal", &[0]);
    check(kernel(15, Way::ParentDeath), "parent-death-signal", &[0]);
    let write = kernel(9, Way::CgroupKill)
        .evidence(key::kind::CGROUP_KILL, MS)
        .text(key::text::CGROUP, "/kubepods/pod1")
        .by(1, "systemd");
    let explanation = check(write, "cgroup-kill", &[0, 1]);
    assert!(explanation.headline.contains("systemd (pid 1)"), "{}", explanation.headline);
    check(kernel(9, Way::CgroupKill), "cgroup-kill", &[0]);
    let teardown = kernel(9, Way::NamespaceTeardown)
        .evidence(key::kind::INIT_DIED, MS)
        .number(key::PROCESS, 7)
        .text(key::text::NAME, "init");
    assert!(check(teardown, "init-died", &[0, 1]).headline.contains("init (pid 7)"));
}

#[test]
fn want_of_memory() {
    let own = check(out_of_memory(OomScope::Own), "oom-own-limit", &[0, 1]);
    assert!(own.headline.contains("64 MiB"), "{}", own.headline);
    let pod = check(out_of_memory(OomScope::Ancestor), "oom-ancestor-limit", &[0, 1]);
    assert!(pod.headline.contains("/kubepods/pod1"), "{}", pod.headline);
    check(out_of_memory(OomScope::Node), "oom-node", &[0, 1]);
    check(out_of_memory(OomScope::Unknown), "oom-limit-unknown", &[0, 1]);
    let along = |before| {
        DeathBuilder::killed(9)
            .oom_kill(before, OomScope::Own, false, "/kubepods/pod1/web")
            .number(key::GROUP_KILL, 1)
            .number(key::PROCESS, 101)
            .text(key::text::NAME, "hog")
            .kernel_signal(MS, 9, 128, Way::Kernel)
            .decides()
    };
    assert!(
        check(along(2 * MS), "oom-own-limit", &[0, 1]).explanation.contains("memory.oom.group")
    );
    // Another's OOM kill of long ago has nothing to do with it.
    check(along(3600 * S), "unknown", &[1]);
    // Somebody killed it first; the kernel chose what was on its way out already.
    let late = DeathBuilder::killed(9)
        .signal(9 * MS, 9, D::Default, R::Parent)
        .by(55, "sh")
        .decides()
        .oom_kill(2 * MS, OomScope::Own, true, "/kubepods/pod1/web");
    check(late, "killed-by-parent", &[0]);
    // And the other way round.
    let early = DeathBuilder::killed(9)
        .oom_kill(9 * MS, OomScope::Own, true, "/kubepods/pod1/web")
        .signal(2 * MS, 9, D::Default, R::Parent)
        .by(55, "sh")
        .decides();
    check(early, "oom-own-limit", &[0, 1]);
}

#[test]
fn a_child_that_was_killed_for_want_of_memory() {
    let init = |code, before| {
        DeathBuilder::exited(code)
            .container_init()
            .oom_kill(before, OomScope::Own, false, "/kubepods/pod1/web")
            .number(key::PROCESS, 101)
            .text(key::text::NAME, "hog")
    };
    check(init(137, 2 * MS), "oom-child-followed", &[0]);
    check(init(1, 2 * MS), "oom-child-followed", &[0]);
    check(init(0, 60 * S), "oom-child-survived", &[0]);
    // Its end is what the parent saw, whichever of both was told first.
    let end = |death, before| child_exited(death, before, 9).number(key::OOM_KILLED, 1);
    check(end(init(0, 3 * MS), 2 * MS), "oom-child-survived", &[1]);
    let ended = end(DeathBuilder::exited(0).container_init(), 3 * MS);
    let told = ended
        .oom_kill(2 * MS, OomScope::Own, false, "/kubepods/pod1/web")
        .number(key::PROCESS, 101)
        .text(key::text::NAME, "hog");
    check(told, "oom-child-survived", &[0]);
    // An error of its own, long after.
    check(init(1, 3600 * S), "application-error", &[]);
    // A stop in order, after that.
    let stopped = init(0, 60 * S).signal(S, 15, D::Handler, R::Runtime).by(812, "runc");
    check(stopped, "stopped-in-time", &[1]);
}

#[test]
fn every_verdict_of_the_table_is_given_by_some_rule() {
    exits();
    codes_that_stand_for_signals();
    a_stop_is_not_a_kill();
    grace_periods();
    a_kill_that_no_stop_came_before();
    who_sent_it();
    no_verdict_where_the_evidence_does_not_tell();
    crashes();
    what_the_kernel_does_for_reasons_of_its_own();
    want_of_memory();
    a_child_that_was_killed_for_want_of_memory();
    let seen = SEEN.lock().unwrap();
    let ids: BTreeSet<String> = VERDICTS.iter().map(|verdict| verdict.id.to_owned()).collect();
    assert_eq!(ids.len(), VERDICTS.len(), "identifiers are unique");
    assert_eq!(ids.difference(&seen).collect::<Vec<_>>(), Vec::<&String>::new());
}

//! Processes that the kernel kills for want of memory. The witnesses are the memory controller's own count of kills, and the kernel log.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use libtest_mimic::Failed;
use serde_json::json;
use whodunit_containers::condition::{PATIENCE, wait_until};
use whodunit_containers::{Container, DaemonConfig, Hierarchies, Pod, find_program};

use super::claim::Claim;
use super::kernel_log::KernelLog;
use super::{Death, container_death, end, hear_numbers, mortal, play, process_death};
use crate::report::{expect, expect_eq};
use crate::{Outcome, machine};

const LIMIT: u64 = 32 << 20;

pub(super) fn claims() -> Vec<Claim> {
    vec![
        Claim::new(
            "deaths::memory_at_the_container_s_own_limit_is_told",
            &["oom-own-limit"],
            own_limit,
        )
        .needing(lacks_memory_limits),
        Claim::new("deaths::memory_at_the_pod_s_limit_is_told", &["oom-ancestor-limit"], pod_limit)
            .needing(lacks_memory_limits),
        Claim::new(
            "deaths::a_victim_that_did_not_ask_for_the_memory_is_told",
            &["oom-own-limit", "oom-child-survived", "oom-child-followed"],
            bystander,
        )
        .needing(lacks_memory_limits),
        Claim::new(
            "deaths::a_shell_passes_on_that_memory_ran_out",
            &["oom-own-limit", "oom-child-followed"],
            passed_on,
        )
        .needing(lacks_memory_limits),
        Claim::new(
            "deaths::two_containers_at_once_keep_their_own_deaths",
            &["oom-own-limit"],
            two_at_once,
        )
        .needing(lacks_memory_limits),
        Claim::new("deaths::a_group_that_is_killed_is_killed_whole", &["oom-own-limit"], group)
            .needing(lacks_group_kills),
        Claim::new("deaths::a_limit_that_is_lowered_kills", of_a_lowered_limit(), lowered)
            .needing(lacks_group_kills),
        Claim::new(
            "deaths::memory_of_a_cgroup_elsewhere_is_not_blamed_on_the_container",
            &["oom-limit-unknown"],
            elsewhere,
        )
        .needing(lacks_memory_hierarchy),
        Claim::new(
            "deaths::memory_of_the_machine_that_runs_out_is_told",
            &["oom-node"],
            whole_machine,
        )
        .needing(lacks_being_expendable),
    ]
}

/// Whether the kernel tells more of a victim than its number: since Linux 6.8, and in some that were mended later.
fn is_victim_told() -> bool {
    static TOLD: OnceLock<bool> = OnceLock::new();
    *TOLD.get_or_init(|| {
        let folder = Path::new("/sys/kernel/tracing");
        if !folder.join("events").exists()
            && let Some(busybox) = find_program("busybox")
        {
            // What comes of it is looked at below.
            let mount = ["mount", "-t", "tracefs", "tracefs", "/sys/kernel/tracing"];
            let _ = Command::new(busybox).args(mount).status();
        }
        match fs::read_to_string(folder.join("events/oom/mark_victim/format")) {
            // With its end: every format has fields that begin so, such as `common_type`.
            Ok(format) => format.contains(" comm;"),
            Err(_) => machine::kernel_version() >= (6, 8),
        }
    })
}

/// The hierarchy of version 1 that has the memory controller.
fn legacy_root() -> Option<PathBuf> {
    let found = Hierarchies::find().ok()?;
    found.legacy.into_iter().find(|root| root.join("memory.usage_in_bytes").exists())
}

fn has_memory_v2() -> bool {
    Hierarchies::find().is_ok_and(|found| {
        let controllers = fs::read_to_string(found.unified.join("cgroup.controllers"));
        controllers.is_ok_and(|text| text.split_whitespace().any(|name| name == "memory"))
    })
}

pub(super) fn lacks_memory_limits() -> Option<&'static str> {
    (legacy_root().is_none() && !has_memory_v2())
        .then_some("no cgroup hierarchy of this machine limits memory")
}

fn lacks_group_kills() -> Option<&'static str> {
    (!has_memory_v2()).then_some("the cgroup v2 hierarchy has no memory controller")
}

fn lacks_memory_hierarchy() -> Option<&'static str> {
    legacy_root().is_none().then_some("the memory controller has no hierarchy of its own")
}

/// Names a machine that nobody minds to run out of memory.
const EXPENDABLE_VARIABLE: &str = "WHODUNIT_EXPENDABLE_MACHINE";

fn lacks_being_expendable() -> Option<&'static str> {
    std::env::var_os(EXPENDABLE_VARIABLE)
        .is_none()
        .then_some("it takes all memory of the machine, which only a virtual machine of its own is for (`cargo xtask vm`)")
}

/// The folder of a cgroup in the hierarchy that has the memory controller.
fn memory_folder(cgroup_path: &str) -> Result<PathBuf, Failed> {
    let root = match legacy_root() {
        Some(root) => root,
        None => Hierarchies::find()?.unified,
    };
    Ok(root.join(cgroup_path.trim_start_matches('/')))
}

/// How many processes of a cgroup the kernel killed for want of memory, as the kernel counts.
fn kills(folder: &Path) -> Result<u64, Failed> {
    let v2 = fs::read_to_string(folder.join("memory.events"));
    let text = v2.or_else(|_| fs::read_to_string(folder.join("memory.oom_control")))?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
    count.ok_or_else(|| format!("no count of kills in {text:?}").into())
}

fn own_limit() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let mut log = KernelLog::listen();
    let mut app = mortal(&pod, &["eat"]).memory_bytes(LIMIT).start()?;
    app.hear("ready 1")?;
    app.tell("go")?;
    expect_eq("what the runtime was told", &app.wait()?.code(), &Some(128 + 9))?;
    let folder = memory_folder(&app.cgroup_path())?;
    expect_eq("kills, as the kernel counts", &kills(&folder)?, &1)?;
    expect_own(&config, &app, &mut log)
}

fn expect_own(config: &DaemonConfig, app: &Container, log: &mut KernelLog) -> Outcome {
    log.expect_oom_kill(app.pid().into(), Some(&app.cgroup_path()))?;
    let death = container_death(config, app.id())?;
    death.expect_sound()?;
    death.expect_seen_from_birth()?;
    death.expect_killed(9)?;
    death.expect_decided("oom", "kernel", None)?;
    let kill = death.fact("oom-kill")?;
    for (field, expected) in [
        ("is_self", json!(true)),
        ("scope", json!("own")),
        ("limit_bytes", json!(LIMIT)),
        ("cgroup_path", json!(app.cgroup_path())),
        ("group_kill", json!(false)),
    ] {
        expect_eq(field, &kill[field], &expected)?;
    }
    expect_eq("kills of this container", &death.facts("oom-kill").len(), &1)?;
    expect_eq("victim", &kill["victim"]["pid"], &json!(app.pid()))?;
    expect_eq("trigger", &kill["trigger"]["pid"], &json!(app.pid()))?;
    death.expect_verdict("oom-own-limit", 95..=99, &["signal 9", "oom-kill"])?;
    death.expect_told("32 MiB")?;
    let memory = death.fact("memory")?;
    expect_eq("limit, as the cgroup says", &memory["limit"]["at"], &json!(LIMIT))?;
    expect_eq("kills, as the cgroup says", &memory["events_oom_kill"], &json!(1))
}

fn pod_limit() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let mut log = KernelLog::listen();
    let folder = memory_folder(&pod.cgroup_path())?;
    // runc hands the controller on to the cgroup of a container that has a limit.
    let mut app = mortal(&pod, &["eat"]).memory_bytes(4 * LIMIT).start()?;
    let file = ["memory.limit_in_bytes", "memory.max"].map(|name| folder.join(name));
    let file = file.iter().find(|file| file.exists());
    let file = file.ok_or_else(|| Failed::from("the pod's cgroup has no memory limit"))?;
    fs::write(file, LIMIT.to_string())?;
    app.hear("ready 1")?;
    app.tell("go")?;
    expect_eq("what the runtime was told", &app.wait()?.code(), &Some(128 + 9))?;
    let death = container_death(&config, app.id())?;
    death.expect_sound()?;
    death.expect_killed(9)?;
    death.expect_decided("oom", "kernel", None)?;
    let kill = death.fact("oom-kill")?;
    expect_eq("scope", &kill["scope"], &json!("ancestor"))?;
    expect_eq("limit", &kill["limit_bytes"], &json!(LIMIT))?;
    expect_eq("cgroup", &kill["cgroup_path"], &json!(pod.cgroup_path()))?;
    log.expect_oom_kill(app.pid().into(), Some(&pod.cgroup_path()))?;
    expect_eq("kills, as the kernel counts", &kills(&memory_folder(&app.cgroup_path())?)?, &1)?;
    death.expect_verdict("oom-ancestor-limit", 95..=99, &["signal 9", "oom-kill"])?;
    death.expect_told(&pod.cgroup_path())
}

fn bystander() -> Outcome {
    // A first process that succeeds all the same, and one that fails because of it.
    for (code, verdict, sure) in
        [(0, "oom-child-survived", 90..=97), (3, "oom-child-followed", 80..=90)]
    {
        // The kernel may call a victim done with before its memory is back, and takes the next one then: its log says so.
        let mut lives = false;
        for _ in 0..5 {
            lives = lives || bystander_lives(code, verdict, &sure)?;
        }
        expect("the kernel killed the victim alone, in one of five times", lives)?;
    }
    Ok(())
}

/// Whether the first process was not killed along with its child.
fn bystander_lives(
    code: i32,
    verdict: &'static str,
    sure: &RangeInclusive<u64>,
) -> Result<bool, Failed> {
    let mut lives = true;
    play(
        |pod| mortal(pod, &["starve", "8", &code.to_string()]).memory_bytes(LIMIT),
        |config, _, app| {
            let victim = hear_numbers(app, "victim")?[0];
            let mut log = KernelLog::listen();
            app.tell("go")?;
            if let Err(error) = app.hear("survived 1") {
                lives = !log.says_killed(app.pid().into());
                return if lives { Err(error.into()) } else { Ok(()) };
            }
            let death = process_death(config, app, victim)?;
            expect_killed_in(&mut log, &death, app)?;
            death.expect_sound()?;
            death.expect_killed(9)?;
            death.expect_decided("oom", "kernel", None)?;
            let kill = death.fact("oom-kill")?;
            expect_eq("is_self", &kill["is_self"], &json!(true))?;
            expect_eq("victim", &kill["victim"]["comm"], &json!("victim"))?;
            expect_eq("trigger", &kill["trigger"]["pid"], &json!(app.pid()))?;
            death.expect_verdict("oom-own-limit", 95..=99, &["signal 9", "oom-kill"])?;
            death.expect_told(&format!("mortal (pid {})", app.pid()))?;
            // The first process lived on; its own record has the child that was taken from it.
            app.tell("go")?;
            let death = end(config, app, code)?;
            death.expect_exited(code as u8)?;
            let child = death.fact("child-exited")?;
            expect_eq("child", &child["child"]["comm"], &json!("victim"))?;
            expect_eq("oom_killed", &child["oom_killed"], &json!(true))?;
            expect_eq("is_self", &death.fact("oom-kill")?["is_self"], &json!(false))?;
            death.expect_verdict(verdict, sure.clone(), &["child-exited"])
        },
    )?;
    Ok(lives)
}

fn passed_on() -> Outcome {
    let shell = |pod: &Pod| mortal(pod, &[]).shell("/mortal eat; exit $?").memory_bytes(LIMIT);
    play(shell, |config, _, app| {
        let victim = hear_numbers(app, "ready")?[0];
        let mut log = KernelLog::listen();
        app.tell("go")?;
        let death = end(config, app, 128 + 9)?;
        let folder = memory_folder(&app.cgroup_path())?;
        expect_eq("kills, as the kernel counts", &kills(&folder)?, &1)?;
        death.expect_exited(128 + 9)?;
        death.expect_verdict("oom-child-followed", 90..=97, &["child-exited"])?;
        let child = process_death(config, app, victim)?;
        child.expect_killed(9)?;
        expect_killed_in(&mut log, &child, app)?;
        child.expect_verdict("oom-own-limit", 95..=99, &["signal 9", "oom-kill"])
    })
}

/// Expects that the kernel says so of a process of a container, at the container's own limit.
fn expect_killed_in(log: &mut KernelLog, death: &Death, app: &Container) -> Outcome {
    let pid = death["process"]["pid"].as_u64().unwrap_or_default();
    log.expect_oom_kill(pid, Some(&app.cgroup_path()))
}

fn group() -> Outcome {
    play(
        |pod| mortal(pod, &["starve", "8", "0"]).memory_bytes(LIMIT),
        |config, _, app| {
            fs::write(app.cgroup_folder().join("memory.oom.group"), "1")?;
            let mut log = KernelLog::listen();
            let victim = hear_numbers(app, "victim")?[0];
            app.tell("go")?;
            let death = end(config, app, 128 + 9)?;
            let folder = memory_folder(&app.cgroup_path())?;
            // The chosen one counts twice where it is still there when the group's turn comes.
            let kills = kills(&folder)?;
            expect(format!("kills, as the kernel counts: {kills}"), (2..=3).contains(&kills))?;
            let chosen = process_death(config, app, victim)?;
            for death in [&death, &chosen] {
                death.expect_killed(9)?;
                expect_eq("sender", &death.deciding()?["sender"]["kind"], &json!("kernel"))?;
                expect_killed_in(&mut log, death, app)?;
                let kill = death.fact("oom-kill")?;
                expect_eq("group_kill", &kill["group_kill"], &json!(true))?;
                expect_eq("scope", &kill["scope"], &json!("own"))?;
                death.expect_verdict("oom-own-limit", 90..=99, &["signal 9", "oom-kill"])?;
            }
            Ok(())
        },
    )
}

/// Nobody of the container allocates there: only what stands above the victim tells.
fn of_a_lowered_limit() -> &'static [&'static str] {
    if !is_victim_told() { &["oom-limit-unknown"] } else { &["oom-own-limit"] }
}

fn lowered() -> Outcome {
    play(
        |pod| mortal(pod, &["starve", "20", "0"]).memory_bytes(2 * LIMIT),
        |config, _, app| {
            let victim = hear_numbers(app, "victim")?[0];
            let mut log = KernelLog::listen();
            fs::write(app.cgroup_folder().join("memory.max"), (LIMIT / 4).to_string())?;
            let death = process_death(config, app, victim)?;
            death.expect_killed(9)?;
            death.expect_decided("oom", "kernel", None)?;
            expect_killed_in(&mut log, &death, app)?;
            // In the allocation of nobody: it was this trial that wrote the limit.
            let trigger = &death.fact("oom-kill")?["trigger"];
            expect_eq("trigger", &trigger["pid"], &json!(std::process::id()))?;
            if !is_victim_told() {
                let evidence = ["signal 9", "oom-kill", "memory"];
                return death.expect_verdict("oom-limit-unknown", 70..=80, &evidence);
            }
            let kill = death.fact("oom-kill")?;
            expect_eq("limit", &kill["limit_bytes"], &json!(LIMIT / 4))?;
            expect_eq("cgroup", &kill["cgroup_path"], &json!(app.cgroup_path()))?;
            death.expect_verdict("oom-own-limit", 95..=99, &["signal 9", "oom-kill"])
        },
    )
}

fn whole_machine() -> Outcome {
    let mut is_whole = false;
    for _ in 0..5 {
        is_whole = is_whole || whole_machine_is_told()?;
    }
    expect("the container asked for the memory that was not there, in one of five times", is_whole)
}

/// Whether the kernel told all of it. Where it tells of a victim no more than its number, whose memory ran out is known
/// only if the victim asked for it: where nobody has any left, whoever asks for the least more is the one.
fn whole_machine_is_told() -> Result<bool, Failed> {
    let mut is_whole = true;
    play(
        // Nobody else shall be chosen: it asks for it as nobody does.
        |pod| mortal(pod, &["eat", "1000"]),
        |config, _, app| {
            app.hear("ready 1")?;
            let mut log = KernelLog::listen();
            app.tell("go")?;
            let death = end(config, app, 128 + 9)?;
            log.expect_oom_kill(app.pid().into(), None)?;
            death.expect_killed(9)?;
            death.expect_decided("oom", "kernel", None)?;
            let kill = death.fact("oom-kill")?;
            expect_eq("is_self", &kill["is_self"], &json!(true))?;
            expect_eq("group_kill", &kill["group_kill"], &json!(false))?;
            expect_eq("victim", &kill["victim"]["pid"], &json!(app.pid()))?;
            if let Some(name) = log.oom_trigger() {
                expect_eq("trigger", &kill["trigger"]["comm"], &json!(name))?;
            }
            is_whole = is_victim_told() || kill["trigger"]["pid"] == json!(app.pid());
            if !is_whole {
                return expect_eq("scope", &kill["scope"], &json!("unknown"));
            }
            expect_eq("scope", &kill["scope"], &json!("node"))?;
            expect_eq("cgroup_path", &kill["cgroup_path"], &json!(""))?;
            death.expect_verdict("oom-node", 90..=99, &["signal 9", "oom-kill", "memory"])
        },
    )?;
    Ok(is_whole)
}

/// A cgroup of the memory controller alone, where nobody looks for the container's memory.
struct Elsewhere(PathBuf);

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // Whoever lived in it is on its way out: the kernel keeps the folder until then.
        wait_until(PATIENCE, || fs::remove_dir(&self.0).is_ok());
    }
}

fn elsewhere() -> Outcome {
    let root = legacy_root().ok_or_else(|| Failed::from("there was a hierarchy a moment ago"))?;
    let folder = Elsewhere(root.join(format!("whodunit-elsewhere-{}", std::process::id())));
    fs::create_dir(&folder.0)?;
    play(
        |pod| mortal(pod, &["eat"]),
        |config, _, app| {
            app.hear("ready 1")?;
            fs::write(folder.0.join("memory.limit_in_bytes"), LIMIT.to_string())?;
            fs::write(folder.0.join("cgroup.procs"), app.pid().to_string())?;
            let mut log = KernelLog::listen();
            app.tell("go")?;
            let death = end(config, app, 128 + 9)?;
            let name = folder.0.file_name().unwrap_or_default().display().to_string();
            log.expect_oom_kill(app.pid().into(), Some(&format!("/{name}")))?;
            expect_eq("kills, as the kernel counts", &kills(&folder.0)?, &1)?;
            death.expect_killed(9)?;
            death.expect_decided("oom", "kernel", None)?;
            expect_eq("scope", &death.fact("oom-kill")?["scope"], &json!("unknown"))?;
            death.expect_verdict("oom-limit-unknown", 70..=80, &["signal 9", "oom-kill"])
        },
    )
}

fn two_at_once() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let mut log = KernelLog::listen();
    let start = || mortal(&pod, &["eat"]).memory_bytes(LIMIT).start();
    let mut apps = [start()?, start()?];
    for app in &apps {
        app.hear("ready 1")?;
    }
    for app in &mut apps {
        app.tell("go")?;
    }
    for app in &mut apps {
        expect_eq("what the runtime was told", &app.wait()?.code(), &Some(128 + 9))?;
    }
    let mut times = Vec::new();
    for app in &apps {
        expect_own(&config, app, &mut log)?;
        expect_eq("kills, as the kernel counts", &kills(&memory_folder(&app.cgroup_path())?)?, &1)?;
        times.extend(container_death(&config, app.id())?["time_ns"].as_u64());
    }
    let apart = times[0].abs_diff(times[1]);
    expect(format!("both in one second, not {apart} ns apart"), apart < 1_000_000_000)
}

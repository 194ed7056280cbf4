//! Many deaths, quick ones, and what stays on record of them.

use libtest_mimic::Failed;
use serde_json::json;
use whodunit_containers::condition::slowness;
use whodunit_containers::{Container, DaemonConfig, Pod};

use super::claim::Claim;
use super::{await_death, container_death, hear_numbers, history, mortal, process_death};
use crate::Outcome;
use crate::report::{expect, expect_eq};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        Claim::new(
            "deaths::five_hundred_in_a_second_are_all_on_record",
            &["killed-by-parent"],
            five_hundred,
        ),
        Claim::new(
            "deaths::a_flood_of_new_files_costs_none_of_a_thousand_deaths",
            &["killed-by-parent"],
            beside_a_flood,
        ),
        Claim::new("deaths::a_container_of_20_ms_is_on_record", &["application-error"], a_moment),
        Claim::new(
            "deaths::a_process_from_before_the_daemon_is_said_to_be",
            &["killed-by-exec", "killed-by-runtime"],
            from_before,
        ),
        Claim::new("deaths::a_reused_number_inherits_no_signal", &["application-error"], reused),
        Claim::new(
            "deaths::the_history_outlives_a_killed_daemon",
            &["application-error"],
            outlives,
        ),
    ]
}

/// Waits until so many deaths by SIGKILL of the children of a container's first process are on record, each right. Gives their times.
fn killed_children(
    config: &DaemonConfig,
    app: &Container,
    count: usize,
) -> Result<Vec<u64>, Failed> {
    let killed = hear_numbers(app, "killed")?;
    expect_eq("killed, as their parent was told", &killed[0], &(count as u64))?;
    let of_it = |death: &&super::Death| death.is_in(app.id()) && death["subject"] == "process";
    await_death(config, &format!("{count} deaths"), |_| {
        history(config).iter().filter(of_it).count() >= count
    })?;
    let all = history(config);
    let deaths: Vec<&super::Death> = all.iter().filter(of_it).collect();
    expect_eq("deaths on record", &deaths.len(), &count)?;
    let mut seen = std::collections::HashSet::new();
    for death in &deaths {
        death.expect_sound()?;
        death.expect_killed(9)?;
        death.expect_decided("kill", "parent", Some("mortal"))?;
        death.expect_verdict("killed-by-parent", 95..=99, &["signal 9"])?;
        expect_eq("sender", &death.deciding()?["sender"]["pid"], &json!(app.pid()))?;
        seen.insert(death["process"]["pid"].as_u64());
    }
    expect_eq("processes, each once", &seen.len(), &count)?;
    Ok(deaths.iter().filter_map(|death| death["time_ns"].as_u64()).collect())
}

/// The first and the last of these moments, in nanoseconds since the Unix epoch.
fn ends(times: &[u64]) -> (u64, u64) {
    let (first, last) = (times.iter().min(), times.iter().max());
    (first.copied().unwrap_or_default(), last.copied().unwrap_or(u64::MAX))
}

fn five_hundred() -> Outcome {
    const COUNT: usize = 250;
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    // Two containers at once: the history has a share for each.
    let start = || mortal(&pod, &["volley", &COUNT.to_string()]).start();
    let mut apps = [start()?, start()?];
    for app in &apps {
        app.hear("ready 1")?;
    }
    for app in &mut apps {
        app.tell("go")?;
    }
    let mut times = Vec::new();
    for app in &apps {
        times.extend(killed_children(&config, app, COUNT)?);
    }
    let (first, last) = ends(&times);
    let took_ms = (last - first) / 1_000_000;
    println!("{} deaths in {took_ms} ms", times.len());
    expect(
        format!("all of them in a second, not in {took_ms} ms"),
        took_ms < 1_000 * u64::from(slowness()),
    )
}

/// Files that are opened in the flood's time: two seconds of the rate that it must have.
const FILES: u64 = 400_000;
/// New files a second.
const FLOOD: u64 = 200_000;

/// How fast a flood was.
struct Flood {
    /// Opens a second.
    a_second: u64,
    /// Opens a second of the processor's time that it got.
    a_second_of_its_own: u64,
}

/// How many opens of new files a second there were in one container while a thousand processes die in four others, if every one of these died while the
/// flood went on, and every one is on record and right.
fn deaths_in_a_flood() -> Result<Flood, Failed> {
    const COUNT: usize = 250;
    let slowness = u64::from(slowness());
    let files = FILES / slowness;
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let mut flood = mortal(&pod, &["files", "/dev", &files.to_string()]).start()?;
    let start = || mortal(&pod, &["volley", &COUNT.to_string()]).start();
    let mut apps = [start()?, start()?, start()?, start()?];
    for app in std::iter::once(&flood).chain(&apps) {
        app.hear("ready 1")?;
    }
    flood.tell("go")?;
    flood.hear("begun 1")?;
    for app in &mut apps {
        app.tell("go")?;
    }
    let opened = hear_numbers(&flood, "opened")?;
    let mut times = Vec::new();
    for app in &apps {
        times.extend(killed_children(&config, app, COUNT)?);
    }
    let (first, last) = ends(&times);
    let (begin, done) = (opened[0], opened[1]);
    expect(
        format!("deaths from {first} to {last}, in a flood from {begin} to {done}"),
        begin <= first && last <= done,
    )?;
    let rate = |time_ns: u64| files * 1_000_000_000 / time_ns.max(1);
    let flood = Flood { a_second: rate(done - begin), a_second_of_its_own: rate(opened[2]) };
    println!(
        "{} deaths in {} ms beside {} opens of new files a second, {} of the processor's time that they got",
        times.len(),
        (last - first) / 1_000_000,
        flood.a_second,
        flood.a_second_of_its_own
    );
    Ok(flood)
}

fn beside_a_flood() -> Outcome {
    // What else runs on the machine may slow the flood down, and a slow one shows less. An emulated machine has no fast one.
    let mut rates = Vec::new();
    for _ in 0..5 {
        let flood = deaths_in_a_flood()?;
        if flood.a_second >= FLOOD || slowness() > 1 {
            return Ok(());
        }
        rates.push(flood.a_second_of_its_own);
    }
    // A machine that is busy with something else gave it too little of its processors: it had been as fast with all of one.
    expect(
        format!("opens a second of the processor's time that the flood got: {rates:?}"),
        rates.iter().any(|rate| *rate >= FLOOD),
    )
}

fn a_moment() -> Outcome {
    const LIFE_MS: u64 = 20;
    let how = ["nap", &LIFE_MS.to_string(), "3"];
    let (death, told) = super::die_each(&[&how])?.remove(0);
    expect_eq("what the runtime was told", &told, &3)?;
    death.expect_exited(3)?;
    death.expect_verdict("application-error", 95..=99, &[])?;
    let lived_ms = death.fact("executed")?["before_ns"].as_u64().unwrap_or(u64::MAX) / 1_000_000;
    println!("it lived for {lived_ms} ms");
    // The program's start and its end are added to what it sleeps.
    expect(
        format!("it lived for {LIFE_MS} ms or a little longer, not for {lived_ms} ms"),
        (LIFE_MS..3 * LIFE_MS * u64::from(slowness())).contains(&lived_ms),
    )?;
    expect_eq("seen from its birth on", &death.facts("container-started").len(), &1)
}

fn from_before() -> Outcome {
    let pod = Pod::new("deaths")?;
    let mut app = mortal(&pod, &["run", "pause"]).start()?;
    let victim = hear_numbers(&app, "ready")?[0];
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    app.exec(&["/mortal", "send", "kill", &victim.to_string(), "9"])?;
    let death = process_death(&config, &app, victim)?;
    death.expect_sound()?;
    death.expect_killed(9)?;
    death.expect_decided("kill", "exec-session", Some("mortal"))?;
    expect("it says so", death.unseen().contains(&"started-before-daemon"))?;
    death.expect_verdict("killed-by-exec", 90..=97, &["signal 9"])?;
    expect_eq("exe, read from /proc", &death["process"]["exe"], &json!("/mortal"))?;
    app.kill("KILL")?;
    expect_eq("what the runtime was told", &app.wait()?.code(), &Some(128 + 9))?;
    let death = container_death(&config, app.id())?;
    death.expect_killed(9)?;
    death.expect_decided("kill", "runtime", Some("runc"))?;
    expect("it says so", death.unseen().contains(&"started-before-daemon"))?;
    // That nobody asked it to stop before is a claim about what was not seen.
    death.expect_verdict("killed-by-runtime", 80..=89, &["signal 9"])
}

fn reused() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let _daemon = config.start()?;
    let app = mortal(&pod, &["reuse", "15"]).capabilities(&["CAP_SYS_ADMIN"]).start()?;
    let pid = hear_numbers(&app, "reused")?[0];
    let death = await_death(&config, "the second process of that number", |death| {
        death.is_in(app.id())
            && death["process"]["namespace_pid"] == pid
            && death["status"]["code"] == 5
    })?;
    death.expect_sound()?;
    death.expect_exited(5)?;
    death.expect_verdict("application-error", 95..=99, &[])?;
    expect_eq("signals", &death.facts("signal").len(), &0)
}

fn outlives() -> Outcome {
    let pod = Pod::new("deaths")?;
    let config = DaemonConfig::for_node()?;
    let daemon = config.start()?;
    let first = mortal(&pod, &["exit", "1"]).run()?;
    let before = container_death(&config, &first.id)?;
    daemon.kill9()?;
    let _daemon = config.start()?;
    let second = mortal(&pod, &["exit", "2"]).run()?;
    container_death(&config, &second.id)?.expect_exited(2)?;
    let after = container_death(&config, &first.id)?;
    after.expect_verdict("application-error", 95..=99, &[])?;
    expect_eq("the record of before", &after.record, &before.record)?;
    expect_eq("its explanation", &after.explanation, &before.explanation)
}

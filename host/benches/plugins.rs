//! What plugins cost: the work behind `cargo xtask bench plugins`, which judges the numbers.
//!
//! Runs shipped plugins in the daemon's own plugin host, and the same code compiled natively through the
//! SDK's test harness, on the same events. Prints one object of JSON: the values of each measurement, one
//! a round. Costs are CPU time of the whole process, so a machine that is busy with something else
//! changes little; there and back in each round.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use death_explainer::DeathExplainer;
use path_filter::PathFilter;
use report_json::Report;
use rustix::time::{ClockId, clock_gettime};
use whodunit::config::{Files, Plugin, PluginSource};
use whodunit::death::explanation::{ExplainedDeath, Explanation};
use whodunit::death::record::{
    self, DeadProcess, DeathRecord, Losses, SCHEMA, Subject, WaitStatus,
};
use whodunit::directory::{Container, Directory};
use whodunit::event::{
    Batch, CgroupId, ContainerId, Event, Flags, Kind, Span, Standpoint, UnixNanos,
};
use whodunit::plugin::{Clock, PluginHost, Surroundings, World};
use whodunit::sink::Outlet;
use whodunit_sdk::testing::{
    BatchBuilder, DeathBuilder, FilterHarness, Harness, container, explainer,
};
use whodunit_sdk::{Explainer as _, Reporter as _, Verdict};

/// Events of a batch: as many as capture hands over at once.
const BATCH: usize = 512;
/// Batches of one turn.
const BATCHES: usize = 200;
/// Batches that are all different: what is opened again and again.
const DIFFERENT: usize = 2;
const EVENTS: f64 = (BATCH * BATCHES) as f64;
/// Deaths of one turn.
const DEATHS: usize = 2_000;
/// Plugins that are started, or idle, beside the first.
const MORE: usize = 32;
/// Swaps of one round.
const SWAPS: usize = 10;
const LAST_WORDS: Duration = Duration::from_secs(60);

/// Of the filter: none of them is about an event of the bench, so each is tried on each.
const RULES: &str = r#"{ "rules": [
    { "prefix": "/proc", "action": "drop" },
    { "glob": "/srv/**/*.pyc", "action": "drop" },
    { "regex": "^/tmp/.*[.]swp$", "action": "tag", "tag": 7 }
] }"#;

/// The values of each measurement.
type Values = BTreeMap<&'static str, Vec<f64>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["idle", cache, plugins] => idle(Path::new(cache), plugins),
        [rounds] => measured(rounds),
        // `cargo bench` calls it so.
        _ => Err("usage: plugins ROUNDS; `cargo xtask bench plugins` calls it".to_owned()),
    };
    match done {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            eprintln!("error: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn measured(rounds: &str) -> Result<String, String> {
    let rounds: usize = rounds.parse().map_err(|_| format!("{rounds} is no number of rounds"))?;
    let cache = tempfile::tempdir().map_err(|cause| format!("no temporary folder: {cause}"))?;
    let mut values = Values::new();
    // Compiles everything.
    for plugins in [vec![reporter(0)], vec![filter(0)], vec![death_explainer()]] {
        Room::load(&plugins, cache.path())?.stop()?;
    }
    for _ in 0..rounds {
        there_and_back(&mut values, "reporter", &again(), cache.path())?;
        there_and_back(&mut values, "reporter.new", &anew(), cache.path())?;
        filters(&mut values, cache.path())?;
        explainers(&mut values, cache.path())?;
        swaps(&mut values, cache.path())?;
        starts(&mut values, cache.path())?;
        memory(&mut values, cache.path())?;
    }
    serde_json::to_string(&values).map_err(|cause| cause.to_string())
}

/// A reporter on these batches: native, as a plugin, as a plugin, native. Nanoseconds an event.
fn there_and_back(
    values: &mut Values,
    name: &'static str,
    batches: &[Vec<String>],
    cache: &Path,
) -> Result<(), String> {
    let (native, plugin) = match name {
        "reporter" => ("reporter.native_ns", "reporter.plugin_ns"),
        _ => ("reporter.new.native_ns", "reporter.new.plugin_ns"),
    };
    for turn in [native, plugin, plugin, native] {
        let cost = match turn == native {
            true => native_reporter(batches)?,
            false => on_plugins(&[reporter(0)], batches, cache)?,
        };
        put(values, turn, cost);
    }
    Ok(())
}

fn native_reporter(batches: &[Vec<String>]) -> Result<f64, String> {
    let mut harness = Harness::<Report>::new().start()?;
    harness.put_container(container(1, "web"));
    let batches: Vec<_> = batches.iter().map(|paths| native_batch(paths)).collect();
    let before = cpu_time();
    for number in 0..BATCHES {
        harness.reporter().on_batch(&batches[number % batches.len()]);
    }
    Ok(nanoseconds_since(before) / EVENTS)
}

/// What a chain of one and of three filters costs, and one of them natively.
fn filters(values: &mut Values, cache: &Path) -> Result<(), String> {
    let batches = again();
    let chain = |length: usize| -> Vec<Plugin> { (0..length).map(filter).collect() };
    for turn in ["native", "one", "three", "three", "one", "native"] {
        match turn {
            "native" => put(values, "filter.native_ns", native_filter(&batches)?),
            "one" => put(values, "filter.one_ns", on_plugins(&chain(1), &batches, cache)?),
            _ => put(values, "filter.three_ns", on_plugins(&chain(3), &batches, cache)?),
        }
    }
    Ok(())
}

fn native_filter(batches: &[Vec<String>]) -> Result<f64, String> {
    let mut harness = FilterHarness::<PathFilter>::start(RULES, &[container(1, "web")])?;
    let batches: Vec<_> = batches.iter().map(|paths| native_batch(paths)).collect();
    let before = cpu_time();
    for number in 0..BATCHES {
        let verdicts = harness.judge(&batches[number % batches.len()]);
        if verdicts.iter().any(|verdict| *verdict != Verdict::Keep) {
            return Err("the filter is not meant to drop anything".to_owned());
        }
    }
    Ok(nanoseconds_since(before) / EVENTS)
}

/// Hands all batches to the plugins and waits until they have done with them. Nanoseconds an event.
fn on_plugins(plugins: &[Plugin], batches: &[Vec<String>], cache: &Path) -> Result<f64, String> {
    let batches: Vec<Arc<Batch>> = batches.iter().map(|paths| Arc::new(batch(paths))).collect();
    let room = Room::load(plugins, cache)?;
    let dispatcher = room.host.dispatcher();
    let before = cpu_time();
    for number in 0..BATCHES {
        dispatcher.batch(Arc::clone(&batches[number % batches.len()]));
    }
    dispatcher.wait_until_idle();
    let cost = nanoseconds_since(before) / EVENTS;
    for status in room.host.status() {
        if status.events != EVENTS as u64 || status.last_error.is_some() {
            return Err(format!("plugin `{}` did not take every event: {status:?}", status.name));
        }
    }
    room.stop()?;
    Ok(cost)
}

/// A death explained: natively, and from the record to the answer that is stored. Nanoseconds each.
fn explainers(values: &mut Values, cache: &Path) -> Result<(), String> {
    for turn in ["native", "plugin", "plugin", "native"] {
        match turn {
            "native" => put(values, "explainer.native_ns", native_explainer()?),
            _ => put(values, "explainer.plugin_ns", on_explainer(cache)?),
        }
    }
    Ok(())
}

fn native_explainer() -> Result<f64, String> {
    let mut explainer = explainer::<DeathExplainer>("{}")?;
    let death = DeathBuilder::exited(3).container_init().build();
    let before = cpu_time();
    for _ in 0..DEATHS {
        let verdict = explainer.explain(&death)?.verdict;
        if verdict != "application-error" {
            return Err(format!("the native explainer says `{verdict}`"));
        }
    }
    Ok(nanoseconds_since(before) / DEATHS as f64)
}

fn on_explainer(cache: &Path) -> Result<f64, String> {
    let room = Room::load(&[death_explainer()], cache)?;
    let deaths = room.host.deaths();
    let before = cpu_time();
    for _ in 0..DEATHS {
        deaths.put(death());
    }
    for explained in room.explained.iter().take(DEATHS) {
        match explained.explanation {
            Explanation::Explained(answer) if answer.verdict == "application-error" => {}
            other => return Err(format!("the explainer says {other:?}")),
        }
    }
    let cost = nanoseconds_since(before) / DEATHS as f64;
    room.stop()?;
    Ok(cost)
}

/// A reporter in the place of itself, its code compiled before, while it has something to hand over.
fn swaps(values: &mut Values, cache: &Path) -> Result<(), String> {
    let room = Room::load(&[reporter(0)], cache)?;
    let dispatcher = room.host.dispatcher();
    for paths in again() {
        let batch = Arc::new(batch(&paths));
        for _ in 0..SWAPS {
            dispatcher.batch(Arc::clone(&batch));
            dispatcher.wait_until_idle();
            let report = room.host.reload("report-0").map_err(|error| error.to_string())?;
            put(values, "swap.ready_ms", report.took.as_secs_f64() * 1e3);
            put(values, "swap.still_ms", report.switch.as_secs_f64() * 1e3);
        }
    }
    room.stop()
}

/// One plugin more: from the look at its file to its started instance, its code compiled before.
fn starts(values: &mut Values, cache: &Path) -> Result<(), String> {
    let took = |plugins: usize| -> Result<f64, String> {
        let plugins: Vec<Plugin> = (0..plugins).map(reporter).collect();
        let began = Instant::now();
        let room = Room::load(&plugins, cache)?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        room.stop()?;
        Ok(took)
    };
    let (one, more) = (took(1)?, took(1 + MORE)?);
    put(values, "start.ms", (more - one) / MORE as f64);
    Ok(())
}

/// What one plugin more holds while nothing happens, from processes that do nothing else.
fn memory(values: &mut Values, cache: &Path) -> Result<(), String> {
    let resident = |plugins: usize| -> Result<f64, String> {
        let this = std::env::current_exe().map_err(|cause| cause.to_string())?;
        let output = Command::new(this).arg("idle").arg(cache).arg(plugins.to_string()).output();
        let output = output.map_err(|cause| format!("cannot start itself: {cause}"))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        said.parse().map_err(|_| format!("an idle process says {said:?}"))
    };
    let (one, more) = (resident(1)?, resident(1 + MORE)?);
    put(values, "idle.bytes", (more - one) / MORE as f64);
    Ok(())
}

/// The resident memory of this process with so many idle plugins, in bytes.
fn idle(cache: &Path, plugins: &str) -> Result<String, String> {
    let plugins = plugins.parse().map_err(|_| format!("{plugins} is no number of plugins"))?;
    let plugins: Vec<Plugin> = (0..plugins).map(reporter).collect();
    let room = Room::load(&plugins, cache)?;
    let status = std::fs::read_to_string("/proc/self/status").map_err(|cause| cause.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let kilobytes = kilobytes.ok_or("/proc/self/status has no VmRSS")?;
    room.stop()?;
    Ok((kilobytes * 1024).to_string())
}

/// Plugins as the daemon runs them, with nobody who wants their documents.
struct Room {
    host: PluginHost,
    explained: Receiver<ExplainedDeath>,
}

impl Room {
    fn load(plugins: &[Plugin], cache: &Path) -> Result<Room, String> {
        let (sender, explained) = channel();
        let deliver = Box::new(move |death| drop(sender.send(death)));
        let outlet = Outlet::taking_any(|_, _| {});
        let host = PluginHost::load(plugins, &Files::default(), cache, world(), outlet, deliver);
        Ok(Room { host: host.map_err(|error| error.to_string())?, explained })
    }

    fn stop(self) -> Result<(), String> {
        let faults = self.host.stop(LAST_WORDS).into_iter().filter_map(|status| status.last_error);
        faults.map(Err).next().unwrap_or(Ok(()))
    }
}

fn reporter(number: usize) -> Plugin {
    builtin(format!("report-{number}"), "report-json")
}

fn filter(number: usize) -> Plugin {
    let config = serde_json::from_str(RULES).expect("the rules are JSON");
    Plugin { config, ..builtin(format!("filter-{number}"), "path-filter") }
}

fn death_explainer() -> Plugin {
    builtin("explainer".to_owned(), "death-explainer")
}

/// A plugin with the time that a loaded machine may need, and a queue for all of a turn.
fn builtin(name: String, source: &str) -> Plugin {
    let mut plugin = Plugin::new(name, PluginSource::Builtin(source.to_owned()));
    plugin.limits.call = Duration::from_secs(60);
    plugin.limits.queue_events = BATCH * BATCHES;
    plugin
}

/// Paths of files that are opened again and again.
fn again() -> Vec<Vec<String>> {
    paths(DIFFERENT)
}

/// Paths of files each of which is opened once.
fn anew() -> Vec<Vec<String>> {
    paths(BATCHES)
}

fn paths(batches: usize) -> Vec<Vec<String>> {
    let path = |number: usize| format!("/srv/app/releases/current/lib/module-{number:06}.so");
    (0..batches).map(|it| (it * BATCH..(it + 1) * BATCH).map(path).collect()).collect()
}

fn native_batch(paths: &[String]) -> whodunit_sdk::Batch {
    paths.iter().fold(BatchBuilder::new(), |batch, path| batch.open(1, path)).build()
}

fn batch(paths: &[String]) -> Batch {
    let mut batch = Batch::default();
    for (number, path) in paths.iter().enumerate() {
        let span = batch.push_text(path.as_bytes());
        batch.events.push(Event {
            sequence: number as u64 + 1,
            time: NOW,
            container: ContainerId(1),
            process: None,
            kind: Kind::Open,
            flags: Flags::default(),
            outcome: 0,
            path: span,
            requested: Span::default(),
            attributes_first: 0,
            attributes_count: 0,
            standpoint: Standpoint::default(),
        });
    }
    batch
}

/// A time in 2026.
const NOW: UnixNanos = UnixNanos(1_768_471_200_000_000_000);

/// The first process of a container that exited with 3.
fn death() -> DeathRecord {
    DeathRecord {
        schema: SCHEMA,
        time_ns: NOW.0,
        subject: Subject::Container,
        container: record::Container { name: "web".to_owned(), ..record::Container::default() },
        process: DeadProcess { pid: 100, is_container_init: true, ..DeadProcess::default() },
        status: WaitStatus::Exited { code: 3 },
        evidence: Vec::new(),
        decided_by: None,
        unseen: Vec::new(),
        losses: Losses::default(),
    }
}

fn world() -> World {
    let directory = Arc::new(Directory::new(NonZeroUsize::MIN));
    directory.put_container(Container {
        id: ContainerId(1),
        name: "web".to_owned(),
        name_source: "id",
        runtime_id: "web-id".to_owned(),
        runtime: "containerd",
        cgroup: CgroupId(1001),
        cgroup_path: b"/kubepods/pod1/web".to_vec(),
        attributes: Vec::new(),
        watched_since: NOW,
        from_birth: true,
        ended: None,
    });
    World {
        directory,
        surroundings: Surroundings {
            pod_name: None,
            namespace: None,
            node_name: "node".to_owned(),
            boot_id: "00000000-0000-0000-0000-000000000001".to_owned(),
            scope: "node".to_owned(),
            daemon_version: "0.0.0".to_owned(),
            started: NOW,
        },
        probes: Vec::new(),
        clock: Clock::Machine,
    }
}

fn put(values: &mut Values, name: &'static str, value: f64) {
    values.entry(name).or_default().push(value);
}

/// The CPU time of all threads of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn nanoseconds_since(before: Duration) -> f64 {
    cpu_time().saturating_sub(before).as_nanos() as f64
}

//! Guests that do well and guests that do not, side by side.
//!
//! The hostile ones are component text, made by [`Hostile`]; the neighbour is the shipped reporter.

mod explainers;
mod faults;
mod filters;
mod guest;
mod refusals;
mod shadows;
mod swaps;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use self::guest::Hostile;
use super::supervisor::RestartPolicy;
use super::*;
use crate::config::{Limits, Output, Plugin, PluginSource};
use crate::death::explanation::{ExplainedDeath, Explanation};
use crate::death::record::{self, DeadProcess, DeathRecord, Losses, Subject, WaitStatus};
use crate::directory::{Container, Directory};
use crate::event::{
    AttributeKey, Batch, CgroupId, ContainerId, ContainerTotals, Counter, Event, Flags, Kind, Span,
    Tick, TickCause, UnixNanos,
};
use crate::sink::{SinkId, Sinks, outputs_of};

/// A time in 2026.
const NOW: UnixNanos = UnixNanos(1_768_471_200_000_000_000);

/// Long enough for a busy machine: nothing here is expected to take it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder for everything, and the plugins of a test.
struct Bench {
    folder: TempDir,
    directory: Arc<Directory>,
    plugins: Vec<Plugin>,
    policy: RestartPolicy,
}

struct Running {
    bench: Bench,
    host: PluginHost,
    sinks: Sinks,
    dispatcher: Dispatcher,
    explained: Receiver<ExplainedDeath>,
}

impl Bench {
    fn new() -> Bench {
        let directory = Arc::new(Directory::new(NonZeroUsize::new(8).unwrap()));
        directory.put_container(Container {
            id: ContainerId(1),
            name: "web".to_owned(),
            name_source: "id",
            runtime_id: "abc".to_owned(),
            runtime: "containerd",
            cgroup: CgroupId(4711),
            cgroup_path: b"/kubepods/pod1/web\xff".to_vec(),
            attributes: Vec::new(),
            watched_since: NOW,
            from_birth: true,
            ended: None,
        });
        let policy = RestartPolicy {
            first_pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(4),
            good_life: Duration::from_secs(3600),
        };
        Bench { folder: tempfile::tempdir().unwrap(), directory, plugins: Vec::new(), policy }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn plugin(&self, name: &str, source: PluginSource) -> Plugin {
        let output = Output::File(self.path(&format!("{name}.json")));
        Plugin {
            limits: Limits {
                call: Duration::from_millis(200),
                memory_bytes: 64 << 20,
                output_bytes: 1 << 20,
                instances: 4,
                ..Limits::default()
            },
            outputs: BTreeMap::from([("report".to_owned(), output)]),
            ..Plugin::new(name.to_owned(), source)
        }
    }

    /// The shipped reporter, with the time that a loaded machine may need.
    fn neighbour(mut self) -> Bench {
        let mut plugin = self.plugin("neighbour", PluginSource::Builtin("report-json".to_owned()));
        plugin.limits.call = Duration::from_secs(60);
        self.plugins.push(plugin);
        self
    }

    fn file(mut self, name: &str, bytes: &[u8]) -> Bench {
        let path = self.path(&format!("{name}.wasm"));
        fs::write(&path, bytes).unwrap();
        let plugin = self.plugin(name, PluginSource::File(path));
        self.plugins.push(plugin);
        self
    }

    fn hostile(self, hostile: &Hostile) -> Bench {
        let component = hostile.component();
        self.file("hostile", &component)
    }

    fn limits(self, change: impl FnOnce(&mut Limits)) -> Bench {
        self.change(|plugin| change(&mut plugin.limits))
    }

    /// Changes the plugin that was added last.
    fn change(mut self, change: impl FnOnce(&mut Plugin)) -> Bench {
        change(self.plugins.last_mut().unwrap());
        self
    }

    fn world(&self) -> World {
        World {
            directory: Arc::clone(&self.directory),
            surroundings: Surroundings {
                pod_name: Some("pod".to_owned()),
                namespace: None,
                node_name: "node".to_owned(),
                boot_id: "boot".to_owned(),
                scope: "pod".to_owned(),
                daemon_version: "0.1.0".to_owned(),
                started: NOW,
            },
            probes: vec![Probe { name: "open".to_owned(), live: true, reason: String::new() }],
            clock: Clock::Machine,
        }
    }

    fn start(self) -> Running {
        let sinks = Sinks::start(outputs_of(&self.plugins)).unwrap();
        self.start_on(sinks)
    }

    /// Every document goes to `documents` too.
    fn start_with_tap(self, documents: Sender<(SinkId, Arc<Vec<u8>>)>) -> Running {
        let sinks = Sinks::start(outputs_of(&self.plugins)).unwrap();
        sinks.tap(documents);
        self.start_on(sinks)
    }

    fn start_on(self, sinks: Sinks) -> Running {
        let cache = self.path("cache");
        let (sender, explained) = channel();
        let deliver = Box::new(move |death| drop(sender.send(death)));
        let host = PluginHost::load_with(
            &self.plugins,
            &config::Files::default(),
            &cache,
            self.world(),
            sinks.outlet(),
            deliver,
            self.policy,
        );
        let host = host.unwrap_or_else(|error| panic!("{error}"));
        let dispatcher = host.dispatcher();
        Running { bench: self, host, sinks, dispatcher, explained }
    }

    /// The sentence with which the plugins are refused.
    fn refusal(self) -> String {
        let sinks = Sinks::start(outputs_of(&self.plugins)).unwrap();
        let files = config::Files::default();
        let cache = self.path("cache");
        let deliver = Box::new(drop);
        let (world, outlet) = (self.world(), sinks.outlet());
        let host = PluginHost::load(&self.plugins, &files, &cache, world, outlet, deliver);
        let sentence = host.err().expect("the plugin is refused").to_string();
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
        sentence
    }
}

impl Running {
    fn batch(&self, paths: &[&str]) {
        self.dispatcher.batch(Arc::new(opens(paths)));
    }

    fn tick(&self, cause: TickCause, received: u64) {
        self.dispatcher.tick(Arc::new(tick(cause, received)));
    }

    fn status(&self, name: &str) -> PluginStatus {
        self.host.status().into_iter().find(|status| status.name == name).unwrap()
    }

    fn wait_for(&self, name: &str, condition: impl Fn(&PluginStatus) -> bool) -> PluginStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(name);
            if condition(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "it never came to that: {status:#?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops everything and gives the statuses and the neighbour's report.
    fn stop(self) -> (Vec<PluginStatus>, Bench) {
        let statuses = self.host.stop(PATIENCE);
        self.sinks.stop();
        (statuses, self.bench)
    }

    /// Stops everything and checks that the neighbour's report is exact.
    fn stop_and_check_neighbour(self, files: &[&str], received: u64) -> PluginStatus {
        self.tick(TickCause::Stop, received);
        let (statuses, bench) = self.stop();
        let report = report(&bench.path("neighbour.json"));
        let container = &report["containers"][0];
        assert_eq!(container["files"], json!(files));
        assert_eq!(container["total_events"], json!(received));
        assert_eq!(report["dropped_events"], json!(0));
        assert_eq!(container["complete"], json!(true), "{report:#}");
        statuses.into_iter().find(|status| status.name == "hostile").unwrap()
    }
}

/// A container that exited with that code, of which nothing else was seen.
fn death(code: u8) -> DeathRecord {
    DeathRecord {
        schema: record::SCHEMA,
        time_ns: NOW.0,
        subject: Subject::Container,
        container: record::Container { name: "web".to_owned(), ..record::Container::default() },
        process: DeadProcess { pid: 7, is_container_init: true, ..DeadProcess::default() },
        status: WaitStatus::Exited { code },
        evidence: Vec::new(),
        decided_by: None,
        unseen: Vec::new(),
        losses: Losses::default(),
    }
}

fn report(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn opens(paths: &[&str]) -> Batch {
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
            standpoint: crate::event::Standpoint::default(),
        });
    }
    batch
}

fn tick(cause: TickCause, received: u64) -> Tick {
    Tick {
        time: NOW,
        cause,
        containers: vec![ContainerTotals {
            container: ContainerId(1),
            watched_since: NOW,
            from_birth: true,
            first_exec_seen: true,
            last_event: Some(NOW),
            ended: None,
            counters: vec![
                Counter { name: "received", value: received },
                Counter { name: "admitted", value: received },
            ],
        }],
        counters: Vec::new(),
    }
}

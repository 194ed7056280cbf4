//! Guests that do well and guests that do not, side by side.
//!
//! The hostile ones are component text, made by [`Hostile`]; the neighbour is the shipped reporter.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::life::RestartPolicy;
use super::*;
use crate::config::{Limits, Output, Plugin, PluginSource};
use crate::death::explanation::{ExplainedDeath, Explanation};
use crate::death::record::{self, DeadProcess, DeathRecord, Losses, Subject, WaitStatus};
use crate::directory::{Container, Directory};
use crate::event::{
    Batch, CgroupId, ContainerId, ContainerTotals, Counter, Event, Flags, Kind, Span, Tick,
    TickCause, UnixNanos,
};
use crate::sink::{Sinks, outputs_of};

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
            budget: 4,
        };
        Bench { folder: tempfile::tempdir().unwrap(), directory, plugins: Vec::new(), policy }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn plugin(&self, name: &str, source: PluginSource) -> Plugin {
        let output = Output::File(self.path(&format!("{name}.json")));
        Plugin {
            name: name.to_owned(),
            source,
            limits: Limits {
                call: Duration::from_millis(200),
                memory_bytes: 64 << 20,
                output_bytes: 1 << 20,
                ..Limits::default()
            },
            outputs: BTreeMap::from([("report".to_owned(), output)]),
            config: json!({}),
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

    fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Bench {
        change(&mut self.plugins.last_mut().unwrap().limits);
        self
    }

    fn world(&self) -> World {
        World {
            clock: Clock::Machine,
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
        }
    }

    fn start(self) -> Running {
        let sinks = Sinks::start(outputs_of(&self.plugins)).unwrap();
        let cache = self.path("cache");
        let (sender, explained) = channel();
        let deliver = Box::new(move |death| drop(sender.send(death)));
        let (world, policy, outlet) = (self.world(), self.policy, sinks.outlet());
        let host = PluginHost::load_with(&self.plugins, &cache, world, &outlet, deliver, policy);
        let host = host.unwrap_or_else(|error| panic!("{error}"));
        let dispatcher = host.dispatcher();
        Running { bench: self, host, sinks, dispatcher, explained }
    }

    /// The sentence with which the plugins are refused.
    fn refusal(self) -> String {
        let sinks = Sinks::start(outputs_of(&self.plugins)).unwrap();
        let (cache, deliver) = (self.path("cache"), Box::new(drop));
        let host = PluginHost::load(&self.plugins, &cache, self.world(), &sinks.outlet(), deliver);
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

/// A guest as component text, with code of its own in each of its three functions. The code may call
/// `$log` and `$emit`; whatever it does, the function then returns `ok`.
struct Hostile {
    on_start: String,
    on_batch: String,
    on_tick: String,
    data: String,
}

impl Hostile {
    fn new() -> Hostile {
        let nothing = String::new;
        Hostile { on_start: nothing(), on_batch: nothing(), on_tick: nothing(), data: nothing() }
    }

    fn on_start(code: &str) -> Hostile {
        Hostile { on_start: code.to_owned(), ..Hostile::new() }
    }

    fn on_batch(code: &str) -> Hostile {
        Hostile { on_batch: code.to_owned(), ..Hostile::new() }
    }

    fn component(&self) -> Vec<u8> {
        let text = HOSTILE_TEXT
            .replace("(;start;)", &self.on_start)
            .replace("(;batch;)", &self.on_batch)
            .replace("(;tick;)", &self.on_tick)
            .replace("(;data;)", &self.data);
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Where a result of zeros stands: `ok`, and two empty strings. `emit` leaves its own at 64.
const HOSTILE_TEXT: &str = r#"
(component
  (import "whodunit:plugin/log@0.1.0" (instance $log
    (type $l (enum "error" "warn" "info" "debug" "trace"))
    (export "level" (type $level (eq $l)))
    (export "write" (func (param "level" $level) (param "message" string)))))
  (import "whodunit:plugin/documents@0.1.0" (instance $documents
    (type $r (variant (case "unknown-output" string) (case "too-large" u64) (case "other" string)))
    (export "refusal" (type $refusal (eq $r)))
    (export "emit" (func (param "output" string) (param "body" (list u8))
      (result (result (error $refusal)))))))

  (core module $libc
    (memory (export "memory") 64)
    (global $top (mut i32) (i32.const 65536))
    (func (export "reset") (global.set $top (i32.const 65536)))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
      (global.set $top (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  (alias core export $libc "memory" (core memory $memory))
  (alias core export $libc "realloc" (core func $realloc))
  (alias export $log "write" (func $write))
  (alias export $documents "emit" (func $hand-over))
  (core func $log (canon lower (func $write) (memory (core memory $memory))))
  (core func $emit (canon lower (func $hand-over)
    (memory (core memory $memory)) (realloc (core func $realloc))))

  (core module $main
    (import "libc" "memory" (memory 64))
    (import "libc" "reset" (func $reset))
    (import "host" "log" (func $log (param i32 i32 i32)))
    (import "host" "emit" (func $emit (param i32 i32 i32 i32 i32)))
    (data (i32.const 1024) "report")
    (data (i32.const 1040) "nowhere")
    (data (i32.const 1056) "flood")
    (;data;)
    (func (export "describe") (result i32) (i32.const 16))
    (func (export "start") (param i32 i32 i32 i32 i32 i32) (result i32) (local $n i32)
      (;start;)
      (call $reset) (i32.const 16))
    (func (export "on-batch") (param i32 i32 i32 i32 i32 i32 i64) (result i32) (local $n i32)
      (;batch;)
      (call $reset) (i32.const 16))
    (func (export "on-tick") (param i64 i32 i32 i32 i32 i32 i32) (result i32) (local $n i32)
      (;tick;)
      (call $reset) (i32.const 16)))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance (export "log" (func $log)) (export "emit" (func $emit))))))

  (alias core export $main "describe" (core func $main-describe))
  (alias core export $main "start" (core func $main-start))
  (alias core export $main "on-batch" (core func $main-on-batch))
  (alias core export $main "on-tick" (core func $main-on-tick))

  (type $description (record (field "name" string) (field "version" string)))
  (type $start-cause (variant (case "start") (case "replaced" string) (case "other" string)))
  (type $context (record (field "name" string) (field "instance" u32) (field "cause" $start-cause)))
  (func $describe (result $description)
    (canon lift (core func $main-describe) (memory (core memory $memory))))
  (func $start (param "context" $context) (result (result (error string)))
    (canon lift (core func $main-start) (memory (core memory $memory))
      (realloc (core func $realloc))))
  (instance $lifecycle
    (export "description" (type $description))
    (export "cause" (type $start-cause))
    (export "context" (type $context))
    (export "describe" (func $describe))
    (export "start" (func $start)))
  (export "whodunit:plugin/lifecycle@0.1.0" (instance $lifecycle))

  (type $span (record (field "offset" u32) (field "length" u32)))
  (type $event (record (field "sequence" u64) (field "time" u64) (field "container" u32)
    (field "process" u32) (field "kind" u16) (field "flags" u16) (field "outcome" s32)
    (field "path" $span) (field "requested" $span) (field "attributes-first" u32)
    (field "attributes-count" u32)))
  (type $attribute (record (field "key" u16) (field "value" u64)))
  (type $batch (record (field "events" (list $event)) (field "attributes" (list $attribute))
    (field "text" (list u8)) (field "dropped" u64)))
  (type $counter (record (field "name" string) (field "value" u64)))
  (type $totals (record (field "container" u32) (field "watched-since" u64)
    (field "from-birth" bool) (field "first-exec-seen" bool) (field "last-event" (option u64))
    (field "ended" (option u64)) (field "counters" (list $counter))))
  (type $cause (variant (case "interval") (case "stop") (case "request") (case "other" u16)))
  (type $tick (record (field "time" u64) (field "cause" $cause)
    (field "containers" (list $totals)) (field "counters" (list $counter))))
  (func $on-batch (param "batch" $batch) (result (result (error string)))
    (canon lift (core func $main-on-batch) (memory (core memory $memory))
      (realloc (core func $realloc))))
  (func $on-tick (param "tick" $tick) (result (result (error string)))
    (canon lift (core func $main-on-tick) (memory (core memory $memory))
      (realloc (core func $realloc))))
  (instance $reporter
    (export "span" (type $span))
    (export "event" (type $event))
    (export "attribute" (type $attribute))
    (export "batch" (type $batch))
    (export "counter" (type $counter))
    (export "container-totals" (type $totals))
    (export "cause" (type $cause))
    (export "tick" (type $tick))
    (export "on-batch" (func $on-batch))
    (export "on-tick" (func $on-tick)))
  (export "whodunit:plugin/reporter@0.1.0" (instance $reporter)))
"#;

const LOOP: &str = "(loop $again (br $again))";
const TRAP: &str = "(unreachable)";
/// Grows until it gets no more, and then does what a Rust guest does: it aborts.
const GROW: &str = "
    (loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
    (unreachable)";

/// `emit("report", bytes of the guest's memory from 0 on)`.
fn emit(length: u32) -> String {
    format!(
        "(call $emit (i32.const 1024) (i32.const 6) (i32.const 0) (i32.const {length}) (i32.const 64))"
    )
}

#[test]
fn the_shipped_reporter_reports_what_it_was_handed() {
    let running = Bench::new().neighbour().start();
    running.batch(&["/etc/passwd", "/b\\c"]);
    running.batch(&["/etc/passwd", "/a"]);
    running.tick(TickCause::Interval, 3);
    running.wait_for("neighbour", |status| status.documents == 1);
    running.batch(&["/later"]);
    running.tick(TickCause::Stop, 5);
    let (statuses, bench) = running.stop();
    let report = report(&bench.path("neighbour.json"));
    assert_eq!(report["pod_name"], "pod");
    let container = &report["containers"][0];
    assert_eq!(container["name"], "web");
    assert_eq!(container["cgroup_id"], "4711");
    assert_eq!(container["cgroup_path"], "/kubepods/pod1/web\\xff");
    assert_eq!(container["files"], json!(["/a", "/b\\\\c", "/etc/passwd", "/later"]));
    assert_eq!(container["total_events"], 5);
    let status = &statuses[0];
    assert_eq!(status.description.as_ref().unwrap().0, "report-json");
    assert_eq!((status.events, status.dropped, status.instance), (5, 0, 1));
    assert_eq!(status.faults, Faults::default());
    assert!(matches!(status.state, PluginState::Stopped { .. }), "{status:?}");
}

#[test]
fn a_guest_of_component_text_does_well_if_it_does_nothing() {
    let running = Bench::new().neighbour().hostile(&Hostile::new()).start();
    running.batch(&["/a"]);
    let status = running.stop_and_check_neighbour(&["/a"], 1);
    assert_eq!((status.events, status.instance, status.faults), (1, 1, Faults::default()));
}

#[test]
fn a_guest_that_loops_for_ever_is_stopped() {
    let running = Bench::new().neighbour().hostile(&Hostile::on_batch(LOOP)).start();
    running.batch(&["/a"]);
    let status = running.wait_for("hostile", |status| status.faults.timeout == 1);
    assert!(status.last_error.unwrap().contains("took longer than its limit of 200ms"));
    assert_eq!(running.stop_and_check_neighbour(&["/a"], 1).lost_with_instance, 1);
}

#[test]
fn a_guest_that_loops_in_its_start_harms_nobody() {
    let running = Bench::new()
        .neighbour()
        .hostile(&Hostile::on_start(LOOP))
        .limits(|limits| limits.call = Duration::from_millis(1))
        .start();
    running.batch(&["/a"]);
    running.wait_for("hostile", |status| {
        matches!(status.state, PluginState::Quarantined { .. }) && status.faults.timeout == 4
    });
    running.stop_and_check_neighbour(&["/a"], 1);
}

#[test]
fn a_guest_that_grows_for_ever_is_stopped() {
    let running = Bench::new().neighbour().hostile(&Hostile::on_batch(GROW)).start();
    running.batch(&["/a"]);
    let status = running.wait_for("hostile", |status| status.faults.memory == 1);
    assert!(status.last_error.unwrap().contains("memory limit of 67108864 bytes"));
    assert_eq!(running.stop_and_check_neighbour(&["/a"], 1).faults.trap, 0);
}

#[test]
fn a_guest_that_traps_gets_a_fresh_instance() {
    // It traps where its batch has one event, and lives on with two.
    let traps = "(if (i32.eq (local.get 1) (i32.const 1)) (then (unreachable)))";
    let running = Bench::new().neighbour().hostile(&Hostile::on_batch(traps)).start();
    running.batch(&["/a"]);
    running.batch(&["/b", "/c"]);
    running.batch(&["/d"]);
    running.batch(&["/e", "/f"]);
    let status = running.wait_for("hostile", |status| status.events == 4);
    assert_eq!((status.faults.trap, status.instance), (2, 3));
    assert_eq!(status.state, PluginState::Running);
    let files = ["/a", "/b", "/c", "/d", "/e", "/f"];
    let status = running.stop_and_check_neighbour(&files, 6);
    // The second loss took along what its instance had been handed since it started.
    assert_eq!(status.lost_with_instance, 4);
}

#[test]
fn a_guest_that_always_traps_is_quarantined_and_asked_for_nothing_again() {
    let mut running = Bench::new().neighbour().hostile(&Hostile::on_batch(TRAP)).start();
    for _ in 0..4 {
        running.batch(&["/a"]);
    }
    let status = running
        .wait_for("hostile", |status| matches!(status.state, PluginState::Quarantined { .. }));
    let PluginState::Quarantined { reason } = &status.state else { unreachable!() };
    assert!(reason.contains("lost 4 instances in a row"), "{reason}");
    assert_eq!((status.faults.trap, status.instance), (4, 4));
    assert_eq!(running.dispatcher.lost_since(), 4);
    running.batch(&["/a"]);
    running.wait_for("hostile", |status| status.dropped == 1);
    assert_eq!(running.dispatcher.lost_since(), 0);
    running.stop_and_check_neighbour(&["/a"], 5);
}

#[test]
fn a_document_of_1_gb_is_not_taken() {
    // More than its memory holds: the engine finds that out first.
    let running = Bench::new().neighbour().hostile(&Hostile::on_batch(&emit(1 << 30))).start();
    running.batch(&["/a"]);
    running.wait_for("hostile", |status| status.faults.trap + status.faults.oversized == 1);
    assert_eq!(running.stop_and_check_neighbour(&["/a"], 1).documents, 0);
}

#[test]
fn a_document_far_over_the_limit_costs_the_instance() {
    let running = Bench::new().neighbour().hostile(&Hostile::on_batch(&emit(3 << 20))).start();
    running.batch(&["/a"]);
    let status = running.wait_for("hostile", |status| status.faults.oversized == 1);
    assert!(status.last_error.unwrap().contains("more than its limit of 1048576 bytes"));
    assert_eq!(running.stop_and_check_neighbour(&["/a"], 1).documents, 0);
}

#[test]
fn a_document_over_the_limit_is_refused() {
    let code = emit((1 << 20) + 1);
    let running = Bench::new().neighbour().hostile(&Hostile::on_batch(&code)).start();
    running.batch(&["/a"]);
    let status = running.wait_for("hostile", |status| status.faults.refused_documents == 1);
    assert_eq!(status.state, PluginState::Running);
    let status = running.stop_and_check_neighbour(&["/a"], 1);
    assert_eq!((status.documents, status.instance), (0, 1));
}

#[test]
fn a_document_for_an_unknown_output_is_refused() {
    let code =
        "(call $emit (i32.const 1040) (i32.const 7) (i32.const 0) (i32.const 1) (i32.const 64))";
    let running = Bench::new().neighbour().hostile(&Hostile::on_batch(code)).start();
    running.batch(&["/a"]);
    let status = running.wait_for("hostile", |status| status.faults.refused_documents == 1);
    assert!(status.last_error.unwrap().contains("`nowhere`, which is not in the TOML"));
    running.stop_and_check_neighbour(&["/a"], 1);
}

#[test]
fn a_flood_of_log_messages_is_counted_and_left_out() {
    let flood = "
        (local.set $n (i32.const 10000))
        (loop $again
          (call $log (i32.const 4) (i32.const 1056) (i32.const 5))
          (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))";
    let running = Bench::new()
        .neighbour()
        .hostile(&Hostile::on_batch(flood))
        .limits(|limits| limits.call = Duration::from_secs(60))
        .start();
    running.batch(&["/a"]);
    let status = running.wait_for("hostile", |status| status.events == 1);
    // 20 a second pass; the flood takes far less than a minute.
    assert!((8_000..10_000).contains(&status.faults.suppressed_log), "{status:?}");
    running.stop_and_check_neighbour(&["/a"], 1);
}

#[test]
fn a_hung_plugin_drops_its_own_events_only() {
    let mut running = Bench::new()
        .neighbour()
        .hostile(&Hostile::on_batch(LOOP))
        .limits(|limits| limits.queue_events = 3)
        .start();
    // While it hangs in the first batch, the second fills its queue and the third finds no room.
    running.batch(&["/a"]);
    let deadline = Instant::now() + PATIENCE;
    while running.status("hostile").dropped == 0 {
        assert!(Instant::now() < deadline, "its queue never filled");
        running.batch(&["/b", "/c"]);
    }
    assert!(running.dispatcher.lost_since() >= 2);
    running.tick(TickCause::Stop, 3);
    let (_, bench) = running.stop();
    let report = report(&bench.path("neighbour.json"));
    assert_eq!(report["containers"][0]["files"], json!(["/a", "/b", "/c"]));
    assert_eq!(report["dropped_events"], 0);
}

#[test]
fn a_loss_is_told_to_the_next_instance_and_to_capture() {
    // It traps in ticks only; in a batch that tells of dropped events, it makes a document.
    let hostile = Hostile {
        on_tick: "(if (i32.eqz (i32.load8_u (i32.const 2048))) (then (unreachable)))".to_owned(),
        on_batch: format!("(if (i64.eq (local.get 6) (i64.const 3)) (then {}))", emit(6)),
        data: String::new(),
        on_start: String::new(),
    };
    let mut running = Bench::new().hostile(&hostile).start();
    running.batch(&["/a", "/b", "/c"]);
    running.tick(TickCause::Interval, 3);
    let status = running.wait_for("hostile", |status| status.documents >= 1);
    assert!(status.faults.trap >= 1);
    assert_eq!(running.dispatcher.lost_since(), 3);
    running.stop();
}

#[test]
fn a_replaced_reporter_goes_on_from_its_last_document() {
    // Too little memory for many paths: the instance dies of the large batch and the next one
    // starts with what was written before.
    let running = Bench::new().neighbour().limits(|limits| limits.memory_bytes = 4 << 20).start();
    running.batch(&["/early"]);
    running.tick(TickCause::Interval, 1);
    running.wait_for("neighbour", |status| status.documents == 1);
    let many: Vec<_> = (0..60_000).map(|number| format!("/many/{number:040}")).collect();
    running.batch(&many.iter().map(String::as_str).collect::<Vec<_>>());
    running.wait_for("neighbour", |status| status.faults.memory == 1);
    running.batch(&["/late"]);
    running.tick(TickCause::Stop, 60_002);
    let (statuses, bench) = running.stop();
    assert_eq!(statuses[0].lost_with_instance, 60_000);
    let report = report(&bench.path("neighbour.json"));
    let container = &report["containers"][0];
    assert_eq!(container["files"], json!(["/early", "/late"]));
    assert_eq!(container["total_events"], 60_002);
    assert_eq!(report["reporter_restarts"], 1);
    assert_eq!(report["reporter_dropped_events"], 60_000);
    assert_eq!(container["complete"], false);
}

#[test]
fn a_plugin_that_is_none_is_refused_in_one_sentence() {
    let check = |bytes: &[u8], words: &[&str]| {
        let sentence = Bench::new().file("odd", bytes).refusal();
        assert!(sentence.contains("plugin `odd`"), "{sentence}");
        for word in words {
            assert!(sentence.contains(word), "{word:?} in: {sentence}");
        }
    };
    let text = |text: &str| wat::parse_str(text).unwrap();
    let other = |from: &str, to: &str| text(&HOSTILE_TEXT.replace(from, to));
    check(b"\x7fELF", &["is not WebAssembly"]);
    check(b"", &["is not WebAssembly"]);
    check(b"(component)", &["WebAssembly as text", "wasm-tools parse"]);
    check(b"\0asm\x0d\0\x01\0\xff", &["damaged"]);
    check(&text("(module)"), &["core module", "wasm-tools component new"]);
    check(&text("(component)"), &["no plugin of whodunit", "reporter-plugin"]);
    check(
        &other("@0.1.0", "@0.2.0"),
        &["built for whodunit:plugin@0.2.0", "speaks whodunit:plugin@0.1.0"],
    );
    check(&other("plugin/reporter@", "plugin/filter@"), &["a filter", "does not run yet"]);
    check(
        &other("plugin/reporter@", "plugin/explainer@"),
        &["not a valid explainer", "does not have export `explain`"],
    );
    check(
        &other("(component\n", "(component (import \"wasi:cli/stdout@0.2.0\" (instance))\n"),
        &["wants `wasi:cli/stdout@0.2.0`", "sandbox"],
    );
    // The right names with the wrong types behind them.
    check(&other("\"on-tick\" (func", "\"on-tock\" (func"), &["not a valid reporter"]);
    check(
        &other("(field \"sequence\" u64)", "(field \"sequence\" u32)"),
        &["not a valid reporter"],
    );
}

#[test]
fn a_source_that_is_not_there_is_refused_in_one_sentence() {
    let refusal = |source: PluginSource| {
        let mut bench = Bench::new();
        let plugin = bench.plugin("odd", source);
        bench.plugins.push(plugin);
        bench.refusal()
    };
    let sentence = refusal(PluginSource::File("/nowhere/plugin.wasm".into()));
    assert!(sentence.contains("`odd`: /nowhere/plugin.wasm does not exist"), "{sentence}");
    let sentence = refusal(PluginSource::File("/proc".into()));
    assert!(sentence.contains("cannot be read"), "{sentence}");
    let sentence = refusal(PluginSource::File("/dev/zero".into()));
    assert!(sentence.contains("larger than 64 MiB"), "{sentence}");
    let sentence = refusal(PluginSource::Builtin("report-jason".into()));
    assert!(sentence.contains("no `builtin:report-jason`; there is builtin:report-json"));
}

#[test]
fn a_configuration_that_the_plugin_refuses_stops_the_daemon_with_its_sentence() {
    let mut bench = Bench::new().neighbour();
    bench.plugins[0].config = json!({ "max_end": 3 });
    let sentence = bench.refusal();
    assert!(sentence.contains("plugin `neighbour` does not start"), "{sentence}");
    assert!(sentence.contains("unknown field `max_end`"), "{sentence}");
}

#[test]
fn compiled_code_is_kept_in_the_cache_folder() {
    let running = Bench::new().neighbour().start();
    let (_, bench) = running.stop();
    let files = |folder: PathBuf| fs::read_dir(folder).unwrap().count();
    assert!(files(bench.path("cache")) > 0);
}

#[test]
fn without_an_explainer_a_death_goes_on_without_a_verdict() {
    let running = Bench::new().neighbour().start();
    let deaths = running.host.deaths();
    deaths.put(death(1));
    deaths.put(death(2));
    let explained: Vec<_> = running.explained.iter().take(2).collect();
    for (number, explained) in explained.into_iter().enumerate() {
        assert_eq!(explained.death, death(number as u8 + 1));
        let reason = "no explainer answered: there is none".to_owned();
        assert_eq!(explained.explanation, Explanation::Unexplained { reason });
    }
    assert_eq!(deaths.lost(), 0);
}

//! A daemon for tests: runs a reporter natively, feeds it events and keeps what it emits.
//!
//! Each test thread has a world of its own. [`Harness::new`] makes it fresh; whatever the reporter
//! calls (log, documents, directory, clock) is answered from it.

use std::cell::RefCell;
use std::collections::BTreeMap;

mod deaths;

pub use deaths::{DeathBuilder, death};

use crate::bindings::reporter::exports::whodunit::plugin::reporter as raw_reporter;
use crate::bindings::whodunit::plugin::types as raw;
use crate::directory::{Container, Mount, Probe, Process, Surroundings};
use crate::log::Level;
use crate::{
    Batch, Cause, Context, Explainer, Filter, Flags, Reporter, Tick, TickCause, Verdict, filter,
    guest,
};

struct World {
    config: String,
    now: u64,
    documents: BTreeMap<String, Vec<u8>>,
    outputs: Option<Vec<String>>,
    document_limit: usize,
    containers: BTreeMap<u32, Container>,
    mounts: BTreeMap<u32, Vec<Mount>>,
    processes: BTreeMap<u32, Process>,
    probes: Vec<Probe>,
    surroundings: Surroundings,
    log: Vec<(Level, String)>,
}

impl Default for World {
    fn default() -> World {
        World {
            config: "{}".to_owned(),
            // 2026-01-15T10:00:00Z
            now: 1_768_471_200_000_000_000,
            documents: BTreeMap::new(),
            outputs: None,
            document_limit: 64 << 20,
            containers: BTreeMap::new(),
            mounts: BTreeMap::new(),
            processes: BTreeMap::new(),
            probes: Vec::new(),
            surroundings: Surroundings {
                pod_name: None,
                namespace: None,
                node_name: "node".to_owned(),
                boot_id: "00000000-0000-0000-0000-000000000001".to_owned(),
                scope: "node".to_owned(),
                daemon_version: "0.0.0".to_owned(),
                started: 1_768_471_200_000_000_000,
            },
            log: Vec::new(),
        }
    }
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

/// A world before its reporter starts: what the daemon would tell it.
pub struct Setup<R> {
    context: Context,
    reporter: std::marker::PhantomData<R>,
}

/// A running reporter with the world around it.
pub struct Harness<R> {
    reporter: R,
}

impl<R: Reporter> Harness<R> {
    /// A fresh world for this thread, with an output for any name.
    #[expect(clippy::new_ret_no_self, reason = "a harness is what a world becomes with a reporter")]
    pub fn new() -> Setup<R> {
        WORLD.set(World::default());
        Setup {
            context: Context { name: "test".to_owned(), instance: 1, cause: Cause::Start },
            reporter: std::marker::PhantomData,
        }
    }

    /// Hands over a batch.
    pub fn batch(&mut self, batch: Batch) {
        self.reporter.on_batch(&batch);
    }

    /// Hands over a tick.
    pub fn tick(&mut self, tick: Tick) -> Result<(), String> {
        self.reporter.on_tick(&tick)
    }

    /// Hands over a tick of the interval with no containers in it.
    pub fn interval(&mut self) -> Result<(), String> {
        self.tick(TickBuilder::new().build())
    }

    /// The reporter.
    pub fn reporter(&mut self) -> &mut R {
        &mut self.reporter
    }

    /// Ends this instance without another call and starts a new one in the same world: what the
    /// daemon does with `Cause::Replaced` after a trap, or with `Cause::Start` after a restart.
    pub fn replace(self, cause: Cause) -> Result<Harness<R>, String> {
        let instance = if cause == Cause::Start { 1 } else { 2 };
        drop(self);
        let context = Context { name: "test".to_owned(), instance, cause };
        Ok(Harness { reporter: guest::started(&context)? })
    }

    /// The newest document of an output.
    pub fn document(&self, output: &str) -> Option<Vec<u8>> {
        WORLD.with_borrow(|world| world.documents.get(output).cloned())
    }

    /// What was logged so far.
    pub fn log(&self) -> Vec<(Level, String)> {
        WORLD.with_borrow(|world| world.log.clone())
    }

    /// Changes what the reporter finds in the directory, as a daemon's discovery does.
    pub fn put_container(&self, container: Container) {
        put_container(container);
    }

    /// Changes what the reporter is told about the daemon, as a restart does.
    pub fn surroundings(&self, change: impl FnOnce(&mut Surroundings)) {
        WORLD.with_borrow_mut(|world| change(&mut world.surroundings));
    }

    /// Forgets every container, as a restart of the daemon does.
    pub fn clear_containers(&self) {
        WORLD.with_borrow_mut(|world| {
            world.containers.clear();
            world.mounts.clear();
        });
    }
}

impl<R: Reporter> Setup<R> {
    /// The plugin's own table, as JSON.
    #[must_use]
    pub fn config(self, json: &str) -> Setup<R> {
        WORLD.with_borrow_mut(|world| world.config = json.to_owned());
        self
    }

    /// Takes documents for these outputs only.
    #[must_use]
    pub fn outputs(self, names: &[&str]) -> Setup<R> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        WORLD.with_borrow_mut(|world| world.outputs = Some(names));
        self
    }

    /// Refuses larger documents.
    #[must_use]
    pub fn document_limit(self, bytes: usize) -> Setup<R> {
        WORLD.with_borrow_mut(|world| world.document_limit = bytes);
        self
    }

    /// The document that an output holds before the start.
    #[must_use]
    pub fn previous(self, output: &str, body: &[u8]) -> Setup<R> {
        WORLD.with_borrow_mut(|world| world.documents.insert(output.to_owned(), body.to_vec()));
        self
    }

    /// Adds a container.
    #[must_use]
    pub fn container(self, container: Container) -> Setup<R> {
        WORLD.with_borrow_mut(|world| world.containers.insert(container.id, container));
        self
    }

    /// Adds a mount to the container of that number.
    #[must_use]
    pub fn mount(self, container: u32, mount: Mount) -> Setup<R> {
        WORLD.with_borrow_mut(|world| world.mounts.entry(container).or_default().push(mount));
        self
    }

    /// Adds a process.
    #[must_use]
    pub fn process(self, process: Process) -> Setup<R> {
        WORLD.with_borrow_mut(|world| world.processes.insert(process.id, process));
        self
    }

    /// Adds a probe.
    #[must_use]
    pub fn probe(self, name: &str, live: bool, reason: &str) -> Setup<R> {
        let probe = Probe { name: name.to_owned(), live, reason: reason.to_owned() };
        WORLD.with_borrow_mut(|world| world.probes.push(probe));
        self
    }

    /// Changes what is told about the daemon.
    #[must_use]
    pub fn surroundings(self, change: impl FnOnce(&mut Surroundings)) -> Setup<R> {
        WORLD.with_borrow_mut(|world| change(&mut world.surroundings));
        self
    }

    /// Starts the reporter, or gives its sentence.
    pub fn start(self) -> Result<Harness<R>, String> {
        Ok(Harness { reporter: guest::started(&self.context)? })
    }
}

/// A running filter with the world around it.
pub struct FilterHarness<F> {
    filter: F,
}

impl<F: Filter> FilterHarness<F> {
    /// A filter in a fresh world for this thread, with its own table as JSON and with these containers;
    /// or its sentence.
    pub fn start(config: &str, containers: &[Container]) -> Result<FilterHarness<F>, String> {
        let containers = containers.iter().map(|it| (it.id, it.clone())).collect();
        WORLD.set(World { config: config.to_owned(), containers, ..World::default() });
        let context = Context { name: "test".to_owned(), instance: 1, cause: Cause::Start };
        Ok(FilterHarness { filter: guest::started_filter(&context)? })
    }

    /// Hands over a batch.
    pub fn judge(&mut self, batch: &Batch) -> Vec<Verdict> {
        filter::verdicts(&mut self.filter, batch)
    }

    /// Changes what the filter finds in the directory, as a daemon's discovery does.
    pub fn put_container(&self, container: Container) {
        put_container(container);
    }
}

/// An explainer in a fresh world for this thread, with its own table as JSON; or its sentence.
pub fn explainer<E: Explainer>(config: &str) -> Result<E, String> {
    WORLD.set(World { config: config.to_owned(), ..World::default() });
    let context = Context { name: "test".to_owned(), instance: 1, cause: Cause::Start };
    guest::started_explainer(&context)
}

/// The newest document of an output that an explainer of this thread emitted.
pub fn emitted(output: &str) -> Option<Vec<u8>> {
    host::documents::previous(output)
}

/// Changes what an explainer of this thread finds in the directory.
pub fn put_container(container: Container) {
    WORLD.with_borrow_mut(|world| world.containers.insert(container.id, container));
}

/// A container with that number and name, and plausible values for the rest.
pub fn container(id: u32, name: &str) -> Container {
    Container {
        id,
        name: name.to_owned(),
        name_source: "id".to_owned(),
        runtime_id: format!("{name}-id"),
        runtime: "containerd".to_owned(),
        cgroup_id: 1000 + u64::from(id),
        cgroup_path: format!("/kubepods/pod1/{name}"),
        attributes: Vec::new(),
    }
}

/// Builds a batch, event by event.
#[derive(Clone, Debug, Default)]
pub struct BatchBuilder {
    events: Vec<raw::Event>,
    attributes: Vec<raw::Attribute>,
    text: Vec<u8>,
    dropped: u64,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new() -> BatchBuilder {
        BatchBuilder::default()
    }

    /// Adds a container's start.
    #[must_use]
    pub fn container_started(self, container: u32, cgroup_path: &str) -> BatchBuilder {
        self.event(1, container, cgroup_path.as_bytes())
    }

    /// Adds a container's end.
    #[must_use]
    pub fn container_ended(self, container: u32, cgroup_path: &str) -> BatchBuilder {
        self.event(2, container, cgroup_path.as_bytes())
    }

    /// Adds an open that worked.
    #[must_use]
    pub fn open(self, container: u32, path: impl AsRef<[u8]>) -> BatchBuilder {
        self.event(16, container, path.as_ref())
    }

    /// Adds an exec that worked.
    #[must_use]
    pub fn exec(self, container: u32, path: impl AsRef<[u8]>) -> BatchBuilder {
        self.event(17, container, path.as_ref())
    }

    /// Adds an event of any kind that worked.
    #[must_use]
    pub fn event(mut self, kind: u16, container: u32, path: &[u8]) -> BatchBuilder {
        let path = self.push_text(path);
        let sequence = self.events.len() as u64 + 1;
        self.events.push(raw::Event {
            sequence,
            time: WORLD.with_borrow(|world| world.now),
            container,
            process: 0,
            kind,
            flags: 0,
            outcome: 0,
            path,
            requested: path,
            attributes_first: self.attributes.len() as u32,
            attributes_count: 0,
        });
        self
    }

    /// Sets flags of the last event.
    #[must_use]
    pub fn flags(mut self, flags: Flags) -> BatchBuilder {
        self.last().flags |= flags.0;
        self
    }

    /// Makes the last event one that failed with that errno.
    #[must_use]
    pub fn failed(mut self, errno: i32) -> BatchBuilder {
        self.last().outcome = -errno;
        self
    }

    /// Sets what the program of the last event asked for, and no resolved path.
    #[must_use]
    pub fn only_requested(mut self, path: impl AsRef<[u8]>) -> BatchBuilder {
        let requested = self.push_text(path.as_ref());
        let last = self.last();
        last.path = raw::Span { offset: 0, length: 0 };
        last.requested = requested;
        self
    }

    /// Sets what the program of the last event asked for, or what the link says that it crossed.
    #[must_use]
    pub fn requested(mut self, text: impl AsRef<[u8]>) -> BatchBuilder {
        let requested = self.push_text(text.as_ref());
        self.last().requested = requested;
        self
    }

    /// Adds an attribute to the last event.
    #[must_use]
    pub fn attribute(mut self, key: crate::AttributeKey, value: u64) -> BatchBuilder {
        self.attributes.push(raw::Attribute { key: key.code(), value });
        self.last().attributes_count += 1;
        self
    }

    /// Tells of events that were dropped before this batch.
    #[must_use]
    pub fn dropped(mut self, events: u64) -> BatchBuilder {
        self.dropped = events;
        self
    }

    /// The batch.
    pub fn build(self) -> Batch {
        Batch::new(raw::Batch {
            events: self.events,
            attributes: self.attributes,
            text: self.text,
            dropped: self.dropped,
        })
    }

    fn last(&mut self) -> &mut raw::Event {
        self.events.last_mut().expect("an event was added before")
    }

    fn push_text(&mut self, bytes: &[u8]) -> raw::Span {
        let offset = self.text.len() as u32;
        self.text.extend_from_slice(bytes);
        raw::Span { offset, length: bytes.len() as u32 }
    }
}

/// Builds a tick, container by container.
#[derive(Clone, Debug)]
pub struct TickBuilder {
    tick: raw_reporter::Tick,
}

impl Default for TickBuilder {
    fn default() -> TickBuilder {
        TickBuilder::new()
    }
}

impl TickBuilder {
    /// A tick of the interval with nothing in it, at the world's time.
    pub fn new() -> TickBuilder {
        TickBuilder {
            tick: raw_reporter::Tick {
                time: WORLD.with_borrow(|world| world.now),
                cause: TickCause::Interval,
                containers: Vec::new(),
                counters: Vec::new(),
            },
        }
    }

    /// Sets why.
    #[must_use]
    pub fn cause(mut self, cause: TickCause) -> TickBuilder {
        self.tick.cause = cause;
        self
    }

    /// Sets when, in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn time(mut self, time: u64) -> TickBuilder {
        self.tick.time = time;
        self
    }

    /// Adds a container that was watched from its birth on, with its counters.
    #[must_use]
    pub fn container(mut self, container: u32, counters: &[(&str, u64)]) -> TickBuilder {
        self.tick.containers.push(raw_reporter::ContainerTotals {
            container,
            watched_since: self.tick.time,
            from_birth: true,
            first_exec_seen: true,
            last_event: None,
            ended: None,
            counters: raw_counters(counters),
        });
        self
    }

    /// Makes the last container one that ended at that time.
    #[must_use]
    pub fn ended(mut self, time: u64) -> TickBuilder {
        self.last().ended = Some(time);
        self
    }

    /// Makes the last container one that was there before the daemon.
    #[must_use]
    pub fn found_running(mut self) -> TickBuilder {
        self.last().from_birth = false;
        self.last().first_exec_seen = false;
        self
    }

    /// Sets when the last event of the last container was seen.
    #[must_use]
    pub fn last_event(mut self, time: u64) -> TickBuilder {
        self.last().last_event = Some(time);
        self
    }

    /// Sets the daemon's own counters.
    #[must_use]
    pub fn counters(mut self, counters: &[(&str, u64)]) -> TickBuilder {
        self.tick.counters = raw_counters(counters);
        self
    }

    /// The tick.
    pub fn build(self) -> Tick {
        Tick::new(self.tick)
    }

    fn last(&mut self) -> &mut raw_reporter::ContainerTotals {
        self.tick.containers.last_mut().expect("a container was added before")
    }
}

fn raw_counters(counters: &[(&str, u64)]) -> Vec<raw::Counter> {
    let counter =
        |(name, value): &(&str, u64)| raw::Counter { name: (*name).to_owned(), value: *value };
    counters.iter().map(counter).collect()
}

/// The contract's imports, answered from this thread's world.
pub(crate) mod host {
    pub(crate) mod log {
        use crate::log::Level;
        use crate::testing::WORLD;

        pub(crate) fn write(level: Level, message: &str) {
            WORLD.with_borrow_mut(|world| world.log.push((level, message.to_owned())));
        }
    }

    pub(crate) mod configuration {
        use crate::testing::WORLD;

        pub(crate) fn json() -> String {
            WORLD.with_borrow(|world| world.config.clone())
        }
    }

    pub(crate) mod clock {
        use crate::testing::WORLD;

        pub(crate) fn now() -> u64 {
            WORLD.with_borrow(|world| world.now)
        }

        pub(crate) fn monotonic() -> u64 {
            WORLD.with_borrow(|world| world.now - world.surroundings.started)
        }
    }

    pub(crate) mod documents {
        use crate::documents::Refusal;
        use crate::testing::WORLD;

        pub(crate) fn emit(output: &str, body: &[u8]) -> Result<(), Refusal> {
            WORLD.with_borrow_mut(|world| {
                if let Some(outputs) = &world.outputs
                    && !outputs.iter().any(|name| name == output)
                {
                    return Err(Refusal::UnknownOutput(outputs.join(", ")));
                }
                if body.len() > world.document_limit {
                    return Err(Refusal::TooLarge(world.document_limit as u64));
                }
                world.documents.insert(output.to_owned(), body.to_vec());
                Ok(())
            })
        }

        pub(crate) fn previous(output: &str) -> Option<Vec<u8>> {
            WORLD.with_borrow(|world| world.documents.get(output).cloned())
        }
    }

    pub(crate) mod directory {
        use crate::directory::{Container, Mount, Probe, Process, Surroundings};
        use crate::testing::WORLD;

        pub(crate) fn container_mounts(id: u32) -> Vec<Mount> {
            WORLD.with_borrow(|world| world.mounts.get(&id).cloned().unwrap_or_default())
        }

        pub(crate) fn container_by_id(id: u32) -> Option<Container> {
            WORLD.with_borrow(|world| world.containers.get(&id).cloned())
        }

        pub(crate) fn process_by_id(id: u32) -> Option<Process> {
            WORLD.with_borrow(|world| world.processes.get(&id).cloned())
        }

        pub(crate) fn probes() -> Vec<Probe> {
            WORLD.with_borrow(|world| world.probes.clone())
        }

        pub(crate) fn daemon_surroundings() -> Surroundings {
            WORLD.with_borrow(|world| world.surroundings.clone())
        }
    }
}

//! What a guest may call: the host's side of the contract's imports.
//!
//! Every answer is bounded, and no call waits for anything: documents are handed to the sinks, log
//! messages are counted where there are too many.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::ResourceLimiter;

use super::allowance::{Allowance, Allowed};
use super::bindings::whodunit::plugin::{clock, configuration, directory, documents, log, types};
use super::collected::Collected;
use super::status::Board;
use super::wasi::Handles;
use super::world::World;
use crate::config;
use crate::event::{ContainerId, ProcessId};
use crate::sink::{Outlet, SinkId};

/// A log message is cut here.
const MAX_LOG_BYTES: usize = 4 << 10;

/// What becomes of the documents of a plugin.
pub(super) enum Delivery {
    /// They go to the sinks.
    To(Outlet),
    /// They go nowhere: the plugin is being tried. What is there already can be read.
    Withheld(Outlet),
}

/// What every instance of one plugin is told and may use.
pub(super) struct Grants {
    config_json: String,
    outputs: BTreeMap<String, SinkId>,
    output_bytes: usize,
    memory_bytes: usize,
    world: Arc<World>,
    delivery: Delivery,
    board: Arc<Board>,
    log_gate: Mutex<LogGate>,
    /// Where documents are kept to be compared, while a version runs beside another one.
    collected: Mutex<Option<Arc<Collected>>>,
}

impl Grants {
    pub(super) fn new(
        plugin: &config::Plugin,
        world: Arc<World>,
        delivery: Delivery,
        board: Arc<Board>,
    ) -> Grants {
        let config_json = match &plugin.config {
            serde_json::Value::Null => "{}".to_owned(),
            config => config.to_string(),
        };
        let sink = |output: &String| (output.clone(), SinkId::new(&plugin.name, output));
        Grants {
            config_json,
            outputs: plugin.outputs.keys().map(sink).collect(),
            output_bytes: plugin.limits.output_bytes,
            memory_bytes: plugin.limits.memory_bytes,
            world,
            delivery,
            board,
            log_gate: Mutex::new(LogGate::new(plugin.limits.log_per_second)),
            collected: Mutex::default(),
        }
    }

    /// Keeps documents there too, from now on, or not any more.
    pub(super) fn collect_into(&self, collected: Option<Arc<Collected>>) {
        *self.collected.lock().expect("no holder of this lock panics") = collected;
    }

    fn collected(&self) -> Option<Arc<Collected>> {
        self.collected.lock().expect("no holder of this lock panics").clone()
    }

    /// Where a document for that output goes. None where the TOML does not say.
    fn sink(&self, output: &str) -> Option<SinkId> {
        let (Delivery::To(outlet) | Delivery::Withheld(outlet)) = &self.delivery;
        let known = self.outputs.get(output).cloned();
        known.or_else(|| outlet.takes_any().then(|| SinkId::new(self.board.name(), output)))
    }
}

/// The host's state beside one instance.
pub(super) struct Guest {
    grants: Arc<Grants>,
    pub(super) memory: MemoryLimit,
    allowance: Allowance,
    /// How often it was given a random number.
    randoms: u64,
    /// The files that it holds open.
    pub(super) handles: Handles,
}

impl Allowed for Guest {
    fn allowance(&mut self) -> &mut Allowance {
        &mut self.allowance
    }
}

impl Guest {
    pub(super) fn new(grants: Arc<Grants>) -> Guest {
        let memory = MemoryLimit { limit: grants.memory_bytes, used: 0, was_refused: false };
        let allowance = Allowance::new(Duration::ZERO);
        Guest { grants, memory, allowance, randoms: 0, handles: Handles::default() }
    }

    /// A random number; in a replay, the next of a row that is always the same.
    pub(super) fn random(&mut self) -> wasmtime::Result<u64> {
        self.randoms += 1;
        if self.grants.world.clock.standing().is_some() {
            // The finisher of splitmix64: numbers that look like others, and are no secret.
            let mut number = self.randoms.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            return Ok(number ^ (number >> 31));
        }
        let none = |cause| wasmtime::Error::msg(format!("there is no random number: {cause}"));
        getrandom::u64().map_err(none)
    }
}

/// Linear memories and tables of one instance, together.
pub(super) struct MemoryLimit {
    limit: usize,
    used: usize,
    /// Whether the guest wanted more. It may live with that, or die of it.
    pub(super) was_refused: bool,
}

impl MemoryLimit {
    /// Size of a table's element, as the engine holds it.
    const ELEMENT_BYTES: usize = 16;

    /// How much it holds now, in bytes.
    pub(super) fn used(&self) -> u64 {
        self.used as u64
    }

    fn grows(&mut self, current: usize, desired: usize) -> bool {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        let fits = used <= self.limit;
        if fits {
            self.used = used;
        } else {
            self.was_refused = true;
        }
        fits
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grows(current, desired))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = |elements: usize| elements.saturating_mul(MemoryLimit::ELEMENT_BYTES);
        Ok(self.grows(bytes(current), bytes(desired)))
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        16
    }
}

/// Lets so many messages a second through.
struct LogGate {
    per_second: u32,
    second: Instant,
    passed: u32,
    suppressed: u64,
}

impl LogGate {
    fn new(per_second: u32) -> LogGate {
        LogGate { per_second, second: Instant::now(), passed: 0, suppressed: 0 }
    }

    /// Whether a message may pass now, and how many were left out in the seconds before.
    fn pass(&mut self, now: Instant) -> (bool, u64) {
        let mut left_out = 0;
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.passed = 0;
            left_out = std::mem::take(&mut self.suppressed);
        }
        let passes = self.passed < self.per_second;
        if passes {
            self.passed += 1;
        } else {
            self.suppressed += 1;
        }
        (passes, left_out)
    }
}

impl types::Host for Guest {}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, message: String) {
        let grants = &self.grants;
        let mut gate = grants.log_gate.lock().expect("no holder of this lock panics");
        let (passes, left_out) = gate.pass(Instant::now());
        drop(gate);
        let plugin = grants.board.name();
        if left_out > 0 {
            tracing::warn!(plugin, "{left_out} log messages were over the limit and left out");
        }
        if !passes {
            grants.board.suppressed_log.add(1);
            return;
        }
        let message = printable(&message);
        match level {
            log::Level::Error => tracing::error!(plugin, "{message}"),
            log::Level::Warn => tracing::warn!(plugin, "{message}"),
            log::Level::Info => tracing::info!(plugin, "{message}"),
            log::Level::Debug => tracing::debug!(plugin, "{message}"),
            log::Level::Trace => tracing::trace!(plugin, "{message}"),
        }
    }
}

/// The beginning of a message, with control characters escaped: a guest must not be able to write
/// lines of its own into the log, or sequences that a terminal obeys.
pub(super) fn printable(message: &str) -> String {
    let end = message.floor_char_boundary(MAX_LOG_BYTES);
    let mut text = String::with_capacity(end);
    for character in message[..end].chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

impl configuration::Host for Guest {
    fn json(&mut self) -> String {
        self.grants.config_json.clone()
    }
}

impl clock::Host for Guest {
    fn now(&mut self) -> u64 {
        if let Some((now, _)) = self.grants.world.clock.standing() {
            return now;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn monotonic(&mut self) -> u64 {
        if let Some((_, since_boot)) = self.grants.world.clock.standing() {
            return since_boot;
        }
        let time = clock_gettime(ClockId::Boottime);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

impl documents::Host for Guest {
    fn emit(&mut self, output: String, body: Vec<u8>) -> Result<(), documents::Refusal> {
        let grants = &self.grants;
        let Some(sink) = grants.sink(&output) else {
            let known: Vec<_> = grants.outputs.keys().map(String::as_str).collect();
            let sentence = format!(
                "it made a document for the output `{output:.64}`, which is not in the TOML"
            );
            grants.board.failed(&sentence);
            grants.board.refused_documents.add(1);
            return Err(documents::Refusal::UnknownOutput(known.join(", ")));
        };
        if body.len() > grants.output_bytes {
            let sentence = format!(
                "it made a document of {} bytes for the output `{output}`, over its limit of {}",
                body.len(),
                grants.output_bytes
            );
            grants.board.failed(&sentence);
            grants.board.refused_documents.add(1);
            return Err(documents::Refusal::TooLarge(grants.output_bytes as u64));
        }
        grants.board.documents.add(1);
        if let Some(collected) = grants.collected() {
            collected.add(&output, &body);
        }
        match &grants.delivery {
            Delivery::To(outlet) => outlet.put(&sink, body),
            Delivery::Withheld(_) => {}
        }
        Ok(())
    }

    fn previous(&mut self, output: String) -> Option<Vec<u8>> {
        let sink = self.grants.sink(&output)?;
        let kept = || self.grants.collected()?.last(&output);
        match &self.grants.delivery {
            // What it made itself, though it went nowhere.
            Delivery::Withheld(_) if kept().is_some() => kept(),
            Delivery::To(outlet) | Delivery::Withheld(outlet) => {
                outlet.read(&sink, self.grants.output_bytes)
            }
        }
    }
}

impl directory::Host for Guest {
    fn container_by_id(&mut self, id: types::ContainerId) -> Option<types::Container> {
        let container = self.grants.world.directory.container(ContainerId(id))?;
        Some(types::Container {
            id,
            name: container.name,
            name_source: container.name_source.to_owned(),
            runtime_id: container.runtime_id,
            runtime: container.runtime.to_owned(),
            cgroup_id: container.cgroup.0,
            cgroup_path: escaped(&container.cgroup_path),
            attributes: container.attributes,
        })
    }

    fn container_mounts(&mut self, id: types::ContainerId) -> Vec<directory::Mount> {
        let mounts = self.grants.world.directory.mounts(ContainerId(id));
        let mounts = mounts.iter().map(|mount| directory::Mount {
            id: mount.id,
            point: escaped(&mount.point),
            file_system: mount.file_system.clone(),
            source: escaped(&mount.source),
            device: mount.device,
        });
        mounts.collect()
    }

    fn process_by_id(&mut self, id: types::ProcessId) -> Option<types::Process> {
        let process = self.grants.world.directory.process(ProcessId(id))?;
        Some(types::Process {
            id,
            pid: process.pid,
            started: process.started_ns,
            comm: escaped(&process.comm),
            container: process.container.0,
        })
    }

    fn probes(&mut self) -> Vec<directory::Probe> {
        let probe = |probe: &super::world::Probe| directory::Probe {
            name: probe.name.clone(),
            live: probe.live,
            reason: probe.reason.clone(),
        };
        self.grants.world.probes.iter().map(probe).collect()
    }

    fn daemon_surroundings(&mut self) -> directory::Surroundings {
        let surroundings = &self.grants.world.surroundings;
        directory::Surroundings {
            pod_name: surroundings.pod_name.clone(),
            namespace: surroundings.namespace.clone(),
            node_name: surroundings.node_name.clone(),
            boot_id: surroundings.boot_id.clone(),
            scope: surroundings.scope.clone(),
            daemon_version: surroundings.daemon_version.clone(),
            started: surroundings.started.0,
        }
    }
}

/// Bytes as the contract has them in text: what is not UTF-8 as `\xNN`, a backslash as `\\`.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_escaped_as_the_contract_says() {
        assert_eq!(escaped(b"/a b/\xff\\\xc3\xa4"), "/a b/\\xff\\\\\u{e4}");
    }

    #[test]
    fn a_log_message_is_one_line_of_at_most_4_kib() {
        assert_eq!(printable("a\nb\x1b[2J"), "a\\nb\\u{1b}[2J");
        assert_eq!(printable(&"\u{e4}".repeat(4096)).len(), MAX_LOG_BYTES);
        assert_eq!(printable(&"\u{20ac}".repeat(4096)).len(), MAX_LOG_BYTES - 1);
    }

    #[test]
    fn the_log_gate_counts_what_it_leaves_out() {
        let mut gate = LogGate::new(2);
        let start = gate.second;
        assert_eq!(gate.pass(start), (true, 0));
        assert_eq!(gate.pass(start), (true, 0));
        assert_eq!(gate.pass(start), (false, 0));
        assert_eq!(gate.pass(start), (false, 0));
        assert_eq!(gate.pass(start + Duration::from_secs(1)), (true, 2));
        assert_eq!(gate.pass(start + Duration::from_secs(2)), (true, 0));
    }

    #[test]
    fn memories_and_tables_share_one_limit() {
        let mut memory = MemoryLimit { limit: 1000, used: 0, was_refused: false };
        assert!(memory.memory_growing(0, 600, None).unwrap());
        assert!(memory.table_growing(0, 20, None).unwrap());
        assert!(!memory.was_refused);
        assert!(!memory.memory_growing(600, 700, None).unwrap());
        assert!(!memory.table_growing(20, usize::MAX, None).unwrap());
        assert!(memory.was_refused);
        assert!(memory.memory_growing(600, 680, None).unwrap());
    }
}

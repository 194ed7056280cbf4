//! The reporter: events and totals in, the report out.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Serializer;
use whodunit_sdk::directory::{self, Probe, Surroundings};
use whodunit_sdk::documents::{self, Refusal};
use whodunit_sdk::{Batch, Context, Reporter, Tick, clock, warn};

use crate::container::{Container, Identity, Lost, NAMELESS, lost_of, lost_plus};
use crate::document::{
    ContainerReport, Daemon, Document, EarlierLosses, Most, SCHEMA_VERSION, reasons_of,
};
use crate::layout::Layout;
use crate::paths::Paths;
use crate::previous::{Forgotten, Previous};

/// The output that the report goes to.
const OUTPUT: &str = "report";

/// The plugin's own table of the TOML.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Paths that are kept for each container; what is beyond is counted in `truncated`.
    pub max_files_per_container: usize,
    /// Files of each container that have an entry in `details`: the most of what a document costs.
    pub max_details_per_container: usize,
    /// Ended containers that are kept. Together they also keep no more paths than one container.
    pub max_ended: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_files_per_container: 1_000_000,
            max_details_per_container: 50_000,
            max_ended: 100,
        }
    }
}

/// The reporter.
#[derive(Debug)]
pub struct Report {
    config: Config,
    surroundings: Surroundings,
    /// Makes the hash tables of this instance differ from those of any other.
    seed: u64,
    started_at: String,
    generation: u32,
    restarts: u64,
    dropped_events: u64,
    unreadable_reports: u64,
    /// Lost without an owner: in earlier runs of the daemon, and in this one.
    lost_in_earlier_runs: Lost,
    lost_in_this_run: Lost,
    /// The containers of this run by their numbers.
    running: BTreeMap<u32, Container>,
    /// Those of the report before, until the first tick tells which of them are still there.
    before: Vec<Container>,
    before_updated_at: String,
    ended: VecDeque<Container>,
    forgotten: Forgotten,
    /// Size of the last document, which the next one will be close to.
    last_bytes: usize,
}

impl Reporter for Report {
    type Config = Config;

    fn start(_: &Context, config: Config) -> Result<Report, String> {
        if config.max_files_per_container == 0 {
            return Err("its `config` table is not right: `max_files_per_container` must be at \
                        least 1"
                .to_owned());
        }
        let now = clock::now();
        let mut report = Report {
            config,
            surroundings: directory::surroundings(),
            seed: now ^ clock::monotonic().rotate_left(32),
            started_at: rfc3339(now),
            generation: 1,
            restarts: 0,
            dropped_events: 0,
            unreadable_reports: 0,
            lost_in_earlier_runs: Lost::new(),
            lost_in_this_run: Lost::new(),
            running: BTreeMap::new(),
            before: Vec::new(),
            before_updated_at: String::new(),
            ended: VecDeque::new(),
            forgotten: Forgotten::default(),
            last_bytes: 0,
        };
        if let Some(document) = documents::previous(OUTPUT) {
            match Previous::parse(&document) {
                Ok(previous) => report.go_on_from(previous),
                Err(why) => {
                    report.unreadable_reports = 1;
                    warn!("the report that is there already is left behind: {why}");
                }
            }
        }
        Ok(report)
    }

    fn on_batch(&mut self, batch: &Batch) {
        self.dropped_events += batch.dropped();
        // Events of one container come in runs, so the last one found is mostly the next one too.
        let mut events = batch.events().peekable();
        while let Some(first) = events.next() {
            let number = first.container();
            let mut event = first;
            let container = self.container(number);
            loop {
                container.take(&event);
                match events.next_if(|next| next.container() == number) {
                    Some(next) => event = next,
                    None => break,
                }
            }
        }
    }

    fn on_tick(&mut self, tick: &Tick) -> Result<(), String> {
        self.lost_in_this_run = lost_of(tick.counters());
        for totals in tick.containers() {
            let known = directory::container(totals.container());
            let is_left_out = known.as_ref().is_some_and(|it| directory::left_out(it).is_some());
            let container = self.container(totals.container());
            container.take_totals(totals);
            if let Some(known) = known {
                container.identity = Identity::of(known);
            }
            container.take_mounts(directory::mounts(totals.container()));
            if totals.ended().is_some()
                && let Some(mut container) = self.running.remove(&totals.container())
                && !is_left_out
            {
                let is_nameless = container.identity.name_source == NAMELESS;
                container.number = is_nameless.then_some(totals.container());
                self.ended.push_back(container);
            }
        }
        self.ended.retain_mut(Container::is_wanted_by_its_name);
        for mut container in std::mem::take(&mut self.before) {
            container.ended_at = Some(self.before_updated_at.clone());
            self.ended.push_back(container);
        }
        self.forget_oldest();
        let running = self.running.values_mut();
        running.chain(&mut self.ended).for_each(|container| container.paths.sort());
        self.emit(tick.time())
    }
}

impl Report {
    fn go_on_from(&mut self, previous: Previous<'_>) {
        let same_boot = previous.daemon.boot_id == self.surroundings.boot_id;
        let same_run =
            same_boot && previous.daemon.started_at == rfc3339(self.surroundings.started);
        self.started_at = previous.started_at;
        self.generation = previous.daemon.generation + u32::from(!same_run);
        self.restarts = previous.reporter_restarts + u64::from(same_run);
        self.dropped_events = previous.reporter_dropped_events;
        self.unreadable_reports = previous.unreadable_reports;
        (self.lost_in_earlier_runs, self.lost_in_this_run) = if same_run {
            (previous.earlier_runs.lost, previous.lost)
        } else {
            (lost_plus(&previous.earlier_runs.lost, &previous.lost), Lost::new())
        };
        self.forgotten = previous.forgotten;
        for container in previous.ended_containers {
            let restored = container.restore(same_run, self.no_paths());
            self.ended.push_back(restored);
        }
        for container in previous.containers {
            let mut restored = container.restore(same_run, self.no_paths());
            if same_boot {
                self.before.push(restored);
            } else {
                restored.ended_at = Some(previous.last_updated_at.clone());
                self.ended.push_back(restored);
            }
        }
        if !same_run {
            self.before.iter_mut().for_each(|container| container.gaps += 1);
        }
        self.before_updated_at = previous.last_updated_at;
        self.forget_oldest();
    }

    fn no_paths(&self) -> Paths {
        Paths::new(self.config.max_files_per_container, self.seed)
    }

    /// The container of that number. One that is new is looked up, and goes on from what the report
    /// before says of the same cgroup.
    fn container(&mut self, number: u32) -> &mut Container {
        if !self.running.contains_key(&number) {
            let identity = directory::container(number)
                .map_or_else(|| Identity::unknown(number), Identity::of);
            let same = |before: &Container| before.identity.is_same_cgroup(&identity);
            let container = match self.before.iter().position(same) {
                Some(place) => self.before.swap_remove(place),
                None => Container::new(identity, rfc3339(clock::now()), self.no_paths()),
            };
            self.running.insert(number, container);
        }
        self.running.get_mut(&number).expect("it was there, or was inserted")
    }

    /// Keeps the history inside its limits.
    fn forget_oldest(&mut self) {
        let mut paths: usize = self.ended.iter().map(|container| container.paths.len()).sum();
        while self.ended.len() > self.config.max_ended
            || (paths > self.config.max_files_per_container && self.ended.len() > 1)
        {
            let Some(oldest) = self.ended.pop_front() else {
                break;
            };
            paths -= oldest.paths.len();
            let totals = oldest.totals();
            self.forgotten.containers += 1;
            self.forgotten.total_events += totals.counters.received;
            self.forgotten.dropped_events += totals.lost_total();
        }
    }

    /// Emits the report. Where it is too large for the output, its lists are cut, and say so: the
    /// details first.
    fn emit(&mut self, time: u64) -> Result<(), String> {
        let longest =
            self.running.values().chain(&self.ended).map(|container| container.paths.len());
        let longest = longest.max().unwrap_or_default();
        let detailed = longest.min(self.config.max_details_per_container);
        let mut most = Most { paths: longest, details: detailed };
        // Size of the document with every detail, once it is known to be too large.
        let mut with_details = None;
        loop {
            let body = self.render(time, most)?;
            let limit = match documents::emit(OUTPUT, &body) {
                Ok(()) => {
                    self.last_bytes = body.len();
                    return Ok(());
                }
                Err(Refusal::TooLarge(limit)) => limit,
                Err(refusal) => return Err(refusal.into()),
            };
            match with_details {
                None if most.details > 0 => {
                    with_details = Some(body.len());
                    most.details = 0;
                    let bare = self.render(time, most)?.len();
                    most.details =
                        share(detailed, limit.saturating_sub(bare as u64), body.len() - bare);
                }
                _ if most.details > 0 => most.details /= 2,
                _ if most.paths > 0 => {
                    most.paths = share(most.paths, limit, body.len()).min(most.paths - 1);
                }
                _ => return Err(Refusal::TooLarge(limit).into()),
            }
        }
    }

    fn render(&self, time: u64, most: Most) -> Result<Vec<u8>, String> {
        let surroundings = &self.surroundings;
        let probes = directory::probes();
        let lost = self.lost_in_this_run.clone();
        let lost_without_owner = lost_plus(&self.lost_in_earlier_runs, &lost);
        let shared = self.shared_reasons(&probes, &lost_without_owner);
        let totals: Vec<_> =
            self.running.values().chain(&self.ended).map(Container::totals).collect();
        let total_events: u64 = totals.iter().map(|totals| totals.counters.received).sum();
        let lost_events: u64 = totals.iter().map(|totals| totals.lost_total()).sum();
        let report = |container| ContainerReport::new(container, &shared, most);
        let document = Document {
            schema_version: SCHEMA_VERSION,
            pod_name: surroundings.pod_name.as_deref(),
            namespace: surroundings.namespace.as_deref(),
            started_at: &self.started_at,
            last_updated_at: rfc3339(time),
            total_events: total_events + self.forgotten.total_events,
            dropped_events: lost_events
                + self.forgotten.dropped_events
                + lost_without_owner.values().sum::<u64>()
                + self.dropped_events,
            daemon: Daemon {
                version: &surroundings.daemon_version,
                boot_id: &surroundings.boot_id,
                node: &surroundings.node_name,
                scope: &surroundings.scope,
                generation: self.generation,
                started_at: rfc3339(surroundings.started),
            },
            probes: probes.into_iter().map(Into::into).collect(),
            lost,
            earlier_runs: EarlierLosses { lost: &self.lost_in_earlier_runs },
            reporter_restarts: self.restarts,
            reporter_dropped_events: self.dropped_events,
            unreadable_reports: self.unreadable_reports,
            containers: self.running.values().map(report).collect(),
            ended_containers: self.ended.iter().map(report).collect(),
            forgotten: &self.forgotten,
        };
        let mut body = Vec::with_capacity(self.last_bytes + self.last_bytes / 8 + 4096);
        document
            .serialize(&mut Serializer::with_formatter(&mut body, Layout::default()))
            .map_err(|error| format!("the report is not possible as JSON: {error}"))?;
        body.push(b'\n');
        Ok(body)
    }

    /// Why no container's part may be complete.
    fn shared_reasons(&self, probes: &[Probe], lost_without_owner: &Lost) -> Vec<String> {
        let mut reasons = Vec::new();
        for probe in probes.iter().filter(|probe| !probe.live && sees_files(&probe.name)) {
            reasons.push(format!("the probe `{}` did not run: {}", probe.name, probe.reason));
        }
        if !lost_without_owner.is_empty() {
            let lost = reasons_of(lost_without_owner);
            reasons.push(format!("events were lost that may be of any container ({lost})"));
        }
        if self.dropped_events > 0 {
            let dropped = self.dropped_events;
            reasons.push(format!("{dropped} events of any container did not reach the reporter"));
        }
        reasons
    }
}

/// How many of some entries fit into `room` bytes, if all of them take `bytes`: a twentieth below what
/// fits on average.
fn share(entries: usize, room: u64, bytes: usize) -> usize {
    let fitting = entries as u128 * u128::from(room) * 19 / (bytes.max(1) as u128 * 20);
    usize::try_from(fitting).map_or(entries, |fitting| fitting.min(entries))
}

/// Whether a probe is one of those that this report rests on.
fn sees_files(probe: &str) -> bool {
    matches!(probe, "files" | "exec")
}

/// A time as RFC 3339, in UTC, as exact as it is.
pub(crate) fn rfc3339(unix_ns: u64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(unix_ns)) {
        Ok(time) => time.to_string(),
        // Only past the year 9999, which 64 bits of nanoseconds do not reach.
        Err(_) => jiff::Timestamp::MAX.to_string(),
    }
}

//! The metrics: one table with the name, the labels and the meaning of each, and where its values are.
//!
//! Takes the status document and gives the text format of Prometheus. Holds nothing from one scrape to the
//! next: what is gone from the status is gone from the metrics. `docs/metrics.md` is generated from here.

use std::collections::BTreeMap;

use prometheus::proto;
use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};

use crate::status::Status;
use crate::status::document::{ContainerStatus, Histogram, Moment, PluginReport};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows until the daemon restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often something took how long, in classes that grow until the daemon restarts.
    Histogram,
}

/// One metric.
pub struct Metric {
    /// Its name. A counter ends with `_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it counts or measures.
    pub help: &'static str,
    /// Gives its values, each with the values of the labels.
    values: Source,
}

/// What gives the values of a metric.
enum Source {
    /// Of a counter or a gauge.
    Numbers(fn(&Scrape<'_>, &mut Values<'_>)),
    /// Of a histogram.
    Histograms(fn(&Scrape<'_>, &mut Histograms<'_>)),
}

/// Takes a value with the values of its labels.
type Values<'a> = dyn FnMut(&[&str], f64) + 'a;

/// Takes a histogram with the values of its labels.
type Histograms<'a> = dyn FnMut(&[&str], &Histogram) + 'a;

/// What stands for the containers beyond the limit.
const FOLDED: &str = "(folded)";

/// One scrape.
struct Scrape<'a> {
    status: &'a Status,
    rows: Vec<Row<'a>>,
    /// Containers without a row of their own.
    folded: usize,
}

/// What the metrics of containers are made of: a container, or all those beyond the limit.
struct Row<'a> {
    /// Namespace, pod, container, container id.
    labels: [&'a str; 4],
    counters: BTreeMap<&'a str, u64>,
    /// None for the folded ones.
    container: Option<&'a ContainerStatus>,
}

/// The labels of a container, named as cAdvisor and kube-state-metrics name them.
const CONTAINER: &[&str] = &["namespace", "pod", "container", "container_id"];

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    values: fn(&Scrape<'_>, &mut Values<'_>),
) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help, values: Source::Numbers(values) }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    values: fn(&Scrape<'_>, &mut Values<'_>),
) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help, values: Source::Numbers(values) }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    values: fn(&Scrape<'_>, &mut Histograms<'_>),
) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, help, values: Source::Histograms(values) }
}

/// Every metric, in the order of the answer.
pub const METRICS: &[Metric] = &[
    gauge(
        "whodunit_build_info",
        &["version", "contract"],
        "Always 1: the version of the daemon and of its plugin contract.",
        |scrape, value| {
            let daemon = &scrape.status.daemon;
            value(&[&daemon.version, &daemon.contract], 1.0);
        },
    ),
    counter(
        "process_cpu_seconds_total",
        &[],
        "Processor time of the daemon, over all its threads, in seconds.",
        |scrape, value| value(&[], scrape.status.daemon.cpu_seconds),
    ),
    gauge(
        "process_resident_memory_bytes",
        &[],
        "Resident memory of the daemon, in bytes.",
        |scrape, value| {
            if let Some(bytes) = scrape.status.daemon.resident_bytes {
                value(&[], bytes as f64);
            }
        },
    ),
    gauge(
        "process_start_time_seconds",
        &[],
        "When the daemon started, in seconds since the Unix epoch.",
        |scrape, value| value(&[], scrape.status.daemon.started_at.seconds()),
    ),
    gauge(
        "whodunit_capture_longest_standstill_seconds",
        &[],
        "The longest that the capture thread stood still in one turn since the start, waiting for another \
         thread or for a disk, in seconds. Waiting for a processor does not count.",
        |scrape, value| value(&[], scrape.status.daemon.longest_standstill_seconds),
    ),
    gauge(
        "whodunit_totals_timestamp_seconds",
        &[],
        "When the capture thread took the totals of this answer, in seconds since the Unix epoch.",
        |scrape, value| value(&[], scrape.status.as_of.seconds()),
    ),
    gauge("whodunit_containers", &[], "Containers that are watched.", |scrape, value| {
        value(&[], scrape.status.containers.len() as f64);
    }),
    gauge(
        "whodunit_containers_folded",
        &[],
        "Containers beyond `http.metrics_containers`: their counters are summed under the container \
         `(folded)`.",
        |scrape, value| value(&[], scrape.folded as f64),
    ),
    gauge(
        "whodunit_container_info",
        &["namespace", "pod", "container", "container_id", "runtime", "name_source"],
        "Always 1: the container's runtime, and where its name comes from.",
        |scrape, value| {
            for (row, container) in scrape.containers() {
                let [namespace, pod, name, id] = row.labels;
                value(&[namespace, pod, name, id, &container.runtime, &container.name_source], 1.0);
            }
        },
    ),
    gauge(
        "whodunit_container_watched_since_timestamp_seconds",
        CONTAINER,
        "Since when the container is watched, in seconds since the Unix epoch.",
        |scrape, value| {
            for (row, container) in scrape.containers() {
                value(&row.labels, container.watched_since.seconds());
            }
        },
    ),
    gauge(
        "whodunit_container_last_event_timestamp_seconds",
        CONTAINER,
        "When the container's last event was seen, in seconds since the Unix epoch.",
        |scrape, value| {
            for (row, container) in scrape.containers() {
                if let Some(last) = container.last_event.map(Moment::seconds) {
                    value(&row.labels, last);
                }
            }
        },
    ),
    counter(
        "whodunit_container_file_accesses_total",
        &["namespace", "pod", "container", "container_id", "phase"],
        "File accesses, repeats included: by the container's own programs (phase `run`), and by the \
         container runtime before it executed them (phase `setup`).",
        |scrape, value| {
            for row in &scrape.rows {
                for (counter, phase) in [("received", "run"), ("setup", "setup")] {
                    let [namespace, pod, name, id] = row.labels;
                    value(&[namespace, pod, name, id, phase], row.counter(counter));
                }
            }
        },
    ),
    counter(
        "whodunit_container_file_operations_total",
        &["namespace", "pod", "container", "container_id", "operation"],
        "File accesses by the container's own programs, repeats included, by what was done: `open`, `exec`, \
         `stat`, ... Their sum is that of the phase `run`.",
        |scrape, value| {
            for row in &scrape.rows {
                let [namespace, pod, name, id] = row.labels;
                for (counter, number) in &row.counters {
                    if let Some(operation) = counter.strip_prefix("received.") {
                        value(&[namespace, pod, name, id, operation], *number as f64);
                    }
                }
            }
        },
    ),
    gauge(
        "whodunit_container_unique_files",
        CONTAINER,
        "Distinct paths at which the container's own programs found something, those that were excluded or filtered left out. No \
         more than `dedup_capacity` are told apart.",
        |scrape, value| scrape.counter("files", value),
    ),
    counter(
        "whodunit_container_events_admitted_total",
        CONTAINER,
        "Distinct events that were handed to plugins.",
        |scrape, value| scrape.counter("admitted", value),
    ),
    counter(
        "whodunit_container_events_filtered_total",
        CONTAINER,
        "Events that a filter dropped.",
        |scrape, value| scrape.counter("filtered", value),
    ),
    counter(
        "whodunit_container_events_excluded_total",
        CONTAINER,
        "Events under an excluded prefix.",
        |scrape, value| scrape.counter("excluded", value),
    ),
    counter(
        "whodunit_container_events_duplicate_total",
        CONTAINER,
        "Repeats, absorbed in the kernel or in the daemon.",
        |scrape, value| scrape.counter("duplicate", value),
    ),
    counter(
        "whodunit_container_dedup_evictions_total",
        CONTAINER,
        "Entries that were pushed out of the daemon's cache of repeats.",
        |scrape, value| scrape.counter("evicted", value),
    ),
    counter(
        "whodunit_container_events_lost_total",
        &["namespace", "pod", "container", "container_id", "reason"],
        "Events that the kernel saw and that did not arrive, by reason.",
        |scrape, value| {
            for row in &scrape.rows {
                let [namespace, pod, name, id] = row.labels;
                for (counter, number) in &row.counters {
                    if let Some(reason) = counter.strip_prefix("lost.") {
                        value(&[namespace, pod, name, id, reason], *number as f64);
                    }
                }
            }
        },
    ),
    counter(
        "whodunit_container_tracing_seconds_total",
        CONTAINER,
        "How long the kernel ran programs of whodunit in the container's own processes, on all CPUs, in seconds. Only with \
         `capture.measure`.",
        |scrape, value| {
            for row in &scrape.rows {
                if let Some(nanoseconds) = row.counters.get("tracing-ns") {
                    value(&row.labels, *nanoseconds as f64 / 1e9);
                }
            }
        },
    ),
    counter(
        "whodunit_losses_total",
        &["reason"],
        "What was lost or left out and belongs to no container, by reason.",
        |scrape, value| {
            for (reason, number) in &scrape.status.losses {
                value(&[reason], *number as f64);
            }
        },
    ),
    gauge(
        "whodunit_probe_live",
        &["probe", "tier"],
        "Whether the probe runs: 1, or 0 where this kernel cannot run it. One of the tier `exact` may be missing.",
        |scrape, value| {
            for probe in &scrape.status.probes {
                value(&[&probe.name, &probe.tier], flag(probe.live));
            }
        },
    ),
    counter(
        "whodunit_probe_runs_total",
        &["probe"],
        "How often the kernel ran the programs of the probe, for any process of the machine. Only with `capture.measure`.",
        |scrape, value| {
            for probe in &scrape.status.probes {
                if let Some(runs) = probe.runs {
                    value(&[&probe.name], runs as f64);
                }
            }
        },
    ),
    counter(
        "whodunit_probe_run_seconds_total",
        &["probe"],
        "How long the kernel ran the programs of the probe, on all CPUs and for any process of the machine, in seconds. Only with \
         `capture.measure`.",
        |scrape, value| {
            for probe in &scrape.status.probes {
                if let Some(seconds) = probe.run_seconds {
                    value(&[&probe.name], seconds);
                }
            }
        },
    ),
    gauge(
        "whodunit_plugin_running",
        &["plugin", "role"],
        "Whether the plugin runs: 0 while it starts, waits after a fault, or is quarantined.",
        |scrape, value| {
            for plugin in &scrape.status.plugins {
                value(&[&plugin.name, &plugin.role], flag(plugin.state == "running"));
            }
        },
    ),
    counter(
        "whodunit_plugin_instances_total",
        &["plugin"],
        "Instances of the plugin: more than one means that it was replaced.",
        |scrape, value| scrape.plugins(value, |plugin| u64::from(plugin.instance)),
    ),
    counter("whodunit_plugin_calls_total", &["plugin"], "Calls of the plugin.", |scrape, value| {
        scrape.plugins(value, |plugin| plugin.calls)
    }),
    histogram(
        "whodunit_plugin_call_seconds",
        &["plugin"],
        "How long the calls of the plugin took, in seconds: those that failed and those that save and restore its state included.",
        |scrape, value| {
            for plugin in &scrape.status.plugins {
                value(&[&plugin.name], &plugin.call_seconds);
            }
        },
    ),
    gauge(
        "whodunit_plugin_queue_events",
        &["plugin"],
        "Events that wait for the plugin; for an explainer, deaths. Filters share one queue and so do explainers: each has its \
         length.",
        |scrape, value| scrape.plugins(value, |plugin| plugin.queue_events),
    ),
    gauge(
        "whodunit_plugin_memory_bytes",
        &["plugin"],
        "Linear memory and tables of the plugin's instance, as of its last call, in bytes: 0 while it has none.",
        |scrape, value| scrape.plugins(value, |plugin| plugin.memory_bytes),
    ),
    counter(
        "whodunit_plugin_events_total",
        &["plugin"],
        "Events that the plugin was given.",
        |scrape, value| scrape.plugins(value, |plugin| plugin.events),
    ),
    counter(
        "whodunit_plugin_events_dropped_total",
        &["plugin"],
        "Events that the plugin's full queue dropped.",
        |scrape, value| scrape.plugins(value, |plugin| plugin.dropped),
    ),
    counter(
        "whodunit_plugin_events_lost_with_instance_total",
        &["plugin"],
        "Events that an instance of the plugin held when it was lost.",
        |scrape, value| scrape.plugins(value, |plugin| plugin.lost_with_instance),
    ),
    counter(
        "whodunit_plugin_documents_total",
        &["plugin"],
        "Documents that the plugin handed over.",
        |scrape, value| scrape.plugins(value, |plugin| plugin.documents),
    ),
    counter(
        "whodunit_plugin_faults_total",
        &["plugin", "kind"],
        "What went wrong with the plugin, by kind.",
        |scrape, value| {
            for plugin in &scrape.status.plugins {
                for (kind, number) in &plugin.faults {
                    value(&[&plugin.name, kind], *number as f64);
                }
            }
        },
    ),
    counter(
        "whodunit_plugin_swaps_total",
        &["plugin"],
        "How often another version of the plugin took the place of the one before.",
        |scrape, value| scrape.plugins(value, |plugin| plugin.swaps),
    ),
    counter(
        "whodunit_plugin_swap_failures_total",
        &["plugin"],
        "How often that was tried and failed: the version before went on.",
        |scrape, value| scrape.plugins(value, |plugin| plugin.failed_swaps),
    ),
    gauge(
        "whodunit_output_last_write_timestamp_seconds",
        &["plugin", "output"],
        "When a document of the output was last written, in seconds since the Unix epoch.",
        |scrape, value| {
            for output in &scrape.status.outputs {
                if let Some(last) = output.last_write.map(Moment::seconds) {
                    value(&[&output.plugin, &output.output], last);
                }
            }
        },
    ),
    gauge(
        "whodunit_output_last_write_bytes",
        &["plugin", "output"],
        "Size of the document of the output that was last written, in bytes.",
        |scrape, value| scrape.outputs(value, |output| output.last_bytes as u64),
    ),
    counter(
        "whodunit_output_writes_total",
        &["plugin", "output"],
        "Documents of the output that were written.",
        |scrape, value| scrape.outputs(value, |output| output.writes),
    ),
    counter(
        "whodunit_output_failures_total",
        &["plugin", "output"],
        "Attempts to write a document of the output that failed.",
        |scrape, value| scrape.outputs(value, |output| output.failures),
    ),
    counter(
        "whodunit_output_dropped_total",
        &["plugin", "output", "reason"],
        "Documents of the output that were left out, where documents are lines or go to a server: too much \
         waited (`queue-full`), the server will never take them (`refused`), it could not be reached for too long \
         (`unreachable`), or the daemon stopped (`stopped`).",
        |scrape, value| {
            for output in &scrape.status.outputs {
                for (reason, number) in &output.dropped {
                    value(&[&output.plugin, &output.output, reason], *number as f64);
                }
            }
        },
    ),
    gauge(
        "whodunit_output_waiting_bytes",
        &["plugin", "output"],
        "What waits to be written to the output, in bytes.",
        |scrape, value| scrape.outputs(value, |output| output.waiting_bytes as u64),
    ),
    counter(
        "whodunit_deaths_total",
        &["subject", "verdict"],
        "Deaths since the daemon started, of containers and of processes in them that failed or were killed, by verdict.",
        |scrape, value| {
            let deaths = &scrape.status.deaths;
            for (subject, counts) in
                [("container", &deaths.containers), ("process", &deaths.processes)]
            {
                for (verdict, count) in counts {
                    value(&[subject, verdict], *count as f64);
                }
            }
        },
    ),
    counter(
        "whodunit_container_deaths_total",
        &["namespace", "pod", "container", "container_id", "verdict"],
        "Deaths in the container that is there, by verdict.",
        |scrape, value| {
            for (row, container) in scrape.containers() {
                let [namespace, pod, name, id] = row.labels;
                for (verdict, count) in &container.deaths {
                    value(&[namespace, pod, name, id, verdict], *count as f64);
                }
            }
        },
    ),
    counter(
        "whodunit_container_cpu_throttled_seconds_total",
        CONTAINER,
        "How long the container was not let run by its quota of CPU since it started, in seconds, read every 5 seconds.",
        |scrape, value| {
            for (row, container) in scrape.containers() {
                if let Some(seconds) = container.cpu_throttled_seconds {
                    value(&row.labels, seconds);
                }
            }
        },
    ),
];

fn flag(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

impl Row<'_> {
    fn counter(&self, name: &str) -> f64 {
        self.counters.get(name).copied().unwrap_or(0) as f64
    }
}

impl<'a> Scrape<'a> {
    /// `at_most` containers have a row of their own: those that were found first, so that a row does
    /// not come and go.
    fn new(status: &'a Status, at_most: usize) -> Scrape<'a> {
        let (own, folded) = status.containers.split_at(at_most.min(status.containers.len()));
        let counters = |container: &'a ContainerStatus| {
            container.counters.iter().map(|(name, value)| (name.as_str(), *value))
        };
        let mut rows: Vec<Row<'a>> = own
            .iter()
            .map(|container| Row {
                labels: labels_of(status, container),
                counters: counters(container).collect(),
                container: Some(container),
            })
            .collect();
        if !folded.is_empty() {
            let mut sums = BTreeMap::new();
            for (name, value) in folded.iter().flat_map(counters) {
                *sums.entry(name).or_insert(0) += value;
            }
            rows.push(Row { labels: ["", "", FOLDED, ""], counters: sums, container: None });
        }
        Scrape { status, rows, folded: folded.len() }
    }

    /// The containers that have a row of their own.
    fn containers(&self) -> impl Iterator<Item = (&Row<'a>, &'a ContainerStatus)> {
        self.rows.iter().filter_map(|row| Some((row, row.container?)))
    }

    fn counter(&self, name: &str, value: &mut Values<'_>) {
        self.rows.iter().for_each(|row| value(&row.labels, row.counter(name)));
    }

    fn plugins(&self, value: &mut Values<'_>, number: fn(&PluginReport) -> u64) {
        for plugin in &self.status.plugins {
            value(&[&plugin.name], number(plugin) as f64);
        }
    }

    fn outputs(
        &self,
        value: &mut Values<'_>,
        number: fn(&crate::status::document::OutputStatus) -> u64,
    ) {
        for output in &self.status.outputs {
            value(&[&output.plugin, &output.output], number(output) as f64);
        }
    }
}

/// A container's namespace, pod, name and id. In a pod's own scope the daemon's pod is the container's.
fn labels_of<'a>(status: &'a Status, container: &'a ContainerStatus) -> [&'a str; 4] {
    let attribute = |name| container.attributes.get(name).map(String::as_str);
    let own = |text: &'a Option<String>| match status.daemon.scope.as_str() {
        "pod" => text.as_deref(),
        _ => None,
    };
    [
        attribute("pod-namespace").or(own(&status.daemon.namespace)).unwrap_or_default(),
        attribute("pod-name").or(own(&status.daemon.pod_name)).unwrap_or_default(),
        &container.name,
        &container.runtime_id,
    ]
}

/// A value with the values of its labels.
pub(crate) type Sample = (Vec<String>, Value);

/// A value of a metric.
pub(crate) enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram.
    Histogram(Histogram),
}

/// Gives every metric that has a value, with its values. `at_most` containers have their own.
pub(crate) fn each(status: &Status, at_most: usize, give: &mut dyn FnMut(&Metric, &[Sample])) {
    let scrape = Scrape::new(status, at_most);
    for metric in METRICS {
        let mut samples = Vec::new();
        let mut put = |labels: &[&str], value| {
            samples.push((labels.iter().map(|label| (*label).to_owned()).collect(), value));
        };
        match metric.values {
            Source::Numbers(numbers) => {
                numbers(&scrape, &mut |labels, number| put(labels, Value::Number(number)));
            }
            Source::Histograms(histograms) => histograms(&scrape, &mut |labels, histogram| {
                put(labels, Value::Histogram(histogram.clone()));
            }),
        }
        if !samples.is_empty() {
            give(metric, &samples);
        }
    }
}

/// The answer to a scrape, in the text format of Prometheus, version 0.0.4.
pub(super) fn text(status: &Status, at_most: usize) -> String {
    let mut text = Vec::new();
    each(status, at_most, &mut |metric, samples| {
        if let Err(error) = TextEncoder::new().encode(&[metric.family(samples)], &mut text) {
            tracing::error!(%error, metric = metric.name, "a metric cannot be written");
        }
    });
    String::from_utf8(text).unwrap_or_default()
}

impl Metric {
    fn family(&self, samples: &[Sample]) -> MetricFamily {
        let sample = |(labels, value): &Sample| {
            let pairs = self.labels.iter().zip(labels).map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value(value.clone());
                pair
            });
            let mut sample = prometheus::proto::Metric::from_label(pairs.collect());
            match (self.kind, value) {
                (Kind::Counter, Value::Number(number)) => {
                    let mut counter = Counter::default();
                    counter.set_value(*number);
                    sample.set_counter(counter);
                }
                (_, Value::Number(number)) => {
                    let mut gauge = Gauge::default();
                    gauge.set_value(*number);
                    sample.set_gauge(gauge);
                }
                (_, Value::Histogram(histogram)) => sample.set_histogram(classes(histogram)),
            }
            sample
        };
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(match self.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(samples.iter().map(sample).collect());
        family
    }
}

/// A histogram as Prometheus has it: each class with those before it, and the one without a bound is their count.
fn classes(histogram: &Histogram) -> proto::Histogram {
    let mut count = 0;
    let mut buckets = Vec::new();
    for class in &histogram.classes {
        count += class.count;
        if let Some(at_most) = class.at_most_seconds {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(at_most);
            bucket.set_cumulative_count(count);
            buckets.push(bucket);
        }
    }
    let mut made = proto::Histogram::default();
    made.set_bucket(buckets);
    made.set_sample_count(count);
    made.set_sample_sum(histogram.sum_seconds);
    made
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::UnixNanos;
    use crate::status::deaths::DeathsStatus;
    use crate::status::document::{Class, DaemonStatus};

    pub(crate) fn container(id: u32, name: &str, received: u64) -> ContainerStatus {
        ContainerStatus {
            id,
            name: name.to_owned(),
            name_source: "id".to_owned(),
            runtime_id: format!("{name}-id"),
            runtime: "containerd".to_owned(),
            cgroup_path: String::new(),
            attributes: BTreeMap::from([("pod-name".to_owned(), "shop".to_owned())]),
            watched_since: Moment(UnixNanos(1_500_000_000)),
            from_birth: true,
            last_event: None,
            quiet: None,
            counters: BTreeMap::from([
                ("received".to_owned(), received),
                ("lost.ring-full".to_owned(), 1),
            ]),
            deaths: BTreeMap::from([("oom-own-limit".to_owned(), 2)]),
            cpu_throttled_seconds: Some(1.5),
        }
    }

    fn status(containers: Vec<ContainerStatus>) -> Status {
        Status {
            name_sources: Vec::new(),
            as_of: Moment(UnixNanos(0)),
            daemon: DaemonStatus {
                missing_capabilities: Vec::new(),
                version: "1".to_owned(),
                contract: "c".to_owned(),
                pid: 1,
                started_at: Moment(UnixNanos(0)),
                scope: "node".to_owned(),
                node_name: "n".to_owned(),
                pod_name: Some("whodunit".to_owned()),
                namespace: Some("default".to_owned()),
                cpu_seconds: 0.5,
                resident_bytes: None,
                longest_standstill_seconds: 0.0,
            },
            containers,
            probes: Vec::new(),
            plugins: Vec::new(),
            outputs: Vec::new(),
            losses: BTreeMap::new(),
            deaths: DeathsStatus {
                containers: BTreeMap::from([("oom-own-limit".to_owned(), 1)]),
                processes: BTreeMap::from([("killed-by-parent".to_owned(), 3)]),
                newest: None,
            },
        }
    }

    #[track_caller]
    fn expect(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }

    #[test]
    fn each_container_has_its_labels_and_numbers() {
        let text = text(&status(vec![container(1, "w\"e\nb", 7)]), 10);
        expect(
            &text,
            "whodunit_container_file_accesses_total{namespace=\"\",pod=\"shop\",\
             container=\"w\\\"e\\nb\",container_id=\"w\\\"e\\nb-id\",phase=\"run\"} 7",
        );
        expect(
            &text,
            "whodunit_container_events_lost_total{namespace=\"\",pod=\"shop\",\
             container=\"w\\\"e\\nb\",container_id=\"w\\\"e\\nb-id\",reason=\"ring-full\"} 1",
        );
        expect(&text, "# TYPE process_cpu_seconds_total counter");
        expect(&text, "process_cpu_seconds_total 0.5");
        assert!(!text.contains("process_resident_memory_bytes"), "{text}");
    }

    #[test]
    fn containers_beyond_the_limit_are_summed_and_counted() {
        let many = (1..=5).map(|id| container(id, &format!("c{id}"), 10));
        let text = text(&status(many.collect()), 2);
        expect(&text, "whodunit_containers 5");
        expect(&text, "whodunit_containers_folded 3");
        expect(
            &text,
            "whodunit_container_file_accesses_total{namespace=\"\",pod=\"\",\
             container=\"(folded)\",container_id=\"\",phase=\"run\"} 30",
        );
        assert!(!text.contains("c3"), "{text}");
    }

    #[test]
    fn the_pod_of_a_sidecar_is_that_of_its_containers() {
        let mut status = status(vec![container(1, "web", 7)]);
        status.daemon.scope = "pod".to_owned();
        status.containers[0].attributes.clear();
        let text = text(&status, 10);
        assert!(
            text.contains("{namespace=\"default\",pod=\"whodunit\",container=\"web\""),
            "{text}"
        );
    }

    #[test]
    fn the_classes_of_a_histogram_add_up() {
        let class = |at_most_seconds, count| Class { at_most_seconds, count };
        let histogram = Histogram {
            classes: vec![class(Some(0.000_01), 2), class(Some(0.1), 3), class(None, 4)],
            sum_seconds: 1.25,
        };
        let metric = METRICS.iter().find(|metric| metric.kind == Kind::Histogram).unwrap();
        let samples = [(vec!["report".to_owned()], Value::Histogram(histogram))];
        let text = TextEncoder::new().encode_to_string(&[metric.family(&samples)]).unwrap();
        expect(&text, "# TYPE whodunit_plugin_call_seconds histogram");
        for (le, count) in [("0.00001", 2), ("0.1", 5), ("+Inf", 9)] {
            let labels = format!("{{plugin=\"report\",le=\"{le}\"}}");
            expect(&text, &format!("whodunit_plugin_call_seconds_bucket{labels} {count}"));
        }
        expect(&text, "whodunit_plugin_call_seconds_sum{plugin=\"report\"} 1.25");
        expect(&text, "whodunit_plugin_call_seconds_count{plugin=\"report\"} 9");
    }

    #[test]
    fn names_follow_the_conventions_and_stand_once() {
        let mut seen = std::collections::BTreeSet::new();
        for metric in METRICS {
            assert!(seen.insert(metric.name), "{}", metric.name);
            let is_counter = metric.kind == Kind::Counter;
            assert_eq!(metric.name.ends_with("_total"), is_counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}

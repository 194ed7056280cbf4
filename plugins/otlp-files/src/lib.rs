//! The files that containers use, as OTLP log records.
//!
//! A reporter: at every tick, each container with files that were not told yet has a record with them, and each that ended one
//! more; together they are one document, a request of OTLP/HTTP in JSON for the path `/v1/logs`. So each file is told once for
//! each container, by an instance. `docs/otlp.md` has every attribute. Never tells of a file that was not used.

use std::collections::{BTreeMap, BTreeSet};

use otlp::record::{Attributes, Record, Severity, list, request};
use otlp::resource;
use serde::Deserialize;
use whodunit_sdk::directory::{self, Container, Surroundings};
use whodunit_sdk::escape::escape;
use whodunit_sdk::{
    Batch, ContainerTotals, Context, Flags, Kind, Outcome, Reporter, Tick, clock, documents,
};

/// The output of the records.
const OUTPUT: &str = "logs";
/// Files in one record at most: receivers have limits of their own.
const FILES_A_RECORD: usize = 1_000;

/// What is a use of a file, as in the JSON report.
const USES: [Kind; 10] = [
    Kind::Open,
    Kind::Exec,
    Kind::Stat,
    Kind::Access,
    Kind::Readlink,
    Kind::Chdir,
    Kind::List,
    Kind::Map,
    Kind::Load,
    Kind::OtherUse,
];

/// The plugin's own table of the TOML.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `service.name` of every resource.
    pub service_name: String,
    /// Paths that are kept for each container; what is beyond is counted and not told.
    pub max_files_per_container: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { service_name: "whodunit".to_owned(), max_files_per_container: 100_000 }
    }
}

/// The reporter.
#[derive(Debug)]
pub struct Files {
    config: Config,
    surroundings: Surroundings,
    containers: BTreeMap<u32, Used>,
    /// Events of any container that did not come here, and were not told yet.
    dropped: u64,
}

/// What a container used.
#[derive(Debug, Default)]
struct Used {
    known: BTreeSet<Vec<u8>>,
    /// Those that were not told yet.
    news: Vec<Vec<u8>>,
    left_out: u64,
}

impl Reporter for Files {
    type Config = Config;

    fn start(_: &Context, config: Config) -> Result<Files, String> {
        let surroundings = directory::surroundings();
        Ok(Files { config, surroundings, containers: BTreeMap::new(), dropped: 0 })
    }

    fn on_batch(&mut self, batch: &Batch) {
        self.dropped += batch.dropped();
        for event in batch.events() {
            // What the runtime did before the container's program is not the program's use, and a pipe has no path.
            let is_use = USES.contains(&event.kind())
                && event.outcome() == Outcome::Used
                && !event.flags().intersects(Flags::SETUP.with(Flags::DETACHED));
            if is_use && !event.path().is_empty() {
                let used = self.containers.entry(event.container()).or_default();
                used.add(event.path(), self.config.max_files_per_container);
            }
        }
    }

    fn on_tick(&mut self, tick: &Tick) -> Result<(), String> {
        let mut resources = Vec::new();
        for totals in tick.containers() {
            let Some(container) = directory::container(totals.container()) else {
                continue;
            };
            if directory::left_out(&container).is_some() {
                self.containers.remove(&container.id);
                continue;
            }
            let records = self.records(tick, totals, &container);
            if !records.is_empty() {
                let service = &self.config.service_name;
                resources
                    .push((resource::of(Some(&container), &self.surroundings, service), records));
            }
        }
        if resources.is_empty() {
            return Ok(());
        }
        self.dropped = 0;
        Ok(documents::emit(OUTPUT, &request(resources))?)
    }
}

impl Files {
    /// What there is to tell of a container.
    fn records(
        &mut self,
        tick: &Tick,
        totals: &ContainerTotals,
        container: &Container,
    ) -> Vec<Record> {
        let used = self.containers.entry(container.id).or_default();
        let news = std::mem::take(&mut used.news);
        let lost: u64 = totals
            .counters()
            .filter(|(name, _)| name.starts_with("lost."))
            .map(|(_, count)| count)
            .sum();
        let about = |files: usize| {
            Attributes::new()
                .number("whodunit.files.new", files as u64)
                .number("whodunit.files.total", used.known.len() as u64)
                .number("whodunit.files.left_out", used.left_out)
                .number("whodunit.events.received", totals.counter("received"))
                .number("whodunit.events.lost", lost)
                .number("whodunit.events.dropped", self.dropped)
                .flag("whodunit.container.from_birth", totals.from_birth())
        };
        let record = |event: &'static str, time: u64, files: &[Vec<u8>]| {
            let paths: Vec<_> = files.iter().map(|path| escape(path)).collect();
            let (count, body) = list(paths.iter().map(AsRef::as_ref));
            Record {
                time,
                observed: clock::now(),
                severity: Severity::Info,
                event,
                body,
                attributes: about(count),
            }
        };
        let pieces = news.chunks(FILES_A_RECORD);
        let mut records: Vec<Record> =
            pieces.map(|files| record("whodunit.container.files", tick.time(), files)).collect();
        if let Some(ended) = totals.ended() {
            records.push(record("whodunit.container.end", ended, &[]));
            self.containers.remove(&container.id);
        }
        records
    }
}

impl Used {
    fn add(&mut self, path: &[u8], at_most: usize) {
        if self.known.contains(path) {
            return;
        }
        if self.known.len() >= at_most {
            self.left_out += 1;
            return;
        }
        self.known.insert(path.to_owned());
        self.news.push(path.to_owned());
    }
}

whodunit_sdk::export_reporter!(Files);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use whodunit_sdk::testing::{BatchBuilder, Harness, TickBuilder, container};

    use super::*;

    fn harness(config: &str) -> Harness<Files> {
        let setup = Harness::<Files>::new().config(config).outputs(&[OUTPUT]);
        setup.container(container(1, "web")).container(container(2, "db")).start().unwrap()
    }

    /// The newest document, as container, event and files.
    fn told(harness: &Harness<Files>) -> Vec<(String, String, Vec<String>)> {
        let document: Value = serde_json::from_slice(&harness.document(OUTPUT).unwrap()).unwrap();
        let resources = document["resourceLogs"].as_array().unwrap();
        let of_resource = |resource: &Value| {
            let attributes = resource["resource"]["attributes"].as_array().unwrap();
            let name = attributes.iter().find(|it| it["key"] == "container.name").unwrap();
            let name = name["value"]["stringValue"].as_str().unwrap().to_owned();
            let records = resource["scopeLogs"][0]["logRecords"].as_array().unwrap().clone();
            records.into_iter().map(move |record| {
                let files = record["body"]["arrayValue"]["values"].as_array().unwrap();
                let files =
                    files.iter().map(|file| file["stringValue"].as_str().unwrap().to_owned());
                (name.clone(), record["eventName"].as_str().unwrap().to_owned(), files.collect())
            })
        };
        resources.iter().flat_map(of_resource).collect()
    }

    fn files(name: &str, files: &[&str]) -> (String, String, Vec<String>) {
        let files = files.iter().map(|file| (*file).to_owned()).collect();
        (name.to_owned(), "whodunit.container.files".to_owned(), files)
    }

    #[test]
    fn each_file_is_told_once_at_the_tick_after_its_first_use() {
        let mut harness = harness("{}");
        let tick = || TickBuilder::new().container(1, &[("received", 9)]).container(2, &[]);
        let batch = BatchBuilder::new().open(1, "/a").open(1, "/b").open(2, b"/\xff").open(1, "/a");
        harness.batch(batch.open(1, "/none").failed(2).build());
        harness.tick(tick().build()).unwrap();
        assert_eq!(told(&harness), [files("web", &["/a", "/b"]), files("db", &["/\\xff"])]);
        harness.batch(BatchBuilder::new().open(1, "/a").open(1, "/c").build());
        harness.tick(tick().build()).unwrap();
        assert_eq!(told(&harness), [files("web", &["/c"])]);
        harness.tick(tick().build()).unwrap();
        assert_eq!(told(&harness), [files("web", &["/c"])], "nothing new is no document");
    }

    #[test]
    fn the_end_of_a_container_is_told_with_its_last_files_and_totals() {
        let mut harness = harness("{\"service_name\": \"mine\"}");
        harness.batch(BatchBuilder::new().open(1, "/a").dropped(4).build());
        let tick = TickBuilder::new().container(1, &[("received", 5), ("lost.ring-full", 2)]);
        harness.tick(tick.ended(77).build()).unwrap();
        let end = ("web".to_owned(), "whodunit.container.end".to_owned(), Vec::new());
        assert_eq!(told(&harness), [files("web", &["/a"]), end]);
        let document: Value = serde_json::from_slice(&harness.document(OUTPUT).unwrap()).unwrap();
        let end = &document["resourceLogs"][0]["scopeLogs"][0]["logRecords"][1];
        assert_eq!(end["timeUnixNano"], "77");
        for (key, value) in [
            ("whodunit.events.received", "5"),
            ("whodunit.events.lost", "2"),
            ("whodunit.events.dropped", "4"),
            ("whodunit.files.total", "1"),
        ] {
            let expected = json!({ "key": key, "value": { "intValue": value } });
            assert!(end["attributes"].as_array().unwrap().contains(&expected), "{key}: {end:#}");
        }
        assert!(document.to_string().contains("{\"stringValue\":\"mine\"}"), "{document}");
    }

    #[test]
    fn many_files_are_several_records_and_those_beyond_the_limit_are_counted() {
        let mut harness = harness("{\"max_files_per_container\": 2500}");
        let batch = (0..3_000)
            .fold(BatchBuilder::new(), |batch, number| batch.open(1, format!("/{number}")));
        harness.batch(batch.build());
        harness.tick(TickBuilder::new().container(1, &[]).build()).unwrap();
        let lengths: Vec<usize> = told(&harness).iter().map(|(_, _, files)| files.len()).collect();
        assert_eq!(lengths, [1_000, 1_000, 500]);
        let document = String::from_utf8(harness.document(OUTPUT).unwrap()).unwrap();
        assert!(document.contains("\"whodunit.files.left_out\",\"value\":{\"intValue\":\"500\"}"));
    }
}

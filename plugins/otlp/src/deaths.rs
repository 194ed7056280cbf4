//! The explainer that tells: each death becomes one record.

use death_explainer::DeathExplainer;
use serde::Deserialize;
use whodunit_sdk::death::{Actor, WaitStatus};
use whodunit_sdk::directory::{self, Surroundings};
use whodunit_sdk::{Context, Death, Explainer, Explanation, NoConfig, clock, documents, warn};

use crate::record::{Attributes, Record, Severity, request, text};
use crate::resource;

/// The output of the records.
const OUTPUT: &str = "logs";

/// The plugin's own table of the TOML.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `service.name` of every resource.
    pub service_name: String,
    /// Whether processes that die in a container that goes on are told too.
    pub processes: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config { service_name: "whodunit".to_owned(), processes: true }
    }
}

/// The explainer.
#[derive(Debug)]
pub struct Deaths {
    config: Config,
    surroundings: Surroundings,
    explainer: DeathExplainer,
}

impl Explainer for Deaths {
    type Config = Config;

    fn start(context: &Context, config: Config) -> Result<Deaths, String> {
        let explainer = DeathExplainer::start(context, NoConfig {})?;
        Ok(Deaths { config, surroundings: directory::surroundings(), explainer })
    }

    fn explain(&mut self, death: &Death) -> Result<Explanation, String> {
        let explanation = self.explainer.explain(death)?;
        if death.container_died() || self.config.processes {
            let container = directory::container(death.container_id());
            let resource =
                resource::of(container.as_ref(), &self.surroundings, &self.config.service_name);
            let document = request(vec![(resource, vec![record(death, &explanation)])]);
            if let Err(refusal) = documents::emit(OUTPUT, &document) {
                warn!("a death is not told: {}", String::from(refusal));
            }
        }
        Ok(explanation)
    }
}

/// What is told of a death.
fn record(death: &Death, explanation: &Explanation) -> Record {
    let process = death.process();
    let (code, signal) = match death.status() {
        WaitStatus::Exited(code) => (Some(u64::from(code)), None),
        WaitStatus::Killed { signal, .. } => (None, Some(u64::from(signal))),
    };
    let sender = death.decided_by().and_then(|(_, signal)| match signal.sender {
        Actor::Process(party) => Some((party, signal.relation)),
        Actor::Kernel | Actor::Unknown => None,
    });
    let mut attributes = Attributes::new()
        .number("process.pid", u64::from(process.pid))
        .number("process.vpid", death.namespace_pid().map(u64::from))
        .text("process.executable.name", process.name)
        .text("process.executable.path", process.program)
        .number("process.exit.code", code)
        .number("whodunit.death.signal", signal)
        .text("whodunit.death.verdict", explanation.verdict.as_str())
        .number("whodunit.death.confidence", u64::from(explanation.confidence))
        .text("whodunit.death.explanation", explanation.explanation.as_str())
        .texts("whodunit.death.advice", explanation.advice.iter().map(String::as_str))
        .texts("whodunit.death.missing", explanation.missing.iter().map(String::as_str));
    if let Some((party, relation)) = sender {
        attributes = attributes
            .number("whodunit.death.sender.pid", u64::from(party.pid))
            .text("whodunit.death.sender.name", party.name)
            .text("whodunit.death.sender.container", party.container)
            .text("whodunit.death.sender.relation", relation.word());
    }
    Record {
        time: death.time(),
        observed: clock::now(),
        severity: match (death.container_died(), code) {
            (_, Some(0)) => Severity::Info,
            (true, _) => Severity::Error,
            (false, _) => Severity::Warn,
        },
        event: match death.container_died() {
            true => "whodunit.container.death",
            false => "whodunit.process.death",
        },
        body: text(&explanation.headline),
        attributes,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use whodunit_sdk::death::{Disposition, Relation};
    use whodunit_sdk::testing::{self, DeathBuilder, explainer};

    use super::*;

    fn told(config: &str, death: &Death) -> (Explanation, Option<Value>) {
        let mut plugin = explainer::<Deaths>(config).unwrap();
        testing::put_container(testing::container(1, "web"));
        let explanation = plugin.explain(death).unwrap();
        let document = testing::emitted(OUTPUT);
        (explanation, document.map(|it| serde_json::from_slice(&it).unwrap()))
    }

    fn record_of(document: &Value) -> &Value {
        &document["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    }

    fn value<'a>(record: &'a Value, key: &str) -> &'a Value {
        let attributes = record["attributes"].as_array().unwrap();
        let found = attributes.iter().find(|attribute| attribute["key"] == key);
        found.map_or(&Value::Null, |attribute| &attribute["value"])
    }

    #[test]
    fn a_container_that_was_killed_is_told_with_its_verdict_and_who_did_it() {
        let death = DeathBuilder::killed(9)
            .container_init()
            .signal(1_000, 9, Disposition::Default, Relation::Runtime)
            .by(77, "runc")
            .decides()
            .build();
        let (explanation, document) = told("{}", &death);
        let document = document.unwrap();
        let record = record_of(&document);
        assert_eq!(record["eventName"], "whodunit.container.death");
        assert_eq!(
            (&record["severityNumber"], &record["severityText"]),
            (&17.into(), &"ERROR".into())
        );
        assert_eq!(record["timeUnixNano"], death.time().to_string());
        assert_eq!(record["body"]["stringValue"], explanation.headline);
        for (key, expected) in [
            ("whodunit.death.verdict", explanation.verdict.as_str()),
            ("whodunit.death.sender.name", "runc"),
            ("whodunit.death.sender.relation", "runtime"),
            ("process.executable.name", "app"),
        ] {
            assert_eq!(value(record, key)["stringValue"], expected, "{key}");
        }
        assert_eq!(value(record, "whodunit.death.signal")["intValue"], "9");
        assert_eq!(value(record, "process.pid")["intValue"], "100");
        assert_eq!(value(record, "process.exit.code"), &Value::Null);
        let resource = document["resourceLogs"][0]["resource"].to_string();
        assert!(
            resource.contains("\"container.name\",\"value\":{\"stringValue\":\"web\"}"),
            "{resource}"
        );
    }

    #[test]
    fn an_end_with_code_0_is_no_error_and_a_process_is_told_only_where_it_is_asked_for() {
        let (_, document) = told("{}", &DeathBuilder::exited(0).container_init().build());
        assert_eq!(record_of(&document.unwrap())["severityText"], "INFO");
        let process = DeathBuilder::exited(3).build();
        let (_, document) = told("{}", &process);
        let document = document.unwrap();
        let record = record_of(&document);
        assert_eq!(
            (&record["severityText"], &record["eventName"]),
            (&"WARN".into(), &"whodunit.process.death".into())
        );
        assert_eq!(value(record, "process.exit.code")["intValue"], "3");
        let (explanation, document) = told("{\"processes\": false}", &process);
        assert_eq!((explanation.verdict.as_str(), document), ("application-error", None));
    }
}

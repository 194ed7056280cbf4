//! A death as a log record of OTLP. `docs/otlp.md` has every attribute; `builtin:otlp` gives the same ones.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::resource::{Attributes, any};
use super::scope;
use crate::death::explanation::{ExplainedDeath, Explanation};
use crate::death::record::{DeathRecord, Fact, Sender, Subject, WaitStatus};
use crate::kernel::real_time_ns;

/// What is told of a death, of that resource.
pub(super) fn resource_logs(resource: Resource, death: &ExplainedDeath) -> ResourceLogs {
    let logs = ScopeLogs {
        scope: Some(scope()),
        log_records: vec![record(death)],
        ..ScopeLogs::default()
    };
    ResourceLogs { resource: Some(resource), scope_logs: vec![logs], ..ResourceLogs::default() }
}

fn record(explained: &ExplainedDeath) -> LogRecord {
    let ExplainedDeath { death, explanation } = explained;
    let (severity, severity_text) = severity_of(death);
    let headline = match explanation {
        Explanation::Explained(answer) => &answer.headline,
        Explanation::Unexplained { reason } => reason,
    };
    LogRecord {
        time_unix_nano: death.time_ns,
        observed_time_unix_nano: real_time_ns(),
        severity_number: severity.into(),
        severity_text: severity_text.to_owned(),
        event_name: match death.subject {
            Subject::Container => "whodunit.container.death".to_owned(),
            Subject::Process => "whodunit.process.death".to_owned(),
        },
        body: Some(any(Value::StringValue(headline.clone()))),
        attributes: told(explanation, of_sender(death, of_process(death))).0,
        ..LogRecord::default()
    }
}

/// A container that ends by itself with success did what it should; a process is told only where it did not.
fn severity_of(death: &DeathRecord) -> (SeverityNumber, &'static str) {
    match (death.subject, death.status) {
        (_, WaitStatus::Exited { code: 0 }) => (SeverityNumber::Info, "INFO"),
        (Subject::Container, _) => (SeverityNumber::Error, "ERROR"),
        (Subject::Process, _) => (SeverityNumber::Warn, "WARN"),
    }
}

fn of_process(death: &DeathRecord) -> Attributes {
    let (code, signal) = match death.status {
        WaitStatus::Exited { code } => (Some(u64::from(code)), None),
        WaitStatus::Killed { signal, .. } => (None, Some(u64::from(signal))),
    };
    let process = &death.process;
    Attributes::default()
        .number("process.pid", Some(u64::from(process.pid)))
        .number("process.vpid", process.namespace_pid.map(u64::from))
        .text("process.executable.name", process.comm.as_str())
        .maybe("process.executable.path", process.exe.as_deref())
        .number("process.exit.code", code)
        .number("whodunit.death.signal", signal)
}

/// Who sent the signal that ended it.
fn of_sender(death: &DeathRecord, attributes: Attributes) -> Attributes {
    let decided_by = death.decided_by.and_then(|index| death.evidence.get(index as usize));
    let Some(Fact::Signal(signal)) = decided_by.map(|evidence| &evidence.fact) else {
        return attributes;
    };
    let Sender::Process(party) = &signal.sender else {
        return attributes;
    };
    attributes
        .number("whodunit.death.sender.pid", Some(u64::from(party.pid)))
        .text("whodunit.death.sender.name", party.comm.as_str())
        .maybe("whodunit.death.sender.container", party.container.as_deref())
        .text("whodunit.death.sender.relation", signal.relation.name())
}

/// What was made of it.
fn told(explanation: &Explanation, attributes: Attributes) -> Attributes {
    let Explanation::Explained(answer) = explanation else {
        return attributes;
    };
    attributes
        .text("whodunit.death.verdict", answer.verdict.as_str())
        .number("whodunit.death.confidence", Some(u64::from(answer.confidence)))
        .text("whodunit.death.explanation", answer.explanation.as_str())
        .texts("whodunit.death.advice", answer.advice.iter().map(String::as_str))
        .texts("whodunit.death.missing", answer.missing.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::death::history::tests::death;

    #[test]
    fn how_bad_a_death_is_depends_on_who_died_and_how() {
        let check = |subject: Subject, status: WaitStatus, expected: &str| {
            let mut death = death("/a", subject, 1);
            death.death.status = status;
            assert_eq!(record(&death).severity_text, expected, "{subject:?} {status:?}");
        };
        let killed = WaitStatus::Killed { signal: 9, core_dumped: false };
        check(Subject::Container, WaitStatus::Exited { code: 0 }, "INFO");
        check(Subject::Container, WaitStatus::Exited { code: 1 }, "ERROR");
        check(Subject::Container, killed, "ERROR");
        check(Subject::Process, killed, "WARN");
    }

    #[test]
    fn a_death_that_nobody_explained_is_told_with_the_reason_and_without_a_verdict() {
        let mut death = death("/a", Subject::Container, 1);
        death.explanation = Explanation::Unexplained { reason: "there is none".to_owned() };
        let record = record(&death);
        let body = record.body.and_then(|body| body.value);
        assert_eq!(body, Some(Value::StringValue("there is none".to_owned())));
        assert!(record.attributes.iter().all(|it| it.key != "whodunit.death.verdict"));
    }

    /// The names in quotes of a file, or in backquotes of a page, that are attributes, events or variables.
    fn names(path: &str, quote: char) -> BTreeSet<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let known =
            ["service.", "host.name", "process.", "container.", "k8s.", "whodunit.", "OTEL_"];
        let is_name = |word: &&str| {
            known.iter().any(|start| word.starts_with(start))
                && word.chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c))
                && !word.ends_with(".rs")
        };
        code.split(quote).filter(is_name).map(str::to_owned).collect()
    }

    #[test]
    fn the_page_names_what_is_told_and_nothing_else() {
        let ours = [
            "host/src/telemetry/deaths.rs",
            "host/src/telemetry/resource.rs",
            "host/src/telemetry/environment.rs",
            "plugins/otlp/src/deaths.rs",
            "plugins/otlp/src/resource.rs",
            "plugins/otlp-files/src/lib.rs",
        ];
        let told: BTreeSet<String> = ours.iter().flat_map(|path| names(path, '"')).collect();
        let page = names("docs/otlp.md", '`');
        // Names of variables are put together in code, and the page shortens those of a sender.
        let is_whole = |name: &&String| {
            !name.starts_with("OTEL_") && !name.starts_with("whodunit.death.sender.")
        };
        let [told, page] = [&told, &page]
            .map(|names| names.iter().filter(is_whole).cloned().collect::<BTreeSet<String>>());
        assert_eq!(page, told);
    }

    #[test]
    fn the_daemon_and_the_plugin_tell_the_same_of_a_death() {
        let of = |path| {
            let names = names(path, '"').into_iter();
            names.filter(|name| !name.starts_with("service.")).collect::<BTreeSet<_>>()
        };
        assert_eq!(of("host/src/telemetry/deaths.rs"), of("plugins/otlp/src/deaths.rs"));
        let mut of_daemon = of("host/src/telemetry/resource.rs");
        // Of the resource that is the daemon itself.
        of_daemon.remove("process.pid");
        assert_eq!(of_daemon, of("plugins/otlp/src/resource.rs"));
    }
}

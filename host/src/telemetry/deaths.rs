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

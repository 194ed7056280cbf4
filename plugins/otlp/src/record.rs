//! Log records, attributes and requests, in the JSON of OTLP.
//!
//! 64-bit numbers are decimal text there, and what has no value is left out
//! (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>).

use serde_json::{Map, Value, json};

/// How bad what a record tells of is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Info,
    /// Somebody may want to look.
    Warn,
    /// Somebody should look.
    Error,
}

impl Severity {
    /// The number of the data model.
    pub const fn number(self) -> u8 {
        match self {
            Severity::Info => 9,
            Severity::Warn => 13,
            Severity::Error => 17,
        }
    }

    /// Its short name.
    pub const fn text(self) -> &'static str {
        match self {
            Severity::Info => "INFO",
            Severity::Warn => "WARN",
            Severity::Error => "ERROR",
        }
    }
}

/// Attributes in their order. What is empty is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes(Vec<Value>);

impl Attributes {
    /// None yet.
    pub fn new() -> Attributes {
        Attributes::default()
    }

    /// Adds text, where there is any.
    #[must_use]
    pub fn text<'a>(self, key: &str, value: impl Into<Option<&'a str>>) -> Attributes {
        match value.into() {
            Some(value) if !value.is_empty() => self.with(key, text(value)),
            Some(_) | None => self,
        }
    }

    /// Adds a number, where there is one.
    #[must_use]
    pub fn number(self, key: &str, value: impl Into<Option<u64>>) -> Attributes {
        match value.into() {
            Some(value) => self.with(key, json!({ "intValue": value.to_string() })),
            None => self,
        }
    }

    /// Adds yes or no.
    #[must_use]
    pub fn flag(self, key: &str, value: bool) -> Attributes {
        self.with(key, json!({ "boolValue": value }))
    }

    /// Adds a list of texts, where there are any.
    #[must_use]
    pub fn texts<'a>(self, key: &str, values: impl IntoIterator<Item = &'a str>) -> Attributes {
        match list(values) {
            (0, _) => self,
            (_, list) => self.with(key, list),
        }
    }

    fn with(mut self, key: &str, value: Value) -> Attributes {
        self.0.push(json!({ "key": key, "value": value }));
        self
    }
}

/// Text as a value.
pub fn text(value: &str) -> Value {
    json!({ "stringValue": value })
}

/// Texts as a value, and how many they are.
pub fn list<'a>(values: impl IntoIterator<Item = &'a str>) -> (usize, Value) {
    let values: Vec<Value> = values.into_iter().map(text).collect();
    (values.len(), json!({ "arrayValue": { "values": values } }))
}

/// One log record.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// When it happened, in nanoseconds since the Unix epoch.
    pub time: u64,
    /// When it was told, likewise.
    pub observed: u64,
    /// How bad it is.
    pub severity: Severity,
    /// Name of the event: what kind of thing happened.
    pub event: &'static str,
    /// What happened: a value, as [`text`] and [`list`] make it.
    pub body: Value,
    /// What else is known of it.
    pub attributes: Attributes,
}

impl Record {
    fn json(self) -> Value {
        let mut record = Map::new();
        let mut set = |key: &str, value: Value| record.insert(key.to_owned(), value);
        set("timeUnixNano", self.time.to_string().into());
        set("observedTimeUnixNano", self.observed.to_string().into());
        set("severityNumber", self.severity.number().into());
        set("severityText", self.severity.text().into());
        set("eventName", self.event.into());
        set("body", self.body);
        set("attributes", self.attributes.0.into());
        Value::Object(record)
    }
}

/// The body of a request for `/v1/logs`: records by what they are about.
pub fn request(resources: Vec<(Attributes, Vec<Record>)>) -> Vec<u8> {
    let scope = json!({ "name": "whodunit", "version": env!("CARGO_PKG_VERSION") });
    let of_resource = |(resource, records): (Attributes, Vec<Record>)| {
        let records: Vec<Value> = records.into_iter().map(Record::json).collect();
        json!({
            "resource": { "attributes": resource.0 },
            "scopeLogs": [{ "scope": scope, "logRecords": records }],
        })
    };
    let resources: Vec<Value> = resources.into_iter().map(of_resource).collect();
    json!({ "resourceLogs": resources }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_text_and_what_is_empty_is_left_out() {
        let attributes = Attributes::new()
            .text("a", "x")
            .text("b", "")
            .text("c", None)
            .number("d", u64::MAX)
            .number("e", None)
            .flag("f", false)
            .texts("g", ["y", "z"])
            .texts("h", []);
        let record = Record {
            time: 1,
            observed: u64::MAX,
            severity: Severity::Error,
            event: "an.event",
            body: text("it happened"),
            attributes,
        };
        let request = request(vec![(Attributes::new().text("service.name", "s"), vec![record])]);
        let request: Value = serde_json::from_slice(&request).unwrap();
        let resource = &request["resourceLogs"][0];
        assert_eq!(
            resource["resource"]["attributes"],
            json!([{ "key": "service.name", "value": { "stringValue": "s" } }])
        );
        assert_eq!(resource["scopeLogs"][0]["scope"]["name"], "whodunit");
        assert_eq!(
            resource["scopeLogs"][0]["logRecords"],
            json!([{
                "timeUnixNano": "1",
                "observedTimeUnixNano": "18446744073709551615",
                "severityNumber": 17,
                "severityText": "ERROR",
                "eventName": "an.event",
                "body": { "stringValue": "it happened" },
                "attributes": [
                    { "key": "a", "value": { "stringValue": "x" } },
                    { "key": "d", "value": { "intValue": "18446744073709551615" } },
                    { "key": "f", "value": { "boolValue": false } },
                    { "key": "g", "value": { "arrayValue": { "values": [
                        { "stringValue": "y" }, { "stringValue": "z" },
                    ] } } },
                ],
            }])
        );
    }
}

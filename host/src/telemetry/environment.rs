//! What the standard variables of OpenTelemetry say
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/> and `/protocol/exporter/`).
//!
//! Takes variables by name and gives a plan. A value that cannot be used is told in the log and is as if it were not there: that
//! is what the specification asks for, and no reason not to watch containers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{HttpOutput, Url};

/// How often metrics are told where nobody says otherwise.
const INTERVAL: Duration = Duration::from_secs(60);
/// How long metrics are tried again at least: those that come after them say more.
const LEAST_RETRY: Duration = Duration::from_secs(1);
/// Metrics that wait at most, in bytes.
const METRICS_BYTES: usize = 8 << 20;

/// What the daemon tells over OTLP, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where metrics go. None: nowhere.
    pub metrics: Option<HttpOutput>,
    /// Where deaths go. None: nowhere.
    pub deaths: Option<HttpOutput>,
    /// How often metrics are told.
    pub interval: Duration,
    /// Attributes of every resource, which win over those that the daemon finds.
    pub resource: Vec<(String, String)>,
}

impl Plan {
    /// Nothing goes anywhere.
    pub fn off() -> Plan {
        Plan { metrics: None, deaths: None, interval: INTERVAL, resource: Vec::new() }
    }

    /// The plan of these variables. Without an endpoint among them nothing goes anywhere.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Plan {
        let variables = Variables { variable: &variable };
        if variables.is("OTEL_SDK_DISABLED", "true") {
            return Plan::off();
        }
        let interval = variables.milliseconds("OTEL_METRIC_EXPORT_INTERVAL").unwrap_or(INTERVAL);
        let metrics = variables.signal("METRICS", "v1/metrics").map(|http| HttpOutput {
            retry_for: interval.max(LEAST_RETRY),
            queue_bytes: METRICS_BYTES,
            ..http
        });
        let deaths = variables.signal("LOGS", "v1/logs");
        let mut resource = variables.pairs("OTEL_RESOURCE_ATTRIBUTES");
        // It wins over the attribute of that name.
        if let Some(name) = variables.text("OTEL_SERVICE_NAME") {
            resource.insert("service.name".to_owned(), name);
        }
        Plan { metrics, deaths, interval, resource: resource.into_iter().collect() }
    }
}

/// The environment.
struct Variables<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Variables<'_> {
    /// The value of a variable. An empty one is as if it were not set.
    fn text(&self, name: &str) -> Option<String> {
        (self.variable)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn is(&self, name: &str, word: &str) -> bool {
        self.text(name).is_some_and(|value| value.eq_ignore_ascii_case(word))
    }

    /// What is set for one signal, or else for all of them, with the variable that says so.
    fn of_signal(&self, signal: &str, what: &str) -> Option<(String, String)> {
        let names =
            [format!("OTEL_EXPORTER_OTLP_{signal}_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
        names.into_iter().find_map(|name| self.text(&name).map(|value| (name, value)))
    }

    /// Where a signal goes.
    fn signal(&self, signal: &str, path: &str) -> Option<HttpOutput> {
        if self.is(&format!("OTEL_{signal}_EXPORTER"), "none") {
            return None;
        }
        let url = self.endpoint(signal, path)?;
        if let Some((name, protocol)) = self.of_signal(signal, "PROTOCOL")
            && protocol != "http/protobuf"
        {
            ignored(&name, &protocol, "this daemon speaks http/protobuf alone, and sends that");
        }
        if let Some((name, compression)) = self.of_signal(signal, "COMPRESSION")
            && compression != "none"
        {
            ignored(&name, &compression, "this daemon sends requests as they are");
        }
        let default = HttpOutput::new(url);
        let headers = self.of_signal(signal, "HEADERS").map(|(name, _)| self.pairs(&name));
        let timeout =
            self.of_signal(signal, "TIMEOUT").and_then(|(name, _)| self.milliseconds(&name));
        let authorities =
            self.of_signal(signal, "CERTIFICATE").map(|(_, path)| PathBuf::from(path));
        Some(HttpOutput {
            headers: headers.unwrap_or_default(),
            content_type: Some("application/x-protobuf".to_owned()),
            ca_file: authorities.filter(|_| default.url.is_secure()),
            timeout: timeout.unwrap_or(default.timeout),
            ..default
        })
    }

    /// The endpoint of a signal as it is, or the one of all signals with the signal's path behind it.
    fn endpoint(&self, signal: &str, path: &str) -> Option<Url> {
        let (name, value) = self.of_signal(signal, "ENDPOINT")?;
        let url = match name == "OTEL_EXPORTER_OTLP_ENDPOINT" {
            true => format!("{}/{path}", value.trim_end_matches('/')),
            false => value.clone(),
        };
        Url::read(&url)
            .inspect_err(|mismatch| {
                ignored(&name, &value, &format!("expected {}", mismatch.expected))
            })
            .ok()
    }

    fn milliseconds(&self, name: &str) -> Option<Duration> {
        let value = self.text(name)?;
        match value.parse() {
            Ok(milliseconds) if milliseconds > 0 => Some(Duration::from_millis(milliseconds)),
            Ok(_) | Err(_) => {
                ignored(name, &value, "expected a number of milliseconds above 0");
                None
            }
        }
    }

    /// A list such as `key1=value1,key2=value2`, with `%XX` for what may not stand there.
    fn pairs(&self, name: &str) -> BTreeMap<String, String> {
        let value = self.text(name).unwrap_or_default();
        let mut pairs = BTreeMap::new();
        for pair in value.split(',').filter(|pair| !pair.trim().is_empty()) {
            let decoded = pair
                .split_once('=')
                .and_then(|(key, value)| Some((decoded(key.trim())?, decoded(value.trim())?)));
            match decoded {
                Some((key, value)) if !key.is_empty() => {
                    pairs.insert(key, value);
                }
                // What stands there may be a secret.
                Some(_) | None => {
                    ignored(name, "(not shown)", "expected a list such as key1=value1,key2=value2");
                }
            }
        }
        pairs
    }
}

/// Text with `%XX` as the bytes that they stand for. None where that is no UTF-8, or no such code.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = behind;
            continue;
        }
        let digit = |index: usize| char::from(*behind.get(index)?).to_digit(16);
        bytes.push(u8::try_from(digit(0)? * 16 + digit(1)?).ok()?);
        rest = &behind[2..];
    }
    String::from_utf8(bytes).ok()
}

fn ignored(name: &str, value: &str, why: &str) {
    tracing::warn!("the variable {name} is {value:?}, which is left out: {why}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(variables: &[(&str, &str)]) -> Plan {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Plan::read(find)
    }

    fn urls(plan: &Plan) -> [Option<String>; 2] {
        [&plan.metrics, &plan.deaths].map(|http| http.as_ref().map(|http| http.url.to_string()))
    }

    #[test]
    fn without_an_endpoint_and_where_it_is_switched_off_nothing_is_told() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318");
        for variables in [
            &[][..],
            &[("OTEL_SERVICE_NAME", "x")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            &[endpoint, ("OTEL_SDK_DISABLED", "TRUE")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "a:4318")],
            &[endpoint, ("OTEL_METRICS_EXPORTER", "none"), ("OTEL_LOGS_EXPORTER", "none")],
        ] {
            assert_eq!(urls(&plan(variables)), [None, None], "{variables:?}");
        }
        let one = plan(&[endpoint, ("OTEL_METRICS_EXPORTER", "none")]);
        assert_eq!(urls(&one), [None, Some("http://a:4318/v1/logs".to_owned())]);
    }

    #[test]
    fn an_endpoint_gets_the_path_of_each_signal_and_one_of_a_signal_is_as_it_is() {
        let plan = plan(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318/base/"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://b/x"),
        ]);
        let expected = ["http://a:4318/base/v1/metrics", "https://b/x"];
        assert_eq!(urls(&plan), expected.map(|url| Some(url.to_owned())));
    }

    #[test]
    fn headers_times_and_attributes_are_read_and_those_of_a_signal_win() {
        let plan = plan(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://a"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x = y ,bad,"),
            ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "only=logs"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
            ("OTEL_SERVICE_NAME", "mine"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=theirs,deployment.environment.name=prod"),
        ]);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(plan.interval, Duration::from_millis(500));
        assert_eq!(
            plan.resource,
            [pair("deployment.environment.name", "prod"), pair("service.name", "mine")]
        );
        let (metrics, logs) = (plan.metrics.unwrap(), plan.deaths.unwrap());
        assert_eq!(metrics.headers, [pair("api-key", "a b"), pair("x", "y")].into());
        assert_eq!(logs.headers, [pair("only", "logs")].into());
        assert_eq!(
            (metrics.timeout, logs.timeout),
            (Duration::from_secs(10), Duration::from_millis(2500))
        );
        assert_eq!(metrics.retry_for, Duration::from_secs(1));
        assert_eq!(logs.ca_file, Some(PathBuf::from("/ca.pem")));
        assert_eq!(logs.content_type.as_deref(), Some("application/x-protobuf"));
    }

    #[test]
    fn codes_stand_for_bytes() {
        assert_eq!(decoded("a%2Cb%C3%BC").as_deref(), Some("a,bü"));
        for wrong in ["%", "%2", "%zz", "%ff", "%+1"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}

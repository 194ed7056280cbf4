//! The metrics of `docs/metrics.md` as those of OTLP, under the same names.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::resource::Attributes;
use super::scope;
use crate::http::{self, MetricKind};
use crate::kernel::real_time_ns;
use crate::status::Status;

/// The metrics of a status, of that resource. `at_most` containers have metrics of their own.
pub(super) fn resource_metrics(
    resource: Resource,
    status: &Status,
    at_most: usize,
) -> ResourceMetrics {
    let (began, now) = (status.daemon.started_at.0.0, real_time_ns());
    let mut metrics = Vec::new();
    http::each_metric(status, at_most, &mut |metric, samples| {
        let points = samples.iter().map(|(labels, value)| {
            let labels = metric.labels.iter().zip(labels);
            let attributes = labels.fold(Attributes::default(), |attributes, (name, value)| {
                attributes.text(name, value.as_str())
            });
            NumberDataPoint {
                attributes: attributes.0,
                // What a gauge says, it says of one moment.
                start_time_unix_nano: if metric.kind == MetricKind::Counter { began } else { 0 },
                time_unix_nano: now,
                value: Some(Value::AsDouble(*value)),
                ..NumberDataPoint::default()
            }
        });
        let data_points = points.collect();
        metrics.push(Metric {
            name: metric.name.to_owned(),
            description: metric.help.to_owned(),
            unit: unit_of(metric.name).to_owned(),
            data: Some(match metric.kind {
                MetricKind::Gauge => Data::Gauge(Gauge { data_points }),
                MetricKind::Counter => Data::Sum(Sum {
                    data_points,
                    aggregation_temporality: AggregationTemporality::Cumulative.into(),
                    is_monotonic: true,
                }),
            }),
            ..Metric::default()
        });
    });
    let metrics = ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() };
    ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![metrics],
        ..ResourceMetrics::default()
    }
}

/// The unit that a name ends with, as UCUM has it.
fn unit_of(name: &str) -> &'static str {
    let name = name.trim_end_matches("_total");
    match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        Some(_) | None => "1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_the_names() {
        for (name, unit) in [
            ("process_cpu_seconds_total", "s"),
            ("process_resident_memory_bytes", "By"),
            ("whodunit_plugin_calls_total", "1"),
        ] {
            assert_eq!(unit_of(name), unit, "{name}");
        }
    }
}

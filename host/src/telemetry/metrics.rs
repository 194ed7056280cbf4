//! The metrics of `docs/metrics.md` as those of OTLP, under the same names.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::resource::Attributes;
use super::scope;
use crate::http::{self, MetricKind, MetricValue};
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
        let points = Points { labels: metric.labels, samples, now };
        metrics.push(Metric {
            name: metric.name.to_owned(),
            description: metric.help.to_owned(),
            unit: unit_of(metric.name).to_owned(),
            data: Some(match metric.kind {
                // What a gauge says, it says of one moment.
                MetricKind::Gauge => Data::Gauge(Gauge { data_points: points.numbers(0) }),
                MetricKind::Counter => Data::Sum(Sum {
                    data_points: points.numbers(began),
                    aggregation_temporality: AggregationTemporality::Cumulative.into(),
                    is_monotonic: true,
                }),
                MetricKind::Histogram => Data::Histogram(Histogram {
                    data_points: points.histograms(began),
                    aggregation_temporality: AggregationTemporality::Cumulative.into(),
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

/// The values of a metric, to be made into points.
struct Points<'a> {
    labels: &'static [&'static str],
    samples: &'a [(Vec<String>, MetricValue)],
    now: u64,
}

impl Points<'_> {
    fn numbers(&self, began: u64) -> Vec<NumberDataPoint> {
        let number = |(labels, value): &(Vec<String>, MetricValue)| match value {
            MetricValue::Number(number) => Some(NumberDataPoint {
                attributes: self.attributes(labels).0,
                start_time_unix_nano: began,
                time_unix_nano: self.now,
                value: Some(Value::AsDouble(*number)),
                ..NumberDataPoint::default()
            }),
            MetricValue::Histogram(_) => None,
        };
        self.samples.iter().filter_map(number).collect()
    }

    fn histograms(&self, began: u64) -> Vec<HistogramDataPoint> {
        let histogram = |(labels, value): &(Vec<String>, MetricValue)| match value {
            MetricValue::Histogram(histogram) => Some(HistogramDataPoint {
                attributes: self.attributes(labels).0,
                start_time_unix_nano: began,
                time_unix_nano: self.now,
                count: histogram.count(),
                sum: Some(histogram.sum_seconds),
                bucket_counts: histogram.classes.iter().map(|class| class.count).collect(),
                explicit_bounds: histogram
                    .classes
                    .iter()
                    .filter_map(|class| class.at_most_seconds)
                    .collect(),
                ..HistogramDataPoint::default()
            }),
            MetricValue::Number(_) => None,
        };
        self.samples.iter().filter_map(histogram).collect()
    }

    fn attributes(&self, labels: &[String]) -> Attributes {
        let labels = self.labels.iter().zip(labels);
        labels.fold(Attributes::default(), |attributes, (name, value)| {
            attributes.text(name, value.as_str())
        })
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
    use crate::status;
    use crate::status::document::Class;

    #[test]
    fn a_histogram_has_a_class_more_than_bounds() {
        let class = |at_most_seconds, count| Class { at_most_seconds, count };
        let classes = vec![class(Some(0.1), 2), class(None, 3)];
        let histogram = status::document::Histogram { classes, sum_seconds: 1.5 };
        let samples = [(vec!["report".to_owned()], MetricValue::Histogram(histogram))];
        let points = Points { labels: &["plugin"], samples: &samples, now: 2 };
        assert_eq!(points.numbers(1), []);
        let point = &points.histograms(1)[0];
        assert_eq!((point.count, point.sum), (5, Some(1.5)));
        assert_eq!(point.bucket_counts, [2, 3]);
        assert_eq!(point.explicit_bounds, [0.1]);
        assert_eq!((point.attributes[0].key.as_str(), point.start_time_unix_nano), ("plugin", 1));
    }

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

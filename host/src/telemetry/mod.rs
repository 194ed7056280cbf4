//! The daemon's own metrics and the deaths, over OTLP, where the standard `OTEL_*` variables name an endpoint.
//!
//! Owns the thread that takes a look at the status every interval. Takes an [`Observer`] and explained deaths, gives requests of
//! OTLP/HTTP in protobuf to two outputs of its own among the [sinks](crate::sink), which send them: whatever an endpoint does,
//! nobody here waits for it.

mod deaths;
mod environment;
mod metrics;
mod resource;

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use prost::Message as _;

use crate::config;
use crate::death::explanation::ExplainedDeath;
use crate::plugin::Surroundings;
use crate::sink::{Outlet, SinkId};
use crate::status::Observer;

pub use environment::Plan;

/// The output of the metrics.
const METRICS: &str = "otlp-metrics";
/// The output of the deaths.
const DEATHS: &str = "otlp-logs";

impl Plan {
    /// The outputs that the daemon itself writes.
    pub fn outputs(&self) -> impl Iterator<Item = (SinkId, config::Output)> {
        let signal = |name, http: &Option<config::HttpOutput>| {
            let output = config::Output::Http(Box::new(http.clone()?));
            Some((SinkId::of_daemon(name), output))
        };
        let signals = [signal(METRICS, &self.metrics), signal(DEATHS, &self.deaths)];
        signals.into_iter().flatten()
    }

    /// The hand that tells deaths. None where they go nowhere.
    pub fn deaths(&self, outlet: Outlet, surroundings: &Surroundings) -> Option<Deaths> {
        self.deaths.as_ref()?;
        let surroundings = surroundings.clone();
        Some(Deaths { outlet, surroundings, attributes: self.resource.clone() })
    }
}

/// A hand that tells deaths.
pub struct Deaths {
    outlet: Outlet,
    surroundings: Surroundings,
    attributes: Vec<(String, String)>,
}

impl Deaths {
    /// Tells a death. Never blocks.
    pub fn put(&self, death: &ExplainedDeath) {
        let resource =
            resource::of_container(&self.attributes, &self.surroundings, &death.death.container);
        let request = ExportLogsServiceRequest {
            resource_logs: vec![deaths::resource_logs(resource, death)],
        };
        self.outlet.put(&SinkId::of_daemon(DEATHS), request.encode_to_vec());
    }
}

/// The thread that tells metrics. Dropped, it tells them once more and ends.
pub struct Metrics {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Metrics {
    /// Starts the thread. None where metrics go nowhere.
    ///
    /// # Errors
    ///
    /// If the system gives no thread or no runtime.
    pub fn start(plan: &Plan, observer: Observer, at_most: usize) -> io::Result<Option<Metrics>> {
        if plan.metrics.is_none() {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = channel();
        let meter = Meter { attributes: plan.resource.clone(), observer, at_most };
        let interval = plan.interval;
        let thread = thread::Builder::new().name("otlp".to_owned()).spawn(move || {
            loop {
                let over = stopped.recv_timeout(interval) != Err(RecvTimeoutError::Timeout);
                runtime.block_on(meter.tell());
                if over {
                    return;
                }
            }
        })?;
        Ok(Some(Metrics { stop: Some(stop), thread: Some(thread) }))
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that tells metrics ended early");
        }
    }
}

/// Takes a look and tells what it saw.
struct Meter {
    attributes: Vec<(String, String)>,
    observer: Observer,
    at_most: usize,
}

impl Meter {
    async fn tell(&self) {
        let status = self.observer.status().await;
        let resource = resource::of_daemon(&self.attributes, &self.observer.surroundings);
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![metrics::resource_metrics(resource, &status, self.at_most)],
        };
        self.observer.sinks.put(&SinkId::of_daemon(METRICS), request.encode_to_vec());
    }
}

/// Who tells: the daemon in this version.
fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "whodunit".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

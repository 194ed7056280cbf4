//! What the daemon is doing, for whoever asks: the control socket, the metrics, the page.
//!
//! Owns the board on which the capture thread pins its newest totals, and joins them with names,
//! probes, plugins and outputs into one document. Takes nothing from the path of an event: the capture
//! thread swaps one pointer, at most once a second and only while somebody asks, beside every tick.

mod board;
pub mod deaths;
pub mod document;
pub mod health;
mod pulse;
mod standstill;
mod table;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::{FindingsFormat, written};
use crate::config::Config;
use crate::control::{self, Request};
use crate::directory::Directory;
use crate::exit::{Exit, Failure};
use crate::kernel::{Meter, ProbeStatus};
use crate::names::Standings;
use crate::plugin::{PluginHost, Surroundings};
use crate::privilege::Need;
use crate::sink::Outlet;

pub use board::{Board, PUBLISH_EVERY};
pub use document::Status;
pub use health::Vitals;
pub use pulse::Pulse;
pub use standstill::Standstill;
pub(crate) use table::plain;
pub use table::table;

use deaths::Ledger;
use document::{
    ContainerStatus, DaemonStatus, MissingCapability, Moment, OutputStatus, PluginReport,
    ProbeReport,
};

/// A hand that makes the document, from any thread.
#[derive(Clone)]
pub struct Observer {
    /// Where the capture thread pins its totals.
    pub board: Arc<Board>,
    /// Names.
    pub directory: Arc<Directory>,
    /// Every probe of this build.
    pub probes: Arc<[ProbeStatus]>,
    /// The plugins.
    pub plugins: Arc<PluginHost>,
    /// The outputs.
    pub sinks: Outlet,
    /// Where the daemon runs.
    pub surroundings: Arc<Surroundings>,
    /// The daemon's loops.
    pub vitals: Arc<Vitals>,
    /// The newest deaths.
    pub ledger: Arc<Ledger>,
    /// Who names containers.
    pub names: Standings,
    /// The capabilities that it needs and did not have when it started.
    pub missing: Arc<[Need]>,
    /// What reads how long the probes run, where that is measured.
    pub meter: Option<Arc<Meter>>,
}

impl Observer {
    /// Everything, as of at most a second ago. Waits for the capture thread if it has to; where that
    /// does not answer in time, the document holds what it said last, and `as_of` says when that was.
    pub async fn status(&self) -> Status {
        let newest = self.board.read().await;
        let mut containers: Vec<ContainerStatus> = Vec::new();
        let mut losses = BTreeMap::new();
        let mut as_of = Moment::now();
        if let Some(tick) = newest {
            let tick = self.plugins.behind_filters(&tick);
            as_of = Moment(tick.time);
            losses = document::numbers(&tick.counters);
            containers = tick
                .containers
                .iter()
                .filter(|totals| totals.ended.is_none())
                .filter_map(|totals| {
                    let known = self.directory.container(totals.container)?;
                    let throttled = self.directory.throttled_ns(totals.container);
                    Some(ContainerStatus {
                        deaths: self.ledger.of_container(totals.container.0),
                        cpu_throttled_seconds: throttled
                            .map(|ns| Duration::from_nanos(ns).as_secs_f64()),
                        ..ContainerStatus::new(&known, totals)
                    })
                })
                .collect();
        }
        Status {
            as_of,
            daemon: DaemonStatus {
                missing_capabilities: self.missing.iter().map(MissingCapability::from).collect(),
                ..DaemonStatus::now(&self.surroundings, &self.board)
            },
            containers,
            probes: self.probes.iter().map(|probe| self.probe(probe)).collect(),
            plugins: self.plugins.status().iter().map(PluginReport::from).collect(),
            outputs: self.sinks.status().iter().map(OutputStatus::from).collect(),
            losses,
            deaths: self.ledger.status(),
            name_sources: self.names.status(),
        }
    }

    fn probe(&self, probe: &ProbeStatus) -> ProbeReport {
        let measured = self.meter.as_ref().and_then(|meter| meter.runs(probe.name));
        ProbeReport {
            runs: measured.map(|runs| runs.count),
            run_seconds: measured.map(|runs| Duration::from_nanos(runs.time_ns).as_secs_f64()),
            ..ProbeReport::from(probe)
        }
    }
}

/// The command: asks the running daemon and writes what it says.
///
/// # Errors
///
/// If there is none, if it does not answer, and if the answer cannot be written.
pub fn run(config: &Config, format: FindingsFormat, out: &mut dyn Write) -> Result<Exit, Failure> {
    let text = match format {
        FindingsFormat::Table => {
            table(&control::ask(&config.daemon.state_dir, &Request::Status {})?)
        }
        FindingsFormat::Json => {
            // As the daemon says it, also what this version does not know.
            let answer: serde_json::Value =
                control::ask(&config.daemon.state_dir, &Request::Status {})?;
            format!("{answer:#}\n")
        }
    };
    written(out.write_all(text.as_bytes()))?;
    Ok(Exit::Success)
}

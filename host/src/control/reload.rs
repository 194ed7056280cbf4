//! `whodunit plugin reload`: what the daemon does when it is asked, and how that is told.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Request, ask};
use crate::cli::{FindingsFormat, written};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::plugin::{PluginHost, PluginState, SwapError, SwapReport};
use crate::status::plain;

/// What became of a plugin that was to be reloaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Its name in the TOML.
    pub plugin: String,
    /// What it did. None where the version before goes on.
    pub swap: Option<Swapped>,
    /// Why the version before goes on, in one sentence.
    pub failure: Option<String>,
}

/// A plugin with a fresh instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swapped {
    /// SHA-256 of the component that ran before.
    pub sha256_before: String,
    /// SHA-256 of the component that runs now.
    pub sha256_after: String,
    /// Whether it was in quarantine until now.
    pub quarantine_lifted: bool,
    /// From reading the component to the switch, in nanoseconds.
    pub took_ns: u64,
    /// How long the plugin itself stood still, in nanoseconds.
    pub switch_ns: u64,
}

/// Reloads one plugin, or each in the order of the TOML. Takes as long as compiling does.
///
/// # Errors
///
/// If there is no plugin of that name. Whatever else goes wrong is told of its plugin.
pub(crate) fn reload(host: &PluginHost, plugin: Option<&str>) -> Result<Vec<Reloaded>, SwapError> {
    let plugins = host.status().into_iter().filter(|it| plugin.is_none_or(|name| name == it.name));
    let reloaded: Vec<Reloaded> = plugins
        .map(|before| {
            let quarantined = matches!(before.state, PluginState::Quarantined { .. });
            match host.reload(&before.name) {
                Ok(report) => Reloaded::swapped(report, quarantined),
                Err(error) => {
                    Reloaded { plugin: before.name, swap: None, failure: Some(error.to_string()) }
                }
            }
        })
        .collect();
    match plugin {
        Some(name) if reloaded.is_empty() => Err(host.no_plugin(name)),
        _ => Ok(reloaded),
    }
}

/// [`reload`], off the thread that answers.
pub(super) async fn reload_aside(
    host: Arc<PluginHost>,
    plugin: Option<String>,
) -> Result<Vec<Reloaded>, String> {
    let work = tokio::task::spawn_blocking(move || reload(&host, plugin.as_deref()));
    match work.await {
        Ok(reloaded) => reloaded.map_err(|error| error.to_string()),
        Err(_) => Err("the reload ended early; the daemon's log says why".to_owned()),
    }
}

/// The command: has the running daemon reload, and writes what came of it. Ends with a failure where a
/// version before goes on.
///
/// # Errors
///
/// If there is no daemon or no such plugin, and if the answer cannot be written.
pub fn run(
    config: &Config,
    plugin: Option<&str>,
    format: FindingsFormat,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let request = Request::Reload { plugin: plugin.map(str::to_owned) };
    let reloaded: Vec<Reloaded> = ask(&config.daemon.state_dir, &request)?;
    let text = match format {
        FindingsFormat::Table => reloaded.iter().map(|it| it.sentence() + "\n").collect(),
        FindingsFormat::Json => {
            let json = serde_json::to_string_pretty(&reloaded);
            json.expect("what became of plugins is only texts and numbers") + "\n"
        }
    };
    written(out.write_all(text.as_bytes()))?;
    let failed = reloaded.iter().any(|it| it.failure.is_some());
    Ok(if failed { Exit::Failure } else { Exit::Success })
}

impl Reloaded {
    fn swapped(report: SwapReport, quarantine_lifted: bool) -> Reloaded {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let swap = Swapped {
            sha256_before: report.sha256_before,
            sha256_after: report.sha256_after,
            quarantine_lifted,
            took_ns: ns(report.took),
            switch_ns: ns(report.switch),
        };
        Reloaded { plugin: report.plugin, swap: Some(swap), failure: None }
    }

    /// For people.
    fn sentence(&self) -> String {
        let plugin = &self.plugin;
        let Some(swap) = &self.swap else {
            let reason = self.failure.as_deref().unwrap_or("it is not known why");
            // It may hold what a guest said.
            let reason = plain(reason);
            return format!("{plugin}: not reloaded, what ran before goes on: {reason}");
        };
        let what = match swap.sha256_before == swap.sha256_after {
            true => {
                format!("a fresh instance of the same component, {}", short(&swap.sha256_after))
            }
            false => {
                let (before, after) = (short(&swap.sha256_before), short(&swap.sha256_after));
                format!("{after} in the place of {before}")
            }
        };
        let lifted = if swap.quarantine_lifted { ", out of quarantine" } else { "" };
        let (took, switch) =
            (Duration::from_nanos(swap.took_ns), Duration::from_nanos(swap.switch_ns));
        format!("{plugin}: {what}{lifted}; ready after {took:.1?}, stood still for {switch:.1?}")
    }
}

/// The beginning of a hash: enough to tell two apart.
pub(super) fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swapped(before: &str, after: &str, quarantine_lifted: bool) -> Reloaded {
        let report = SwapReport {
            plugin: "report".to_owned(),
            sha256_before: before.repeat(32),
            sha256_after: after.repeat(32),
            took: Duration::from_micros(35_210),
            switch: Duration::from_micros(120),
        };
        Reloaded::swapped(report, quarantine_lifted)
    }

    #[test]
    fn what_came_of_it_is_one_sentence() {
        assert_eq!(
            swapped("ab", "cd", false).sentence(),
            "report: cdcdcdcdcdcd in the place of abababababab; ready after 35.2ms, stood still for 120.0µs"
        );
        assert_eq!(
            swapped("ab", "ab", true).sentence(),
            "report: a fresh instance of the same component, abababababab, out of quarantine; \
             ready after 35.2ms, stood still for 120.0µs"
        );
        let failed = |why: &str| {
            let failure = Some(why.to_owned());
            Reloaded { plugin: "report".to_owned(), swap: None, failure }.sentence()
        };
        assert_eq!(
            failed("a.wasm is damaged"),
            "report: not reloaded, what ran before goes on: a.wasm is damaged"
        );
        // A guest says why it does not start, and no terminal obeys it.
        assert!(failed("no\x1b[2J\nreport: well").ends_with("on: no\\u{1b}[2J\\nreport: well"));
    }
}

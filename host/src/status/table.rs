//! The document for people: a few aligned columns, most important things first.

use std::fmt::Write as _;

use super::deaths::ByVerdict;
use super::document::{ContainerStatus, PluginReport, Status};

/// The whole status as text.
pub fn table(status: &Status) -> String {
    let daemon = &status.daemon;
    let mut text = format!(
        "whodunit {} (process {}) watches scope {} on {} since {}; {:.1} s of CPU",
        daemon.version,
        daemon.pid,
        daemon.scope,
        plain(&daemon.node_name),
        daemon.started_at,
        daemon.cpu_seconds,
    );
    if let Some(bytes) = daemon.resident_bytes {
        let _ = write!(text, ", {:.1} MiB", bytes as f64 / f64::from(1 << 20));
    }
    let _ = write!(text, "\ntotals as of {}\n\n", status.as_of);
    let containers = status.containers.iter().map(container_row);
    columns(&mut text, &CONTAINER_COLUMNS, containers.collect());
    text.push('\n');
    columns(&mut text, &PLUGIN_COLUMNS, status.plugins.iter().map(plugin_row).collect());
    text.push('\n');
    let probes = status.probes.iter().map(|probe| {
        let state = if probe.live { "live" } else { "not live" };
        let about = probe.reason.as_deref().unwrap_or(&probe.sees);
        [plain(&probe.name), state.to_owned(), plain(about)]
    });
    columns(&mut text, &["PROBE", "STATE", "SEES, OR WHY NOT"], probes.collect());
    let missing = daemon.missing_capabilities.iter();
    let missing: Vec<_> = missing.map(|it| [plain(&it.capability), plain(&it.without)]).collect();
    if !missing.is_empty() {
        text.push('\n');
        columns(&mut text, &["MISSING CAPABILITY", "WITHOUT IT"], missing);
    }
    let asked =
        status.name_sources.iter().filter(|it| matches!(it.state.as_str(), "answers" | "failing"));
    let sources = asked.map(|it| {
        let about = it.reason.as_deref().unwrap_or_default();
        [plain(&it.source), plain(&it.state), it.named.to_string(), plain(&it.place), plain(about)]
    });
    let sources: Vec<_> = sources.collect();
    if !sources.is_empty() {
        text.push('\n');
        columns(&mut text, &["NAMES FROM", "STATE", "NAMED", "WHERE", "WHY NOT"], sources);
    }
    let of = |subject, counts: &ByVerdict| -> Vec<_> {
        let rows = counts.iter();
        rows.map(|(verdict, count)| [plain(verdict), plain(subject), count.to_string()]).collect()
    };
    let mut deaths = of("container", &status.deaths.containers);
    deaths.extend(of("process", &status.deaths.processes));
    if !deaths.is_empty() {
        text.push('\n');
        columns(&mut text, &["DIED OF", "WHAT", "COUNT"], deaths);
    }
    if let Some(newest) = &status.deaths.newest {
        let _ = write!(text, "\nnewest death: {}, {}\n", newest.at, plain(&newest.headline));
    }
    let kept = status.plugins.iter().filter_map(|plugin| {
        let failure = plugin.last_swap_failure.as_deref()?;
        Some([plain(&plugin.name), plain(failure)])
    });
    let kept: Vec<_> = kept.collect();
    if !kept.is_empty() {
        text.push('\n');
        columns(&mut text, &["PLUGIN", "NOT SWAPPED BECAUSE"], kept);
    }
    let beside = status.plugins.iter().filter_map(|plugin| {
        let sha256 = plugin.beside_sha256.as_deref()?;
        Some([plain(&plugin.name), plain(sha256)])
    });
    let beside: Vec<_> = beside.collect();
    if !beside.is_empty() {
        text.push('\n');
        columns(&mut text, &["PLUGIN", "COMPARED WITH"], beside);
    }
    let failing = status.outputs.iter().filter_map(|output| {
        let error = output.last_error.as_deref()?;
        Some([plain(&output.plugin), plain(&output.output), plain(error)])
    });
    let failing: Vec<_> = failing.collect();
    if !failing.is_empty() {
        text.push('\n');
        columns(&mut text, &["PLUGIN", "OUTPUT", "NOT WRITTEN BECAUSE"], failing);
    }
    if !status.losses.is_empty() {
        text.push('\n');
        let losses = status.losses.iter();
        let losses = losses.map(|(reason, value)| [plain(reason), value.to_string()]);
        columns(&mut text, &["LOST OF NO CONTAINER", "COUNT"], losses.collect());
    }
    text
}

const CONTAINER_COLUMNS: [&str; 7] =
    ["CONTAINER", "RUNTIME", "RECEIVED", "ADMITTED", "DUPLICATE", "LOST", "LAST EVENT"];

fn container_row(container: &ContainerStatus) -> [String; 7] {
    let counter = |name| container.counters.get(name).copied().unwrap_or(0).to_string();
    [
        plain(&container.name),
        plain(&container.runtime),
        counter("received"),
        counter("admitted"),
        counter("duplicate"),
        container.lost().to_string(),
        container.last_event.map_or_else(|| "none yet".to_owned(), |last| last.to_string()),
    ]
}

const PLUGIN_COLUMNS: [&str; 7] =
    ["PLUGIN", "STATE", "EVENTS", "DROPPED", "FAULTS", "INSTANCE", "NEWEST FAULT"];

fn plugin_row(plugin: &PluginReport) -> [String; 7] {
    let newest = plugin.reason.as_deref().or(plugin.last_error.as_deref()).unwrap_or_default();
    [
        plain(&plugin.name),
        plain(&plugin.state),
        plugin.events.to_string(),
        plugin.dropped.to_string(),
        plugin.faults.values().sum::<u64>().to_string(),
        plugin.instance.to_string(),
        plain(newest),
    ]
}

/// Adds rows under their heads, each column as wide as its widest cell.
fn columns<const N: usize>(text: &mut String, heads: &[&str; N], rows: Vec<[String; N]>) {
    let heads = heads.map(str::to_owned);
    let width = |column: usize| {
        let cells = std::iter::once(&heads).chain(&rows).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    for row in std::iter::once(&heads).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// Text of others, without what a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    text.chars().fold(String::new(), |mut plain, character| {
        if character.is_control() {
            plain.extend(character.escape_default());
        } else {
            plain.push(character);
        }
        plain
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut text = String::new();
        let row = |first: &str, second: &str| [first.to_owned(), second.to_owned()];
        columns(&mut text, &["NAME", "N"], vec![row("a", "1"), row("longer", "22")]);
        assert_eq!(text, "NAME    N\na       1\nlonger  22\n");
    }

    #[test]
    fn a_name_cannot_command_the_terminal() {
        assert_eq!(plain("we\u{1b}[31mb\n\u{9b}é"), "we\\u{1b}[31mb\\n\\u{9b}é");
    }
}

//! What plugins cost, beside the same code compiled natively: rows from what `host/benches/plugins.rs`
//! measures.

use std::collections::BTreeMap;
use std::process::Command;

use super::measure::{Bench, median, progress};
use super::table::Row;
use super::{BenchError, io_error};

/// Medians of what was measured, by name.
struct Medians(BTreeMap<String, f64>);

impl Bench {
    /// Each role through the SDK and natively, a chain, a swap, a start, and what one holds.
    pub(super) fn plugin_rows(&self) -> Result<Vec<Row>, BenchError> {
        progress(&format!("plugins: {} rounds", self.rounds));
        let mut command = Command::new(&self.programs.plugins);
        let output = command.arg(self.rounds.to_string()).output();
        let output =
            output.map_err(io_error(format!("start {}", self.programs.plugins.display())))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(BenchError::Wrong(said));
        }
        Medians::read(&output.stdout)?.rows()
    }
}

impl Medians {
    fn read(json: &[u8]) -> Result<Medians, BenchError> {
        let wrong = |cause| BenchError::Wrong(format!("what it measured is no JSON: {cause}"));
        let values: BTreeMap<String, Vec<f64>> = serde_json::from_slice(json).map_err(wrong)?;
        Ok(Medians(values.into_iter().map(|(name, values)| (name, median(values))).collect()))
    }

    fn of(&self, name: &str) -> Result<f64, BenchError> {
        let found = self.0.get(name).copied();
        found.ok_or_else(|| BenchError::Wrong(format!("nothing was measured of `{name}`")))
    }

    fn rows(&self) -> Result<Vec<Row>, BenchError> {
        let one = self.of("filter.one_ns")?;
        let three = self.of("filter.three_ns")?;
        // What a chain does beside its filters is the same for one and for three.
        let filter = (three - one) / 2.0;
        let reporter = self.of("reporter.plugin_ns")?;
        let mut rows = Vec::from(self.beside_native("reporter", "reporter", reporter)?);
        rows.extend(self.beside_native(
            "reporter, each file new",
            "reporter.new",
            self.of("reporter.new.plugin_ns")?,
        )?);
        rows.extend(self.beside_native("filter, one more in a chain", "filter", filter)?);
        let mut chain = Row::told("chain of three filters, per event", "ns", three);
        chain.remark = format!("with the dedup behind it; of one {one:.0} ns");
        rows.push(chain);
        rows.push(self.explainer()?);
        let still = Row::new("swap, the plugin stands still", "ms", self.of("swap.still_ms")?, 5.0);
        rows.push(still);
        let mut ready =
            Row::told("swap, until the other is ready", "ms", self.of("swap.ready_ms")?);
        ready.remark = "compiled before; read, checked, started, tried, switched".to_owned();
        rows.push(ready);
        rows.push(Row::told("one plugin more at the start", "ms", self.of("start.ms")?));
        let megabytes = self.of("idle.bytes")? / 1e6;
        rows.push(Row::told("memory of an idle plugin", "MB", megabytes));
        Ok(rows)
    }

    /// The cost of a plugin, and how many times that is what the same code costs natively.
    fn beside_native(
        &self,
        name: &'static str,
        measured: &str,
        plugin_ns: f64,
    ) -> Result<[Row; 2], BenchError> {
        let native_ns = self.of(&format!("{measured}.native_ns"))?;
        let mut cost = match measured {
            "reporter" => Row::new(name, "ns an event", plugin_ns, 100.0),
            _ => Row::told(name, "ns an event", plugin_ns),
        };
        cost.others.push(("native".to_owned(), native_ns));
        let times = Row::new(name, "times native", plugin_ns / native_ns, 3.0);
        Ok([cost, times])
    }

    fn explainer(&self) -> Result<Row, BenchError> {
        let microseconds = self.of("explainer.plugin_ns")? / 1e3;
        let mut row = Row::told("explainer", "µs a death", microseconds);
        row.others.push(("native".to_owned(), self.of("explainer.native_ns")? / 1e3));
        row.remark =
            "from the record to the answer that is stored; native: the rules alone".to_owned();
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURED: &[u8] = br#"{
        "reporter.native_ns": [20, 40], "reporter.plugin_ns": [90, 90],
        "reporter.new.native_ns": [100], "reporter.new.plugin_ns": [400],
        "filter.native_ns": [50], "filter.one_ns": [300], "filter.three_ns": [500],
        "explainer.native_ns": [1000], "explainer.plugin_ns": [9000],
        "swap.still_ms": [1, 9, 2], "swap.ready_ms": [5], "start.ms": [1.5], "idle.bytes": [2e6]
    }"#;

    #[test]
    fn a_plugin_is_judged_by_what_it_costs_beside_the_same_code() {
        let rows = Medians::read(MEASURED).unwrap().rows().unwrap();
        let row = |name: &str, unit: &str| {
            let found = rows.iter().find(|row| row.row == name && row.unit == unit);
            let found = found.unwrap_or_else(|| panic!("there is no row {name} ({unit})"));
            (found.ours, found.met)
        };
        assert_eq!(row("reporter", "times native"), (3.0, Some(true)));
        assert_eq!(row("reporter, each file new", "times native"), (4.0, Some(false)));
        assert_eq!(row("filter, one more in a chain", "times native"), (2.0, Some(true)));
        assert_eq!(row("swap, the plugin stands still", "ms"), (2.0, Some(true)));
        assert_eq!(row("memory of an idle plugin", "MB"), (2.0, None));
    }

    #[test]
    fn what_was_not_measured_is_named() {
        let error = Medians::read(b"{}").unwrap().rows().expect_err("there is nothing");
        assert!(error.to_string().contains("`filter.one_ns`"), "{error}");
    }
}

//! The table that `cargo xtask bench` prints: rows, their targets, and whether these are met.

use serde::Serialize;

/// One line of the table.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) row: &'static str,
    pub(super) unit: &'static str,
    /// What was measured of us.
    pub(super) ours: f64,
    /// The same, of the peers.
    pub(super) others: Vec<(String, f64)>,
    /// At most this, or at least.
    pub(super) target: f64,
    pub(super) met: bool,
    pub(super) remark: String,
}

impl Row {
    /// A row of which less is better.
    pub(super) fn new(row: &'static str, unit: &'static str, ours: f64, target: f64) -> Row {
        Row::judged(row, unit, ours, target, ours <= target)
    }

    /// A row of which more is better.
    pub(super) fn at_least(row: &'static str, unit: &'static str, ours: f64, target: f64) -> Row {
        Row::judged(row, unit, ours, target, ours >= target)
    }

    fn judged(row: &'static str, unit: &'static str, ours: f64, target: f64, met: bool) -> Row {
        Row { row, unit, ours, others: Vec::new(), target, met, remark: String::new() }
    }
}

/// Prints the rows as a table of Markdown.
pub(super) fn print(rows: &[Row]) {
    println!("| row | ours | peers | target | | |");
    println!("|---|---|---|---|---|---|");
    for row in rows {
        let others: Vec<String> =
            row.others.iter().map(|(name, value)| format!("{name} {value:.2}")).collect();
        println!(
            "| {} ({}) | {:.2} | {} | {} | {} | {} |",
            row.row,
            row.unit,
            row.ours,
            others.join(", "),
            row.target,
            if row.met { "met" } else { "missed" },
            row.remark
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_met_at_its_target_and_missed_above() {
        assert!(Row::new("row", "ns", 1.3, 1.3).met);
        assert!(!Row::new("row", "ns", 1.31, 1.3).met);
        assert!(!Row::new("row", "ns", f64::NAN, 1.3).met);
        assert!(Row::at_least("row", "M/s", 1.0, 1.0).met);
        assert!(!Row::at_least("row", "M/s", f64::NAN, 1.0).met);
    }
}

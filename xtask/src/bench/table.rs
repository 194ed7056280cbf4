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
    /// At most this, or at least. None where there is no target.
    pub(super) target: Option<f64>,
    pub(super) met: Option<bool>,
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

    /// A row that is shown, and not judged.
    pub(super) fn told(row: &'static str, unit: &'static str, ours: f64) -> Row {
        Row { row, unit, ours, others: Vec::new(), target: None, met: None, remark: String::new() }
    }

    fn judged(row: &'static str, unit: &'static str, ours: f64, target: f64, met: bool) -> Row {
        Row { target: Some(target), met: Some(met), ..Row::told(row, unit, ours) }
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
            row.target.map(|target| target.to_string()).unwrap_or_default(),
            match row.met {
                Some(true) => "met",
                Some(false) => "missed",
                None => "",
            },
            row.remark
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_met_at_its_target_and_missed_above() {
        assert_eq!(Row::new("row", "ns", 1.3, 1.3).met, Some(true));
        assert_eq!(Row::new("row", "ns", 1.31, 1.3).met, Some(false));
        assert_eq!(Row::new("row", "ns", f64::NAN, 1.3).met, Some(false));
        assert_eq!(Row::at_least("row", "M/s", 1.0, 1.0).met, Some(true));
        assert_eq!(Row::at_least("row", "M/s", f64::NAN, 1.0).met, Some(false));
        assert_eq!(Row::told("row", "ms", 1.0).met, None);
    }
}

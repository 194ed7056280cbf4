//! Tables of text: columns as wide as what stands in them.

use std::fmt::Write as _;

/// Rows below a header. Every cell but a row's last is padded.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(header: &[&str]) -> Table {
        Table { rows: vec![header.iter().map(|title| (*title).to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// The lines, each with its newline.
    pub(super) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:width$}  ").expect("a string takes any text");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Text for a terminal: a name of a file may hold what moves the cursor or breaks the line.
pub(super) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them_and_control_characters_are_escaped() {
        let mut table = Table::new(&["PATH", "N"]);
        table.row(vec!["/gr\u{fc}n".to_owned(), "1".to_owned()]);
        table.row(vec!["/a\n\u{1b}[2J".to_owned(), String::new()]);
        assert_eq!(table.text(), "PATH           N\n/gr\u{fc}n          1\n/a\\n\\u{1b}[2J\n");
    }
}

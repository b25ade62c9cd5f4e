//! Aligned columns, as kubectl prints them.

use std::io::Write;

use anyhow::Result;

/// kubectl's `minwidth` and `padding` of a column.
const MIN_WIDTH: usize = 6;
const PADDING: usize = 3;

/// Rows under a heading. Widths are remembered, so that rows that follow later stay aligned.
#[derive(Debug, Default)]
pub(super) struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// Prints rows, wide enough for all rows so far.
    pub(super) fn print(&mut self, out: &mut impl Write, rows: &[Vec<String>]) -> Result<()> {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), MIN_WIDTH);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count() + PADDING);
            }
        }
        for row in rows {
            let mut line = String::new();
            for (width, cell) in self.widths.iter().zip(row) {
                line.push_str(&format!("{cell:<width$}"));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(table: &mut Table, rows: &[&[&str]]) -> String {
        let rows: Vec<Vec<_>> =
            rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect();
        let mut out = Vec::new();
        table.print(&mut out, &rows).expect("a buffer takes all");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn later_rows_keep_the_columns() {
        let mut table = Table::default();
        assert_eq!(
            print(&mut table, &[&["NAME", "AGE"], &["a-long-name", "5s"]]),
            "NAME          AGE\na-long-name   5s\n"
        );
        assert_eq!(print(&mut table, &[&["b", "6s"]]), "b             6s\n");
    }
}

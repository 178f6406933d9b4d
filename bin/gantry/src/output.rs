//! Lines and tables on standard output.

use std::io::Write as _;
use std::time::SystemTime;

use gantry_core::{Error, ResultExt as _};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Prints `text` and ends the line.
///
/// # Errors
/// If nobody takes it any more.
pub(crate) fn line(text: impl std::fmt::Display) -> Result<(), Error> {
    writeln!(std::io::stdout(), "{text}").context("write to standard output")
}

/// Rows below a heading, in columns.
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Table(vec![headings.iter().map(|heading| (*heading).to_owned()).collect()])
    }

    /// Adds a row. An empty cell is shown as `-`, so that columns can be counted.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }

    fn lines(&self) -> Vec<String> {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let shown = |cell: &str| if cell.is_empty() { "-".to_owned() } else { cell.replace('\n', " ") };
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.0.iter().filter_map(|row| row.get(column));
                cells.map(|cell| shown(cell).chars().count()).max().unwrap_or(0)
            })
            .collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{:<width$}", shown(cell)));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.0.iter().map(line).collect()
    }

    /// Prints it.
    ///
    /// # Errors
    /// As [`line()`].
    pub(crate) fn print(&self) -> Result<(), Error> {
        self.lines().iter().try_for_each(line)
    }
}

/// A point in time, to the second, in UTC.
pub(crate) fn seconds(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

/// A point in time, to the nanosecond, in UTC.
pub(crate) fn exactly(time: SystemTime) -> String {
    let form = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z"
    );
    OffsetDateTime::from(time).format(form).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["ID", "STATUS", "PID"]);
        table.row(vec!["web".into(), "running".into(), "17".into()]);
        table.row(vec!["another".into(), String::new(), String::new()]);
        assert_eq!(table.lines(), ["ID       STATUS   PID", "web      running  17", "another  -        -"]);
    }

    #[test]
    fn times_are_written_in_utc() {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5_000);
        assert_eq!(seconds(time), "2023-11-14T22:13:20Z");
        assert_eq!(exactly(time), "2023-11-14T22:13:20.000005000Z");
    }
}

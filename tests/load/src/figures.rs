//! Figures of both sides, and the tables that they are printed in.

use std::fs;
use std::time::Duration;

use crate::Result;
use crate::side::Side;

/// How long the daemons are left alone before their memory is looked at.
pub(crate) const REST: Duration = Duration::from_secs(12);

/// One figure of each side; ours comes first.
struct Row {
    what: String,
    unit: &'static str,
    values: [f64; 2],
}

/// What was measured so far.
pub(crate) struct Table {
    names: [&'static str; 2],
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(names: [&'static str; 2]) -> Table {
        Table { names, rows: Vec::new() }
    }

    /// Adds a figure, and shows it at once.
    pub(crate) fn add(&mut self, what: &str, unit: &'static str, values: [f64; 2]) {
        let row = Row { what: what.to_owned(), unit, values };
        eprintln!("{}", row.line());
        self.rows.push(row);
    }

    /// Adds a time.
    pub(crate) fn time(&mut self, what: &str, values: [Duration; 2]) {
        self.add(what, "ms", values.map(|value| value.as_secs_f64() * 1e3));
    }

    /// Adds what the daemons take of memory at rest, and what they took at most.
    pub(crate) async fn memory(&mut self, when: &str, sides: &[Side; 2]) -> Result<()> {
        tokio::time::sleep(REST).await;
        let now = [memory_of(&sides[0], "Pss:")?, memory_of(&sides[1], "Pss:")?];
        self.add(&format!("memory {when} (PSS)"), "KiB", now);
        let most = [memory_of(&sides[0], "VmHWM:")?, memory_of(&sides[1], "VmHWM:")?];
        self.add(&format!("memory {when}, the most so far (RSS)"), "KiB", most);
        Ok(())
    }

    pub(crate) fn print(&self) {
        let [ours, theirs] = self.names;
        println!("{:<62} {:>4} {ours:>12} {theirs:>12} {:>7}", "", "", "ratio");
        for row in &self.rows {
            println!("{}", row.line());
        }
    }
}

impl Row {
    fn line(&self) -> String {
        let [ours, theirs] = self.values;
        format!("{:<62} {:>4} {ours:>12.3} {theirs:>12.3} {:>7.2}", self.what, self.unit, ours / theirs)
    }
}

/// A figure in KiB that the kernel keeps of a daemon.
pub(crate) fn memory_of(side: &Side, field: &str) -> Result<f64> {
    let file = if field == "Pss:" { "smaps_rollup" } else { "status" };
    let path = format!("/proc/{}/{file}", side.daemon.pid());
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("{path} has no {field}"))
}

/// The middle one.
pub(crate) fn median<T: Copy + PartialOrd + Default>(values: &[T]) -> T {
    percentile(values, 50)
}

/// The value that `percent` of all are not above.
pub(crate) fn percentile<T: Copy + PartialOrd + Default>(values: &[T], percent: usize) -> T {
    let mut values = values.to_vec();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    let at = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or_default()
}

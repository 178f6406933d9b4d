//! The list of what two daemons may print differently, and nothing else is replaced.
//!
//! A comparison of two outputs first sends both through [`normalise`]. Only ids that a daemon or client
//! makes up, times, pids and sizes that depend on the moment are on the list. What replaces nothing, but is
//! done as well: labels are sorted, since `ctr` prints them in another order each time.

use std::sync::LazyLock;

use regex::Regex;

/// A pattern, what replaces it, and an example of what it is for.
struct Rule(&'static str, &'static str);

/// The list.
const RULES: &[Rule] = &[
    // Times: RFC 3339 in records, and Go's own form in events.
    Rule(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "<time>"),
    Rule(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4} [A-Z]+", "<time>"),
    // Ages and durations: "elapsed: 0.1 s", "1.2 seconds", "done: 24.1ms", "About a minute".
    Rule(r"elapsed: *[0-9.]+ *s", "elapsed: <time>"),
    Rule(r"done: [0-9.]+[mµn]?s", "done: <time>"),
    Rule(r"\b(\d+(\.\d+)?|About an?|Less than a) (milli)?(second|minute|hour)s?\b", "<time>"),
    // Sizes and speeds of a transfer: "total: 1.1 Mi (5.5 MiB/s)".
    Rule(r"total: *[0-9.]+ *[KMG]?i?B? *\([0-9.]+ [KMG]?i?B/s\)", "total: <size>"),
    // Process ids in events and messages.
    Rule(r#""(pid|Pid)": ?\d+"#, r#""$1":<pid>"#),
    // Ids that ctr makes of the nanoseconds of now and four random characters: "ctr-1700...-AbCd", leases.
    Rule(r"\b\d{6,}-[A-Za-z0-9_-]{4}\b", "<id>"),
    // Temporary directories of the tests.
    Rule(r"/tmp/\.tmp[A-Za-z0-9]+", "<dir>"),
];

static COMPILED: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    RULES
        .iter()
        .map(|Rule(pattern, by)| (Regex::new(pattern).expect("the list holds valid patterns"), *by))
        .collect()
});

/// `text` with everything on the list replaced, and lines freed of trailing spaces.
#[must_use]
pub fn normalise(text: &str) -> String {
    let mut text = text.replace('\r', "\n");
    for (pattern, by) in COMPILED.iter() {
        text = pattern.replace_all(&text, *by).into_owned();
    }
    text.lines().map(|line| sort_labels(line.trim_end())).collect::<Vec<_>>().join("\n")
}

/// `line` with the parts of each `a=b,c=d` in it in order.
fn sort_labels(line: &str) -> String {
    let sorted = line.split_inclusive([' ', '\t']).map(|word| {
        let text = word.trim_end();
        let mut parts: Vec<&str> = text.split(',').collect();
        if parts.len() > 1 && parts.iter().all(|part| part.contains('=')) {
            parts.sort_unstable();
        }
        parts.join(",") + &word[text.len()..]
    });
    sorted.collect()
}

/// [`normalise`] for a table with a heading: the columns named in `varying` are replaced, rows below the heading
/// are sorted, and runs of spaces become one, since the width of a column follows its widest value.
#[must_use]
pub fn normalise_table(text: &str, varying: &[&str]) -> String {
    let text = normalise(text);
    let mut lines = text.lines();
    let Some(heading) = lines.next() else { return text };
    let columns: Vec<&str> = heading.split_whitespace().collect();
    let hidden: Vec<usize> = columns
        .iter()
        .enumerate()
        .filter(|(_, name)| varying.contains(name))
        .map(|(index, _)| index)
        .collect();
    let mut rows: Vec<String> = lines
        .map(|line| {
            let fields = line.split_whitespace().enumerate();
            let shown = fields.map(|(index, field)| if hidden.contains(&index) { "<varies>" } else { field });
            shown.collect::<Vec<_>>().join(" ")
        })
        .collect();
    rows.sort();
    std::iter::once(columns.join(" ")).chain(rows).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::{normalise, normalise_table};

    #[test]
    fn only_ids_times_pids_and_transfer_sizes_are_replaced() {
        let before = r#"2026-01-02 03:04:05.678 +0000 UTC default /tasks/start {"container_id":"web","pid":4242} elapsed: 0.1 s total:  1.1 Mi (5.5 MiB/s) sha256:0123"#;
        let after = r#"<time> default /tasks/start {"container_id":"web","pid":<pid>} elapsed: <time> total: <size> sha256:0123"#;
        assert_eq!(normalise(before), after);
    }

    #[test]
    fn labels_come_in_order() {
        assert_eq!(normalise("web c=d,a=b 1,x"), "web a=b,c=d 1,x");
    }

    #[test]
    fn a_table_keeps_all_but_the_named_columns() {
        let table = "TASK    PID     STATUS\nweb     4711    RUNNING\napp     12      STOPPED\n";
        assert_eq!(
            normalise_table(table, &["PID"]),
            "TASK PID STATUS\napp <varies> STOPPED\nweb <varies> RUNNING"
        );
    }
}

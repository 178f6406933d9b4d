//! A page of metrics. Source: Prometheus, "Exposition formats", the text format 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What the page is, for the header of an answer.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether a value only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by upper bound, with sum and count.
    Histogram,
}

impl MetricKind {
    fn as_str(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

/// A page that is being written, sorted by name.
#[derive(Debug, Default)]
pub struct Page {
    families: BTreeMap<String, Family>,
}

#[derive(Debug)]
struct Family {
    kind: MetricKind,
    help: String,
    samples: String,
}

impl Page {
    /// Adds one sample of the metric `name`.
    pub fn add(&mut self, (name, kind, help): (&str, MetricKind, &str), labels: &[(&str, &str)], value: u64) {
        self.add_part((name, kind, help), "", labels, &value.to_string());
    }

    /// Adds one sample whose name has `suffix`, as the parts of a histogram do.
    pub fn add_part(
        &mut self,
        (name, kind, help): (&str, MetricKind, &str),
        suffix: &str,
        labels: &[(&str, &str)],
        value: &str,
    ) {
        let family = self.families.entry(name.to_owned()).or_insert_with(|| Family {
            kind,
            help: help.to_owned(),
            samples: String::new(),
        });
        // Writing to a text cannot fail.
        let _ = write!(family.samples, "{name}{suffix}");
        for (index, (label, text)) in labels.iter().enumerate() {
            let _ =
                write!(family.samples, "{}{label}=\"{}\"", if index == 0 { '{' } else { ',' }, escaped(text));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(family.samples, "{close} {value}");
    }

    /// The page as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.families {
            let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", family.kind.as_str());
            text.push_str(&family.samples);
        }
        text
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_one_head_and_labels_are_escaped() {
        let mut page = Page::default();
        page.add(("b_total", MetricKind::Counter, "B"), &[("x", "a\"\\\n")], 2);
        page.add(("a", MetricKind::Gauge, "A"), &[], u64::MAX);
        page.add(("b_total", MetricKind::Counter, "B"), &[("x", "1"), ("y", "2")], 3);
        assert_eq!(
            page.text(),
            "# HELP a A\n# TYPE a gauge\na 18446744073709551615\n\
             # HELP b_total B\n# TYPE b_total counter\nb_total{x=\"a\\\"\\\\\\n\"} 2\nb_total{x=\"1\",y=\"2\"} 3\n"
        );
    }
}

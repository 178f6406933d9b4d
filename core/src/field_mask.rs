//! Field masks: which parts of a record an update touches.

use std::collections::HashSet;

/// The paths an update names. Empty means: replace what may be replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldMask {
    /// Paths as sent, for example `labels.a`, each once.
    pub paths: Vec<String>,
}

impl FieldMask {
    /// A mask of `paths`. Of paths that are there more than once the last counts: each says what a part of the record becomes,
    /// so that the earlier ones change nothing, and a mask of a million times `labels` costs what one costs.
    pub fn new<S: Into<String>>(paths: impl IntoIterator<Item = S>) -> Self {
        let mut paths: Vec<String> = paths.into_iter().map(Into::into).collect();
        let mut seen = HashSet::new();
        let mut last: Vec<bool> = paths.iter().rev().map(|path| seen.insert(path.as_str())).collect();
        paths.retain(|_| last.pop().unwrap_or(true));
        FieldMask { paths }
    }

    /// Whether no path was named.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::FieldMask;

    #[test]
    fn of_equal_paths_the_last_counts() {
        let mask = FieldMask::new(["labels.a", "labels", "labels.b", "labels.a", "labels.b"]);
        assert_eq!(mask.paths, ["labels", "labels.a", "labels.b"]);
        assert!(FieldMask::new(Vec::<String>::new()).is_empty());
    }
}

//! Field masks: which parts of a record an update touches.

/// The paths an update names. Empty means: replace what may be replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldMask {
    /// Paths as sent, for example `labels.a`.
    pub paths: Vec<String>,
}

impl FieldMask {
    /// A mask of `paths`.
    pub fn new<S: Into<String>>(paths: impl IntoIterator<Item = S>) -> Self {
        FieldMask { paths: paths.into_iter().map(Into::into).collect() }
    }

    /// Whether no path was named.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

//! Pairs of text that travel beside a request.

use crate::message::KeyValue;

/// Keys and values beside a request. Keys are lower case; one may have several values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(Vec<KeyValue>);

impl Metadata {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with one more pair.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.0.push(KeyValue { key: key.to_ascii_lowercase(), value: value.into() });
        self
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|pair| pair.key.eq_ignore_ascii_case(key)).map(|pair| pair.value.as_str())
    }

    /// Every pair, in the order sent.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|pair| (pair.key.as_str(), pair.value.as_str()))
    }

    pub(crate) fn from_wire(pairs: Vec<KeyValue>) -> Self {
        Metadata(pairs)
    }

    pub(crate) fn into_wire(self) -> Vec<KeyValue> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_any_case_and_the_first_value_counts() {
        let metadata = Metadata::new().with("Namespace", "a").with("namespace", "b");
        assert_eq!(metadata.get("NAMESPACE"), Some("a"));
        assert_eq!(metadata.get("other"), None);
        assert_eq!(metadata.iter().count(), 2);
    }
}

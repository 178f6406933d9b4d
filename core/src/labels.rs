//! Labels: the text pairs that every record carries.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// A record's labels, in byte order of their keys.
pub type Labels = BTreeMap<String, String>;

/// Source: containerd's label rule: key and value together at most 4096 bytes.
pub const MAX_LABEL_BYTES: usize = 4096;

/// Checks one label.
///
/// # Errors
/// `InvalidArgument` if key and value together are longer than [`MAX_LABEL_BYTES`]; `Unknown` for an empty key,
/// as containerd answers.
pub fn validate(key: &str, value: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::unknown("label key must not be empty: key required"));
    }
    let length = key.len() + value.len();
    if length > MAX_LABEL_BYTES {
        let shown: String = key.chars().take(64).collect();
        return Err(Error::invalid_argument(format!(
            "label key and value length ({length} bytes) greater than maximum size ({MAX_LABEL_BYTES} bytes), key: {shown}"
        )));
    }
    Ok(())
}

/// Checks every label of a record.
///
/// # Errors
/// As [`validate`], for the first label that is wrong.
pub fn validate_all(labels: &Labels) -> Result<()> {
    labels.iter().try_for_each(|(key, value)| validate(key, value))
}

/// Drops labels whose value is empty: those are never stored.
pub fn drop_empty(labels: &mut Labels) {
    labels.retain(|_, value| !value.is_empty());
}

/// Whether an image may not set `key` on records made from it (S23 of the security notes).
///
/// Source: containerd drops image-config labels of these prefixes.
pub fn is_reserved(key: &str) -> bool {
    key.starts_with("containerd.io/") || key.starts_with("io.cri-containerd")
}

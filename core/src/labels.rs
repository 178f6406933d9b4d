//! Labels: the text pairs that every record carries.

use std::collections::BTreeMap;

use crate::field_mask::FieldMask;
use crate::{Error, Result};

/// A record's labels, in byte order of their keys.
pub type Labels = BTreeMap<String, String>;

/// Source: containerd's label rule: key and value together at most 4096 bytes.
pub const MAX_LABEL_BYTES: usize = 4096;

/// Checks the length of one label.
fn validate_length(key: &str, value: &str) -> Result<()> {
    let length = key.len() + value.len();
    if length > MAX_LABEL_BYTES {
        let shown: String = key.chars().take(64).collect();
        return Err(Error::invalid_argument(format!(
            "label key and value length ({length} bytes) greater than maximum size ({MAX_LABEL_BYTES} bytes), key: {shown}"
        )));
    }
    Ok(())
}

/// Checks one label that is to be stored.
///
/// # Errors
/// `InvalidArgument` if key and value together are longer than [`MAX_LABEL_BYTES`]; `Unknown` for an empty key, as containerd
/// answers.
pub fn validate(key: &str, value: &str) -> Result<()> {
    validate_length(key, value)?;
    if key.is_empty() { Err(keyless()) } else { Ok(()) }
}

fn keyless() -> Error {
    Error::unknown("label key must not be empty: key required")
}

/// Checks that no label without key is to be stored. One without value never is.
///
/// # Errors
/// `Unknown`, as containerd answers: its database refuses the key.
pub fn validate_keys(labels: &Labels) -> Result<()> {
    match labels.get("") {
        Some(value) if !value.is_empty() => Err(keyless()),
        _ => Ok(()),
    }
}

/// Checks every label of a record.
///
/// # Errors
/// `InvalidArgument` if key and value of one are together longer than [`MAX_LABEL_BYTES`]; then as [`validate_keys`].
pub fn validate_all(labels: &Labels) -> Result<()> {
    labels.iter().try_for_each(|(key, value)| validate_length(key, value))?;
    validate_keys(labels)
}

/// Drops labels whose value is empty: those are never stored.
pub fn drop_empty(labels: &mut Labels) {
    labels.retain(|_, value| !value.is_empty());
}

/// Does what the path `labels.<key>` of a field mask asks for: takes that label from `given`, or removes it.
pub fn apply(labels: &mut Labels, key: &str, given: &Labels) {
    match given.get(key) {
        Some(value) if !value.is_empty() => labels.insert(key.to_owned(), value.clone()),
        _ => labels.remove(key),
    };
}

/// What an update makes of `stored` where nothing but labels can change: the paths are `labels` and `labels.<key>`, in order;
/// without any, all labels are replaced. `noun` is for the error's text.
///
/// # Errors
/// `InvalidArgument` for another path; as [`validate_all`] for what would be stored.
pub fn update(stored: Labels, given: &Labels, mask: &FieldMask, noun: &str) -> Result<Labels> {
    let mut labels = if mask.is_empty() { given.clone() } else { stored };
    for path in &mask.paths {
        match path.strip_prefix("labels.") {
            Some(key) => apply(&mut labels, key, given),
            None if path == "labels" => labels = given.clone(),
            None => return Err(mask_refused(path, noun)),
        }
    }
    validate_all(&labels)?;
    drop_empty(&mut labels);
    Ok(labels)
}

/// An update named a path that `noun` does not know.
pub fn mask_refused(path: &str, noun: &str) -> Error {
    let shown: String = path.chars().take(200).collect();
    Error::invalid_argument(format!("cannot update {shown:?} field on {noun}"))
}

/// Whether an image may not set `key` on records made from it (S23 of the security notes).
///
/// Source: containerd drops image-config labels of the first two prefixes; the last is ours.
pub fn is_reserved(key: &str) -> bool {
    ["containerd.io/", "io.cri-containerd", "gantry.io/"].iter().any(|prefix| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn lengths_are_looked_at_before_keys_and_a_label_without_value_is_none() {
        let kind = |pairs: &[(&str, &str)]| validate_all(&labels(pairs)).map_err(|error| error.kind());
        let long = "x".repeat(MAX_LABEL_BYTES);
        assert_eq!(kind(&[("", ""), ("a", &long[1..])]), Ok(()));
        assert_eq!(kind(&[("", "v"), ("a", &long)]), Err(ErrorKind::InvalidArgument));
        assert_eq!(kind(&[("", "v"), ("a", "1")]), Err(ErrorKind::Unknown));
    }

    #[test]
    fn a_mask_touches_only_what_it_names() {
        let stored = labels(&[("a", "1"), ("b", "2"), ("x.y", "3")]);
        let given = labels(&[("b", ""), ("x.y", "4"), ("z", "5")]);
        let mask = FieldMask::new(["labels.b", "labels.x.y", "labels.q"]);
        let updated = update(stored.clone(), &given, &mask, "content").unwrap();
        assert_eq!(updated, labels(&[("a", "1"), ("x.y", "4")]));
        let updated = update(stored.clone(), &given, &FieldMask::default(), "content").unwrap();
        assert_eq!(updated, labels(&[("x.y", "4"), ("z", "5")]));
        let refused = update(stored, &given, &FieldMask::new(["size"]), "content").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    }
}

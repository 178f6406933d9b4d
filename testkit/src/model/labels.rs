//! Labels to choose from, and what masks do to them: written once more, apart from what is tested.

use std::collections::BTreeMap;

use gantry_core::{ErrorKind, Labels};

use super::records::{container_id, digest, image_name, snapshot_key};
use super::steps::{LabelChoice, MaskChoice};

/// A refusal by its class.
pub(super) type Answer<T = ()> = Result<T, ErrorKind>;

/// The label of a number: most say something to a collection.
fn label(number: u8, snapshotter: &str) -> (String, String) {
    let gc = |key: &str, value: String| (format!("containerd.io/gc.{key}"), value);
    let which = number / 32;
    match number % 32 {
        0 => ("x".to_owned(), "1".to_owned()),
        1 => ("x".to_owned(), String::new()),
        2 => ("x".to_owned(), "2".to_owned()),
        3 => ("y.z".to_owned(), "1".to_owned()),
        4 | 5 => gc("root", "yes".to_owned()),
        6 => gc("root", String::new()),
        7 => gc("roots", "2000-01-01T00:00:00Z".to_owned()),
        8 | 9 => gc("expire", "2000-01-01T00:00:00Z".to_owned()),
        10 => gc("expire", "2999-01-01T00:00:00Z".to_owned()),
        11 => gc("expire", "soon".to_owned()),
        12 => gc("flat", "1".to_owned()),
        13 => gc("flat", String::new()),
        14..=16 => gc("ref.content", digest(which).to_string()),
        17 => gc("ref.content.l.0", digest(which).to_string()),
        18 => gc("ref.content/m", digest(which).to_string()),
        19 => gc("ref.contentx", digest(which).to_string()),
        20 | 21 => gc(&format!("ref.snapshot.{snapshotter}"), snapshot_key(which)),
        22 => gc(&format!("ref.snapshot.{snapshotter}/a.b"), snapshot_key(which)),
        23 => gc("ref.image", image_name(which)),
        24 | 25 => gc("bref.content", digest(which).to_string()),
        26 => gc("bref.image.m", image_name(which)),
        27 => gc("bref.container", container_id(which)),
        28 => gc(&format!("bref.snapshot.{snapshotter}"), snapshot_key(which)),
        29 => ("containerd.io/snapshot.ref".to_owned(), snapshot_key(which)),
        30 if which < 2 => ("long".to_owned(), "v".repeat(4093)),
        31 if which < 2 => (String::new(), if which == 0 { "v".to_owned() } else { String::new() }),
        _ => ("long".to_owned(), "v".repeat(4092)),
    }
}

pub(super) fn labels(choice: &LabelChoice, snapshotter: &str) -> Labels {
    choice.iter().map(|number| label(*number, snapshotter)).collect()
}

/// The paths of a choice: of labels that there may be, of those the noun knows besides, and one that nobody knows.
pub(super) fn paths(choice: &MaskChoice, besides: &[&str], snapshotter: &str) -> Vec<String> {
    let path = |number: &u8| match number % 8 {
        0..=2 => format!("labels.{}", label(number / 8 * 5, snapshotter).0),
        3 | 4 => "labels".to_owned(),
        5 | 6 if !besides.is_empty() => besides[usize::from(number / 8) % besides.len()].to_owned(),
        _ if (number / 8).is_multiple_of(4) => "nothing".to_owned(),
        _ => "labels.x".to_owned(),
    };
    choice.iter().map(path).collect()
}

/// What may be stored of labels. A label without value is not stored, whatever its key.
///
/// Source: semantics, "All services": longer than 4096 bytes is refused as an argument; an empty key by the database.
pub(super) fn storable(labels: &Labels, any_length: bool) -> Answer<Labels> {
    if !any_length && labels.iter().any(|(key, value)| key.len() + value.len() > 4096) {
        return Err(ErrorKind::InvalidArgument);
    }
    let stored: Labels = labels
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if stored.contains_key("") { Err(ErrorKind::Unknown) } else { Ok(stored) }
}

/// Sets one entry of a map to what is given, or takes it away.
pub(super) fn set<T: Clone>(map: &mut BTreeMap<String, T>, key: &str, given: &BTreeMap<String, T>) {
    match given.get(key) {
        Some(value) => drop(map.insert(key.to_owned(), value.clone())),
        None => drop(map.remove(key)),
    }
}

/// Labels after an update that can change nothing else.
pub(super) fn updated(stored: &Labels, given: &Labels, paths: &[String]) -> Answer<Labels> {
    let mut after = if paths.is_empty() { given.clone() } else { stored.clone() };
    for path in paths {
        match path.split_once('.') {
            Some(("labels", key)) => set(&mut after, key, given),
            None if path == "labels" => after = given.clone(),
            _ => return Err(ErrorKind::InvalidArgument),
        }
    }
    storable(&after, false)
}

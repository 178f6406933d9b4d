//! What holds for every field mask, applied to labels.

use gantry_core::field_mask::FieldMask;
use gantry_core::{ErrorKind, Labels, labels};

use super::parts;

/// Any mask changes what it names and nothing else, the same when it is applied again, or is refused by class.
pub fn any_mask(paths: &[String], stored: &Labels, given: &Labels) {
    let mask = FieldMask::new(paths.iter().cloned());
    assert!(mask.paths.len() <= paths.len());
    assert_eq!(mask.is_empty(), paths.is_empty());
    assert_eq!(FieldMask::new(mask.paths.clone()), mask, "{paths:?}: made twice");
    let sent = FieldMask { paths: paths.to_vec() };
    let updated = labels::update(stored.clone(), given, &mask, "record");
    let as_sent = labels::update(stored.clone(), given, &sent, "record");
    let after = match (updated, as_sent) {
        (Ok(after), Ok(as_sent)) => {
            assert_eq!(after, as_sent, "{paths:?}: paths that repeat change the answer");
            after
        }
        (Err(error), Err(as_sent)) => {
            assert_eq!(error.kind(), as_sent.kind(), "{paths:?}");
            assert!(matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::Unknown), "{error}");
            assert!(error.message().len() < 4096, "{} bytes of error", error.message().len());
            return;
        }
        (updated, as_sent) => panic!("{paths:?}: {updated:?} and {as_sent:?}"),
    };
    assert!(after.values().all(|value| !value.is_empty()), "an empty value is never stored: {after:?}");
    labels::validate_all(&after).expect("what is stored may be stored");
    let again = labels::update(after.clone(), given, &mask, "record").expect("it was fine before");
    assert_eq!(again, after, "{paths:?}: applied twice");
    let all = mask.is_empty() || mask.paths.iter().any(|path| path == "labels");
    for key in stored.keys().chain(given.keys()).chain(after.keys()) {
        let named = all || mask.paths.iter().any(|path| path.strip_prefix("labels.") == Some(key));
        let source = if named { given } else { stored };
        let wanted = source.get(key).filter(|value| !value.is_empty());
        assert_eq!(after.get(key), wanted, "{paths:?}: label {key:?}");
    }
}

/// The same of any bytes: parts with `=` are labels, stored and given by turns, the others are paths.
pub fn any_bytes(input: &[u8]) {
    let (mut paths, mut stored, mut given) = (Vec::new(), Labels::new(), Labels::new());
    for part in parts(input) {
        match part.split_once('=') {
            Some((key, value)) if stored.len() <= given.len() => {
                stored.insert(key.to_owned(), value.to_owned());
            }
            Some((key, value)) => {
                given.insert(key.to_owned(), value.to_owned());
            }
            None => paths.push(part),
        }
    }
    any_mask(&paths, &stored, &given);
}

//! The environment of a process.

use std::collections::HashMap;

use gantry_core::{Error, Result};

/// `defaults` with `overrides`: `KEY=value` replaces or is added, `KEY` alone removes.
///
/// Source: containerd's client, `replaceOrAppendEnvValues`.
///
/// # Errors
/// `InvalidArgument` for an entry that no environment can hold.
pub fn merge(defaults: &[String], overrides: &[String]) -> Result<Vec<String>> {
    let mut merged: Vec<Option<String>> = Vec::with_capacity(defaults.len() + overrides.len());
    let mut places: HashMap<&str, usize> = HashMap::new();
    for entry in defaults.iter().chain(overrides) {
        if entry.contains('\0') {
            return Err(Error::invalid_argument("environment entry with a NUL byte"));
        }
    }
    for entry in defaults {
        places.insert(key(entry), merged.len());
        merged.push(Some(entry.clone()));
    }
    for entry in overrides {
        match (entry.contains('='), places.get(key(entry))) {
            (true, Some(place)) => merged[*place] = Some(entry.clone()),
            (true, None) => {
                places.insert(key(entry), merged.len());
                merged.push(Some(entry.clone()));
            }
            (false, Some(place)) => merged[*place] = None,
            (false, None) => {}
        }
    }
    Ok(merged.into_iter().flatten().filter(|entry| !entry.is_empty()).collect())
}

fn key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key)
}

/// Whether `environment` sets `name`.
pub fn has(environment: &[String], name: &str) -> bool {
    environment.iter().any(|entry| key(entry) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(defaults: &[&str], overrides: &[&str]) -> Vec<String> {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        merge(&own(defaults), &own(overrides)).unwrap()
    }

    #[test]
    fn overrides_replace_in_place_and_bare_names_remove() {
        assert_eq!(merged(&["A=1", "B=2", "C"], &["B=3", "D=4", "A"]), ["B=3", "C", "D=4"]);
        assert_eq!(merged(&[], &["A=1", "A=2"]), ["A=2"]);
        assert_eq!(merged(&["A=1"], &["A", "A=2"]), ["A=2"]);
        assert_eq!(merged(&["", "A=x=y"], &[]), ["A=x=y"]);
    }

    #[test]
    fn a_nul_byte_is_refused() {
        merge(&["A=\0".into()], &[]).unwrap_err();
    }
}

//! `format/..`: values of earlier mounts, filled into a later one.
//!
//! Source: containerd's documentation of mounts: the syntax is that of Go's text/template, with the functions `source`, `target`,
//! `mount` (an index each) and `overlay` (two). Of the syntax, calls with numbers, comments and trimming are known here.

use gantry_core::mount::Mount;
use gantry_core::mounts::ActiveMount;
use gantry_core::{Error, Result, ResultExt};

/// What a text may become. Longer ones no kernel takes.
const MAX_BYTES: usize = 1 << 20;

/// Fills in `before`, the mounts that were performed so far.
pub(crate) fn format(mut entry: Mount, before: &[ActiveMount]) -> Result<Mount> {
    for text in [&mut entry.source, &mut entry.target].into_iter().chain(&mut entry.options) {
        if text.contains("{{") {
            *text = fill(text, before).with_context(|| format!("format {text:?}"))?;
        }
    }
    Ok(entry)
}

fn fill(text: &str, before: &[ActiveMount]) -> Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((plain, action)) = rest.split_once("{{") {
        let (action, tail) = action.split_once("}}").ok_or_else(|| Error::unknown("a {{ without its }}"))?;
        let (plain, action) = match action.strip_prefix('-') {
            Some(trimmed) if trimmed.starts_with(char::is_whitespace) => (plain.trim_end(), trimmed),
            _ => (plain, action),
        };
        let (action, tail) = match action.strip_suffix('-') {
            Some(trimmed) if trimmed.ends_with(char::is_whitespace) => (trimmed, tail.trim_start()),
            _ => (action, tail),
        };
        filled.push_str(plain);
        let action = action.trim();
        let comment = action.starts_with("/*") && action.ends_with("*/") && action.len() >= 4;
        if !comment {
            filled.push_str(&call(action, before)?);
        }
        if filled.len() + tail.len() > MAX_BYTES {
            return Err(Error::invalid_argument(format!("it becomes longer than {MAX_BYTES} bytes")));
        }
        rest = tail;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn call(action: &str, before: &[ActiveMount]) -> Result<String> {
    let mut words = action.split_whitespace();
    let name = words.next().ok_or_else(|| Error::unknown("missing value for command"))?;
    let numbers: Vec<i64> = words
        .map(|word| word.parse().map_err(|_| Error::unknown(format!("{word:?} is no number"))))
        .collect::<Result<_>>()?;
    let nth = |index: i64| {
        let found = usize::try_from(index).ok().and_then(|index| before.get(index));
        found.ok_or_else(|| {
            Error::unknown(format!("index out of bounds: {index}, has {} active mounts", before.len()))
        })
    };
    match (name, numbers.as_slice()) {
        ("source", [index]) => Ok(nth(*index)?.mount.source.clone()),
        ("target", [index]) => Ok(nth(*index)?.mount.target.clone()),
        ("mount", [index]) => Ok(nth(*index)?.mount_point.clone()),
        ("overlay", [first, last]) => {
            let wrong = |_| {
                let count = before.len();
                Error::unknown(format!("invalid range: {first}-{last}, has {count} active mounts"))
            };
            nth(*first).map_err(wrong)?;
            nth(*last).map_err(wrong)?;
            let step = if first > last { -1 } else { 1 };
            let mut points = Vec::new();
            let mut index = *first;
            loop {
                points.push(nth(index)?.mount_point.as_str());
                if index == *last {
                    return Ok(points.join(":"));
                }
                index += step;
            }
        }
        ("source" | "target" | "mount" | "overlay", _) => {
            Err(Error::unknown(format!("wrong number of args for {name}: {}", numbers.len())))
        }
        _ => Err(Error::unknown(format!("function {name:?} not defined"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> Vec<ActiveMount> {
        let mount = |n: usize| ActiveMount {
            mount: Mount { source: format!("/s{n}"), target: format!("t{n}"), ..Mount::default() },
            mount_point: format!("/m{n}"),
            ..ActiveMount::default()
        };
        (0..4).map(mount).collect()
    }

    #[test]
    fn values_of_earlier_mounts_are_filled_in() {
        for (text, filled) in [
            ("{{ mount 0 }}", "/m0"),
            ("a{{source 1}}b{{target 2}}c", "a/s1bt2c"),
            ("lowerdir={{ overlay 0 2 }}", "lowerdir=/m0:/m1:/m2"),
            ("{{ overlay 3 1 }}", "/m3:/m2:/m1"),
            ("{{ overlay 1 1 }}", "/m1"),
            ("a {{- mount 0 -}} b", "a/m0b"),
            ("a{{/* nothing */}}b", "ab"),
            ("{{ mount 0 }}/x }}", "/m0/x }}"),
        ] {
            assert_eq!(fill(text, &before()).unwrap(), filled, "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "{{ mount 4 }}",
            "{{ mount -1 }}",
            "{{ overlay 0 4 }}",
            "{{ overlay 4 0 }}",
            "{{ overlay 0 9223372036854775807 }}",
            "{{ mount }}",
            "{{ mount 0 1 }}",
            "{{ mount x }}",
            "{{ exec 0 }}",
            "{{ }}",
            "{{",
            "{{ mount 0",
            "{{/*}}",
        ] {
            assert!(fill(text, &before()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_text_has_a_longest_length() {
        let text = "{{ overlay 0 3 }}".repeat(200_000);
        assert_eq!(fill(&text, &before()).unwrap_err().kind(), gantry_core::ErrorKind::InvalidArgument);
    }

    #[test]
    fn every_part_of_an_entry_is_filled() {
        let entry = Mount {
            kind: "{{ mount 0 }}".into(),
            source: "{{ mount 0 }}".into(),
            target: "{{ target 1 }}".into(),
            options: vec!["ro".into(), "x={{ mount 2 }}".into()],
        };
        let filled = format(entry, &before()).unwrap();
        assert_eq!(filled.kind, "{{ mount 0 }}");
        assert_eq!((filled.source.as_str(), filled.target.as_str()), ("/m0", "t1"));
        assert_eq!(filled.options, ["ro", "x=/m2"]);
    }
}

//! The names of entries, cleaned.

use gantry_core::Result;

use crate::failure::malformed;

/// The longest name or link target. Source: `PATH_MAX` of Linux, beyond which no system call takes a path.
pub(crate) const MAX_PATH_BYTES: usize = 4096;

/// The parts of a name: no empty ones, no `.`, no `..`, which goes no higher than the root. Absolute names begin at
/// the root like all others. Source: what containerd makes of names (cleaned, then taken below the root).
pub(crate) fn parts(path: &[u8]) -> Result<Vec<&[u8]>> {
    if path.len() > MAX_PATH_BYTES {
        return Err(malformed("name of an entry is too long"));
    }
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Ok(parts)
}

/// The name `name` in the directory `dir`; the root is the empty name.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_root() {
        for (name, clean) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("../../a", "a"),
            ("/etc/passwd", "etc/passwd"),
            ("a/../../b/./c/..", "b"),
            ("..", ""),
            ("", ""),
        ] {
            assert_eq!(parts(name.as_bytes()).unwrap().join(&b'/'), clean.as_bytes(), "{name}");
        }
        parts(&vec![b'a'; MAX_PATH_BYTES + 1]).unwrap_err();
    }
}

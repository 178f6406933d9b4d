//! Names that say what a layer removes.
//!
//! Source: OCI image specification, `layer.md`, "Whiteouts".

use gantry_core::Result;

use crate::failure::malformed;

/// Stands before the name of what is removed.
pub(crate) const PREFIX: &[u8] = b".wh.";
/// Names with this prefix are AUFS's own and describe no file.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
/// Marks a directory whose content in lower layers is hidden.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an entry's last part asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Whiteout<'a> {
    /// A file as any other.
    No,
    /// Remove this name.
    Name(&'a [u8]),
    /// Hide what lower layers have in this directory.
    Opaque,
    /// Metadata of AUFS: no file.
    Aufs,
}

impl<'a> Whiteout<'a> {
    /// Looks at the parts of an entry's name.
    ///
    /// # Errors
    /// `InvalidArgument` for a whiteout of nothing, of `.` or of `..`.
    pub(crate) fn of(parts: &[&'a [u8]]) -> Result<Whiteout<'a>> {
        let Some((last, parents)) = parts.split_last() else { return Ok(Whiteout::No) };
        if parents.iter().any(|part| part.starts_with(AUFS_PREFIX)) {
            return Ok(Whiteout::Aufs);
        }
        if *last == OPAQUE {
            return Ok(Whiteout::Opaque);
        }
        if last.starts_with(AUFS_PREFIX) {
            return Ok(Whiteout::Aufs);
        }
        match last.strip_prefix(PREFIX) {
            None => Ok(Whiteout::No),
            Some(b"" | b"." | b"..") => {
                Err(malformed(format!("invalid whiteout name {:?}", String::from_utf8_lossy(last))))
            }
            Some(name) => Ok(Whiteout::Name(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let of = |path: &'static str| Whiteout::of(&path.split('/').map(str::as_bytes).collect::<Vec<_>>());
        assert_eq!(of("a/b").unwrap(), Whiteout::No);
        assert_eq!(of("a/.wh.b").unwrap(), Whiteout::Name(b"b"));
        assert_eq!(of("a/.wh..wh..opq").unwrap(), Whiteout::Opaque);
        assert_eq!(of(".wh..wh.plnk/1.2").unwrap(), Whiteout::Aufs);
        assert_eq!(of(".wh..wh.aufs").unwrap(), Whiteout::Aufs);
        assert_eq!(of("a/.wh..hidden").unwrap(), Whiteout::Name(b".hidden"));
        for bad in [".wh.", ".wh..", ".wh...", "a/.wh..."] {
            of(bad).expect_err(bad);
        }
    }
}

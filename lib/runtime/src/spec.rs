//! A bundle's `config.json`, as a JSON document: what is not known to us must survive a change.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use gantry_core::{Error, Result, ResultExt};
use serde_json::Value;

/// The most that is read. A specification may be long, not endless.
const MAX_BYTES: u64 = 16 << 20;

/// The specification of a bundle.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    path: PathBuf,
    /// An object.
    pub(crate) root: Value,
    original: Value,
}

impl Spec {
    /// Reads the specification in `bundle`.
    ///
    /// # Errors
    /// `NotFound` if there is none; `InvalidArgument` if it is not a JSON object, or too long.
    pub(crate) fn read(bundle: &Path) -> Result<Spec> {
        let path = bundle.join("config.json");
        let root = parse(&read_bounded(&path)?).with_context(|| format!("read {path:?}"))?;
        Ok(Spec { path, original: root.clone(), root })
    }

    /// Writes the specification back if it was changed.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn save(&mut self) -> Result<bool> {
        if self.root == self.original {
            return Ok(false);
        }
        let aside = self.path.with_extension("json.new");
        write_new(&aside, self.root.to_string().as_bytes())?;
        std::fs::rename(&aside, &self.path).with_context(|| format!("replace {:?}", self.path))?;
        self.original = self.root.clone();
        Ok(true)
    }

    /// The root file system's directory.
    ///
    /// # Errors
    /// `InvalidArgument` if none is named.
    pub(crate) fn rootfs(&self, bundle: &Path) -> Result<PathBuf> {
        let path = text(&self.root, "/root/path").filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| Error::invalid_argument("the specification has no root.path"))?;
        Ok(bundle.join(path))
    }
}

/// Parses a JSON object.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn parse(json: &[u8]) -> Result<Value> {
    let value: Value =
        serde_json::from_slice(json).map_err(|error| Error::invalid_argument(error.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(Error::invalid_argument("not a JSON object")) }
}

/// The string at a JSON pointer.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str()
}

/// The list at a JSON pointer; empty if there is none.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Reads a file that nobody should have made longer than a specification.
///
/// # Errors
/// `InvalidArgument` if it is too long; otherwise what the kernel said.
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .with_context(|| format!("read {path:?}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::invalid_argument(format!("{path:?} is longer than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Writes a file for root's eyes only, in place of what was there.
///
/// # Errors
/// What the kernel said.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        // Not through what somebody may have put there.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)
    };
    write().with_context(|| format!("write {path:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_survives_a_change() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"ociVersion":"1.2.0","strange":{"a":[1]}}"#)
            .unwrap();
        let mut spec = Spec::read(dir.path()).unwrap();
        assert!(!spec.save().unwrap());
        spec.root["ociVersion"] = "1.0.2".into();
        assert!(spec.save().unwrap());
        let again = Spec::read(dir.path()).unwrap();
        assert_eq!(again.root, serde_json::json!({"ociVersion": "1.0.2", "strange": {"a": [1]}}));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Spec::read(dir.path()).unwrap_err().kind(), gantry_core::ErrorKind::NotFound);
        for text in ["", "[]", "{", "7"] {
            std::fs::write(dir.path().join("config.json"), text).unwrap();
            assert_eq!(Spec::read(dir.path()).unwrap_err().kind(), gantry_core::ErrorKind::InvalidArgument);
        }
    }
}

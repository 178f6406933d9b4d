//! Identifiers: each a type of its own, checked once when parsed.

use std::fmt;

use crate::{Error, Result};

/// Source: containerd's identifier rule: at most 76 bytes.
pub const MAX_IDENTIFIER_BYTES: usize = 76;

/// Checks `[A-Za-z0-9]+([._-][A-Za-z0-9]+)*` of at most [`MAX_IDENTIFIER_BYTES`] bytes.
///
/// # Errors
/// `InvalidArgument` saying what is wrong.
pub fn validate_identifier(text: &str) -> Result<()> {
    if text.is_empty() {
        return Err(Error::invalid_argument("identifier must not be empty"));
    }
    if text.len() > MAX_IDENTIFIER_BYTES {
        return Err(Error::invalid_argument(format!(
            "identifier {text:?} greater than maximum length ({MAX_IDENTIFIER_BYTES} characters)"
        )));
    }
    let well_formed = text
        .split(['.', '_', '-'])
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    if well_formed {
        return Ok(());
    }
    // Source: the text containerd's clients know for this error.
    Err(Error::invalid_argument(format!(
        "identifier {text:?} must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$"
    )))
}

macro_rules! text_types {
    ($($(#[$doc:meta])* $name:ident, $noun:literal, $check:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks and takes `text`.
            ///
            /// # Errors
            /// `InvalidArgument` if the text is no such identifier.
            pub fn parse(text: impl Into<String>) -> Result<Self> {
                let text = text.into();
                let check: fn(&str) -> Result<()> = $check;
                check(&text).map_err(|error| error.context(concat!($noun, " validation")))?;
                Ok($name(text))
            }

            /// The identifier's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text itself.
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}

fn anything(_: &str) -> Result<()> {
    Ok(())
}

fn not_empty(text: &str) -> Result<()> {
    if text.is_empty() { Err(Error::invalid_argument("must not be empty")) } else { Ok(()) }
}

text_types! {
    /// The tenant of every record. A kernel namespace is never called so.
    Namespace, "namespace", validate_identifier;
    /// Names a container, and its task, within a namespace.
    ContainerId, "container id", validate_identifier;
    /// Names a sandbox within a namespace.
    SandboxId, "sandbox id", validate_identifier;
    /// Names a process added to a task. Empty never: the init process has no exec id.
    ExecId, "exec id", validate_identifier;
    /// Names a snapshot of one snapshotter within a namespace. Any text but the empty one.
    SnapshotKey, "snapshot key", not_empty;
    /// The name by which a write in progress resumes. Any text but the empty one.
    IngestRef, "ingest ref", not_empty;
    /// Names a lease within a namespace. Any text.
    LeaseId, "lease id", anything;
}

/// The address of a blob: `algorithm:hex`.
///
/// Source: OCI image specification, `descriptor.md`, "Digests"; sha256, sha384 and sha512 are registered.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// Checks algorithm, length and characters.
    ///
    /// # Errors
    /// `InvalidArgument` naming the text and what is wrong with it.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        let wrong = |why: &str| Err(Error::invalid_argument(format!("digest {text:?}: {why}")));
        let Some((algorithm, hex)) = text.split_once(':') else {
            return wrong("invalid checksum digest format");
        };
        let length = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return wrong("unsupported digest algorithm"),
        };
        if hex.len() != length {
            return wrong("invalid checksum digest length");
        }
        if !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return wrong("invalid checksum digest format");
        }
        Ok(Digest(text))
    }

    /// The digest whose SHA-256 sum is `sum`.
    pub fn sha256(sum: impl AsRef<[u8]>) -> Self {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in sum.as_ref() {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        }
        Digest(text)
    }

    /// `sha256`, `sha384` or `sha512`.
    pub fn algorithm(&self) -> &str {
        self.0.split_once(':').expect("parse checked the colon").0
    }

    /// The sum in lower-case hexadecimal.
    pub fn hex(&self) -> &str {
        self.0.split_once(':').expect("parse checked the colon").1
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text itself.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for Digest {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_follow_the_rule() {
        for good in ["a", "A9", "a-b", "a.b_c-d", &"x".repeat(76)] {
            validate_identifier(good).unwrap();
        }
        for bad in ["", "a--b", "a_", ".a", "a b", "a/b", "ä", &"x".repeat(77)] {
            assert_eq!(
                validate_identifier(bad).unwrap_err().kind(),
                crate::ErrorKind::InvalidArgument,
                "{bad}"
            );
        }
    }

    #[test]
    fn digests_are_checked_for_algorithm_length_and_characters() {
        Digest::parse(format!("sha256:{}", "0".repeat(64))).unwrap();
        for bad in ["", "sha256", "sha256:", "md5:abcd", &format!("sha256:{}", "A".repeat(64))] {
            Digest::parse(bad).unwrap_err();
        }
        assert_eq!(Digest::sha256([0xabu8; 32]).hex(), "ab".repeat(32));
    }
}

//! What holds for every text that wants to be an identifier.

use std::sync::LazyLock;

use gantry_core::events::validate_topic;
use gantry_core::identifiers::{MAX_IDENTIFIER_BYTES, validate_identifier};
use gantry_core::{
    ContainerId, Digest, ErrorKind, ExecId, IngestRef, LeaseId, Namespace, Result, SandboxId, SnapshotKey,
};
use regex::Regex;

/// The rule as containerd writes it. Source: semantics of identifiers, as observed.
static RULE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$").expect("the rule is an expression")
});

static DIGEST: LazyLock<Regex> = LazyLock::new(|| {
    let rule = "^(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})$";
    Regex::new(rule).expect("the rule is an expression")
});

fn follows_the_rule(text: &str) -> bool {
    // `$` of the rule is the end of the text, which a newline before it is not.
    text.len() <= MAX_IDENTIFIER_BYTES && RULE.is_match(text)
}

#[track_caller]
fn agrees<T: AsRef<str> + std::fmt::Display>(text: &str, parsed: Result<T>, wanted: bool) {
    match parsed {
        Ok(parsed) => {
            assert!(wanted, "{text:?} was taken");
            assert_eq!((parsed.as_ref(), parsed.to_string().as_str()), (text, text));
        }
        Err(error) => {
            assert!(!wanted, "{text:?}: {error}");
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
    }
}

/// Each kind of identifier takes exactly what its rule allows, and keeps the text as it is.
pub fn any_text(text: &str) {
    let good = follows_the_rule(text);
    assert_eq!(validate_identifier(text).is_ok(), good, "{text:?}");
    agrees(text, Namespace::parse(text), good);
    agrees(text, ContainerId::parse(text), good);
    agrees(text, SandboxId::parse(text), good);
    agrees(text, ExecId::parse(text), good);
    agrees(text, SnapshotKey::parse(text), !text.is_empty());
    agrees(text, IngestRef::parse(text), !text.is_empty());
    agrees(text, LeaseId::parse(text), true);
    let digest = Digest::parse(text);
    if let Ok(digest) = &digest {
        assert_eq!(format!("{}:{}", digest.algorithm(), digest.hex()), text);
    }
    agrees(text, digest, DIGEST.is_match(text));
    let topic = text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(follows_the_rule));
    agrees(text, validate_topic(text).map(|()| text), topic);
}

/// The same of any bytes.
pub fn any_bytes(input: &[u8]) {
    any_text(&String::from_utf8_lossy(input));
}

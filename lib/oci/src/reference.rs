//! Image references: `host/repository:tag@digest`, and the short forms that people write.
//!
//! Source: the grammar of the `distribution/reference` package, which Docker, containerd and Kubernetes share.

use std::fmt;

use gantry_core::{Digest, Error, Result};

/// The registry that short names mean.
pub const DEFAULT_HOST: &str = "docker.io";
/// Where [`DEFAULT_HOST`] keeps images with names of one word.
const OFFICIAL_PREFIX: &str = "library/";
/// The tag of references that name neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
/// Source: `NameTotalLengthMax`.
const MAX_NAME_BYTES: usize = 255;
/// Source: the grammar's `tag`.
const MAX_TAG_BYTES: usize = 128;

/// A reference with its registry's host. It has a tag, a digest, or both; by itself it points at the digest if there
/// is one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads what a person wrote: `debian` is `docker.io/library/debian:latest`.
    ///
    /// # Errors
    /// `InvalidArgument` naming the text and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self> {
        Self::read(text, true)
    }

    /// Reads a reference that names its host, as containerd keeps them; nothing is added but the default tag.
    ///
    /// # Errors
    /// `InvalidArgument` naming the text and what is wrong with it.
    pub fn parse_full(text: &str) -> Result<Self> {
        Self::read(text, false)
    }

    fn read(text: &str, complete: bool) -> Result<Self> {
        let wrong = |why: &str| {
            let shown: String = text.chars().take(300).collect();
            Error::invalid_argument(format!("reference {shown:?}: {why}"))
        };
        if text.is_empty() {
            return Err(wrong("empty"));
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                (rest, Some(Digest::parse(digest).map_err(|error| wrong(&error.to_string()))?))
            }
        };
        if rest.contains("://") {
            return Err(wrong("a scheme does not belong in a reference"));
        }
        let (host, path) = match rest.split_once('/') {
            Some((first, path)) if looks_like_host(first) => (first, path),
            _ if complete => (DEFAULT_HOST, rest),
            _ => return Err(wrong("the registry's host is missing")),
        };
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (path, None),
        };
        let host = if complete && host == "index.docker.io" { DEFAULT_HOST } else { host };
        if !is_host(host) {
            return Err(wrong("invalid registry host"));
        }
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(wrong("repository name must be lowercase"));
        }
        if !path.split('/').all(is_path_component) {
            return Err(wrong("invalid repository name"));
        }
        let repository = if complete && host == DEFAULT_HOST && !path.contains('/') {
            format!("{OFFICIAL_PREFIX}{path}")
        } else {
            path.to_owned()
        };
        if is_image_id(path) && complete && host == DEFAULT_HOST {
            return Err(wrong("64 hexadecimal digits are an id, not a name"));
        }
        if host.len() + 1 + repository.len() > MAX_NAME_BYTES {
            return Err(wrong("name longer than 255 bytes"));
        }
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(wrong("invalid tag"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Reference { host: host.to_owned(), repository, tag, digest })
    }

    /// The registry's host as the name has it, with its port if one is named: `docker.io`, `localhost:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository: `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Host and repository: `docker.io/library/debian`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest if there is one, else the tag.
    pub fn object(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => DEFAULT_TAG,
        }
    }

    /// The same repository at `digest`, without a tag.
    #[must_use]
    pub fn at_digest(&self, digest: Digest) -> Self {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same repository at `tag`, without a digest.
    ///
    /// # Errors
    /// `InvalidArgument` if it is no tag.
    pub fn at_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(Error::invalid_argument(format!("tag {tag:?}")));
        }
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The short form that means the same to [`Reference::parse`].
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(short) = full.strip_prefix("docker.io/") else { return full };
        let short = short.strip_prefix(OFFICIAL_PREFIX).filter(|rest| !rest.contains('/')).unwrap_or(short);
        // Without its host, the first word of a path could read as one.
        match Reference::parse(short) {
            Ok(back) if back == *self => short.to_owned(),
            _ => full,
        }
    }
}

/// Whether the part before the first slash is a host rather than the first word of a path.
fn looks_like_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else { return false };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        match rest.strip_prefix(':') {
            None if rest.is_empty() => return true,
            None => return false,
            Some(port) => return is_port(port),
        }
    } else {
        match text.split_once(':') {
            None => (text, None),
            Some((name, port)) => (name, Some(port)),
        }
    };
    port.is_none_or(is_port)
        && name.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// `[a-z0-9]+` joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let mut rest = text;
    loop {
        let word = rest.bytes().take_while(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()).count();
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        if rest.is_empty() {
            return true;
        }
        rest = match rest.as_bytes() {
            [b'.', ..] => &rest[1..],
            [b'_', b'_', ..] => &rest[2..],
            [b'_', ..] => &rest[1..],
            [b'-', ..] => rest.trim_start_matches('-'),
            _ => return false,
        };
    }
}

fn is_tag(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_TAG_BYTES
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        && !text.starts_with(['.', '-'])
}

fn is_image_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl std::str::FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use gantry_core::ErrorKind;

    use super::*;

    const D: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn short_names_are_completed() {
        for (short, full) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("me/app", "docker.io/me/app:latest"),
            ("docker.io/debian", "docker.io/library/debian:latest"),
            ("index.docker.io/library/debian", "docker.io/library/debian:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t"),
            ("quay.example/a__b/c.d-e--f:T_.-1", "quay.example/a__b/c.d-e--f:T_.-1"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("Host/app", "Host/app:latest"),
            (&format!("debian@{D}"), &format!("docker.io/library/debian@{D}")),
            (&format!("debian:12@{D}"), &format!("docker.io/library/debian:12@{D}")),
        ] {
            let reference = Reference::parse(short).unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(Reference::parse_full(full).unwrap(), reference);
        }
    }

    #[test]
    fn the_parts_are_told_apart() {
        let reference = Reference::parse(&format!("localhost:5000/a/b:t@{D}")).unwrap();
        assert_eq!(reference.host(), "localhost:5000");
        assert_eq!(reference.repository(), "a/b");
        assert_eq!(reference.tag(), Some("t"));
        assert_eq!(reference.digest().unwrap().as_str(), D);
        assert_eq!(reference.object(), D);
        assert_eq!(reference.at_tag("x").unwrap().object(), "x");
        assert_eq!(reference.name(), "localhost:5000/a/b");
    }

    #[test]
    fn malformed_references_are_invalid_arguments() {
        let long = format!("a/{}", "b".repeat(300));
        let id = "0".repeat(64);
        for text in [
            "",
            "/",
            "a//b",
            "A",
            "a/B",
            "debian:",
            "debian:-x",
            "debian@",
            "debian@sha256:00",
            "a b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "https://docker.io/debian",
            "host.example:99999/a",
            "host.example:/a",
            "ho_st.example/a",
            "a.b/",
            "../etc/passwd",
            "a/../b",
            "host.example/a/./b",
            "[::g]/a",
            "[::1/a",
            "a:b:c",
            "ünï",
            "a\0b",
            &long,
            &id,
        ] {
            assert_eq!(Reference::parse(text).unwrap_err().kind(), ErrorKind::InvalidArgument, "{text:?}");
        }
        for text in ["debian", "library/debian:latest", "debian:12"] {
            Reference::parse_full(text).unwrap_err();
        }
    }

    #[test]
    fn a_tag_has_at_most_128_bytes() {
        Reference::parse(&format!("a:{}", "x".repeat(128))).unwrap();
        Reference::parse(&format!("a:{}", "x".repeat(129))).unwrap_err();
    }

    #[test]
    fn the_familiar_form_means_the_same() {
        for (text, familiar) in [
            ("docker.io/library/debian:12", "debian:12"),
            ("docker.io/me/app:latest", "me/app:latest"),
            ("docker.io/library/a/b:t", "library/a/b:t"),
            ("quay.example/a:b", "quay.example/a:b"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(Reference::parse(familiar).unwrap(), reference);
        }
    }
}

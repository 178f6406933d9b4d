//! Platforms: reading, normalising and choosing among them.
//!
//! Source: OCI image specification `image-index.md` and containerd's `platforms` package, whose rules users know.

use gantry_core::platforms::Platform;
use gantry_core::{Error, Result};

/// Reads `os/architecture/variant`, `os/architecture`, or one word that is either; what is missing is the host's.
/// An operating system may carry a version in brackets: `windows(10.0.17763)/amd64`.
///
/// # Errors
/// `InvalidArgument` naming the text.
pub fn parse(text: &str) -> Result<Platform> {
    let wrong = |why: &str| Err(Error::invalid_argument(format!("platform {text:?}: {why}")));
    if text.contains('*') {
        return wrong("wildcards are not supported");
    }
    let parts: Vec<&str> = text.split('/').collect();
    if parts.len() > 3 {
        return wrong("more than os/architecture/variant");
    }
    let (os, os_version) = match parts[0].strip_suffix(')').and_then(|rest| rest.split_once('(')) {
        Some((os, version)) => (os, version),
        None => (parts[0], ""),
    };
    let good = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
    };
    if !good(os) || parts[1..].iter().any(|part| !good(part)) || (!os_version.is_empty() && !good(os_version))
    {
        return wrong("characters that no platform has");
    }
    let host = host();
    let mut platform = Platform { os_version: os_version.to_owned(), ..Platform::default() };
    if let [_, architecture, variant @ ..] = parts.as_slice() {
        platform.os = os.to_owned();
        platform.architecture = (*architecture).to_owned();
        platform.variant = variant.first().map(|text| (*text).to_owned()).unwrap_or_default();
        return Ok(normalize(platform));
    }
    let os = normal_os(os);
    if KNOWN_OS.contains(&os.as_str()) {
        platform.os = os;
        platform.architecture = host.architecture;
        platform.variant = host.variant;
        return Ok(normalize(platform));
    }
    let alone = normalize(Platform { os: host.os, architecture: parts[0].to_owned(), ..Platform::default() });
    if KNOWN_ARCHITECTURES.contains(&alone.architecture.as_str()) {
        return Ok(alone);
    }
    wrong("neither an operating system nor an architecture")
}

/// Source: `go tool dist list`.
const KNOWN_OS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
    "zos",
];

/// Source: `go tool dist list`, with the names of older releases.
const KNOWN_ARCHITECTURES: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

fn normal_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

/// The platform under its usual names: `x86_64` is `amd64`, and `arm64/v8` and `arm64` are one.
#[must_use]
pub fn normalize(mut platform: Platform) -> Platform {
    platform.os = normal_os(&platform.os);
    let architecture = platform.architecture.to_ascii_lowercase();
    let variant = platform.variant.to_ascii_lowercase();
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386" | "i686", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        ("loongarch64", variant) => ("loong64", variant),
        (architecture, variant) => (architecture, variant),
    };
    let (architecture, variant) = (architecture.to_owned(), variant.to_owned());
    platform.architecture = architecture;
    platform.variant = variant;
    platform
}

/// The platform that this host runs.
pub fn host() -> Platform {
    let mut platform = Platform::host();
    platform.architecture = match platform.architecture.as_str() {
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le".to_owned(),
        "powerpc64" => "ppc64".to_owned(),
        "powerpc" => "ppc".to_owned(),
        "mips64" if cfg!(target_endian = "little") => "mips64le".to_owned(),
        "mips" if cfg!(target_endian = "little") => "mipsle".to_owned(),
        _ => platform.architecture,
    };
    normalize(platform)
}

/// Chooses among platforms: the exact one first, then those that run there too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformMatcher {
    /// In order of preference; empty takes everything.
    wanted: Vec<Platform>,
}

impl PlatformMatcher {
    /// Takes everything, all equally.
    pub fn all() -> Self {
        PlatformMatcher { wanted: Vec::new() }
    }

    /// What runs on this host.
    pub fn host() -> Self {
        Self::only(host())
    }

    /// What runs on `platform`.
    pub fn only(platform: Platform) -> Self {
        Self::ordered([platform])
    }

    /// What runs on any of `platforms`, those for the first one preferred.
    pub fn ordered(platforms: impl IntoIterator<Item = Platform>) -> Self {
        let mut wanted: Vec<Platform> = Vec::new();
        for platform in platforms {
            for step in compatible(normalize(platform)) {
                if !wanted.contains(&step) {
                    wanted.push(step);
                }
            }
        }
        PlatformMatcher { wanted }
    }

    /// How good `platform` is, 0 being the best; `None` if it does not run.
    pub fn rank(&self, platform: &Platform) -> Option<usize> {
        if self.wanted.is_empty() {
            return Some(0);
        }
        let candidate = normalize(platform.clone());
        self.wanted.iter().position(|wanted| runs(wanted, &candidate))
    }

    /// Whether `platform` runs.
    pub fn matches(&self, platform: &Platform) -> bool {
        self.rank(platform).is_some()
    }
}

/// Whether `candidate` is what `wanted` asks for. Versions and features count only where both sides name them.
fn runs(wanted: &Platform, candidate: &Platform) -> bool {
    wanted.os == candidate.os
        && wanted.architecture == candidate.architecture
        && wanted.variant == candidate.variant
        && (wanted.os_version.is_empty()
            || candidate.os_version.is_empty()
            || same_version(&wanted.os_version, &candidate.os_version))
        && (wanted.os_features.is_empty()
            || candidate.os_features.iter().all(|feature| wanted.os_features.contains(feature)))
}

/// Windows releases match by major, minor and build; the revision may differ.
fn same_version(wanted: &str, candidate: &str) -> bool {
    wanted.split('.').take(3).eq(candidate.split('.').take(3))
}

/// What runs on `platform`, the best first.
///
/// Source: containerd's `platforms.Only`: 64-bit arm runs 32-bit arm, each arm the ones before it, and amd64 runs 386
/// and its own earlier levels.
fn compatible(platform: Platform) -> Vec<Platform> {
    let with = |architecture: &str, variant: &str| Platform {
        architecture: architecture.to_owned(),
        variant: variant.to_owned(),
        ..platform.clone()
    };
    let mut steps = vec![platform.clone()];
    match platform.architecture.as_str() {
        "amd64" => {
            let level = platform
                .variant
                .strip_prefix('v')
                .and_then(|text| text.parse::<u8>().ok())
                .unwrap_or(1)
                .min(9);
            steps.extend((2..level).rev().map(|level| with("amd64", &format!("v{level}"))));
            if level > 1 {
                steps.push(with("amd64", ""));
            }
            steps.push(with("386", ""));
        }
        "arm" => {
            let level = platform
                .variant
                .strip_prefix('v')
                .and_then(|text| text.parse::<u8>().ok())
                .unwrap_or(7)
                .min(9);
            steps.extend((5..level).rev().map(|level| with("arm", &format!("v{level}"))));
        }
        "arm64" => {
            let (major, minor) = match platform.variant.strip_prefix('v') {
                None => (8, 0),
                Some(text) => {
                    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
                    (major.parse::<u8>().unwrap_or(8).min(9), minor.parse::<u8>().unwrap_or(0).min(20))
                }
            };
            let name = |major: u8, minor: u8| match (major, minor) {
                (8, 0) => String::new(),
                (major, 0) => format!("v{major}"),
                (major, minor) => format!("v{major}.{minor}"),
            };
            steps.extend((0..minor).rev().map(|minor| with("arm64", &name(major, minor))));
            if major == 9 {
                // Source: Arm's manual: v9.n has what v8.(n+5) has.
                steps.extend((0..=minor.saturating_add(5)).rev().map(|minor| with("arm64", &name(8, minor))));
            }
            steps.extend((5..=8).rev().map(|level| with("arm", &format!("v{level}"))));
        }
        _ => {}
    }
    steps
}

#[cfg(test)]
mod tests {
    use gantry_core::ErrorKind;

    use super::*;

    fn shown(text: &str) -> String {
        parse(text).unwrap().to_string()
    }

    #[test]
    fn platforms_are_normalised() {
        assert_eq!(shown("linux/arm64/v8"), "linux/arm64");
        assert_eq!(shown("linux/x86_64"), "linux/amd64");
        assert_eq!(shown("Linux/aarch64"), "linux/arm64");
        assert_eq!(shown("linux/arm"), "linux/arm/v7");
        assert_eq!(shown("linux/armel"), "linux/arm/v6");
        assert_eq!(shown("macos/arm64"), "darwin/arm64");
        assert_eq!(shown("linux/i386"), "linux/386");
        assert_eq!(parse("windows(10.0.17763)/amd64").unwrap().os_version, "10.0.17763");
    }

    #[test]
    fn one_word_is_completed_from_the_host() {
        assert_eq!(parse("linux").unwrap().architecture, host().architecture);
        assert_eq!(shown("arm64"), format!("{}/arm64", host().os));
        assert_eq!(shown("armhf"), format!("{}/arm/v7", host().os));
    }

    #[test]
    fn malformed_platforms_are_invalid_arguments() {
        for text in ["", "/", "linux/", "linux/amd64/v1/x", "*", "linux/a b", "bogus", "linux()/amd64/"] {
            assert_eq!(parse(text).unwrap_err().kind(), ErrorKind::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn the_exact_platform_is_preferred_and_older_variants_follow() {
        let matcher = PlatformMatcher::only(parse("linux/arm64").unwrap());
        let rank = |text: &str| matcher.rank(&parse(text).unwrap());
        assert_eq!(rank("linux/arm64/v8"), Some(0));
        assert!(rank("linux/arm/v7") < rank("linux/arm/v6"));
        assert_eq!(rank("linux/amd64"), None);
        assert_eq!(rank("windows/arm64"), None);
        let amd64 = PlatformMatcher::only(parse("linux/amd64").unwrap());
        assert_eq!(amd64.rank(&parse("linux/amd64/v3").unwrap()), None);
        let v3 = PlatformMatcher::only(parse("linux/amd64/v3").unwrap());
        assert_eq!(v3.rank(&parse("linux/amd64").unwrap()), Some(2));
        assert_eq!(v3.rank(&parse("linux/amd64/v4").unwrap()), None);
    }

    #[test]
    fn an_ordered_matcher_keeps_the_callers_order() {
        let matcher =
            PlatformMatcher::ordered([parse("linux/s390x").unwrap(), parse("linux/amd64").unwrap()]);
        assert_eq!(matcher.rank(&parse("linux/s390x").unwrap()), Some(0));
        assert_eq!(matcher.rank(&parse("linux/amd64").unwrap()), Some(1));
        assert!(PlatformMatcher::all().matches(&parse("plan9/386").unwrap()));
    }

    #[test]
    fn hostile_variants_cost_nothing() {
        let huge = Platform { variant: "v250".into(), ..parse("linux/arm/v7").unwrap() };
        assert!(compatible(huge).len() < 20);
        let odd = Platform { variant: "v9.255".into(), ..parse("linux/arm64").unwrap() };
        assert!(compatible(odd).len() < 100);
    }
}

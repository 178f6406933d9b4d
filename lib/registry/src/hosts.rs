//! Which hosts are asked for a registry's images, in which order, and how.
//!
//! Source: containerd's `docs/hosts.md`; features.md H16.

use std::io::ErrorKind as Io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_core::{Error, Result};
use http::HeaderMap;

use crate::{certificates, credentials, hosts_file};

/// The directory that counts for registries without one of their own.
const DEFAULT_DIRECTORY: &str = "_default";
/// Where Docker Hub's API is.
const HUB_API: &str = "registry-1.docker.io";

/// What a host may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Content by digest.
    pub pull: bool,
    /// Which digest a tag has: this is trust, since nothing can check it.
    pub resolve: bool,
    /// To take content.
    pub push: bool,
    /// What refers to a manifest.
    pub referrers: bool,
}

impl Capabilities {
    /// Everything.
    pub const ALL: Self = Capabilities { pull: true, resolve: true, push: true, referrers: true };
    /// Nothing.
    pub const NONE: Self = Capabilities { pull: false, resolve: false, push: false, referrers: false };
}

/// Plain or encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// Encrypted.
    Https,
}

impl Scheme {
    /// As URLs write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// How a host's certificate is checked, and how we show ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Files with certificates to trust besides the system's.
    pub ca: Vec<PathBuf>,
    /// Our certificates, each with its key's file if that is another.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Whether anybody is believed; not said by default.
    pub skip_verify: Option<bool>,
}

impl TlsSettings {
    fn is_set(&self) -> bool {
        *self != TlsSettings::default()
    }
}

/// One host, and how to ask it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryHost {
    /// How to connect.
    pub scheme: Scheme,
    /// The name or address, with its port if it is not the scheme's.
    pub host: String,
    /// Where its API begins: `/v2`, or something else if the configuration says so.
    pub path: String,
    /// What it is asked for.
    pub capabilities: Capabilities,
    /// Its certificate and ours.
    pub tls: TlsSettings,
    /// Headers for this host alone.
    pub headers: HeaderMap,
    /// How long connecting may take.
    pub dial_timeout: Option<Duration>,
    /// Whether plain HTTP is tried when the host turns out not to speak TLS.
    pub plain_fallback: bool,
    /// Whether it is the registry itself, or its configured server, rather than a mirror. Credentials for the registry
    /// are credentials for it.
    pub is_origin: bool,
}

impl RegistryHost {
    /// `https://host/v2`, for people.
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme.as_str(), self.host, self.path)
    }
}

/// Where hosts are configured, and what counts without configuration.
#[derive(Clone, Debug, Default)]
pub struct HostsOptions {
    /// Directories such as `/etc/containerd/certs.d`, in order.
    pub dirs: Vec<PathBuf>,
    /// Whether registries are asked in plain HTTP unless their configuration says otherwise.
    pub plain_http: bool,
    /// For hosts whose configuration does not say otherwise. Our certificates are not shown to mirrors.
    pub tls: TlsSettings,
    /// Headers for the registry itself, never for its mirrors.
    pub headers: HeaderMap,
}

impl HostsOptions {
    /// Reads directories separated by colons.
    pub fn with_dirs(text: &str) -> Self {
        let dirs = text.split(':').filter(|part| !part.is_empty()).map(PathBuf::from).collect();
        HostsOptions { dirs, ..Self::default() }
    }
}

/// What was decided for a registry, and from what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPlan {
    /// The registry's host, from the image's name.
    pub registry: String,
    /// The directory that counted.
    pub directory: Option<PathBuf>,
    /// The directories that were looked for, in order.
    pub looked_for: Vec<PathBuf>,
    /// The hosts, in the order in which they are asked. May be empty, if the configuration says so.
    pub hosts: Vec<RegistryHost>,
    /// What an operator should know: keys that mean nothing, files that could not be read.
    pub warnings: Vec<String>,
}

/// What a directory says; the registry's own place may be left open.
#[derive(Debug, Default)]
pub(crate) struct Configured {
    pub(crate) hosts: Vec<PartialHost>,
    pub(crate) warnings: Vec<String>,
}

/// A host as a file has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PartialHost {
    /// Scheme, host and path; `None` means the registry itself.
    pub(crate) place: Option<(Scheme, String, String)>,
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) tls: TlsSettings,
    pub(crate) headers: HeaderMap,
    pub(crate) dial_timeout: Option<Duration>,
    /// Whether a file names it as a mirror, rather than as the registry's server.
    pub(crate) is_mirror: bool,
}

/// Whether `host`, with or without a port, is this machine.
pub fn is_loopback(host: &str) -> bool {
    let name = name_and_port(host).0;
    name == "localhost"
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The host's name and its port, if it names one.
pub(crate) fn name_and_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        // A colon inside brackets belongs to an address.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// Decides which hosts are asked for images of `registry`. Reads files, so it blocks.
///
/// # Errors
/// `InvalidArgument` if `registry` is no host; those of reading directories and certificates' places.
pub fn plan(registry: &str, options: &HostsOptions) -> Result<HostPlan> {
    if registry.is_empty()
        || registry.contains(['/', '\0'])
        || matches!(registry, "." | ".." | DEFAULT_DIRECTORY)
    {
        return Err(Error::invalid_argument(format!("registry host {registry:?}")));
    }
    let looked_for = candidates(registry, &options.dirs);
    let mut directory = None;
    for candidate in &looked_for {
        match std::fs::metadata(candidate) {
            Ok(_) => {
                directory = Some(candidate.clone());
                break;
            }
            Err(error) if matches!(error.kind(), Io::NotFound | Io::NotADirectory) => {}
            Err(error) => return Err(Error::io(error).context(format!("look for {}", candidate.display()))),
        }
    }
    let mut configured = match &directory {
        Some(directory) => load(directory)?,
        None => Configured { hosts: vec![PartialHost::default()], warnings: Vec::new() },
    };
    for warning in &configured.warnings {
        tracing::warn!(registry, "{warning}");
    }
    let mut hosts = Vec::with_capacity(configured.hosts.len());
    for partial in configured.hosts.drain(..) {
        hosts.push(complete(registry, partial, options));
    }
    Ok(HostPlan {
        registry: registry.to_owned(),
        directory,
        looked_for,
        hosts,
        warnings: configured.warnings,
    })
}

/// The directories that may configure `registry`, the one that counts most first. Directories of this registry in any
/// place count before a default in any place: else a default in the first place would hide them.
fn candidates(registry: &str, dirs: &[PathBuf]) -> Vec<PathBuf> {
    let mut names = Vec::new();
    if let (name, Some(port)) = name_and_port(registry) {
        names.push(format!("{name}_{port}_"));
    }
    names.push(registry.to_owned());
    let own = dirs.iter().flat_map(|dir| names.iter().map(move |name| dir.join(name)));
    own.chain(dirs.iter().map(|dir| dir.join(DEFAULT_DIRECTORY))).collect()
}

fn load(directory: &Path) -> Result<Configured> {
    let path = directory.join("hosts.toml");
    let text = match hosts_file::read(&path) {
        Ok(text) if text.trim().is_empty() => return certificates::load(directory),
        Ok(text) => text,
        Err(error) if error.kind() == gantry_core::ErrorKind::NotFound => {
            return certificates::load(directory);
        }
        Err(error) => return Err(error),
    };
    match hosts_file::parse(directory, &text) {
        Ok(mut configured) => {
            for warning in &mut configured.warnings {
                *warning = format!("{}: {warning}", path.display());
            }
            Ok(configured)
        }
        // Source: containerd falls back to certificates, so a typing error must not stop every pull; we say so loudly.
        Err(error) => {
            let mut configured = certificates::load(directory)?;
            configured.warnings.insert(0, format!("{} does not count: {error}", path.display()));
            Ok(configured)
        }
    }
}

fn complete(registry: &str, partial: PartialHost, options: &HostsOptions) -> RegistryHost {
    let mut tls = partial.tls;
    let own_tls = tls.is_set();
    let same = |host: &str| credentials::canonical(host) == credentials::canonical(registry);
    let is_origin = !partial.is_mirror || partial.place.as_ref().is_some_and(|(_, host, _)| same(host));
    let (scheme, host, path, capabilities) = match partial.place {
        Some((scheme, host, path)) => (scheme, host, path, partial.capabilities.unwrap_or(Capabilities::ALL)),
        None => {
            let scheme = if registry == "docker.io" {
                Scheme::Https
            } else if options.plain_http {
                Scheme::Http
            } else if is_loopback(registry) {
                let port = name_and_port(registry).1;
                // Source: containerd: on this machine nobody is asked for certificates, and unless the port says
                // which it is, TLS is tried before plain HTTP.
                if port != Some("80") {
                    tls.skip_verify = tls.skip_verify.or(Some(true));
                }
                if matches!(port, None | Some("443")) { Scheme::Https } else { Scheme::Http }
            } else {
                Scheme::Https
            };
            let host = if registry == "docker.io" { HUB_API } else { registry };
            (scheme, host.to_owned(), "/v2".to_owned(), Capabilities::ALL)
        }
    };
    let explicit_tls = tls.is_set() || options.tls.is_set();
    if !own_tls {
        tls.ca.clone_from(&options.tls.ca);
        if is_origin {
            tls.client.clone_from(&options.tls.client);
        }
        tls.skip_verify = options.tls.skip_verify.or(tls.skip_verify);
    }
    // Somebody configured TLS for a host that is called plain: try it, and fall back.
    let plain_fallback = scheme == Scheme::Http && explicit_tls && name_and_port(&host).1 != Some("80");
    let mut headers = partial.headers;
    if is_origin {
        headers.extend(options.headers.clone());
    }
    RegistryHost {
        scheme: if plain_fallback { Scheme::Https } else { scheme },
        host,
        path,
        capabilities,
        tls,
        headers,
        dial_timeout: partial.dial_timeout,
        plain_fallback,
        is_origin,
    }
}

#[cfg(test)]
mod tests;

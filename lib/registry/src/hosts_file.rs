//! Reading `hosts.toml`.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use gantry_core::{Error, Result, ResultExt};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use toml::{Spanned, Value};

use crate::duration;
use crate::hosts::{Capabilities, Configured, PartialHost, Scheme, TlsSettings};

const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_HOSTS: usize = 256;

/// The keys of a host.
const HOST_KEYS: &[&str] =
    &["capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"];

/// Only the order of the hosts: a table's own order is lost.
#[derive(Deserialize)]
struct Order {
    #[serde(default)]
    host: HashMap<Spanned<String>, serde::de::IgnoredAny>,
}

/// Reads the file.
///
/// # Errors
/// `NotFound`; `InvalidArgument` if it is too long or no text.
pub(crate) fn read(path: &Path) -> Result<String> {
    let failed = |error: std::io::Error| Error::io(error).context(format!("read {}", path.display()));
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::invalid_argument(format!(
            "{} is longer than {MAX_FILE_BYTES} bytes",
            path.display()
        )));
    }
    String::from_utf8(bytes).map_err(|_| Error::invalid_argument(format!("{} is not UTF-8", path.display())))
}

/// The hosts of a file in `directory`, in its order, the registry itself last.
///
/// # Errors
/// `InvalidArgument` with the place of the error.
pub(crate) fn parse(directory: &Path, text: &str) -> Result<Configured> {
    let invalid = |error: toml::de::Error| Error::invalid_argument(error.to_string().trim().to_owned());
    let file: toml::Table = toml::from_str(text).map_err(invalid)?;
    let order: Order = toml::from_str(text).map_err(invalid)?;
    let mut names: Vec<(usize, String)> =
        order.host.into_keys().map(|name| (name.span().start, name.into_inner())).collect();
    names.sort();
    if names.len() > MAX_HOSTS {
        return Err(Error::invalid_argument(format!("more than {MAX_HOSTS} hosts")));
    }
    let mut warnings = Vec::new();
    let mut hosts = Vec::new();
    for (_, name) in names {
        let Some(Value::Table(table)) = file.get("host").and_then(|hosts| hosts.get(&name)) else {
            return Err(Error::invalid_argument(format!("host {name:?} is not a table")));
        };
        warn_unknown(table, HOST_KEYS, &format!("host.{name:?}"), &mut warnings);
        let mirror = host(directory, &name, table).with_context(|| format!("host {name:?}"))?;
        hosts.push(PartialHost { is_mirror: true, ..mirror });
    }
    let mut root_keys = vec!["server", "host"];
    root_keys.extend(HOST_KEYS);
    warn_unknown(&file, &root_keys, "", &mut warnings);
    let server = match file.get("server") {
        None => "",
        Some(Value::String(server)) => server,
        Some(_) => return Err(Error::invalid_argument("server is not text")),
    };
    hosts.push(host(directory, server, &file).context("server")?);
    Ok(Configured { hosts, warnings })
}

fn warn_unknown(table: &toml::Table, known: &[&str], place: &str, warnings: &mut Vec<String>) {
    for key in table.keys().filter(|key| !known.contains(&key.as_str())) {
        let dot = if place.is_empty() { "" } else { "." };
        warnings.push(format!("unknown key {place}{dot}{key}"));
    }
}

fn host(directory: &Path, server: &str, table: &toml::Table) -> Result<PartialHost> {
    let override_path = boolean(table, "override_path")?.unwrap_or(false);
    let place = if server.is_empty() { None } else { Some(place(server, override_path)?) };
    Ok(PartialHost {
        place,
        capabilities: capabilities(table)?,
        tls: TlsSettings {
            ca: paths(directory, table.get("ca")).context("ca")?,
            client: clients(directory, table.get("client")).context("client")?,
            skip_verify: boolean(table, "skip_verify")?,
        },
        headers: headers(table)?,
        dial_timeout: match table.get("dial_timeout") {
            None => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(Value::String(text)) => Some(duration::parse(text).context("dial_timeout")?),
            Some(_) => return Err(Error::invalid_argument("dial_timeout is not text")),
        },
        is_mirror: false,
    })
}

/// Scheme, host and API path of a URL, or of a host alone.
fn place(server: &str, override_path: bool) -> Result<(Scheme, String, String)> {
    let wrong = |why: &str| Error::invalid_argument(format!("{server:?}: {why}"));
    let full = if server.contains("://") { server.to_owned() } else { format!("https://{server}") };
    let url = reqwest::Url::parse(&full).map_err(|error| wrong(&error.to_string()))?;
    let scheme = match url.scheme() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(wrong("neither http nor https")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("credentials do not belong here"));
    }
    let name = url.host_str().ok_or_else(|| wrong("no host"))?;
    let host = match url.port() {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    };
    let path = url.path().trim_end_matches('/');
    let path = if path.ends_with("/v2") || override_path { path.to_owned() } else { format!("{path}/v2") };
    Ok((scheme, host, path))
}

fn boolean(table: &toml::Table, key: &str) -> Result<Option<bool>> {
    match table.get(key) {
        None => Ok(None),
        Some(Value::Boolean(value)) => Ok(Some(*value)),
        Some(_) => Err(Error::invalid_argument(format!("{key} is neither true nor false"))),
    }
}

fn capabilities(table: &toml::Table) -> Result<Option<Capabilities>> {
    let list = strings(table.get("capabilities")).context("capabilities")?;
    if list.is_empty() {
        return Ok(None);
    }
    let mut capabilities = Capabilities::NONE;
    for name in list {
        match name.to_ascii_lowercase().as_str() {
            "pull" => capabilities.pull = true,
            "resolve" => capabilities.resolve = true,
            "push" => capabilities.push = true,
            "referrers" => capabilities.referrers = true,
            _ => return Err(Error::invalid_argument(format!("unknown capability {name:?}"))),
        }
    }
    Ok(Some(capabilities))
}

/// One text, or a list of texts.
fn strings(value: Option<&Value>) -> Result<Vec<String>> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(Error::invalid_argument(format!("{} instead of text", other.type_str()))),
    };
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(text).collect(),
        Some(single) => Ok(vec![text(single)?]),
    }
}

fn paths(directory: &Path, value: Option<&Value>) -> Result<Vec<PathBuf>> {
    // An absolute path replaces the directory.
    Ok(strings(value)?.into_iter().map(|text| directory.join(text)).collect())
}

/// One file, several files with certificate and key in one, or pairs.
fn clients(directory: &Path, value: Option<&Value>) -> Result<Vec<(PathBuf, Option<PathBuf>)>> {
    let Some(Value::Array(list)) = value else {
        return Ok(paths(directory, value)?.into_iter().map(|path| (path, None)).collect());
    };
    list.iter()
        .map(|item| {
            let mut files = paths(directory, Some(item))?;
            match (files.len(), item.is_array()) {
                (1, false) => Ok((files.remove(0), None)),
                (2, true) => {
                    let key = files.remove(1);
                    Ok((files.remove(0), (!key.as_os_str().is_empty()).then_some(key)))
                }
                _ => Err(Error::invalid_argument("a pair has a certificate and a key")),
            }
        })
        .collect()
}

fn headers(table: &toml::Table) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let entries: BTreeMap<&String, &Value> = match table.get("header") {
        None => return Ok(headers),
        Some(Value::Table(entries)) => entries.iter().collect(),
        Some(_) => return Err(Error::invalid_argument("header is not a table")),
    };
    for (key, value) in entries {
        let name = HeaderName::try_from(key.as_str())
            .map_err(|_| Error::invalid_argument(format!("{key:?} is not the name of a header")))?;
        for text in strings(Some(value)).with_context(|| format!("header {key:?}"))? {
            let mut value = HeaderValue::try_from(text).map_err(|_| {
                Error::invalid_argument(format!("header {key:?} has characters that no header has"))
            })?;
            // People put tokens here.
            value.set_sensitive(true);
            headers.append(name.clone(), value);
        }
    }
    Ok(headers)
}

//! Credentials of Docker's `config.json`, and of the helpers that it names.
//!
//! Source: Docker's documentation of `docker login`, and the protocol of docker-credential-helpers.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use gantry_core::{Error, ErrorKind, Result, ResultExt};
use gantry_sys::Spawn;
use gantry_sys::process::Capture;
use serde::Deserialize;

use crate::credentials::{CredentialSource, Credentials, canonical};

const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// The key under which Docker keeps the credentials of its own registry.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// What a helper calls the user of an identity token.
const TOKEN_USER: &str = "<token>";
/// How long a helper may take; some ask a cloud.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

/// A `config.json`, read anew for each question so that a login counts at once.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    path: PathBuf,
    /// Where helpers are looked for; the system's path if absent.
    helper_dir: Option<PathBuf>,
    helper_timeout: Duration,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

impl DockerConfig {
    /// The file at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        DockerConfig { path: path.into(), helper_dir: None, helper_timeout: HELPER_TIMEOUT }
    }

    /// The same, with helpers taken from `directory` only.
    #[must_use]
    pub fn helpers_from(mut self, directory: impl Into<PathBuf>) -> Self {
        self.helper_dir = Some(directory.into());
        self
    }

    /// The file of the calling user: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`; `None` without a
    /// home directory.
    pub fn of_user() -> Option<Self> {
        let directory = match std::env::var_os("DOCKER_CONFIG").filter(|text| !text.is_empty()) {
            Some(directory) => PathBuf::from(directory),
            None => Path::new(&std::env::var_os("HOME").filter(|text| !text.is_empty())?).join(".docker"),
        };
        Some(Self::new(directory.join("config.json")))
    }

    fn read(&self) -> Result<File> {
        let file = match std::fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(File::default()),
            Err(error) => return Err(Error::io(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            return Err(Error::invalid_argument(format!("longer than {MAX_CONFIG_BYTES} bytes")));
        }
        // The parser's own text may quote the file, which holds secrets; its place is enough.
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::invalid_argument(format!("not valid at line {} column {}", error.line(), error.column()))
        })
    }

    async fn ask_helper(&self, name: &str, host: &str) -> Result<Option<Credentials>> {
        let well_formed = !name.is_empty()
            && name.len() <= 128
            && !name.starts_with(['-', '.'])
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if !well_formed {
            return Err(Error::invalid_argument(format!(
                "credential helper {name:?} is not the name of a program"
            )));
        }
        let program = format!("docker-credential-{name}");
        let program = match &self.helper_dir {
            Some(directory) => directory.join(program),
            None => PathBuf::from(program),
        };
        let server = if host == "docker.io" { HUB_KEY } else { host };
        let capture = Capture {
            stdin: server.as_bytes().to_vec(),
            timeout: Some(self.helper_timeout),
            ..Capture::default()
        };
        let output = Spawn::new(&program)
            .arg("get")
            .inherit_env()
            .process_group(0)
            .output(capture)
            .await
            .context("credential helper")?;
        if !output.status.success() {
            // Source: the helpers' protocol: the text, on standard output, is how absence is told.
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if said.contains("credentials not found") {
                return Ok(None);
            }
            let said =
                if said.is_empty() { String::from_utf8_lossy(&output.stderr).into_owned() } else { said };
            return Err(Error::new(
                ErrorKind::Unauthenticated,
                format!("credential helper {}: {}", program.display(), crate::failure::clean(&said)),
            ));
        }
        let answer: HelperAnswer = serde_json::from_slice(&output.stdout).map_err(|_| {
            Error::new(
                ErrorKind::Unauthenticated,
                format!("credential helper {}: answer is no JSON", program.display()),
            )
        })?;
        if answer.secret.is_empty() {
            return Ok(None);
        }
        let username = if answer.username == TOKEN_USER { String::new() } else { answer.username };
        Ok(Some(Credentials { username, secret: answer.secret }))
    }
}

/// The host that a key of the file means: keys may be URLs, and may carry a path.
fn key_host(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    canonical(bare.split('/').next().unwrap_or_default())
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Credentials { username: String::new(), secret: token.clone() }));
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            let wrong = || Error::invalid_argument("auth is not the base64 form of name:password");
            let decoded = STANDARD
                .decode(auth.trim())
                .or_else(|_| STANDARD_NO_PAD.decode(auth.trim()))
                .map_err(|_| wrong())?;
            let text = String::from_utf8(decoded).map_err(|_| wrong())?;
            let (username, secret) = text.split_once(':').ok_or_else(wrong)?;
            // Docker pads the password with NUL bytes.
            let secret = secret.trim_end_matches('\0').to_owned();
            return Ok(Some(Credentials { username: username.to_owned(), secret }));
        }
        match (&self.username, &self.password) {
            (Some(username), Some(password)) if !password.is_empty() => {
                Ok(Some(Credentials { username: username.clone(), secret: password.clone() }))
            }
            _ => Ok(None),
        }
    }
}

#[async_trait]
impl CredentialSource for DockerConfig {
    async fn find(&self, host: &str) -> Result<Option<Credentials>> {
        let host = canonical(host);
        let this = self.clone();
        let shown = self.path.display().to_string();
        let file = tokio::task::spawn_blocking(move || this.read())
            .await
            .map_err(|error| Error::with_source(ErrorKind::Internal, error))?
            .with_context(|| format!("read {shown}"))?;
        let helper =
            file.cred_helpers.iter().find(|(key, _)| key_host(key) == host).map(|(_, name)| name.clone());
        if let Some(name) = helper.or_else(|| file.creds_store.clone()).filter(|name| !name.is_empty())
            && let Some(found) =
                self.ask_helper(&name, host).await.with_context(|| format!("credentials for {host}"))?
        {
            return Ok(Some(found));
        }
        match file.auths.iter().find(|(key, _)| key_host(key) == host) {
            Some((_, entry)) => {
                entry.credentials().with_context(|| format!("{shown}: credentials for {host}"))
            }
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn config(text: &str) -> (tempfile::TempDir, DockerConfig) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), text).unwrap();
        let config = DockerConfig::new(dir.path().join("config.json")).helpers_from(dir.path());
        (dir, config)
    }

    fn helper(dir: &tempfile::TempDir, name: &str, script: &str) {
        let path = dir.path().join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    async fn found(config: &DockerConfig, host: &str) -> Option<(String, String)> {
        config.find(host).await.unwrap().map(|found| (found.username, found.secret))
    }

    fn pair(username: &str, secret: &str) -> Option<(String, String)> {
        Some((username.to_owned(), secret.to_owned()))
    }

    #[tokio::test]
    async fn entries_are_found_by_host_whatever_their_key_looks_like() {
        // dTpwOnE= is u:p:q.
        let (_dir, config) = config(
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnE="},"https://r.example:5000/v2/":{"identitytoken":"t"},
            "q.example":{"username":"a","password":"b"},"empty.example":{}},"HttpHeaders":{}}"#,
        );
        assert_eq!(found(&config, "registry-1.docker.io").await, pair("u", "p:q"));
        assert_eq!(found(&config, "r.example:5000").await, pair("", "t"));
        assert_eq!(found(&config, "q.example").await, pair("a", "b"));
        assert_eq!(found(&config, "empty.example").await, None);
        assert_eq!(found(&config, "r.example").await, None);
    }

    #[tokio::test]
    async fn a_missing_file_knows_nobody_and_a_broken_one_is_an_error_without_its_secrets() {
        let missing = DockerConfig::new("/nonexistent/config.json");
        assert_eq!(missing.find("a.example").await.unwrap(), None);
        let (_dir, broken) = config(r#"{"auths":{"a.example":{"auth":"c2VjcmV0"},}"#);
        let error = broken.find("a.example").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(!error.to_string().contains("c2VjcmV0"), "{error}");
        let (_dir, no_colon) = config(r#"{"auths":{"a.example":{"auth":"c2VjcmV0"}}}"#);
        no_colon.find("a.example").await.unwrap_err();
    }

    #[tokio::test]
    async fn a_helper_is_asked_with_the_hosts_name() {
        let (dir, config) = config(r#"{"credHelpers":{"a.example":"one"},"credsStore":"two"}"#);
        helper(&dir, "one", r#"read host; echo "{\"Username\":\"$1\",\"Secret\":\"$host\"}""#);
        helper(&dir, "two", r#"read host; echo "{\"Username\":\"<token>\",\"Secret\":\"$host\"}""#);
        assert_eq!(found(&config, "a.example").await, pair("get", "a.example"));
        assert_eq!(found(&config, "docker.io").await, pair("", HUB_KEY));
    }

    #[tokio::test]
    async fn a_helper_that_knows_nothing_means_anonymous_and_a_failing_one_is_an_error() {
        let (dir, config) =
            config(r#"{"credHelpers":{"a.example":"none","b.example":"bad","c.example":"../x"}}"#);
        helper(&dir, "none", "echo 'credentials not found in native keychain'; exit 1");
        helper(&dir, "bad", "echo broken; exit 1");
        assert_eq!(found(&config, "a.example").await, None);
        assert_eq!(config.find("b.example").await.unwrap_err().kind(), ErrorKind::Unauthenticated);
        assert_eq!(config.find("c.example").await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[tokio::test]
    async fn a_helper_that_hangs_is_ended() {
        let (dir, mut config) = config(r#"{"credHelpers":{"a.example":"slow"}}"#);
        helper(&dir, "slow", "sleep 1000");
        config.helper_timeout = Duration::from_millis(200);
        assert_eq!(config.find("a.example").await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    }
}

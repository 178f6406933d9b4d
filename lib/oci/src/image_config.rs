//! The image configuration: how a container of the image starts, and the layers' diff ids.

use std::collections::BTreeMap;

use gantry_core::platforms::Platform;
use gantry_core::{Digest, Error, Result};
use serde::{Deserialize, Deserializer};

use crate::json::{Object, decode, or_default};
use crate::platforms;

/// What a container of the image does unless told otherwise.
///
/// Source: OCI image specification, `config.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    /// `USER`: see [`crate::user`]. May be empty.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// `KEY=value` pairs.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// What always runs.
    #[serde(deserialize_with = "text_or_list")]
    pub entrypoint: Vec<String>,
    /// Its default arguments.
    #[serde(deserialize_with = "text_or_list")]
    pub cmd: Vec<String>,
    /// Where it runs. May be empty, which means `/`.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    /// The signal that asks it to stop. May be empty.
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
    /// Ports it listens on, for example `80/tcp`.
    #[serde(deserialize_with = "keys")]
    pub exposed_ports: Vec<String>,
    /// Directories that hold data. Not to be trusted as host paths (S08).
    #[serde(deserialize_with = "keys")]
    pub volumes: Vec<String>,
    /// Labels. Those of [`gantry_core::labels::is_reserved`] must not be copied to records (S23).
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
}

/// An image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// When it was made, RFC 3339. May be empty.
    pub created: String,
    /// Who made it. May be empty.
    pub author: String,
    /// What it is built for, normalised; `os` and `architecture` may be empty.
    pub platform: Platform,
    /// How its containers start.
    pub execution: Execution,
    /// The digests of its uncompressed layers, the lowest first.
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default, deserialize_with = "or_default")]
    created: String,
    #[serde(default, deserialize_with = "or_default")]
    author: String,
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    variant: String,
    #[serde(default, rename = "os.version", deserialize_with = "or_default")]
    os_version: String,
    #[serde(default, rename = "os.features", deserialize_with = "or_default")]
    os_features: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    config: Object<Execution>,
    #[serde(default, deserialize_with = "or_default")]
    rootfs: Object<RawRootfs>,
}

#[derive(Default, Deserialize)]
struct RawRootfs {
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<String>,
}

/// Old builders wrote a single command as text.
fn text_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum TextOrList {
        Text(String),
        List(Vec<String>),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(TextOrList::Text(text)) if text.is_empty() => Vec::new(),
        Some(TextOrList::Text(text)) => vec![text],
        Some(TextOrList::List(list)) => list,
    })
}

/// A set, written as an object with empty values.
fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<String>, D::Error> {
    let map: Option<BTreeMap<String, serde::de::IgnoredAny>> = Option::deserialize(deserializer)?;
    Ok(map.unwrap_or_default().into_keys().collect())
}

impl ImageConfig {
    /// Reads an image configuration.
    ///
    /// # Errors
    /// `InvalidArgument` if it is longer than [`crate::manifest::MAX_DOCUMENT_BYTES`] or not well formed.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let raw: RawConfig = decode("image config", bytes)?;
        let diff_ids = raw
            .rootfs
            .0
            .diff_ids
            .into_iter()
            .map(Digest::parse)
            .collect::<Result<Vec<_>>>()
            .map_err(|error| error.context("image config: diff_ids"))?;
        let platform = Platform {
            os: raw.os,
            architecture: raw.architecture,
            variant: raw.variant,
            os_version: raw.os_version,
            os_features: raw.os_features,
        };
        Ok(ImageConfig {
            created: raw.created,
            author: raw.author,
            platform: platforms::normalize(platform),
            execution: raw.config.0,
            diff_ids,
        })
    }

    /// The chain id of all layers.
    ///
    /// # Errors
    /// `FailedPrecondition` if the image has no layers.
    pub fn chain_id(&self) -> Result<Digest> {
        crate::chain_id::chain_id(&self.diff_ids)
            .ok_or_else(|| Error::failed_precondition("image has no layers"))
    }

    /// The program and its arguments: `args` replaces the image's command but not its entrypoint.
    pub fn command(&self, args: &[String]) -> Vec<String> {
        let rest = if args.is_empty() { &self.execution.cmd } else { args };
        self.execution.entrypoint.iter().chain(rest).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use gantry_core::ErrorKind;

    use super::*;

    #[test]
    fn what_go_programs_write_is_read() {
        let config = ImageConfig::parse(
            br#"{"architecture":"amd64","os":"linux","config":{"Hostname":"","User":"app","ExposedPorts":{"80/tcp":{}},
            "Env":["A=b"],"Cmd":null,"Entrypoint":["/run"],"Volumes":{"/data":{}},"WorkingDir":"/w","Labels":null,
            "OnBuild":null,"StopSignal":"SIGINT"},"rootfs":{"type":"layers","diff_ids":null},"history":[{"empty_layer":true}]}"#,
        )
        .unwrap();
        assert_eq!(config.platform.to_string(), "linux/amd64");
        assert_eq!(config.execution.user, "app");
        assert_eq!(config.execution.volumes, ["/data"]);
        assert_eq!(config.execution.exposed_ports, ["80/tcp"]);
        assert_eq!(config.command(&[]), ["/run"]);
        assert_eq!(config.command(&["x".into()]), ["/run", "x"]);
        assert_eq!(config.chain_id().unwrap_err().kind(), ErrorKind::FailedPrecondition);
    }

    #[test]
    fn a_config_without_anything_is_read() {
        let config = ImageConfig::parse(br#"{"config":null,"rootfs":null}"#).unwrap();
        assert_eq!(config, ImageConfig::default());
        assert_eq!(ImageConfig::parse(br#"{"config":{"Cmd":"sh"}}"#).unwrap().command(&[]), ["sh"]);
    }

    #[test]
    fn malformed_configs_are_invalid_arguments() {
        for text in [
            "",
            "[]",
            r#"{"config":{"Env":"A=b"}}"#,
            r#"{"rootfs":{"diff_ids":["md5:aa"]}}"#,
            r#"{"os":1}"#,
            r#"{"config":["root"]}"#,
        ] {
            assert_eq!(
                ImageConfig::parse(text.as_bytes()).unwrap_err().kind(),
                ErrorKind::InvalidArgument,
                "{text}"
            );
        }
    }
}

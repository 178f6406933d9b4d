//! The configuration file: containerd's, in every version.
//!
//! Versions 1 to 4 are read; older ones are brought to version 4 in memory, the file is left alone. Unknown keys are
//! warnings with file, row and column. Each plugin takes its own section with [`Config::section`].

mod load;
mod migrate;
mod sections;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use gantry_core::{Error, Result};
use serde::de::DeserializeOwned;

pub(crate) use load::load;
pub(crate) use migrate::LATEST;
pub(crate) use sections::{
    CgroupsSection, CollectionSection, DiffSection, GrpcServerSection, MetadataSection, MetricsServerSection,
    NativeSection, OverlaySection, RestartSection, ShimSection, TtrpcServerSection, parse_duration,
};

/// The configuration as the daemon uses it.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// What must last. Default `/var/lib/containerd`.
    pub(crate) root: PathBuf,
    /// What a reboot may take. Default `/run/containerd`.
    pub(crate) state: PathBuf,
    /// `kind.id` of plugins that are left out.
    pub(crate) disabled_plugins: Vec<String>,
    /// `kind.id` of plugins without which the daemon does not run.
    pub(crate) required_plugins: Vec<String>,
    /// The daemon's own `oom_score_adj`; 0 leaves it alone.
    pub(crate) oom_score: i32,
    /// `trace`, `debug`, `info`, `warn`, `error`, `fatal` or `panic`.
    pub(crate) log_level: String,
    /// `text` or `json`.
    pub(crate) log_format: String,
    /// Named deadlines, by the keys `io.containerd.timeout.*`.
    pub(crate) timeouts: BTreeMap<String, String>,
    /// Plugins' sections by `kind.id`.
    pub(crate) plugins: toml::Table,
    /// What was odd about the files, for the log.
    pub(crate) warnings: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            root: gantry_core::wire_names::DEFAULT_ROOT.into(),
            state: gantry_core::wire_names::DEFAULT_STATE.into(),
            disabled_plugins: Vec::new(),
            required_plugins: Vec::new(),
            oom_score: 0,
            log_level: "info".to_owned(),
            log_format: "text".to_owned(),
            timeouts: BTreeMap::new(),
            plugins: toml::Table::new(),
            warnings: Vec::new(),
        }
    }
}

impl Config {
    /// The section of the plugin `uri`, or its defaults.
    ///
    /// # Errors
    /// `InvalidArgument` naming the section and what is wrong in it.
    pub(crate) fn section<T: DeserializeOwned + Default>(&self, uri: &str) -> Result<T> {
        match self.plugins.get(uri) {
            None => Ok(T::default()),
            Some(section) => section.clone().try_into().map_err(|error: toml::de::Error| {
                Error::invalid_argument(format!(
                    "configuration section [plugins.'{uri}']: {}",
                    error.message()
                ))
            }),
        }
    }

    /// The deadline `key`, or `default`.
    ///
    /// # Errors
    /// `InvalidArgument` for a text that is no duration.
    pub(crate) fn timeout(&self, key: &str, default: Duration) -> Result<Duration> {
        match self.timeouts.get(key) {
            None => Ok(default),
            Some(text) => {
                sections::parse_duration(text).map_err(|error| error.context(format!("timeout {key}")))
            }
        }
    }
}

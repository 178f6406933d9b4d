//! Introspection: what the daemon is made of.

use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::platforms::Platform;
use crate::{Any, Context, Error, Result};

/// One plugin, and how its start went.
#[derive(Debug)]
pub struct PluginRecord {
    /// Its kind, for example `io.containerd.service.v1`.
    pub kind: String,
    /// Its id within the kind.
    pub id: String,
    /// The kinds it needs.
    pub requires: Vec<String>,
    /// The platforms it serves.
    pub platforms: Vec<Platform>,
    /// What it tells about itself, for example its root directory.
    pub exports: BTreeMap<String, String>,
    /// What it can do besides.
    pub capabilities: Vec<String>,
    /// Why it did not start, if it did not.
    pub init_error: Option<Error>,
}

/// Something in use that will go away.
#[derive(Clone, Debug)]
pub struct DeprecationWarning {
    /// Its id, for example `io.containerd.deprecation/cgroup-v1`.
    pub id: String,
    /// What to do about it.
    pub message: String,
    /// When it was last seen.
    pub last_occurrence: SystemTime,
}

/// The daemon itself.
#[derive(Clone, Debug)]
pub struct ServerRecord {
    /// Made once per root directory.
    pub uuid: String,
    /// Its process id.
    pub pid: u64,
    /// Its pid namespace's inode number.
    pub pidns: u64,
    /// Deprecations seen since its start.
    pub deprecations: Vec<DeprecationWarning>,
}

/// What is known about a plugin, and what it says about `options`.
#[derive(Debug)]
pub struct PluginDetails {
    /// The plugin.
    pub plugin: PluginRecord,
    /// Its own answer, if it gives one.
    pub extra: Option<Any>,
}

/// Tells what the daemon is made of. Needs no namespace.
#[async_trait]
pub trait Introspection: Send + Sync {
    /// The plugins that any of `filters` matches, in the order they were started.
    ///
    /// # Errors
    /// `InvalidArgument` for a filter that does not parse.
    async fn plugins(&self, cx: &Context, filters: &[String]) -> Result<Vec<PluginRecord>>;

    /// The daemon itself.
    ///
    /// # Errors
    /// Those of reading its uuid.
    async fn server(&self, cx: &Context) -> Result<ServerRecord>;

    /// One plugin in detail.
    ///
    /// # Errors
    /// `NotFound`; `Unimplemented` if the plugin has no more to say.
    async fn plugin_info(
        &self,
        cx: &Context,
        kind: &str,
        id: &str,
        options: Option<Any>,
    ) -> Result<PluginDetails>;
}

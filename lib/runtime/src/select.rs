//! Which runtime a bundle gets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_core::{Error, Result};

use crate::OciRuntime;

/// The name by which the built-in runtime is asked for, and under which it is recorded.
pub const BUILTIN: &str = "builtin";

/// The file in a bundle that says which runtime made its container: [`BUILTIN`] or a binary's path.
pub const RECORD: &str = "oci-runtime";

/// Source: containerd's runc shim, where each namespace has its own directory below this one.
const DEFAULT_ROOT: &str = "/run/containerd/runc";

/// How to find and call a runtime.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// The runtime's binary: a name to be found in `PATH`, or a path; `builtin` for the built-in one
    /// and nothing else. Default none: the built-in runtime, or an installed runc for what that lacks.
    pub binary: Option<String>,
    /// The directory for the state of all namespaces. Default `/run/containerd/runc`.
    pub root: PathBuf,
    /// Required: the tenant; its containers' state is in the directory of this name below `root`.
    pub namespace: String,
    /// Let systemd manage cgroups. Default no.
    pub systemd_cgroup: bool,
    /// How long one call may take; minimum 1 s. Default 2 minutes, since a container's hooks count.
    pub timeout: Duration,
    /// The program that is executed for the built-in runtime. Default none: this program.
    pub helper: Option<PathBuf>,
}

impl RuntimeConfig {
    /// The defaults for one namespace.
    pub fn new(namespace: impl Into<String>) -> Self {
        RuntimeConfig {
            binary: None,
            root: PathBuf::from(DEFAULT_ROOT),
            namespace: namespace.into(),
            systemd_cgroup: false,
            timeout: Duration::from_secs(120),
            helper: None,
        }
    }

    /// The directory that holds the state of this namespace's containers.
    pub fn state_dir(&self) -> PathBuf {
        self.root.join(&self.namespace)
    }
}

/// The runtime for a container that is to be made from `bundle`, recorded there.
///
/// # Errors
/// `NotFound` if the named binary is not installed; `FailedPrecondition` naming the feature if the
/// specification needs what neither the built-in nor an installed runtime has; `InvalidArgument` if
/// the specification does not parse.
pub async fn for_new(config: &RuntimeConfig, bundle: &Path) -> Result<Arc<dyn OciRuntime>> {
    let _ = (config, bundle);
    Err(Error::unimplemented("run containers"))
}

/// The runtime that made the container of `bundle`, as recorded there; without a record, that of
/// `config`.
///
/// # Errors
/// `NotFound` if the binary is not installed any more.
pub fn for_existing(config: &RuntimeConfig, bundle: &Path) -> Result<Arc<dyn OciRuntime>> {
    let _ = (config, bundle);
    Err(Error::unimplemented("act on containers"))
}

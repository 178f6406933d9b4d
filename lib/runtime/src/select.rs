//! Which runtime a bundle gets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_core::{Error, Result};

use crate::OciRuntime;
use crate::builtin::{self, BuiltinRuntime};
use crate::named::NamedRuntime;
use crate::spec::{self, Spec};

/// The name by which the built-in runtime is asked for, and under which it is recorded.
pub const BUILTIN: &str = "builtin";

/// The file in a bundle that says which runtime made its container: [`BUILTIN`] or a binary's path.
pub const RECORD: &str = "oci-runtime";

/// What is tried for what the built-in runtime lacks, in this order.
const INSTALLED: [&str; 2] = ["runc", "crun"];

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
    let runtime = choose(config, bundle).await?;
    spec::write_new(&bundle.join(RECORD), runtime.name().as_bytes())?;
    Ok(runtime)
}

async fn choose(config: &RuntimeConfig, bundle: &Path) -> Result<Arc<dyn OciRuntime>> {
    let spec = Spec::read(bundle)?;
    let supported = || builtin::supports(&spec.root, config.systemd_cgroup);
    match config.binary.as_deref().filter(|name| !name.is_empty()) {
        Some(BUILTIN) => match supported() {
            Ok(()) => Ok(Arc::new(BuiltinRuntime::new(config))),
            Err(feature) => Err(lacking(&feature)),
        },
        Some(name) => Ok(Arc::new(NamedRuntime::open(config, name, bundle)?)),
        None => {
            let Err(feature) = supported() else { return Ok(Arc::new(BuiltinRuntime::new(config))) };
            for name in INSTALLED {
                let Ok(runtime) = NamedRuntime::open(config, name, bundle) else { continue };
                // It says which feature it lacks, if it does; its words are about the same specification.
                runtime.prepare(&mut spec.clone()).await?;
                tracing::debug!(feature, runtime = runtime.name(), "the built-in runtime lacks a feature");
                return Ok(Arc::new(runtime));
            }
            Err(lacking(&feature))
        }
    }
}

fn lacking(feature: &str) -> Error {
    Error::failed_precondition(format!(
        "the built-in runtime does not support {feature}, and no runc is installed"
    ))
}

/// The runtime that made the container of `bundle`, as recorded there; without a record, that of
/// `config`.
///
/// # Errors
/// `NotFound` if the binary is not installed any more.
pub fn for_existing(config: &RuntimeConfig, bundle: &Path) -> Result<Arc<dyn OciRuntime>> {
    let recorded = spec::read_bounded(&bundle.join(RECORD)).ok();
    let recorded = recorded.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|name| !name.is_empty());
    match recorded.or_else(|| config.binary.clone()).filter(|name| !name.is_empty()).as_deref() {
        None | Some(BUILTIN) => Ok(Arc::new(BuiltinRuntime::new(config))),
        Some(name) => Ok(Arc::new(NamedRuntime::open(config, name, bundle)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bundle(namespaces: &serde_json::Value) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let spec = json!({
            "ociVersion": "1.2.0",
            "process": {"args": ["sh"], "cwd": "/"},
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/dev", "type": "tmpfs"}],
            "linux": {"namespaces": namespaces},
        });
        std::fs::write(dir.path().join("config.json"), spec.to_string()).unwrap();
        dir
    }

    #[tokio::test]
    async fn the_built_in_runs_what_it_supports_and_this_is_recorded() {
        let bundle = bundle(&json!([{"type": "mount"}]));
        let config = RuntimeConfig::new("ns");
        assert_eq!(for_new(&config, bundle.path()).await.unwrap().name(), BUILTIN);
        assert_eq!(std::fs::read_to_string(bundle.path().join(RECORD)).unwrap(), BUILTIN);
        // What ran is what counts, whatever is configured now.
        let other = RuntimeConfig { binary: Some("sh".into()), ..config };
        assert_eq!(for_existing(&other, bundle.path()).unwrap().name(), BUILTIN);
    }

    #[tokio::test]
    async fn what_it_lacks_is_named_when_nobody_else_may_run_it() {
        let bundle = bundle(&json!([{"type": "mount"}, {"type": "time"}]));
        let config = RuntimeConfig { binary: Some(BUILTIN.into()), ..RuntimeConfig::new("ns") };
        let error = for_new(&config, bundle.path()).await.unwrap_err();
        assert_eq!(error.kind(), gantry_core::ErrorKind::FailedPrecondition);
        assert!(error.to_string().contains("time namespaces"), "{error}");
        assert!(!bundle.path().join(RECORD).exists());
        let config = RuntimeConfig { binary: Some("no-such-runtime".into()), ..config };
        assert_eq!(
            for_new(&config, bundle.path()).await.unwrap_err().kind(),
            gantry_core::ErrorKind::NotFound
        );
    }
}

//! The OCI runtime of a container, found by the options that came with it.

use std::path::Path;
use std::sync::Arc;

use gantry_api::containerd::runc::v1::{CheckpointOptions, Options};
use gantry_core::{Any, Error, Result};
use gantry_runtime::{Checkpoint, OciRuntime, RuntimeConfig, select};
use prost::Message;

/// What a runtime's options say about how to call it.
pub fn config(options: &Options, namespace: &str) -> RuntimeConfig {
    let mut config = RuntimeConfig::new(namespace);
    config.systemd_cgroup = options.systemd_cgroup;
    if !options.root.is_empty() {
        config.root = options.root.clone().into();
    }
    if !options.binary_name.is_empty() {
        config.binary = Some(options.binary_name.clone());
    }
    config
}

/// The runtime for a container that is to be made from `bundle`.
///
/// # Errors
/// `NotFound` if the named binary is not installed; `FailedPrecondition` naming what no runtime here can do.
pub(crate) async fn for_new(
    options: &Options,
    namespace: &str,
    bundle: &Path,
) -> Result<Arc<dyn OciRuntime>> {
    select::for_new(&config(options, namespace), bundle).await
}

/// The runtime that made the container of `bundle`.
///
/// # Errors
/// `NotFound` if it is not installed any more.
pub(crate) fn for_existing(options: &Options, namespace: &str, bundle: &Path) -> Result<Arc<dyn OciRuntime>> {
    select::for_existing(&config(options, namespace), bundle)
}

/// A checkpoint into `path`, as its options say.
///
/// # Errors
/// `InvalidArgument` for options that do not decode; `Unknown` for those of another kind.
pub(crate) fn checkpoint(path: &Path, options: Option<&Any>) -> Result<Checkpoint> {
    let mut checkpoint =
        Checkpoint { image_path: path.to_owned(), leave_running: true, ..Checkpoint::default() };
    let Some(any) = options else { return Ok(checkpoint) };
    // Source: `containerd.runc.v1.CheckpointOptions`.
    if any.type_name() != "containerd.runc.v1.CheckpointOptions" {
        return Err(Error::unknown(format!("checkpoint options of type {:?}", any.type_name())));
    }
    let options = CheckpointOptions::decode(any.value.clone())
        .map_err(|error| Error::invalid_argument(format!("checkpoint options: {error}")))?;
    let some = |path: String| (!path.is_empty()).then(|| path.into());
    checkpoint.leave_running = !options.exit;
    checkpoint.allow_open_tcp = options.open_tcp;
    checkpoint.allow_external_unix_sockets = options.external_unix_sockets;
    checkpoint.allow_terminal = options.terminal;
    checkpoint.file_locks = options.file_locks;
    checkpoint.empty_namespaces = options.empty_namespaces;
    checkpoint.cgroups_mode = options.cgroups_mode;
    checkpoint.work_path = some(options.work_path);
    checkpoint.parent_path = some(options.parent_path);
    if let Some(path) = some(options.image_path) {
        checkpoint.image_path = path;
    }
    Ok(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_the_runtime() {
        let options = Options {
            binary_name: "crun".into(),
            root: "/r".into(),
            systemd_cgroup: true,
            ..Options::default()
        };
        let made = config(&options, "ns");
        assert_eq!((made.binary.as_deref(), made.systemd_cgroup), (Some("crun"), true));
        assert_eq!(made.state_dir(), Path::new("/r/ns"));
        assert_eq!(config(&Options::default(), "ns").binary, None);
    }

    #[test]
    fn checkpoint_options_are_read() {
        let any = |options: CheckpointOptions| {
            Any::new("containerd.runc.v1.CheckpointOptions", options.encode_to_vec())
        };
        let options =
            CheckpointOptions { exit: true, open_tcp: true, work_path: "/w".into(), ..Default::default() };
        let made = checkpoint(Path::new("/c"), Some(&any(options))).unwrap();
        assert!(!made.leave_running && made.allow_open_tcp);
        assert_eq!(
            (made.image_path.as_path(), made.work_path.as_deref()),
            (Path::new("/c"), Some(Path::new("/w")))
        );
        assert!(checkpoint(Path::new("/c"), None).unwrap().leave_running);
        assert!(checkpoint(Path::new("/c"), Some(&Any::new("other", &b""[..]))).is_err());
    }
}

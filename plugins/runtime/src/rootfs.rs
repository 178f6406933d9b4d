//! The root file system's mounts: what a shim cannot do of them is done before it is started.

use std::path::Path;

use gantry_core::mount::Mount;
use gantry_core::mounts::ActivateMounts;
use gantry_core::{Context, ErrorKind, Result, ResultExt, wire_names};
use gantry_shim::wire::RuntimeInfo;
use prost::Message;

use crate::bootstrap;
use crate::manager::Inner;

/// A root file system's mounts as the shim gets them.
pub(crate) struct Rootfs {
    pub(crate) mounts: Vec<Mount>,
    /// Whether they were activated for this task, and are to be deactivated if it is not made.
    pub(crate) activated: bool,
}

impl Inner {
    /// Activates what of `mounts` is for the mount manager, under the container's id.
    ///
    /// # Errors
    /// Those of the manager.
    pub(crate) async fn rootfs(
        &self,
        cx: &Context,
        id: &str,
        binary: &Path,
        mounts: Vec<Mount>,
    ) -> Result<Rootfs> {
        let Some(manager) = self.mounts.get().filter(|manager| manager.is_for(&mounts)) else {
            return Ok(Rootfs { mounts, activated: false });
        };
        let label = (format!("{}.container", wire_names::LABEL_GC_BREF), id.to_owned());
        let how = ActivateMounts {
            labels: [label].into(),
            allowed_types: self.done_by_shim(binary).await,
            ..ActivateMounts::default()
        };
        match manager.activate(cx, id, &mounts, how).await {
            Ok(activation) => Ok(Rootfs { mounts: activation.system, activated: true }),
            // An earlier task of the container left them: they are kept by the container's record.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let activation = manager.info(cx, id).await.context("look at the mounts that are there")?;
                Ok(Rootfs { mounts: activation.system, activated: false })
            }
            Err(error) if error.kind() == ErrorKind::Unimplemented => {
                tracing::debug!(%error, container_id = id, "the mounts are left to the shim");
                Ok(Rootfs { mounts, activated: false })
            }
            Err(error) => Err(error),
        }
    }

    /// Unmounts what was activated for a task that is gone, if anything was.
    pub(crate) async fn deactivate_rootfs(&self, cx: &Context, id: &str) {
        let Some(manager) = self.mounts.get() else { return };
        match manager.deactivate(cx, id).await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(container_id = id, %error, "the mounts of a task stay for now");
            }
            _ => {}
        }
    }

    /// The types that the shim says it mounts itself.
    async fn done_by_shim(&self, binary: &Path) -> Vec<String> {
        let info = match bootstrap::info(&self.config, binary, None).await {
            Ok(info) => info,
            Err(error) => {
                tracing::warn!(path = %binary.display(), %error, "a shim says nothing about itself");
                return Vec::new();
            }
        };
        allowed_types(&info)
    }
}

fn allowed_types(info: &[u8]) -> Vec<String> {
    let info = RuntimeInfo::decode(info).unwrap_or_default();
    let types = info.annotations.get(wire_names::ANNOTATION_ALLOW_MOUNTS);
    types.into_iter().flat_map(|types| types.split(',')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_lists_types_with_commas() {
        let annotations = [(wire_names::ANNOTATION_ALLOW_MOUNTS.to_owned(), "loop,format/*".to_owned())];
        let info = RuntimeInfo { annotations: annotations.into(), ..Default::default() };
        assert_eq!(allowed_types(&info.encode_to_vec()), ["loop", "format/*"]);
        assert!(allowed_types(&[]).is_empty() && allowed_types(b"\xff").is_empty());
    }
}

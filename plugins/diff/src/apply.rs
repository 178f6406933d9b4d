//! Applying a layer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use gantry_archive::{AppliedLayer, Compression, Lowers, Target, apply_layer};
use gantry_core::content::ContentReader;
use gantry_core::mount::Mount;
use gantry_core::{Any, Context, Descriptor, Error, ErrorKind, Result, ResultExt};
use gantry_mount::with_temp_mount;
use gantry_oci::media_types;
use tokio::runtime::Handle;

use crate::layers::Layers;
use crate::processor::{Chain, FAILING_MOMENTS, LAST_MOMENTS, Processors};
use crate::stream::ContentStream;

/// A layer, and where it goes.
pub(crate) struct Application {
    pub(crate) runtime: Handle,
    /// Where temporary mounts are made.
    pub(crate) temp: std::path::PathBuf,
    pub(crate) reader: Arc<dyn ContentReader>,
    /// What the layer goes through before it is one of the types known here.
    pub(crate) chain: Chain,
    /// Payloads for the programs of the chain, by their ids.
    pub(crate) payloads: BTreeMap<String, Any>,
    /// `None` if the first bytes tell.
    pub(crate) compression: Option<Compression>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) sync_fs: bool,
}

/// How a layer of this type is read.
///
/// # Errors
/// `Unimplemented` for types that no tar layer has.
pub(crate) fn compression(media_type: &str) -> Result<Option<Compression>> {
    match media_types::layer_compression(media_type) {
        Some(media_types::Compression::None) => Ok(Some(Compression::None)),
        // Source: containerd looks at the bytes whichever compression the type states.
        Some(_) => Ok(None),
        None => Err(Error::unimplemented(format!("no processor for media-type {media_type:?}"))),
    }
}

impl Application {
    /// Applies the layer and gives the descriptor of its uncompressed tar. Blocks.
    pub(crate) fn run(&self, cx: &Context) -> Result<Descriptor> {
        let applied = match self.target() {
            Some(target) => match self.extract(cx, &target) {
                Err(error) if error.kind() == ErrorKind::Unimplemented => {
                    // What was written so far is the start of the same layer: applying all of it again ends the same.
                    tracing::debug!(%error, "the layer is applied to a mount");
                    self.mounted(cx)?
                }
                done => done?,
            },
            None => self.mounted(cx)?,
        };
        let size = i64::try_from(applied.size_bytes)
            .map_err(|_| Error::invalid_argument("the layer is too large"))?;
        Ok(Descriptor::new(media_types::OCI_LAYER, applied.diff_id, size))
    }

    /// The directory that can be written to in place of the mounts.
    fn target(&self) -> Option<Target> {
        match Layers::of(&self.mounts)? {
            Layers::Directory { path, writable: true } => Some(Target::Directory(path)),
            Layers::Overlay { upper: Some(upper), lowers, xattrs } => {
                Some(Target::Overlay { upper, lowers: Lowers::Known(lowers), xattrs })
            }
            _ => None,
        }
    }

    fn mounted(&self, cx: &Context) -> Result<AppliedLayer> {
        with_temp_mount(&self.temp, &self.mounts, |root| {
            self.extract(cx, &Target::Directory(root.to_path_buf()))
        })
    }

    fn extract(&self, cx: &Context, target: &Target) -> Result<AppliedLayer> {
        let stream = ContentStream::new(cx, &self.runtime, &self.reader);
        let applied = if self.chain.is_empty() {
            apply_layer(cx, stream, self.compression, target)?
        } else {
            let mut programs = Processors::start(cx, &self.chain, stream, &self.payloads)?;
            let applied = apply_layer(cx, &mut programs, self.compression, target);
            match &applied {
                Ok(_) => programs.finish(LAST_MOMENTS)?,
                // A program that failed is the reason why its output was no layer; one that still runs is not.
                Err(error) if error.kind() == ErrorKind::InvalidArgument => {
                    match programs.finish(FAILING_MOMENTS) {
                        Err(failed) if failed.kind() != ErrorKind::DeadlineExceeded => return Err(failed),
                        _ => {}
                    }
                }
                Err(_) => {}
            }
            applied?
        };
        if self.sync_fs {
            let (Target::Directory(root) | Target::Overlay { upper: root, .. }) = target;
            sync_fs(root)?;
        }
        Ok(applied)
    }
}

/// Makes the file system that `root` is on durable.
fn sync_fs(root: &Path) -> Result<()> {
    let synced = std::fs::File::open(root).and_then(|dir| rustix::fs::syncfs(&dir).map_err(Into::into));
    synced.with_context(|| format!("sync the file system of {}", root.display()))
}

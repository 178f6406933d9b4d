//! Computing a layer.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gantry_archive::{Compression, Compressor, OverlayXattrs, WriteLayer, write_changes, write_upper};
use gantry_core::content::ContentWriter;
use gantry_core::mount::Mount;
use gantry_core::{Context, Digest, Error, ErrorKind, Result};
use gantry_mount::{read_only, with_temp_mount};
use gantry_oci::media_types;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use crate::layers::Layers;
use crate::stream::{ContentSink, waiting};

/// Two trees, and how the layer between them is written.
pub(crate) struct Comparison {
    pub(crate) runtime: Handle,
    /// Where temporary mounts are made.
    pub(crate) temp: PathBuf,
    pub(crate) lower: Vec<Mount>,
    pub(crate) upper: Vec<Mount>,
    pub(crate) compression: Compression,
    pub(crate) how: WriteLayer,
}

/// How a layer of this type is written.
///
/// # Errors
/// `Unimplemented` for types that nobody here writes.
pub(crate) fn compression(media_type: &str) -> Result<Compression> {
    match media_type {
        media_types::OCI_LAYER => Ok(Compression::None),
        media_types::OCI_LAYER_GZIP => Ok(Compression::Gzip),
        media_types::OCI_LAYER_ZSTD => Ok(Compression::Zstd),
        _ => Err(Error::unimplemented(format!("unsupported diff media type: {media_type}"))),
    }
}

impl Comparison {
    /// Writes the layer to `writer` and gives its diff id. Blocks.
    pub(crate) fn run(&self, cx: &Context, writer: &mut dyn ContentWriter) -> Result<Digest> {
        if let Some((upper, lowers, xattrs)) = self.single_upper() {
            let read = self
                .write(cx, writer, |out| write_upper(cx, &upper, &lowers, xattrs, out, &self.how).map(drop));
            match read {
                Err(error) if error.kind() == ErrorKind::Unimplemented => {
                    tracing::debug!(%error, "the layer is computed from mounts");
                    waiting(cx, &self.runtime, writer.truncate(0))?;
                }
                done => return done,
            }
        }
        self.looked_at(cx, &self.lower, |lower| {
            self.looked_at(cx, &self.upper, |upper| {
                self.write(cx, writer, |out| write_changes(cx, lower, upper, out, &self.how).map(drop))
            })
        })
    }

    /// The one directory by which `upper` differs from `lower`, with all those below it.
    fn single_upper(&self) -> Option<(PathBuf, Vec<PathBuf>, OverlayXattrs)> {
        let Layers::Overlay { upper, lowers, xattrs } = Layers::of(&self.upper)? else { return None };
        let below = Layers::of(&self.lower)?.all();
        let (upper, lowers) = match upper {
            Some(upper) => (upper, lowers),
            // A view: its topmost layer may be what differs.
            None => {
                let (upper, lowers) = lowers.split_first()?;
                (upper.clone(), lowers.to_vec())
            }
        };
        (lowers == below).then_some((upper, lowers, xattrs))
    }

    /// Runs `work` on what `mounts` show.
    fn looked_at<T>(
        &self,
        cx: &Context,
        mounts: &[Mount],
        work: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        cx.check()?;
        match Layers::of(mounts) {
            Some(Layers::Directory { path, .. }) => work(&path),
            _ => with_temp_mount(&self.temp, &read_only(mounts)?, work),
        }
    }

    fn write(
        &self,
        cx: &Context,
        writer: &mut dyn ContentWriter,
        layer: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<Digest> {
        let sink = ContentSink::new(cx, &self.runtime, writer);
        let mut out = Hashed { inner: Compressor::new(sink, self.compression)?, hash: Sha256::new() };
        layer(&mut out)?;
        let diff_id = Digest::sha256(out.hash.finalize());
        let mut sink = out.inner.finish()?;
        sink.flush().map_err(from_write)?;
        Ok(diff_id)
    }
}

/// Hashes what is written.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(data)?;
        self.hash.update(&data[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The store's own error, if that is what went through `std::io`.
fn from_write(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io(error).context("write layer"),
    }
}

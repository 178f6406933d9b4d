//! Extracting a layer.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use gantry_core::{Context, Digest, Error, ErrorKind, Result, ResultExt};

use crate::attributes;
use crate::compression::{Compression, Decompressor};
use crate::entry::{Entry, EntryKind};
use crate::failure::malformed;
use crate::layer_stream::{Cancellable, LayerStream};
use crate::lower::{Lowers, OverlayXattrs};
use crate::name::{join, parts};
use crate::node;
use crate::reader::TarReader;
use crate::tree::{Found, Tree};
use crate::whiteout::Whiteout;

/// How many implied directories and missing links are reported at most.
pub(crate) const MAX_REPORTED: usize = 1 << 20;

/// Where a layer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A directory that holds the lower layers already, or nothing: what the layer removes is removed in it.
    Directory(PathBuf),
    /// The upper directory of an overlay: what the layer removes is hidden by marks.
    Overlay {
        /// The directory that is written.
        upper: PathBuf,
        /// What lies below it.
        lowers: Lowers,
        /// How the overlay will be mounted.
        xattrs: OverlayXattrs,
    },
}

/// What a layer did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// Entries in the archive.
    pub entries: u64,
    /// Bytes in the files of the archive, holes included.
    pub content_bytes: u64,
    /// Above lower layers that are [`Lowers::Unknown`]: directories that had to be made without being listed, in
    /// order. They must get owner, mode, attributes and times of what lies below, or give way to a link there.
    pub implied: Vec<PathBuf>,
    /// The same: hard links whose target is not in this layer.
    pub missing_links: Vec<MissingLink>,
}

/// A hard link that could not be made.
#[derive(Clone, Debug, PartialEq)]
pub struct MissingLink {
    /// Where it belongs, from the root.
    pub path: PathBuf,
    /// What it links to, as the archive says.
    pub target: PathBuf,
    /// All the archive says about it.
    pub entry: Entry,
}

/// What a compressed layer did, and what it was.
#[derive(Clone, Debug, PartialEq)]
pub struct AppliedLayer {
    /// The digest of the uncompressed layer.
    pub diff_id: Digest,
    /// The length of the uncompressed layer.
    pub size_bytes: u64,
    /// What it did.
    pub applied: Applied,
}

/// Extracts the layer in `stream` in one pass: decompress, hash, extract. With no `compression` given the first bytes
/// tell. The stream is read to its end, also behind the archive's.
///
/// # Errors
/// As [`apply`].
pub fn apply_layer<R: Read>(
    cx: &Context,
    stream: R,
    compression: Option<Compression>,
    target: &Target,
) -> Result<AppliedLayer> {
    let stream = Cancellable::new(cx, stream);
    let decompressor = match compression {
        Some(compression) => Decompressor::new(stream, compression)?,
        None => Decompressor::detect(stream)?,
    };
    // Cancelled on both sides: a small stream can hold a large layer.
    let mut layer = LayerStream::new(Cancellable::new(cx, decompressor));
    let applied = apply(cx, &mut layer, target)?;
    let (diff_id, size_bytes) = layer.finish()?;
    Ok(AppliedLayer { diff_id, size_bytes, applied })
}

/// Extracts the plain archive in `archive`. What stands later in it wins. It ends at the archive's end: what follows
/// is not read.
///
/// # Errors
/// `InvalidArgument` for an archive that is none, or holds what no layer may; `Canceled` and `DeadlineExceeded` by
/// `cx`; `Unimplemented` if the lower layers need a mount to be read (then nothing is lost by applying the whole layer
/// again to that mount); `ResourceExhausted` if the disk is full; those of the file system. What was extracted so far
/// stays.
pub fn apply<R: Read>(cx: &Context, archive: R, target: &Target) -> Result<Applied> {
    let mut reader = TarReader::new(archive);
    let mut layer = Extraction {
        tree: Tree::open(target)?,
        devices: !in_user_namespace(),
        done: Applied::default(),
        links: 0,
        buffer: vec![0u8; 128 << 10],
    };
    while let Some(entry) = reader.next_entry()? {
        cx.check()?;
        layer.entry(&entry, &mut reader).with_context(|| {
            format!("extract {:?}", String::from_utf8_lossy(&entry.path[..entry.path.len().min(256)]))
        })?;
        layer.done.entries += 1;
        layer.done.content_bytes = layer.done.content_bytes.saturating_add(entry.size_bytes);
    }
    layer.tree.settle()?;
    layer.done.implied = std::mem::take(&mut layer.tree.implied).into_iter().collect();
    Ok(layer.done)
}

struct Extraction {
    tree: Tree,
    /// Whether device nodes can be made here.
    devices: bool,
    done: Applied,
    links: usize,
    buffer: Vec<u8>,
}

impl Extraction {
    fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut TarReader<R>) -> Result<()> {
        let parts = parts(&entry.path)?;
        let whiteout = Whiteout::of(&parts)?;
        let (Some((name, parents)), false) = (parts.split_last(), whiteout == Whiteout::Aufs) else {
            // The root's own entry changes nothing. Source: containerd.
            return Ok(());
        };
        let device = matches!(entry.kind, EntryKind::BlockDevice | EntryKind::CharDevice);
        if device && !self.devices {
            // Source: containerd leaves devices out where none can be made.
            return Ok(());
        }
        let dir = self.tree.enter(parents, true)?;
        match whiteout {
            Whiteout::Opaque => return self.tree.make_opaque(&dir),
            Whiteout::Name(name) => return node::whiteout(&mut self.tree, &dir, name),
            Whiteout::No | Whiteout::Aufs => {}
        }
        match entry.kind {
            EntryKind::Directory => {
                let made = match self.tree.look(&dir, name)? {
                    Found::Directory(there) => there,
                    _ => self.tree.make_directory(&dir, name)?,
                };
                // Written into its parent: also when it was there.
                self.tree.fd(&dir)?;
                let fd = self.tree.fd(&made)?;
                attributes::set_open(&fd, entry)?;
                made.set_times(attributes::times(entry));
                self.tree.note_listed(&made.path);
                Ok(())
            }
            EntryKind::File => node::file(&mut self.tree, &dir, name, entry, reader, &mut self.buffer),
            EntryKind::Symlink => node::symlink(&mut self.tree, &dir, name, entry),
            EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo => {
                node::special(&mut self.tree, &dir, name, entry)
            }
            EntryKind::Link => match node::link(&mut self.tree, &dir, name, entry) {
                Err(error) if error.kind() == ErrorKind::NotFound && self.tree.waits_for_lowers() => {
                    self.missing_link(join(&dir.path, name), entry)
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    Err(error.with_kind(ErrorKind::InvalidArgument))
                }
                done => done,
            },
            EntryKind::Other(kind) => Err(malformed(format!("unhandled tar header type {kind}"))),
        }
    }

    fn missing_link(&mut self, path: Vec<u8>, entry: &Entry) -> Result<()> {
        self.links += 1;
        if self.links > MAX_REPORTED {
            return Err(Error::resource_exhausted("too many links to files of lower layers"));
        }
        let text = |bytes: Vec<u8>| PathBuf::from(OsString::from_vec(bytes));
        self.done.missing_links.push(MissingLink {
            path: text(path),
            target: text(entry.link.clone()),
            entry: entry.clone(),
        });
        Ok(())
    }
}

/// Whether this process is in a user namespace of its own, where no device can be made.
fn in_user_namespace() -> bool {
    // Source: user_namespaces(7): the initial one maps all ids to themselves.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let fields: Vec<&str> = map.split_whitespace().collect();
    !fields.is_empty() && fields != ["0", "0", "4294967295"]
}

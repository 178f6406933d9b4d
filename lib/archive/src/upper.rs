//! The upper directory of an overlay as a layer: it holds just what differs.

use std::io::Write;
use std::path::{Path, PathBuf};

use gantry_core::{Context, Error, Result};
use rustix::fs::{FileType, OFlags};

use crate::changes::open;
use crate::directory::Below;
use crate::failure::at;
use crate::layer_writer::{Layer, WriteLayer};
use crate::lower::{LowerStack, Merged, OverlayXattrs, is_whiteout, open_beneath};
use crate::name::join;
use crate::removal::entries;
use crate::xattr;

/// A directory on the way: its path, what shows through it, and the names yet to be looked at.
struct Level {
    path: Vec<u8>,
    below: Below,
    names: std::vec::IntoIter<Vec<u8>>,
}

/// Writes the upper directory `upper`, which lies above the directories `lowers` (newest first), to `out`: the
/// layer that turns these into the mounted whole.
///
/// # Errors
/// `Unimplemented` if the upper directory refers to lower layers in a way that only a mount can follow; otherwise as
/// [`crate::write_changes`].
pub fn write_upper<W: Write>(
    cx: &Context,
    upper: &Path,
    lowers: &[PathBuf],
    xattrs: OverlayXattrs,
    out: W,
    how: &WriteLayer,
) -> Result<W> {
    let stack = LowerStack::open(lowers, xattrs)?;
    let mut layer = Layer::new(cx, upper, out, how)?;
    let root = Level { path: Vec::new(), below: Below::Known(stack.all()), names: names(&layer, b"")? };
    let mut walk = vec![root];
    while let Some(level) = walk.last_mut() {
        let Some(name) = level.names.next() else {
            walk.pop();
            continue;
        };
        layer.check()?;
        let path = join(&level.path, &name);
        let Some((fd, stat)) = open(layer.root(), &path)? else { continue };
        let Below::Known(layers) = &level.below else { continue };
        if is_whiteout(&stat) {
            // What hides nothing need not be told.
            if !matches!(stack.merged(layers, &path)?, Merged::Missing) {
                layer.removed(&path)?;
            }
            continue;
        }
        let failed = |errno| at("read the overlay marks of", &path, errno);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let shown = match stack.merged(layers, &path)? {
                    Merged::Directory(shown) => shown,
                    Merged::Missing | Merged::File(..) => Vec::new(),
                };
                if stack.is_redirected(&fd).map_err(failed)? {
                    return Err(only_by_mount("a directory was renamed"));
                }
                layer.changed(&path, &fd, &stat)?;
                let opaque = xattr::get(&fd, xattrs.opaque()).map_err(failed)?;
                let opaque = opaque.is_some_and(|mark| mark == b"y");
                if opaque && !shown.is_empty() {
                    layer.opaque(&path)?;
                }
                let below = Below::Known(if opaque { Vec::new() } else { shown });
                let names = names(&layer, &path)?;
                walk.push(Level { path, below, names });
            }
            FileType::RegularFile if stack.is_metacopy(&fd).map_err(failed)? => {
                return Err(only_by_mount("a file's content is in a lower layer"));
            }
            _ => layer.changed(&path, &fd, &stat)?,
        }
    }
    layer.finish()
}

fn names<W: Write>(layer: &Layer<'_, W>, path: &[u8]) -> Result<std::vec::IntoIter<Vec<u8>>> {
    let here: &[u8] = if path.is_empty() { b"." } else { path };
    let listed =
        open_beneath(layer.root(), here, OFlags::RDONLY | OFlags::DIRECTORY).and_then(|fd| entries(&fd));
    let mut names: Vec<Vec<u8>> =
        listed.map_err(|errno| at("list", path, errno))?.into_iter().map(|(name, _)| name).collect();
    names.sort();
    Ok(names.into_iter())
}

fn only_by_mount(what: &'static str) -> Error {
    Error::unimplemented(what).context("read an upper directory without mounting it")
}

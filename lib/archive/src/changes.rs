//! The difference between two trees.

use std::collections::BTreeMap;
use std::collections::btree_map::IntoIter;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use gantry_core::{Context, Error, Result};
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;

use crate::failure::at;
use crate::layer_writer::{Layer, WriteLayer, read, xattrs_of};
use crate::lower::{open_beneath, open_root};
use crate::name::join;
use crate::removal::entries;

/// Which of the two trees have a name.
#[derive(Clone, Copy, Default)]
struct Sides {
    lower: bool,
    upper: bool,
}

/// Writes the layer that turns the tree `lower` into the tree `upper` to `out`. Both are walked side by side.
///
/// # Errors
/// `Canceled` and `DeadlineExceeded` by `cx`; `DataLoss` if a file shrinks while it is read; those of the file
/// systems and of `out`.
pub fn write_changes<W: Write>(
    cx: &Context,
    lower: &Path,
    upper: &Path,
    out: W,
    how: &WriteLayer,
) -> Result<W> {
    let lower = open_root(lower)?;
    let mut layer = Layer::new(cx, upper, out, how)?;
    let mut walk = vec![(Vec::new(), names(Some(&lower), layer.root(), b"")?)];
    while let Some((dir, names_left)) = walk.last_mut() {
        let Some((name, sides)) = names_left.next() else {
            walk.pop();
            continue;
        };
        layer.check()?;
        let path = join(dir, &name);
        if !sides.upper {
            layer.removed(&path)?;
            continue;
        }
        let Some((fd, stat)) = open(layer.root(), &path)? else {
            if sides.lower {
                layer.removed(&path)?;
            }
            continue;
        };
        let older = if sides.lower { open(&lower, &path)? } else { None };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let both_dirs = is_dir
            && older
                .as_ref()
                .is_some_and(|(_, older)| FileType::from_raw_mode(older.st_mode) == FileType::Directory);
        let same = match &older {
            Some((older_fd, older)) => same(&path, (older_fd, older), (&fd, &stat))?,
            None => false,
        };
        match same {
            true => layer.unchanged(&path, &fd, &stat)?,
            false => layer.changed(&path, &fd, &stat)?,
        }
        if is_dir {
            let names = names(both_dirs.then_some(&lower), layer.root(), &path)?;
            walk.push((path, names));
        }
    }
    layer.finish()
}

/// The names in one directory of both trees, in byte order.
fn names(lower: Option<&OwnedFd>, upper: &OwnedFd, path: &[u8]) -> Result<IntoIter<Vec<u8>, Sides>> {
    let mut names: BTreeMap<Vec<u8>, Sides> = BTreeMap::new();
    let here: &[u8] = if path.is_empty() { b"." } else { path };
    let list = |root: &OwnedFd| {
        open_beneath(root, here, OFlags::RDONLY | OFlags::DIRECTORY)
            .and_then(|fd| entries(&fd))
            .map_err(|errno| at("list", path, errno))
    };
    if let Some(lower) = lower {
        for (name, _) in list(lower)? {
            names.entry(name).or_default().lower = true;
        }
    }
    for (name, _) in list(upper)? {
        names.entry(name).or_default().upper = true;
    }
    Ok(names.into_iter())
}

/// The file `path` itself, without its content; `None` if it went away meanwhile.
pub(crate) fn open(root: &OwnedFd, path: &[u8]) -> Result<Option<(OwnedFd, Stat)>> {
    let opened = open_beneath(root, path, OFlags::PATH).and_then(|fd| {
        let stat = rustix::fs::fstat(&fd)?;
        Ok((fd, stat))
    });
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(at("open", path, errno)),
    }
}

/// Whether a file is the same in both trees. Source: containerd's rules: type, mode, owner, device number and
/// attributes; but for directories also size and time, and the content where the times have no fraction and so may
/// have been cut.
fn same(path: &[u8], lower: (&OwnedFd, &Stat), upper: (&OwnedFd, &Stat)) -> Result<bool> {
    let ((lower_fd, a), (upper_fd, b)) = (lower, upper);
    if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) {
        return Ok(true);
    }
    if (a.st_mode, a.st_uid, a.st_gid, a.st_rdev) != (b.st_mode, b.st_uid, b.st_gid, b.st_rdev) {
        return Ok(false);
    }
    if xattrs_of(lower_fd, path)? != xattrs_of(upper_fd, path)? {
        return Ok(false);
    }
    let kind = FileType::from_raw_mode(a.st_mode);
    if kind == FileType::Directory {
        return Ok(true);
    }
    if (a.st_size, a.st_mtime, a.st_mtime_nsec) != (b.st_size, b.st_mtime, b.st_mtime_nsec) {
        return Ok(false);
    }
    match kind {
        _ if a.st_mtime_nsec != 0 => Ok(true),
        FileType::Symlink => {
            let target = |fd: &OwnedFd| rustix::fs::readlinkat(fd, "", Vec::new());
            let failed = |errno| at("read link", path, errno);
            Ok(target(lower_fd).map_err(failed)? == target(upper_fd).map_err(failed)?)
        }
        FileType::RegularFile => same_content(path, lower_fd, upper_fd),
        _ => Ok(true),
    }
}

fn same_content(path: &[u8], lower: &OwnedFd, upper: &OwnedFd) -> Result<bool> {
    let failed = |error: std::io::Error| {
        Error::io(error).context(format!("compare {:?}", String::from_utf8_lossy(path)))
    };
    let mut lower = read(lower).map_err(|errno| at("open", path, errno))?;
    let mut upper = read(upper).map_err(|errno| at("open", path, errno))?;
    let (mut a, mut b) = (vec![0u8; 64 << 10], vec![0u8; 64 << 10]);
    loop {
        let count = lower.read(&mut a).map_err(failed)?;
        if count == 0 {
            return Ok(upper.read(&mut b[..1]).map_err(failed)? == 0);
        }
        match upper.read_exact(&mut b[..count]) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
        if a[..count] != b[..count] {
            return Ok(false);
        }
    }
}

//! Making what an entry describes: files, links, devices, whiteouts.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use gantry_core::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::attributes;
use crate::directory::{Below, Dir, times_of};
use crate::entry::{Entry, EntryKind};
use crate::failure::{at, malformed};
use crate::lower::{Merged, is_whiteout, open_beneath};
use crate::name::{MAX_PATH_BYTES, join};
use crate::reader::TarReader;
use crate::tree::Tree;

/// A regular file with its content.
pub(crate) fn file<R: Read>(
    tree: &mut Tree,
    dir: &Rc<Dir>,
    name: &[u8],
    entry: &Entry,
    content: &mut TarReader<R>,
    buffer: &mut [u8],
) -> Result<()> {
    let (fd, _) = tree.replacing(dir, name, |dir, name| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
    })?;
    let sparse = content.is_sparse();
    let file = std::fs::File::from(fd);
    let failed = |error: std::io::Error| {
        Error::io(error).context(format!("write {:?}", String::from_utf8_lossy(&entry.path)))
    };
    while let Some((offset, count)) = content.next_run(buffer)? {
        file.write_all_at(&buffer[..count], offset).map_err(failed)?;
    }
    if sparse {
        file.set_len(entry.size_bytes).map_err(failed)?;
    }
    let fd = OwnedFd::from(file);
    attributes::set_open(&fd, entry)?;
    rustix::fs::futimens(&fd, &attributes::times(entry))
        .map_err(|errno| at("set times of", &entry.path, errno))
}

/// A symbolic link: its target is not looked at.
pub(crate) fn symlink(tree: &mut Tree, dir: &Rc<Dir>, name: &[u8], entry: &Entry) -> Result<()> {
    if entry.link.is_empty() || entry.link.len() >= MAX_PATH_BYTES {
        return Err(malformed("target of a link is empty or too long"));
    }
    tree.replacing(dir, name, |dir, name| rustix::fs::symlinkat(&entry.link[..], dir, name))?;
    attributes::set_named(&*tree.fd(dir)?, name, entry)
}

/// A device or a fifo.
pub(crate) fn special(tree: &mut Tree, dir: &Rc<Dir>, name: &[u8], entry: &Entry) -> Result<()> {
    let kind = match entry.kind {
        EntryKind::CharDevice => FileType::CharacterDevice,
        EntryKind::BlockDevice => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    // Linux holds 12 bits of major and 20 of minor number. Source: the kernel's `kdev_t.h`.
    let (major, minor) = entry.device;
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(malformed(format!("device number {major}:{minor} out of range")));
    }
    if tree.overlay.is_some() && kind == FileType::CharacterDevice && entry.device == (0, 0) {
        // What an overlay takes for a whiteout cannot be a device in it; archives of upper directories hold such.
        return whiteout(tree, dir, name);
    }
    let device = if kind == FileType::Fifo { 0 } else { rustix::fs::makedev(major, minor) };
    tree.replacing(dir, name, |dir, name| {
        rustix::fs::mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, device)
    })?;
    attributes::set_named(&*tree.fd(dir)?, name, entry)
}

/// A hard link to a file within the tree.
///
/// # Errors
/// `NotFound` if the target is missing.
pub(crate) fn link(tree: &mut Tree, dir: &Rc<Dir>, name: &[u8], entry: &Entry) -> Result<()> {
    if entry.link.len() > MAX_PATH_BYTES {
        return Err(malformed("target of a link is too long"));
    }
    let trimmed = entry.link.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let parts: Vec<&[u8]> = trimmed.collect();
    let Some((target, parents)) = parts.split_last().filter(|(target, _)| **target != b"..") else {
        return Err(malformed("a hard link to a directory"));
    };
    let from = tree.enter(parents, false)?;
    let target_path = join(&from.path, target);
    if target_path == join(&dir.path, name) {
        // A link to itself: the file is there, and stays.
        return stay(tree, &from, target, entry);
    }
    let source = source(tree, &from, target, &target_path)?;
    let made = tree
        .replacing(dir, name, |dir, name| rustix::fs::linkat(&*source, *target, dir, name, AtFlags::empty()));
    if let Err(error) = made {
        // Linux answers this for directories.
        return Err(if error.os_error() == Some(Errno::PERM.raw_os_error()) {
            error.with_kind(ErrorKind::InvalidArgument)
        } else {
            error
        });
    }
    attributes::set_named(&*tree.fd(dir)?, name, entry)
}

fn stay(tree: &mut Tree, dir: &Rc<Dir>, name: &[u8], entry: &Entry) -> Result<()> {
    let path = join(&dir.path, name);
    let fd = source(tree, dir, name, &path)?;
    let stat = rustix::fs::statat(&*fd, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| at("stat", &path, errno))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(malformed("a hard link to a directory"));
    }
    attributes::set_named(&fd, name, entry)
}

/// The written directory that holds the target of a link; a file that only lower layers have is copied there first.
fn source(tree: &mut Tree, dir: &Rc<Dir>, name: &[u8], path: &[u8]) -> Result<Rc<OwnedFd>> {
    let missing = || Error::not_found(format!("target of the link, {:?}", String::from_utf8_lossy(path)));
    if let Some(fd) = dir.fd() {
        match rustix::fs::statat(&*fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if tree.overlay.is_some() && is_whiteout(&stat) => return Err(missing()),
            Ok(_) => return tree.fd(dir),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(at("stat", path, errno)),
        }
    }
    let Below::Known(layers) = dir.below() else { return Err(missing()) };
    match tree.lowers.merged(&layers, path)? {
        Merged::Missing => Err(missing()),
        Merged::Directory(_) => Err(malformed("a hard link to a directory")),
        Merged::File(from, stat) => {
            if tree.lowers.is_metacopy(&from).map_err(|errno| at("read the overlay marks of", path, errno))? {
                return Err(Error::unimplemented("a file whose content is in another layer"));
            }
            copy_up(tree, dir, name, &from, &stat)?;
            tree.fd(dir)
        }
    }
}

/// Copies a file of a lower layer, opened with `O_PATH`, to the same place in the written tree.
fn copy_up(tree: &mut Tree, dir: &Rc<Dir>, name: &[u8], from: &OwnedFd, stat: &Stat) -> Result<()> {
    let path = join(&dir.path, name);
    let failed = |step: &'static str| {
        let path = path.clone();
        move |errno| at(step, &path, errno)
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let (to, _) = tree.replacing(dir, name, |dir, name| {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
            })?;
            let from = crate::xattr::through_proc(from);
            let reading = rustix::fs::open(from, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            let mut reading = std::fs::File::from(reading.map_err(failed("open"))?);
            let mut writing = std::fs::File::from(to);
            std::io::copy(&mut reading, &mut writing).map_err(|error| {
                Error::io(error).context(format!("copy up {:?}", String::from_utf8_lossy(&path)))
            })?;
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, "", Vec::new()).map_err(failed("read link"))?;
            tree.replacing(dir, name, |dir, name| rustix::fs::symlinkat(&target, dir, name))?;
        }
        kind => {
            tree.replacing(dir, name, |dir, name| {
                rustix::fs::mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)
            })?;
        }
    }
    let parent = tree.fd(dir)?;
    let made = open_beneath(&parent, name, OFlags::PATH).map_err(failed("open"))?;
    attributes::copy_owner_xattrs(from, &made, stat, &path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        rustix::fs::chmod(crate::xattr::through_proc(&made), Mode::from_raw_mode(stat.st_mode))
            .map_err(failed("chmod"))?;
    }
    rustix::fs::utimensat(&made, "", &times_of(stat), AtFlags::EMPTY_PATH).map_err(failed("set times of"))
}

/// Removes `name`: from the tree, and where lower layers may have it, by a mark.
pub(crate) fn whiteout(tree: &mut Tree, dir: &Rc<Dir>, name: &[u8]) -> Result<()> {
    if tree.overlay.is_none() || !dir.below().shows() {
        // In a directory through which nothing shows a mark would hide nothing, and be listed.
        tree.clear(dir, name)?;
        return Ok(());
    }
    tree.replacing(dir, name, |dir, name| {
        rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)
    })?;
    Ok(())
}

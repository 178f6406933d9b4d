//! The layers below an overlay's upper directory, looked through as the kernel does.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use gantry_core::{Error, Result, ResultExt};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::failure::at;
use crate::xattr;

/// What is below an upper directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lowers {
    /// These directories, newest first. None of them is changed.
    Known(Vec<PathBuf>),
    /// Something, to be joined later: what would depend on it is reported instead.
    Unknown,
}

/// Which extended attributes an overlay keeps its marks in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverlayXattrs {
    /// `trusted.overlay.*`, which needs the right to.
    #[default]
    Trusted,
    /// `user.overlay.*`, for mounts with `userxattr`.
    User,
}

impl OverlayXattrs {
    /// Source: the kernel's `Documentation/filesystems/overlayfs.rst`, "whiteouts and opaque directories".
    pub(crate) fn opaque(self) -> &'static [u8] {
        match self {
            OverlayXattrs::Trusted => b"trusted.overlay.opaque",
            OverlayXattrs::User => b"user.overlay.opaque",
        }
    }

    /// Source: the same, "redirect_dir".
    fn redirect(self) -> &'static [u8] {
        match self {
            OverlayXattrs::Trusted => b"trusted.overlay.redirect",
            OverlayXattrs::User => b"user.overlay.redirect",
        }
    }

    /// Source: the same, "metadata only copy up".
    fn metacopy(self) -> &'static [u8] {
        match self {
            OverlayXattrs::Trusted => b"trusted.overlay.metacopy",
            OverlayXattrs::User => b"user.overlay.metacopy",
        }
    }
}

/// Whether `name` is a mark of an overlay, of either kind: these describe layers and belong to no file.
pub(crate) fn is_overlay_mark(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Whether a file of this type and number hides what lies below.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// What one layer has under a name.
#[derive(Debug)]
pub(crate) enum LowerFound {
    Missing,
    Whiteout,
    /// A directory, and whether it hides what further layers have in it.
    Directory(bool),
    /// Anything else.
    File(OwnedFd, Stat),
}

/// What all layers together have under a name.
pub(crate) enum Merged {
    Missing,
    /// The layers that contribute to a directory, newest first.
    Directory(Vec<u16>),
    /// The file of the newest layer that has one, opened with `O_PATH`.
    File(OwnedFd, Stat),
}

/// The layers, newest first, each held by a descriptor.
pub(crate) struct LowerStack {
    roots: Vec<OwnedFd>,
    marks: OverlayXattrs,
}

impl LowerStack {
    pub(crate) fn open(dirs: &[PathBuf], marks: OverlayXattrs) -> Result<Self> {
        if dirs.len() > usize::from(u16::MAX) {
            return Err(Error::invalid_argument("too many lower directories"));
        }
        Ok(LowerStack { roots: dirs.iter().map(|dir| open_root(dir)).collect::<Result<_>>()?, marks })
    }

    /// The layers that the root is made of: all.
    pub(crate) fn all(&self) -> Vec<u16> {
        (0..self.roots.len() as u16).collect()
    }

    /// What the layers `among` have under the name `path`, whose parents all of them have as directories.
    pub(crate) fn merged(&self, among: &[u16], path: &[u8]) -> Result<Merged> {
        let mut directories = Vec::new();
        for index in among {
            match self.look(*index, path)? {
                LowerFound::Missing => {}
                LowerFound::Whiteout => break,
                LowerFound::Directory(opaque) => {
                    directories.push(*index);
                    if opaque {
                        break;
                    }
                }
                LowerFound::File(fd, stat) if directories.is_empty() => return Ok(Merged::File(fd, stat)),
                LowerFound::File(..) => break,
            }
        }
        Ok(if directories.is_empty() { Merged::Missing } else { Merged::Directory(directories) })
    }

    /// The directory `path` of one layer that has it.
    pub(crate) fn directory(&self, index: u16, path: &[u8]) -> Result<OwnedFd> {
        let path: &[u8] = if path.is_empty() { b"." } else { path };
        open_beneath(&self.roots[usize::from(index)], path, OFlags::DIRECTORY)
            .map_err(|errno| at("open", path, errno))
    }

    fn look(&self, index: u16, path: &[u8]) -> Result<LowerFound> {
        let root = &self.roots[usize::from(index)];
        match open_beneath(root, path, OFlags::DIRECTORY) {
            Ok(fd) => {
                let failed = |errno| at("read the overlay marks of", path, errno);
                if xattr::get(&fd, self.marks.redirect()).map_err(failed)?.is_some() {
                    return Err(Error::unimplemented(format!(
                        "{:?} was renamed within its overlay",
                        String::from_utf8_lossy(path)
                    )));
                }
                let opaque = xattr::get(&fd, self.marks.opaque()).map_err(failed)?;
                match opaque.as_deref() {
                    None => Ok(LowerFound::Directory(false)),
                    Some(b"y") => Ok(LowerFound::Directory(true)),
                    Some(_) => Err(Error::unimplemented(format!(
                        "{:?} holds whiteouts of another overlay",
                        String::from_utf8_lossy(path)
                    ))),
                }
            }
            Err(Errno::NOENT) => Ok(LowerFound::Missing),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let fd = open_beneath(root, path, OFlags::PATH).map_err(|errno| at("open", path, errno))?;
                let stat = rustix::fs::fstat(&fd).map_err(|errno| at("stat", path, errno))?;
                if is_whiteout(&stat) { Ok(LowerFound::Whiteout) } else { Ok(LowerFound::File(fd, stat)) }
            }
            Err(errno) => Err(at("open", path, errno)),
        }
    }

    /// Whether the directory behind `fd` stands for one of another name in the layers below.
    pub(crate) fn is_redirected(&self, fd: &OwnedFd) -> rustix::io::Result<bool> {
        Ok(xattr::get(fd, self.marks.redirect())?.is_some())
    }

    /// Whether the file behind `fd` has its data in another layer.
    pub(crate) fn is_metacopy(&self, fd: &OwnedFd) -> rustix::io::Result<bool> {
        Ok(xattr::get(fd, self.marks.metacopy())?.is_some())
    }
}

/// Opens the root of a tree.
pub(crate) fn open_root(dir: &Path) -> Result<OwnedFd> {
    rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::io(errno.into()))
        .with_context(|| format!("open {}", dir.display()))
}

/// Opens `path` below `root` without following any link, its last part included.
pub(crate) fn open_beneath(root: &OwnedFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // A rename somewhere on the machine got in the way. Source: openat2(2), "EAGAIN".
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
}

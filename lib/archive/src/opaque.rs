//! Hiding what lower layers have in a directory.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use gantry_core::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::directory::{Below, Dir};
use crate::failure::at;
use crate::lower::{is_whiteout, open_beneath};
use crate::name::join;
use crate::removal::{entries, remove_tree};
use crate::tree::{Found, Tree};
use crate::xattr;

/// How many names of one layer are remembered: 9 bytes each, some 300 MB at most.
const MAX_NOTED: usize = 16 << 20;

/// What a layer has brought into a tree that had content before, by hash. Two names of the same hash, one in a
/// billion layers, would keep one file too many.
#[derive(Default)]
pub(crate) struct Unpacked {
    hash: RandomState,
    /// What was written, and every directory that something was written into.
    names: HashSet<u64>,
    /// Directories that hold nothing but what was written.
    closed: HashSet<u64>,
}

impl Unpacked {
    pub(crate) fn note(&mut self, path: &[u8]) -> Result<()> {
        let hash = self.hash.hash_one(path);
        if self.names.len() >= MAX_NOTED && !self.names.contains(&hash) {
            return Err(Error::resource_exhausted("the layer has too many entries"));
        }
        self.names.insert(hash);
        Ok(())
    }

    fn holds(&self, path: &[u8]) -> bool {
        self.names.contains(&self.hash.hash_one(path))
    }

    fn close(&mut self, path: &[u8]) {
        self.closed.insert(self.hash.hash_one(path));
    }

    /// Whether `path`, or a directory above it, holds nothing of lower layers.
    fn is_closed(&self, path: &[u8]) -> bool {
        let above = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| &path[..end]);
        above.chain([path]).chain([&b""[..]]).any(|path| self.closed.contains(&self.hash.hash_one(path)))
    }
}

impl Tree {
    /// Hides, or removes, what `dir` has from lower layers. What this layer brought stays, whichever came first.
    pub(crate) fn make_opaque(&mut self, dir: &Rc<Dir>) -> Result<()> {
        match self.overlay {
            None => self.remove_older(dir),
            Some(_) if !dir.below().shows() => Ok(()),
            Some(_) if dir.path.is_empty() => self.make_root_opaque(),
            Some(marks) => {
                let fd = self.fd(dir)?;
                xattr::set(&*fd, marks.opaque(), b"y")
                    .map_err(|errno| at("mark opaque", &dir.path, errno))?;
                dir.set_below(Below::nothing());
                self.settle_below(&dir.path)?;
                self.remove_whiteouts(dir)
            }
        }
    }

    /// An overlay takes no opaque mark on its root: each name there is hidden instead.
    fn make_root_opaque(&mut self) -> Result<()> {
        let root = Rc::clone(&self.root);
        let Below::Known(layers) = root.below() else {
            return Err(Error::unimplemented("a layer that hides all lower ones, before these are known"));
        };
        let fd = self.fd(&root)?;
        for layer in layers {
            let lower = self.lowers.directory(layer, b"")?;
            for (name, _) in entries(&lower).map_err(|errno| at("list", b"/", errno))? {
                match self.look(&root, &name)? {
                    Found::Directory(child) if child.fd().is_some() => self.make_opaque(&child)?,
                    _ => match rustix::fs::mknodat(
                        &*fd,
                        &name[..],
                        FileType::CharacterDevice,
                        Mode::empty(),
                        0,
                    ) {
                        Ok(()) => self.forget(&name),
                        Err(Errno::EXIST) => {}
                        Err(errno) => return Err(at("make whiteout", &name, errno)),
                    },
                }
            }
        }
        Ok(())
    }

    /// A directory through which nothing shows lists whiteouts as files: they have nothing left to hide.
    fn remove_whiteouts(&mut self, dir: &Rc<Dir>) -> Result<()> {
        let Some(marks) = self.overlay else { return Ok(()) };
        let base = self.fd(dir)?;
        let mut left = vec![Vec::new()];
        while let Some(path) = left.pop() {
            let here: &[u8] = if path.is_empty() { b"." } else { &path };
            let fd = open_beneath(&base, here, OFlags::RDONLY | OFlags::DIRECTORY)
                .map_err(|errno| at("open", here, errno))?;
            let opaque = xattr::get(&fd, marks.opaque()).map_err(|errno| at("read marks of", here, errno))?;
            if !path.is_empty() && opaque.is_some() {
                // Cleaned when it was marked.
                continue;
            }
            let before = rustix::fs::fstat(&fd).map_err(|errno| at("stat", here, errno))?;
            let mut removed = false;
            for (name, kind) in entries(&fd).map_err(|errno| at("list", here, errno))? {
                match kind {
                    FileType::Directory => left.push(join(&path, &name)),
                    FileType::CharacterDevice => {
                        let stat = rustix::fs::statat(&fd, &name[..], rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                            .map_err(|errno| at("stat", &name, errno))?;
                        if is_whiteout(&stat) {
                            removed |= remove_tree(&fd, &name)?;
                        }
                    }
                    _ => {}
                }
            }
            if removed && !path.is_empty() {
                rustix::fs::futimens(&fd, &crate::directory::times_of(&before))
                    .map_err(|errno| at("set times of", here, errno))?;
            }
        }
        Ok(())
    }

    /// Removes from a tree of its own what `dir` had before this layer. Each directory is walked once, however often
    /// it is marked (S28).
    fn remove_older(&mut self, dir: &Rc<Dir>) -> Result<()> {
        let base = self.fd(dir)?;
        let Some(unpacked) = &mut self.unpacked else { return Ok(()) };
        if unpacked.is_closed(&dir.path) {
            return Ok(());
        }
        let mut gone = Vec::new();
        let mut left = vec![Vec::new()];
        while let Some(path) = left.pop() {
            let full = if path.is_empty() { dir.path.clone() } else { join(&dir.path, &path) };
            if unpacked.is_closed(&full) {
                continue;
            }
            let here: &[u8] = if path.is_empty() { b"." } else { &path };
            let fd = open_beneath(&base, here, OFlags::RDONLY | OFlags::DIRECTORY)
                .map_err(|errno| at("open", &full, errno))?;
            let times = rustix::fs::fstat(&fd).map_err(|errno| at("stat", &full, errno))?;
            let mut removed = false;
            for (name, kind) in entries(&fd).map_err(|errno| at("list", &full, errno))? {
                let child = join(&full, &name);
                if !unpacked.holds(&child) {
                    removed |= remove_tree(&fd, &name)?;
                    if kind == FileType::Directory {
                        gone.push(child);
                    }
                } else if kind == FileType::Directory {
                    left.push(join(&path, &name));
                }
            }
            if removed && !path.is_empty() {
                rustix::fs::futimens(&fd, &crate::directory::times_of(&times))
                    .map_err(|errno| at("set times of", &full, errno))?;
            }
        }
        // Closed as a whole, and only now: the walk itself asks for it.
        unpacked.close(&dir.path);
        for path in gone {
            self.forget(&path);
        }
        Ok(())
    }
}

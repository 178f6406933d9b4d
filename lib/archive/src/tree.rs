//! The tree that a layer is written into: finding directories, making those that are missing.
//!
//! A name is walked part by part from a descriptor that is held, and no part is ever opened through a link: links are
//! read and walked by hand, within the root. So nothing outside the root can be reached, whatever the archive holds
//! and whoever swaps a directory for a link meanwhile (S16).

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use gantry_core::{Error, Result, ResultExt};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::apply::Target;
use crate::attributes::copy_directory;
use crate::directory::{Below, Dir, times_of};
use crate::failure::{at, malformed};
use crate::lower::{LowerStack, Lowers, Merged, OverlayXattrs, is_whiteout, open_root};
use crate::name::{MAX_PATH_BYTES, join};
use crate::opaque::Unpacked;
use crate::removal::remove_tree;
use crate::xattr;

/// How many directories are held open. A few hundred are enough for any archive in an order of its own.
const MAX_OPEN_DIRS: usize = 128;
/// How many links one name may lead through. Source: containerd (255); the kernel stops at 40.
const MAX_LINKS: usize = 255;
/// How many parts one name may have after all links were put in.
const MAX_STEPS: usize = 8192;

/// What a name in a directory is.
pub(crate) enum Found {
    Missing,
    Directory(Rc<Dir>),
    Symlink(Vec<u8>),
    Other,
}

/// The tree that is written.
pub(crate) struct Tree {
    pub(crate) root: Rc<Dir>,
    /// How an overlay is told what is removed; `None` for a tree of its own, where it is removed.
    pub(crate) overlay: Option<OverlayXattrs>,
    pub(crate) lowers: LowerStack,
    /// What this layer has brought; only kept where an opaque mark must spare it.
    pub(crate) unpacked: Option<Unpacked>,
    /// Directories made because something in them was listed, not they themselves.
    pub(crate) implied: BTreeSet<PathBuf>,
    open: HashMap<Vec<u8>, Rc<Dir>>,
}

impl Tree {
    pub(crate) fn open(target: &Target) -> Result<Tree> {
        let (dir, overlay, dirs, below) = match target {
            Target::Directory(dir) => (dir, None, &[][..], Below::nothing()),
            Target::Overlay { upper, lowers: Lowers::Unknown, xattrs } => {
                (upper, Some(*xattrs), &[][..], Below::Unknown)
            }
            Target::Overlay { upper, lowers: Lowers::Known(dirs), xattrs } => {
                (upper, Some(*xattrs), &dirs[..], Below::nothing())
            }
        };
        let fd = open_root(dir)?;
        let lowers = LowerStack::open(dirs, overlay.unwrap_or_default())?;
        let below = if below.shows() { below } else { Below::Known(lowers.all()) };
        let has_content = !crate::removal::entries(&fd).map_err(|errno| at("list", b"/", errno))?.is_empty();
        let unpacked = (overlay.is_none() && has_content).then(Unpacked::default);
        let root = Dir::new(Vec::new(), Some(fd), below);
        Ok(Tree { root, overlay, lowers, unpacked, implied: BTreeSet::new(), open: HashMap::new() })
    }

    /// The directory named by `parts`, links followed. What is missing is made with `make`, and is an error
    /// (`NotFound`) without.
    ///
    /// # Errors
    /// `InvalidArgument` if a part is a file, or too many links are met.
    pub(crate) fn enter(&mut self, parts: &[&[u8]], make: bool) -> Result<Rc<Dir>> {
        if parts.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        let named = parts.join(&b'/');
        if let Some(dir) = self.open.get(&named) {
            return Ok(Rc::clone(dir));
        }
        let (mut current, known) = self.nearest(parts, named.len());
        let mut left: Vec<Vec<u8>> = parts[known..].iter().rev().map(|part| part.to_vec()).collect();
        let (mut links, mut steps) = (0, 0);
        while let Some(part) = left.pop() {
            steps += 1;
            if steps > MAX_STEPS {
                return Err(too_many_links(&named));
            }
            if part == b".." {
                let up = current.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                let parent = current.path[..up].to_vec();
                current = match self.open.get(&parent) {
                    Some(dir) => Rc::clone(dir),
                    None => {
                        // Walked again from the root, as names without links.
                        let parts = parent.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).rev();
                        left.extend(parts.map(<[u8]>::to_vec));
                        Rc::clone(&self.root)
                    }
                };
                continue;
            }
            match self.look(&current, &part)? {
                Found::Directory(dir) => current = dir,
                Found::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS || left.len() > MAX_STEPS {
                        return Err(too_many_links(&named));
                    }
                    if target.starts_with(b"/") {
                        current = Rc::clone(&self.root);
                    }
                    let parts =
                        target.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
                    left.extend(parts.rev().map(<[u8]>::to_vec));
                }
                Found::Missing if make => {
                    current = self.make_directory(&current, &part)?;
                    let fd = self.fd(&current)?;
                    rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))
                        .map_err(|errno| at("chmod", &current.path, errno))?;
                    self.note_implied(&current)?;
                }
                Found::Missing => {
                    return Err(Error::not_found(format!("directory {:?}", String::from_utf8_lossy(&named))));
                }
                Found::Other => {
                    let path = join(&current.path, &part);
                    return Err(malformed(format!(
                        "{:?} is not a directory",
                        String::from_utf8_lossy(&path)
                    )));
                }
            }
        }
        Ok(current)
    }

    /// The nearest open directory that `parts` begins with, and how many parts it stands for.
    fn nearest(&self, parts: &[&[u8]], mut length: usize) -> (Rc<Dir>, usize) {
        let named = parts.join(&b'/');
        // Nearly always the parent is open; looking further up than a few would cost more than walking.
        for known in (1..parts.len()).rev().take(16) {
            length -= parts[known].len() + 1;
            if let Some(dir) = self.open.get(&named[..length]) {
                return (Rc::clone(dir), known);
            }
        }
        (Rc::clone(&self.root), 0)
    }

    /// What `name` in `dir` is, as a mount of all layers would show it.
    pub(crate) fn look(&mut self, dir: &Rc<Dir>, name: &[u8]) -> Result<Found> {
        let path = join(&dir.path, name);
        if let Some(open) = self.open.get(&path) {
            return Ok(Found::Directory(Rc::clone(open)));
        }
        if let Some(fd) = dir.fd() {
            match open_directory(&fd, name) {
                Ok(child) => {
                    let below = self.below(dir, &path, &child)?;
                    return Ok(Found::Directory(self.hold(Dir::new(path, Some(child), below))?));
                }
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR | Errno::LOOP) => match rustix::fs::readlinkat(&fd, name, Vec::new()) {
                    Ok(target) => return Ok(Found::Symlink(target.into_bytes())),
                    Err(Errno::INVAL) => return self.look_at_file(&fd, name, &path),
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(at("read link", &path, errno)),
                },
                Err(errno) => return Err(at("open", &path, errno)),
            }
        }
        let Below::Known(layers) = dir.below() else { return Ok(Found::Missing) };
        match self.lowers.merged(&layers, &path)? {
            Merged::Missing => Ok(Found::Missing),
            Merged::Directory(layers) => {
                Ok(Found::Directory(self.hold(Dir::new(path, None, Below::Known(layers)))?))
            }
            Merged::File(fd, _) => match rustix::fs::readlinkat(&fd, "", Vec::new()) {
                Ok(target) => Ok(Found::Symlink(target.into_bytes())),
                Err(Errno::INVAL | Errno::NOENT) => Ok(Found::Other),
                Err(errno) => Err(at("read link", &path, errno)),
            },
        }
    }

    /// A file of the written tree: one that hides what is below looks missing.
    fn look_at_file(&self, fd: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Found> {
        if self.overlay.is_none() {
            return Ok(Found::Other);
        }
        match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_whiteout(&stat) => Ok(Found::Missing),
            Ok(_) => Ok(Found::Other),
            Err(Errno::NOENT) => Ok(Found::Missing),
            Err(errno) => Err(at("stat", path, errno)),
        }
    }

    /// Which layers show through the directory `path` of the written tree, a child of `parent`.
    fn below(&self, parent: &Dir, path: &[u8], fd: &OwnedFd) -> Result<Below> {
        let (Some(marks), true) = (self.overlay, parent.below().shows()) else { return Ok(Below::nothing()) };
        let opaque =
            xattr::get(fd, marks.opaque()).map_err(|errno| at("read the overlay marks of", path, errno))?;
        if opaque.is_some() {
            return Ok(Below::nothing());
        }
        let Below::Known(layers) = parent.below() else { return Ok(Below::Unknown) };
        Ok(match self.lowers.merged(&layers, path)? {
            Merged::Directory(layers) => Below::Known(layers),
            Merged::Missing | Merged::File(..) => Below::nothing(),
        })
    }

    /// The descriptor to write into `dir` with. A directory that only lower layers have is made first, like them.
    pub(crate) fn fd(&mut self, dir: &Rc<Dir>) -> Result<Rc<OwnedFd>> {
        let fd = match dir.fd() {
            Some(fd) => fd,
            None => self.copy_up(dir)?,
        };
        // The root's times are nobody's record: they stay as writing leaves them.
        if !dir.has_times() && !dir.path.is_empty() {
            let stat = rustix::fs::fstat(&fd).map_err(|errno| at("stat", &dir.path, errno))?;
            dir.set_times(times_of(&stat));
        }
        if let Some(unpacked) = &mut self.unpacked {
            unpacked.note(&dir.path)?;
        }
        Ok(fd)
    }

    /// Makes `dir`, and those of its parents that are missing, as the lower layers have them.
    fn copy_up(&mut self, dir: &Rc<Dir>) -> Result<Rc<OwnedFd>> {
        let mut current = Rc::clone(&self.root);
        let path = dir.path.clone();
        for part in path.split(|byte| *byte == b'/') {
            let child = join(&current.path, part);
            let next = if child == path {
                Rc::clone(dir)
            } else {
                match self.look(&current, part)? {
                    Found::Directory(next) => next,
                    _ => return Err(changed_meanwhile(&child)),
                }
            };
            if next.fd().is_none() {
                let parent = self.fd(&current)?;
                let Below::Known(layers) = next.below() else { return Err(changed_meanwhile(&child)) };
                let newest = *layers.first().ok_or_else(|| changed_meanwhile(&child))?;
                let lower = self.lowers.directory(newest, &child)?;
                rustix::fs::mkdirat(&*parent, part, Mode::RWXU)
                    .map_err(|errno| at("mkdir", &child, errno))?;
                let made = open_directory(&parent, part).map_err(|errno| at("open", &child, errno))?;
                next.set_times(copy_directory(&lower, &made, &child)?);
                next.set_fd(made);
            }
            current = next;
        }
        current.fd().ok_or_else(|| changed_meanwhile(&path))
    }

    /// Makes the directory `name` in `dir`, where a mount of all layers would show none.
    pub(crate) fn make_directory(&mut self, dir: &Rc<Dir>, name: &[u8]) -> Result<Rc<Dir>> {
        let fd = self.fd(dir)?;
        let path = join(&dir.path, name);
        let replaced = self.replacing(dir, name, |fd, name| rustix::fs::mkdirat(fd, name, Mode::RWXU))?.1;
        let made = open_directory(&fd, name).map_err(|errno| at("open", &path, errno))?;
        let mut below = dir.below();
        if let (Some(marks), true, true) = (self.overlay, replaced, below.shows()) {
            // What was here hid what lower layers have; the directory must go on hiding it.
            xattr::set(&made, marks.opaque(), b"y").map_err(|errno| at("mark opaque", &path, errno))?;
            below = Below::nothing();
        }
        if let Below::Known(layers) = &mut below {
            // Nothing shows here, or a file does, which the directory hides.
            layers.clear();
        }
        self.hold(Dir::new(path, Some(made), below))
    }

    /// Runs `make`, which makes `name` in `dir`, removing first whatever has that name. Says whether there was
    /// anything.
    pub(crate) fn replacing<T>(
        &mut self,
        dir: &Rc<Dir>,
        name: &[u8],
        mut make: impl FnMut(&OwnedFd, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<(T, bool)> {
        let fd = self.fd(dir)?;
        let path = join(&dir.path, name);
        self.forget(&path);
        let mut replaced = false;
        // Somebody else may put something there between the two steps; not for ever.
        for _ in 0..8 {
            match make(&fd, name) {
                Ok(made) => {
                    if let Some(unpacked) = &mut self.unpacked {
                        unpacked.note(&path)?;
                    }
                    return Ok((made, replaced));
                }
                Err(Errno::EXIST) => {
                    replaced |= remove_tree(&fd, name).with_context(|| shown("replace", &path))?
                }
                Err(errno) => return Err(at("create", &path, errno)),
            }
        }
        Err(at("create", &path, Errno::EXIST))
    }

    /// Removes `name` in `dir` from the written tree.
    pub(crate) fn clear(&mut self, dir: &Rc<Dir>, name: &[u8]) -> Result<bool> {
        let fd = self.fd(dir)?;
        let path = join(&dir.path, name);
        self.forget(&path);
        remove_tree(&fd, name).with_context(|| shown("remove", &path))
    }

    /// Lets go of what is held of `path` and below it: it is about to be removed, or shows something else now.
    pub(crate) fn forget(&mut self, path: &[u8]) {
        self.open.remove(path);
        self.open.retain(|open, _| !is_below(open, path));
    }

    /// Settles what is held below `path` and lets go of it: other layers show through it now.
    pub(crate) fn settle_below(&mut self, path: &[u8]) -> Result<()> {
        for dir in self.open.values().filter(|dir| is_below(&dir.path, path)) {
            dir.settle().map_err(|errno| at("set times of", &dir.path, errno))?;
        }
        self.open.retain(|open, _| !is_below(open, path));
        Ok(())
    }

    /// Keeps `dir` for later names, and lets others go if there are too many.
    fn hold(&mut self, dir: Rc<Dir>) -> Result<Rc<Dir>> {
        if self.open.len() >= MAX_OPEN_DIRS {
            // Those in use stay: a second descriptor of the same directory would record the wrong times.
            let idle: Vec<_> = self
                .open
                .values()
                .filter(|open| Rc::strong_count(open) == 1)
                .map(|open| open.path.clone())
                .collect();
            for path in idle {
                let open = self.open.remove(&path).expect("it was just seen");
                open.settle().map_err(|errno| at("set times of", &path, errno))?;
            }
        }
        self.open.insert(dir.path.clone(), Rc::clone(&dir));
        Ok(dir)
    }

    /// Sets the times of all directories that were written to.
    pub(crate) fn settle(&mut self) -> Result<()> {
        for (path, dir) in self.open.drain() {
            dir.settle().map_err(|errno| at("set times of", &path, errno))?;
        }
        Ok(())
    }

    /// Whether what lies below is not known yet.
    pub(crate) fn waits_for_lowers(&self) -> bool {
        self.root.below() == Below::Unknown
    }

    /// The directory `path` was listed after all.
    pub(crate) fn note_listed(&mut self, path: &[u8]) {
        if !self.implied.is_empty() {
            self.implied.remove(Path::new(OsStr::from_bytes(path)));
        }
    }

    fn note_implied(&mut self, dir: &Dir) -> Result<()> {
        if dir.below() != Below::Unknown {
            return Ok(());
        }
        if self.implied.len() >= crate::apply::MAX_REPORTED {
            return Err(Error::resource_exhausted("the layer implies too many directories"));
        }
        self.implied.insert(PathBuf::from(OsStr::from_bytes(&dir.path)));
        Ok(())
    }
}

/// Opens a directory by one part of a name, not through a link.
pub(crate) fn open_directory(dir: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    debug_assert!(!name.contains(&b'/') && name != b".." && name.len() <= MAX_PATH_BYTES);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

fn is_below(path: &[u8], dir: &[u8]) -> bool {
    path.len() > dir.len() && path.starts_with(dir) && (dir.is_empty() || path[dir.len()] == b'/')
}

fn too_many_links(path: &[u8]) -> Error {
    malformed(format!("{:?} leads through too many links", String::from_utf8_lossy(path)))
}

fn changed_meanwhile(path: &[u8]) -> Error {
    Error::failed_precondition(format!("{:?} changed while it was written to", String::from_utf8_lossy(path)))
}

fn shown(step: &str, path: &[u8]) -> String {
    format!("{step} {:?}", String::from_utf8_lossy(path))
}

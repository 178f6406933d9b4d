//! Writing a layer: changed files, whiteouts, and the directories that lead to them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::SystemTime;

use gantry_core::{Context, Result};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::entry::{Entry, EntryKind, Timestamp};
use crate::failure::at;
use crate::layer_stream::Cancellable;
use crate::lower::{is_overlay_mark, open_beneath, open_root};
use crate::name::join;
use crate::whiteout::{OPAQUE, PREFIX};
use crate::writer::TarWriter;
use crate::xattr;

/// How a layer is written.
#[derive(Clone, Debug, Default)]
pub struct WriteLayer {
    /// Times later than this are cut to it.
    pub source_date_epoch: Option<SystemTime>,
}

/// The changes to a tree, on their way into an archive. Names are given without a leading slash, parents first.
///
/// Hard links within the tree stay links. Sockets are left out: no archive holds them. Of the extended attributes
/// `security.capability` and `user.*` are written.
pub struct Layer<'a, W> {
    cx: &'a Context,
    writer: TarWriter<W>,
    root: OwnedFd,
    latest: Option<Timestamp>,
    /// Where the content of a file with several names was written.
    sources: HashMap<(u64, u64), Vec<u8>>,
    /// Unchanged names of files with several names: written if another name turns out to be changed.
    unchanged: HashMap<(u64, u64), Vec<Vec<u8>>>,
    directories: HashSet<Vec<u8>>,
}

impl<'a, W: Write> Layer<'a, W> {
    /// Writes changes to the tree at `root` to `out`.
    ///
    /// # Errors
    /// Those of opening `root`.
    pub fn new(cx: &'a Context, root: &Path, out: W, how: &WriteLayer) -> Result<Self> {
        Ok(Layer {
            cx,
            writer: TarWriter::new(out),
            root: open_root(root)?,
            latest: how.source_date_epoch.map(Timestamp::from),
            sources: HashMap::new(),
            unchanged: HashMap::new(),
            directories: HashSet::new(),
        })
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn finish(self) -> Result<W> {
        self.writer.finish()
    }

    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.cx.check()
    }

    /// The name `path` is gone.
    pub(crate) fn removed(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = split(path);
        self.mark(&join(parent, &[PREFIX, name].concat()))
    }

    /// Nothing of lower layers shows in the directory `path`.
    pub(crate) fn opaque(&mut self, path: &[u8]) -> Result<()> {
        self.mark(&join(path, OPAQUE))
    }

    fn mark(&mut self, path: &[u8]) -> Result<()> {
        self.parents(path)?;
        // Marks carry no time of their own. Source: containerd 2.0 writes them with the epoch.
        self.writer.append(&Entry::new(path, EntryKind::File, 0), &mut std::io::empty())
    }

    /// The file `path` has not changed; if it has several names one of the others may have.
    pub(crate) fn unchanged(&mut self, path: &[u8], fd: &OwnedFd, stat: &Stat) -> Result<()> {
        if !has_names(stat) {
            return Ok(());
        }
        if self.sources.contains_key(&identity(stat)) {
            return self.changed(path, fd, stat);
        }
        self.unchanged.entry(identity(stat)).or_default().push(path.to_vec());
        Ok(())
    }

    /// The file `path`, open as `fd` with `O_PATH`, is new or has changed.
    pub(crate) fn changed(&mut self, path: &[u8], fd: &OwnedFd, stat: &Stat) -> Result<()> {
        self.cx.check()?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => EntryKind::File,
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink => EntryKind::Symlink,
            FileType::CharacterDevice => EntryKind::CharDevice,
            FileType::BlockDevice => EntryKind::BlockDevice,
            FileType::Fifo => EntryKind::Fifo,
            _ => return Ok(()),
        };
        self.parents(path)?;
        let mut entry = Entry::new(path, kind, stat.st_mode & 0o7777);
        (entry.uid, entry.gid) = (stat.st_uid, stat.st_gid);
        entry.mtime = Timestamp { seconds: stat.st_mtime, nanos: 0 };
        entry.mtime = self.latest.map_or(entry.mtime, |latest| entry.mtime.min(latest));
        entry.xattrs = xattrs_of(fd, path)?;
        match kind {
            EntryKind::Directory => {
                entry.path.push(b'/');
                self.directories.insert(path.to_vec());
            }
            EntryKind::Symlink => {
                let target = rustix::fs::readlinkat(fd, "", Vec::new());
                entry.link = target.map_err(|errno| at("read link", path, errno))?.into_bytes();
            }
            EntryKind::CharDevice | EntryKind::BlockDevice => {
                entry.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            }
            _ => {}
        }
        if kind == EntryKind::Directory || !has_names(stat) {
            return self.write(&entry, fd, stat);
        }
        if let Some(source) = self.sources.get(&identity(stat)) {
            (entry.kind, entry.link) = (EntryKind::Link, source.clone());
            return self.writer.append(&entry, &mut std::io::empty());
        }
        self.sources.insert(identity(stat), path.to_vec());
        self.write(&entry, fd, stat)?;
        for name in self.unchanged.remove(&identity(stat)).unwrap_or_default() {
            self.parents(&name)?;
            let other = Entry {
                path: name,
                kind: EntryKind::Link,
                link: path.to_vec(),
                size_bytes: 0,
                ..entry.clone()
            };
            self.writer.append(&other, &mut std::io::empty())?;
        }
        Ok(())
    }

    fn write(&mut self, entry: &Entry, fd: &OwnedFd, stat: &Stat) -> Result<()> {
        if entry.kind != EntryKind::File {
            return self.writer.append(entry, &mut std::io::empty());
        }
        let entry = Entry { size_bytes: u64::try_from(stat.st_size).unwrap_or(0), ..entry.clone() };
        let content = read(fd).map_err(|errno| at("open", &entry.path, errno))?;
        self.writer.append(&entry, &mut Cancellable::new(self.cx, content))
    }

    /// Writes the directories that lead to `path` and were not written yet.
    fn parents(&mut self, path: &[u8]) -> Result<()> {
        let (mut parent, _) = split(path);
        let mut missing = Vec::new();
        while !parent.is_empty() && !self.directories.contains(parent) {
            missing.push(parent);
            parent = split(parent).0;
        }
        for parent in missing.into_iter().rev() {
            let failed = |errno| at("open", parent, errno);
            let fd = open_beneath(&self.root, parent, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
            let stat = rustix::fs::fstat(&fd).map_err(failed)?;
            self.changed(parent, &fd, &stat)?;
        }
        Ok(())
    }
}

/// Opens the file behind an `O_PATH` descriptor, known to be a regular one, for reading.
pub(crate) fn read(fd: &OwnedFd) -> rustix::io::Result<File> {
    rustix::fs::open(xattr::through_proc(fd), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

/// Those of a file's extended attributes that a layer holds, in order.
pub(crate) fn xattrs_of(fd: &OwnedFd, path: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let failed = |errno| at("read the extended attributes of", path, errno);
    let mut found = Vec::new();
    for name in xattr::list(fd).map_err(failed)? {
        let wanted = name == b"security.capability" || name.starts_with(b"user.") && !is_overlay_mark(&name);
        if !wanted {
            continue;
        }
        match xattr::get(fd, &name) {
            Ok(Some(value)) => found.push((name, value)),
            Ok(None) | Err(Errno::PERM) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    found.sort();
    Ok(found)
}

fn has_names(stat: &Stat) -> bool {
    stat.st_nlink > 1 && FileType::from_raw_mode(stat.st_mode) != FileType::Directory
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// The directory and the last part of a name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

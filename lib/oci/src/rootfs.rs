//! Reading small text files of an image's root file system, which is hostile: it may hold devices, FIFOs, endless
//! files, and links that lead out of it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use gantry_core::mount::Mount;
use gantry_core::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

mod layers;

/// The largest file that is read, in bytes. A directory service's export of some hundred thousand users fits.
pub const MAX_FILE_BYTES: u64 = 16 << 20;
/// The longest line that is read, in bytes.
///
/// Source: what the original's parser takes of `/etc/group`.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// A container's root file system, to be read without mounting it.
#[derive(Debug)]
pub struct Rootfs {
    /// The directories that it is made of, the uppermost first. Never empty.
    layers: Vec<OwnedFd>,
}

impl Rootfs {
    /// Opens the directory at `path`, which itself is trusted.
    ///
    /// # Errors
    /// `NotFound` and other errors of opening a directory.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Rootfs { layers: vec![open_directory(path)?] })
    }

    /// Takes a directory that is open already.
    pub fn from_directory(directory: OwnedFd) -> Self {
        Rootfs { layers: vec![directory] }
    }

    /// The root file system that `mounts` would make, where that can be read without mounting: a bind mount, or an
    /// overlay. `None` for other mounts.
    ///
    /// # Errors
    /// Those of opening the directories that the mounts name.
    pub fn from_mounts(mounts: &[Mount]) -> Result<Option<Self>> {
        let [mount] = mounts else { return Ok(None) };
        let Some(directories) = layers::directories(mount) else { return Ok(None) };
        let layers = directories.iter().map(|path| open_directory(path)).collect::<Result<Vec<_>>>()?;
        Ok((!layers.is_empty()).then_some(Rootfs { layers }))
    }

    /// Opens a regular file; `None` if there is none. Every link is followed inside this root only.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not a regular file or larger than [`MAX_FILE_BYTES`]; `Unimplemented` if only
    /// mounting can tell, because a link may lead from one layer into another.
    pub fn open_file(&self, path: &str) -> Result<Option<File>> {
        if let [only] = self.layers.as_slice() {
            return open_below(only.as_fd(), path, ResolveFlags::IN_ROOT);
        }
        match layers::find(&self.layers, path)? {
            // No link is left on the way, so none is followed.
            Some((parent, name)) => {
                let file =
                    open_below(parent.as_fd(), &name, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?;
                file.map(|file| layers::check_whole(file, path)).transpose()
            }
            None => Ok(None),
        }
    }

    /// Calls `line` with each line of a file, without its end, until it says `false`. A missing file has no lines;
    /// the answer says whether it was there.
    ///
    /// # Errors
    /// As [`Rootfs::open_file`]; `InvalidArgument` for a line longer than [`MAX_LINE_BYTES`].
    pub fn each_line(&self, path: &str, mut line: impl FnMut(&[u8]) -> Result<bool>) -> Result<bool> {
        let Some(file) = self.open_file(path)? else { return Ok(false) };
        // One byte more than allowed, to notice a file that grows.
        let mut rest = BufReader::new(file.take(MAX_FILE_BYTES + 1));
        let mut total = 0u64;
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            let read = (&mut rest)
                .take(MAX_LINE_BYTES as u64 + 1)
                .read_until(b'\n', &mut buffer)
                .map_err(|error| Error::io(error).context(format!("read {path} of the image")))?;
            if read == 0 {
                return Ok(true);
            }
            total += read as u64;
            if total > MAX_FILE_BYTES {
                return Err(too_large(path, total));
            }
            if buffer.last() == Some(&b'\n') {
                buffer.pop();
            } else if read > MAX_LINE_BYTES {
                return Err(Error::invalid_argument(format!(
                    "{path} of the image has a line of more than {MAX_LINE_BYTES} bytes"
                )));
            }
            if !line(&buffer)? {
                return Ok(true);
            }
        }
    }
}

/// Opens a trusted directory.
fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::io(errno.into()).context(format!("open root file system {}", path.display())))
}

/// Opens a regular file below `directory`; `None` if there is none.
fn open_below(directory: BorrowedFd<'_>, path: &str, resolve: ResolveFlags) -> Result<Option<File>> {
    let failed = |errno: Errno| Error::io(errno.into()).context(format!("open {path} of the image"));
    // First without opening it for reading: opening a device can already do something.
    let handle = match open_at(directory, path, OFlags::PATH, resolve) {
        Ok(handle) => handle,
        // A link to a name that is not there, or a directory that is a file.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(Errno::LOOP | Errno::NAMETOOLONG) => {
            return Err(Error::invalid_argument(format!("{path} of the image is a link that leads nowhere")));
        }
        Err(errno) => return Err(failed(errno)),
    };
    let first = regular(path, &handle)?;
    // Non-blocking, in case it was exchanged for a FIFO meanwhile.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open_at(directory, path, flags, resolve).map_err(failed)?;
    if regular(path, &file)? != first {
        return Err(Error::failed_precondition(format!("{path} of the image changed while it was opened")));
    }
    Ok(Some(File::from(file)))
}

fn open_at(
    directory: BorrowedFd<'_>,
    path: &str,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let mut tries = 0;
    loop {
        let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
        match openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Source: openat2(2): a rename elsewhere raced with the walk; try again.
            Err(Errno::AGAIN | Errno::INTR) if tries < 32 => tries += 1,
            other => return other,
        }
    }
}

fn too_large(path: &str, size: u64) -> Error {
    Error::invalid_argument(format!(
        "{path} of the image has {size} bytes or more, more than the {MAX_FILE_BYTES} that are read"
    ))
}

/// Device and inode of a regular file.
fn regular(path: &str, file: &OwnedFd) -> Result<(u64, u64)> {
    let stat =
        fstat(file).map_err(|errno| Error::io(errno.into()).context(format!("stat {path} of the image")))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::invalid_argument(format!("{path} of the image is not a regular file")));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size > MAX_FILE_BYTES {
        return Err(too_large(path, size));
    }
    Ok((stat.st_dev, stat.st_ino))
}

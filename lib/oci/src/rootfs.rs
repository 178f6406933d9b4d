//! Reading small text files of an image's root file system, which is hostile: it may hold devices, FIFOs, endless
//! files, and links that lead out of it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use gantry_core::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

/// The largest file that is read, in bytes. A directory service's export of some hundred thousand users fits.
pub const MAX_FILE_BYTES: u64 = 16 << 20;
/// The longest line that is read, in bytes.
///
/// Source: what the original's parser takes of `/etc/group`.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// A directory that is a container's root file system.
#[derive(Debug)]
pub struct Rootfs {
    directory: OwnedFd,
}

impl Rootfs {
    /// Opens the directory at `path`, which itself is trusted.
    ///
    /// # Errors
    /// `NotFound` and other errors of opening a directory.
    pub fn open(path: &Path) -> Result<Self> {
        let directory =
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| {
                    Error::io(errno.into()).context(format!("open root file system {}", path.display()))
                })?;
        Ok(Rootfs { directory })
    }

    /// Takes a directory that is open already.
    pub fn from_directory(directory: OwnedFd) -> Self {
        Rootfs { directory }
    }

    /// Opens a regular file; `None` if there is none. Every link is followed inside this root only.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not a regular file or larger than [`MAX_FILE_BYTES`].
    pub fn open_file(&self, path: &str) -> Result<Option<File>> {
        let failed = |errno: Errno| Error::io(errno.into()).context(format!("open {path} of the image"));
        // First without opening it for reading: opening a device can already do something.
        let handle = match self.resolve(path, OFlags::PATH) {
            Ok(handle) => handle,
            // A link to a name that is not there, a directory that is a file, or links in a circle.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(Errno::LOOP | Errno::NAMETOOLONG) => {
                return Err(Error::invalid_argument(format!(
                    "{path} of the image is a link that leads nowhere"
                )));
            }
            Err(errno) => return Err(failed(errno)),
        };
        let first = regular(path, &handle)?;
        // Non-blocking, in case it was exchanged for a FIFO meanwhile.
        let file = self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).map_err(failed)?;
        if regular(path, &file)? != first {
            return Err(Error::failed_precondition(format!(
                "{path} of the image changed while it was opened"
            )));
        }
        Ok(Some(File::from(file)))
    }

    fn resolve(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut tries = 0;
        loop {
            let opened = openat2(
                self.directory.as_fd(),
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            );
            match opened {
                // Source: openat2(2): a rename elsewhere raced with the walk; try again.
                Err(Errno::AGAIN | Errno::INTR) if tries < 32 => tries += 1,
                other => return other,
            }
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

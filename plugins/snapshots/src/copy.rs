//! Copies a tree with all that belongs to its files: owner, mode, times, xattrs, hard links, holes.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use gantry_core::Result;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::directories::io_error;

/// Copies what is in `from` into the directory `to`, which then looks like `from` itself.
///
/// The source is a committed snapshot that nobody writes to; no symbolic link in it is followed.
///
/// # Errors
/// Those of the file system, naming the path.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let mut copier = Copier { links: HashMap::new() };
    copier.directory(from, to)
}

struct Copier {
    /// Where a file with several names was copied to first.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copier {
    /// `to` exists; its attributes are set last, since filling it changes its times.
    fn directory(&mut self, from: &Path, to: &Path) -> Result<()> {
        let wrong = |error| io_error("read", from, error);
        for entry in fs::read_dir(from).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            let metadata = fs::symlink_metadata(&from).map_err(|error| io_error("read", &from, error))?;
            if metadata.is_dir() {
                fs::create_dir(&to).map_err(|error| io_error("create", &to, error))?;
                self.directory(&from, &to)?;
                continue;
            }
            if metadata.nlink() > 1 {
                let key = (metadata.dev(), metadata.ino());
                if let Some(first) = self.links.get(&key) {
                    fs::hard_link(first, &to).map_err(|error| io_error("link", &to, error))?;
                    continue;
                }
                self.links.insert(key, to.clone());
            }
            file(&from, &to, &metadata).map_err(|error| io_error("copy", &from, error))?;
            attributes(&from, &to, &metadata)
                .map_err(|error| io_error("set the attributes of", &to, error))?;
        }
        let metadata = fs::symlink_metadata(from).map_err(wrong)?;
        attributes(from, to, &metadata).map_err(|error| io_error("set the attributes of", to, error))
    }
}

fn file(from: &Path, to: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if kind.is_file() {
        // The kernel shares or copies extents itself where it can, and skips holes.
        return fs::copy(from, to).map(drop);
    }
    let node = if kind.is_fifo() {
        FileType::Fifo
    } else if kind.is_socket() {
        FileType::Socket
    } else if kind.is_block_device() {
        FileType::BlockDevice
    } else {
        FileType::CharacterDevice
    };
    rustix::fs::mknodat(CWD, to, node, Mode::from_raw_mode(0o600), metadata.rdev())?;
    Ok(())
}

fn attributes(from: &Path, to: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    std::os::unix::fs::lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    xattrs(from, to)?;
    if !metadata.is_symlink() {
        // After the owner: changing it clears setuid bits.
        fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: metadata.atime(), tv_nsec: metadata.atime_nsec() as _ },
        last_modification: Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() as _ },
    };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn xattrs(from: &Path, to: &Path) -> io::Result<()> {
    // Source: xattr(7): at most 64 KiB for the list of names and for a value.
    let mut names = vec![0u8; 64 << 10];
    let length = match rustix::fs::llistxattr(from, names.as_mut_slice()) {
        Ok(0) | Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        other => other?,
    };
    let mut value = vec![0u8; 64 << 10];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = match rustix::fs::lgetxattr(from, name, value.as_mut_slice()) {
            Err(rustix::io::Errno::NODATA) => continue,
            other => other?,
        };
        rustix::fs::lsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_links_modes_times_and_nodes() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::create_dir_all(from.join("d")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("d/f"), "x").unwrap();
        fs::set_permissions(from.join("d/f"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(from.join("d/f"), from.join("g")).unwrap();
        std::os::unix::fs::symlink("/nowhere", from.join("l")).unwrap();
        rustix::fs::mknodat(CWD, from.join("p"), FileType::Fifo, Mode::from_raw_mode(0o622), 0).unwrap();
        let old = Timespec { tv_sec: 1_000_000_000, tv_nsec: 5 };
        let times = Timestamps { last_access: old, last_modification: old };
        rustix::fs::utimensat(CWD, from.join("d"), &times, AtFlags::empty()).unwrap();
        copy_tree(&from, &to).unwrap();
        let file = fs::metadata(to.join("d/f")).unwrap();
        assert_eq!(file.mode() & 0o7777, 0o4755);
        assert_eq!(file.ino(), fs::metadata(to.join("g")).unwrap().ino());
        assert_eq!(fs::read_link(to.join("l")).unwrap(), Path::new("/nowhere"));
        assert!(fs::symlink_metadata(to.join("p")).unwrap().file_type().is_fifo());
        let directory = fs::metadata(to.join("d")).unwrap();
        assert_eq!((directory.mtime(), directory.mtime_nsec()), (1_000_000_000, 5));
    }
}

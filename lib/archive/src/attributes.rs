//! Owner, extended attributes, mode and times of what was just made.

use std::os::fd::OwnedFd;

use gantry_core::Result;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::directory::times_of;
use crate::entry::Entry;
use crate::failure::at;
use crate::lower::is_overlay_mark;
use crate::xattr;

/// Gives a file or directory, open for reading or writing, what the entry says. Directories get their times later.
pub(crate) fn set_open(fd: &OwnedFd, entry: &Entry) -> Result<()> {
    let (uid, gid) = owner(entry);
    // A change of owner takes setuid bits and capabilities away: it comes first.
    rustix::fs::fchown(fd, uid, gid).map_err(|errno| at("chown", &entry.path, errno))?;
    set_xattrs(fd, entry, true)?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(|errno| at("chmod", &entry.path, errno))
}

/// Gives whatever `name` in `dir` is, itself and not what it points to, what the entry says.
pub(crate) fn set_named(dir: &OwnedFd, name: &[u8], entry: &Entry) -> Result<()> {
    let failed = |step: &'static str| move |errno| at(step, &entry.path, errno);
    let fd = rustix::fs::openat(
        dir,
        name,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(failed("open"))?;
    let stat = rustix::fs::fstat(&fd).map_err(failed("stat"))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let (uid, gid) = owner(entry);
    rustix::fs::chownat(&fd, "", uid, gid, AtFlags::EMPTY_PATH).map_err(failed("chown"))?;
    set_xattrs(&fd, entry, matches!(kind, FileType::RegularFile | FileType::Directory))?;
    if kind != FileType::Symlink {
        let mode = Mode::from_raw_mode(entry.mode);
        rustix::fs::chmod(xattr::through_proc(&fd), mode).map_err(failed("chmod"))?;
    }
    rustix::fs::utimensat(&fd, "", &times(entry), AtFlags::EMPTY_PATH).map_err(failed("set times of"))
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

/// The times an entry asks for. Source: containerd: the later of both times is the access time.
pub(crate) fn times(entry: &Entry) -> Timestamps {
    let spec =
        |time: crate::Timestamp| Timespec { tv_sec: time.seconds as _, tv_nsec: i64::from(time.nanos) as _ };
    let access = entry.atime.unwrap_or(entry.mtime).max(entry.mtime);
    Timestamps { last_access: spec(access), last_modification: spec(entry.mtime) }
}

/// Which attributes are taken, and which failures are passed over, is containerd's: those that only an administrator
/// of the host may set are left out, as are those that this file or its file system cannot have.
fn set_xattrs(fd: &OwnedFd, entry: &Entry, holds_user_xattrs: bool) -> Result<()> {
    for (name, value) in &entry.xattrs {
        if name.starts_with(b"trusted.") || is_overlay_mark(name) {
            ignored(entry, name);
            continue;
        }
        if name.is_empty() || name.contains(&0) {
            return Err(crate::failure::malformed("archive/tar: invalid name of an extended attribute"));
        }
        match xattr::set(fd, name, value) {
            Ok(()) => {}
            Err(Errno::PERM) if name.starts_with(b"user.") && !holds_user_xattrs => ignored(entry, name),
            Err(Errno::NOTSUP) => ignored(entry, name),
            Err(errno) => {
                return Err(at("set extended attribute of", &entry.path, errno)
                    .context(String::from_utf8_lossy(name).into_owned()));
            }
        }
    }
    Ok(())
}

fn ignored(entry: &Entry, name: &[u8]) {
    tracing::debug!(
        path = %String::from_utf8_lossy(&entry.path),
        xattr = %String::from_utf8_lossy(name),
        "extended attribute left out"
    );
}

/// Gives the directory `to` owner, attributes and mode of `from`, and tells the times it shall have.
pub(crate) fn copy_directory(from: &OwnedFd, to: &OwnedFd, path: &[u8]) -> Result<Timestamps> {
    let stat = rustix::fs::fstat(from).map_err(|errno| at("stat", path, errno))?;
    copy_owner_xattrs(from, to, &stat, path)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode)).map_err(|errno| at("chmod", path, errno))?;
    Ok(times_of(&stat))
}

/// Gives `to` owner and extended attributes of `from`, except for marks of an overlay.
pub(crate) fn copy_owner_xattrs(from: &OwnedFd, to: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    rustix::fs::chownat(to, "", uid, gid, AtFlags::EMPTY_PATH).map_err(|errno| at("chown", path, errno))?;
    let failed = |errno| at("copy the extended attributes of", path, errno);
    for name in xattr::list(from).map_err(failed)? {
        if is_overlay_mark(&name) {
            continue;
        }
        let Some(value) = xattr::get(from, &name).map_err(failed)? else { continue };
        match xattr::set(to, &name, &value) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}

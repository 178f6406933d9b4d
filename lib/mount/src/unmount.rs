//! Unmounting. May be repeated: what is not mounted is done.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use gantry_core::{Error, ErrorKind, Result, ResultExt};
use rustix::mount::UnmountFlags;

use crate::{Mount, info, target};

/// How long a busy mount is waited for, in all, and how often it is tried meanwhile.
///
/// Source: containerd waits as long.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
const BUSY_TRIES: usize = 50;

/// What to do about a mount that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// Try again for some seconds, then fail.
    Wait,
    /// Take it out of sight; it ends when its last user lets go. Until then what it lies on, such as
    /// an overlay's upper directory, is still being written.
    Detach,
}

/// Unmounts the topmost mount at `path`. The last part of `path` may not be a symlink.
///
/// # Errors
/// `InvalidArgument` if nothing is mounted there; `NotFound` if there is no such path;
/// `FailedPrecondition` if it stays busy.
pub fn unmount(path: &Path, busy: Busy) -> Result<()> {
    unmount_at(path, busy, true).map_err(|error| {
        let kind = match error.os_error() {
            Some(EINVAL) => ErrorKind::InvalidArgument,
            Some(EBUSY) => ErrorKind::FailedPrecondition,
            _ => error.kind(),
        };
        error.with_kind(kind).context(format!("unmount {path:?}"))
    })
}

/// Unmounts everything that is mounted exactly at `path`.
///
/// # Errors
/// As [`unmount`], but that nothing is there is no error.
pub fn unmount_all(path: &Path, busy: Busy) -> Result<()> {
    unmount_all_at(path, busy, true)
}

fn unmount_all_at(path: &Path, busy: Busy, follow: bool) -> Result<()> {
    loop {
        match unmount_at(path, busy, follow) {
            Ok(()) => {}
            Err(error) => {
                return match (error.kind(), error.os_error()) {
                    // Not, or no longer, a mount point.
                    (_, Some(EINVAL)) | (ErrorKind::NotFound, _) => Ok(()),
                    (_, Some(EBUSY)) => Err(error.with_kind(ErrorKind::FailedPrecondition)),
                    _ => Err(error),
                }
                .with_context(|| format!("unmount {path:?}"));
            }
        }
    }
}

/// Unmounts everything at `path` and below it, deepest first. Goes on after a failure.
///
/// # Errors
/// The first failure, as [`unmount`].
pub fn unmount_recursive(path: &Path, busy: Busy) -> Result<()> {
    // The last part stays as it is: a symlink there is no mount point, whatever it points to.
    let parent = path.parent().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    let path = match (parent.map(Path::canonicalize), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        (Some(Err(error)), Some(_)) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A dead network mount cannot be looked at, but unmounted.
        (Some(Err(_)), Some(_)) => path.to_owned(),
        _ => return Err(Error::invalid_argument(format!("mount point {path:?}"))),
    };
    let mut points: Vec<PathBuf> = Vec::new();
    for mount in info::mounts_below(&path)? {
        points.push(mount.mount_point);
    }
    // Later mounts may lie on earlier ones, never the other way round.
    points.reverse();
    first_error(points.iter().map(|point| unmount_all_at(point, busy, false)))
}

/// Unmounts what [`mount_all`](crate::mount_all) mounted of `mounts` on `root`, in reverse order.
/// Goes on after a failure.
///
/// # Errors
/// The first failure, as [`unmount`].
pub fn unmount_list(mounts: &[Mount], root: &Path, busy: Busy) -> Result<()> {
    first_error(mounts.iter().rev().map(|entry| {
        if entry.target.is_empty() {
            return unmount_all(root, busy);
        }
        match target::real_path(root, &entry.target) {
            Ok(path) => unmount_all_at(&path, busy, false),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }))
}

fn first_error(results: impl Iterator<Item = Result<()>>) -> Result<()> {
    let mut first = Ok(());
    for result in results {
        match (&first, &result) {
            (Ok(()), Err(_)) => first = result,
            (Err(_), Err(error)) => tracing::warn!(%error, "unmounting failed"),
            (_, Ok(())) => {}
        }
    }
    first
}

const EINVAL: i32 = rustix::io::Errno::INVAL.raw_os_error();
const EBUSY: i32 = rustix::io::Errno::BUSY.raw_os_error();

/// `umount2` of the last part of `path`, never through a symlink. With `follow` the directories
/// before it may be reached through symlinks.
fn unmount_at(path: &Path, busy: Busy, follow: bool) -> Result<()> {
    let (dir, name) = target::parent(path, follow)?;
    let place = Path::new(&target::path_of(&dir)).join(name);
    let once = |flags| {
        rustix::mount::unmount(&place, UnmountFlags::NOFOLLOW | flags)
            .map_err(|error| Error::io(io::Error::from(error)))
    };
    let mut tries = 1;
    loop {
        match once(UnmountFlags::empty()) {
            Err(error) if error.os_error() == Some(EBUSY) => match busy {
                Busy::Detach => return once(UnmountFlags::DETACH),
                Busy::Wait if tries == BUSY_TRIES => return Err(error),
                Busy::Wait => {
                    tries += 1;
                    thread::sleep(BUSY_PAUSE);
                }
            },
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests;

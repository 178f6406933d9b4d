//! The lock that a program holds on its database file, and who holds it.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use gantry_core::{Error, Result, ResultExt as _};
use rustix::fs::{FlockOperation, flock};

/// Takes a shared lock, without waiting.
///
/// Source: bbolt takes an exclusive `flock` for writing and a shared one for reading.
///
/// # Errors
/// `FailedPrecondition` naming the process that has the file open for writing.
pub(crate) fn share(file: &File, path: &Path) -> Result<()> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let holder =
                holder(file).map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            let text = format!("{} is in use by {holder}: stop it first", path.display());
            Err(Error::failed_precondition(text))
        }
        Err(error) => Err(std::io::Error::from(error)).with_context(|| format!("lock {}", path.display())),
    }
}

/// The process that holds an exclusive lock on `file`, if the kernel says so.
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let device = metadata.dev();
    let wanted =
        format!("{:02x}:{:02x}:{}", rustix::fs::major(device), rustix::fs::minor(device), metadata.ino());
    holder_in(&std::fs::read_to_string("/proc/locks").ok()?, &wanted)
}

/// Source: proc(5), `/proc/locks`: number, class, advisory or not, access, pid, device and inode, range.
fn holder_in(locks: &str, wanted: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            // A line with an arrow is somebody who waits.
            [_, "FLOCK", _, "WRITE", pid, at, ..] if *at == wanted => pid.parse().ok().filter(|pid| *pid > 0),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_and_not_who_waits() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fe:01:55 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 fe:01:55 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 fe:01:55 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 10 fe:01:56 0 EOF\n";
        assert_eq!(holder_in(locks, "fe:01:55"), Some(8));
        assert_eq!(holder_in(locks, "fe:01:56"), None);
    }

    #[test]
    fn a_file_that_is_locked_for_writing_is_refused_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.db");
        let held = File::create(&path).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        let refused = share(&File::open(&path).unwrap(), &path).unwrap_err();
        assert_eq!(refused.kind(), gantry_core::ErrorKind::FailedPrecondition);
        assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
        drop(held);
        share(&File::open(&path).unwrap(), &path).unwrap();
    }
}

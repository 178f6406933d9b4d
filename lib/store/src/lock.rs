//! One process at a time: a locked file that says who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use gantry_core::{Error, Result, ResultExt};

/// Holds the lock beside a database file until it is dropped. The kernel drops it with its process, however that ends.
#[derive(Debug)]
pub struct StoreLock {
    // Never read: closing it is what unlocks.
    _file: File,
}

impl StoreLock {
    /// Takes the lock of the database `database` without waiting.
    ///
    /// # Errors
    /// `FailedPrecondition` naming the process that holds it; those of making the file.
    pub fn acquire(database: &Path) -> Result<StoreLock> {
        let path = Self::path_for(database);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open lock {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = match Self::holder(&mut file) {
                    Some(pid) => format!("process {pid}"),
                    None => "another process".to_owned(),
                };
                return Err(Error::failed_precondition(format!(
                    "database {} is in use by {holder}",
                    database.display()
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Error::io(error).context(format!("lock {}", path.display())));
            }
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        written.with_context(|| format!("write lock {}", path.display()))?;
        Ok(StoreLock { _file: file })
    }

    /// The lock's file: the database's name with `.lock` behind it.
    pub fn path_for(database: &Path) -> PathBuf {
        let mut name = database.as_os_str().to_owned();
        name.push(".lock");
        PathBuf::from(name)
    }

    /// Who wrote the file last; a holder writes it right after locking, so it may be missing for a moment.
    fn holder(file: &mut File) -> Option<u32> {
        let mut text = String::new();
        file.take(32).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use gantry_core::ErrorKind;

    use super::*;

    #[test]
    fn a_second_holder_is_refused_with_the_first_ones_pid() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("store.db");
        let held = StoreLock::acquire(&database).unwrap();
        // flock belongs to the open file, so a second open in one process is refused like another process's.
        let refused = StoreLock::acquire(&database).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
        assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
        drop(held);
        StoreLock::acquire(&database).unwrap();
    }
}

//! Room on disk, taken before it is needed: on a disk that others have filled, what makes room again (removing a snapshot, an
//! image, a lease) must still be written down.
//!
//! A write goes into the WAL, and from there into the database's file. So both are given their room beforehand: the WAL as much
//! as it comes to need anyhow, and the file as many pages as the transaction has, before that is committed. A transaction for
//! which the file cannot grow is refused; one that only takes rows away needs no more pages, and the WAL can always be written
//! back, which makes room in it.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use gantry_core::{Error, ErrorKind, Result, ResultExt};
use rusqlite::Connection;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::fault::fault;

/// How much room the WAL is given beforehand, in bytes.
///
/// Source: SQLite writes the WAL back after 1000 pages of 4 KiB and then begins at its start again; what a transaction adds after
/// that comes on top.
const WAL_BYTES: u64 = 6 << 20;
/// How far ahead of need the database's file is given room, in bytes.
const AHEAD_BYTES: u64 = 1 << 20;

/// The room of a database's file.
pub(crate) struct Room {
    file: File,
    path: PathBuf,
    page_bytes: u64,
    /// The file system can take room beforehand.
    possible: Cell<bool>,
}

impl Room {
    /// Takes the WAL's room while there is some, and opens the database's file to take its own.
    ///
    /// # Errors
    /// Those of opening the file.
    pub(crate) fn open(connection: &Connection, path: &Path) -> Result<Room> {
        reserve_wal(path);
        let file = OpenOptions::new().write(true).open(path);
        let file = file.with_context(|| format!("open database {}", path.display()))?;
        let page_bytes = connection.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0));
        let page_bytes = page_bytes.map_err(|error| fault(error, path))?.unsigned_abs();
        Ok(Room { file, path: path.to_owned(), page_bytes, possible: Cell::new(true) })
    }

    /// Makes sure that the file can take all pages that the transaction under way has.
    ///
    /// # Errors
    /// `ResourceExhausted` if the disk is full.
    pub(crate) fn ensure(&self, connection: &Connection) -> Result<()> {
        let pages = connection
            .prepare_cached("PRAGMA page_count")
            .and_then(|mut statement| statement.query_row([], |row| row.get::<_, i64>(0)));
        let needed = pages.map_err(|error| fault(error, &self.path))?.unsigned_abs() * self.page_bytes;
        // Asked anew each time: SQLite cuts the file to its pages when it has written the whole WAL back, and with that the kernel
        // gives away what was taken behind them.
        if !self.possible.get() || self.has().is_some_and(|bytes| needed <= bytes) {
            return Ok(());
        }
        match self.take(needed + AHEAD_BYTES).or_else(|_| self.take(needed)) {
            Err(Errno::NOSPC | Errno::DQUOT) => {
                let text = format!("database {}: the disk is full", self.path.display());
                Err(Error::new(ErrorKind::ResourceExhausted, text))
            }
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "no room is taken beforehand");
                self.possible.set(false);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// How many bytes of room the file has, what lies behind its end included.
    fn has(&self) -> Option<u64> {
        // Source: stat(2): in units of 512 bytes, whatever the file system's own.
        Some(self.file.metadata().ok()?.blocks() * 512)
    }

    fn take(&self, bytes: u64) -> rustix::io::Result<()> {
        fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, bytes)
    }
}

/// Done without where the file system cannot.
fn reserve_wal(path: &Path) {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let reserve = || {
        let file = OpenOptions::new().write(true).open(&wal)?;
        fallocate(&file, FallocateFlags::KEEP_SIZE, 0, WAL_BYTES)?;
        Ok::<_, io::Error>(())
    };
    if let Err(error) = reserve() {
        tracing::debug!(path = %path.display(), %error, "no room is reserved for the WAL");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(connection: &Connection) -> u64 {
        connection.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
    }

    #[test]
    fn room_that_was_given_away_is_taken_again_before_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        let room = Room::open(&connection, &path).unwrap();
        let write = "CREATE TABLE IF NOT EXISTS t (x) STRICT; INSERT INTO t VALUES (zeroblob(40000));";
        let write = write.replace("(x)", "(x BLOB)");
        let mut before = 0;
        for _ in 0..3 {
            connection.execute_batch(&format!("BEGIN; {write}")).unwrap();
            room.ensure(&connection).unwrap();
            let needed = pages(&connection) * room.page_bytes;
            assert!(needed > before, "the write needs more pages");
            assert!(room.has().unwrap() >= needed, "{:?} bytes for {needed}", room.has());
            connection.execute_batch("COMMIT").unwrap();
            // Writes everything back, and cuts the file.
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
            before = needed;
        }
    }
}

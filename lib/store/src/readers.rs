//! The pool of read-only connections.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gantry_core::{Error, Result};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::access::Reading;
use crate::fault::fault;

/// Connections that read; opened when first needed, kept until the store closes.
pub(crate) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    places: Arc<Semaphore>,
    count: u32,
    /// How many reads may run on the threads that ask for them.
    on_the_spot: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn new(path: PathBuf, count: u32, on_the_spot: u32) -> Self {
        let count = count.clamp(1, 64);
        Readers {
            path,
            idle: Mutex::default(),
            places: Arc::new(Semaphore::new(count as usize)),
            count,
            on_the_spot: Arc::new(Semaphore::new(on_the_spot as usize)),
        }
    }

    /// The right to a read on the caller's own thread, if one can be had without waiting.
    pub(crate) fn place_on_the_spot(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let spot = Arc::clone(&self.on_the_spot).try_acquire_owned().ok()?;
        Some((spot, Arc::clone(&self.places).try_acquire_owned().ok()?))
    }

    /// Waits until a connection may be used.
    pub(crate) async fn place(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed(&self.path))
    }

    /// Runs `read` in a transaction. Blocks; the caller holds a place.
    pub(crate) fn run<T>(&self, read: impl FnOnce(&Reading<'_>) -> Result<T>) -> Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.open()?,
        };
        let wrong = |error| fault(error, &self.path);
        let transaction = |sql| connection.prepare_cached(sql)?.execute([]);
        transaction("BEGIN").map_err(wrong)?;
        // A connection whose closure panicked is not used again.
        let answer = catch_unwind(AssertUnwindSafe(|| read(&Reading::new(&connection, &self.path))))
            .map_err(|_| Error::internal(format!("a read of database {} panicked", self.path.display())))?;
        if !connection.is_autocommit() {
            transaction("ROLLBACK").map_err(wrong)?;
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        answer
    }

    /// Refuses new reads, waits for those under way, and closes every connection.
    pub(crate) async fn close(&self) {
        // Every place taken means that no read is under way. An error means that it was closed already.
        if let Ok(all) = self.places.acquire_many(self.count).await {
            self.places.close();
            drop(all);
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn open(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(&self.path, flags).map_err(|error| fault(error, &self.path))?;
        let set = || {
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.pragma_update(None, "query_only", true)?;
            // In KiB when negative: a reader needs the pages of one query, the kernel caches the rest.
            connection.pragma_update(None, "cache_size", -512)
        };
        set().map_err(|error| fault(error, &self.path))?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    }
}

/// What a closed store answers.
pub(crate) fn closed(path: &Path) -> Error {
    Error::unavailable(format!("database {} is closed", path.display()))
}

//! The handle that everything else holds.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_core::{Error, Result, ResultExt};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use crate::access::{Reading, Writing};
use crate::boot::{self, Boot};
use crate::fault::fault;
use crate::lock::StoreLock;
use crate::migration::{self, Migration};
use crate::readers::{Readers, closed};
use crate::room::Room;
use crate::writer::{self, Request, WriterThread};

/// Told about every row that a write inserts or updates, by table and row id, before the write is committed; also about writes
/// that are rolled back later. Runs on the writer's thread: it must be quick and must not use the store. Tables without
/// row ids are not reported.
pub type ChangeHook = Arc<dyn Fn(&str, i64) + Send + Sync>;

/// How a store is opened.
pub struct StoreOptions {
    /// The database file; its directory is made if it is missing.
    pub path: PathBuf,
    /// The schema's steps, oldest first.
    pub migrations: &'static [Migration],
    /// How many reads run at once; 4 by default.
    pub readers: u32,
    /// How many of the reads of a few rows run on the threads that ask for them, at once: fewer than there are threads that drive
    /// asynchronous tasks, so that a slow disk never stops all of them. 0 by default.
    pub reads_on_the_spot: u32,
    /// How many writes may wait; more wait outside the queue. 256 by default.
    pub queue: usize,
    /// See [`ChangeHook`]; none by default.
    pub on_change: Option<ChangeHook>,
    /// Leaves out the wait for the disk (`no_sync`), for tests and throw-away machines: a crash of the machine may then lose
    /// or damage the file. False by default.
    pub no_sync: bool,
    /// Opens a file as it is, to look at it: it must be there and of the newest schema, and how it was left stays recorded, if it
    /// is closed without `clean`. False by default.
    pub as_is: bool,
    /// Takes this for the kernel's boot id, for tests of what a new boot does; none by default.
    pub boot_id: Option<String>,
}

impl StoreOptions {
    /// The defaults, for the file `path`.
    pub fn new(path: impl Into<PathBuf>, migrations: &'static [Migration]) -> Self {
        StoreOptions {
            path: path.into(),
            migrations,
            readers: 4,
            reads_on_the_spot: 0,
            queue: 256,
            on_change: None,
            no_sync: false,
            as_is: false,
            boot_id: None,
        }
    }
}

/// One database file, opened by this process alone. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    boot: Boot,
    readers: Readers,
    writer: mpsc::Sender<Request>,
}

impl Store {
    /// Opens the file, brings its schema to the newest version, and starts the writer. Blocks.
    ///
    /// # Errors
    /// `FailedPrecondition` if another process has it open (naming its pid), if it was written by a newer program, or if it is
    /// no database of ours; `DataLoss` if it is damaged; `NotFound` if it is to be opened as it is and is not there.
    pub fn open(options: StoreOptions) -> Result<Store> {
        let StoreOptions {
            path,
            migrations,
            readers,
            reads_on_the_spot,
            queue,
            on_change,
            no_sync,
            as_is,
            boot_id,
        } = options;
        let boot_id = boot_id.map_or_else(boot::current_id, Ok)?;
        if as_is {
            std::fs::metadata(&path).with_context(|| format!("open database {}", path.display()))?;
        } else {
            prepare_file(&path)?;
        }
        let lock = StoreLock::acquire(&path)?;
        let mut connection = open_for_writing(&path)?;
        synchronise(&connection, &path, !no_sync)?;
        let boot = if as_is {
            migration::require_newest(&connection, &path, migrations)?;
            boot::look(&connection, &path, &boot_id)?
        } else {
            migration::migrate(&mut connection, &path, migrations)?;
            // What a killed daemon left in the WAL must not be written back without waiting for the disk.
            checkpoint_after(&connection, &path, 0)?;
            synchronise(&connection, &path, false)?;
            let boot = boot::begin(&mut connection, &path, &boot_id)?;
            synchronise(&connection, &path, !no_sync)?;
            checkpoint_after(&connection, &path, CHECKPOINT_PAGES)?;
            boot
        };
        let room = Room::open(&connection, &path)?;
        if let Some(on_change) = on_change {
            let hook = move |action: rusqlite::hooks::Action, _: &str, table: &str, row: i64| {
                if action != rusqlite::hooks::Action::SQLITE_DELETE {
                    on_change(table, row);
                }
            };
            connection.update_hook(Some(hook)).map_err(|error| fault(error, &path))?;
        }
        let (writer, requests) = mpsc::channel(queue.max(1));
        let thread = WriterThread { connection, path: path.clone(), room, lock };
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || thread.run(requests))
            .context("start the database writer")?;
        let readers = Readers::new(path.clone(), readers, reads_on_the_spot);
        Ok(Store { shared: Arc::new(Shared { path, boot, readers, writer }) })
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// This boot, and how the store was left before.
    pub fn boot(&self) -> &Boot {
        &self.shared.boot
    }

    /// Runs `write` on the writer's thread and returns when what it wrote is durable. If it fails, or its transaction does,
    /// nothing of it remains. It may run twice, so it must touch nothing but the database and must not wait. Once this has
    /// been polled the write may happen, even if the caller goes.
    ///
    /// # Errors
    /// Those of `write`; `ResourceExhausted` naming the file if the disk is full; `Internal` if `write` panics; `Unavailable`
    /// after [`Store::close`].
    pub async fn write<T, F>(&self, write: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Writing<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let request = Request::Write(writer::job(write, reply));
        self.shared.writer.send(request).await.map_err(|_| closed(&self.shared.path))?;
        answer.await.unwrap_or_else(|_| Err(closed(&self.shared.path)))
    }

    /// As [`Store::write`], for blocking code.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// On a thread that drives asynchronous tasks.
    pub fn write_blocking<T, F>(&self, write: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Writing<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let request = Request::Write(writer::job(write, reply));
        self.shared.writer.blocking_send(request).map_err(|_| closed(&self.shared.path))?;
        answer.blocking_recv().unwrap_or_else(|_| Err(closed(&self.shared.path)))
    }

    /// Runs `read` on the blocking pool, in a snapshot of what is committed now. It must not wait for anything: while it runs,
    /// the WAL cannot shrink.
    ///
    /// # Errors
    /// Those of `read`; `Internal` if it panics; `Unavailable` after [`Store::close`].
    pub async fn read<T, F>(&self, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reading<'_>) -> Result<T> + Send + 'static,
    {
        let place = self.shared.readers.place().await?;
        let shared = Arc::clone(&self.shared);
        let run = move || {
            // Held as long as the read itself, also if the caller goes.
            let _place = place;
            shared.readers.run(read)
        };
        match tokio::task::spawn_blocking(run).await {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => Err(Error::internal("a read panicked")),
            Err(_) => Err(closed(&self.shared.path)),
        }
    }

    /// As [`Store::read`], for a read of a few rows that are found by their key. It runs on the caller's thread where that is
    /// allowed and no one has to be waited for: such a read takes less time than waking a thread for it does.
    ///
    /// # Errors
    /// As there.
    pub async fn read_few<T, F>(&self, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reading<'_>) -> Result<T> + Send + 'static,
    {
        if let Some(_places) = self.shared.readers.place_on_the_spot() {
            return self.shared.readers.run(read);
        }
        self.read(read).await
    }

    /// Checks the file's structure; slow. Returns what is wrong with it: nothing, if all is well.
    ///
    /// # Errors
    /// `DataLoss` if it cannot even be read.
    pub async fn quick_check(&self) -> Result<Vec<String>> {
        let found = self.read(|db| db.all("PRAGMA quick_check(20)", [], |row| row.get::<String>(0))).await?;
        Ok(found.into_iter().filter(|line| line != "ok").collect())
    }

    /// Waits for the writes that are queued, writes the WAL back and closes the file; what comes later is refused. With `clean`
    /// the next [`Store::boot`] says [`LastStop::Clean`](crate::LastStop::Clean): give it only if every file that the records
    /// speak of is durable too.
    ///
    /// # Errors
    /// Those of the last write; the file is closed all the same. Closing twice is no error.
    pub async fn close(&self, clean: bool) -> Result<()> {
        self.shared.readers.close().await;
        let (reply, answer) = oneshot::channel();
        if self.shared.writer.send(Request::Close { clean, reply }).await.is_err() {
            return Ok(());
        }
        answer.await.unwrap_or(Ok(()))
    }
}

fn prepare_file(path: &Path) -> Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.with_context(|| format!("make directory {}", directory.display()))?;
        // SQLite makes the file's own entry durable, but not that of a directory that was just made. Where the file is, the
        // directory was.
        let above = directory.parent().filter(|above| !above.as_os_str().is_empty() && !path.exists());
        if let Some(above) = above {
            let synced = File::open(above).and_then(|above| above.sync_all());
            synced.with_context(|| format!("sync directory {}", above.display()))?;
        }
    }
    // SQLite gives the WAL the mode of the file, and would make the file readable by all.
    let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    made.with_context(|| format!("open database {}", path.display()))?;
    Ok(())
}

/// After how many pages the WAL is written back. Source: SQLite's default.
const CHECKPOINT_PAGES: i64 = 1000;

/// Sets after how many pages a commit writes the WAL back; never if 0.
fn checkpoint_after(connection: &Connection, path: &Path, pages: i64) -> Result<()> {
    connection.pragma_update(None, "wal_autocheckpoint", pages).map_err(|error| fault(error, path))
}

/// Whether a commit waits for the disk from now on.
fn synchronise(connection: &Connection, path: &Path, wait: bool) -> Result<()> {
    let mode = if wait { "FULL" } else { "OFF" };
    connection.pragma_update(None, "synchronous", mode).map_err(|error| fault(error, path))
}

fn open_for_writing(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let wrong = |error| fault(error, path);
    let connection = Connection::open_with_flags(path, flags).map_err(wrong)?;
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(wrong)?;
    if mode != "wal" {
        return Err(Error::failed_precondition(format!("database {} cannot use WAL", path.display())));
    }
    let set = || {
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // In KiB when negative.
        connection.pragma_update(None, "cache_size", -2048)?;
        // A flood makes the WAL long; afterwards it is cut to this.
        connection.pragma_update(None, "journal_size_limit", 8 << 20)
    };
    set().map_err(wrong)?;
    connection.set_prepared_statement_cache_capacity(192);
    Ok(connection)
}

#[cfg(test)]
mod tests;

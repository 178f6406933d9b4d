//! The writer's thread: takes closures from its queue and commits those that wait together.
//!
//! ```text
//!            ┌─ each in its savepoint ─┐
//! wait ── BEGIN ── run … run ── COMMIT ── answer all ── wait
//!                      │           │
//!                      └─ SQLite rolled everything back, or the commit failed:
//!                         each runs again in a transaction of its own
//! ```

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use gantry_core::{Error, Result};
use gantry_failpoint::{Point, reach};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::access::Writing;
use crate::boot;
use crate::fault::fault;
use crate::lock::StoreLock;
use crate::room::Room;

/// How many closures share a transaction at most, so that the first one of a flood is not answered last.
const MAX_GROUP: usize = 128;

/// A closure with its place for the answer.
pub(crate) trait Job: Send {
    /// Runs the closure; true if it succeeded. May be called again after a roll-back.
    fn run(&mut self, db: &Writing<'_>, path: &Path) -> bool;

    /// Answers with what the last run returned, or with `failure`.
    fn answer(self: Box<Self>, failure: Option<Error>);
}

struct Closure<T, F> {
    write: F,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Job for Closure<T, F>
where
    T: Send,
    F: Fn(&Writing<'_>) -> Result<T> + Send,
{
    fn run(&mut self, db: &Writing<'_>, path: &Path) -> bool {
        let write = &self.write;
        let outcome = catch_unwind(AssertUnwindSafe(|| write(db)))
            .unwrap_or_else(|panic| Err(panicked(panic.as_ref(), path)));
        let succeeded = outcome.is_ok();
        self.outcome = Some(outcome);
        succeeded
    }

    fn answer(self: Box<Self>, failure: Option<Error>) {
        let outcome = match (failure, self.outcome) {
            (Some(failure), _) => Err(failure),
            (None, Some(outcome)) => outcome,
            (None, None) => Err(Error::internal("a write was answered before it ran")),
        };
        // The caller may have gone; what is committed stays.
        let _ = self.reply.send(outcome);
    }
}

fn panicked(panic: &(dyn Any + Send), path: &Path) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    Error::internal(format!("a write to database {} panicked: {text}", path.display()))
}

/// Makes the job that runs `write` and answers into `reply`.
pub(crate) fn job<T, F>(write: F, reply: oneshot::Sender<Result<T>>) -> Box<dyn Job>
where
    T: Send + 'static,
    F: Fn(&Writing<'_>) -> Result<T> + Send + 'static,
{
    Box::new(Closure { write, outcome: None, reply })
}

/// What the thread is asked to do.
pub(crate) enum Request {
    /// Run a closure.
    Write(Box<dyn Job>),
    /// Finish: mark the store clean if `clean`, write the WAL back, close.
    Close { clean: bool, reply: oneshot::Sender<Result<()>> },
}

/// The thread's own state.
pub(crate) struct WriterThread {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
    pub(crate) room: Room,
    /// Released after the connection: fields drop in the order they are declared.
    pub(crate) lock: StoreLock,
}

impl WriterThread {
    /// Serves requests until it is closed or every sender is gone.
    pub(crate) fn run(self, mut requests: mpsc::Receiver<Request>) {
        let mut group: Vec<Box<dyn Job>> = Vec::new();
        let mut close = None;
        while close.is_none() {
            match requests.blocking_recv() {
                Some(Request::Write(first)) => group.push(first),
                Some(Request::Close { clean, reply }) => close = Some((clean, reply)),
                None => break,
            }
            while close.is_none() && group.len() < MAX_GROUP {
                match requests.try_recv() {
                    Ok(Request::Write(next)) => group.push(next),
                    Ok(Request::Close { clean, reply }) => close = Some((clean, reply)),
                    Err(_) => break,
                }
            }
            self.commit_group(&mut group);
        }
        // Those that were queued behind the close hear that the store is gone, by their dropped reply.
        drop(requests);
        let Some((clean, reply)) = close else { return };
        let WriterThread { connection, path, room, lock } = self;
        drop(room);
        let outcome = finish(connection, &path, clean);
        drop(lock);
        let _ = reply.send(outcome);
    }

    fn commit_group(&self, group: &mut Vec<Box<dyn Job>>) {
        if group.len() > 1 && self.commit_together(group) {
            reach(Point::StoreAfterCommit);
            for job in group.drain(..) {
                job.answer(None);
            }
            return;
        }
        for job in group.drain(..) {
            self.commit_alone(job);
        }
    }

    /// Whether the whole group was run and committed.
    fn commit_together(&self, group: &mut [Box<dyn Job>]) -> bool {
        let db = Writing::new(&self.connection, &self.path);
        if self.connection.execute_batch("BEGIN IMMEDIATE").is_err() {
            return false;
        }
        for job in group {
            let alone = self.connection.execute_batch("SAVEPOINT job");
            let succeeded = alone.is_ok() && job.run(&db, &self.path);
            // SQLITE_FULL, IOERR and NOMEM may roll back everything, what others did included.
            if alone.is_err() || self.connection.is_autocommit() {
                return self.give_up();
            }
            let end = if succeeded { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
            if self.connection.execute_batch(end).is_err() {
                return self.give_up();
            }
        }
        reach(Point::StoreBeforeCommit);
        let fits = self.room.ensure(&self.connection).is_ok();
        (fits && self.connection.execute_batch("COMMIT").is_ok()) || self.give_up()
    }

    fn commit_alone(&self, mut job: Box<dyn Job>) {
        if let Err(error) = self.connection.execute_batch("BEGIN IMMEDIATE") {
            job.answer(Some(fault(error, &self.path).context("begin a write")));
            return;
        }
        let succeeded = job.run(&Writing::new(&self.connection, &self.path), &self.path);
        reach(Point::StoreBeforeCommit);
        if !succeeded {
            self.give_up();
            job.answer(None);
        } else if self.connection.is_autocommit() {
            // The closure hid the error that rolled it back.
            job.answer(Some(Error::internal(format!(
                "database {} rolled a write back",
                self.path.display()
            ))));
        } else if let Err(error) = self.room.ensure(&self.connection) {
            self.give_up();
            job.answer(Some(error.context("commit")));
        } else if let Err(error) = self.connection.execute_batch("COMMIT") {
            self.give_up();
            job.answer(Some(fault(error, &self.path).context("commit")));
        } else {
            reach(Point::StoreAfterCommit);
            job.answer(None);
        }
    }

    /// Ends a transaction that SQLite did not end itself. Always false.
    fn give_up(&self) -> bool {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(path = %self.path.display(), %error, "roll back");
        }
        false
    }
}

fn finish(connection: Connection, path: &Path, clean: bool) -> Result<()> {
    let marked = if clean { boot::mark_clean(&connection, path) } else { Ok(()) };
    reach(Point::StoreMarkedClean);
    let written = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(|error| fault(error, path).context("write the WAL back"));
    let closed = connection.close().map_err(|(_, error)| fault(error, path).context("close"));
    marked.and(written).and(closed)
}

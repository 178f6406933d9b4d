//! Garbage collection.
//!
//! ```text
//! recorder on ── mark, on a read snapshot ── sweep ── sweep ── ... ── recorder off ── files
//!                (writes go on beside it)      │
//!                                              └ one transaction: mark what was changed since, delete <= 500 dead rows, <= 10 ms
//! ```
//!
//! Rows go first, files afterwards: a crash in between leaves files without records, which the next start finds. A blob's file
//! is unlinked under the lock of its digest, after a second look for a record; a snapshot's directory has a number of its own
//! that no later snapshot gets.

mod changes;
mod edges;
mod explain;
mod garbage;
mod mark;
mod others;
mod preview;
mod references;
mod sweep;
mod trace;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use gantry_core::events::Event;
use gantry_core::{Context, Error, ErrorKind, Namespace, Result};
use gantry_failpoint::{Point, pass, reach};
use gantry_store::{Reading, Writing};

pub(crate) use self::changes::Recorder;
pub(crate) use self::explain::{explain, images_that_need, name_of};
pub(crate) use self::garbage::Garbage;
pub(crate) use self::mark::{Marker, Node, NodeKind};
pub(crate) use self::references::time_of;
use self::sweep::{MAX_BATCH, MAX_TIME, Removed, Swept};
use crate::database::Inner;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectionStats {
    /// How long mark and sweep took together.
    pub elapsed: Duration,
    /// Expired leases that were removed.
    pub leases: u64,
    /// Expired images that were removed.
    pub images: u64,
    /// Blobs that were removed from a namespace.
    pub blobs: u64,
    /// Writes in progress that were removed.
    pub ingests: u64,
    /// Snapshots that were removed.
    pub snapshots: u64,
    /// Streams and mounts that were ended.
    pub others: u64,
}

/// Lets one collection run at a time, and those who wait share the next.
#[derive(Default)]
pub(crate) struct Collector {
    /// How many collections have begun.
    begun: AtomicU64,
    /// The outcome of the last one.
    last: tokio::sync::Mutex<Option<Result<CollectionStats, (ErrorKind, String)>>>,
}

impl Collector {
    /// Waits until no collection is under way; none begins until the guard is dropped.
    pub(crate) async fn pause(&self) -> impl Drop {
        self.last.lock().await
    }
}

/// Ends the recording however the collection ends.
struct Recording(Arc<Recorder>);

impl Drop for Recording {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Inner {
    /// Returns once a collection that began after this call has ended. It goes on if the caller leaves.
    ///
    /// # Errors
    /// Those of the collection.
    pub(crate) async fn collect(self: &Arc<Self>) -> Result<CollectionStats> {
        let begun_before = self.collector.begun.load(Ordering::SeqCst);
        let inner = Arc::clone(self);
        let job = self.jobs.spawn(async move {
            let mut last = inner.collector.last.lock().await;
            let shared =
                last.as_ref().filter(|_| inner.collector.begun.load(Ordering::SeqCst) > begun_before);
            if let Some(outcome) = shared {
                return outcome.clone();
            }
            inner.collector.begun.fetch_add(1, Ordering::SeqCst);
            let outcome = inner.collect_once().await.map_err(|error| (error.kind(), error.to_string()));
            *last = Some(outcome.clone());
            outcome
        });
        match job.await {
            Ok(Ok(stats)) => Ok(stats),
            Ok(Err((kind, text))) => Err(Error::from_status(kind.code(), &text).context("collect garbage")),
            Err(_) => Err(Error::internal("a garbage collection panicked")),
        }
    }

    async fn collect_once(self: &Arc<Self>) -> Result<CollectionStats> {
        let started = Instant::now();
        self.pending.begin();
        let outcome = self.mark_and_sweep().await;
        if outcome.is_err() {
            // What was to be collected still is.
            self.pending.deleted();
        }
        let mut stats = outcome?;
        stats.others = self.collect_others().await;
        stats.elapsed = started.elapsed();
        self.remove_garbage().await;
        reach(Point::CollectionEnded);
        tracing::debug!(elapsed_ms = stats.elapsed.as_millis(), ?stats, "garbage collected");
        Ok(stats)
    }

    async fn mark_and_sweep(&self) -> Result<CollectionStats> {
        let recorder = Arc::clone(&self.recorder);
        self.store
            .write(move |_| {
                recorder.start();
                Ok(())
            })
            .await?;
        let _recording = Recording(Arc::clone(&self.recorder));
        let read = |db: &Reading<'_>| {
            let mut marker = Marker::new(SystemTime::now());
            marker.mark_roots(db)?;
            let dead = sweep::candidates(db, &marker)?;
            Ok((marker, dead))
        };
        let (marker, mut dead) = self.store.read(read).await?;
        pass(Point::CollectionMarked)?;
        let marker = Arc::new(Mutex::new(marker));
        let snapshotters: Vec<String> = self.drivers.keys().cloned().collect();
        let mut stats = CollectionStats::default();
        // Rounds, since a parent can go only after its children.
        while !dead.is_empty() {
            let mut later = Vec::new();
            let mut removed_any = false;
            let mut next = 0;
            while next < dead.len() {
                let batch = dead[next..dead.len().min(next + MAX_BATCH)].to_vec();
                let marker = Arc::clone(&marker);
                let (recorder, snapshotters) = (Arc::clone(&self.recorder), snapshotters.clone());
                let write = move |db: &Writing<'_>| {
                    let mut marker = marker.lock().unwrap_or_else(PoisonError::into_inner);
                    sweep::sweep(db, &mut marker, &recorder, &batch, &snapshotters, MAX_TIME)
                };
                let Swept { removed, later: waiting, seen } = self.store.write(write).await?;
                next += seen;
                reach(Point::CollectionSwept);
                removed_any |= !removed.is_empty();
                later.extend(waiting);
                for removed in removed {
                    self.took_away(removed, &mut stats).await;
                }
            }
            dead = if removed_any { later } else { Vec::new() };
        }
        Ok(stats)
    }

    /// Counts, tells, and notes which files are to go.
    async fn took_away(&self, removed: Removed, stats: &mut CollectionStats) {
        match removed {
            Removed::Lease => stats.leases += 1,
            Removed::Image { namespace, name } => {
                stats.images += 1;
                tracing::debug!(namespace, image = name, "collected an expired image");
                self.tell(&namespace, Event::ImageDelete { name }).await;
            }
            Removed::Blob { digest } => {
                stats.blobs += 1;
                self.garbage.add_blob(&digest);
            }
            Removed::Ingest { backend_ref, expected } => {
                stats.ingests += 1;
                self.garbage.add_blobs(expected);
                self.garbage.add_ingest(&backend_ref);
            }
            Removed::Snapshot { snapshotter, namespace, key, directory } => {
                stats.snapshots += 1;
                tracing::debug!(namespace, snapshotter, key, "collected a snapshot");
                self.garbage.add_directory(&snapshotter, directory);
                self.tell(&namespace, Event::SnapshotRemove { key, snapshotter }).await;
            }
        }
    }

    async fn tell(&self, namespace: &str, event: Event) {
        match Namespace::parse(namespace) {
            Ok(namespace) => self.events.publish(&Context::new(namespace), event).await,
            Err(error) => tracing::error!(%error, "a record's namespace"),
        }
    }
}

#[cfg(test)]
mod tests;

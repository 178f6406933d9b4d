//! The files of what is no longer recorded.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt, TryStreamExt, stream};
use gantry_core::{Context, Digest, ErrorKind, IngestRef, Result};
use gantry_failpoint::{Point, reach};
use gantry_store::{Reading, params};

use crate::database::Inner;

/// What may have to be removed from disk. Lost in a crash: the first collection of a run looks at everything.
pub(crate) struct Garbage {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Every blob and ingest that the content store has is to be looked at.
    all_content: bool,
    blobs: BTreeSet<String>,
    ingests: BTreeSet<String>,
    /// Snapshotter and directory.
    directories: BTreeSet<(String, u64)>,
}

/// A copy of what waits.
pub(crate) struct Known {
    pub(crate) all_content: bool,
    pub(crate) blobs: BTreeSet<String>,
    pub(crate) ingests: BTreeSet<String>,
    pub(crate) directories: BTreeSet<(String, u64)>,
}

/// More than this is not remembered one by one: everything is looked at instead.
const MAX_REMEMBERED: usize = 50_000;

/// How many files are removed at once.
const REMOVALS: usize = 4;

impl Default for Garbage {
    fn default() -> Self {
        Garbage { waiting: Mutex::new(Waiting { all_content: true, ..Waiting::default() }) }
    }
}

impl Garbage {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of this digest may be without record.
    pub(crate) fn add_blob(&self, digest: &str) {
        let mut waiting = self.waiting();
        if waiting.blobs.len() < MAX_REMEMBERED {
            waiting.blobs.insert(digest.to_owned());
        } else {
            waiting.all_content = true;
        }
    }

    /// The same of several, or none.
    pub(crate) fn add_blobs(&self, digests: impl IntoIterator<Item = String>) {
        digests.into_iter().for_each(|digest| self.add_blob(&digest));
    }

    /// The write in progress that the content store knows by this ref may be without record.
    pub(crate) fn add_ingest(&self, backend_ref: &str) {
        let mut waiting = self.waiting();
        if waiting.ingests.len() < MAX_REMEMBERED {
            waiting.ingests.insert(backend_ref.to_owned());
        } else {
            waiting.all_content = true;
        }
    }

    /// Anything in the content store may be without record.
    pub(crate) fn add_all_content(&self) {
        self.waiting().all_content = true;
    }

    /// This directory is without record.
    pub(crate) fn add_directory(&self, snapshotter: &str, directory: u64) {
        self.waiting().directories.insert((snapshotter.to_owned(), directory));
    }

    /// What waits, as far as it is known by name.
    pub(crate) fn known(&self) -> Known {
        let waiting = self.waiting();
        Known {
            all_content: waiting.all_content,
            blobs: waiting.blobs.clone(),
            ingests: waiting.ingests.clone(),
            directories: waiting.directories.clone(),
        }
    }

    /// Whether the next collection looks at the file of this digest anyhow.
    pub(crate) fn knows_blob(&self, digest: &str) -> bool {
        self.waiting().blobs.contains(digest)
    }

    /// Whether the next collection looks at this write anyhow.
    pub(crate) fn knows_ingest(&self, backend_ref: &str) -> bool {
        self.waiting().ingests.contains(backend_ref)
    }

    /// Whether the next collection removes this directory anyhow.
    pub(crate) fn knows_directory(&self, snapshotter: &str, directory: u64) -> bool {
        self.waiting().directories.contains(&(snapshotter.to_owned(), directory))
    }

    fn take(&self) -> Waiting {
        std::mem::take(&mut *self.waiting())
    }

    fn put_back(&self, mut left: Waiting) {
        let mut waiting = self.waiting();
        waiting.all_content |= left.all_content;
        waiting.blobs.append(&mut left.blobs);
        waiting.ingests.append(&mut left.ingests);
        waiting.directories.append(&mut left.directories);
    }
}

impl Inner {
    /// Removes what waits. What fails is logged, does not stop the rest, and is tried again by the next collection.
    pub(crate) async fn remove_garbage(self: &Arc<Self>) {
        let waiting = self.garbage.take();
        let mut left = Waiting::default();
        for (snapshotter, directory) in waiting.directories {
            if !self.retire(&snapshotter, directory).await {
                left.directories.insert((snapshotter, directory));
            }
        }
        let (mut blobs, mut ingests) = (waiting.blobs, waiting.ingests);
        if waiting.all_content
            && let Err(error) = self.find_content_without_record(&mut blobs, &mut ingests).await
        {
            tracing::warn!(%error, "look for content without record");
            left.all_content = true;
        }
        // Each is a look at the database and one at the disk: some at once, so that neither waits for the other.
        let removals = stream::iter(blobs).map(async |digest| {
            let error = self.remove_blob(&digest).await.err()?;
            tracing::warn!(digest, %error, "remove a blob without record");
            Some(digest)
        });
        left.blobs = removals.buffer_unordered(REMOVALS).filter_map(async |left| left).collect().await;
        for backend_ref in ingests {
            if let Err(error) = self.remove_ingest(&backend_ref).await {
                tracing::warn!(r#ref = backend_ref, %error, "remove an ingest without record");
                left.ingests.insert(backend_ref);
            }
        }
        self.garbage.put_back(left);
    }

    /// Takes a directory out of the way and has it deleted in the background; false if that failed.
    pub(crate) async fn retire(self: &Arc<Self>, snapshotter: &str, directory: u64) -> bool {
        let Some(driver) = self.drivers.get(snapshotter).map(Arc::clone) else { return false };
        match self.blocking(move || driver.retire(directory)).await {
            Ok(()) => {
                reach(Point::SnapshotRetired);
                self.purge(snapshotter);
                true
            }
            Err(error) => {
                tracing::warn!(snapshotter, directory, %error, "retire a snapshot's directory");
                false
            }
        }
    }

    /// Deletes what was retired, in the background: once now, or once more after the run that is under way.
    pub(crate) fn purge(self: &Arc<Self>, snapshotter: &str) {
        let Some(driver) = self.drivers.get(snapshotter).map(Arc::clone) else { return };
        {
            let mut wanted = self.purges.lock().unwrap_or_else(PoisonError::into_inner);
            if !wanted.insert(snapshotter.to_owned()) {
                return;
            }
        }
        let (inner, snapshotter) = (Arc::clone(self), snapshotter.to_owned());
        self.jobs.spawn(async move {
            let _alone = inner.purge_locks.lock(snapshotter.clone()).await;
            inner.purges.lock().unwrap_or_else(PoisonError::into_inner).remove(&snapshotter);
            match inner.blocking(move || driver.purge()).await {
                Ok(()) => reach(Point::SnapshotPurged),
                Err(error) => tracing::warn!(snapshotter, %error, "delete retired snapshot directories"),
            }
        });
    }

    pub(crate) async fn remove_blob(&self, digest: &str) -> Result<()> {
        let digest = Digest::parse(digest)?;
        // The lock that a commit holds from before the blob is there until its record is.
        let _alone = self.digests.lock(digest.as_str().to_owned()).await;
        let wanted = digest.clone();
        let recorded = move |db: &Reading<'_>| {
            let sql = "SELECT 1 WHERE EXISTS (SELECT 1 FROM blobs WHERE digest = ?1) \
                       OR EXISTS (SELECT 1 FROM ingests WHERE expected = ?1)";
            db.exists(sql, params![wanted.as_str()])
        };
        if self.store.read_few(recorded).await? {
            return Ok(());
        }
        match self.content.delete(&Context::background(), &digest).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Ok(()) => {
                tracing::debug!(%digest, "removed content");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn remove_ingest(&self, backend_ref: &str) -> Result<()> {
        let wanted = backend_ref.to_owned();
        let recorded = move |db: &Reading<'_>| {
            db.exists("SELECT 1 FROM ingests WHERE backend_ref = ?1", params![wanted])
        };
        if self.store.read_few(recorded).await? {
            return Ok(());
        }
        match self.content.abort(&Context::background(), &IngestRef::parse(backend_ref)?).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Adds what the content store has and no record names. A blob that is being committed has none yet: it is looked at again
    /// under its lock. An ingest's record is made before the ingest, so one listed here that has no record is garbage.
    pub(crate) async fn find_content_without_record(
        &self,
        blobs: &mut BTreeSet<String>,
        ingests: &mut BTreeSet<String>,
    ) -> Result<()> {
        let cx = Context::background();
        let mut stored = self.content.list(&cx, &[]).await?;
        let mut page = Vec::new();
        loop {
            let next = stored.try_next().await?;
            let ended = next.is_none();
            page.extend(next.map(|info| info.digest.into_string()));
            if page.len() >= 256 || ended {
                blobs.extend(self.without_record("blobs", "digest", std::mem::take(&mut page)).await?);
            }
            if ended {
                break;
            }
        }
        let open = self.content.statuses(&cx, &[]).await?;
        let refs = open.into_iter().map(|status| status.reference.into_string()).collect();
        ingests.extend(self.without_record("ingests", "backend_ref", refs).await?);
        Ok(())
    }

    pub(crate) async fn without_record(
        &self,
        table: &'static str,
        column: &'static str,
        names: Vec<String>,
    ) -> Result<Vec<String>> {
        let read = move |db: &Reading<'_>| {
            let sql = format!("SELECT 1 FROM {table} WHERE {column} = ?1 LIMIT 1");
            let mut found = Vec::new();
            for name in names {
                if !db.exists(&sql, params![name])? {
                    found.push(name);
                }
            }
            Ok(found)
        };
        self.store.read(read).await
    }
}

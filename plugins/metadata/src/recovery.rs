//! What is compared and repaired when the database is opened, and what is made durable later.
//!
//! Unpacked trees are not synced when they are committed: that would take tens of thousands of fsyncs. Their records say so, and
//! in which boot they were made. Until a background sync has cleared that, a crash of the machine (not of the daemon) may have
//! damaged them; then they are reported here as suspect.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gantry_core::snapshots::{SnapshotDriver, SnapshotKind};
use gantry_core::{Result, ResultExt};
use gantry_failpoint::{Point, pass, reach};
use gantry_store::{Reading, Writing, params};

use crate::database::Inner;
use crate::snapshot_records::{COMMITTED, kind_from_number, number_at};

/// A snapshot by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotName {
    /// Its snapshotter.
    pub snapshotter: String,
    /// Its namespace.
    pub namespace: String,
    /// Its key or name.
    pub key: String,
}

/// What was found when the database was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Committed snapshots whose files may be damaged: they were not durable when the machine stopped without warning. They are to
    /// be rebuilt before use.
    pub suspect: Vec<SnapshotName>,
    /// Snapshots whose directory is not there.
    pub missing: Vec<SnapshotName>,
    /// How many directories without record were taken away.
    pub orphans: usize,
}

/// How long after a commit its files are synced: until then the kernel has mostly written them by itself.
const SYNC_DELAY: Duration = Duration::from_secs(30);

impl Inner {
    /// Compares records and directories.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<Recovery> {
        reach(Point::RecoveryOpened);
        let mut recovery = Recovery::default();
        let last = |db: &Reading<'_>| {
            let sql = "SELECT max(seq) FROM (SELECT seq FROM sqlite_sequence WHERE name = 'snapshots' \
                       UNION ALL SELECT max(directory) FROM snapshots)";
            db.one(sql, [], |row| row.get::<Option<i64>>(0))
        };
        let mut highest = self.store.read(last).await?.flatten().unwrap_or(0);
        for (name, driver) in &self.drivers {
            let (name, driver) = (name.clone(), Arc::clone(driver));
            let on_disk =
                self.directories(&driver).await.with_context(|| format!("list snapshots of {name}"))?;
            let last = on_disk.last().copied().and_then(|last| i64::try_from(last).ok());
            highest = highest.max(last.unwrap_or(0));
            let mut recorded = self.recorded(name.clone()).await?;
            let mut orphans = Vec::new();
            for directory in on_disk {
                if recorded.remove(&directory).is_none() {
                    orphans.push(directory);
                }
            }
            for (id, missing, kind) in recorded.into_values() {
                self.rebuilds.add(id, missing.clone(), kind);
                recovery.missing.push(missing);
            }
            for directory in orphans {
                if self.retire(&name, directory).await {
                    recovery.orphans += 1;
                } else {
                    self.garbage.add_directory(&name, directory);
                }
            }
            // What an earlier run had retired but not deleted.
            self.purge(&name);
        }
        reach(Point::RecoveryCompared);
        self.next_snapshot.store(highest + 1, Ordering::SeqCst);
        for (id, suspect) in self.suspects().await? {
            self.rebuilds.add(id, suspect.clone(), SnapshotKind::Committed);
            recovery.suspect.push(suspect);
        }
        recovery.missing.sort();
        if !recovery.missing.is_empty() {
            tracing::error!(missing = ?recovery.missing, "snapshots without their directories");
        }
        if !recovery.suspect.is_empty() {
            let count = recovery.suspect.len();
            tracing::warn!(count, "committed snapshots were not durable when the machine stopped");
        }
        Ok(recovery)
    }

    async fn directories(&self, driver: &Arc<dyn SnapshotDriver>) -> Result<BTreeSet<u64>> {
        let driver = Arc::clone(driver);
        let ids = self.blocking(move || driver.ids()).await?;
        // Beyond what the database can count is no directory of ours.
        Ok(ids.into_iter().filter(|id| *id < i64::MAX.unsigned_abs()).collect())
    }

    async fn recorded(&self, snapshotter: String) -> Result<HashMap<u64, (i64, SnapshotName, SnapshotKind)>> {
        let read = move |db: &Reading<'_>| {
            let mut found = HashMap::new();
            let sql = "SELECT directory, namespace, key, id, kind FROM snapshots WHERE snapshotter = ?1";
            db.each(sql, params![snapshotter], |row| {
                let name = SnapshotName {
                    snapshotter: snapshotter.clone(),
                    namespace: row.get(1)?,
                    key: row.get(2)?,
                };
                found.insert(number_at(row, 0)?, (row.get(3)?, name, kind_from_number(row.get(4)?)?));
                Ok(())
            })?;
            Ok(found)
        };
        self.store.read(read).await
    }

    async fn suspects(&self) -> Result<Vec<(i64, SnapshotName)>> {
        let boot = self.store.boot().id.clone();
        let read = move |db: &Reading<'_>| {
            let sql = "SELECT snapshotter, namespace, key, id FROM snapshots \
                       WHERE unsynced = 1 AND kind = ?1 AND boot_id <> ?2 ORDER BY 1, 2, 3";
            db.all(sql, params![COMMITTED, boot], |row| {
                let name =
                    SnapshotName { snapshotter: row.get(0)?, namespace: row.get(1)?, key: row.get(2)? };
                Ok((row.get(3)?, name))
            })
        };
        self.store.read(read).await
    }

    /// Checks the database's structure in the background.
    pub(crate) fn check_in_background(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        self.jobs.spawn(async move {
            let path = inner.store.path().display().to_string();
            match inner.store.quick_check().await {
                Ok(wrong) if wrong.is_empty() => tracing::info!(path, "the database is sound"),
                Ok(wrong) => tracing::error!(path, ?wrong, "the database is damaged"),
                Err(error) => tracing::error!(path, %error, "check the database"),
            }
        });
    }

    /// Makes committed snapshots durable, some time after their commit. Never ends.
    pub(crate) async fn sync_snapshots(self: &Arc<Self>) {
        loop {
            self.pending.committed.notified().await;
            tokio::time::sleep(SYNC_DELAY).await;
            let inner = Arc::clone(self);
            // A job, so that the end of the loop does not cut a sync off between file and record.
            let job =
                self.jobs.spawn(async move { inner.sync_all_until(Instant::now() + 10 * SYNC_DELAY).await });
            if !job.await.unwrap_or(false) {
                self.pending.committed.notify_one();
            }
        }
    }

    /// Syncs the committed snapshots of this boot one after the other; true if none is left.
    pub(crate) async fn sync_all_until(&self, end: Instant) -> bool {
        let mut after = 0;
        loop {
            let (boot, from) = (self.store.boot().id.clone(), after);
            let next = move |db: &Reading<'_>| {
                let sql = "SELECT id, snapshotter, directory FROM snapshots WHERE unsynced = 1 AND kind = ?1 AND boot_id = ?2 \
                           AND id > ?3 ORDER BY id LIMIT 1";
                db.one(sql, params![COMMITTED, boot, from], |row| {
                    Ok((row.get::<i64>(0)?, row.get::<String>(1)?, number_at(row, 2)?))
                })
            };
            let (id, snapshotter, directory) = match self.store.read(next).await {
                Ok(Some(next)) => next,
                Ok(None) => return self.nothing_unsynced().await,
                Err(error) => {
                    tracing::warn!(%error, "look for snapshots to sync");
                    return false;
                }
            };
            after = id;
            if Instant::now() >= end {
                return false;
            }
            match tokio::time::timeout_at(end.into(), self.sync_one(id, &snapshotter, directory)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(directory, snapshotter, %error, "sync a snapshot"),
                // The driver goes on by itself, and its record says unsynced.
                Err(_) => return false,
            }
        }
    }

    async fn sync_one(&self, id: i64, snapshotter: &str, directory: u64) -> Result<()> {
        let Some(driver) = self.drivers.get(snapshotter).map(Arc::clone) else { return Ok(()) };
        self.blocking(move || driver.sync(directory)).await?;
        pass(Point::SnapshotSynced)?;
        let write = move |db: &Writing<'_>| {
            db.execute("UPDATE snapshots SET unsynced = 0 WHERE id = ?1", params![id]).map(drop)
        };
        self.store.write(write).await
    }

    async fn nothing_unsynced(&self) -> bool {
        let boot = self.store.boot().id.clone();
        let read = move |db: &Reading<'_>| {
            let sql = "SELECT 1 FROM snapshots WHERE unsynced = 1 AND kind = ?1 AND boot_id = ?2 LIMIT 1";
            db.exists(sql, params![COMMITTED, boot])
        };
        self.store.read(read).await.is_ok_and(|left| !left)
    }
}

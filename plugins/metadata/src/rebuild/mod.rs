//! Rebuilding snapshots whose files a loss of power may have damaged.
//!
//! ```text
//! suspect ── its parents are sound ── layer found ── new directory ── applied ── synced ── record: new directory, no mark
//!    │                                     │             │ a crash up to here leaves an orphan, and the mark
//!    │                                     └ none: lost
//!    └ whoever wants to use it, or a descendant, waits
//! ```
//!
//! A snapshot that cannot be rebuilt is *lost*: it is never given out. Asked for it by name, the snapshotter says that there is
//! none, so that whoever unpacks its image again makes it anew; that commit takes the place of the lost one, under its id, so that
//! what stands on it stands on. A lost layer on which nothing stands is removed.

mod layers;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use gantry_core::diff::{ApplyDiff, DiffApplier};
use gantry_core::snapshots::{DriverSnapshot, SnapshotDriver, SnapshotKind};
use gantry_core::{Context, Digest, Error, ErrorKind, Namespace, Result, ResultExt};
use gantry_failpoint::{Point, pass, reach};
use gantry_store::{Reading, Writing, params};
use tokio_util::sync::CancellationToken;

use self::layers::{Layer, Layers};
use crate::database::Inner;
use crate::labels::{self, Owner};
use crate::locks::KeyLocks;
use crate::recovery::SnapshotName;
use crate::snapshot_records::{self as records, Space, number_at};

/// How long a call waits for the rebuild of what it asked for.
const WAIT: Duration = Duration::from_secs(120);
/// How long after a failure the next attempt is made, if somebody asks.
const PAUSE: Duration = Duration::from_secs(2);
/// How many chains are rebuilt side by side.
const AT_ONCE: usize = 2;

/// Snapshots that are not to be used before they were rebuilt.
#[derive(Default)]
pub(crate) struct Rebuilds {
    suspects: Mutex<BTreeMap<i64, Suspect>>,
    applier: OnceLock<Arc<dyn DiffApplier>>,
    /// Held while one snapshot is rebuilt, by its id.
    locks: KeyLocks<i64>,
    /// The layers that are stored, by namespace; forgotten after a failure.
    layers: Mutex<HashMap<String, Arc<Layers>>>,
    /// Ends what is under way.
    pub(crate) stop: CancellationToken,
}

struct Suspect {
    name: SnapshotName,
    kind: SnapshotKind,
    failed: Option<Failed>,
}

#[derive(Clone)]
struct Failed {
    why: String,
    at: Instant,
    /// Whether only unpacking its image again can help.
    lost: bool,
}

/// What came of one attempt.
enum Outcome {
    Sound,
    /// It was removed meanwhile.
    Gone,
}

impl Rebuilds {
    fn suspects(&self) -> MutexGuard<'_, BTreeMap<i64, Suspect>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, id: i64, name: SnapshotName, kind: SnapshotKind) {
        self.suspects().insert(id, Suspect { name, kind, failed: None });
    }

    /// Whether nothing waits, which is so nearly always.
    pub(crate) fn is_empty(&self) -> bool {
        self.suspects().is_empty()
    }

    /// Whether the snapshot `id` cannot be rebuilt, and may be replaced by one that is unpacked anew.
    pub(crate) fn is_lost(&self, id: i64) -> bool {
        self.suspects().get(&id).and_then(|suspect| suspect.failed.as_ref()).is_some_and(|failed| failed.lost)
    }

    pub(crate) fn forget(&self, id: i64) {
        self.suspects().remove(&id);
    }

    fn failed(&self, id: i64, failed: Failed) {
        if let Some(suspect) = self.suspects().get_mut(&id) {
            suspect.failed = Some(failed);
        }
    }

    /// What callers are told of a snapshot that is not sound. What stands on it cannot be rebuilt before it.
    fn refuse(&self, name: &SnapshotName, failed: &Failed, above: &[i64]) -> Error {
        let why = format!("it stands on {:?}, which is not rebuilt", name.key);
        for id in above {
            self.failed(*id, Failed { why: why.clone(), ..failed.clone() });
        }
        refused(name, failed)
    }

    fn waiting(&self, id: i64) -> Option<(SnapshotName, SnapshotKind, Option<Failed>)> {
        self.suspects().get(&id).map(|suspect| (suspect.name.clone(), suspect.kind, suspect.failed.clone()))
    }
}

fn refused(name: &SnapshotName, failed: &Failed) -> Error {
    let text = format!(
        "snapshot {:?} of {} may be damaged, since it was not durable when the machine stopped, and is not rebuilt: {}{}",
        name.key,
        name.snapshotter,
        failed.why,
        if failed.lost { "; pull its image again, or remove it with all that stands on it" } else { "" }
    );
    Error::new(ErrorKind::DataLoss, text)
}

impl Inner {
    /// Rebuilds what must be, in the background, with `applier`.
    pub(crate) fn rebuild_with(self: &Arc<Self>, applier: Arc<dyn DiffApplier>) {
        if self.rebuilds.applier.set(applier).is_err() || self.rebuilds.is_empty() {
            return;
        }
        let inner = Arc::clone(self);
        self.jobs.spawn(async move { inner.rebuild_all().await });
    }

    async fn rebuild_all(self: &Arc<Self>) {
        use futures_util::StreamExt as _;
        let ids: Vec<i64> = self.rebuilds.suspects().keys().copied().collect();
        let (count, begun) = (ids.len(), Instant::now());
        tracing::info!(count, "rebuilding snapshots that were not durable when the machine stopped");
        let each = |id| async move {
            if let Err(error) = self.sound(id).await {
                tracing::warn!(%error, "rebuild a snapshot");
            }
        };
        futures_util::stream::iter(ids).for_each_concurrent(AT_ONCE, each).await;
        self.remove_lost().await;
        let (left, elapsed_ms) = (self.rebuilds.suspects().len(), begun.elapsed().as_millis());
        tracing::info!(count, left, elapsed_ms, "snapshots are rebuilt");
    }

    /// Waits until the snapshot `key`, and all that it stands on, can be used. One that does not exist is no error.
    pub(crate) async fn sound_by_key(self: &Arc<Self>, space: &Space, key: &str) -> Result<()> {
        if self.rebuilds.is_empty() {
            return Ok(());
        }
        let (space, key) = (space.clone(), key.to_owned());
        let read = move |db: &Reading<'_>| Ok(records::find(db, &space, &key)?.map(|record| record.id));
        let Some(id) = self.store.read(read).await? else { return Ok(()) };
        let inner = Arc::clone(self);
        let work = self.detached(async move { inner.sound(id).await });
        match tokio::time::timeout(WAIT, work).await {
            Ok(done) => done,
            Err(_) => {
                Err(Error::unavailable("a snapshot is being rebuilt after the machine stopped: try again"))
            }
        }
    }

    /// Rebuilds the snapshot `id` and all that it stands on, the lowest first.
    async fn sound(self: &Arc<Self>, id: i64) -> Result<()> {
        let ids = self.store.read(move |db| records::chain_ids(db, Some(id))).await?;
        for (above, id) in ids.iter().copied().enumerate().rev() {
            let Some((name, kind, failed)) = self.rebuilds.waiting(id) else { continue };
            if let Some(failed) = failed.filter(|failed| failed.at.elapsed() < PAUSE) {
                return Err(self.rebuilds.refuse(&name, &failed, &ids[..above]));
            }
            let _alone = self.rebuilds.locks.lock(id).await;
            match self.rebuilds.waiting(id) {
                None => continue,
                // Whoever was here before has tried it just now.
                Some((_, _, Some(failed))) if failed.at.elapsed() < PAUSE => {
                    return Err(self.rebuilds.refuse(&name, &failed, &ids[..above]));
                }
                Some(_) => {}
            }
            match self.rebuild(id, &name, kind).await {
                Ok(outcome) => {
                    self.rebuilds.forget(id);
                    let gone = matches!(outcome, Outcome::Gone);
                    tracing::info!(
                        key = name.key,
                        snapshotter = name.snapshotter,
                        gone,
                        "rebuilt a snapshot"
                    );
                }
                Err(error) => {
                    self.rebuilds
                        .layers
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .remove(&name.namespace);
                    let lost = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DataLoss);
                    let failed = Failed { why: error.to_string(), at: Instant::now(), lost };
                    self.rebuilds.failed(id, failed.clone());
                    return Err(self.rebuilds.refuse(&name, &failed, &ids[..above]));
                }
            }
        }
        Ok(())
    }

    /// Makes the files of one snapshot anew, whose parents are sound. `NotFound` and `DataLoss` say that it is lost.
    async fn rebuild(self: &Arc<Self>, id: i64, name: &SnapshotName, kind: SnapshotKind) -> Result<Outcome> {
        let Some(driver) = self.drivers.get(&name.snapshotter).map(Arc::clone) else {
            return Err(Error::failed_precondition(format!(
                "snapshotter {:?} is not loaded",
                name.snapshotter
            )));
        };
        let read = move |db: &Reading<'_>| {
            let sql = "SELECT directory, parent FROM snapshots WHERE id = ?1";
            let row = db.one(sql, params![id], |row| Ok((number_at(row, 0)?, row.get::<Option<i64>>(1)?)))?;
            let Some((directory, parent)) = row else { return Ok(None) };
            let labels = labels::load(db, Owner::Snapshot, id)?;
            Ok(Some((directory, records::chain(db, parent)?, labels)))
        };
        let Some((old, parents, labels)) = self.store.read(read).await? else { return Ok(Outcome::Gone) };
        if kind != SnapshotKind::Committed {
            return self.remake(&driver, DriverSnapshot { id: old, kind, parents, labels }).await;
        }
        let layer = self.layer_of(name).await?;
        let number = self.next_snapshot.fetch_add(1, Ordering::SeqCst);
        let number = u64::try_from(number).map_err(|_| Error::internal("a snapshot's number"))?;
        // Held until directory and record agree, for those who compare them.
        let _settled = self.directory_locks.lock((name.snapshotter.clone(), number)).await;
        let snapshot = DriverSnapshot { id: number, kind: SnapshotKind::Active, parents, labels };
        let new = self.new_directory(&driver, name, &layer, snapshot).await?;
        let write = move |db: &Writing<'_>| {
            db.execute(
                "UPDATE snapshots SET directory = ?2, unsynced = 0, used_bytes = NULL, used_inodes = NULL \
                 WHERE id = ?1 AND directory = ?3",
                params![id, new.cast_signed(), old.cast_signed()],
            )
        };
        let changed = self.store.write(write).await;
        let unused = if matches!(changed, Ok(1)) { old } else { new };
        if !self.retire(&name.snapshotter, unused).await {
            self.garbage.add_directory(&name.snapshotter, unused);
        }
        reach(Point::RebuildRecorded);
        if changed? == 1 { Ok(Outcome::Sound) } else { Ok(Outcome::Gone) }
    }

    /// Makes the directory of a view or an active snapshot that is not there. What an active one held was not durable yet: it had
    /// been made just before the machine stopped.
    async fn remake(&self, driver: &Arc<dyn SnapshotDriver>, snapshot: DriverSnapshot) -> Result<Outcome> {
        let unclean = self.store.boot().last == gantry_store::LastStop::Unclean;
        if snapshot.kind == SnapshotKind::Active && !unclean {
            return Err(Error::new(ErrorKind::DataLoss, "its directory is not there, and nobody has a copy"));
        }
        tracing::warn!(directory = snapshot.id, "making the directory of a snapshot anew, empty");
        let driver = Arc::clone(driver);
        self.blocking(move || driver.create(&snapshot).and_then(|()| driver.sync(snapshot.id))).await?;
        Ok(Outcome::Sound)
    }

    async fn layer_of(&self, name: &SnapshotName) -> Result<Layer> {
        let lost = |why: &str| Error::not_found(why.to_owned());
        let chain = Digest::parse(&*name.key).map_err(|_| lost("it is no layer of an image"))?;
        let known = {
            let layers = self.rebuilds.layers.lock().unwrap_or_else(PoisonError::into_inner);
            layers.get(&name.namespace).map(Arc::clone)
        };
        let layers = match known {
            Some(known) => known,
            None => {
                let found =
                    Arc::new(layers::stored(self, &name.namespace).await.context("look for its layer")?);
                let mut all = self.rebuilds.layers.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert(name.namespace.clone(), Arc::clone(&found));
                found
            }
        };
        layers.get(&chain).cloned().ok_or_else(|| lost("its layer is not stored any more"))
    }

    /// A directory of its own, with the layer in it, durable.
    async fn new_directory(
        self: &Arc<Self>,
        driver: &Arc<dyn SnapshotDriver>,
        name: &SnapshotName,
        layer: &Layer,
        snapshot: DriverSnapshot,
    ) -> Result<u64> {
        let applier = self.rebuilds.applier.get().map(Arc::clone);
        let applier = applier.ok_or_else(|| Error::unavailable("no differ is loaded yet"))?;
        let id = snapshot.id;
        let done = async {
            let (made, of) = (Arc::clone(driver), snapshot.clone());
            let mounts = self.blocking(move || made.create(&of).and_then(|()| made.mounts(&of))).await?;
            let cx = Context::new(Namespace::parse(&*name.namespace)?)
                .with_cancellation(self.rebuilds.stop.child_token());
            let applied = applier.apply(&cx, &layer.descriptor, &mounts, ApplyDiff::default()).await?;
            if applied.digest != layer.diff_id {
                let (is, wanted) = (applied.digest, &layer.diff_id);
                let text = format!("layer {} unpacks to {is}, not to {wanted}", layer.descriptor.digest);
                return Err(Error::new(ErrorKind::DataLoss, text));
            }
            pass(Point::RebuildApplied)?;
            let (driver, of) = (Arc::clone(driver), snapshot.clone());
            self.blocking(move || driver.commit(&of, &of.parents).and_then(|()| driver.sync(of.id))).await
        };
        if let Err(error) = done.await {
            if !self.retire(&name.snapshotter, id).await {
                self.garbage.add_directory(&name.snapshotter, id);
            }
            return Err(error);
        }
        Ok(id)
    }

    /// Removes lost layers on which nothing stands: the next pull fetches and unpacks them.
    async fn remove_lost(self: &Arc<Self>) {
        let is_layer = |suspect: &Suspect| {
            suspect.failed.as_ref().is_some_and(|failed| failed.lost)
                && suspect.kind == SnapshotKind::Committed
                && Digest::parse(&*suspect.name.key).is_ok()
        };
        let mut kept = HashSet::new();
        loop {
            let next = {
                let suspects = self.rebuilds.suspects();
                let mut lost =
                    suspects.iter().rev().filter(|(id, suspect)| is_layer(suspect) && !kept.contains(*id));
                lost.next().map(|(id, suspect)| (*id, suspect.name.clone()))
            };
            let Some((id, name)) = next else { return };
            let _alone = self.rebuilds.locks.lock(id).await;
            let write = move |db: &Writing<'_>| {
                if db.exists("SELECT 1 FROM snapshots WHERE parent = ?1 LIMIT 1", params![id])? {
                    return Ok(None);
                }
                let directory =
                    db.one("SELECT directory FROM snapshots WHERE id = ?1", params![id], |row| {
                        number_at(row, 0)
                    })?;
                db.execute("DELETE FROM snapshots WHERE id = ?1", params![id])?;
                Ok(directory)
            };
            match self.delete(write).await {
                Ok(Some(directory)) => {
                    self.rebuilds.forget(id);
                    let (key, snapshotter) = (name.key, name.snapshotter);
                    tracing::warn!(
                        key,
                        snapshotter,
                        "removed a layer that cannot be rebuilt: the next pull brings it"
                    );
                    if !self.retire(&snapshotter, directory).await {
                        self.garbage.add_directory(&snapshotter, directory);
                    }
                    // Its parent may be without children now.
                    kept.clear();
                }
                Ok(None) => drop(kept.insert(id)),
                Err(error) => {
                    tracing::warn!(key = name.key, %error, "remove a layer that cannot be rebuilt");
                    kept.insert(id);
                }
            }
        }
    }
}

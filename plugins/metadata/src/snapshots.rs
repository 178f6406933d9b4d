//! One snapshotter by key and namespace, on top of a driver that knows only directories by number.
//!
//! ```text
//! prepare:  number ── directory ── record (name and number, in one transaction)
//! commit:   fix-ups on disk ── record
//! remove:   record ── directory out of the way ── its content deleted in the background
//! ```
//!
//! So a crash leaves at worst a directory without record, which the next start takes away, and never a record without its
//! directory. Numbers are never used again, so a directory that waits for its removal is in nobody's way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use gantry_core::field_mask::FieldMask;
use gantry_core::filters::Filters;
use gantry_core::mount::Mount;
use gantry_core::snapshots::{
    CommitSnapshot, DriverSnapshot, NewSnapshot, SnapshotDriver, SnapshotInfo, SnapshotKind, SnapshotUsage,
    Snapshotter,
};
use gantry_core::wire_names::LABEL_SNAPSHOT_REF;
use gantry_core::{Context, Error, ErrorKind, ItemStream, Labels, Result, SnapshotKey};
use gantry_failpoint::{Point, pass, reach};
use gantry_store::{Reading, Writing, params};

use crate::columns::{length_at, length_to_column};
use crate::database::Inner;
use crate::leases::{self, ResourceKind};
use crate::rebuild::Rebuilds;
use crate::snapshot_records::{self as records, NewRecord, Record, Space};
use crate::{labels, namespaces, paging};

const PAGE: usize = 256;

/// A snapshotter whose names are kept in the database.
#[derive(Clone)]
pub struct MetadataSnapshotter {
    inner: Arc<Inner>,
    driver: Arc<dyn SnapshotDriver>,
    name: String,
}

/// Whether a snapshot can be made or committed under a name.
enum Plan<T> {
    /// The name is taken by this snapshot, which the caller's lease is to keep all the same.
    Taken(String, Error),
    Free(T),
}

fn taken(key: &str) -> Error {
    Error::already_exists(format!("snapshot {key:?}"))
}

impl MetadataSnapshotter {
    pub(crate) fn new(inner: Arc<Inner>, driver: Arc<dyn SnapshotDriver>) -> Self {
        let name = driver.name().to_owned();
        MetadataSnapshotter { inner, driver, name }
    }

    /// Its driver's name, for example `overlayfs`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its driver can do besides.
    pub fn capabilities(&self) -> Vec<String> {
        self.driver.capabilities()
    }

    fn space(&self, cx: &Context) -> Result<Space> {
        Ok(Space { snapshotter: self.name.clone(), namespace: cx.namespace()?.clone() })
    }

    fn resource(&self) -> ResourceKind {
        ResourceKind::Snapshots(self.name.clone())
    }

    /// Calls the driver on the blocking pool.
    async fn drive<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn SnapshotDriver) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let driver = Arc::clone(&self.driver);
        self.inner.blocking(move || call(driver.as_ref())).await
    }

    /// Lets the caller's lease keep a snapshot that was there already, and gives the error that says so.
    async fn keep_taken<T>(&self, cx: &Context, key: String, error: Error) -> Result<T> {
        if cx.lease().is_some() {
            let (cx, resource) = (cx.clone(), self.resource());
            let write = move |db: &Writing<'_>| leases::add_to_lease(db, &cx, &resource, &key).map(drop);
            self.inner.change(write).await?;
        }
        Err(error)
    }

    async fn make(self, cx: Context, new: NewSnapshot, kind: SnapshotKind) -> Result<Vec<Mount>> {
        let space = self.space(&cx)?;
        let new_labels = labels::checked(new.labels).map_err(|error| error.context("info.Labels"))?;
        let (key, parent_key) = (new.key, new.parent);
        let read = {
            let (cx, space, key, parent_key) = (cx.clone(), space.clone(), key.clone(), parent_key.clone());
            let target = new_labels.get(LABEL_SNAPSHOT_REF).cloned();
            let inner = Arc::clone(&self.inner);
            move |db: &Reading<'_>| {
                if let Some(taken) = target_taken(db, &inner.rebuilds, &space, target)? {
                    return Ok(taken);
                }
                plan_new(db, &cx, &space, &key, parent_key.as_ref())
            }
        };
        if let Some(parent) = &parent_key {
            self.inner.sound_by_key(&space, parent.as_str()).await?;
        }
        let parents = match self.inner.store.read_few(read).await? {
            Plan::Taken(key, error) => return self.keep_taken(&cx, key, error).await,
            Plan::Free(parents) => parents,
        };
        let id = self.inner.next_snapshot.fetch_add(1, Ordering::SeqCst);
        let number = u64::try_from(id).map_err(|_| Error::internal("a snapshot's number"))?;
        let directory =
            DriverSnapshot { id: number, kind, parents: parents.clone(), labels: new_labels.clone() };
        // Held until directory and record agree, for those who compare them.
        let _settled = self.inner.directory_locks.lock((self.name.clone(), number)).await;
        let made = move |driver: &dyn SnapshotDriver| {
            driver.create(&directory)?;
            match driver.mounts(&directory) {
                Ok(mounts) => Ok(mounts),
                Err(error) => {
                    driver.retire(directory.id)?;
                    Err(error)
                }
            }
        };
        let mounts = match self.drive(made).await {
            Ok(mounts) => mounts,
            Err(error) => {
                return Err(self.explain_unmade(&space, parent_key.as_ref(), &parents, error).await);
            }
        };
        reach(Point::SnapshotMade);
        let boot_id = self.inner.store.boot().id.clone();
        let resource = self.resource();
        let write = move |db: &Writing<'_>| {
            namespaces::ensure(db, &space.namespace)?;
            leases::add_to_lease(db, &cx, &resource, key.as_str())?;
            if records::find(db, &space, key.as_str())?.is_some() {
                return Err(taken(key.as_str()));
            }
            let parent = same_parent(db, &space, parent_key.as_ref(), &parents)?;
            let record = NewRecord { id, key: &key, parent, kind, labels: &new_labels, boot_id: &boot_id };
            records::insert(db, &space, &record)
        };
        if let Err(error) = self.inner.change(write).await {
            if !self.inner.retire(&self.name, number).await {
                self.inner.garbage.add_directory(&self.name, number);
            }
            return Err(error);
        }
        reach(Point::SnapshotRecorded);
        Ok(mounts)
    }

    /// Why the driver could not make a snapshot: its parent may have been removed meanwhile, which is all that a client can act on.
    async fn explain_unmade(
        &self,
        space: &Space,
        parent: Option<&SnapshotKey>,
        parents: &[u64],
        error: Error,
    ) -> Error {
        let (space, parent, parents) = (space.clone(), parent.cloned(), parents.to_vec());
        let read = move |db: &Reading<'_>| same_parent(db, &space, parent.as_ref(), &parents);
        match self.inner.store.read_few(read).await {
            Err(gone) if gone.kind() == ErrorKind::NotFound => gone,
            _ => error,
        }
    }

    async fn commit_active(self, cx: Context, how: CommitSnapshot) -> Result<()> {
        let space = self.space(&cx)?;
        let new_labels = labels::checked(how.labels).map_err(|error| error.context("info.Labels"))?;
        let (name, key, rebase) = (how.name, how.key, how.parent);
        let read = {
            let (cx, space, name, key) = (cx.clone(), space.clone(), name.clone(), key.clone());
            let (rebase, inner) = (rebase.clone(), Arc::clone(&self.inner));
            move |db: &Reading<'_>| {
                let names = CommitNames { space: &space, name: &name, key: &key, rebase: rebase.as_ref() };
                plan_commit(db, &cx, &inner.rebuilds, &names)
            }
        };
        let CommitPlan { active, parents: new_parents, .. } = match self.inner.store.read_few(read).await? {
            Plan::Taken(key, error) => return self.keep_taken(&cx, key, error).await,
            Plan::Free(plan) => plan,
        };
        // Held from the fix-ups on disk to the record, so that two commits do not meet in one directory.
        let _alone = self.inner.snapshot_locks.lock(active).await;
        let (directory, parents) = {
            let (space, key) = (space.clone(), key.clone());
            let again = move |db: &Reading<'_>| {
                let record = records::existing(db, &space, &key)?;
                if record.id != active {
                    return Err(Error::not_found(format!("snapshot {key:?} was replaced")));
                }
                driver_snapshot(db, &record)
            };
            (self.inner.store.read_few(again).await?, new_parents.clone())
        };
        self.drive(move |driver| driver.commit(&directory, &parents)).await?;
        pass(Point::SnapshotFixedUp)?;
        let boot_id = self.inner.store.boot().id.clone();
        let resource = self.resource();
        let inner = Arc::clone(&self.inner);
        let write = move |db: &Writing<'_>| {
            // Looked at anew: others may have come in between.
            let names = CommitNames { space: &space, name: &name, key: &key, rebase: rebase.as_ref() };
            let plan = match plan_commit(db, &cx, &inner.rebuilds, &names)? {
                Plan::Taken(key, error) => {
                    leases::add_to_lease(db, &cx, &resource, &key)?;
                    return Ok(Err(error));
                }
                Plan::Free(now) if now.active == active && now.parents == new_parents => now,
                Plan::Free(_) => return Err(Error::not_found(format!("snapshot {key:?} was replaced"))),
            };
            let record = NewRecord {
                id: active,
                key: &name,
                parent: plan.parent,
                kind: SnapshotKind::Committed,
                labels: &new_labels,
                boot_id: &boot_id,
            };
            let replaced = match &plan.replaces {
                Some(lost) => Some((lost.id, records::replace_lost(db, lost, &record)?)),
                None => records::commit(db, &record).map(|()| None)?,
            };
            leases::add_to_lease(db, &cx, &resource, name.as_str())?;
            leases::drop_from_lease(db, &cx, &resource, key.as_str())?;
            Ok(Ok(replaced))
        };
        if let Some((id, directory)) = self.inner.change(write).await?? {
            self.inner.rebuilds.forget(id);
            if !self.inner.retire(&self.name, directory).await {
                self.inner.garbage.add_directory(&self.name, directory);
            }
        }
        reach(Point::SnapshotCommitted);
        self.inner.pending.committed.notify_one();
        Ok(())
    }

    async fn remove_record(self, cx: Context, key: SnapshotKey) -> Result<()> {
        let space = self.space(&cx)?;
        let resource = self.resource();
        let _removal = self.inner.removals.read().await;
        let write = move |db: &Writing<'_>| {
            let record = records::existing(db, &space, &key)?;
            if db.exists("SELECT 1 FROM snapshots WHERE parent = ?1 LIMIT 1", params![record.id])? {
                return Err(Error::failed_precondition("cannot remove snapshot with child"));
            }
            db.execute("DELETE FROM snapshots WHERE id = ?1", params![record.id])?;
            leases::drop_from_lease(db, &cx, &resource, key.as_str())?;
            Ok(record.directory)
        };
        let directory = self.inner.delete(write).await?;
        reach(Point::SnapshotUnrecorded);
        // The record is gone, and so is the snapshot; what fails from here on is tried again by the next collection.
        if !self.inner.retire(&self.name, directory).await {
            self.inner.garbage.add_directory(&self.name, directory);
        }
        Ok(())
    }
}

/// Whether what a new snapshot is to become, by its label, is there already. A lost one is not: the new one takes its place.
fn target_taken(
    db: &Reading<'_>,
    rebuilds: &Rebuilds,
    space: &Space,
    target: Option<String>,
) -> Result<Option<Plan<Vec<u64>>>> {
    let Some(target) = target else { return Ok(None) };
    match records::find(db, space, &target)? {
        Some(found) if !rebuilds.is_lost(found.id) => {
            let error = Error::already_exists(format!("target snapshot {target:?}"));
            Ok(Some(Plan::Taken(target, error)))
        }
        _ => Ok(None),
    }
}

/// Looks at what a new snapshot needs: its parents' directories, nearest first.
fn plan_new(
    db: &Reading<'_>,
    cx: &Context,
    space: &Space,
    key: &SnapshotKey,
    parent: Option<&SnapshotKey>,
) -> Result<Plan<Vec<u64>>> {
    if records::find(db, space, key.as_str())?.is_some() {
        return Ok(Plan::Taken(key.as_str().to_owned(), taken(key.as_str())));
    }
    leases::check(db, cx)?;
    let parent = parent.map(|parent| records::parent(db, space, parent)).transpose()?;
    records::chain(db, parent.map(|parent| parent.id)).map(Plan::Free)
}

/// The parent's id, if it is still the one whose chain was read: it may have gone, or come anew.
fn same_parent(
    db: &Reading<'_>,
    space: &Space,
    key: Option<&SnapshotKey>,
    parents: &[u64],
) -> Result<Option<i64>> {
    let parent = key.map(|key| records::parent(db, space, key)).transpose()?;
    if parent.as_ref().map(|parent| parent.directory) != parents.first().copied() {
        let name = key.map(SnapshotKey::as_str).unwrap_or_default();
        return Err(Error::not_found(format!("parent snapshot {name:?} was replaced")));
    }
    Ok(parent.map(|parent| parent.id))
}

/// What a commit starts from.
struct CommitPlan {
    /// The active snapshot's id.
    active: i64,
    /// The id of the parent that it will have.
    parent: Option<i64>,
    /// The directories of the parents that it will have, nearest first.
    parents: Vec<u64>,
    /// The lost snapshot whose place it takes.
    replaces: Option<Record>,
}

/// What a commit names.
struct CommitNames<'n> {
    space: &'n Space,
    name: &'n SnapshotKey,
    key: &'n SnapshotKey,
    rebase: Option<&'n SnapshotKey>,
}

/// Looks at what a commit needs: the active snapshot, and the parents that it will have.
fn plan_commit(
    db: &Reading<'_>,
    cx: &Context,
    rebuilds: &Rebuilds,
    names: &CommitNames<'_>,
) -> Result<Plan<CommitPlan>> {
    let CommitNames { space, name, key, rebase } = *names;
    leases::check(db, cx)?;
    let taken_by = records::find(db, space, name.as_str())?;
    if taken_by.as_ref().is_some_and(|found| !rebuilds.is_lost(found.id)) {
        return Ok(Plan::Taken(name.as_str().to_owned(), taken(name.as_str())));
    }
    let active = records::existing(db, space, key)?;
    if active.info.kind != SnapshotKind::Active {
        // Source: observed answers, for the words.
        let text = format!("failed to commit snapshot: snapshot {:?} is not active", key.as_str());
        return Err(Error::failed_precondition(text));
    }
    // Source: observed; a parent given at the commit counts only for a snapshot that has none.
    let parent = match (active.parent, rebase) {
        (None, Some(rebase)) => Some(records::parent(db, space, rebase)?.id),
        (parent, _) => parent,
    };
    if taken_by.as_ref().is_some_and(|lost| lost.parent != parent) {
        // What stands on the lost one must find below it what it always found.
        return Ok(Plan::Taken(name.as_str().to_owned(), taken(name.as_str())));
    }
    let parents = records::chain(db, parent)?;
    Ok(Plan::Free(CommitPlan { active: active.id, parent, parents, replaces: taken_by }))
}

fn driver_snapshot(db: &Reading<'_>, record: &Record) -> Result<DriverSnapshot> {
    Ok(DriverSnapshot {
        id: record.directory,
        kind: record.info.kind,
        parents: records::chain(db, record.parent)?,
        labels: record.info.labels.clone(),
    })
}

#[async_trait]
impl Snapshotter for MetadataSnapshotter {
    async fn prepare(&self, cx: &Context, new: NewSnapshot) -> Result<Vec<Mount>> {
        self.inner.detached(self.clone().make(cx.clone(), new, SnapshotKind::Active)).await
    }

    async fn view(&self, cx: &Context, new: NewSnapshot) -> Result<Vec<Mount>> {
        self.inner.detached(self.clone().make(cx.clone(), new, SnapshotKind::View)).await
    }

    async fn mounts(&self, cx: &Context, key: &SnapshotKey) -> Result<Vec<Mount>> {
        let (space, key) = (self.space(cx)?, key.clone());
        self.inner.sound_by_key(&space, key.as_str()).await?;
        let read = move |db: &Reading<'_>| {
            let record = records::existing(db, &space, &key)?;
            if record.info.kind == SnapshotKind::Committed {
                let text = format!("snapshot {:?} is committed and has no mounts", key.as_str());
                return Err(Error::failed_precondition(text));
            }
            driver_snapshot(db, &record)
        };
        let directory = self.inner.store.read_few(read).await?;
        self.drive(move |driver| driver.mounts(&directory)).await
    }

    async fn commit(&self, cx: &Context, how: CommitSnapshot) -> Result<()> {
        self.inner.detached(self.clone().commit_active(cx.clone(), how)).await
    }

    async fn remove(&self, cx: &Context, key: &SnapshotKey) -> Result<()> {
        self.inner.detached(self.clone().remove_record(cx.clone(), key.clone())).await
    }

    async fn stat(&self, cx: &Context, key: &SnapshotKey) -> Result<SnapshotInfo> {
        let (space, key) = (self.space(cx)?, key.clone());
        let inner = Arc::clone(&self.inner);
        let read = move |db: &Reading<'_>| {
            let record = records::existing(db, &space, &key)?;
            if inner.rebuilds.is_lost(record.id) {
                // Who asks whether a layer is unpacked is to unpack it.
                return Err(Error::not_found(format!("snapshot {} cannot be rebuilt", key.as_str())));
            }
            Ok(record.info)
        };
        self.inner.store.read_few(read).await
    }

    async fn update(
        &self,
        cx: &Context,
        key: &SnapshotKey,
        given: Labels,
        mask: &FieldMask,
    ) -> Result<SnapshotInfo> {
        let (space, key, mask) = (self.space(cx)?, key.clone(), mask.clone());
        let write = move |db: &Writing<'_>| {
            let mut record = records::existing(db, &space, &key)?;
            let noun = format!("snapshot {:?}", key.as_str());
            record.info.labels = labels::update(record.info.labels, &given, &mask, &noun)?;
            records::set_labels(db, &mut record)?;
            Ok(record.info)
        };
        self.inner.change(write).await
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<SnapshotInfo>> {
        let space = self.space(cx)?;
        let filter = Filters::parse(filters)?;
        let fetch = move |db: &Reading<'_>, after: Option<&str>, limit: usize| {
            let page = records::page(db, &space, after.unwrap_or_default(), limit)?;
            Ok(page.into_iter().map(|info| (info.name.as_str().to_owned(), info)).collect())
        };
        Ok(paging::list(Arc::clone(&self.inner), filter, PAGE, Arc::new(fetch)))
    }

    async fn usage(&self, cx: &Context, key: &SnapshotKey) -> Result<SnapshotUsage> {
        let (space, key) = (self.space(cx)?, key.clone());
        let read = move |db: &Reading<'_>| {
            let record = records::existing(db, &space, &key)?;
            let sql =
                "SELECT used_bytes, used_inodes FROM snapshots WHERE id = ?1 AND used_bytes IS NOT NULL";
            let known = db.one(sql, params![record.id], |row| {
                Ok(SnapshotUsage { size_bytes: length_at(row, 0)?, inodes: length_at(row, 1)? })
            })?;
            Ok((record, known))
        };
        let (record, known) = self.inner.store.read(read).await?;
        if let Some(known) = known {
            return Ok(known);
        }
        let directory = record.directory;
        let usage = self.drive(move |driver| driver.usage(directory)).await?;
        if record.info.kind == SnapshotKind::Committed {
            // It cannot change any more, and walking it is slow.
            let (bytes, inodes) = (length_to_column(usage.size_bytes)?, length_to_column(usage.inodes)?);
            let write = move |db: &Writing<'_>| {
                let sql = "UPDATE snapshots SET used_bytes = ?2, used_inodes = ?3 \
                           WHERE id = ?1 AND kind = ?4 AND directory = ?5";
                let directory = directory.cast_signed();
                db.execute(sql, params![record.id, bytes, inodes, records::COMMITTED, directory]).map(drop)
            };
            self.inner.store.write(write).await?;
        }
        Ok(usage)
    }

    async fn cleanup(&self, _cx: &Context) -> Result<()> {
        // Source: observed; the collection cleans up by itself.
        Err(Error::unimplemented("snapshots cleanup"))
    }
}

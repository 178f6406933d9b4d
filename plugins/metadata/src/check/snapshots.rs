//! Records of snapshots, their parents and their directories.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use gantry_core::maintenance::check::{Outcome, Problem};
use gantry_core::maintenance::{ObjectKind, ObjectName};
use gantry_core::snapshots::{DirectoryFault, DriverSnapshot, SnapshotDriver, SnapshotKind};
use gantry_core::{Error, Result, ResultExt as _};
use gantry_store::{Reading, Writing, params};

use super::{Checker, Draft, Mended, PAGE};
use crate::collection::{Node, NodeKind, name_of};
use crate::database::Inner;
use crate::snapshot_records::{COMMITTED, kind_from_number};

/// A record, without what is only needed to name it.
#[derive(Clone, Copy)]
struct SnapshotRow {
    id: i64,
    parent: Option<i64>,
    kind: i64,
    directory: Option<u64>,
    /// Whether it waits to be rebuilt.
    suspect: bool,
    /// Places in the list of texts.
    snapshotter: u32,
    namespace: u32,
}

/// All records, as they are at one moment.
struct Snapshots {
    rows: Vec<SnapshotRow>,
    /// Names of snapshotters and namespaces.
    texts: Vec<String>,
}

/// What stands against removing the record of a lost snapshot.
enum Lost {
    /// Nothing.
    Free,
    /// This.
    Held(String),
    /// The record is gone.
    Gone,
}

impl Checker {
    pub(super) async fn snapshots(&mut self) -> Result<()> {
        self.progress("snapshots", 0, 0).await?;
        let drivers: Vec<(String, Arc<dyn SnapshotDriver>)> =
            self.inner.drivers.iter().map(|(name, driver)| (name.clone(), Arc::clone(driver))).collect();
        // A directory comes before its record and leaves after it: what is listed before the records and has none was being
        // made or removed, or is an orphan.
        let mut before = BTreeMap::new();
        for (name, driver) in &drivers {
            before.insert(name.clone(), self.inner.directories_of(driver).await?);
        }
        let all = Arc::new(self.inner.snapshot_rows().await?);
        self.summary.snapshots = all.rows.len() as u64;
        self.parents(&all).await?;
        self.unknown_snapshotters(&all).await?;
        for (name, driver) in drivers {
            let on_disk = self.inner.directories_of(&driver).await?;
            self.suspects(&all, &name).await?;
            self.lost(&all, &name, &driver, &on_disk).await?;
            self.inside(&all, &name, &driver, &on_disk).await?;
            let recorded: HashSet<u64> = all.of(&name).filter_map(|row| row.directory).collect();
            let orphans: Vec<u64> =
                before.remove(&name).unwrap_or_default().difference(&recorded).copied().collect();
            self.orphans(&name, &driver, orphans).await?;
        }
        Ok(())
    }

    async fn named(&self, row: &SnapshotRow) -> Result<Option<ObjectName>> {
        let node = Node { kind: NodeKind::Snapshot, id: row.id };
        self.inner.store.read(move |db| name_of(db, node)).await
    }

    /// Tells of a record that is still there.
    async fn told(&mut self, row: &SnapshotRow, draft: Draft, outcome: Outcome, action: &str) -> Result<()> {
        match self.named(row).await? {
            Some(name) => self.found(draft.object(name), outcome, action).await,
            None => Ok(()),
        }
    }

    async fn unknown_snapshotters(&mut self, all: &Snapshots) -> Result<()> {
        let mut unknown: BTreeMap<&str, u64> = BTreeMap::new();
        for row in &all.rows {
            let name = all.text(row.snapshotter);
            if !self.inner.drivers.contains_key(name) {
                *unknown.entry(name).or_default() += 1;
            }
        }
        for (name, count) in unknown {
            let detail = format!("{count} snapshots of {name:?}, a snapshotter that is not loaded");
            self.found(Draft::new(Problem::NotChecked).detail(detail), Outcome::Note, "").await?;
        }
        Ok(())
    }

    /// A parent is a committed snapshot of the same snapshotter and namespace, and no chain bites its own tail.
    async fn parents(&mut self, all: &Snapshots) -> Result<()> {
        for (row, why) in all.broken_parents() {
            let draft = Draft::new(Problem::ParentBroken).detail(why);
            let advice = "what stands on it cannot be used: remove it and what stands on it, then pull again";
            self.told(&row, draft, Outcome::Left, advice).await?;
        }
        for row in &all.rows {
            if kind_from_number(row.kind).is_err() {
                let draft = Draft::new(Problem::RecordUnreadable).detail(format!("kind {}", row.kind));
                self.told(row, draft, Outcome::Left, "no snapshot can be of that kind").await?;
            }
        }
        Ok(())
    }

    async fn suspects(&mut self, all: &Snapshots, name: &str) -> Result<()> {
        let suspects: Vec<SnapshotRow> = all.of(name).filter(|row| row.suspect).copied().collect();
        for row in suspects {
            let draft = Draft::new(Problem::SnapshotSuspect)
                .detail("its files were not on disk yet when the machine stopped without warning");
            self.told(&row, draft, Outcome::Note, "").await?;
        }
        Ok(())
    }

    /// Every record has its directory.
    async fn lost(
        &mut self,
        all: &Snapshots,
        name: &str,
        driver: &Arc<dyn SnapshotDriver>,
        on_disk: &HashSet<u64>,
    ) -> Result<()> {
        let mut lost: Vec<SnapshotRow> = all
            .of(name)
            .filter(|row| !row.suspect && row.directory.is_none_or(|number| !on_disk.contains(&number)))
            .copied()
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        // A record that is there after this look has had its directory at the look.
        let again = self.inner.directories_of(driver).await?;
        lost.retain(|row| row.directory.is_none_or(|number| !again.contains(&number)));
        let mut gone = HashSet::new();
        // Rounds, since a parent can go only after its children.
        while !lost.is_empty() {
            let mut waiting = Vec::new();
            let before = lost.len();
            for row in lost {
                match self.inner.lost_fate(row.id, gone.clone()).await? {
                    Lost::Free => {
                        gone.insert(row.id);
                        self.lost_one(&row, driver).await?;
                    }
                    Lost::Held(why) => waiting.push((row, why)),
                    Lost::Gone => {}
                }
            }
            if waiting.len() == before {
                for (row, why) in waiting {
                    let draft = self.lost_draft(&row, driver);
                    self.told(&row, draft, Outcome::Left, &why).await?;
                }
                break;
            }
            lost = waiting.into_iter().map(|(row, _)| row).collect();
        }
        Ok(())
    }

    fn lost_draft(&self, row: &SnapshotRow, driver: &Arc<dyn SnapshotDriver>) -> Draft {
        let number = row.directory.map(|number| number.to_string()).unwrap_or_default();
        Draft::new(Problem::SnapshotMissing).path(driver.root().join("snapshots").join(number).display())
    }

    async fn lost_one(&mut self, row: &SnapshotRow, driver: &Arc<dyn SnapshotDriver>) -> Result<()> {
        let Some(name) = self.named(row).await? else { return Ok(()) };
        let draft = self.lost_draft(row, driver).object(name);
        let (id, inner) = (row.id, Arc::clone(&self.inner));
        let (would, done) = match row.kind {
            COMMITTED => (
                "removes its record, so that a pull unpacks it again",
                "removed its record: a pull unpacks it again",
            ),
            _ => ("removes its record; its files are lost", "removed its record; its files are lost"),
        };
        let repair = async move {
            let write = move |db: &Writing<'_>| {
                let fate = lost_fate(db, id, &HashSet::new())?;
                if matches!(fate, Lost::Free) {
                    db.execute("DELETE FROM snapshots WHERE id = ?1", params![id])?;
                }
                Ok(fate)
            };
            Ok(match inner.delete(write).await? {
                Lost::Free => Mended::Done(done.to_owned()),
                Lost::Gone => Mended::Unneeded,
                Lost::Held(why) => Mended::Refused(why),
            })
        };
        self.settle(draft, would, repair).await
    }

    /// Every directory is whole.
    async fn inside(
        &mut self,
        all: &Arc<Snapshots>,
        name: &str,
        driver: &Arc<dyn SnapshotDriver>,
        on_disk: &HashSet<u64>,
    ) -> Result<()> {
        let rows: Vec<SnapshotRow> = all
            .of(name)
            .filter(|row| !row.suspect && row.directory.is_some_and(|number| on_disk.contains(&number)))
            .copied()
            .collect();
        for page in rows.chunks(PAGE) {
            for (row, _) in self.inner.faults(driver, page.to_vec()).await? {
                // Again, and then the record: if that is there still, the directory was.
                let again = self.inner.faults(driver, vec![row]).await?;
                let Some(object) = self.named(&row).await? else { continue };
                for fault in again.into_iter().flat_map(|(_, faults)| faults) {
                    self.fault(row, object.clone(), driver, fault).await?;
                }
            }
        }
        Ok(())
    }

    async fn fault(
        &mut self,
        row: SnapshotRow,
        object: ObjectName,
        driver: &Arc<dyn SnapshotDriver>,
        fault: DirectoryFault,
    ) -> Result<()> {
        let draft = Draft::new(Problem::SnapshotIncomplete).object(object).detail(fault.what);
        if !fault.mendable {
            let advice = match row.kind {
                COMMITTED => "remove the containers and images that stand on it, then pull again",
                _ => "its files are lost: remove it, and make it anew",
            };
            return self.found(draft, Outcome::Left, advice).await;
        }
        let (inner, driver) = (Arc::clone(&self.inner), Arc::clone(driver));
        let repair = async move {
            let Some(snapshot) = driver_snapshot(&row) else { return Ok(Mended::Unneeded) };
            inner.blocking(move || driver.mend(&snapshot)).await?;
            Ok(Mended::Done("made it anew".to_owned()))
        };
        self.settle(draft, "makes it anew", repair).await
    }

    /// Every directory has a record.
    async fn orphans(
        &mut self,
        name: &str,
        driver: &Arc<dyn SnapshotDriver>,
        mut orphans: Vec<u64>,
    ) -> Result<()> {
        if orphans.is_empty() {
            return Ok(());
        }
        let inner = Arc::clone(&self.inner);
        {
            // Whoever makes one holds its lock until directory and record agree.
            for number in &orphans {
                drop(inner.directory_locks.lock((name.to_owned(), *number)).await);
            }
            let _collections = inner.collector.pause().await;
            let _removals = inner.removals.write().await;
            let mut left = Vec::new();
            for number in orphans {
                if !inner.garbage.knows_directory(name, number) && !inner.is_recorded(name, number).await? {
                    left.push(number);
                }
            }
            let on_disk = inner.directories_of(driver).await?;
            left.retain(|number| on_disk.contains(number));
            orphans = left;
        }
        for number in orphans {
            let path = driver.root().join("snapshots").join(number.to_string());
            let draft = Draft::new(Problem::DirectoryWithoutRecord).path(path.display()).object(ObjectName {
                kind: ObjectKind::Snapshot,
                namespace: String::new(),
                snapshotter: name.to_owned(),
                name: number.to_string(),
            });
            let (inner, snapshotter) = (Arc::clone(&self.inner), name.to_owned());
            let repair = async move {
                if inner.retire(&snapshotter, number).await {
                    Ok(Mended::Done("removed it".to_owned()))
                } else {
                    Ok(Mended::Refused("it could not be moved away: see the daemon's log".to_owned()))
                }
            };
            self.settle(draft, "removes it", repair).await?;
        }
        Ok(())
    }
}

impl Snapshots {
    fn text(&self, place: u32) -> &str {
        self.texts.get(place as usize).map(String::as_str).unwrap_or_default()
    }

    fn of(&self, snapshotter: &str) -> impl Iterator<Item = &SnapshotRow> {
        let place = self.texts.iter().position(|text| text == snapshotter).map(|place| place as u32);
        self.rows.iter().filter(move |row| Some(row.snapshotter) == place)
    }

    fn broken_parents(&self) -> Vec<(SnapshotRow, String)> {
        let places: HashMap<i64, usize> =
            self.rows.iter().enumerate().map(|(place, row)| (row.id, place)).collect();
        let mut broken = Vec::new();
        for row in &self.rows {
            let Some(parent) = row.parent else { continue };
            let why = match places.get(&parent).map(|place| &self.rows[*place]) {
                None => format!("record {parent} is not there"),
                Some(found) if found.kind != COMMITTED => format!("record {parent} is not committed"),
                Some(found) if (found.snapshotter, found.namespace) != (row.snapshotter, row.namespace) => {
                    let (snapshotter, namespace) = (self.text(found.snapshotter), self.text(found.namespace));
                    format!("record {parent} is of snapshotter {snapshotter} in namespace {namespace}")
                }
                Some(_) => continue,
            };
            broken.push((*row, why));
        }
        broken.extend(self.in_circles(&places));
        broken
    }

    /// Snapshots that are among their own parents.
    fn in_circles(&self, places: &HashMap<i64, usize>) -> Vec<(SnapshotRow, String)> {
        let mut visit = vec![0_usize; self.rows.len()];
        let mut found = Vec::new();
        for start in 0..self.rows.len() {
            let mut at = Some(start);
            while let Some(place) = at.filter(|place| visit[*place] == 0) {
                visit[place] = start + 1;
                at = self.rows[place].parent.and_then(|parent| places.get(&parent).copied());
            }
            // Met on this very walk: a circle begins here.
            if let Some(place) = at.filter(|place| visit[*place] == start + 1) {
                found.push((self.rows[place], "it is among its own parents".to_owned()));
            }
        }
        found
    }
}

impl Inner {
    async fn directories_of(&self, driver: &Arc<dyn SnapshotDriver>) -> Result<HashSet<u64>> {
        let listed = Arc::clone(driver);
        let ids = self.blocking(move || listed.ids()).await;
        Ok(ids.with_context(|| format!("list snapshots of {}", driver.name()))?.into_iter().collect())
    }

    async fn snapshot_rows(&self) -> Result<Snapshots> {
        let boot = self.store.boot().id.clone();
        let read = move |db: &Reading<'_>| {
            let mut all = Snapshots { rows: Vec::new(), texts: Vec::new() };
            let mut places: HashMap<String, u32> = HashMap::new();
            let sql = "SELECT id, parent, kind, directory, unsynced = 1 AND boot_id <> ?1, snapshotter, namespace \
                       FROM snapshots ORDER BY id";
            db.each(sql, params![boot], |row| {
                let mut place = |text: String, texts: &mut Vec<String>| {
                    *places.entry(text).or_insert_with_key(|text| {
                        texts.push(text.clone());
                        (texts.len() - 1) as u32
                    })
                };
                let (kind, unsynced): (i64, bool) = (row.get(2)?, row.get(4)?);
                let snapshotter = place(row.get(5)?, &mut all.texts);
                let namespace = place(row.get(6)?, &mut all.texts);
                all.rows.push(SnapshotRow {
                    id: row.get(0)?,
                    parent: row.get(1)?,
                    kind,
                    directory: u64::try_from(row.get::<i64>(3)?).ok(),
                    suspect: kind == COMMITTED && unsynced,
                    snapshotter,
                    namespace,
                });
                Ok(())
            })?;
            Ok(all)
        };
        self.store.read(read).await
    }

    async fn is_recorded(&self, snapshotter: &str, number: u64) -> Result<bool> {
        let snapshotter = snapshotter.to_owned();
        let number = i64::try_from(number).map_err(|_| Error::internal(format!("directory {number}")))?;
        let read = move |db: &Reading<'_>| {
            let sql = "SELECT 1 FROM snapshots WHERE snapshotter = ?1 AND directory = ?2";
            db.exists(sql, params![snapshotter, number])
        };
        self.store.read(read).await
    }

    async fn lost_fate(&self, id: i64, gone: HashSet<i64>) -> Result<Lost> {
        self.store.read(move |db| lost_fate(db, id, &gone)).await
    }

    /// What is wrong inside of these directories.
    async fn faults(
        &self,
        driver: &Arc<dyn SnapshotDriver>,
        rows: Vec<SnapshotRow>,
    ) -> Result<Vec<(SnapshotRow, Vec<DirectoryFault>)>> {
        let driver = Arc::clone(driver);
        let look = move || {
            let mut found = Vec::new();
            for row in rows {
                let Some(snapshot) = driver_snapshot(&row) else { continue };
                let faults = driver.inspect(&snapshot)?;
                if !faults.is_empty() {
                    found.push((row, faults));
                }
            }
            Ok(found)
        };
        self.blocking(look).await
    }
}

fn driver_snapshot(row: &SnapshotRow) -> Option<DriverSnapshot> {
    let kind: SnapshotKind = kind_from_number(row.kind).ok()?;
    Some(DriverSnapshot { id: row.directory?, kind, parents: Vec::new(), labels: Default::default() })
}

/// What stands against removing a record whose directory is lost; children that are `gone` do not.
fn lost_fate(db: &Reading<'_>, id: i64, gone: &HashSet<i64>) -> Result<Lost> {
    let sql = "SELECT snapshotter, namespace, key FROM snapshots WHERE id = ?1";
    let names = db.one(sql, params![id], |row| {
        Ok((row.get::<String>(0)?, row.get::<String>(1)?, row.get::<String>(2)?))
    })?;
    let Some((snapshotter, namespace, key)) = names else { return Ok(Lost::Gone) };
    let sql = "SELECT id, key FROM snapshots WHERE parent = ?1 ORDER BY id";
    let mut children: Vec<(i64, String)> = db.all(sql, params![id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    children.retain(|(child, _)| !gone.contains(child));
    if let Some((_, first)) = children.first() {
        let more =
            if children.len() > 1 { format!(" and {} more", children.len() - 1) } else { String::new() };
        return Ok(Lost::Held(format!(
            "snapshot {first:?}{more} stands on it: remove what uses that, then check again"
        )));
    }
    let sql =
        "SELECT name FROM containers WHERE namespace = ?1 AND snapshotter = ?2 AND snapshot_key = ?3 LIMIT 1";
    let user: Option<String> = db.one(sql, params![namespace, snapshotter, key], |row| row.get(0))?;
    Ok(match user {
        Some(container) => Lost::Held(format!(
            "container {container:?} uses it, and its files are lost: gantry rm {container} removes both"
        )),
        None => Lost::Free,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, parent: Option<i64>, kind: i64, namespace: u32) -> SnapshotRow {
        SnapshotRow { id, parent, kind, directory: Some(1), suspect: false, snapshotter: 0, namespace }
    }

    #[test]
    fn parents_that_cannot_be_are_told_once_each() {
        let texts = ["overlayfs", "a", "b"].map(str::to_owned).to_vec();
        let rows = vec![
            row(1, None, COMMITTED, 1),
            row(2, Some(1), COMMITTED, 1),
            row(3, Some(2), 1, 1),
            row(4, Some(3), 1, 1),
            row(5, Some(1), 1, 2),
            row(6, Some(77), 1, 1),
            // A circle of three, and one that leads into it.
            row(10, Some(12), COMMITTED, 1),
            row(11, Some(10), COMMITTED, 1),
            row(12, Some(11), COMMITTED, 1),
            row(13, Some(12), COMMITTED, 1),
        ];
        let broken = Snapshots { rows, texts }.broken_parents();
        let ids: Vec<i64> = broken.iter().map(|(row, _)| row.id).collect();
        assert_eq!(ids, [4, 5, 6, 10], "{:?}", broken.iter().map(|(_, why)| why).collect::<Vec<_>>());
    }
}

//! The rows of snapshots.

use std::time::SystemTime;

use gantry_core::snapshots::{SnapshotInfo, SnapshotKind};
use gantry_core::{Error, Namespace, Result, SnapshotKey};
use gantry_store::{Reading, Row, Writing, params};

use crate::columns::{time_at, time_to_text};
use crate::labels::{self, Owner};

/// [`SnapshotKind::Committed`] as the tables write it.
pub(crate) const COMMITTED: i64 = 2;

pub(crate) fn kind_to_number(kind: SnapshotKind) -> i64 {
    match kind {
        SnapshotKind::View => 0,
        SnapshotKind::Active => 1,
        SnapshotKind::Committed => COMMITTED,
    }
}

pub(crate) fn kind_from_number(number: i64) -> Result<SnapshotKind> {
    match number {
        0 => Ok(SnapshotKind::View),
        1 => Ok(SnapshotKind::Active),
        COMMITTED => Ok(SnapshotKind::Committed),
        _ => Err(Error::internal(format!("stored snapshot kind {number}"))),
    }
}

/// Whose rows: one snapshotter's in one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    pub(crate) snapshotter: String,
    pub(crate) namespace: Namespace,
}

/// A row.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: i64,
    /// The number that its snapshotter's driver knows it by. Often its id, but not for what was taken over.
    pub(crate) directory: u64,
    /// Its parent's id.
    pub(crate) parent: Option<i64>,
    pub(crate) info: SnapshotInfo,
}

/// A row to be inserted.
pub(crate) struct NewRecord<'r> {
    /// Its id. A new row's directory has the same number.
    pub(crate) id: i64,
    pub(crate) key: &'r SnapshotKey,
    pub(crate) parent: Option<i64>,
    pub(crate) kind: SnapshotKind,
    pub(crate) labels: &'r gantry_core::Labels,
    pub(crate) boot_id: &'r str,
}

const COLUMNS: &str = "s.id, s.parent, s.key, p.key, s.kind, s.created_at, s.updated_at, s.directory";
const FROM: &str = "FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent";

fn from_row(db: &Reading<'_>, row: &Row<'_>) -> Result<Record> {
    let id = row.get(0)?;
    let info = SnapshotInfo {
        name: SnapshotKey::parse(row.get::<String>(2)?)?,
        parent: row.get::<Option<String>>(3)?.map(SnapshotKey::parse).transpose()?,
        kind: kind_from_number(row.get(4)?)?,
        created_at: time_at(row, 5)?,
        updated_at: time_at(row, 6)?,
        labels: labels::load(db, Owner::Snapshot, id)?,
    };
    Ok(Record { id, directory: number_at(row, 7)?, parent: row.get(1)?, info })
}

/// The row of `key`, if there is one.
pub(crate) fn find(db: &Reading<'_>, space: &Space, key: &str) -> Result<Option<Record>> {
    let sql = format!("SELECT {COLUMNS} {FROM} WHERE s.snapshotter = ?1 AND s.namespace = ?2 AND s.key = ?3");
    db.one(&sql, params![space.snapshotter, space.namespace.as_str(), key], |row| from_row(db, row))
}

/// The row of `key`.
pub(crate) fn existing(db: &Reading<'_>, space: &Space, key: &SnapshotKey) -> Result<Record> {
    find(db, space, key.as_str())?
        .ok_or_else(|| Error::not_found(format!("snapshot {} does not exist", key.as_str())))
}

/// The row of a parent: it must be committed.
pub(crate) fn parent(db: &Reading<'_>, space: &Space, key: &SnapshotKey) -> Result<Record> {
    let found = find(db, space, key.as_str())?
        .ok_or_else(|| Error::not_found(format!("parent snapshot {} does not exist", key.as_str())))?;
    if found.info.kind != SnapshotKind::Committed {
        return Err(Error::invalid_argument(format!("parent {:?} is not committed snapshot", key.as_str())));
    }
    Ok(found)
}

/// Rows above `after`, in byte order of their keys.
pub(crate) fn page(db: &Reading<'_>, space: &Space, after: &str, limit: usize) -> Result<Vec<SnapshotInfo>> {
    let sql = format!(
        "SELECT {COLUMNS} {FROM} WHERE s.snapshotter = ?1 AND s.namespace = ?2 AND s.key > ?3 ORDER BY s.key LIMIT ?4"
    );
    db.all(&sql, params![space.snapshotter, space.namespace.as_str(), after, limit as i64], |row| {
        Ok(from_row(db, row)?.info)
    })
}

/// The directories of a row and of its parents, nearest first.
pub(crate) fn chain(db: &Reading<'_>, first: Option<i64>) -> Result<Vec<u64>> {
    let sql = "WITH RECURSIVE chain (parent, directory, depth) AS (
                   SELECT parent, directory, 0 FROM snapshots WHERE id = ?1
                   UNION ALL
                   SELECT s.parent, s.directory, depth + 1 FROM chain c JOIN snapshots s ON s.id = c.parent
               ) SELECT directory FROM chain ORDER BY depth";
    db.all(sql, params![first], |row| number_at(row, 0))
}

/// The ids of a row and of its parents, nearest first.
pub(crate) fn chain_ids(db: &Reading<'_>, first: Option<i64>) -> Result<Vec<i64>> {
    let sql = "WITH RECURSIVE chain (id, parent, depth) AS (
                   SELECT id, parent, 0 FROM snapshots WHERE id = ?1
                   UNION ALL
                   SELECT s.id, s.parent, depth + 1 FROM chain c JOIN snapshots s ON s.id = c.parent
               ) SELECT id FROM chain ORDER BY depth";
    db.all(sql, params![first], |row| row.get(0))
}

/// A directory's number.
pub(crate) fn number_at(row: &Row<'_>, index: usize) -> Result<u64> {
    let number: i64 = row.get(index)?;
    u64::try_from(number).map_err(|_| Error::internal(format!("stored snapshot directory {number}")))
}

pub(crate) fn insert(db: &Writing<'_>, space: &Space, new: &NewRecord<'_>) -> Result<()> {
    let now = time_to_text(SystemTime::now());
    db.insert(
        "INSERT INTO snapshots (id, snapshotter, namespace, key, parent, kind, created_at, updated_at, boot_id, unsynced, \
         directory) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, 1, ?1)",
        params![
            new.id,
            space.snapshotter,
            space.namespace.as_str(),
            new.key.as_str(),
            new.parent,
            kind_to_number(new.kind),
            now,
            new.boot_id
        ],
    )?;
    labels::store(db, Owner::Snapshot, new.id, new.labels)
}

/// Turns the row of an active snapshot into that of a committed one. The directory stays, and so do children it cannot have.
pub(crate) fn commit(db: &Writing<'_>, new: &NewRecord<'_>) -> Result<()> {
    db.execute(
        "UPDATE snapshots SET key = ?2, parent = ?3, kind = ?4, created_at = ?5, updated_at = ?5, used_bytes = NULL, \
         used_inodes = NULL, boot_id = ?6, unsynced = 1 WHERE id = ?1",
        params![
            new.id,
            new.key.as_str(),
            new.parent,
            kind_to_number(new.kind),
            time_to_text(SystemTime::now()),
            new.boot_id
        ],
    )?;
    labels::store(db, Owner::Snapshot, new.id, new.labels)
}

/// Gives the directory of the active snapshot `new` to the lost one `lost`, which keeps its id and so its children. Returns the
/// directory that the lost one had.
pub(crate) fn replace_lost(db: &Writing<'_>, lost: &Record, new: &NewRecord<'_>) -> Result<u64> {
    let read = "SELECT directory FROM snapshots WHERE id = ?1";
    let directory = db.one(read, params![new.id], |row| row.get::<i64>(0))?;
    let directory = directory.ok_or_else(|| Error::internal("a commit without its active snapshot"))?;
    db.execute("DELETE FROM snapshots WHERE id = ?1", params![new.id])?;
    db.execute(
        "UPDATE snapshots SET directory = ?2, updated_at = ?3, used_bytes = NULL, used_inodes = NULL, boot_id = ?4, \
         unsynced = 1 WHERE id = ?1",
        params![lost.id, directory, time_to_text(SystemTime::now()), new.boot_id],
    )?;
    labels::store(db, Owner::Snapshot, lost.id, new.labels)?;
    Ok(lost.directory)
}

pub(crate) fn set_labels(db: &Writing<'_>, record: &mut Record) -> Result<()> {
    record.info.updated_at = SystemTime::now();
    let updated = time_to_text(record.info.updated_at);
    db.execute("UPDATE snapshots SET updated_at = ?2 WHERE id = ?1", params![record.id, updated])?;
    labels::store(db, Owner::Snapshot, record.id, &record.info.labels)
}

//! A snapshotter's own `metadata.db`: which directory each of its names has.
//!
//! ```text
//! v1 / snapshots / <name> / id, kind, parent, inodes, size, labels
//! ```
//!
//! Source: the storage that containerd's snapshotters share.

use std::collections::HashMap;

use gantry_bolt::Database;
use gantry_core::snapshots::{SnapshotKind, SnapshotUsage};
use gantry_core::{Error, ErrorKind, Labels, Result};

use super::fields::{buckets, malformed, map_at, signed, text, text_at, unsigned};
use super::report::{Problem, Report};

/// What a snapshotter knows about one of its names.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    /// Its directory.
    pub(super) directory: u64,
    pub(super) kind: SnapshotKind,
    /// The name of its parent.
    pub(super) parent: Option<String>,
    /// Known for what is committed.
    pub(super) usage: Option<SnapshotUsage>,
    pub(super) labels: Labels,
}

/// All that `database`, of the snapshotter `name`, knows.
///
/// # Errors
/// `FailedPrecondition` for a schema that is not known; `DataLoss` if the file is damaged.
pub(super) fn read(database: &Database, name: &str, report: &mut Report) -> Result<HashMap<String, Backend>> {
    let root = database.root()?;
    let mut found = HashMap::new();
    for entry in root.entries() {
        let (schema, _) = entry?;
        if schema != b"v1" {
            let schema = String::from_utf8_lossy(&schema).into_owned();
            let text = format!("{} has the schema {schema:?}, and v1 is known", database.path().display());
            return Err(Error::failed_precondition(text));
        }
    }
    let Some(all) = root.bucket("v1")?.map(|schema| schema.bucket("snapshots")).transpose()?.flatten() else {
        return Ok(found);
    };
    for entry in buckets(&all) {
        let (key, bucket) = entry?;
        match text(key.clone(), "its name").and_then(|key| Ok((key, one(&bucket)?))) {
            Ok((key, backend)) => drop(found.insert(key, backend)),
            Err(error) if error.kind() == ErrorKind::InvalidArgument => {
                let key = String::from_utf8_lossy(&key);
                report.add(Problem::damaged(format!("{name}'s own record of {key:?}: {error}")));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn one(bucket: &gantry_bolt::Bucket<'_>) -> Result<Backend> {
    let directory = bucket.get("id")?.as_deref().and_then(unsigned);
    let directory = directory.filter(|id| *id > 0 && *id < i64::MAX.unsigned_abs());
    // Source: the numbers of containerd's kinds; 0 is unknown.
    let kind = match bucket.get("kind")?.as_deref() {
        Some([1]) => SnapshotKind::View,
        Some([2]) => SnapshotKind::Active,
        Some([3]) => SnapshotKind::Committed,
        other => return Err(malformed(format!("kind {other:?}"))),
    };
    let parent = text_at(bucket, "parent")?;
    let number = |key: &str| -> Result<Option<u64>> {
        Ok(bucket.get(key)?.as_deref().and_then(signed).and_then(|number| u64::try_from(number).ok()))
    };
    let usage = match (number("size")?, number("inodes")?) {
        (Some(size_bytes), Some(inodes)) if kind == SnapshotKind::Committed => {
            Some(SnapshotUsage { size_bytes, inodes })
        }
        _ => None,
    };
    Ok(Backend {
        directory: directory.ok_or_else(|| malformed("id is no directory's number"))?,
        kind,
        parent: (!parent.is_empty()).then_some(parent),
        usage,
        labels: map_at(bucket, "labels")?,
    })
}

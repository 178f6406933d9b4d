//! Storing what was read, in one transaction.

use std::collections::HashMap;

use gantry_core::leases::{Lease, LeaseResource};
use gantry_core::mount::Mount;
use gantry_core::mounts::ActiveMount;
use gantry_core::time::to_parts;
use gantry_core::{Context, Namespace, Result};
use gantry_store::{Writing, params};

use super::mounts::Mounted;
use super::plan::{Plan, Snapshot};
use super::read::{Ingest, Records};
use crate::columns::{length_to_column, time_to_text};
use crate::labels::{self, Owner};
use crate::snapshot_records::kind_to_number;
use crate::{containers, images, mounts, sandboxes};

/// How far above containerd's directories ours are numbered: so many snapshots can containerd make, should it be started on
/// this root again, before its numbers meet ours.
const GAP: u64 = 1_000_000;

/// Writes all of `plan` into an empty database. What is mounted is so in the boot `boot_id`.
///
/// # Errors
/// Those of the database; `AlreadyExists` if a record is there twice.
pub(super) fn insert(db: &Writing<'_>, plan: &Plan, boot_id: &str) -> Result<()> {
    for (namespace, records) in &plan.namespaces {
        let sql = "INSERT INTO namespaces (name) VALUES (?1)";
        let id = db.insert(sql, params![namespace.as_str()])?;
        labels::store(db, Owner::Namespace, id, &records.labels)?;
        insert_records(db, namespace, records)?;
    }
    insert_snapshots(db, &plan.snapshots)?;
    for mounted in &plan.mounts {
        insert_mounted(db, mounted, boot_id)?;
    }
    let first = plan.highest_directory.div_ceil(GAP).max(1) * GAP;
    set_sequence(db, "snapshots", length_to_column(first)?)?;
    // The content store knows ingests by names of the form namespace/number/ref, and containerd's number is 1.
    let ingests: usize = plan.namespaces.values().map(|records| records.ingests.len()).sum();
    set_sequence(db, "ingests", i64::try_from(ingests).unwrap_or(i64::MAX).max(1))
}

/// Lets the ids of `table` go on behind `last`.
fn set_sequence(db: &Writing<'_>, table: &str, last: i64) -> Result<()> {
    db.execute("DELETE FROM sqlite_sequence WHERE name = ?1", params![table])?;
    db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)", params![table, last]).map(drop)
}

fn insert_records(db: &Writing<'_>, namespace: &Namespace, records: &Records) -> Result<()> {
    for container in &records.containers {
        containers::insert(db, namespace, container)?;
    }
    for sandbox in &records.sandboxes {
        sandboxes::insert(db, namespace, sandbox)?;
    }
    let cx = Context::new(namespace.clone());
    for image in &records.images {
        images::insert(db, &cx, image)?;
    }
    for blob in &records.blobs {
        let id = db.insert(
            "INSERT INTO blobs (namespace, digest, size, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                namespace.as_str(),
                blob.digest.as_str(),
                length_to_column(blob.size_bytes)?,
                time_to_text(blob.created_at),
                time_to_text(blob.updated_at)
            ],
        )?;
        labels::store(db, Owner::Blob, id, &blob.labels)?;
    }
    for ingest in &records.ingests {
        insert_ingest(db, namespace, ingest)?;
    }
    for (lease, resources) in &records.leases {
        insert_lease(db, namespace, lease, resources)?;
    }
    Ok(())
}

fn insert_ingest(db: &Writing<'_>, namespace: &Namespace, ingest: &Ingest) -> Result<()> {
    let expected = ingest.expected.as_ref().map(gantry_core::Digest::as_str);
    let expires = ingest.expires.map(|at| to_parts(at).0);
    db.insert(
        "INSERT INTO ingests (namespace, ref, backend_ref, expected, expires) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            namespace.as_str(),
            ingest.reference.as_str(),
            ingest.backend_ref.as_str(),
            expected,
            expires
        ],
    )
    .map(drop)
}

fn insert_lease(
    db: &Writing<'_>,
    namespace: &Namespace,
    lease: &Lease,
    resources: &[LeaseResource],
) -> Result<()> {
    let id = db.insert(
        "INSERT INTO leases (namespace, name, created_at) VALUES (?1, ?2, ?3)",
        params![namespace.as_str(), lease.id.as_str(), time_to_text(lease.created_at)],
    )?;
    labels::store(db, Owner::Lease, id, &lease.labels)?;
    for resource in resources {
        db.insert(
            "INSERT INTO lease_resources (lease, kind, name) VALUES (?1, ?2, ?3)",
            params![id, resource.kind, resource.id],
        )?;
    }
    Ok(())
}

/// A list of mounts: its id is the number of its directory.
fn insert_mounted(db: &Writing<'_>, mounted: &Mounted, boot_id: &str) -> Result<()> {
    let sql = "INSERT INTO mounts (id, namespace, name, lease, boot_id, finished, pinned, created_at, updated_at) \
               VALUES (?1, ?2, ?3, ?4, ?5, 1, 0, ?6, ?7)";
    let (created, updated) = (time_to_text(mounted.created_at), time_to_text(mounted.updated_at));
    let namespace = mounted.namespace.as_str();
    db.insert(sql, params![mounted.id, namespace, mounted.name, mounted.lease, boot_id, created, updated])?;
    labels::store(db, Owner::Mount, mounted.id, &mounted.labels)?;
    let mut position = 0;
    for (kind, mount_point, mounted_at) in &mounted.active {
        let active = ActiveMount {
            mount: Mount { kind: kind.clone(), ..Mount::default() },
            mounted_at: Some(*mounted_at),
            mount_point: mount_point.clone(),
            data: Default::default(),
        };
        mounts::insert_entry(db, mounted.id, position, &active.mount, Some(&active))?;
        position += 1;
    }
    for mount in &mounted.system {
        mounts::insert_entry(db, mounted.id, position, mount, None)?;
        position += 1;
    }
    Ok(())
}

/// Directories keep their numbers; ids are given in order, so that children have higher ones than their parents.
fn insert_snapshots(db: &Writing<'_>, snapshots: &[Snapshot]) -> Result<()> {
    let mut ids: HashMap<(&str, &Namespace, &str), i64> = HashMap::new();
    for snapshot in snapshots {
        let Snapshot { namespace, snapshotter, info, .. } = snapshot;
        let parent = info.parent.as_ref();
        let parent = parent.and_then(|parent| ids.get(&(snapshotter.as_str(), namespace, parent.as_str())));
        let (bytes, inodes) = match &snapshot.usage {
            Some(usage) => (Some(length_to_column(usage.size_bytes)?), Some(length_to_column(usage.inodes)?)),
            None => (None, None),
        };
        // What is there was made durable before; what is missing counts as lost in a boot of its own.
        let id = db.insert(
            "INSERT INTO snapshots (snapshotter, namespace, key, parent, kind, created_at, updated_at, used_bytes, \
             used_inodes, boot_id, unsynced, directory) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'takeover', ?10, ?11)",
            params![
                snapshotter,
                namespace.as_str(),
                info.name.as_str(),
                parent,
                kind_to_number(info.kind),
                time_to_text(info.created_at),
                time_to_text(info.updated_at),
                bytes,
                inodes,
                snapshot.missing,
                length_to_column(snapshot.directory)?
            ],
        )?;
        labels::store(db, Owner::Snapshot, id, &info.labels)?;
        ids.insert((snapshotter, namespace, info.name.as_str()), id);
    }
    Ok(())
}

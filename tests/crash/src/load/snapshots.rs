//! Snapshots of both snapshotters, each with a mark in it.

use std::fs;

use gantry_core::snapshots::{CommitSnapshot, NewSnapshot};
use gantry_core::{Error, ErrorKind, Labels, Result, SnapshotKey};
use rand::Rng as _;

use super::Worker;
use crate::notes::{Kind, Note, There};
use crate::trees;

/// The file that says which snapshot it is in.
pub(crate) const MARK: &str = "mark";

/// What a note says about a snapshot: `active`, `view` or `committed`, and where its mark is.
pub(crate) fn fact(kind: &str, mark: &str) -> String {
    format!("{kind} {mark}")
}

impl Worker {
    /// A chain of one or two snapshots under a lease; some are removed again.
    pub(super) async fn snapshot(&mut self) -> Result<()> {
        let (subject, lease) = match self.pick(Kind::Lease) {
            Some((subject, _)) => (None, subject.name),
            None => (None::<()>, self.new_lease().await?),
        };
        debug_assert!(subject.is_none());
        let snapshotter_name = if self.rng.random_range(0..4) == 0 { "native" } else { "overlayfs" };
        let first = self.committed(snapshotter_name, &lease, None).await?;
        let second = match self.rng.random_range(0..3) {
            0 => Some(self.committed(snapshotter_name, &lease, Some(&first)).await?),
            1 => Some(self.view(snapshotter_name, &lease, &first).await?),
            _ => None,
        };
        if self.rng.random_range(0..3) == 0 {
            for key in second.iter().chain([&first]) {
                self.remove(snapshotter_name, key).await?;
            }
        }
        Ok(())
    }

    async fn committed(&mut self, snapshotter: &str, lease: &str, parent: Option<&str>) -> Result<String> {
        let (key, name) = (self.name("a"), self.name("k"));
        let service = self.client.snapshotter(snapshotter)?;
        let cx = self.leased(lease)?;
        let active = self.subject(Kind::Snapshot, format!("{snapshotter}/{key}"));
        let new = NewSnapshot {
            key: SnapshotKey::parse(&*key)?,
            parent: parent.map(SnapshotKey::parse).transpose()?,
            labels: Labels::new(),
        };
        let after = vec![(active.clone(), self.yes(fact("active", "")).owned(lease))];
        let mounts = self.change(after, service.prepare(&cx, new)).await?;
        let upper =
            trees::upper(&mounts).ok_or_else(|| Error::internal("an active snapshot without mounts"))?;
        let mark = upper.join(MARK);
        fs::write(&mark, &name).map_err(|error| match error.kind() {
            std::io::ErrorKind::StorageFull => Error::new(ErrorKind::ResourceExhausted, "write the mark"),
            _ => Error::io(error).context("write the mark"),
        })?;
        let how = CommitSnapshot {
            name: SnapshotKey::parse(&*name)?,
            key: SnapshotKey::parse(&*key)?,
            labels: Labels::new(),
            parent: None,
        };
        let committed = self.subject(Kind::Snapshot, format!("{snapshotter}/{name}"));
        let mark = mark.display().to_string();
        let after = vec![
            (active, Note { there: There::No, ..self.yes("").owned(lease) }),
            (committed, self.yes(fact("committed", &mark)).owned(lease)),
        ];
        self.change(after, service.commit(&cx, how)).await?;
        Ok(name)
    }

    async fn view(&mut self, snapshotter: &str, lease: &str, parent: &str) -> Result<String> {
        let key = self.name("v");
        let cx = self.leased(lease)?;
        let subject = self.subject(Kind::Snapshot, format!("{snapshotter}/{key}"));
        let parent = Some(SnapshotKey::parse(parent)?);
        let new = NewSnapshot { key: SnapshotKey::parse(&*key)?, parent, labels: Labels::new() };
        let after = vec![(subject, self.yes(fact("view", "")).owned(lease))];
        self.change(after, self.client.snapshotter(snapshotter)?.view(&cx, new)).await?;
        Ok(key)
    }

    async fn remove(&mut self, snapshotter: &str, key: &str) -> Result<()> {
        let subject = self.subject(Kind::Snapshot, format!("{snapshotter}/{key}"));
        let parsed = SnapshotKey::parse(key)?;
        let service = self.client.snapshotter(snapshotter)?;
        self.change(vec![(subject, self.no())], service.remove(&self.cx(), &parsed)).await
    }
}

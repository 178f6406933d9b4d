//! Records that name others which are not there. The original allows it, so it is worth a note and no more.

use gantry_core::Result;
use gantry_core::maintenance::check::{Outcome, Problem};
use gantry_core::maintenance::{ObjectKind, ObjectName};
use gantry_store::{Reading, params};

use super::{Checker, Draft, PAGE};

impl Checker {
    pub(super) async fn links(&mut self) -> Result<()> {
        self.progress("containers and images", 0, 0).await?;
        self.containers().await?;
        self.images().await
    }

    async fn containers(&mut self) -> Result<()> {
        let known: Vec<String> = self.inner.drivers.keys().cloned().collect();
        let mut after = 0;
        loop {
            let read = move |db: &Reading<'_>| {
                let sql = "SELECT id, namespace, name, snapshotter, snapshot_key FROM containers c WHERE id > ?1 \
                           AND snapshot_key <> '' AND NOT EXISTS (SELECT 1 FROM snapshots s \
                           WHERE s.snapshotter = c.snapshotter AND s.namespace = c.namespace AND s.key = c.snapshot_key) \
                           ORDER BY id LIMIT ?2";
                db.all(sql, params![after, PAGE as i64], |row| {
                    let id: i64 = row.get(0)?;
                    let names: (String, String) = (row.get(1)?, row.get(2)?);
                    let snapshot: (String, String) = (row.get(3)?, row.get(4)?);
                    Ok((id, names, snapshot))
                })
            };
            let page = self.inner.store.read(read).await?;
            let Some((last, ..)) = page.last() else { return Ok(()) };
            after = *last;
            for (_, (namespace, name), (snapshotter, key)) in page {
                // Snapshots of snapshotters elsewhere are not in this database.
                if !known.contains(&snapshotter) {
                    continue;
                }
                let object =
                    ObjectName { kind: ObjectKind::Container, namespace, snapshotter: String::new(), name };
                let draft = Draft::new(Problem::ContainerWithoutSnapshot)
                    .object(object)
                    .detail(format!("snapshot {key:?} of {snapshotter}"));
                self.found(draft, Outcome::Note, "it cannot be started; gantry rm removes it").await?;
            }
        }
    }

    async fn images(&mut self) -> Result<()> {
        let mut after = 0;
        loop {
            let read = move |db: &Reading<'_>| {
                let sql = "SELECT id, namespace, name, digest FROM images i WHERE id > ?1 AND NOT EXISTS \
                           (SELECT 1 FROM blobs b WHERE b.namespace = i.namespace AND b.digest = i.digest) \
                           ORDER BY id LIMIT ?2";
                db.all(sql, params![after, PAGE as i64], |row| {
                    let id: i64 = row.get(0)?;
                    let names: (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
                    Ok((id, names))
                })
            };
            let page = self.inner.store.read(read).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = *last;
            for (_, (namespace, name, digest)) in page {
                let advice = format!("gantry pull {name} fetches it again");
                let object =
                    ObjectName { kind: ObjectKind::Image, namespace, snapshotter: String::new(), name };
                let draft = Draft::new(Problem::ImageWithoutTarget).object(object).detail(digest);
                self.found(draft, Outcome::Note, advice).await?;
            }
        }
    }
}

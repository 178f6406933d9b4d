//! Namespaces: made by the first write into them, deleted when nothing of weight is left.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_core::field_mask::FieldMask;
use gantry_core::namespaces::{NamespaceRecord, NamespaceStore};
use gantry_core::{Context, Error, ErrorKind, Labels, Namespace, Result};
use gantry_store::{Reading, Writing, params};

use crate::database::Inner;
use crate::labels::{self, Owner};

/// Stores namespaces.
#[derive(Clone)]
pub struct MetadataNamespaces {
    inner: Arc<Inner>,
}

impl MetadataNamespaces {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        MetadataNamespaces { inner }
    }
}

/// Makes `namespace` if this is the first write into it.
pub(crate) fn ensure(db: &Writing<'_>, namespace: &Namespace) -> Result<()> {
    if id_of(db, namespace.as_str())?.is_none() {
        db.insert("INSERT INTO namespaces (name) VALUES (?1)", params![namespace.as_str()])?;
    }
    Ok(())
}

fn id_of(db: &Reading<'_>, name: &str) -> Result<Option<i64>> {
    db.one("SELECT id FROM namespaces WHERE name = ?1", params![name], |row| row.get(0))
}

/// What keeps a namespace from being deleted, in containerd's words.
fn left_in(db: &Reading<'_>, name: &str) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for (table, noun) in [("images", "images"), ("blobs", "blobs"), ("containers", "containers")] {
        if db.exists(&format!("SELECT 1 FROM {table} WHERE namespace = ?1 LIMIT 1"), params![name])? {
            left.push(noun.to_owned());
        }
    }
    let sql = "SELECT DISTINCT snapshotter FROM snapshots WHERE namespace = ?1 ORDER BY snapshotter";
    let snapshotters: Vec<String> = db.all(sql, params![name], |row| row.get(0))?;
    left.extend(snapshotters.iter().map(|snapshotter| format!("snapshots on {snapshotter:?} snapshotter")));
    Ok(left)
}

#[async_trait]
impl NamespaceStore for MetadataNamespaces {
    async fn create(&self, _cx: &Context, new: NamespaceRecord) -> Result<NamespaceRecord> {
        let stored = labels::checked(new.labels.clone())?;
        let name = new.name.clone();
        let write = move |db: &Writing<'_>| {
            if id_of(db, name.as_str())?.is_some() {
                return Err(Error::already_exists(format!("namespace {name:?}")));
            }
            let id = db.insert("INSERT INTO namespaces (name) VALUES (?1)", params![name.as_str()])?;
            labels::store(db, Owner::Namespace, id, &stored)
        };
        self.inner.change(write).await?;
        // Source: observed; labels with empty values are answered, though they are not stored.
        Ok(new)
    }

    async fn labels(&self, _cx: &Context, name: &str) -> Result<Labels> {
        let name = name.to_owned();
        let read = move |db: &Reading<'_>| match id_of(db, &name)? {
            Some(id) => labels::load(db, Owner::Namespace, id),
            None => Ok(Labels::new()),
        };
        self.inner.store.read_few(read).await
    }

    async fn list(&self, _cx: &Context) -> Result<Vec<NamespaceRecord>> {
        let read = |db: &Reading<'_>| {
            db.all("SELECT id, name FROM namespaces ORDER BY name", [], |row| {
                let labels = labels::load(db, Owner::Namespace, row.get(0)?)?;
                Ok(NamespaceRecord { name: Namespace::parse(row.get::<String>(1)?)?, labels })
            })
        };
        self.inner.store.read(read).await
    }

    async fn update(
        &self,
        _cx: &Context,
        changed: NamespaceRecord,
        mask: &FieldMask,
    ) -> Result<NamespaceRecord> {
        let paths = mask.paths.clone();
        for path in &paths {
            if !path.starts_with("labels.") {
                return Err(labels::mask_refused(path, "namespace"));
            }
        }
        let write = move |db: &Writing<'_>| {
            ensure(db, &changed.name)?;
            let id = id_of(db, changed.name.as_str())?
                .ok_or_else(|| Error::internal("a namespace that was just made is not there"))?;
            let mut updated = if paths.is_empty() {
                changed.labels.clone()
            } else {
                labels::load(db, Owner::Namespace, id)?
            };
            for key in paths.iter().filter_map(|path| path.strip_prefix("labels.")) {
                labels::apply(&mut updated, key, &changed.labels);
            }
            // Source: observed; a label that is too long is Unknown here, unlike everywhere else.
            let updated = labels::checked(updated).map_err(|error| error.with_kind(ErrorKind::Unknown))?;
            labels::store(db, Owner::Namespace, id, &updated)?;
            Ok(NamespaceRecord { name: changed.name.clone(), labels: updated })
        };
        self.inner.change(write).await
    }

    async fn delete(&self, _cx: &Context, name: &Namespace) -> Result<()> {
        let name = name.clone();
        let _removal = self.inner.removals.read().await;
        let write = move |db: &Writing<'_>| {
            let Some(id) = id_of(db, name.as_str())? else {
                return Err(Error::not_found(format!("namespace {name:?}")));
            };
            let left = left_in(db, name.as_str())?;
            if !left.is_empty() {
                // Source: features B140, containerd's text.
                let text = format!("namespace {name:?} must be empty, but it still has {}", left.join(", "));
                return Err(Error::failed_precondition(text));
            }
            for table in ["leases", "ingests", "sandboxes"] {
                db.execute(&format!("DELETE FROM {table} WHERE namespace = ?1"), params![name.as_str()])?;
            }
            db.execute("DELETE FROM namespaces WHERE id = ?1", params![id]).map(drop)
        };
        self.inner.delete(write).await?;
        // Its ingests lost their records.
        self.inner.garbage.add_all_content();
        Ok(())
    }
}

//! Image records: names pointing at descriptors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use gantry_core::field_mask::FieldMask;
use gantry_core::filters::Filters;
use gantry_core::images::{DeleteImage, Image, ImageChange, ImageStore};
use gantry_core::{Context, Descriptor, Digest, Error, ItemStream, Namespace, Result};
use gantry_store::{Reading, Row, Writing, params};

use crate::columns::{time_at, time_to_text};
use crate::database::Inner;
use crate::labels::{self, Owner};
use crate::leases::{self, ResourceKind};
use crate::{namespaces, paging};

const PAGE: usize = 256;

const COLUMNS: &str = "id, name, media_type, digest, size, created_at, updated_at";

/// Stores images.
#[derive(Clone)]
pub struct MetadataImages {
    inner: Arc<Inner>,
}

impl MetadataImages {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        MetadataImages { inner }
    }
}

fn from_row(db: &Reading<'_>, row: &Row<'_>) -> Result<(i64, Image)> {
    let id: i64 = row.get(0)?;
    let mut annotations = BTreeMap::new();
    db.each("SELECT key, value FROM annotations WHERE image = ?1", params![id], |row| {
        annotations.insert(row.get(0)?, row.get(1)?);
        Ok(())
    })?;
    let image = Image {
        name: row.get(1)?,
        labels: labels::load(db, Owner::Image, id)?,
        target: Descriptor {
            media_type: row.get(2)?,
            digest: Digest::parse(row.get::<String>(3)?)?,
            size_bytes: row.get(4)?,
            annotations,
        },
        created_at: time_at(row, 5)?,
        updated_at: time_at(row, 6)?,
    };
    Ok((id, image))
}

fn found(db: &Reading<'_>, namespace: &Namespace, name: &str) -> Result<Option<(i64, Image)>> {
    let sql = format!("SELECT {COLUMNS} FROM images WHERE namespace = ?1 AND name = ?2");
    db.one(&sql, params![namespace.as_str(), name], |row| from_row(db, row))
}

fn find(db: &Reading<'_>, namespace: &Namespace, name: &str) -> Result<(i64, Image)> {
    found(db, namespace, name)?.ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Error {
    Error::not_found(format!("image {name:?}"))
}

/// Checks what must hold of every stored image, and drops labels that are never stored.
fn checked(mut image: Image) -> Result<Image> {
    if image.name.is_empty() {
        return Err(Error::invalid_argument("image name must not be empty"));
    }
    image.labels = labels::checked(image.labels).map_err(|error| error.context("image.Labels"))?;
    check_target(&image.target)?;
    Ok(image)
}

fn check_target(target: &Descriptor) -> Result<()> {
    if target.media_type.is_empty() {
        return Err(Error::invalid_argument("image.Target.MediaType must be set"));
    }
    if target.size_bytes <= 0 {
        return Err(Error::invalid_argument("image.Target.Size must be > 0"));
    }
    Ok(())
}

/// What the update makes of the stored record.
fn updated(stored: Image, changed: &ImageChange, paths: &[String]) -> Result<Image> {
    // Source: observed; a target is looked at even if the mask names only labels.
    changed.target.as_ref().map_or(Ok(()), check_target)?;
    let target =
        || changed.target.as_ref().ok_or_else(|| Error::invalid_argument("image.Target must be set"));
    let mut updated = stored;
    if paths.is_empty() {
        updated.labels = changed.labels.clone();
        updated.target = target()?.clone();
    }
    for path in paths {
        if let Some(key) = path.strip_prefix("labels.") {
            labels::apply(&mut updated.labels, key, &changed.labels);
        } else if let Some(key) = path.strip_prefix("annotations.") {
            let value = target()?.annotations.get(key).cloned().unwrap_or_default();
            updated.target.annotations.insert(key.to_owned(), value);
        } else {
            match path.as_str() {
                "labels" => updated.labels = changed.labels.clone(),
                // Its annotations included.
                "target" => updated.target = target()?.clone(),
                "annotations" => updated.target.annotations = target()?.annotations.clone(),
                _ => return Err(labels::mask_refused(path, &format!("image {:?}", changed.name))),
            }
        }
    }
    checked(updated)
}

fn store_parts(db: &Writing<'_>, id: i64, image: &Image) -> Result<()> {
    labels::store(db, Owner::Image, id, &image.labels)?;
    db.execute("DELETE FROM annotations WHERE image = ?1", params![id])?;
    for (key, value) in
        image.target.annotations.iter().filter(|(key, value)| !key.is_empty() && !value.is_empty())
    {
        db.execute("INSERT INTO annotations VALUES (?1, ?2, ?3)", params![id, key, value])?;
    }
    Ok(())
}

pub(crate) fn insert(db: &Writing<'_>, cx: &Context, new: &Image) -> Result<()> {
    let namespace = cx.namespace()?;
    let taken = db.exists(
        "SELECT 1 FROM images WHERE namespace = ?1 AND name = ?2",
        params![namespace.as_str(), new.name],
    )?;
    if taken {
        return Err(Error::already_exists(format!("image {:?}", new.name)));
    }
    namespaces::ensure(db, namespace)?;
    let target = &new.target;
    let id = db.insert(
        "INSERT INTO images (namespace, name, media_type, digest, size, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            namespace.as_str(),
            new.name,
            target.media_type,
            target.digest.as_str(),
            target.size_bytes,
            time_to_text(new.created_at),
            time_to_text(new.updated_at)
        ],
    )?;
    store_parts(db, id, new)?;
    // A lease that does not exist is no error here, unlike for content and snapshots.
    leases::add_if_leased(db, cx, &ResourceKind::Images, &new.name)
}

fn replace(db: &Writing<'_>, id: i64, image: &Image) -> Result<()> {
    let target = &image.target;
    db.execute(
        "UPDATE images SET media_type = ?2, digest = ?3, size = ?4, updated_at = ?5 WHERE id = ?1",
        params![
            id,
            target.media_type,
            target.digest.as_str(),
            target.size_bytes,
            time_to_text(image.updated_at)
        ],
    )?;
    store_parts(db, id, image)
}

#[async_trait]
impl ImageStore for MetadataImages {
    async fn create(&self, cx: &Context, new: Image, source_date_epoch: Option<SystemTime>) -> Result<Image> {
        cx.namespace()?;
        let mut new = checked(new)?;
        new.created_at = source_date_epoch.unwrap_or_else(SystemTime::now);
        new.updated_at = new.created_at;
        let (cx, stored) = (cx.clone(), new.clone());
        self.inner.change(move |db| insert(db, &cx, &stored)).await?;
        Ok(new)
    }

    async fn get(&self, cx: &Context, name: &str) -> Result<Image> {
        let (namespace, name) = (cx.namespace()?.clone(), name.to_owned());
        self.inner.store.read_few(move |db| Ok(find(db, &namespace, &name)?.1)).await
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<Image>> {
        let namespace = cx.namespace()?.clone();
        let filter = Filters::parse(filters)?;
        if let Some(names) = filter.only("name") {
            let find =
                move |db: &Reading<'_>, name: &str| Ok(found(db, &namespace, name)?.map(|(_, one)| one));
            return Ok(paging::list_named(Arc::clone(&self.inner), filter, names, PAGE, find));
        }
        let sql =
            format!("SELECT {COLUMNS} FROM images WHERE namespace = ?1 AND name > ?2 ORDER BY name LIMIT ?3");
        let fetch = move |db: &Reading<'_>, after: Option<&str>, limit: usize| {
            db.all(&sql, params![namespace.as_str(), after.unwrap_or_default(), limit as i64], |row| {
                let (_, image) = from_row(db, row)?;
                Ok((image.name.clone(), image))
            })
        };
        Ok(paging::list(Arc::clone(&self.inner), filter, PAGE, Arc::new(fetch)))
    }

    async fn update(
        &self,
        cx: &Context,
        changed: ImageChange,
        mask: &FieldMask,
        source_date_epoch: Option<SystemTime>,
    ) -> Result<Image> {
        let (namespace, paths) = (cx.namespace()?.clone(), mask.paths.clone());
        if changed.name.is_empty() {
            return Err(Error::invalid_argument("image name must not be empty"));
        }
        let write = move |db: &Writing<'_>| {
            let (id, stored) = find(db, &namespace, &changed.name)?;
            let mut updated = updated(stored, &changed, &paths)?;
            updated.updated_at = source_date_epoch.unwrap_or_else(SystemTime::now);
            replace(db, id, &updated)?;
            Ok(updated)
        };
        self.inner.change(write).await
    }

    async fn delete(&self, cx: &Context, name: &str, how: DeleteImage) -> Result<()> {
        cx.namespace()?;
        let (cx, name) = (cx.clone(), name.to_owned());
        let write = move |db: &Writing<'_>| {
            let (id, stored) = find(db, cx.namespace()?, &name)?;
            if how.if_target.as_ref().is_some_and(|digest| *digest != stored.target.digest) {
                let text = format!("image {name:?} has a different target than the one given");
                return Err(Error::not_found(text));
            }
            leases::drop_from_lease(db, &cx, &ResourceKind::Images, &name)?;
            db.execute("DELETE FROM images WHERE id = ?1", params![id]).map(drop)
        };
        self.inner.delete(write).await?;
        if how.sync { self.inner.collect().await.map(drop) } else { Ok(()) }
    }
}

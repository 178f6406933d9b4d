//! Container records.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use gantry_core::containers::{Container, ContainerRuntime, ContainerStore};
use gantry_core::field_mask::FieldMask;
use gantry_core::filters::{Adaptor, Filters};
use gantry_core::{ContainerId, Context, Error, ItemStream, Namespace, Result};
use gantry_store::{Reading, Row, Writing, params};

use crate::columns::{any_at, any_parts, time_at, time_to_text};
use crate::database::Inner;
use crate::labels::{self, Owner};
use crate::{namespaces, paging};

/// Specifications are large: fewer at once than of other records.
const PAGE: usize = 64;
/// How many are looked at in one go when only some of them match. At most so many match, too.
const HEADS: usize = 128;

const COLUMNS: &str = "id, name, image, runtime, options_type, options, spec_type, spec, snapshotter, snapshot_key, sandbox, \
                       created_at, updated_at";

/// Stores containers.
#[derive(Clone)]
pub struct MetadataContainers {
    inner: Arc<Inner>,
}

impl MetadataContainers {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        MetadataContainers { inner }
    }
}

fn from_row(db: &Reading<'_>, row: &Row<'_>) -> Result<(i64, Container)> {
    let id: i64 = row.get(0)?;
    let container = Container {
        id: ContainerId::parse(row.get::<String>(1)?)?,
        labels: labels::load(db, Owner::Container, id)?,
        image: row.get(2)?,
        runtime: ContainerRuntime { name: row.get(3)?, options: any_at(row, 4)? },
        spec: any_at(row, 6)?,
        snapshotter: row.get(8)?,
        snapshot_key: row.get(9)?,
        sandbox: row.get(10)?,
        created_at: time_at(row, 11)?,
        updated_at: time_at(row, 12)?,
        extensions: labels::load_extensions(db, Owner::Container, id)?,
    };
    Ok((id, container))
}

/// What filters see of a container: all but its specification and extensions, which are large.
struct Head {
    row: i64,
    visible: Container,
}

impl Head {
    fn from_row(db: &Reading<'_>, row: &Row<'_>) -> Result<Head> {
        let id: i64 = row.get(0)?;
        let mut visible = Container::new(ContainerId::parse(row.get::<String>(1)?)?, row.get::<String>(3)?);
        visible.image = row.get(2)?;
        visible.labels = labels::load(db, Owner::Container, id)?;
        Ok(Head { row: id, visible })
    }
}

impl Adaptor for Head {
    fn field(&self, path: &[&str]) -> Option<String> {
        self.visible.field(path)
    }
}

/// A page of `columns` in the order of the names: the namespace, the name to begin behind, how many.
fn page_of(columns: &str) -> String {
    format!("SELECT {columns} FROM containers WHERE namespace = ?1 AND name > ?2 ORDER BY name LIMIT ?3")
}

fn found(db: &Reading<'_>, namespace: &Namespace, id: &str) -> Result<Option<(i64, Container)>> {
    let sql = format!("SELECT {COLUMNS} FROM containers WHERE namespace = ?1 AND name = ?2");
    db.one(&sql, params![namespace.as_str(), id], |row| from_row(db, row))
}

fn find(db: &Reading<'_>, namespace: &Namespace, id: &str) -> Result<(i64, Container)> {
    found(db, namespace, id)?.ok_or_else(|| missing(namespace, id))
}

fn missing(namespace: &Namespace, id: &str) -> Error {
    Error::not_found(format!("container {id:?} in namespace {namespace:?}"))
}

/// Checks what must hold of every stored container, and drops labels that are never stored.
fn checked(mut container: Container) -> Result<Container> {
    if container.extensions.contains_key("") {
        return Err(Error::invalid_argument("container.Extensions keys must not be empty"));
    }
    container.labels =
        labels::checked(container.labels).map_err(|error| error.context("container.Labels"))?;
    if container.runtime.name.is_empty() {
        return Err(Error::invalid_argument("container.Runtime.Name must be set"));
    }
    if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
        let text = "container.Snapshotter must be set if container.SnapshotKey is set";
        return Err(Error::invalid_argument(text));
    }
    Ok(container)
}

/// What the update makes of the stored record.
fn updated(stored: Container, changed: &Container, paths: &[String]) -> Result<Container> {
    let mut updated = stored;
    if paths.is_empty() {
        for (field, before, after) in [
            ("container.Snapshotter", &updated.snapshotter, &changed.snapshotter),
            ("container.Runtime.Name", &updated.runtime.name, &changed.runtime.name),
        ] {
            if before != after {
                return Err(Error::invalid_argument(format!("{field} field is immutable")));
            }
        }
        updated.labels = changed.labels.clone();
        updated.spec = changed.spec.clone();
        updated.extensions = changed.extensions.clone();
        updated.image = changed.image.clone();
        updated.snapshot_key = changed.snapshot_key.clone();
    }
    for path in paths {
        if let Some(key) = path.strip_prefix("labels.") {
            labels::apply(&mut updated.labels, key, &changed.labels);
        } else if let Some(name) = path.strip_prefix("extensions.") {
            labels::apply_extension(&mut updated.extensions, name, &changed.extensions);
        } else {
            match path.as_str() {
                "labels" => updated.labels = changed.labels.clone(),
                "spec" => updated.spec = changed.spec.clone(),
                "extensions" => updated.extensions = changed.extensions.clone(),
                "image" => updated.image = changed.image.clone(),
                "snapshotkey" => updated.snapshot_key = changed.snapshot_key.clone(),
                _ => return Err(labels::mask_refused(path, &format!("container {:?}", changed.id))),
            }
        }
    }
    checked(updated)
}

fn store_parts(db: &Writing<'_>, id: i64, container: &Container) -> Result<()> {
    labels::store(db, Owner::Container, id, &container.labels)?;
    labels::store_extensions(db, Owner::Container, id, &container.extensions)
}

pub(crate) fn insert(db: &Writing<'_>, namespace: &Namespace, new: &Container) -> Result<()> {
    let taken = db.exists(
        "SELECT 1 FROM containers WHERE namespace = ?1 AND name = ?2",
        params![namespace.as_str(), new.id.as_str()],
    )?;
    if taken {
        return Err(Error::already_exists(format!("container {:?}", new.id)));
    }
    namespaces::ensure(db, namespace)?;
    let (options_type, options) = any_parts(new.runtime.options.as_ref());
    let (spec_type, spec) = any_parts(new.spec.as_ref());
    let id = db.insert(
        "INSERT INTO containers (namespace, name, image, runtime, options_type, options, spec_type, spec, snapshotter, \
         snapshot_key, sandbox, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            namespace.as_str(),
            new.id.as_str(),
            new.image,
            new.runtime.name,
            options_type,
            options,
            spec_type,
            spec,
            new.snapshotter,
            new.snapshot_key,
            new.sandbox,
            time_to_text(new.created_at),
            time_to_text(new.updated_at)
        ],
    )?;
    store_parts(db, id, new)
}

fn replace(db: &Writing<'_>, id: i64, container: &Container) -> Result<()> {
    let (spec_type, spec) = any_parts(container.spec.as_ref());
    db.execute(
        "UPDATE containers SET image = ?2, spec_type = ?3, spec = ?4, snapshot_key = ?5, updated_at = ?6 WHERE id = ?1",
        params![
            id,
            container.image,
            spec_type,
            spec,
            container.snapshot_key,
            time_to_text(container.updated_at)
        ],
    )?;
    store_parts(db, id, container)
}

#[async_trait]
impl ContainerStore for MetadataContainers {
    async fn create(&self, cx: &Context, new: Container) -> Result<Container> {
        let namespace = cx.namespace()?.clone();
        let mut new = checked(new)?;
        new.created_at = SystemTime::now();
        new.updated_at = new.created_at;
        let stored = new.clone();
        self.inner.change(move |db| insert(db, &namespace, &stored)).await?;
        Ok(new)
    }

    async fn get(&self, cx: &Context, id: &str) -> Result<Container> {
        let (namespace, id) = (cx.namespace()?.clone(), id.to_owned());
        self.inner.store.read_few(move |db| Ok(find(db, &namespace, &id)?.1)).await
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<Container>> {
        let namespace = cx.namespace()?.clone();
        let filter = Filters::parse(filters)?;
        let inner = Arc::clone(&self.inner);
        if let Some(names) = filter.only("id") {
            let find = move |db: &Reading<'_>, id: &str| Ok(found(db, &namespace, id)?.map(|(_, one)| one));
            return Ok(paging::list_named(inner, filter, names, PAGE, find));
        }
        if filter.matches_all() {
            let sql = page_of(COLUMNS);
            let fetch = move |db: &Reading<'_>, after: Option<&str>, limit: usize| {
                db.all(&sql, params![namespace.as_str(), after.unwrap_or_default(), limit as i64], |row| {
                    let (_, container) = from_row(db, row)?;
                    Ok((container.id.as_str().to_owned(), container))
                })
            };
            return Ok(paging::list(inner, filter, PAGE, Arc::new(fetch)));
        }
        let sql = page_of("id, name, image, runtime");
        let heads = move |db: &Reading<'_>, after: Option<&str>, limit: usize| {
            db.all(&sql, params![namespace.as_str(), after.unwrap_or_default(), limit as i64], |row| {
                let head = Head::from_row(db, row)?;
                Ok((head.visible.id.as_str().to_owned(), head))
            })
        };
        let sql = format!("SELECT {COLUMNS} FROM containers WHERE id = ?1");
        let whole = move |db: &Reading<'_>, head: Head| {
            let container = db.one(&sql, params![head.row], |row| Ok(from_row(db, row)?.1))?;
            container.ok_or_else(|| Error::internal("a container went away within a transaction"))
        };
        Ok(paging::list_by_heads(inner, filter, HEADS, Arc::new(heads), whole))
    }

    async fn update(&self, cx: &Context, changed: Container, mask: &FieldMask) -> Result<Container> {
        let (namespace, paths) = (cx.namespace()?.clone(), mask.paths.clone());
        let write = move |db: &Writing<'_>| {
            let (id, stored) = find(db, &namespace, changed.id.as_str())?;
            let mut updated = updated(stored, &changed, &paths)?;
            updated.updated_at = SystemTime::now();
            replace(db, id, &updated)?;
            Ok(updated)
        };
        self.inner.change(write).await
    }

    async fn delete(&self, cx: &Context, id: &str) -> Result<()> {
        let (namespace, id) = (cx.namespace()?.clone(), id.to_owned());
        let write = move |db: &Writing<'_>| {
            let sql = "DELETE FROM containers WHERE namespace = ?1 AND name = ?2";
            match db.execute(sql, params![namespace.as_str(), id])? {
                0 => Err(missing(&namespace, &id)),
                _ => Ok(()),
            }
        };
        self.inner.delete(write).await
    }
}

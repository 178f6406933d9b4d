//! Sandbox records.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use gantry_core::containers::ContainerRuntime;
use gantry_core::field_mask::FieldMask;
use gantry_core::filters::Filters;
use gantry_core::sandboxes::{Sandbox, SandboxStore};
use gantry_core::{Context, Error, Namespace, Result, SandboxId};
use gantry_store::{Reading, Row, Writing, params};

use crate::columns::{any_at, any_parts, time_at, time_to_text};
use crate::database::Inner;
use crate::labels::{self, Owner};
use crate::namespaces;

const COLUMNS: &str =
    "id, name, runtime, options_type, options, spec_type, spec, sandboxer, created_at, updated_at";

/// Stores sandboxes.
#[derive(Clone)]
pub struct MetadataSandboxes {
    inner: Arc<Inner>,
}

impl MetadataSandboxes {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        MetadataSandboxes { inner }
    }
}

fn from_row(db: &Reading<'_>, row: &Row<'_>) -> Result<(i64, Sandbox)> {
    let id: i64 = row.get(0)?;
    let sandbox = Sandbox {
        id: SandboxId::parse(row.get::<String>(1)?)?,
        labels: labels::load(db, Owner::Sandbox, id)?,
        runtime: ContainerRuntime { name: row.get(2)?, options: any_at(row, 3)? },
        spec: any_at(row, 5)?,
        sandboxer: row.get(7)?,
        created_at: time_at(row, 8)?,
        updated_at: time_at(row, 9)?,
        extensions: labels::load_extensions(db, Owner::Sandbox, id)?,
    };
    Ok((id, sandbox))
}

fn find(db: &Reading<'_>, namespace: &Namespace, id: &str) -> Result<(i64, Sandbox)> {
    let sql = format!("SELECT {COLUMNS} FROM sandboxes WHERE namespace = ?1 AND name = ?2");
    let found = db.one(&sql, params![namespace.as_str(), id], |row| from_row(db, row))?;
    found.ok_or_else(|| missing(namespace, id))
}

fn missing(namespace: &Namespace, id: &str) -> Error {
    Error::not_found(format!("sandbox {id:?} in namespace {namespace:?}"))
}

/// Checks what must hold of every stored sandbox. The length of labels is not looked at, as in containerd.
fn checked(mut sandbox: Sandbox) -> Result<Sandbox> {
    if sandbox.extensions.contains_key("") {
        // Source: containerd's answer, the error of its database.
        return Err(Error::unknown("sandbox extension must have a name: bucket name required"));
    }
    sandbox.labels = labels::checked_for_key(sandbox.labels)?;
    Ok(sandbox)
}

/// What the update makes of the stored record.
fn updated(stored: Sandbox, changed: &Sandbox, paths: &[String]) -> Result<Sandbox> {
    let mut updated = stored;
    if paths.is_empty() {
        if updated.runtime.name != changed.runtime.name {
            return Err(Error::invalid_argument("sandbox.Runtime.Name field is immutable"));
        }
        updated.labels = changed.labels.clone();
        updated.extensions = changed.extensions.clone();
        updated.spec = changed.spec.clone();
        updated.runtime = changed.runtime.clone();
    }
    for path in paths {
        if let Some(key) = path.strip_prefix("labels.") {
            labels::apply(&mut updated.labels, key, &changed.labels);
        } else if let Some(name) = path.strip_prefix("extensions.") {
            labels::apply_extension(&mut updated.extensions, name, &changed.extensions);
        } else {
            match path.as_str() {
                "labels" => updated.labels = changed.labels.clone(),
                "extensions" => updated.extensions = changed.extensions.clone(),
                "runtime" => updated.runtime = changed.runtime.clone(),
                "spec" => updated.spec = changed.spec.clone(),
                _ => return Err(labels::mask_refused(path, &format!("sandbox {:?}", changed.id))),
            }
        }
    }
    checked(updated)
}

fn store_parts(db: &Writing<'_>, id: i64, sandbox: &Sandbox) -> Result<()> {
    labels::store(db, Owner::Sandbox, id, &sandbox.labels)?;
    labels::store_extensions(db, Owner::Sandbox, id, &sandbox.extensions)
}

pub(crate) fn insert(db: &Writing<'_>, namespace: &Namespace, new: &Sandbox) -> Result<()> {
    let taken = db.exists(
        "SELECT 1 FROM sandboxes WHERE namespace = ?1 AND name = ?2",
        params![namespace.as_str(), new.id.as_str()],
    )?;
    if taken {
        return Err(Error::already_exists(format!("sandbox {:?}", new.id)));
    }
    namespaces::ensure(db, namespace)?;
    let (options_type, options) = any_parts(new.runtime.options.as_ref());
    let (spec_type, spec) = any_parts(new.spec.as_ref());
    let id = db.insert(
        "INSERT INTO sandboxes (namespace, name, runtime, options_type, options, spec_type, spec, sandboxer, created_at, \
         updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            namespace.as_str(),
            new.id.as_str(),
            new.runtime.name,
            options_type,
            options,
            spec_type,
            spec,
            new.sandboxer,
            time_to_text(new.created_at),
            time_to_text(new.updated_at)
        ],
    )?;
    store_parts(db, id, new)
}

fn replace(db: &Writing<'_>, id: i64, sandbox: &Sandbox) -> Result<()> {
    let (options_type, options) = any_parts(sandbox.runtime.options.as_ref());
    let (spec_type, spec) = any_parts(sandbox.spec.as_ref());
    db.execute(
        "UPDATE sandboxes SET runtime = ?2, options_type = ?3, options = ?4, spec_type = ?5, spec = ?6, updated_at = ?7 \
         WHERE id = ?1",
        params![
            id,
            sandbox.runtime.name,
            options_type,
            options,
            spec_type,
            spec,
            time_to_text(sandbox.updated_at)
        ],
    )?;
    store_parts(db, id, sandbox)
}

#[async_trait]
impl SandboxStore for MetadataSandboxes {
    async fn create(&self, cx: &Context, new: Sandbox) -> Result<Sandbox> {
        let namespace = cx.namespace()?.clone();
        let mut new = checked(new)?;
        new.created_at = SystemTime::now();
        new.updated_at = new.created_at;
        let stored = new.clone();
        self.inner.change(move |db| insert(db, &namespace, &stored)).await?;
        Ok(new)
    }

    async fn update(&self, cx: &Context, changed: Sandbox, mask: &FieldMask) -> Result<Sandbox> {
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

    async fn get(&self, cx: &Context, id: &str) -> Result<Sandbox> {
        let (namespace, id) = (cx.namespace()?.clone(), id.to_owned());
        self.inner.store.read_few(move |db| Ok(find(db, &namespace, &id)?.1)).await
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<Vec<Sandbox>> {
        let namespace = cx.namespace()?.clone();
        let filter = Filters::parse(filters)?;
        let read = move |db: &Reading<'_>| {
            let sql = format!("SELECT {COLUMNS} FROM sandboxes WHERE namespace = ?1 ORDER BY name");
            let mut found = Vec::new();
            db.each(&sql, params![namespace.as_str()], |row| {
                let (_, sandbox) = from_row(db, row)?;
                if filter.matches(&sandbox) {
                    found.push(sandbox);
                }
                Ok(())
            })?;
            Ok(found)
        };
        self.inner.store.read(read).await
    }

    async fn delete(&self, cx: &Context, id: &str) -> Result<()> {
        let (namespace, id) = (cx.namespace()?.clone(), id.to_owned());
        let write = move |db: &Writing<'_>| {
            let sql = "DELETE FROM sandboxes WHERE namespace = ?1 AND name = ?2";
            match db.execute(sql, params![namespace.as_str(), id])? {
                0 => Err(missing(&namespace, &id)),
                _ => Ok(()),
            }
        };
        self.inner.delete(write).await
    }
}

//! Leases, and what they keep.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use gantry_core::filters::Filters;
use gantry_core::leases::{Lease, LeaseManager, LeaseResource};
use gantry_core::{Context, Digest, Error, Labels, LeaseId, Namespace, Result};
use gantry_store::{Reading, Writing, params};

use crate::columns::{time_at, time_to_text};
use crate::database::Inner;
use crate::labels::{self, Owner};
use crate::namespaces;

/// Stores leases.
#[derive(Clone)]
pub struct MetadataLeases {
    inner: Arc<Inner>,
}

impl MetadataLeases {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        MetadataLeases { inner }
    }
}

/// What kinds of things a lease can keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ResourceKind {
    Content,
    Ingests,
    Images,
    /// Of this snapshotter.
    Snapshots(String),
}

impl ResourceKind {
    /// Reads the type of a resource. Whether the thing, or its snapshotter, exists is not looked at.
    ///
    /// Source: semantics, "Leases and garbage collection"; features E55.
    fn parse(resource: &LeaseResource) -> Result<ResourceKind> {
        let text = resource.kind.as_str();
        let (first, rest) = match text.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (text, None),
        };
        let invalid = || Error::invalid_argument(format!("invalid resource type {text:?}"));
        match (first, rest) {
            ("content", None) => {
                Digest::parse(resource.id.as_str()).map_err(|error| {
                    error.context(format!("invalid content resource id {:?}", resource.id))
                })?;
                Ok(ResourceKind::Content)
            }
            ("ingests", None) => Ok(ResourceKind::Ingests),
            ("images", None) => Ok(ResourceKind::Images),
            // Source: observed; the text is that of containerd's database.
            ("snapshots", Some("")) => Err(Error::unknown("bucket name required")),
            ("snapshots", Some(name)) if !name.contains('/') => Ok(ResourceKind::Snapshots(name.to_owned())),
            ("content" | "ingests" | "images" | "snapshots", _) => Err(invalid()),
            _ => Err(Error::unimplemented(format!("resource type {text:?} not supported yet"))),
        }
    }

    /// As the tables and clients spell it.
    pub(crate) fn text(&self) -> String {
        match self {
            ResourceKind::Content => "content".to_owned(),
            ResourceKind::Ingests => "ingests".to_owned(),
            ResourceKind::Images => "images".to_owned(),
            ResourceKind::Snapshots(name) => format!("snapshots/{name}"),
        }
    }
}

fn row_of(db: &Reading<'_>, namespace: &Namespace, id: &str) -> Result<Option<i64>> {
    db.one(
        "SELECT id FROM leases WHERE namespace = ?1 AND name = ?2",
        params![namespace.as_str(), id],
        |row| row.get(0),
    )
}

fn existing(db: &Reading<'_>, namespace: &Namespace, id: &LeaseId) -> Result<i64> {
    row_of(db, namespace, id.as_str())?.ok_or_else(|| Error::not_found(format!("lease {id:?}")))
}

fn keep(db: &Writing<'_>, lease: i64, kind: &ResourceKind, name: &str) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO lease_resources (lease, kind, name) VALUES (?1, ?2, ?3)";
    db.execute(sql, params![lease, kind.text(), name]).map(drop)
}

fn release(db: &Writing<'_>, lease: i64, kind: &ResourceKind, name: &str) -> Result<()> {
    let sql = "DELETE FROM lease_resources WHERE lease = ?1 AND kind = ?2 AND name = ?3";
    db.execute(sql, params![lease, kind.text(), name]).map(drop)
}

/// Checks that the lease that the context names, if any, exists.
pub(crate) fn check(db: &Reading<'_>, cx: &Context) -> Result<()> {
    named(db, cx).map(drop)
}

/// The lease that the context names.
fn named(db: &Reading<'_>, cx: &Context) -> Result<Option<i64>> {
    let Some(id) = cx.lease() else { return Ok(None) };
    let found = row_of(db, cx.namespace()?, id.as_str())?;
    found.map(Some).ok_or_else(|| Error::not_found(format!("lease {id:?} does not exist")))
}

/// Lets the context's lease, if it names one, keep a thing; true if it names one.
///
/// # Errors
/// `NotFound` if it names one that does not exist.
pub(crate) fn add_to_lease(db: &Writing<'_>, cx: &Context, kind: &ResourceKind, name: &str) -> Result<bool> {
    match named(db, cx)? {
        Some(lease) => keep(db, lease, kind, name).map(|()| true),
        None => Ok(false),
    }
}

/// The same, but a lease that does not exist is passed over.
pub(crate) fn add_if_leased(db: &Writing<'_>, cx: &Context, kind: &ResourceKind, name: &str) -> Result<()> {
    let Some(id) = cx.lease() else { return Ok(()) };
    match row_of(db, cx.namespace()?, id.as_str())? {
        Some(lease) => keep(db, lease, kind, name),
        None => Ok(()),
    }
}

/// Lets the context's lease no longer keep a thing.
pub(crate) fn drop_from_lease(db: &Writing<'_>, cx: &Context, kind: &ResourceKind, name: &str) -> Result<()> {
    let Some(id) = cx.lease() else { return Ok(()) };
    match row_of(db, cx.namespace()?, id.as_str())? {
        Some(lease) => release(db, lease, kind, name),
        None => Ok(()),
    }
}

/// A name for a lease that came without one: unlike any other, and sorted by time.
fn made_up() -> LeaseId {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    LeaseId::parse(format!("{nanos}-{:08x}", rand::random::<u32>())).expect("lease ids are any text")
}

#[async_trait]
impl LeaseManager for MetadataLeases {
    async fn create(&self, cx: &Context, id: Option<LeaseId>, labels: Labels) -> Result<Lease> {
        let namespace = cx.namespace()?.clone();
        let lease = Lease {
            id: id.filter(|id| !id.as_str().is_empty()).unwrap_or_else(made_up),
            created_at: SystemTime::now(),
            labels: labels::checked_for_key(labels)?,
        };
        let stored = lease.clone();
        let write = move |db: &Writing<'_>| {
            if row_of(db, &namespace, stored.id.as_str())?.is_some() {
                return Err(Error::already_exists(format!("lease {:?}", stored.id)));
            }
            namespaces::ensure(db, &namespace)?;
            let id = db.insert(
                "INSERT INTO leases (namespace, name, created_at) VALUES (?1, ?2, ?3)",
                params![namespace.as_str(), stored.id.as_str(), time_to_text(stored.created_at)],
            )?;
            labels::store(db, Owner::Lease, id, &stored.labels)
        };
        self.inner.change(write).await?;
        Ok(lease)
    }

    async fn delete(&self, cx: &Context, id: &LeaseId, sync: bool) -> Result<()> {
        let (namespace, id) = (cx.namespace()?.clone(), id.clone());
        let write = move |db: &Writing<'_>| {
            let lease = existing(db, &namespace, &id)?;
            db.execute("DELETE FROM leases WHERE id = ?1", params![lease]).map(drop)
        };
        self.inner.delete(write).await?;
        if sync { self.inner.collect().await.map(drop) } else { Ok(()) }
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<Vec<Lease>> {
        let namespace = cx.namespace()?.clone();
        let filter = Filters::parse(filters)?;
        let read = move |db: &Reading<'_>| {
            let sql = "SELECT id, name, created_at FROM leases WHERE namespace = ?1 ORDER BY name";
            let mut found = Vec::new();
            db.each(sql, params![namespace.as_str()], |row| {
                let lease = Lease {
                    id: LeaseId::parse(row.get::<String>(1)?)?,
                    created_at: time_at(row, 2)?,
                    labels: labels::load(db, Owner::Lease, row.get(0)?)?,
                };
                if filter.matches(&lease) {
                    found.push(lease);
                }
                Ok(())
            })?;
            Ok(found)
        };
        self.inner.store.read(read).await
    }

    async fn add_resource(&self, cx: &Context, id: &LeaseId, resource: LeaseResource) -> Result<()> {
        let (namespace, id) = (cx.namespace()?.clone(), id.clone());
        let write = move |db: &Writing<'_>| {
            let lease = existing(db, &namespace, &id)?;
            keep(db, lease, &ResourceKind::parse(&resource)?, &resource.id)
        };
        self.inner.change(write).await
    }

    async fn delete_resource(&self, cx: &Context, id: &LeaseId, resource: LeaseResource) -> Result<()> {
        let (namespace, id) = (cx.namespace()?.clone(), id.clone());
        let write = move |db: &Writing<'_>| {
            let lease = existing(db, &namespace, &id)?;
            release(db, lease, &ResourceKind::parse(&resource)?, &resource.id)
        };
        self.inner.delete(write).await
    }

    async fn resources(&self, cx: &Context, id: &LeaseId) -> Result<Vec<LeaseResource>> {
        let (namespace, id) = (cx.namespace()?.clone(), id.clone());
        let read = move |db: &Reading<'_>| {
            let lease = existing(db, &namespace, &id)?;
            let sql = "SELECT name, kind FROM lease_resources WHERE lease = ?1 ORDER BY kind, name";
            db.all(sql, params![lease], |row| Ok(LeaseResource { id: row.get(0)?, kind: row.get(1)? }))
        };
        self.inner.store.read(read).await
    }
}

#[cfg(test)]
mod tests {
    use gantry_core::ErrorKind;

    use super::*;

    #[test]
    fn resource_types_are_refused_as_containerd_does() {
        let kind = |kind: &str, id: &str| {
            ResourceKind::parse(&LeaseResource { id: id.to_owned(), kind: kind.to_owned() })
                .map_err(|error| error.kind())
        };
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(kind("content", &digest), Ok(ResourceKind::Content));
        assert_eq!(kind("content", "x"), Err(ErrorKind::InvalidArgument));
        assert_eq!(kind("snapshots/any", "k"), Ok(ResourceKind::Snapshots("any".to_owned())));
        for bad in ["content/x", "snapshots", "snapshots/a/b", "images/"] {
            assert_eq!(kind(bad, &digest), Err(ErrorKind::InvalidArgument), "{bad}");
        }
        assert_eq!(kind("snapshots/", "k"), Err(ErrorKind::Unknown));
        assert_eq!(kind("containers", "k"), Err(ErrorKind::Unimplemented));
    }
}

//! The rows of writes in progress, and of the blobs they become.

use std::time::SystemTime;

use gantry_core::{Context, Digest, Error, IngestRef, Labels, Result};
use gantry_store::{Reading, Writing, params};

use crate::columns::{length_to_column, seconds_now, time_to_text};
use crate::labels::{self, Owner};
use crate::leases::{self, ResourceKind};
use crate::namespaces;

/// How long an ingest without lease is kept after it was last opened.
///
/// Source: containerd's default for ingests without a lease: 24 hours.
const UNLEASED_SECONDS: i64 = 24 * 60 * 60;

/// The name by which the content store knows the ingest `reference` of the context's namespace.
pub(crate) fn backend_ref(
    db: &Reading<'_>,
    cx: &Context,
    reference: &IngestRef,
) -> Result<Option<IngestRef>> {
    let sql = "SELECT backend_ref FROM ingests WHERE namespace = ?1 AND ref = ?2";
    let namespace = cx.namespace()?.as_str();
    db.one(sql, params![namespace, reference.as_str()], |row| IngestRef::parse(row.get::<String>(0)?))
}

/// An ingest that is to be written.
pub(crate) struct Opened {
    /// The name by which the content store knows it.
    pub(crate) backend_ref: IngestRef,
    /// The blob whose file it kept until now: it expects another.
    pub(crate) no_longer: Option<String>,
}

/// Makes the ingest's record, or takes up the one there is, and lets the context's lease keep it. `shared` is the blob that it may
/// become without any data.
pub(crate) fn open(
    db: &Writing<'_>,
    cx: &Context,
    reference: &IngestRef,
    shared: Option<&Digest>,
) -> Result<Opened> {
    let namespace = cx.namespace()?;
    let leased = leases::add_to_lease(db, cx, &ResourceKind::Ingests, reference.as_str())?;
    let expires = (!leased).then(|| seconds_now() + UNLEASED_SECONDS);
    let known = backend_ref(db, cx, reference)?;
    let backend_ref = match known {
        Some(known) => known,
        None => {
            namespaces::ensure(db, namespace)?;
            let sql = "INSERT INTO ingests (namespace, ref, backend_ref) VALUES (?1, ?2, '')";
            let id = db.insert(sql, params![namespace.as_str(), reference.as_str()])?;
            // Source: the form containerd gives to these names, so that they never meet those of other namespaces.
            let made = IngestRef::parse(format!("{namespace}/{id}/{reference}"))?;
            db.execute("UPDATE ingests SET backend_ref = ?2 WHERE id = ?1", params![id, made.as_str()])?;
            made
        }
    };
    let sql = "SELECT expected FROM ingests WHERE namespace = ?1 AND ref = ?2 AND expected <> ?3";
    let shared = shared.map(Digest::as_str);
    let no_longer = db.one(sql, params![namespace.as_str(), reference.as_str(), shared], |row| row.get(0))?;
    db.execute(
        "UPDATE ingests SET expected = coalesce(?3, expected), expires = coalesce(?4, expires) \
         WHERE namespace = ?1 AND ref = ?2",
        params![namespace.as_str(), reference.as_str(), shared, expires],
    )?;
    Ok(Opened { backend_ref, no_longer })
}

/// An ingest whose record was removed.
pub(crate) struct Forgotten {
    /// The blob that it could have become without any data, and whose file it kept.
    pub(crate) expected: Option<String>,
}

/// Removes the ingest's record, also from the context's lease.
pub(crate) fn forget(db: &Writing<'_>, cx: &Context, reference: &IngestRef) -> Result<Option<Forgotten>> {
    let namespace = cx.namespace()?.as_str();
    let sql = "SELECT expected FROM ingests WHERE namespace = ?1 AND ref = ?2";
    let found =
        db.one(sql, params![namespace, reference.as_str()], |row| Ok(Forgotten { expected: row.get(0)? }))?;
    db.execute(
        "DELETE FROM ingests WHERE namespace = ?1 AND ref = ?2",
        params![namespace, reference.as_str()],
    )?;
    leases::drop_from_lease(db, cx, &ResourceKind::Ingests, reference.as_str())?;
    Ok(found)
}

/// Whether the context's namespace has the blob.
pub(crate) fn has_blob(db: &Reading<'_>, cx: &Context, digest: &Digest) -> Result<bool> {
    let sql = "SELECT 1 FROM blobs WHERE namespace = ?1 AND digest = ?2";
    db.exists(sql, params![cx.namespace()?.as_str(), digest.as_str()])
}

/// Whether a namespace that shares with all others has the blob.
///
/// Source: features E39.
pub(crate) fn is_shareable(db: &Reading<'_>, digest: &Digest) -> Result<bool> {
    let sql = "SELECT 1 FROM blobs b JOIN namespaces n ON n.name = b.namespace \
               JOIN labels l ON l.kind = ?1 AND l.owner = n.id AND l.key = 'containerd.io/namespace.shareable' \
               WHERE b.digest = ?2 AND l.value = 'true' LIMIT 1";
    db.exists(sql, params![Owner::Namespace as i64, digest.as_str()])
}

/// What a committed ingest becomes.
pub(crate) struct NewBlob {
    pub(crate) reference: IngestRef,
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    pub(crate) labels: Labels,
}

/// What a commit recorded.
pub(crate) struct Recorded {
    /// False if the namespace had the blob already; its labels stay as they were.
    pub(crate) is_new: bool,
    /// See [`Forgotten::expected`].
    pub(crate) expected: Option<String>,
}

/// Records the blob in place of the ingest, and lets the context's lease keep it.
pub(crate) fn become_blob(db: &Writing<'_>, cx: &Context, new: &NewBlob) -> Result<Recorded> {
    let namespace = cx.namespace()?;
    let expected = forget(db, cx, &new.reference)?.and_then(|ingest| ingest.expected);
    leases::add_to_lease(db, cx, &ResourceKind::Content, new.digest.as_str())?;
    if has_blob(db, cx, &new.digest)? {
        return Ok(Recorded { is_new: false, expected });
    }
    namespaces::ensure(db, namespace)?;
    let now = time_to_text(SystemTime::now());
    let id = db.insert(
        "INSERT INTO blobs (namespace, digest, size, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4)",
        params![namespace.as_str(), new.digest.as_str(), length_to_column(new.size_bytes)?, now],
    )?;
    labels::store(db, Owner::Blob, id, &new.labels)?;
    Ok(Recorded { is_new: true, expected })
}

/// The answer for a blob that is there already.
pub(crate) fn taken(digest: &Digest) -> Error {
    Error::already_exists(format!("content {digest}"))
}

//! A lease around work that creates what nothing refers to yet.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_core::wire_names::LABEL_GC_EXPIRE;
use gantry_core::{Context, Error, ErrorKind, Labels, LeaseId, Result, ResultExt};
use time::format_description::well_known::Rfc3339;

use crate::client::Client;

/// How long a lease is kept for a client that died. Source: containerd's client, `WithExpiration(24*time.Hour)`.
const EXPIRES_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// How long ending a lease may take, apart from the work's own time.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A lease that this client made and ends.
pub(crate) struct OwnLease {
    client: Client,
    id: Option<LeaseId>,
}

/// `cx` with a lease: its own, or a new one.
///
/// # Errors
/// Those of making it.
pub(crate) async fn protect(client: &Client, cx: &Context) -> Result<(Context, OwnLease)> {
    if cx.lease().is_some() {
        return Ok((cx.clone(), OwnLease { client: client.clone(), id: None }));
    }
    let id = LeaseId::parse(unique_name())?;
    let expires = time::OffsetDateTime::from(SystemTime::now() + EXPIRES_AFTER)
        .format(&Rfc3339)
        .map_err(|error| Error::internal(format!("format the lease's end: {error}")))?;
    let labels = Labels::from([(LABEL_GC_EXPIRE.to_owned(), expires)]);
    let lease = client.services().leases.create(cx, Some(id), labels).await.context("create a lease")?;
    Ok((cx.clone().with_lease(lease.id.clone()), OwnLease { client: client.clone(), id: Some(lease.id) }))
}

impl OwnLease {
    /// Ends it. A failure is logged: the lease expires by itself.
    pub(crate) async fn end(self) {
        let Some(id) = self.id else { return };
        let cx = self.client.context();
        let ended = self.client.services().leases.delete(&cx, &id, false);
        match tokio::time::timeout(END_WITHIN, ended).await {
            Ok(Err(error)) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(lease = %id, %error, "deleting a lease failed; it expires by itself");
            }
            Err(_) => tracing::warn!(lease = %id, "deleting a lease took too long; it expires by itself"),
            Ok(_) => {}
        }
    }
}

/// `<nanoseconds>-<random>`, in the form of containerd's names. Source: containerd's `uniquePart`.
pub(crate) fn unique_name() -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    format!("{nanos}-{:06x}", rand::random::<u32>() & 0x00ff_ffff)
}

//! What a method knows about the call beside its message.

use std::future::Future;
use std::time::Duration;

use gantry_core::{Error, Result};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Metadata;

/// The circumstances of one call.
///
/// A server never drops a method half-way. A method that may be dropped (a read, a wait) says so by running inside
/// [`CallContext::while_wanted`]; one that changes something runs to its end whatever the caller does.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// What the caller sent beside the message.
    pub metadata: Metadata,
    /// When the caller stops waiting, if it said so.
    pub deadline: Option<Instant>,
    /// Fired when the caller's connection ended or the server gives up on its calls.
    pub ended: CancellationToken,
}

impl CallContext {
    /// A context without caller, deadline or metadata, for calls made inside one process.
    pub fn local() -> Self {
        CallContext { metadata: Metadata::new(), deadline: None, ended: CancellationToken::new() }
    }

    pub(crate) fn new(metadata: Metadata, timeout_nano: i64, ended: CancellationToken) -> Self {
        let deadline = u64::try_from(timeout_nano)
            .ok()
            .filter(|nanos| *nanos > 0)
            .and_then(|nanos| Instant::now().checked_add(Duration::from_nanos(nanos)));
        CallContext { metadata, deadline, ended }
    }

    /// Waits until nobody wants the answer any more, and says why.
    pub async fn unwanted(&self) -> Error {
        let expired = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.ended.cancelled() => Error::bare(gantry_core::ErrorKind::Canceled),
            () = expired => Error::bare(gantry_core::ErrorKind::DeadlineExceeded),
        }
    }

    /// Runs `work` for as long as somebody wants its answer, then drops it.
    ///
    /// # Errors
    /// `Canceled` or `DeadlineExceeded` if `work` was dropped; otherwise what it says.
    pub async fn while_wanted<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            // An answer that is ready counts even if nobody may want it.
            biased;
            done = work => done,
            why = self.unwanted() => Err(why),
        }
    }
}

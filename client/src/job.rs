//! Jobs with an owner.

use std::future::Future;

use tokio::task::JoinHandle;

/// Starts `work` as a job that the caller owns: whoever keeps the handle waits for it, or aborts it when dropped.
#[expect(clippy::disallowed_methods, reason = "the handle has an owner, and #[must_use] sees to it")]
#[must_use]
pub(crate) fn start<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

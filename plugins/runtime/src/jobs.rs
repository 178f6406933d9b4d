//! The work of this crate that goes on beside its calls, and its end.

use std::time::Duration;

use gantry_core::{Error, ErrorKind, Result};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Debug, Default)]
pub(crate) struct Jobs {
    tracker: TaskTracker,
    closed: CancellationToken,
}

impl Jobs {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Runs a job that ends with the daemon.
    pub(crate) fn job(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        self.tracker.spawn(async move {
            // The jobs here can be taken up again by the daemon after this one.
            tokio::select! {
                () = closed.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Runs work that changes something to its end, whether or not the caller still wants to know.
    ///
    /// # Errors
    /// What `work` says.
    pub(crate) async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let done = self.tracker.spawn(work).await;
        done.unwrap_or_else(|error| Err(Error::with_source(ErrorKind::Internal, error)))
    }

    /// Runs blocking work whose result nobody waits for.
    pub(crate) fn beside(&self, work: impl FnOnce() + Send + 'static) {
        self.tracker.spawn_blocking(work);
    }

    /// Ends the jobs and waits for what must finish, at most for `patience`.
    pub(crate) async fn close(&self, patience: Duration) {
        self.closed.cancel();
        self.tracker.close();
        if tokio::time::timeout(patience, self.tracker.wait()).await.is_err() {
            tracing::warn!(jobs = self.tracker.len(), "shims do not answer; their calls are abandoned");
        }
    }
}

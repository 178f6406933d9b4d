//! Blocking calls, a bounded number at once.

use gantry_core::{Error, Result};
use tokio::sync::Semaphore;

/// How many calls use the disk at once: enough to keep one busy, few enough to leave the blocking pool to others.
const MAX_CALLS: usize = 32;

/// Runs the calls of one store.
pub(crate) struct Blocking(Semaphore);

impl Default for Blocking {
    fn default() -> Self {
        Blocking(Semaphore::new(MAX_CALLS))
    }
}

impl Blocking {
    /// Runs `call` on the blocking pool. A caller that leaves does not stop it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _permit = self.0.acquire().await.expect("the semaphore is never closed");
        match tokio::task::spawn_blocking(call).await {
            Ok(done) => done,
            Err(error) => Err(Error::internal(format!("a call of the content store did not end: {error}"))),
        }
    }
}

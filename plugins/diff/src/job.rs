//! Long blocking work on behalf of a caller.

use gantry_core::{Context, Error, Result};
use tokio::sync::Semaphore;

/// Runs a bounded number of jobs at once.
pub(crate) struct Jobs(Semaphore);

impl Default for Jobs {
    fn default() -> Self {
        // A job mostly computes; one more per processor covers its waits for the disk.
        let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Jobs(Semaphore::new(2 * processors))
    }
}

impl Jobs {
    /// Runs `work` on the blocking pool, with a context that is cancelled when `cx` is and when the caller leaves.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        cx: &Context,
        work: impl FnOnce(&Context) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = tokio::select! {
            permit = self.0.acquire() => permit.expect("the semaphore is never closed"),
            () = cx.cancellation().cancelled() => {
                cx.check()?;
                return Err(Error::canceled("wait for other layers"));
            }
        };
        let token = cx.cancellation().child_token();
        let cx = cx.clone().with_cancellation(token.clone());
        let _leaving = token.drop_guard();
        let done = tokio::task::spawn_blocking(move || work(&cx)).await;
        drop(permit);
        done.map_err(|error| Error::internal(format!("a differ's job did not end: {error}")))?
    }
}

//! Jobs: the work of calls that does not end where its caller does.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use gantry_core::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::Status;
use tracing::Instrument as _;

use crate::status::to_status;

/// How many jobs run at a time; further calls wait for their turn, and leave the queue with their caller.
#[derive(Clone, Copy, Debug)]
pub struct JobLimits {
    /// Short mutations. Default 1024.
    pub mutations: usize,
    /// Long work: content writes, diffs, checkpoints. Default 1024.
    pub long: usize,
}

impl Default for JobLimits {
    fn default() -> Self {
        JobLimits { mutations: 1024, long: 1024 }
    }
}

/// Owns the jobs of a server: bounds them, logs their panics, waits for them at the end. Clones share one set.
#[derive(Clone, Debug)]
pub struct JobSet {
    tracker: TaskTracker,
    mutations: Arc<Semaphore>,
    long: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl Default for JobSet {
    fn default() -> Self {
        JobSet::new(JobLimits::default())
    }
}

impl JobSet {
    /// A set with these limits.
    pub fn new(limits: JobLimits) -> Self {
        JobSet {
            tracker: TaskTracker::new(),
            mutations: Arc::new(Semaphore::new(limits.mutations.clamp(1, Semaphore::MAX_PERMITS))),
            long: Arc::new(Semaphore::new(limits.long.clamp(1, Semaphore::MAX_PERMITS))),
            stopping: CancellationToken::new(),
        }
    }

    /// Fired when the server stops: streams without end (events, health) end then.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Runs a short mutation to its end, whatever its caller does.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T, Status> {
        self.run(&self.mutations, work).await
    }

    /// Runs long work. If the caller leaves, `left` is dropped with this future, which fires the work's cancellation; the
    /// work then stops at its next safe point and undoes what is half-done.
    pub(crate) async fn long<T: Send + 'static>(
        &self,
        left: DropGuard,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T, Status> {
        let done = self.run(&self.long, work).await;
        drop(left);
        done
    }

    /// Starts long work that answers by other means than its result.
    pub(crate) async fn start_long(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Status> {
        let permit = self.permit(&self.long).await?;
        self.tracker.spawn(guarded(permit, work).in_current_span());
        Ok(())
    }

    async fn permit(&self, limit: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
        let permit = Arc::clone(limit).acquire_owned().await;
        permit.map_err(|_| to_status(Error::unavailable("the server is stopping")))
    }

    async fn run<T: Send + 'static>(
        &self,
        limit: &Arc<Semaphore>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T, Status> {
        let permit = self.permit(limit).await?;
        match self.tracker.spawn(guarded(permit, work).in_current_span()).await {
            Ok(Some(result)) => result.map_err(to_status),
            Ok(None) => Err(to_status(Error::internal("the call panicked; see the log"))),
            Err(_) => Err(to_status(Error::unavailable("the server is stopping"))),
        }
    }

    /// Takes no more jobs and ends the streams without end.
    pub fn stop(&self) {
        self.stopping.cancel();
        self.mutations.close();
        self.long.close();
        self.tracker.close();
    }

    /// Waits, after [`JobSet::stop`], until every job has ended or `grace` is over; tells how many are left.
    pub async fn wait(&self, grace: Duration) -> usize {
        // The wait may be dropped: it only watches.
        let _ = tokio::time::timeout(grace, self.tracker.wait()).await;
        self.tracker.len()
    }
}

/// The work's result, or nothing if it panicked.
async fn guarded<T>(permit: OwnedSemaphorePermit, work: impl Future<Output = T>) -> Option<T> {
    // What the work shares with others is behind locks that poison, or is dropped with it.
    let result = AssertUnwindSafe(work).catch_unwind().await;
    drop(permit);
    result.map_err(|panic| tracing::error!(error = panic_text(&*panic), "a job panicked")).ok()
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_detached_job_outlives_its_caller() {
        let jobs = JobSet::default();
        let (begun, begin) = tokio::sync::oneshot::channel::<()>();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        let work = jobs.detached(async move {
            begun.send(()).unwrap();
            gone.await.unwrap();
            ended.send(()).unwrap();
            Ok(())
        });
        tokio::select! {
            _ = work => unreachable!("it waits"),
            _ = begin => {}
        }
        go.send(()).unwrap();
        end.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_frees_its_place() {
        let jobs = JobSet::new(JobLimits { mutations: 1, long: 1 });
        for _ in 0..2 {
            let status = jobs.detached::<()>(async { panic!("boom") }).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::Internal);
        }
    }

    #[tokio::test]
    async fn a_stopped_set_takes_no_jobs() {
        let jobs = JobSet::default();
        jobs.stop();
        assert_eq!(jobs.wait(Duration::from_secs(5)).await, 0);
        let status = jobs.detached(async { Ok(()) }).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
    }
}

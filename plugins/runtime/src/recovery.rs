//! Finding the tasks of an earlier daemon again.
//!
//! Each bundle is looked at side by side with the others, with deadlines of its own; calls for a task wait for that
//! task only.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use gantry_core::tasks::{ExitRecord, ProcessRecord, TaskStatus};
use gantry_core::{Error, ErrorKind, Result};
use gantry_shim::client::TaskClient;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bundle::Bundle;
use crate::dead_shim;
use crate::ledger::{End, Told};
use crate::manager::{Inner, ShimTasks, Slot};
use crate::task::{self, Task};
use crate::{log, shim_binary};

/// How many bundles are looked at at once: most of the time is waiting, but cleaning up starts processes.
const AT_ONCE: usize = 64;

/// How often a shim is looked at that was asked to end.
const LOOK: Duration = Duration::from_millis(100);

impl ShimTasks {
    /// Takes up every task that [`ShimTasks::open`] found. A task that ended meanwhile stays, stopped, and its end is
    /// told if it was not; one whose shim died is cleaned up after. Returns when all is known.
    pub async fn recover(&self) {
        let found = std::mem::take(&mut *self.inner.found());
        futures_util::stream::iter(found)
            .for_each_concurrent(AT_ONCE, |(bundle, done)| {
                let inner = Arc::clone(&self.inner);
                async move {
                    if !recover_one(&inner, &bundle).await {
                        inner.remove(&bundle);
                    }
                    // Those who wait look again.
                    drop(done);
                }
            })
            .await;
    }

    pub(crate) fn find_bundles(&self) -> Result<()> {
        for bundle in self.inner.bundles.list()? {
            let (done, waiting) = watch::channel(());
            self.inner.put(&bundle, Slot::Recovering(waiting));
            self.inner.found().push((bundle, done));
        }
        Ok(())
    }
}

/// Takes up one task; `false` if there is none.
async fn recover_one(inner: &Arc<Inner>, bundle: &Bundle) -> bool {
    let (namespace, container_id) = (&bundle.namespace, &bundle.id);
    let binary = bundle.shim_binary().or_else(|_| {
        // Written since 1.6; before that the default was all there was.
        shim_binary::find(gantry_core::wire_names::DEFAULT_RUNTIME, "")
    });
    let binary = binary.ok();
    if !bundle.is_whole() {
        tracing::warn!(%namespace, %container_id, "a broken bundle is removed");
        bundle.delete_or_log().await;
        return false;
    }
    let Ok(answer) = bundle.shim() else {
        tracing::warn!(%namespace, %container_id, "a bundle without shim is cleaned up");
        dead_shim::clean_up(&inner.config, bundle, binary.as_deref()).await;
        return false;
    };
    let over = CancellationToken::new();
    let timeouts = &inner.config.timeouts;
    let client = match task::connect(&answer, bundle, timeouts).await {
        Ok(client) => client,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) => {
            tell_of_dead(inner, bundle, binary.as_deref()).await;
            return false;
        }
        Err(error) => {
            // Whatever it is, it may be alive: nothing of it is touched.
            tracing::error!(%error, %namespace, %container_id, "a task cannot be recovered");
            return false;
        }
    };
    log::follow_in(&inner.jobs, bundle, &over);
    let mut state = client.with_timeout(Some(timeouts.load)).state(bundle.id.as_str(), "").await;
    if matches!(&state, Err(error) if error.kind() == ErrorKind::NotFound) {
        state = end_or_made(inner, bundle, &client).await;
    }
    let record = match state {
        Ok(record) => Some(record),
        Err(error) if error.kind() == ErrorKind::Unavailable => {
            over.cancel();
            tell_of_dead(inner, bundle, binary.as_deref()).await;
            return false;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            over.cancel();
            tracing::info!(%namespace, %container_id, "a shim without its task is cleaned up after");
            dead_shim::clean_up(&inner.config, bundle, binary.as_deref()).await;
            return false;
        }
        // Slow is not dead: the workload goes on, and later calls may succeed.
        Err(error) => {
            tracing::warn!(%error, %namespace, %container_id, "a shim does not say how its task is");
            None
        }
    };
    let pid = record.as_ref().map_or_else(|| bundle.init_pid(), |record| record.pid);
    let binary = binary.unwrap_or_default();
    let task = Arc::new(Task::new(bundle.clone(), binary, answer, client, pid, over));
    inner.serve(Arc::clone(&task));
    if let Some(record) = record.filter(|record| record.status == TaskStatus::Stopped)
        && !bundle.is_exit_told()
    {
        let exit = ExitRecord {
            id: record.id,
            pid,
            status: record.exit_status,
            exited_at: record.exited_at.unwrap_or_else(std::time::SystemTime::now),
        };
        inner.tell(&task.end(&exit), Told::Exit).await;
    }
    true
}

/// Asks a shim to end that says it has no task. One that serves others ignores that; so does one that is still making the task, as
/// the daemon before had asked it to: cleaning up beside it would leave what it makes. Its task's state, if it has one after all.
async fn end_or_made(inner: &Inner, bundle: &Bundle, client: &TaskClient) -> Result<ProcessRecord> {
    let timeouts = &inner.config.timeouts;
    let (namespace, container_id) = (&bundle.namespace, &bundle.id);
    let end = Instant::now() + timeouts.shutdown;
    // A sandbox's shim ends with the sandbox.
    let sandbox = bundle.sandbox();
    let own = sandbox.is_empty() || sandbox == container_id.as_str();
    loop {
        if own
            && let Err(error) =
                client.with_timeout(Some(timeouts.shutdown)).shutdown(container_id.as_str(), false).await
        {
            tracing::debug!(%error, %namespace, %container_id, "shutdown of a shim");
        }
        let gone = tokio::time::timeout(LOOK, client.connection().closed()).await.is_ok();
        let state = client.with_timeout(Some(timeouts.load)).state(container_id.as_str(), "").await;
        match state {
            Err(error) if error.kind() == ErrorKind::NotFound && !gone && Instant::now() < end => {}
            // It ended as it was told to; it had no task.
            Err(error) if gone => return Err(Error::not_found("a task").context(error.to_string())),
            state => return state,
        }
    }
}

/// Cleans up after a shim that died while no daemon looked, and tells of it.
async fn tell_of_dead(inner: &Arc<Inner>, bundle: &Bundle, binary: Option<&Path>) {
    tracing::info!(namespace = %bundle.namespace, container_id = %bundle.id, "a shim died meanwhile");
    let told = bundle.is_exit_told();
    let exit = dead_shim::clean_up(&inner.config, bundle, binary).await;
    let end = End { bundle, pid: exit.pid, exit: &exit };
    if !told {
        inner.tell(&end, Told::Exit).await;
    }
    inner.tell(&end, Told::Delete).await;
}

//! What becomes of a task whose shim ended without being asked to, and of one that its living shim has no more.

use std::sync::Arc;
use std::time::SystemTime;

use gantry_core::ErrorKind;
use gantry_core::tasks::ExitRecord;
use gantry_shim::address;

use crate::bootstrap;
use crate::bundle::Bundle;
use crate::config::ShimTasksConfig;
use crate::ledger::{Entry, Told};
use crate::manager::{Inner, LAST_EVENTS};
use crate::task::{self, Task};

/// How a task ended whose shim was killed: as if by SIGKILL. Source: features I06.
const KILLED: u32 = 137;

/// Waits for the loss of the task's connection, connects anew if the shim still listens, and cleans up if not.
pub(crate) async fn watch(inner: Arc<Inner>, task: Arc<Task>) {
    loop {
        let connection = task.client().connection().clone();
        // Both may be dropped at any time.
        tokio::select! {
            () = task.over.cancelled() => return,
            () = connection.closed() => {}
        }
        let _ending = task.ending.lock().await;
        if task.is_gone() || inner.jobs.is_closed() {
            return;
        }
        if let Some(client) = reconnect(&inner, &task).await {
            task.reconnected(client);
            continue;
        }
        tracing::info!(
            namespace = %task.bundle.namespace, container_id = task.id(),
            "the shim is gone; cleaning up after it"
        );
        bury(&inner, &task).await;
        return;
    }
}

/// Another connection, if the shim lives and still has the task.
async fn reconnect(inner: &Inner, task: &Task) -> Option<gantry_shim::client::TaskClient> {
    let timeouts = &inner.config.timeouts;
    let client = task::connect(&task.answer, &task.bundle, timeouts).await.ok()?;
    match client.with_timeout(Some(timeouts.load)).state(task.id(), "").await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) => None,
        // A slow shim is a living one.
        _ => Some(client),
    }
}

/// Cleans up after the shim of `task` and tells of the end, as far as it was not told. The caller holds `task.ending`.
pub(crate) async fn bury(inner: &Arc<Inner>, task: &Task) {
    let exit = clean_up(&inner.config, &task.bundle, Some(&task.binary)).await;
    inner.remove(&task.bundle);
    inner.tell(&task.end(&exit), Told::Exit).await;
    inner.tell(&task.end(&exit), Told::Delete).await;
    task.gone(ExitRecord { pid: task.pid, ..exit });
}

/// Lets go of a task that its shim says it does not have: the daemon before us had asked for its deletion, and was gone before the
/// answer, or a stranger asked for it.
pub(crate) async fn let_go(inner: &Arc<Inner>, task: &Task) {
    let _ending = task.ending.lock().await;
    let client = task.client();
    // Looked at again, now that nobody else ends it.
    let state = client.with_timeout(Some(inner.config.timeouts.load)).state(task.id(), "").await;
    if task.is_gone() || !matches!(state, Err(error) if error.kind() == ErrorKind::NotFound) {
        return;
    }
    tracing::info!(
        namespace = %task.bundle.namespace, container_id = task.id(),
        "the shim has deleted its task; cleaning up after it"
    );
    inner.end_shim(&client, &task.bundle, &task.answer).await;
    // How it ended is in the shim's own events, which it sends before it goes.
    let deletion = Entry::of(&task.bundle, task.pid, Told::Delete);
    inner.ledger.wait(&deletion, LAST_EVENTS).await;
    bury(inner, task).await;
}

/// Runs the shim's `delete` and removes the bundle; goes on after an error, since nobody else will.
pub(crate) async fn clean_up(
    config: &ShimTasksConfig,
    bundle: &Bundle,
    binary: Option<&std::path::Path>,
) -> ExitRecord {
    let (namespace, container_id) = (bundle.namespace.as_str(), bundle.id.as_str());
    let mut exit = ExitRecord {
        id: container_id.to_owned(),
        pid: bundle.init_pid(),
        status: KILLED,
        exited_at: SystemTime::now(),
    };
    if let Some(binary) = binary {
        match bootstrap::delete(config, binary, bundle).await {
            Ok(deleted) if deleted.exited_at > SystemTime::UNIX_EPOCH => {
                exit = ExitRecord { pid: deleted.pid.max(exit.pid), ..deleted };
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, namespace, container_id, "a dead shim is not cleaned up after")
            }
        }
    }
    remove_socket(config, bundle);
    bundle.delete_or_log().await;
    exit
}

/// Removes the socket that nobody listens on any more.
pub(crate) fn remove_socket(config: &ShimTasksConfig, bundle: &Bundle) {
    let path = match bundle.shim().and_then(|answer| bootstrap::socket(&answer)) {
        Ok(path) => path,
        // A `start` that was cut off may have made the socket without having told where it is; ours makes it here.
        Err(_) => {
            let asked = config.socket_dir.as_ref().map(|dir| dir.display().to_string());
            let dir = address::socket_dir(asked.as_deref());
            address::socket_path(&dir, &config.address, bundle.namespace.as_str(), bundle.id.as_str())
        }
    };
    let is_socket = std::fs::symlink_metadata(&path)
        .is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()));
    if is_socket
        && gantry_sys::socket::connect(&path).is_err_and(|error| error.kind() == ErrorKind::Unavailable)
        && let Err(error) = std::fs::remove_file(&path)
    {
        tracing::debug!(%error, ?path, "the socket of a dead shim stays");
    }
}

//! One task, as the daemon knows it: its bundle, its shim's connection, and how it ended.
//!
//! ```text
//!   making ──▶ serving ──▶ gone          deleted, or its shim died and was cleaned up after
//!     │           ▲
//!     └ failed    └── recovering         a bundle found at start
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_core::Result;
use gantry_core::tasks::ExitRecord;
use gantry_shim::bootstrap::Answer;
use gantry_shim::client::{TaskClient, TaskVersion};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bootstrap;
use crate::bundle::Bundle;
use crate::config::Timeouts;
use crate::ledger::End;
use crate::waits::Waits;

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) bundle: Bundle,
    pub(crate) binary: PathBuf,
    pub(crate) answer: Answer,
    /// The init process.
    pub(crate) pid: u32,
    client: Mutex<TaskClient>,
    /// The waits for its processes.
    pub(crate) waits: Waits,
    phase: watch::Sender<Phase>,
    /// Held by whoever ends the task: a delete, or the cleaning up after a dead shim.
    pub(crate) ending: tokio::sync::Mutex<()>,
    /// Fired when the task is gone; its jobs end then.
    pub(crate) over: CancellationToken,
}

/// What those who wait for a lost shim look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phase {
    /// How many connections there were.
    pub(crate) connections: u64,
    /// How the task ended, once it is gone.
    pub(crate) ended: Option<ExitRecord>,
}

impl Task {
    pub(crate) fn new(
        bundle: Bundle,
        binary: PathBuf,
        answer: Answer,
        client: TaskClient,
        pid: u32,
        over: CancellationToken,
    ) -> Task {
        Task {
            bundle,
            binary,
            answer,
            pid,
            client: Mutex::new(client),
            waits: Waits::default(),
            phase: watch::Sender::new(Phase::default()),
            ending: tokio::sync::Mutex::new(()),
            over,
        }
    }

    pub(crate) fn client(&self) -> TaskClient {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, TaskClient> {
        // Nothing panics while holding it.
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.phase.borrow().ended.is_some()
    }

    /// Goes on with another connection to the same shim.
    pub(crate) fn reconnected(&self, client: TaskClient) {
        *self.lock() = client;
        self.phase.send_modify(|phase| phase.connections += 1);
    }

    /// The task is no more.
    pub(crate) fn gone(&self, exit: ExitRecord) {
        self.phase.send_modify(|phase| phase.ended = Some(exit));
        self.over.cancel();
    }

    pub(crate) fn id(&self) -> &str {
        self.bundle.id.as_str()
    }

    /// The end of this task.
    pub(crate) fn end<'a>(&'a self, exit: &'a ExitRecord) -> End<'a> {
        End { bundle: &self.bundle, pid: self.pid, exit }
    }
}

/// Connects to the shim that answered `answer`.
///
/// # Errors
/// `Unimplemented` for what this daemon cannot speak; `NotFound` and `Unavailable` if the shim is not there.
pub(crate) async fn connect(answer: &Answer, bundle: &Bundle, timeouts: &Timeouts) -> Result<TaskClient> {
    let path: PathBuf = bootstrap::socket(answer)?;
    let version = TaskVersion::from_bootstrap(answer.version)?;
    TaskClient::connect(Path::new(&path), version, bundle.namespace.as_str(), Some(timeouts.call)).await
}

//! A shim's tasks, by id, and what becomes of the shim when there are none.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gantry_core::identifiers::validate_identifier;
use gantry_core::tasks::{ExecTask, ExitRecord, ProcessInfo, ProcessRecord};
use gantry_core::{Any, Error, ErrorKind, Result, ResultExt};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::convert::ShimCreate;
use crate::process::Ended;
use crate::publisher::Publisher;
use crate::task::{KILL, Surroundings, Task};

/// How long a shim that is about to end tries to have its last events acknowledged.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The tasks of one shim.
#[derive(Debug)]
pub struct Shim {
    tasks: Mutex<BTreeMap<String, Slot>>,
    surroundings: Arc<Surroundings>,
    shutdown: CancellationToken,
    /// Whether the shim is a sandbox, which it stays without tasks too.
    is_sandbox: AtomicBool,
    /// Fired when something was done.
    active: Notify,
}

#[derive(Debug)]
enum Slot {
    /// Being made; the id is taken, and there is nothing to see yet.
    Making,
    Ready(Arc<Task>),
}

impl Shim {
    /// A shim of `namespace` without tasks.
    pub fn new(namespace: &str, events: Publisher) -> Arc<Shim> {
        let surroundings = Surroundings { namespace: namespace.to_owned(), events, jobs: TaskTracker::new() };
        Arc::new(Shim {
            tasks: Mutex::default(),
            surroundings: Arc::new(surroundings),
            shutdown: CancellationToken::new(),
            is_sandbox: AtomicBool::new(false),
            active: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        // Nothing panics while holding it; a poisoned table is still whole.
        self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn task(&self, id: &str) -> Result<Arc<Task>> {
        match self.lock().get(id) {
            Some(Slot::Ready(task)) => Ok(Arc::clone(task)),
            // Source: the original's text.
            Some(Slot::Making) | None => Err(Error::not_found("container not created")),
        }
    }

    /// Makes a task and gives its pid. Readers of its output are waited for until `readers_until`.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for a bad id or bundle; `Unknown` for what the runtime refuses.
    pub async fn create(&self, new: ShimCreate, readers_until: Instant) -> Result<u32> {
        validate_identifier(&new.id).context("container id")?;
        if !Path::new(&new.bundle).is_absolute() {
            return Err(Error::invalid_argument(format!("bundle {:?} is no absolute path", new.bundle)));
        }
        let id = new.id.clone();
        {
            let mut tasks = self.lock();
            if tasks.contains_key(&id) {
                return Err(Error::already_exists(format!("task {id:?}")));
            }
            tasks.insert(id.clone(), Slot::Making);
        }
        match Task::create(Arc::clone(&self.surroundings), new, readers_until).await {
            Ok(task) => {
                let pid = task.pid();
                self.lock().insert(id, Slot::Ready(task));
                Ok(pid)
            }
            Err(error) => {
                self.lock().remove(&id);
                Err(error)
            }
        }
    }

    /// Begins a process. Readers of an exec's output are waited for until `readers_until`.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` in any other state than created, or if the runtime fails.
    pub async fn start(&self, id: &str, exec_id: &str, readers_until: Instant) -> Result<u32> {
        self.task(id)?.start(exec_id, readers_until).await
    }

    /// Deletes a process; without exec id the task.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` while it runs.
    pub(crate) async fn delete(&self, id: &str, exec_id: &str) -> Result<(u32, Option<Ended>)> {
        let task = self.task(id)?;
        let deleted = task.delete(exec_id).await?;
        if exec_id.is_empty() {
            self.lock().remove(id);
        }
        Ok(deleted)
    }

    /// The state of a process, and the task's bundle.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn state(&self, id: &str, exec_id: &str) -> Result<(ProcessRecord, String)> {
        let task = self.task(id)?;
        let record = task.process(exec_id)?.record(id);
        Ok((record, task.bundle.display().to_string()))
    }

    /// Every process of a task.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn pids(&self, id: &str) -> Result<Vec<ProcessInfo>> {
        self.task(id)?.pids()
    }

    /// Freezes a task.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` unless it runs.
    pub async fn pause(&self, id: &str) -> Result<()> {
        self.task(id)?.pause().await
    }

    /// Thaws a task.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` unless it is paused.
    pub async fn resume(&self, id: &str) -> Result<()> {
        self.task(id)?.resume().await
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// `NotFound`; `Unimplemented` if the runtime cannot.
    pub async fn checkpoint(&self, id: &str, path: String, options: Option<Any>) -> Result<()> {
        self.task(id)?.checkpoint(path, options).await
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `NotFound` if the process has ended; `FailedPrecondition` if it has not begun.
    pub async fn kill(&self, id: &str, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        self.task(id)?.kill(exec_id, signal, all).await
    }

    /// Adds a process.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists`; `InvalidArgument` for a bad spec.
    pub async fn exec(&self, new: ExecTask) -> Result<()> {
        self.task(&new.container_id)?.exec(new)
    }

    /// Sets the size of a terminal.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn resize(&self, id: &str, exec_id: &str, width: u32, height: u32) -> Result<()> {
        self.task(id)?.process(exec_id)?.resize(width, height)
    }

    /// Lets standard input end, if `stdin` says so.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn close_io(&self, id: &str, exec_id: &str, stdin: bool) -> Result<()> {
        let process = self.task(id)?.process(exec_id)?;
        if stdin {
            process.close_stdin();
        }
        Ok(())
    }

    /// Changes a task's resources.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument`.
    pub async fn update(&self, id: &str, resources: Any) -> Result<()> {
        self.task(id)?.update(resources).await
    }

    /// Waits until a process has ended.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn wait(&self, id: &str, exec_id: &str) -> Result<ExitRecord> {
        let process = self.task(id)?.process(exec_id)?;
        let ended = process.wait().await;
        Ok(process.exit_record(id, ended))
    }

    /// A task's figures.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn stats(&self, id: &str) -> Result<Any> {
        self.task(id)?.stats()
    }

    /// The pid of a task's init.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn task_pid(&self, id: &str) -> Result<u32> {
        Ok(self.task(id)?.pid())
    }

    /// From now on the shim ends with its sandbox, whether or not it has tasks.
    pub(crate) fn become_sandbox(&self) {
        self.is_sandbox.store(true, Ordering::Release);
    }

    /// Ends the shim if it has no task left and is no sandbox.
    pub fn shutdown(&self) {
        let tasks = self.lock();
        if tasks.is_empty() && !self.is_sandbox.load(Ordering::Acquire) {
            self.shutdown.cancel();
        }
    }

    /// Kills every task and waits for their ends.
    ///
    /// # Errors
    /// The first of what the runtime says; the others are killed all the same.
    pub async fn kill_all(&self) -> Result<()> {
        let tasks: Vec<Arc<Task>> = {
            let tasks = self.lock();
            let ready = |slot: &Slot| match slot {
                Slot::Ready(task) => Some(Arc::clone(task)),
                Slot::Making => None,
            };
            tasks.values().filter_map(ready).collect()
        };
        let mut first = Ok(());
        for task in &tasks {
            match task.kill("", KILL, true).await {
                Err(error) if error.kind() != ErrorKind::NotFound && first.is_ok() => first = Err(error),
                _ => {}
            }
        }
        first?;
        for task in &tasks {
            task.process("")?.wait().await;
        }
        Ok(())
    }

    /// Whether nobody can need this shim any more: no process of its tasks runs, and their bundles are gone. `own` is
    /// the bundle that it was started for.
    pub fn is_abandoned(&self, own: &Path) -> bool {
        let tasks = self.lock();
        !own.exists()
            && tasks.values().all(|slot| match slot {
                Slot::Making => false,
                Slot::Ready(task) => task.is_over() && !task.bundle.exists(),
            })
    }

    /// Notes that something was done, so that there may be something to tidy up.
    pub(crate) fn stir(&self) {
        self.active.notify_one();
    }

    /// Waits until something was done and nothing more for `quiet`.
    pub(crate) async fn settled(&self, quiet: Duration) {
        self.active.notified().await;
        while tokio::time::timeout(quiet, self.active.notified()).await.is_ok() {}
    }

    /// Ends the shim whatever its tasks.
    pub fn abandon(&self) {
        self.shutdown.cancel();
    }

    /// Waits until the shim is to end.
    pub async fn ended(&self) {
        self.shutdown.cancelled().await;
    }

    /// Lets the last jobs finish and the last events go out.
    pub async fn close(&self) {
        self.surroundings.jobs.close();
        // Jobs wait for exits; with no task left there are none, and an abandoned shim waits for nobody.
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, self.surroundings.jobs.wait()).await;
        self.surroundings.events.flush(FLUSH_TIMEOUT).await;
    }
}

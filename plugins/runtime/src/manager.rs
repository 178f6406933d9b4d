//! Every task of the daemon, by namespace and id.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use gantry_core::events::EventPublisher;
use gantry_core::mounts::MountManager;
use gantry_core::tasks::{ExitRecord, RuntimeCreate};
use gantry_core::{ContainerId, Context, Error, ErrorKind, Namespace, Result, ResultExt};
use gantry_shim::bootstrap::Answer;
use gantry_shim::client::TaskClient;
use gantry_shim::convert::ShimCreate;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bootstrap::Commands;
use crate::bundle::{Bundle, Bundles};
use crate::config::ShimTasksConfig;
use crate::events::ForwardedEvents;
use crate::ledger::{End, Entry, Ledger, Told};
use crate::task::{self, Task};
use crate::{dead_shim, log, shim_binary};

/// How long a shim that ended in good order may take to have its last events heard, before the daemon tells instead.
const LAST_EVENTS: std::time::Duration = std::time::Duration::from_millis(500);

/// Shims and their tasks. Call [`ShimTasks::recover`] once, early; until then calls for tasks found at start wait.
#[derive(Clone)]
pub struct ShimTasks {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for ShimTasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShimTasks").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) config: ShimTasksConfig,
    pub(crate) bundles: Bundles,
    pub(crate) commands: Commands,
    pub(crate) ledger: Arc<Ledger>,
    events: Arc<dyn EventPublisher>,
    pub(crate) mounts: OnceLock<Arc<dyn MountManager>>,
    tasks: Mutex<HashMap<Key, Slot>>,
    found: Mutex<Found>,
    jobs: TaskTracker,
    closed: CancellationToken,
}

/// The bundles found at start, and what to drop when it is known what became of each.
pub(crate) type Found = Vec<(Bundle, watch::Sender<()>)>;

/// Namespace and container.
type Key = (String, String);

pub(crate) enum Slot {
    /// Being made; the id is taken, and there is nothing to see yet.
    Making,
    /// Found at start; the channel closes when it is known what became of it.
    Recovering(watch::Receiver<()>),
    Serving(Arc<Task>),
}

/// Takes an id until the task is made; dropping it gives the id back.
struct Place<'a> {
    inner: &'a Inner,
    bundle: &'a Bundle,
    kept: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.inner.remove(self.bundle);
        }
    }
}

impl ShimTasks {
    /// Makes the directories and finds the bundles of an earlier daemon. Contacts no shim.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open(config: ShimTasksConfig, events: Arc<dyn EventPublisher>) -> Result<ShimTasks> {
        let bundles = Bundles::open(&config.state, &config.root)?;
        let inner = Inner {
            config,
            bundles,
            commands: Commands::default(),
            ledger: Arc::default(),
            events,
            mounts: OnceLock::new(),
            tasks: Mutex::default(),
            found: Mutex::default(),
            jobs: TaskTracker::new(),
            closed: CancellationToken::new(),
        };
        let tasks = ShimTasks { inner: Arc::new(inner) };
        tasks.find_bundles()?;
        Ok(tasks)
    }

    /// Lets `mounts` perform those mounts of root file systems that shims cannot. Only the first call counts.
    pub fn set_mounts(&self, mounts: Arc<dyn MountManager>) {
        // Tasks made with the first one must find it again.
        let _ = self.inner.mounts.set(mounts);
    }

    /// The service that shims send their events to; the daemon serves it as [`crate::EVENTS_SERVICE`] on its ttrpc
    /// socket, to its own user only.
    pub fn events_service(&self) -> Arc<ForwardedEvents> {
        Arc::new(ForwardedEvents {
            events: Arc::clone(&self.inner.events),
            ledger: Arc::clone(&self.inner.ledger),
            bundles: self.inner.bundles.clone(),
        })
    }

    /// Lets go of every shim; they go on without us.
    pub async fn close(&self) {
        self.inner.closed.cancel();
        self.inner.jobs.close();
        let waited = tokio::time::timeout(self.inner.config.timeouts.start, self.inner.jobs.wait()).await;
        if waited.is_err() {
            tracing::warn!(jobs = self.inner.jobs.len(), "shims do not answer; their calls are abandoned");
        }
        self.inner.lock().clear();
    }
}

impl Inner {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        // Nothing panics while holding it; a poisoned table is still whole.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Runs a job that ends with the daemon.
    pub(crate) fn job(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        self.jobs.spawn(async move {
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
        let done = self.jobs.spawn(work).await;
        done.unwrap_or_else(|error| Err(Error::with_source(ErrorKind::Internal, error)))
    }

    pub(crate) fn put(&self, bundle: &Bundle, slot: Slot) {
        self.lock().insert(key(bundle), slot);
    }

    pub(crate) fn remove(&self, bundle: &Bundle) {
        self.lock().remove(&key(bundle));
    }

    /// The task of a container; waits for its recovery if that goes on.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` if the recovery does not end.
    pub(crate) async fn task(&self, cx: &Context, id: &str) -> Result<Arc<Task>> {
        let key = (cx.namespace()?.to_string(), id.to_owned());
        // Source: the original's text.
        let missing = || Error::not_found(format!("task {id} not found"));
        let mut recovering = match self.lock().get(&key) {
            Some(Slot::Serving(task)) => return Ok(Arc::clone(task)),
            Some(Slot::Recovering(done)) => done.clone(),
            Some(Slot::Making) | None => return Err(missing()),
        };
        // A recovery has deadlines of its own: connecting, asking, cleaning up.
        let patience = self.config.timeouts.load * 2 + self.config.timeouts.cleanup;
        if tokio::time::timeout(patience, recovering.changed()).await.is_err() {
            return Err(Error::unavailable(format!("task {id} is being recovered")));
        }
        match self.lock().get(&key) {
            Some(Slot::Serving(task)) => Ok(Arc::clone(task)),
            _ => Err(missing()),
        }
    }

    /// The ids in `namespace`, or everywhere.
    pub(crate) fn ids(&self, namespace: Option<&Namespace>) -> Vec<Key> {
        let wanted = |key: &&Key| namespace.is_none_or(|namespace| namespace.as_str() == key.0);
        self.lock().keys().filter(wanted).cloned().collect()
    }

    /// Publishes an end, unless it was told already.
    pub(crate) async fn tell(&self, end: &End<'_>, told: Told) {
        if !self.ledger.first(end.entry(told)) {
            return;
        }
        self.events.publish(&Context::new(end.bundle.namespace.clone()), end.event(told)).await;
        if told == Told::Exit {
            let bundle = end.bundle.clone();
            let _ = tokio::task::spawn_blocking(move || bundle.note_exit_told()).await;
        }
    }

    /// Removes a bundle; what cannot be removed is logged, and found again at the next start.
    pub(crate) async fn delete_bundle(&self, bundle: &Bundle) {
        let gone = bundle.clone();
        let deleted = tokio::task::spawn_blocking(move || gone.delete()).await;
        let deleted = deleted.unwrap_or_else(|error| Err(Error::with_source(ErrorKind::Internal, error)));
        if let Err(error) = deleted {
            tracing::warn!(%error, namespace = %bundle.namespace, container_id = %bundle.id, "a bundle stays");
        }
    }

    /// Puts a task to work: it is found from now on, its log is read and its shim watched.
    pub(crate) fn serve(self: &Arc<Self>, task: Arc<Task>) {
        self.put(&task.bundle, Slot::Serving(Arc::clone(&task)));
        let inner = Arc::clone(self);
        self.job(dead_shim::watch(inner, task));
    }

    /// Reads the shim's log until `over`. A shim without log serves as well.
    pub(crate) fn follow_log(&self, bundle: &Bundle, over: &CancellationToken) {
        match log::open(&bundle.log()) {
            Ok(fifo) => {
                self.job(log::follow(fifo, bundle.namespace.to_string(), bundle.id.to_string(), over.clone()))
            }
            Err(error) => {
                tracing::warn!(%error, namespace = %bundle.namespace, container_id = %bundle.id, "no shim log");
            }
        }
    }

    /// Whether another task has the same shim.
    fn is_shared(&self, answer: &Answer, but: &Bundle) -> bool {
        let but = key(but);
        self.lock().iter().any(|(key, slot)| {
            *key != but && matches!(slot, Slot::Serving(task) if task.answer.address == answer.address)
        })
    }

    /// Makes a task.
    ///
    /// # Errors
    /// As [`gantry_core::tasks::TaskRuntime::create`].
    pub(crate) async fn create(self: &Arc<Self>, cx: &Context, new: RuntimeCreate) -> Result<u32> {
        let id = ContainerId::parse(&*new.id)?;
        let bundle = self.bundles.bundle(cx.namespace()?, &id);
        {
            let mut tasks = self.lock();
            if tasks.contains_key(&key(&bundle)) {
                return Err(Error::already_exists(format!("task {id}")));
            }
            tasks.insert(key(&bundle), Slot::Making);
        }
        let mut place = Place { inner: self, bundle: &bundle, kept: false };
        let task = self.make(cx, &bundle, new).await?;
        place.kept = true;
        let pid = task.pid;
        // The number means this process now.
        self.ledger.forget(&Entry::of(&bundle, pid, Told::Delete));
        self.serve(Arc::new(task));
        Ok(pid)
    }

    async fn make(&self, cx: &Context, bundle: &Bundle, mut new: RuntimeCreate) -> Result<Task> {
        let binary = match self.sandbox_shim(bundle, &new.sandbox_id) {
            Some((binary, _)) => binary,
            // Source: semantics, Tasks: an unknown runtime is UNKNOWN.
            None => shim_binary::find(&new.runtime, &new.runtime_path).map_err(|error| {
                error.with_kind(ErrorKind::Unknown).context("failed to resolve runtime path")
            })?,
        };
        let spec = new.spec.clone().ok_or_else(|| Error::unknown("the container has no spec"))?;
        // The container's process will be moved into its cgroups; the kernel's wait for that runs beside the shim's start.
        self.jobs.spawn_blocking(|| {
            if let Err(error) = gantry_sys::cgroup::ease_moves() {
                tracing::debug!(%error, "moves between cgroups are not eased");
            }
        });
        let (made, sandbox_id) = (bundle.clone(), new.sandbox_id.clone());
        tokio::task::spawn_blocking(move || made.create(&spec.value, &sandbox_id))
            .await
            .map_err(|error| Error::with_source(ErrorKind::Internal, error))?
            .context("make bundle")?;
        let id = bundle.id.as_str();
        let rootfs = match self.rootfs(cx, id, &binary, std::mem::take(&mut new.rootfs)).await {
            Ok(rootfs) => rootfs,
            Err(error) => {
                self.delete_bundle(bundle).await;
                return Err(error);
            }
        };
        new.rootfs = rootfs.mounts;
        let over = CancellationToken::new();
        self.follow_log(bundle, &over);
        let made = self.make_in(bundle, &binary, new, &over).await;
        if made.is_err() {
            over.cancel();
            if rootfs.activated {
                self.deactivate_rootfs(cx, id).await;
            }
        }
        made
    }

    async fn make_in(
        &self,
        bundle: &Bundle,
        binary: &Path,
        new: RuntimeCreate,
        over: &CancellationToken,
    ) -> Result<Task> {
        let answer = match self.start_shim(bundle, binary, &new).await {
            Ok(answer) => answer,
            Err(error) => {
                self.delete_bundle(bundle).await;
                return Err(error);
            }
        };
        let made = async {
            let noted = (bundle.clone(), binary.to_owned(), answer.clone());
            tokio::task::spawn_blocking(move || noted.0.write_shim(&noted.1, &noted.2))
                .await
                .map_err(|error| Error::with_source(ErrorKind::Internal, error))??;
            let client =
                task::connect(&answer, bundle, &self.config.timeouts).await.context("connect shim")?;
            let pid = client.create(shim_create(bundle, new)).await;
            Ok::<_, Error>((client, pid))
        };
        match made.await {
            Ok((client, Ok(pid))) => {
                Ok(Task::new(bundle.clone(), binary.to_owned(), answer, client, pid, over.clone()))
            }
            Ok((client, Err(error))) => {
                self.undo(bundle, binary, &answer, Some(&client)).await;
                Err(error)
            }
            Err(error) => {
                self.undo(bundle, binary, &answer, None).await;
                Err(error)
            }
        }
    }

    /// The program and address of the sandbox's shim, if the sandbox is a task that it serves.
    fn sandbox_shim(&self, bundle: &Bundle, sandbox_id: &str) -> Option<(PathBuf, Answer)> {
        let key = (bundle.namespace.to_string(), sandbox_id.to_owned());
        match self.lock().get(&key) {
            Some(Slot::Serving(task)) if sandbox_id != bundle.id.as_str() => {
                Some((task.binary.clone(), task.answer.clone()))
            }
            _ => None,
        }
    }

    async fn start_shim(&self, bundle: &Bundle, binary: &Path, new: &RuntimeCreate) -> Result<Answer> {
        if let Some((_, answer)) = self.sandbox_shim(bundle, &new.sandbox_id) {
            return Ok(answer);
        }
        self.commands.start(&self.config, binary, bundle, new.options.as_ref()).await
    }

    /// Undoes a create that failed after the shim was started: container, shim, bundle.
    async fn undo(&self, bundle: &Bundle, binary: &Path, answer: &Answer, client: Option<&TaskClient>) {
        if let Err(error) = crate::bootstrap::delete(&self.config, binary, bundle).await {
            tracing::debug!(%error, container_id = %bundle.id, "a failed create is not cleaned up after");
        }
        if let Some(client) = client {
            self.end_shim(client, bundle, answer).await;
        }
        self.delete_bundle(bundle).await;
    }

    /// Asks a shim to end, and waits for it unless it has other tasks.
    async fn end_shim(&self, client: &TaskClient, bundle: &Bundle, answer: &Answer) {
        let patience = self.config.timeouts.shutdown;
        if let Err(error) = client.with_timeout(Some(patience)).shutdown(bundle.id.as_str(), false).await {
            tracing::debug!(%error, container_id = %bundle.id, "shutdown of a shim");
        }
        if self.is_shared(answer, bundle) {
            return;
        }
        if tokio::time::timeout(patience, client.connection().closed()).await.is_err() {
            tracing::warn!(namespace = %bundle.namespace, container_id = %bundle.id, "the shim does not end");
        }
    }

    /// Deletes a whole task: from the shim, then the shim, then the bundle.
    pub(crate) async fn delete(self: &Arc<Self>, task: &Arc<Task>) -> Result<ExitRecord> {
        let _ending = task.ending.lock().await;
        if task.is_gone() {
            return Err(Error::not_found(format!("task {} not found", task.id())));
        }
        let client = task.client();
        let exit = client.delete(task.id(), "").await?;
        self.end_shim(&client, &task.bundle, &task.answer).await;
        self.delete_bundle(&task.bundle).await;
        self.deactivate_rootfs(&Context::new(task.bundle.namespace.clone()), task.id()).await;
        self.remove(&task.bundle);
        task.gone(exit.clone());
        // The shim's own events are on their way, or were lost with it.
        let (inner, task, last) = (Arc::clone(self), Arc::clone(task), exit.clone());
        self.job(async move {
            inner.ledger.wait(&task.end(&last).entry(Told::Delete), LAST_EVENTS).await;
            inner.tell(&task.end(&last), Told::Exit).await;
            inner.tell(&task.end(&last), Told::Delete).await;
        });
        Ok(exit)
    }
}

fn key(bundle: &Bundle) -> Key {
    (bundle.namespace.to_string(), bundle.id.to_string())
}

fn shim_create(bundle: &Bundle, new: RuntimeCreate) -> ShimCreate {
    ShimCreate {
        id: new.id,
        bundle: bundle.path.display().to_string(),
        rootfs: new.rootfs,
        io: new.io,
        checkpoint: new.checkpoint,
        parent_checkpoint: String::new(),
        options: new.options,
    }
}

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

use crate::bootstrap::Commands;
use crate::bundle::{Bundle, Bundles};
use crate::config::ShimTasksConfig;
use crate::events::ForwardedEvents;
use crate::jobs::Jobs;
use crate::ledger::{End, Entry, Ledger, Told};
use crate::sandboxes::SandboxShims;
use crate::task::{self, Task};
use crate::{dead_shim, log, shim_binary};

/// How long a shim that ended in good order may take to have its last events heard, before the daemon tells instead.
pub(crate) const LAST_EVENTS: std::time::Duration = std::time::Duration::from_millis(500);

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
    pub(crate) jobs: Jobs,
    sandboxes: OnceLock<Arc<SandboxShims>>,
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
        let bundles = Bundles::of_tasks(&config.state, &config.root)?;
        let inner = Inner {
            config,
            bundles,
            commands: Commands::default(),
            ledger: Arc::default(),
            events,
            mounts: OnceLock::new(),
            tasks: Mutex::default(),
            found: Mutex::default(),
            jobs: Jobs::default(),
            sandboxes: OnceLock::new(),
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

    /// Lets tasks of the sandboxes in `sandboxes` run in those sandboxes' shims. Only the first call counts.
    pub fn set_sandboxes(&self, sandboxes: Arc<SandboxShims>) {
        // As for mounts.
        let _ = self.inner.sandboxes.set(sandboxes);
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
        self.inner.jobs.close(self.inner.config.timeouts.start).await;
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

    /// Puts a task to work: it is found from now on, its log is read and its shim watched.
    pub(crate) fn serve(self: &Arc<Self>, task: Arc<Task>) {
        self.put(&task.bundle, Slot::Serving(Arc::clone(&task)));
        let inner = Arc::clone(self);
        self.jobs.job(dead_shim::watch(inner, task));
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
        let shared = self.sandbox_shim(bundle, &new.sandbox_id).await?;
        let binary = match &shared {
            Some((binary, _)) => binary.clone(),
            None => shim_binary::find_or_unknown(&new.runtime, &new.runtime_path)?,
        };
        let spec = new.spec.clone().ok_or_else(|| Error::unknown("the container has no spec"))?;
        // The container's process will be moved into its cgroups; the kernel's wait for that runs beside the shim's start.
        self.jobs.beside(|| {
            if let Err(error) = gantry_sys::cgroup::ease_moves() {
                tracing::debug!(%error, "moves between cgroups are not eased");
            }
        });
        let (made, sandbox_id) = (bundle.clone(), new.sandbox_id.clone());
        tokio::task::spawn_blocking(move || made.create(Some(&spec.value), &sandbox_id))
            .await
            .map_err(|error| Error::with_source(ErrorKind::Internal, error))?
            .context("make bundle")?;
        let id = bundle.id.as_str();
        let rootfs = match self.rootfs(cx, id, &binary, std::mem::take(&mut new.rootfs)).await {
            Ok(rootfs) => rootfs,
            Err(error) => {
                bundle.delete_or_log().await;
                return Err(error);
            }
        };
        new.rootfs = rootfs.mounts;
        let over = CancellationToken::new();
        log::follow_in(&self.jobs, bundle, &over);
        let made = self.make_in(bundle, (&binary, shared.map(|(_, answer)| answer)), new, &over).await;
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
        (binary, shared): (&Path, Option<Answer>),
        new: RuntimeCreate,
        over: &CancellationToken,
    ) -> Result<Task> {
        let started = match shared {
            Some(answer) => Ok(answer),
            None => self.commands.start(&self.config, binary, bundle, new.options.as_ref()).await,
        };
        let answer = match started {
            Ok(answer) => answer,
            Err(error) => {
                bundle.delete_or_log().await;
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

    /// The program and address of the sandbox's shim, if the task is of a sandbox other than itself.
    ///
    /// # Errors
    /// `Unknown`, in the original's words, if nobody runs that sandbox.
    async fn sandbox_shim(&self, bundle: &Bundle, sandbox_id: &str) -> Result<Option<(PathBuf, Answer)>> {
        if sandbox_id.is_empty() || sandbox_id == bundle.id.as_str() {
            return Ok(None);
        }
        let key = (bundle.namespace.to_string(), sandbox_id.to_owned());
        if let Some(sandboxes) = self.sandboxes.get()
            && let Some(sandbox) = sandboxes.get(&key, &self.config.timeouts).await?
        {
            return Ok(Some((sandbox.binary.clone(), sandbox.answer.clone())));
        }
        // A sandbox may also be a task whose shim the others share.
        match self.lock().get(&key) {
            Some(Slot::Serving(task)) => Ok(Some((task.binary.clone(), task.answer.clone()))),
            _ => Err(Error::unknown(format!("can't find sandbox {sandbox_id}"))),
        }
    }

    /// Whether the shim of `bundle` is a sandbox's, which ends with the sandbox and not with its last task.
    fn is_sandboxes(&self, bundle: &Bundle) -> bool {
        let key = (bundle.namespace.to_string(), bundle.sandbox());
        self.sandboxes.get().is_some_and(|sandboxes| sandboxes.has(&key))
    }

    /// Undoes a create that failed after the shim was started: container, shim, bundle.
    async fn undo(&self, bundle: &Bundle, binary: &Path, answer: &Answer, client: Option<&TaskClient>) {
        if let Err(error) = crate::bootstrap::delete(&self.config, binary, bundle).await {
            tracing::debug!(%error, container_id = %bundle.id, "a failed create is not cleaned up after");
        }
        if let Some(client) = client {
            self.end_shim(client, bundle, answer).await;
        }
        bundle.delete_or_log().await;
    }

    /// Asks a shim to end, and waits for it unless it has other tasks.
    pub(crate) async fn end_shim(&self, client: &TaskClient, bundle: &Bundle, answer: &Answer) {
        if self.is_sandboxes(bundle) {
            return;
        }
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
        task.bundle.delete_or_log().await;
        self.deactivate_rootfs(&Context::new(task.bundle.namespace.clone()), task.id()).await;
        self.remove(&task.bundle);
        task.gone(exit.clone());
        // The shim's own events are on their way, or were lost with it.
        let (inner, task, last) = (Arc::clone(self), Arc::clone(task), exit.clone());
        self.jobs.job(async move {
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

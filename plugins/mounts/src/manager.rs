//! The manager: records, locks and clean-up around what the other modules do.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use gantry_core::collection::{Collectable, Collection};
use gantry_core::mount::Mount;
use gantry_core::mounts::{
    ActivateMounts, Activation, ActiveMount, MountHandler, MountManager, MountRecord, MountRecords,
};
use gantry_core::{Context, Error, ErrorKind, ItemStream, Result, ResultExt};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::format::format;
use crate::loopback::LoopbackHandler;
use crate::mkdir::mkdir;
use crate::mkfs::mkfs;
use crate::names::Names;
use crate::plan::{Plan, Planned, Step};
use crate::roots::Roots;
use crate::targets::{Handlers, Targets, place_name, type_file};

/// How many lists are mounted or unmounted at once.
const AT_ONCE: usize = 16;
/// How often another number is taken because a directory of it is there.
const MAX_TRIES: usize = 64;
/// How long a collection waits for mounts to end; they go on ending without it.
const COLLECT_WAIT: Duration = Duration::from_secs(5);

/// What the operator and the daemon set.
pub struct MountsConfig {
    /// Where targets are made, for example `/run/containerd/io.containerd.mount-manager.v1.bolt`.
    pub state: PathBuf,
    /// Directories besides in which `mkdir/` and `mkfs/` may make something.
    pub roots: Vec<PathBuf>,
    /// Handlers by type. The one for `loop` is built in.
    pub handlers: Vec<(String, Arc<dyn MountHandler>)>,
}

struct Inner {
    records: Arc<dyn MountRecords>,
    targets: Targets,
    roots: Roots,
    handlers: Handlers,
    /// Held while an activation comes or goes, by namespace and name.
    names: Names,
    /// Held while a directory is torn down, by number.
    numbers: Names,
    /// Directories of another program, which may come back for them.
    foreign: HashSet<u64>,
    at_once: Semaphore,
    /// Everything that goes on when its caller leaves.
    jobs: TaskTracker,
}

/// Mounts on this machine.
#[derive(Clone)]
pub struct LocalMounts {
    inner: Arc<Inner>,
}

impl LocalMounts {
    /// Opens the manager: forgets what is not mounted any more, and begins to unmount what nobody knows.
    ///
    /// # Errors
    /// Those of the file system and of the records.
    pub async fn open(config: MountsConfig, records: Arc<dyn MountRecords>) -> Result<LocalMounts> {
        let targets = Targets::open(config.state.join("t"))?;
        let mut handlers = Handlers::from([("loop".to_owned(), Arc::new(LoopbackHandler) as Arc<_>)]);
        handlers.extend(config.handlers);
        let mut roots = vec![targets.0.clone()];
        roots.extend(config.roots);
        records.forget_lost().await.context("forget mounts of another boot")?;
        for record in records.all().await? {
            if !targets.dir(record.id).is_dir() {
                tracing::info!(
                    namespace = record.namespace,
                    name = record.activation.name,
                    "a mount is gone"
                );
                records.remove(record.id).await?;
            }
        }
        // Source: containerd keeps its records there. What it mounted may serve a task that was taken over.
        let foreign = if config.state.join("mounts.db").exists() {
            let known: HashSet<u64> = records.all().await?.iter().map(|record| record.id).collect();
            targets.ids()?.into_iter().filter(|id| !known.contains(id)).collect()
        } else {
            HashSet::new()
        };
        let manager = LocalMounts {
            inner: Arc::new(Inner {
                records,
                targets,
                roots: Roots(roots),
                handlers,
                names: Names::default(),
                numbers: Names::default(),
                foreign,
                at_once: Semaphore::new(AT_ONCE),
                jobs: TaskTracker::new(),
            }),
        };
        let inner = Arc::clone(&manager.inner);
        manager.inner.jobs.spawn(async move { inner.tear_down_unknown().await });
        Ok(manager)
    }

    async fn job<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.inner.jobs.spawn(work).await {
            Ok(done) => done,
            Err(error) if error.is_panic() => Err(Error::internal("a mount call panicked")),
            Err(_) => Err(Error::unavailable("the runtime is shutting down")),
        }
    }
}

fn key(cx: &Context, name: &str) -> Result<String> {
    Ok(format!("{}\0{name}", cx.namespace()?))
}

impl Inner {
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let closed = |_| Error::unavailable("the mount manager is closed");
        let _place = self.at_once.acquire().await.map_err(closed)?;
        let inner = Arc::clone(self);
        match tokio::task::spawn_blocking(move || call(&inner)).await {
            Ok(done) => done,
            Err(error) if error.is_panic() => Err(Error::internal("a mount call panicked")),
            Err(_) => Err(Error::unavailable("the runtime is shutting down")),
        }
    }

    async fn activate(
        self: Arc<Self>,
        cx: Context,
        name: String,
        plan: Plan,
        how: ActivateMounts,
    ) -> Result<Activation> {
        let _alone = self.names.lock(key(&cx, &name)?).await;
        let (id, dir) = self.begin(&cx, &name, &how).await?;
        let runtime = Handle::current();
        let made = self.blocking(move |inner| inner.perform(&dir, plan, &runtime)).await;
        let noted = match made {
            Ok((active, system)) => {
                self.records.finish(id, &active, &system).await.map(|()| (active, system))
            }
            Err(error) => Err(error),
        };
        match noted {
            Ok((active, system)) => Ok(Activation { name, active, system, labels: how.labels }),
            Err(error) => {
                // What fails here is found by the next collection.
                if let Err(undo) = self.records.remove(id).await {
                    tracing::warn!(name, error = %undo, "forget a mount that failed");
                }
                if let Err(undo) = self.tear_down(id).await {
                    tracing::warn!(name, error = %undo, "undo a mount that failed");
                }
                Err(error)
            }
        }
    }

    /// Makes a record and its directory. The name's lock is held.
    async fn begin(
        self: &Arc<Self>,
        cx: &Context,
        name: &str,
        how: &ActivateMounts,
    ) -> Result<(u64, PathBuf)> {
        for _ in 0..MAX_TRIES {
            let id = match self.records.begin(cx, name, how.labels.clone(), how.pinned).await {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let existing = self.records.get(cx, name).await?;
                    if existing.finished {
                        return Err(error);
                    }
                    // An activation that failed, and whose undoing failed.
                    self.records.remove(existing.id).await?;
                    continue;
                }
                begun => begun?,
            };
            match self.blocking(move |inner| inner.targets.create(id)).await {
                Ok(dir) => return Ok((id, dir)),
                Err(error) => {
                    self.records.remove(id).await?;
                    // Left by a database that is no more: the next number is free, or the one after it.
                    if error.kind() != ErrorKind::AlreadyExists {
                        return Err(error);
                    }
                }
            }
        }
        Err(Error::unavailable(format!("no free directory for mount {name:?}")))
    }

    /// Mounts what is to be mounted, in `dir`. Whoever calls it undoes it if it fails.
    fn perform(&self, dir: &Path, plan: Plan, runtime: &Handle) -> Result<(Vec<ActiveMount>, Vec<Mount>)> {
        let count = plan.performed.len();
        let mut active: Vec<ActiveMount> = Vec::with_capacity(count);
        for (index, planned) in plan.performed.into_iter().enumerate() {
            let step = format!("mount {index} of the list");
            let entry = self.transform(planned, &active, runtime).with_context(|| step.clone())?;
            let point = dir.join(place_name(index, count));
            let kind_file = type_file(&point);
            std::fs::write(&kind_file, &entry.kind)
                .with_context(|| format!("write {}", kind_file.display()))?;
            active.push(self.mount(entry, &point, &active).context(step)?);
        }
        let mut system = Vec::with_capacity(plan.left.len() + 1);
        if let Some(planned) = plan.first_left {
            let step = || format!("mount {count} of the list");
            system.push(self.transform(planned, &active, runtime).with_context(step)?);
        }
        system.extend(plan.left);
        if let Some(last) = active.last().filter(|_| plan.add_bind) {
            system.push(Mount {
                kind: "bind".to_owned(),
                source: last.mount_point.clone(),
                target: String::new(),
                options: vec!["rbind".to_owned()],
            });
        }
        Ok((active, system))
    }

    fn transform(&self, planned: Planned, before: &[ActiveMount], runtime: &Handle) -> Result<Mount> {
        planned.steps.into_iter().try_fold(planned.entry, |entry, step| match step {
            Step::Format => format(entry, before),
            Step::Mkdir => mkdir(entry, &self.roots),
            Step::Mkfs => mkfs(entry, &self.roots, runtime),
        })
    }

    fn mount(&self, entry: Mount, point: &Path, before: &[ActiveMount]) -> Result<ActiveMount> {
        if let Some(handler) = self.handlers.get(&entry.kind) {
            return handler.mount(&entry, point, before);
        }
        std::fs::create_dir(point).with_context(|| format!("make {}", point.display()))?;
        gantry_mount::mount(&entry, point)?;
        Ok(ActiveMount {
            mount: entry,
            mounted_at: Some(SystemTime::now()),
            mount_point: point.display().to_string(),
            ..ActiveMount::default()
        })
    }

    async fn tear_down(self: &Arc<Self>, id: u64) -> Result<()> {
        let _alone = self.numbers.lock(id.to_string()).await;
        self.blocking(move |inner| inner.targets.tear_down(id, &inner.handlers)).await
    }

    /// Unmounts whatever has no record. A record is made before its directory, so the directories are looked at first.
    async fn tear_down_unknown(self: &Arc<Self>) {
        let found = async {
            let ids = self.blocking(|inner| inner.targets.ids()).await?;
            if ids.is_empty() {
                return Ok::<_, Error>(ids);
            }
            let known: HashSet<u64> = self.records.all().await?.into_iter().map(|record| record.id).collect();
            let unknown = |id: &u64| !known.contains(id) && !self.foreign.contains(id);
            Ok(ids.into_iter().filter(unknown).collect())
        };
        let unknown = match found.await {
            Ok(unknown) => unknown,
            Err(error) => return tracing::warn!(%error, "look for mounts without record"),
        };
        for id in unknown {
            match self.tear_down(id).await {
                Ok(()) => tracing::debug!(id, "unmounted what had no record"),
                Err(error) => tracing::warn!(id, %error, "a mount without record stays for now"),
            }
        }
    }

    async fn deactivate(self: Arc<Self>, cx: Context, name: String) -> Result<()> {
        let _alone = self.names.lock(key(&cx, &name)?).await;
        let record = self.records.get(&cx, &name).await?;
        self.records.remove(record.id).await?;
        self.tear_down(record.id).await.with_context(|| format!("deactivate mount {name:?}"))
    }
}

#[async_trait]
impl MountManager for LocalMounts {
    fn is_for(&self, mounts: &[Mount]) -> bool {
        mounts.iter().any(|entry| entry.kind.contains('/') || self.inner.handlers.contains_key(&entry.kind))
    }

    async fn activate(
        &self,
        cx: &Context,
        name: &str,
        mounts: &[Mount],
        how: ActivateMounts,
    ) -> Result<Activation> {
        cx.namespace()?;
        let plan = Plan::of(mounts, &how, |kind| self.inner.handlers.contains_key(kind))?;
        let inner = Arc::clone(&self.inner);
        let work = inner.activate(cx.clone(), name.to_owned(), plan, how);
        self.job(work).await.with_context(|| format!("activate mount {name:?}"))
    }

    async fn deactivate(&self, cx: &Context, name: &str) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        self.job(inner.deactivate(cx.clone(), name.to_owned())).await
    }

    async fn info(&self, cx: &Context, name: &str) -> Result<Activation> {
        let record = self.inner.records.get(cx, name).await?;
        Ok(record.activation)
    }

    async fn list(&self, cx: &Context) -> Result<ItemStream<Activation>> {
        self.inner.records.list(cx).await
    }
}

#[async_trait]
impl Collection for LocalMounts {
    fn kind(&self) -> &'static str {
        "mount"
    }

    async fn collectables(&self) -> Result<Vec<Collectable>> {
        let wanted = |record: &MountRecord| record.finished && !record.pinned;
        let all = self.inner.records.all().await?;
        Ok(all
            .into_iter()
            .filter(wanted)
            .map(|record| Collectable {
                id: record.id,
                namespace: record.namespace,
                name: record.activation.name,
                lease: record.lease,
                labels: record.activation.labels,
            })
            .collect())
    }

    async fn collect(&self, gone: Vec<Collectable>) {
        for item in gone {
            match self.inner.records.remove(item.id).await {
                Ok(()) => {
                    tracing::debug!(namespace = item.namespace, name = item.name, "collected a mount");
                }
                Err(error) => tracing::warn!(name = item.name, %error, "forget a mount"),
            }
        }
        let inner = Arc::clone(&self.inner);
        let job = self.inner.jobs.spawn(async move { inner.tear_down_unknown().await });
        // The job goes on if it takes longer; a busy mount is waited for.
        if tokio::time::timeout(COLLECT_WAIT, job).await.is_err() {
            tracing::warn!("collected mounts take long to end");
        }
    }
}

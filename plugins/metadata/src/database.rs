//! The database as a whole: opening, what all parts share, closing.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use gantry_core::collection::Collection;
use gantry_core::content::ContentStore;
use gantry_core::diff::DiffApplier;
use gantry_core::events::EventPublisher;
use gantry_core::snapshots::SnapshotDriver;
use gantry_core::{Context, Error, Result};
use gantry_store::{Boot, LastStop, Store, StoreOptions, Writing};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::collection::{CollectionStats, Collector, Garbage, Recorder};
use crate::containers::MetadataContainers;
use crate::content::MetadataContent;
use crate::images::MetadataImages;
use crate::leases::MetadataLeases;
use crate::locks::KeyLocks;
use crate::maintenance::MetadataMaintenance;
use crate::mounts::MetadataMounts;
use crate::namespaces::MetadataNamespaces;
use crate::rebuild::Rebuilds;
use crate::recovery::Recovery;
use crate::sandboxes::MetadataSandboxes;
use crate::scheduler::{CollectionConfig, Pending};
use crate::schema::MIGRATIONS;
use crate::snapshots::MetadataSnapshotter;

/// Whether a blob that one namespace has can be had in another without its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentSharing {
    /// Whoever names a blob's digest may have it.
    #[default]
    Shared,
    /// Only blobs of namespaces labelled `containerd.io/namespace.shareable=true`.
    Isolated,
}

impl FromStr for ContentSharing {
    type Err = Error;

    /// Reads the configuration's word.
    fn from_str(text: &str) -> Result<Self> {
        // Source: features A12 and E61.
        match text {
            "shared" | "" => Ok(ContentSharing::Shared),
            "isolated" => Ok(ContentSharing::Isolated),
            _ => Err(Error::invalid_argument(format!("content_sharing_policy {text:?}: shared or isolated"))),
        }
    }
}

/// What the operator sets.
#[derive(Clone, Debug, Default)]
pub struct MetadataConfig {
    /// `content_sharing_policy`; shared by default.
    pub content_sharing: ContentSharing,
    /// `no_sync`; false by default.
    pub no_sync: bool,
    /// The section of the collection's scheduler.
    pub collection: CollectionConfig,
}

/// What the metadata works with.
pub struct MetadataParts {
    /// The database file, for example `<root>/gantry/store.db`.
    pub path: PathBuf,
    /// Where blobs and ingests are; knows no namespaces.
    pub content: Arc<dyn ContentStore>,
    /// The built-in snapshotters.
    pub drivers: Vec<Arc<dyn SnapshotDriver>>,
    /// Told what a collection removed.
    pub events: Arc<dyn EventPublisher>,
}

/// How many blocking calls of snapshot drivers run at once.
const DRIVER_CALLS: usize = 16;

/// What all parts share.
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) config: MetadataConfig,
    pub(crate) content: Arc<dyn ContentStore>,
    pub(crate) drivers: BTreeMap<String, Arc<dyn SnapshotDriver>>,
    pub(crate) events: Arc<dyn EventPublisher>,
    /// Held while a blob comes or goes, by digest.
    pub(crate) digests: KeyLocks<String>,
    /// Held while a snapshot is committed, by directory.
    pub(crate) snapshot_locks: KeyLocks<i64>,
    /// Held while a snapshot is made, until directory and record agree, by snapshotter and number.
    pub(crate) directory_locks: KeyLocks<(String, u64)>,
    /// What is not to be used before it was rebuilt.
    pub(crate) rebuilds: Rebuilds,
    /// The directory of the next snapshot.
    pub(crate) next_snapshot: AtomicI64,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) collector: Collector,
    pub(crate) garbage: Garbage,
    /// Keepers of other things that a collection takes along.
    pub(crate) others: Mutex<Vec<Arc<dyn Collection>>>,
    pub(crate) pending: Pending,
    /// Held, shared, by removals until their data has followed their record, or waits for the collection; alone by those who
    /// compare the two.
    pub(crate) removals: tokio::sync::RwLock<()>,
    /// Held while somebody asks who keeps what: one such question at a time, since it goes over all records.
    pub(crate) questions: tokio::sync::Mutex<()>,
    /// Held by the one check that is under way.
    pub(crate) checks: Arc<tokio::sync::Mutex<()>>,
    /// Whether the store was opened only to be looked at: nobody else uses it.
    pub(crate) is_stopped_root: bool,
    /// Snapshotters whose retired directories wait to be deleted.
    pub(crate) purges: Mutex<HashSet<String>>,
    pub(crate) purge_locks: KeyLocks<String>,
    /// Everything that goes on when its caller leaves.
    pub(crate) jobs: TaskTracker,
    driver_calls: Semaphore,
}

impl Inner {
    /// A write after which nothing is to be collected.
    pub(crate) async fn change<T, F>(&self, write: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Writing<'_>) -> Result<T> + Send + 'static,
    {
        let answer = self.store.write(write).await?;
        self.pending.mutated();
        Ok(answer)
    }

    /// A write that took something away, so that something may be to be collected.
    pub(crate) async fn delete<T, F>(&self, write: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Writing<'_>) -> Result<T> + Send + 'static,
    {
        let answer = self.store.write(write).await?;
        self.pending.deleted();
        Ok(answer)
    }

    /// Runs a driver's call on the blocking pool, a bounded number at once.
    pub(crate) async fn blocking<T, F>(&self, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let closed = |_| Error::unavailable("the metadata is closed");
        let _place = self.driver_calls.acquire().await.map_err(closed)?;
        match tokio::task::spawn_blocking(call).await {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => Err(Error::internal("a snapshot driver panicked")),
            Err(_) => Err(Error::unavailable("the runtime is shutting down")),
        }
    }

    /// Runs `work` to its end, whether or not the caller waits for it.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.jobs.spawn(work).await {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => Err(Error::internal("a metadata call panicked")),
            Err(_) => Err(Error::unavailable("the runtime is shutting down")),
        }
    }
}

/// The metadata: opened once, handed out as one store per noun.
#[derive(Clone)]
pub struct Metadata {
    inner: Arc<Inner>,
    recovery: Arc<Recovery>,
}

impl Metadata {
    /// Opens the database, and compares it with the directories of the snapshot drivers.
    ///
    /// # Errors
    /// `FailedPrecondition` if another process has the database open (naming its pid), if two drivers have one name, or if there is
    /// no database yet but content or snapshots, which would be garbage to a new one; `DataLoss` if it is damaged; those of the
    /// drivers.
    pub async fn open(config: MetadataConfig, parts: MetadataParts) -> Result<Metadata> {
        Self::open_in_boot(config, parts, None).await
    }

    /// As [`Metadata::open`], taking `boot_id` for the kernel's: for tests of what a new boot does.
    ///
    /// # Errors
    /// As there.
    #[doc(hidden)]
    pub async fn open_in_boot(
        config: MetadataConfig,
        parts: MetadataParts,
        boot_id: Option<String>,
    ) -> Result<Metadata> {
        let metadata = Self::open_only(config, parts, boot_id, false).await?;
        let recovery = Arc::new(metadata.inner.recover().await?);
        if metadata.boot().last == LastStop::Unclean {
            metadata.inner.check_in_background();
        }
        Ok(Metadata { recovery, ..metadata })
    }

    /// Opens the database of a root that no daemon uses as it is: nothing is made, brought up to date, compared or repaired, and
    /// how it was left stays known. Only [`Metadata::maintenance`] is to be used.
    ///
    /// # Errors
    /// `NotFound` if there is no database; `FailedPrecondition` if a process has it open (naming its pid) or its schema is older
    /// or newer than this program's; `DataLoss` if it is damaged.
    pub async fn open_as_is(config: MetadataConfig, parts: MetadataParts) -> Result<Metadata> {
        Self::open_only(config, parts, None, true).await
    }

    async fn open_only(
        config: MetadataConfig,
        parts: MetadataParts,
        boot_id: Option<String>,
        as_is: bool,
    ) -> Result<Metadata> {
        let MetadataParts { path, content, drivers, events } = parts;
        let mut by_name = BTreeMap::new();
        for driver in drivers {
            if by_name.insert(driver.name().to_owned(), Arc::clone(&driver)).is_some() {
                let text = format!("two snapshot drivers are named {:?}", driver.name());
                return Err(Error::failed_precondition(text));
            }
        }
        if !as_is && !path.exists() {
            refuse_foreign(&path, &content, &by_name).await?;
        }
        let recorder = Arc::new(Recorder::default());
        let told = Arc::clone(&recorder);
        let options = StoreOptions {
            no_sync: config.no_sync,
            boot_id,
            reads_on_the_spot: threads_but_one(),
            as_is,
            on_change: Some(Arc::new(move |table: &str, row| told.row_changed(table, row))),
            ..StoreOptions::new(path, MIGRATIONS)
        };
        let store = match tokio::task::spawn_blocking(|| Store::open(options)).await {
            Ok(store) => store?,
            Err(_) => return Err(Error::internal("opening the database panicked")),
        };
        let inner = Arc::new(Inner {
            store,
            config,
            content,
            drivers: by_name,
            events,
            digests: KeyLocks::default(),
            snapshot_locks: KeyLocks::default(),
            directory_locks: KeyLocks::default(),
            rebuilds: Rebuilds::default(),
            next_snapshot: AtomicI64::new(1),
            recorder,
            collector: Collector::default(),
            garbage: Garbage::default(),
            others: Mutex::default(),
            pending: Pending::default(),
            removals: tokio::sync::RwLock::default(),
            questions: tokio::sync::Mutex::default(),
            checks: Arc::default(),
            is_stopped_root: as_is,
            purges: Mutex::default(),
            purge_locks: KeyLocks::default(),
            jobs: TaskTracker::new(),
            driver_calls: Semaphore::new(DRIVER_CALLS),
        });
        Ok(Metadata { inner, recovery: Arc::default() })
    }

    /// The namespaces.
    pub fn namespaces(&self) -> MetadataNamespaces {
        MetadataNamespaces::new(Arc::clone(&self.inner))
    }

    /// The containers.
    pub fn containers(&self) -> MetadataContainers {
        MetadataContainers::new(Arc::clone(&self.inner))
    }

    /// The images.
    pub fn images(&self) -> MetadataImages {
        MetadataImages::new(Arc::clone(&self.inner))
    }

    /// The leases.
    pub fn leases(&self) -> MetadataLeases {
        MetadataLeases::new(Arc::clone(&self.inner))
    }

    /// The content, by namespace.
    pub fn content(&self) -> MetadataContent {
        MetadataContent::new(Arc::clone(&self.inner))
    }

    /// The sandboxes.
    pub fn sandboxes(&self) -> MetadataSandboxes {
        MetadataSandboxes::new(Arc::clone(&self.inner))
    }

    /// Who keeps what, what would go, and whether records and data agree.
    pub fn maintenance(&self) -> MetadataMaintenance {
        MetadataMaintenance::new(Arc::clone(&self.inner))
    }

    /// The records of activated mounts.
    pub fn mounts(&self) -> MetadataMounts {
        MetadataMounts::new(Arc::clone(&self.inner))
    }

    /// One snapshotter by its driver's name, if there is such a driver.
    pub fn snapshotter(&self, name: &str) -> Option<MetadataSnapshotter> {
        let driver = self.inner.drivers.get(name)?;
        Some(MetadataSnapshotter::new(Arc::clone(&self.inner), Arc::clone(driver)))
    }

    /// The names of all snapshotters.
    pub fn snapshotters(&self) -> Vec<String> {
        self.inner.drivers.keys().cloned().collect()
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        self.inner.store.path()
    }

    /// What the operator set.
    pub fn config(&self) -> &MetadataConfig {
        &self.inner.config
    }

    /// This boot, and how the database was left before.
    pub fn boot(&self) -> &Boot {
        self.inner.store.boot()
    }

    /// What was found amiss when the database was opened.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Gives it what applies layers, once: snapshots that were not durable when the machine stopped are rebuilt with it, in the
    /// background. Until that is done, whoever wants to use one of them waits.
    pub fn rebuild_with(&self, applier: Arc<dyn DiffApplier>) {
        self.inner.rebuild_with(applier);
    }

    /// Collects garbage and returns when that is done. Calls that wait at the same time share a collection.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn collect(&self) -> Result<CollectionStats> {
        self.inner.collect().await
    }

    /// Lets every collection to come take along what `others` keeps.
    pub fn collect_with(&self, others: Arc<dyn Collection>) {
        self.inner.add_collection(others);
    }

    /// Schedules collections, and makes committed snapshots durable in the background, until `shutdown`.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        let parts = async {
            tokio::join!(self.inner.schedule_collections(), self.inner.sync_snapshots());
        };
        tokio::select! {
            // Both only wait and start jobs, which go on.
            () = parts => {}
            () = shutdown => {}
        }
    }

    /// Waits for the jobs under way, makes committed snapshots durable as far as `grace` allows, and closes the database. The next
    /// start finds the mark of a clean stop if nothing was left.
    ///
    /// # Errors
    /// Those of the last write. It is closed all the same.
    pub async fn close(&self, grace: Duration) -> Result<()> {
        let end = Instant::now() + grace;
        self.inner.rebuilds.stop.cancel();
        self.inner.jobs.close();
        if tokio::time::timeout(grace, self.inner.jobs.wait()).await.is_err() {
            tracing::warn!("metadata jobs are still under way at the end of the grace period");
        }
        // A root that was only looked at stays as it was left.
        let clean = !self.inner.is_stopped_root && self.inner.sync_all_until(end).await;
        self.inner.store.close(clean).await
    }
}

/// How many threads drive asynchronous tasks, but for one that goes on when all others wait for the disk.
fn threads_but_one() -> u32 {
    let threads = tokio::runtime::Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers());
    u32::try_from(threads).unwrap_or(1).saturating_sub(1)
}

/// A new database would take everything that is there for garbage: whoever owns it is asked first.
async fn refuse_foreign(
    path: &Path,
    content: &Arc<dyn ContentStore>,
    drivers: &BTreeMap<String, Arc<dyn SnapshotDriver>>,
) -> Result<()> {
    let refused = |what: String| {
        let text = format!("there is no database {}, but {what}: move that away first", path.display());
        Err(Error::failed_precondition(text))
    };
    for (name, driver) in drivers {
        let (listed, root) = (Arc::clone(driver), driver.root().display().to_string());
        let ids = tokio::task::spawn_blocking(move || listed.ids()).await;
        let ids = ids.map_err(|_| Error::internal("a snapshot driver panicked"))??;
        if !ids.is_empty() {
            return refused(format!("{} snapshots of {name} in {root}", ids.len()));
        }
    }
    let mut blobs = content.list(&Context::background(), &[]).await?;
    match blobs.try_next().await? {
        Some(blob) => refused(format!("content, {} for one", blob.digest)),
        None => Ok(()),
    }
}

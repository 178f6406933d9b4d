//! Every sandbox of the daemon's `shim` controller, by namespace and id.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use gantry_core::events::EventPublisher;
use gantry_core::sandbox_controller::NewSandbox;
use gantry_core::{ContainerId, Context, Error, ErrorKind, Result, ResultExt};
use gantry_shim::sandbox_client::{self, SandboxClient};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bootstrap::Commands;
use crate::bundle::{Bundle, Bundles};
use crate::config::{ShimTasksConfig, Timeouts};
use crate::jobs::Jobs;
use crate::sandbox::{self, Sandbox};
use crate::{dead_shim, log, shim_binary};

/// How many bundles are looked at at once when the daemon starts.
const AT_ONCE: usize = 64;

/// Source: the names of CRI's `PodSandboxState`.
const READY: &str = "SANDBOX_READY";

/// Namespace and sandbox.
pub(crate) type Key = (String, String);

/// The shims of sandboxes. [`ShimSandboxes`] fills it; tasks of a sandbox find their shim in it.
#[derive(Debug, Default)]
pub struct SandboxShims {
    slots: Mutex<HashMap<Key, Slot>>,
}

#[derive(Debug)]
enum Slot {
    /// Being made; the id is taken, and there is nothing to see yet.
    Making,
    /// Found at start; the channel closes when it is known what became of it.
    Recovering(watch::Receiver<()>),
    Serving(Arc<Sandbox>),
}

impl SandboxShims {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        // Nothing panics while holding it; a poisoned table is still whole.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, bundle: &Bundle, slot: Slot) {
        self.lock().insert(key(bundle), slot);
    }

    pub(crate) fn remove(&self, bundle: &Bundle) {
        self.lock().remove(&key(bundle));
    }

    /// Whether there is such a sandbox, or will be one.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.lock().contains_key(key)
    }

    /// The sandbox, if somebody runs it; waits for its recovery if that goes on.
    ///
    /// # Errors
    /// `Unavailable` if the recovery does not end.
    pub(crate) async fn get(&self, key: &Key, timeouts: &Timeouts) -> Result<Option<Arc<Sandbox>>> {
        let mut recovering = match self.lock().get(key) {
            Some(Slot::Serving(sandbox)) => return Ok(Some(Arc::clone(sandbox))),
            Some(Slot::Recovering(done)) => done.clone(),
            Some(Slot::Making) | None => return Ok(None),
        };
        // A recovery has deadlines of its own: connecting, asking, cleaning up.
        let patience = timeouts.load * 2 + timeouts.cleanup;
        if tokio::time::timeout(patience, recovering.changed()).await.is_err() {
            return Err(Error::unavailable(format!("sandbox {:?} is being recovered", key.1)));
        }
        match self.lock().get(key) {
            Some(Slot::Serving(sandbox)) => Ok(Some(Arc::clone(sandbox))),
            _ => Ok(None),
        }
    }
}

/// The controller of sandboxes that are run by shims. Call [`ShimSandboxes::recover`] once, early; until then calls for
/// sandboxes found at start wait.
#[derive(Clone)]
pub struct ShimSandboxes {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for ShimSandboxes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShimSandboxes").field("shims", &self.inner.shims).finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) config: ShimTasksConfig,
    pub(crate) shims: Arc<SandboxShims>,
    pub(crate) events: Arc<dyn EventPublisher>,
    pub(crate) jobs: Jobs,
    bundles: Bundles,
    commands: Commands,
    found: Mutex<Vec<(Bundle, watch::Sender<()>)>>,
}

/// Takes an id until the sandbox is made; dropping it gives the id back.
struct Place<'a> {
    shims: &'a SandboxShims,
    bundle: &'a Bundle,
    kept: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.shims.remove(self.bundle);
        }
    }
}

impl ShimSandboxes {
    /// Makes the directories `state` and `root`, which are the controller's own, and finds the bundles of an earlier daemon.
    /// Contacts no shim.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open(
        config: ShimTasksConfig,
        (state, root): (&Path, &Path),
        shims: Arc<SandboxShims>,
        events: Arc<dyn EventPublisher>,
    ) -> Result<ShimSandboxes> {
        let bundles = Bundles::of_sandboxes(state, root)?;
        let mut found = Vec::new();
        for bundle in bundles.list()? {
            let (done, waiting) = watch::channel(());
            shims.put(&bundle, Slot::Recovering(waiting));
            found.push((bundle, done));
        }
        let inner = Inner {
            config,
            shims,
            events,
            jobs: Jobs::default(),
            bundles,
            commands: Commands::default(),
            found: Mutex::new(found),
        };
        Ok(ShimSandboxes { inner: Arc::new(inner) })
    }

    /// Takes up every sandbox that [`ShimSandboxes::open`] found, side by side. The end of one that ended meanwhile is told if it
    /// was not; one whose shim died is cleaned up after. Returns when all is known.
    pub async fn recover(&self) {
        let found = std::mem::take(&mut *self.inner.found.lock().unwrap_or_else(PoisonError::into_inner));
        futures_util::stream::iter(found)
            .for_each_concurrent(AT_ONCE, |(bundle, done)| async move {
                if !self.inner.recover(&bundle).await {
                    self.inner.shims.remove(&bundle);
                }
                // Those who wait look again.
                drop(done);
            })
            .await;
    }

    /// Lets go of every shim; they go on without us.
    pub async fn close(&self) {
        self.inner.jobs.close(self.inner.config.timeouts.start).await;
        self.inner.shims.lock().clear();
    }
}

impl Inner {
    /// The sandbox `id`, if somebody runs it.
    ///
    /// # Errors
    /// As [`SandboxShims::get`].
    pub(crate) async fn find(&self, cx: &Context, id: &str) -> Result<Option<Arc<Sandbox>>> {
        let key = (cx.namespace()?.to_string(), id.to_owned());
        self.shims.get(&key, &self.config.timeouts).await
    }

    fn serve(self: &Arc<Self>, sandbox: Sandbox) {
        let sandbox = Arc::new(sandbox);
        self.shims.put(&sandbox.bundle, Slot::Serving(Arc::clone(&sandbox)));
        self.jobs.job(sandbox::watch(Arc::clone(self), sandbox));
    }

    /// Makes a sandbox.
    ///
    /// # Errors
    /// As [`gantry_core::sandbox_controller::SandboxController::create`].
    pub(crate) async fn create(self: &Arc<Self>, cx: &Context, new: NewSandbox) -> Result<()> {
        // The two kinds of ids follow the same rules.
        let id = ContainerId::parse(new.sandbox.id.as_str())?;
        let bundle = self.bundles.bundle(cx.namespace()?, &id);
        {
            let mut slots = self.shims.lock();
            if slots.contains_key(&key(&bundle)) {
                return Err(Error::already_exists(format!("sandbox {id} already running")));
            }
            slots.insert(key(&bundle), Slot::Making);
        }
        let mut place = Place { shims: &self.shims, bundle: &bundle, kept: false };
        let sandbox = self.make(&bundle, new).await?;
        place.kept = true;
        self.serve(sandbox);
        Ok(())
    }

    async fn make(&self, bundle: &Bundle, new: NewSandbox) -> Result<Sandbox> {
        let step = || format!("start the shim of sandbox {:?}", bundle.id.as_str());
        let runtime = &new.sandbox.runtime;
        let binary = shim_binary::find_or_unknown(&runtime.name, "").with_context(step)?;
        let (made, spec) = (bundle.clone(), new.sandbox.spec.clone());
        tokio::task::spawn_blocking(move || made.create(spec.as_ref().map(|spec| &*spec.value), ""))
            .await
            .map_err(|error| Error::with_source(ErrorKind::Internal, error))?
            .context("make bundle")?;
        let over = CancellationToken::new();
        log::follow_in(&self.jobs, bundle, &over);
        let started = self.commands.start(&self.config, &binary, bundle, runtime.options.as_ref()).await;
        let answer = match started.with_context(step) {
            Ok(answer) => answer,
            Err(error) => {
                over.cancel();
                bundle.delete_or_log().await;
                return Err(error);
            }
        };
        let noted = (bundle.clone(), binary.clone(), answer.clone());
        let noted = tokio::task::spawn_blocking(move || noted.0.write_shim(&noted.1, &noted.2)).await;
        let noted = noted.unwrap_or_else(|error| Err(Error::with_source(ErrorKind::Internal, error)));
        let connected = match noted {
            Ok(()) => sandbox::connect(&answer, bundle, &self.config.timeouts).await.context("connect shim"),
            Err(error) => Err(error),
        };
        let client = match connected {
            Ok(client) => client,
            Err(error) => {
                over.cancel();
                dead_shim::clean_up(&self.config, bundle, Some(&binary)).await;
                return Err(error);
            }
        };
        let made = client.create(shim_sandbox(bundle, new)).await;
        let sandbox = Sandbox::new(bundle.clone(), binary, answer, client, over);
        match made {
            Ok(()) => Ok(sandbox),
            Err(error) => {
                sandbox.take_down(self).await;
                Err(error.context(format!("create sandbox {:?}", sandbox.id())))
            }
        }
    }

    /// Takes up one sandbox; `false` if there is none.
    async fn recover(self: &Arc<Self>, bundle: &Bundle) -> bool {
        let (namespace, sandbox_id) = (&bundle.namespace, &bundle.id);
        let timeouts = &self.config.timeouts;
        let (Ok(binary), Ok(answer)) = (bundle.shim_binary(), bundle.shim()) else {
            tracing::warn!(%namespace, %sandbox_id, "a sandbox without shim is cleaned up");
            let binary = bundle.shim_binary().ok();
            dead_shim::clean_up(&self.config, bundle, binary.as_deref()).await;
            return false;
        };
        let over = CancellationToken::new();
        let client = match sandbox::connect(&answer, bundle, timeouts).await {
            Ok(client) => client,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) => {
                tracing::info!(%namespace, %sandbox_id, "the shim of a sandbox died meanwhile");
                sandbox::bury(self, bundle, &binary).await;
                return false;
            }
            Err(error) => {
                // Whatever it is, it may be alive: nothing of it is touched.
                tracing::error!(%error, %namespace, %sandbox_id, "a sandbox cannot be recovered");
                return false;
            }
        };
        log::follow_in(&self.jobs, bundle, &over);
        let state = client.with_timeout(Some(timeouts.load)).status(sandbox_id.as_str(), false).await;
        let sandbox = Sandbox::new(bundle.clone(), binary, answer, client, over);
        match state {
            Ok(state) => {
                if bundle.is_started() || state.state == READY {
                    sandbox.started(state.pid);
                }
            }
            // The daemon before ended between the shim's start and the sandbox's.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unimplemented) => {
                tracing::info!(%error, %namespace, %sandbox_id, "a shim without its sandbox is ended");
                sandbox.take_down(self).await;
                return false;
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                sandbox.over.cancel();
                sandbox::bury(self, bundle, &sandbox.binary).await;
                return false;
            }
            // Slow is not dead.
            Err(error) => {
                tracing::warn!(%error, %namespace, %sandbox_id, "a shim does not say how its sandbox is");
                if bundle.is_started() {
                    sandbox.started(0);
                }
            }
        }
        self.serve(sandbox);
        true
    }
}

pub(crate) fn key(bundle: &Bundle) -> Key {
    (bundle.namespace.to_string(), bundle.id.to_string())
}

fn shim_sandbox(bundle: &Bundle, new: NewSandbox) -> sandbox_client::NewSandbox {
    sandbox_client::NewSandbox {
        id: bundle.id.to_string(),
        bundle: bundle.path.display().to_string(),
        rootfs: new.rootfs,
        options: new.options,
        netns: new.netns,
        annotations: new.annotations,
    }
}

/// Asks the shim of a sandbox, once more if it shim was lost and found again meanwhile.
///
/// # Errors
/// `NotFound` if the sandbox is gone; `Unavailable` if that stays unknown.
pub(crate) async fn ask<T, F: Future<Output = Result<T>>>(
    inner: &Inner,
    sandbox: &Sandbox,
    ask: impl Fn(SandboxClient) -> F,
) -> Result<T> {
    let mut phase = sandbox.phase();
    let before = phase.borrow_and_update().connections;
    match ask(sandbox.client()).await {
        Err(error) if error.kind() == ErrorKind::Unavailable => {}
        answered => return answered,
    }
    let timeouts = &inner.config.timeouts;
    let patience = timeouts.load * 2 + timeouts.cleanup;
    let known = phase.wait_for(|phase| phase.gone || phase.connections > before);
    match tokio::time::timeout(patience, known).await {
        Ok(Ok(phase)) if !phase.gone => {}
        Ok(_) => return Err(Error::not_found(format!("sandbox {:?}", sandbox.id()))),
        Err(_) => return Err(Error::unavailable(format!("the shim of sandbox {:?} is lost", sandbox.id()))),
    }
    ask(sandbox.client()).await
}

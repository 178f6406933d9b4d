//! Looking at all containers with a restart label.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use gantry_core::containers::{Container, ContainerStore};
use gantry_core::namespaces::NamespaceStore;
use gantry_core::snapshots::Snapshotter;
use gantry_core::tasks::{TaskManager, TaskStatus};
use gantry_core::wire_names::LABEL_RESTART_STATUS;
use gantry_core::{Context, ErrorKind, Namespace, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::backoff::Backoff;
use crate::change;
use crate::policy::{self, Desired};

/// How many tasks are started or stopped at once.
const AT_ONCE: usize = 16;

/// How long a look waits for one container's state.
const STATE_TIMEOUT: Duration = Duration::from_secs(5);

/// The services that the monitor works with.
#[derive(Clone)]
pub struct Watched {
    /// Namespaces.
    pub namespaces: Arc<dyn NamespaceStore>,
    /// Containers.
    pub containers: Arc<dyn ContainerStore>,
    /// Their tasks.
    pub tasks: Arc<dyn TaskManager>,
    /// Snapshotters by name, for root file systems.
    pub snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
}

/// Starts and stops tasks as their containers' labels ask for. Source: features H24.
pub struct RestartMonitor {
    watched: Watched,
    interval: Duration,
}

/// Namespace and container.
type Key = (String, String);

/// What is remembered of a container from one look to the next.
#[derive(Debug, Default)]
struct Known {
    backoff: Backoff,
    /// A change is under way.
    busy: bool,
    /// What the look before saw.
    seen: Option<Seen>,
    /// The look that saw it last.
    look: u64,
}

/// A task's state as a look sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// There is no task.
    None,
    Status(TaskStatus),
}

/// A change that has ended.
struct Done {
    key: Key,
    /// When the task was started; nothing for a stop.
    started: Option<Instant>,
    failed: bool,
}

/// What is to be done about a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Nothing,
    /// With a task that was `created` and not started, in place of that one.
    Start {
        created: bool,
    },
    Stop,
}

impl RestartMonitor {
    /// A monitor that looks every `interval`.
    pub fn new(watched: Watched, interval: Duration) -> Self {
        RestartMonitor { watched, interval }
    }

    /// Looks at once, and then every interval until `shutdown`; then lets the changes under way finish.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut known: HashMap<Key, Known> = HashMap::new();
        let mut changes: JoinSet<Done> = JoinSet::new();
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut look = 0;
        loop {
            // A tick, a shutdown and a join that are dropped are there again the next time.
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(done) = changes.join_next(), if !changes.is_empty() => self.note(&mut known, done),
                _ = ticks.tick() => {
                    look += 1;
                    // A look only reads, so it may be dropped.
                    let looked = tokio::select! {
                        () = &mut shutdown => break,
                        looked = self.look(&mut known, look) => looked,
                    };
                    match looked {
                        Ok(wanted) => for (cx, container, wanted) in wanted {
                            self.change(&mut changes, &places, (cx, container, wanted));
                        },
                        Err(error) => tracing::error!(%error, "look at the containers that are to be restarted"),
                    }
                }
            }
        }
        while changes.join_next().await.is_some() {}
    }

    fn note(&self, known: &mut HashMap<Key, Known>, done: std::result::Result<Done, tokio::task::JoinError>) {
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "a restart panicked");
                // Whichever it was: the next look decides anew.
                known.values_mut().for_each(|known| known.busy = false);
                return;
            }
        };
        let Some(known) = known.get_mut(&done.key) else { return };
        known.busy = false;
        match done.started {
            Some(_) if done.failed => known.backoff.failed(Instant::now(), self.interval),
            Some(at) => known.backoff.started(at),
            None => {}
        }
    }

    /// What is to be done now.
    async fn look(
        &self,
        known: &mut HashMap<Key, Known>,
        look: u64,
    ) -> Result<Vec<(Context, Container, Wanted)>> {
        let mut all = Vec::new();
        for namespace in self.watched.namespaces.list(&Context::background()).await? {
            let cx = Context::new(namespace.name);
            // Source: the original's filter: whoever has the label.
            let filter = format!("labels.{LABEL_RESTART_STATUS:?}");
            let mut containers = self.watched.containers.list(&cx, &[filter]).await?;
            while let Some(container) = containers.next().await {
                all.push((cx.clone(), container?));
            }
        }
        let states = futures_util::stream::iter(all)
            .map(|(cx, container)| async move {
                let state = self.state(&cx, &container).await;
                (cx, container, state)
            })
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        let mut wanted = Vec::new();
        for (cx, container, state) in states {
            let Ok(namespace) = cx.namespace() else { continue };
            let entry = known.entry(key(namespace, &container)).or_default();
            entry.look = look;
            if entry.busy {
                continue;
            }
            let what = self.wanted(entry, &container, state, look);
            if what != Wanted::Nothing {
                entry.busy = true;
                wanted.push((cx, container, what));
            }
        }
        // Those without label, and those that are no more.
        known.retain(|_, known| known.busy || known.look == look);
        Ok(wanted)
    }

    /// The state of a container's task and its exit status; `None` if nobody knows for now.
    async fn state(&self, cx: &Context, container: &Container) -> Option<(Seen, u32)> {
        let id = container.id.as_str();
        match tokio::time::timeout(STATE_TIMEOUT, self.watched.tasks.get(cx, id, "")).await {
            Ok(Ok(record)) => Some((Seen::Status(record.status), record.exit_status)),
            // Source: the original knows no status of a task that is gone, and so no failure.
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => Some((Seen::None, 0)),
            // A slow shim may serve a task that runs well.
            Ok(Err(error)) => {
                tracing::warn!(%error, container_id = id, "the task of a container to be restarted is not known");
                None
            }
            Err(_) => None,
        }
    }

    fn wanted(
        &self,
        known: &mut Known,
        container: &Container,
        state: Option<(Seen, u32)>,
        look: u64,
    ) -> Wanted {
        let before = std::mem::replace(&mut known.seen, state.map(|(seen, _)| seen));
        let (Some((seen, exit_status)), Some(desired)) = (state, Desired::of(&container.labels)) else {
            return Wanted::Nothing;
        };
        match (desired, seen) {
            (_, Seen::Status(TaskStatus::Unknown))
            | (Desired::Stopped, Seen::None | Seen::Status(TaskStatus::Stopped))
            | (Desired::Running, Seen::Status(TaskStatus::Paused | TaskStatus::Pausing)) => Wanted::Nothing,
            (Desired::Stopped, _) => Wanted::Stop,
            (Desired::Running, Seen::Status(TaskStatus::Running)) => {
                known.backoff.runs(Instant::now());
                Wanted::Nothing
            }
            // Whoever made the container, or its task, is about to start it; only what stays so is for us. Nobody was there before
            // the first look.
            (Desired::Running, Seen::None | Seen::Status(TaskStatus::Created))
                if look > 1 && before != Some(seen) =>
            {
                Wanted::Nothing
            }
            (Desired::Running, Seen::None | Seen::Status(TaskStatus::Created | TaskStatus::Stopped)) => {
                match policy::is_due(&container.labels, exit_status) {
                    Ok(true) if known.backoff.may_start(Instant::now(), self.interval) => {
                        Wanted::Start { created: seen == Seen::Status(TaskStatus::Created) }
                    }
                    Ok(_) => Wanted::Nothing,
                    Err(error) => {
                        tracing::warn!(error, container_id = %container.id, "a restart label is not understood");
                        Wanted::Nothing
                    }
                }
            }
        }
    }

    fn change(
        &self,
        changes: &mut JoinSet<Done>,
        places: &Arc<Semaphore>,
        (cx, container, wanted): (Context, Container, Wanted),
    ) {
        let Ok(namespace) = cx.namespace().cloned() else { return };
        let key = key(&namespace, &container);
        let (watched, places) = (self.watched.clone(), Arc::clone(places));
        changes.spawn(async move {
            // It is never closed.
            let _place = places.acquire_owned().await;
            let id = container.id.clone();
            let began = Instant::now();
            let (starts, done) = match wanted {
                Wanted::Start { created } => (true, change::start(&watched, &cx, container, created).await),
                _ => (false, change::stop(&watched, &cx, id.as_str()).await),
            };
            match &done {
                Ok(()) => tracing::info!(%namespace, container_id = %id, starts, "a container is as its labels ask"),
                Err(error) => {
                    tracing::warn!(%error, %namespace, container_id = %id, starts, "a container is not as its labels ask");
                }
            }
            Done { key, started: starts.then_some(began), failed: done.is_err() }
        });
    }
}

fn key(namespace: &Namespace, container: &Container) -> Key {
    (namespace.to_string(), container.id.to_string())
}

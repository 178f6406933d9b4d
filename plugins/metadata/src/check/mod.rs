//! The check of a store: whether every record has its data, all data has a record, and digests match.
//!
//! ```text
//! database ── rows ── blobs ── (hashes) ── files without record ── writes in progress ── snapshots ── links
//!                each: look ── look again, under the locks of those who change it ── tell, or repair and tell
//! ```
//!
//! It runs beside everything else. What looks wrong is looked at again under the lock that a commit or removal of that object
//! holds between its file and its record, or while no collection is under way; only what is wrong then is told. A repair removes
//! records without data and data without record, never what a record and its data agree on.

mod blobs;
mod database;
mod files;
mod hash;
mod ingests;
mod links;
mod snapshots;

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, stream};
use gantry_core::maintenance::ObjectName;
use gantry_core::maintenance::check::{CheckEvent, CheckOptions, CheckSummary, Finding, Outcome, Problem};
use gantry_core::{Error, ErrorKind, ItemStream, Result};
use gantry_store::Reading;
use tokio::sync::{OwnedMutexGuard, mpsc};

use crate::collection::{Marker, Node, images_that_need};
use crate::database::Inner;

/// So many events wait for who asked; the check waits then.
const EVENTS: usize = 64;

/// So many rows are looked at in one read.
const PAGE: usize = 256;

/// How long to wait before a second look at what no lock guards, while others use the store.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// So many images that need a blob are named.
const MAX_IMAGES: usize = 8;

/// What is wrong, before it is known what becomes of it.
struct Draft {
    problem: Problem,
    object: Option<ObjectName>,
    path: String,
    detail: String,
}

impl Draft {
    fn new(problem: Problem) -> Self {
        Draft { problem, object: None, path: String::new(), detail: String::new() }
    }

    fn object(self, object: ObjectName) -> Self {
        Draft { object: Some(object), ..self }
    }

    fn path(self, path: impl ToString) -> Self {
        Draft { path: path.to_string(), ..self }
    }

    fn detail(self, detail: impl Into<String>) -> Self {
        Draft { detail: detail.into(), ..self }
    }
}

/// What came of a repair.
enum Mended {
    /// This was done.
    Done(String),
    /// There is nothing to repair any more.
    Unneeded,
    /// This stands against it.
    Refused(String),
}

/// One check under way.
struct Checker {
    /// Let go of before the stream ends: fields drop in the order they are declared.
    _alone: OwnedMutexGuard<()>,
    inner: Arc<Inner>,
    options: CheckOptions,
    events: mpsc::Sender<Result<CheckEvent>>,
    summary: CheckSummary,
    /// Blobs that were told of.
    told: HashSet<String>,
    /// Who keeps what, once that was asked for.
    marker: Option<Arc<Marker>>,
}

impl Inner {
    /// Begins a check.
    ///
    /// # Errors
    /// `Unavailable` while another one is under way.
    pub(crate) fn check(self: &Arc<Self>, options: CheckOptions) -> Result<ItemStream<CheckEvent>> {
        let alone = Arc::clone(&self.checks).try_lock_owned();
        let alone = alone.map_err(|_| Error::unavailable("another check of this store is under way"))?;
        let (events, told) = mpsc::channel(EVENTS);
        let checker = Checker {
            _alone: alone,
            inner: Arc::clone(self),
            options,
            events,
            summary: CheckSummary::default(),
            told: HashSet::new(),
            marker: None,
        };
        self.jobs.spawn(checker.run());
        let items = stream::unfold(told, |mut told| async move { Some((told.recv().await?, told)) });
        Ok(items.boxed())
    }
}

impl Checker {
    async fn run(mut self) {
        match self.every_step().await {
            Ok(()) => drop(self.tell(CheckEvent::Summary(self.summary)).await),
            Err(error) if error.kind() == ErrorKind::Canceled => {}
            // Who asked may have gone meanwhile.
            Err(error) => drop(self.events.send(Err(error)).await),
        }
    }

    async fn every_step(&mut self) -> Result<()> {
        let outcome = self.database().await;
        self.ended("the database", outcome).await?;
        let outcome = self.rows().await;
        self.ended("records", outcome).await?;
        let outcome = self.blobs().await;
        self.ended("blobs", outcome).await?;
        if self.options.deep {
            let outcome = self.hashes().await;
            self.ended("digests", outcome).await?;
        }
        let outcome = self.files().await;
        self.ended("files of content", outcome).await?;
        let outcome = self.ingests().await;
        self.ended("writes in progress", outcome).await?;
        let outcome = self.snapshots().await;
        self.ended("snapshots", outcome).await?;
        let outcome = self.links().await;
        self.ended("containers and images", outcome).await
    }

    /// A step that fails is told, and does not stop the others.
    async fn ended(&mut self, step: &str, outcome: Result<()>) -> Result<()> {
        match outcome {
            Err(error) if error.kind() == ErrorKind::Canceled => Err(error),
            Err(error) => self.unchecked(step, &error).await,
            Ok(()) => Ok(()),
        }
    }

    /// Tells that something could not be looked at.
    async fn unchecked(&mut self, what: &str, error: &Error) -> Result<()> {
        let draft = Draft::new(Problem::NotChecked).detail(format!("{what}: {error}"));
        self.found(draft, Outcome::Left, "").await
    }

    /// # Errors
    /// `Canceled` if nobody listens any more.
    async fn tell(&self, event: CheckEvent) -> Result<()> {
        self.events.send(Ok(event)).await.map_err(|_| Error::bare(ErrorKind::Canceled))
    }

    async fn progress(&self, step: &str, done: u64, total: u64) -> Result<()> {
        self.tell(CheckEvent::Progress { step: step.to_owned(), done, total }).await
    }

    async fn found(&mut self, draft: Draft, outcome: Outcome, action: impl Into<String>) -> Result<()> {
        self.summary.count(outcome);
        let Draft { problem, object, path, detail } = draft;
        let finding = Finding { problem, object, path, detail, outcome, action: action.into() };
        tracing::info!(%finding, "a check of the store");
        self.tell(CheckEvent::Finding(finding)).await
    }

    /// Repairs what is wrong if that was asked for, and tells of it. `would` says what the repair does: "removes its record".
    async fn settle(
        &mut self,
        draft: Draft,
        would: impl Into<String>,
        repair: impl Future<Output = Result<Mended>>,
    ) -> Result<()> {
        if !self.options.repair {
            return self.found(draft, Outcome::Repairable, would).await;
        }
        match repair.await {
            Ok(Mended::Done(what)) => self.found(draft, Outcome::Repaired, what).await,
            Ok(Mended::Unneeded) => Ok(()),
            Ok(Mended::Refused(why)) => self.found(draft, Outcome::Left, why).await,
            Err(error) => self.found(draft, Outcome::Left, error.to_string()).await,
        }
    }

    /// Waits until what was under way at the first look is over, as far as can be told.
    async fn before_second_look(&self) {
        if !self.inner.is_stopped_root {
            tokio::time::sleep(SECOND_LOOK).await;
        }
    }

    /// Says which images need any of these objects, for people.
    async fn needed_by(&mut self, objects: Vec<Node>) -> Result<String> {
        if self.marker.is_none() {
            let inner = Arc::clone(&self.inner);
            let _alone = inner.questions.lock().await;
            let read = |db: &Reading<'_>| {
                let mut marker = Marker::tracing(SystemTime::now());
                marker.mark_roots(db)?;
                Ok(marker)
            };
            match self.inner.store.read(read).await {
                Ok(marker) => self.marker = Some(Arc::new(marker)),
                // Only the names are missing then.
                Err(error) => return Ok(format!("the images that need it are not known: {error}")),
            }
        }
        let Some(marker) = self.marker.clone() else { return Ok(String::new()) };
        let read = move |db: &Reading<'_>| images_that_need(db, &marker, &objects, MAX_IMAGES + 1);
        let images = self.inner.store.read(read).await?;
        if images.is_empty() {
            return Ok("no image needs it".to_owned());
        }
        let more = if images.len() > MAX_IMAGES { " and others" } else { "" };
        let names: Vec<String> = images.iter().take(MAX_IMAGES).map(|image| image.name.clone()).collect();
        Ok(format!("needed by {}{more}", names.join(", ")))
    }
}

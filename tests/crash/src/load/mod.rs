//! Eight clients that do random work over the daemon's socket, each on objects of its own, and note what they were answered.

mod content;
mod images;
mod records;
mod snapshots;
mod tasks;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gantry_client::Client;
use gantry_core::{Context, Error, ErrorKind, LeaseId, Namespace, Result};
use gantry_rpc::sandboxes::RemoteSandboxes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::notes::{Kind, Note, Notes, Subject, There};

pub(crate) use images::{IMAGE_SNAPSHOTTERS, tree};
pub(crate) use records::VERSION;
pub(crate) use tasks::{RUN_NAMESPACE, prepare_image, remove as remove_container};

/// How many clients there are.
pub(crate) const CLIENTS: usize = 8;
/// How many namespaces most of them share.
const NAMESPACES: usize = 3;
/// How long a client whose call failed waits to hear that the daemon has ended, before it calls that a violation.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which failures are no violations while the daemon lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tolerance {
    Nothing,
    /// A failpoint makes one step fail.
    Injected,
    /// The disk fills up.
    FullDisk,
}

/// What a load is to do.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) address: PathBuf,
    pub(crate) seed: u64,
    /// Part of the names, so that no two loads use the same.
    pub(crate) life: u64,
    pub(crate) tolerance: Tolerance,
    /// Whether containers are run.
    pub(crate) tasks: bool,
    /// Blobs are up to this long.
    pub(crate) blob_bytes: usize,
}

/// What all clients share while they work.
#[derive(Default)]
pub(crate) struct Course {
    /// The daemon has ended, or is about to.
    pub(crate) over: AtomicBool,
    /// Enough: the daemon lives on.
    pub(crate) enough: AtomicBool,
    pub(crate) operations: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) violations: std::sync::Mutex<Vec<String>>,
}

impl Course {
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn is_enough(&self) -> bool {
        self.is_over() || self.enough.load(Ordering::SeqCst)
    }

    pub(crate) fn violation(&self, text: String) {
        self.violations.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(text);
    }

    /// Waits until the daemon has ended; false if it did not.
    async fn ended(&self) -> bool {
        let end = tokio::time::Instant::now() + gantry_testkit::scaled(PATIENCE);
        while !self.is_over() && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.is_over()
    }
}

/// One client.
pub(crate) struct Worker {
    number: usize,
    load: Load,
    client: Client,
    sandboxes: RemoteSandboxes,
    notes: Arc<Notes>,
    course: Arc<Course>,
    rng: StdRng,
    made: u64,
}

impl Worker {
    pub(crate) fn new(
        number: usize,
        load: &Load,
        notes: &Arc<Notes>,
        course: &Arc<Course>,
    ) -> Result<Worker> {
        let namespace = match load.tasks && number == CLIENTS - 1 {
            true => RUN_NAMESPACE.to_owned(),
            false => format!("n{}", number % NAMESPACES),
        };
        Ok(Worker {
            number,
            load: load.clone(),
            client: connect(&load.address, &namespace)?,
            sandboxes: RemoteSandboxes::new(gantry_rpc::connect(&load.address)?),
            notes: Arc::clone(notes),
            course: Arc::clone(course),
            rng: StdRng::seed_from_u64(load.seed.wrapping_mul(31).wrapping_add(number as u64)),
            made: 0,
        })
    }

    /// Works until the daemon has ended or it is enough.
    pub(crate) async fn run(mut self) {
        while !self.course.is_enough() {
            let what = self.rng.random_range(0..100);
            let (name, done) = match what {
                _ if self.client.namespace().as_str() == RUN_NAMESPACE => ("task", self.task().await),
                0..20 => ("container", self.container().await),
                20..28 => ("sandbox", self.sandbox().await),
                28..34 => ("namespace", self.namespace().await),
                34..54 => ("lease", self.lease().await),
                54..70 => ("ingest", self.ingest().await),
                70..90 => ("snapshot", self.snapshot().await),
                _ => ("image", self.image().await),
            };
            match done {
                Ok(()) => drop(self.course.operations.fetch_add(1, Ordering::Relaxed)),
                Err(error) => {
                    self.course.refused.fetch_add(1, Ordering::Relaxed);
                    if !self.goes_on(name, &error).await {
                        return;
                    }
                }
            }
        }
    }

    /// Whether work goes on after `error`.
    async fn goes_on(&self, name: &str, error: &Error) -> bool {
        match self.load.tolerance {
            _ if self.course.is_over() => return false,
            Tolerance::FullDisk if error.kind() == ErrorKind::ResourceExhausted => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                return true;
            }
            Tolerance::Injected if error.to_string().contains("failpoint") => return true,
            _ if is_refused_rebuild(error) => return true,
            _ => {}
        }
        if self.course.ended().await {
            return false;
        }
        self.course.violation(format!("client {}, {name}: {error}", self.number));
        true
    }

    /// Deletes one of each kind of thing it has: what must work when the disk is full.
    ///
    /// # Errors
    /// The first deletion's that failed.
    pub(crate) async fn delete_each(&mut self) -> Result<()> {
        let services = self.client.services().clone();
        if let Some((subject, _)) = self.pick(Kind::Container) {
            let id = subject.name.clone();
            self.change(vec![(subject, self.no())], services.containers.delete(&self.cx(), &id)).await?;
        }
        if let Some((subject, _)) = self.pick(Kind::Image) {
            self.delete_image(subject).await?;
        }
        if let Some((subject, _)) = self.pick(Kind::Lease) {
            self.delete_lease(subject).await?;
        }
        Ok(())
    }

    fn name(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}{}-{}-{}", self.number, self.load.life, self.made)
    }

    fn subject(&self, kind: Kind, name: impl Into<String>) -> Subject {
        Subject::new(kind, self.client.namespace().as_str(), name)
    }

    fn cx(&self) -> Context {
        self.client.context()
    }

    fn leased(&self, lease: &str) -> Result<Context> {
        Ok(self.cx().with_lease(LeaseId::parse(lease)?))
    }

    fn yes(&self, fact: impl Into<String>) -> Note {
        Note::yes(self.number, fact)
    }

    fn no(&self) -> Note {
        Note::no(self.number)
    }

    /// One of this client's own objects.
    fn pick(&mut self, kind: Kind) -> Option<(Subject, Note)> {
        let mut own = self.notes.of(self.number, kind);
        (!own.is_empty()).then(|| own.swap_remove(self.rng.random_range(0..own.len())))
    }

    /// Makes a change, and notes what is certain before, during and after it.
    async fn change<T>(
        &self,
        changes: Vec<(Subject, Note)>,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let before = self.notes.begin(&changes);
        let done = call.await;
        match &done {
            Ok(_) => self.notes.set(changes),
            // What makes something has not made it; what removes something may have got half-way.
            Err(error) if says_no(error) && before.iter().all(|(_, note)| note.there == There::No) => {
                self.notes.set(before);
            }
            Err(_) => {}
        }
        done
    }
}

/// Whether the daemon answered that it has not done what it was asked for: a lost connection says nothing.
fn says_no(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::InvalidArgument
            | ErrorKind::FailedPrecondition
            | ErrorKind::Aborted
            | ErrorKind::OutOfRange
            | ErrorKind::ResourceExhausted
            | ErrorKind::DataLoss
    )
}

/// Whether a snapshot is not given out because it could not be rebuilt.
pub(crate) fn is_refused_rebuild(error: &Error) -> bool {
    error.kind() == ErrorKind::DataLoss && error.to_string().contains("rebuil")
}

/// A client with a connection of its own.
///
/// # Errors
/// `InvalidArgument` for what can be no socket's path.
pub(crate) fn connect(address: &Path, namespace: &str) -> Result<Client> {
    Client::connect_lazy(address, Namespace::parse(namespace)?)
}

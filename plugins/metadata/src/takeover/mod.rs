//! Takeover: the records that containerd left in its databases become ours, in place.
//!
//! ```text
//! meta.db ─┐
//!          ├─ read ── compare with each other and with the disk ── report ── a database of ours, whole or not at all
//! metadata.db of each snapshotter ─┘
//! ```
//!
//! containerd's files are read and never written; while gantryd runs they stay locked, so that a containerd which is started by
//! mistake waits instead of writing to the same root. The new database is filled under a name of its own, noted, and renamed: a
//! crash leaves either no database of ours, or all of it. [`take_over`] is what a daemon calls at its start.

mod backend;
mod fields;
mod insert;
mod marker;
mod mounts;
mod plan;
mod read;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use gantry_bolt::Database;
use gantry_core::{Error, ErrorKind, Result, ResultExt as _};
use gantry_store::{Store, StoreLock, StoreOptions};

use self::marker::Marker;
use self::plan::{Opened, Plan};
pub use self::report::{Consequence, Counts, Problem, Report};
use crate::schema::MIGRATIONS;

/// What the operator allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takeover {
    /// Say what would be taken over, and refuse.
    #[default]
    Check,
    /// Take over what was not taken over yet.
    On,
    /// The same, and also what containerd changed after a takeover: our records are replaced by its.
    Again,
}

impl FromStr for Takeover {
    type Err = Error;

    /// Reads the word of the command line.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "check" => Ok(Takeover::Check),
            "on" => Ok(Takeover::On),
            "again" => Ok(Takeover::Again),
            _ => Err(Error::invalid_argument(format!("takeover {text:?}: check, on or again"))),
        }
    }
}

/// A snapshotter that the daemon has.
#[derive(Clone, Debug)]
pub struct Snapshotter {
    /// Its name, for example `overlayfs`.
    pub name: String,
    /// Its directory, with `metadata.db` and `snapshots` in it.
    pub root: PathBuf,
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Root {
    /// containerd's `meta.db`.
    pub meta: PathBuf,
    /// The content store's directory.
    pub content: PathBuf,
    /// The state directory.
    pub state: PathBuf,
    /// The snapshotters that the daemon has.
    pub snapshotters: Vec<Snapshotter>,
    /// Our database, `<root>/gantry/store.db`.
    pub store: PathBuf,
}

/// How the daemon may start.
#[derive(Debug)]
pub enum Outcome {
    /// There is nothing to take over: containerd was never here.
    Nothing,
    /// It was taken over, by an earlier start or (with the report) by this one.
    Taken(Taken, Option<Report>),
    /// It must not start.
    Refused(Refusal),
}

/// Why the daemon must not start.
#[derive(Debug)]
pub struct Refusal {
    /// What would be taken over, where that was looked at.
    pub report: Option<Report>,
    /// Why, and what to do.
    pub reason: String,
    /// The arguments that would let it start, beside those that it was started with.
    pub arguments: Vec<String>,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::failed_precondition(refusal.reason)
    }
}

/// containerd's databases, locked. While this is held, a containerd on the same root waits.
#[derive(Debug)]
pub struct Taken {
    // Never read: closing them is what unlocks.
    _locks: Vec<gantry_bolt::Locked>,
}

impl Taken {
    fn holding(opened: Opened) -> Taken {
        let all = std::iter::once(opened.meta)
            .chain(opened.snapshotters.into_values())
            .chain(opened.mounts.and_then(Result::ok));
        Taken { _locks: all.map(Database::keep_locked).collect() }
    }
}

/// Looks whether containerd left records at `root`, and takes them over if `how` allows it. What `left_out` names (snapshotters,
/// `damaged`) does not keep it from that, and is not taken over.
///
/// # Errors
/// `FailedPrecondition` if a living process has one of the files open, or for a schema that is not known; `DataLoss` if a file is
/// damaged; those of the file system.
pub async fn take_over(root: Root, how: Takeover, left_out: BTreeSet<String>) -> Result<Outcome> {
    let looked = {
        let (root, left_out) = (root.clone(), left_out.clone());
        blocking(move || look(&root, how, &left_out)).await?
    };
    let Import { opened, plan, report, _lock } = match looked {
        Looked::Decided(outcome) => return Ok(outcome),
        Looked::Import(import) => *import,
    };
    let marker = Marker::new(&opened, report.clone())?;
    import(&root, plan, &marker).await?;
    tracing::info!(path = %root.meta.display(), "containerd's records were taken over");
    Ok(Outcome::Taken(Taken::holding(opened), Some(report)))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer.map_err(|error| error.context("take over containerd's records")),
        Err(_) => Err(Error::internal("the takeover panicked")),
    }
}

enum Looked {
    Decided(Outcome),
    Import(Box<Import>),
}

/// What is to be stored, with all that is locked until it is.
struct Import {
    opened: Opened,
    plan: Plan,
    report: Report,
    _lock: StoreLock,
}

fn look(root: &Root, how: Takeover, left_out: &BTreeSet<String>) -> Result<Looked> {
    let Some(opened) = open(root)? else { return Ok(Looked::Decided(Outcome::Nothing)) };
    let marker = root.store.exists().then(|| Marker::read(&marker_path(root))).transpose()?;
    let changed = match &marker {
        None => None,
        Some(None) => {
            Some("gantryd has records of its own at this root, which were not taken over".to_owned())
        }
        Some(Some(marker)) => match marker.changed(&marker::sources(&opened)) {
            None => return Ok(Looked::Decided(Outcome::Taken(Taken::holding(opened), None))),
            changed => changed,
        },
    };
    let mut report = Report::default();
    let plan = plan::make(root, &opened, &mut report)?;
    let mut arguments: Vec<String> = report
        .refusals(&BTreeSet::new())
        .into_iter()
        .map(|word| format!("--takeover-leave-out={word}"))
        .collect();
    let meta = root.meta.display();
    if let Some(changed) = changed
        && how != Takeover::Again
    {
        arguments.insert(0, "--takeover=again".to_owned());
        let when = marker
            .flatten()
            .map_or_else(String::new, |marker| format!(" since the takeover of {}", marker.taken_over_at));
        let reason = format!(
            "containerd's records ({meta}) are newer than gantryd's own{when}: {changed}. --takeover=again goes on with \
             containerd's, and puts gantryd's aside: what was made or changed since is not seen any more, and what \
             no record names is removed"
        );
        return Ok(Looked::Decided(Outcome::Refused(Refusal { report: Some(report), reason, arguments })));
    }
    if how == Takeover::Check {
        arguments.insert(0, "--takeover=on".to_owned());
        let reason = format!("containerd's records ({meta}) were not taken over: --takeover=on does it");
        return Ok(Looked::Decided(Outcome::Refused(Refusal { report: Some(report), reason, arguments })));
    }
    let refusals = report.refusals(left_out);
    if !refusals.is_empty() {
        let words = refusals.into_iter().collect::<Vec<_>>().join(", ");
        let reason = format!(
            "containerd's records ({meta}) cannot be taken over as they are ({words}): solve that with containerd, or \
             go on without by --takeover-leave-out"
        );
        let first = if how == Takeover::Again { "--takeover=again" } else { "--takeover=on" };
        arguments.insert(0, first.to_owned());
        return Ok(Looked::Decided(Outcome::Refused(Refusal { report: Some(report), reason, arguments })));
    }
    let directory = directory(root);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("create {}", directory.display()))?;
    let lock = StoreLock::acquire(&root.store)?;
    Ok(Looked::Import(Box::new(Import { opened, plan, report, _lock: lock })))
}

/// Opens containerd's databases; none if there is no `meta.db`.
fn open(root: &Root) -> Result<Option<Opened>> {
    let optional = |path: &Path| match Database::open(path) {
        Ok(database) => Ok(Some(database)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let Some(meta) = optional(&root.meta)? else { return Ok(None) };
    let mut snapshotters = BTreeMap::new();
    for snapshotter in &root.snapshotters {
        if let Some(database) = optional(&snapshotter.root.join("metadata.db"))? {
            snapshotters.insert(snapshotter.name.clone(), database);
        }
    }
    let mounts = match optional(&root.state.join(MOUNTS)) {
        Err(error) if error.kind() == ErrorKind::DataLoss => Some(Err(error)),
        opened => opened?.map(Ok),
    };
    Ok(Some(Opened { meta, snapshotters, mounts }))
}

/// Source: containerd's mount manager, below the state directory.
const MOUNTS: &str = "io.containerd.mount-manager.v1.bolt/mounts.db";

fn directory(root: &Root) -> &Path {
    root.store.parent().unwrap_or(Path::new("."))
}

fn marker_path(root: &Root) -> PathBuf {
    directory(root).join("takeover.json")
}

/// A file beside `path`, with `suffix` behind its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Source: the names that SQLite gives to a database's files.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// Fills a database under another name, puts an older one aside, leaves the note, and gives the new one its name.
async fn import(root: &Root, plan: Plan, marker: &Marker) -> Result<()> {
    let fresh = directory(root).join("takeover.db");
    let discard = {
        let fresh = fresh.clone();
        move || SUFFIXES.iter().chain(&[".lock"]).try_for_each(|suffix| remove(&beside(&fresh, suffix)))
    };
    let roots: Vec<PathBuf> = root.snapshotters.iter().map(|snapshotter| snapshotter.root.clone()).collect();
    let store = {
        let (fresh, discard) = (fresh.clone(), discard.clone());
        blocking(move || {
            discard()?;
            // The records will say that the files are durable.
            roots.iter().filter(|root| root.exists()).try_for_each(|root| sync_file_system(root))?;
            Store::open(StoreOptions::new(fresh, MIGRATIONS))
        })
        .await?
    };
    let plan = Arc::new(plan);
    let boot_id = store.boot().id.clone();
    let written = store.write(move |db| insert::insert(db, &plan, &boot_id)).await;
    let closed = store.close(true).await;
    let (root, marker) = (root.clone(), marker.clone());
    blocking(move || {
        if let Err(error) = written.and(closed) {
            discard()?;
            return Err(error.context("write the records"));
        }
        put_aside(&root.store)?;
        marker.write(&marker_path(&root))?;
        std::fs::rename(&fresh, &root.store).with_context(|| format!("rename {}", fresh.display()))?;
        sync_directory(directory(&root))?;
        discard()
    })
    .await
}

/// Renames the database `store`, if there is one, so that nothing in it is lost.
fn put_aside(store: &Path) -> Result<()> {
    if !store.exists() {
        // What a database that is gone left would be taken for the new one's.
        return SUFFIXES[1..].iter().try_for_each(|suffix| remove(&beside(store, suffix)));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let aside = beside(store, &format!(".before-{now}"));
    // The main file last: without it there is no database, and with it there is a whole one.
    for suffix in SUFFIXES.iter().rev() {
        match std::fs::rename(beside(store, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("rename {}", store.display()));
            }
            _ => {}
        }
    }
    tracing::info!(path = %aside.display(), "gantryd's own records were put aside");
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("sync {}", path.display()))
}

fn sync_file_system(path: &Path) -> Result<()> {
    let directory = File::open(path).with_context(|| format!("open {}", path.display()))?;
    rustix::fs::syncfs(&directory)
        .map_err(std::io::Error::from)
        .with_context(|| format!("sync {}", path.display()))
}

//! Named points between the steps of the store, at which a crash test ends the process or makes a step fail.
//!
//! They are always compiled in: passing one that nobody armed is one relaxed load. The environment variable
//! [`VARIABLE`] arms them, as a list separated by semicolons:
//!
//! | Text | Does |
//! |---|---|
//! | `NAME=kill@N` | the `N`th time that the process passes `NAME`, it kills itself by SIGKILL |
//! | `NAME=error@N` | the `N`th time, the step fails with an I/O error; at points where nothing can fail, nothing happens |
//! | `trace=PATH` | the names of the points passed are appended to the file at `PATH`, each once |
//!
//! [`Point`] is the table of all points: every one stands between two steps of which the first may be done and the second not.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use gantry_core::{Error, Result};

/// The environment variable that arms points.
pub const VARIABLE: &str = "GANTRY_FAILPOINTS";

macro_rules! points {
    ($($variant:ident $name:literal $when:literal,)*) => {
        /// Every point, in the order of a thing's life.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point {
            $(#[doc = $when] $variant,)*
        }

        impl Point {
            /// Every point.
            pub const ALL: &[Point] = &[$(Point::$variant,)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Point::$variant => $name,)* }
            }
        }
    };
}

points! {
    DaemonStarted "daemon.started" "The plugins have started; nothing listens yet.",
    DaemonServing "daemon.serving" "The sockets are bound.",
    DaemonStopping "daemon.stopping" "The sockets are closed; the store is still open.",
    RecoveryOpened "recovery.opened" "The database is open; records and directories are not compared yet.",
    RecoveryCompared "recovery.compared" "Directories without record are out of the way.",
    StoreBeforeCommit "store.before-commit" "The statements of a write have run; it is not committed.",
    StoreAfterCommit "store.after-commit" "A write is committed; nobody is answered yet.",
    StoreMarkedClean "store.marked-clean" "The mark of a clean stop is there; the log is not written back.",
    IngestRecorded "ingest.recorded" "The record of a write in progress is there; its directory may not be.",
    IngestMade "ingest.made" "The directory of a write in progress is there; nothing is in its data yet.",
    IngestWritten "ingest.written" "Data was appended; the writer does not know yet.",
    ContentSynced "content.synced" "The data of a blob is durable; it has no name yet.",
    ContentRenamed "content.renamed" "A blob has its name, which may not be durable.",
    ContentNamed "content.named" "A blob's name is durable; the remains of its write are there.",
    ContentStored "content.stored" "A blob is whole on disk; it has no record.",
    ContentRecorded "content.recorded" "A blob has its record; nobody was told.",
    ContentUnlinked "content.unlinked" "A blob without record lost its file.",
    SnapshotMade "snapshot.made" "A snapshot's directory is there; its record is not.",
    SnapshotRecorded "snapshot.recorded" "A snapshot's record is there; nobody was told.",
    SnapshotFixedUp "snapshot.fixed-up" "What a commit changes on disk is done; the record says active.",
    SnapshotCommitted "snapshot.committed" "A snapshot's record says committed; nobody was told.",
    SnapshotUnrecorded "snapshot.unrecorded" "A removed snapshot's record is gone; its directory is there.",
    SnapshotRetired "snapshot.retired" "A directory without record is out of the way; its content is there.",
    SnapshotPurged "snapshot.purged" "The content of retired directories is deleted.",
    SnapshotSynced "snapshot.synced" "A committed snapshot's files are durable; its record does not say so.",
    RebuildApplied "rebuild.applied" "A layer is applied anew beside a snapshot's old files; the record names those.",
    RebuildRecorded "rebuild.recorded" "The record names the new files; the old ones are out of the way.",
    CollectionMarked "collection.marked" "A collection knows what is alive; nothing is deleted.",
    CollectionSwept "collection.swept" "Rows of a batch are deleted; others and the files are not.",
    CollectionEnded "collection.ended" "Files without record are removed; who waits is not told.",
}

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Error,
}

#[derive(Debug)]
struct Armed {
    point: Point,
    action: Action,
    /// How many passages are left until it acts.
    left: AtomicU32,
}

#[derive(Debug, Default)]
struct Arms {
    armed: Vec<Armed>,
    trace: Option<(File, Vec<AtomicBool>)>,
}

static ANY: AtomicBool = AtomicBool::new(false);
static ARMS: OnceLock<Arms> = OnceLock::new();

/// Arms what [`VARIABLE`] says; called once, at the program's start. Without it no point ever acts.
///
/// # Errors
/// `InvalidArgument` for a text that cannot be read, so that a test does not run without what it asked for.
pub fn arm_from_environment() -> Result<()> {
    let Some(text) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let arms = parse(&text.to_string_lossy()).map_err(|error| error.context(VARIABLE))?;
    if ARMS.set(arms).is_ok() {
        ANY.store(true, Ordering::Release);
    }
    Ok(())
}

fn parse(text: &str) -> Result<Arms> {
    let mut arms = Arms::default();
    for item in text.split(';').map(str::trim).filter(|item| !item.is_empty()) {
        let wrong = || Error::invalid_argument(format!("{item:?}: NAME=kill@N, NAME=error@N or trace=PATH"));
        let (name, what) = item.split_once('=').ok_or_else(wrong)?;
        if name == "trace" {
            let file = OpenOptions::new().create(true).append(true).open(what);
            let file = file.map_err(|error| Error::io(error).context(format!("open {what}")))?;
            arms.trace = Some((file, Point::ALL.iter().map(|_| AtomicBool::new(false)).collect()));
            continue;
        }
        let point = Point::ALL.iter().find(|point| point.name() == name);
        let point = *point.ok_or_else(|| Error::invalid_argument(format!("no failpoint {name:?}")))?;
        let (action, count) = what.split_once('@').unwrap_or((what, "1"));
        let action = match action {
            "kill" => Action::Kill,
            "error" => Action::Error,
            _ => return Err(wrong()),
        };
        let left = count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
        arms.armed.push(Armed { point, action, left: AtomicU32::new(left) });
    }
    Ok(arms)
}

/// Passes `point`, where a failure can be told.
///
/// # Errors
/// `Unknown` if a test wants the step to fail here.
#[inline]
pub fn pass(point: Point) -> Result<()> {
    if !ANY.load(Ordering::Relaxed) {
        return Ok(());
    }
    match ARMS.get() {
        Some(arms) if arms.passed(point) => {
            let failed = io::Error::from(rustix::io::Errno::IO);
            Err(Error::io(failed).context(format!("failpoint {}", point.name())))
        }
        _ => Ok(()),
    }
}

/// Passes `point`, where nothing can fail.
#[inline]
pub fn reach(point: Point) {
    // An error that cannot be told is none.
    let _ = pass(point);
}

impl Arms {
    /// Acts, if it is time to: true if the step is to fail.
    fn passed(&self, point: Point) -> bool {
        if let Some((file, passed)) = &self.trace
            && !passed[point as usize].swap(true, Ordering::Relaxed)
        {
            // One write, so that lines of several threads do not mix. A trace that cannot be written shows as not passed.
            let _ = (&*file).write_all(format!("{}\n", point.name()).as_bytes());
        }
        let mut fail = false;
        for armed in self.armed.iter().filter(|armed| armed.point == point) {
            let left =
                armed.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if left != Ok(1) {
                continue;
            }
            match armed.action {
                Action::Error => fail = true,
                Action::Kill => die(),
            }
        }
        fail
    }
}

fn die() {
    // The kernel takes all threads before this returns; and if it could not, the test would see a survivor.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_parse() {
        for (index, point) in Point::ALL.iter().enumerate() {
            assert_eq!(*point as usize, index);
            let arms = parse(&format!("{}=kill@3", point.name())).unwrap();
            assert_eq!(arms.armed[0].point, *point);
        }
    }

    #[test]
    fn the_nth_passage_acts_and_no_other() {
        let arms = parse("content.synced=error@2; snapshot.made=error").unwrap();
        assert!(!arms.passed(Point::ContentSynced));
        assert!(arms.passed(Point::ContentSynced));
        assert!(!arms.passed(Point::ContentSynced));
        assert!(arms.passed(Point::SnapshotMade));
        assert!(!arms.passed(Point::SnapshotRecorded));
    }

    #[test]
    fn a_text_that_means_nothing_is_refused() {
        for text in ["x", "x=kill@1", "content.synced=die", "content.synced=kill@0", "content.synced=kill@x"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

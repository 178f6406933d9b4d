//! The note that says what was taken over: beside the database, for the next start and for people.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use gantry_bolt::Database;
use gantry_core::{Error, ErrorKind, Result, ResultExt as _};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::plan::Opened;
use super::report::Report;

/// One of containerd's files, in the state that was taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    /// The snapshotter's name; empty for `meta.db`, `mounts` for the mount manager's.
    pub(super) snapshotter: String,
    pub(super) path: String,
    /// Its last transaction.
    pub(super) transaction: u64,
}

/// What was taken over, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// RFC 3339.
    pub(super) taken_over_at: String,
    pub(super) sources: Vec<Source>,
    pub(super) report: Report,
}

/// What containerd's files say now.
pub(super) fn sources(opened: &Opened) -> Vec<Source> {
    let source = |snapshotter: &str, database: &Database| Source {
        snapshotter: snapshotter.to_owned(),
        path: database.path().display().to_string(),
        transaction: database.txid(),
    };
    let mut found = vec![source("", &opened.meta)];
    found.extend(opened.snapshotters.iter().map(|(name, database)| source(name, database)));
    found.extend(opened.mounts.iter().flatten().map(|database| source("mounts", database)));
    found
}

impl Marker {
    pub(super) fn new(opened: &Opened, report: Report) -> Result<Marker> {
        let now = OffsetDateTime::from(SystemTime::now()).format(&Rfc3339);
        let now = now.map_err(|error| Error::internal(format!("write the time: {error}")))?;
        Ok(Marker { taken_over_at: now, sources: sources(opened), report })
    }

    /// The note at `path`, if there is one.
    ///
    /// # Errors
    /// `DataLoss` if it cannot be understood.
    pub(super) fn read(path: &Path) -> Result<Option<Marker>> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| Error::new(ErrorKind::DataLoss, format!("{}: {error}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Writes it durably.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::internal(format!("write the note of a takeover: {error}")))?;
        let aside = path.with_extension("json.tmp");
        let written =
            File::create(&aside).and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
        written
            .and_then(|()| std::fs::rename(&aside, path))
            .with_context(|| format!("write {}", path.display()))?;
        super::sync_directory(path.parent().unwrap_or(path))
    }

    /// Which of containerd's files has another transaction now.
    pub(super) fn changed(&self, now: &[Source]) -> Option<String> {
        let before = |source: &Source| {
            self.sources.iter().find(|old| old.snapshotter == source.snapshotter).map(|old| old.transaction)
        };
        now.iter().find(|source| before(source) != Some(source.transaction)).map(|source| {
            let then = before(source)
                .map_or_else(|| "was not there".to_owned(), |then| format!("had transaction {then}"));
            format!("{} has transaction {}, and {then}", source.path, source.transaction)
        })
    }
}

//! The directory of one write in progress.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gantry_core::content::IngestStatus;
use gantry_core::{Error, IngestRef, Result, ResultExt};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The longest ref, and the longest other record, that is read back. A ref comes in a message of at most 16 MiB.
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// Where a write's files are. Source: features H22.
#[derive(Clone, Debug)]
pub(crate) struct IngestDir(PathBuf);

impl IngestDir {
    /// The directory of `reference` below the store's root.
    pub(crate) fn of(root: &Path, reference: &IngestRef) -> IngestDir {
        let name = gantry_core::Digest::sha256(Sha256::digest(reference.as_str()));
        IngestDir(root.join("ingest").join(name.hex()))
    }

    /// The directory at `path`.
    pub(crate) fn at(path: PathBuf) -> IngestDir {
        IngestDir(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// Makes the directory and its records, for a write of which nothing is there. The data file comes last: without
    /// it there is no ingest.
    pub(crate) fn create(&self, reference: &IngestRef, total_bytes: u64, now: SystemTime) -> Result<File> {
        fs::create_dir_all(&self.0).with_context(|| format!("make {}", self.0.display()))?;
        let stamp = OffsetDateTime::from(now)
            .format(&Rfc3339)
            .map_err(|error| Error::internal(format!("write the time {now:?}: {error}")))?;
        self.record("ref", reference.as_str().as_bytes())?;
        self.record("startedat", stamp.as_bytes())?;
        self.record("updatedat", stamp.as_bytes())?;
        if total_bytes > 0 {
            self.record("total", total_bytes.to_string().as_bytes())?;
        } else {
            drop(fs::remove_file(self.0.join("total")));
        }
        let data = self.data();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        options.open(&data).with_context(|| format!("create {}", data.display()))
    }

    fn record(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.0.join(name);
        let aside = self.0.join(format!("{name}.tmp"));
        let written = File::create(&aside).and_then(|mut file| file.write_all(content));
        written.and_then(|()| fs::rename(&aside, &path)).with_context(|| format!("write {}", path.display()))
    }

    /// The state of the write.
    ///
    /// # Errors
    /// `NotFound` if there is none, or it is not whole.
    pub(crate) fn status(&self) -> Result<IngestStatus> {
        let data = self.data();
        let file = fs::metadata(&data).with_context(|| format!("ingest {}", data.display()))?;
        let reference = IngestRef::parse(self.text("ref")?)?;
        let started_at = self.time("startedat")?;
        // The record is written at the start only; the file itself knows better.
        let updated_at = self.time("updatedat")?.max(file.modified()?);
        // Source: containerd takes a missing or broken total for unknown.
        let total_bytes = self.text("total").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(IngestStatus {
            reference,
            offset_bytes: file.len(),
            total_bytes,
            expected: None,
            started_at,
            updated_at,
        })
    }

    fn text(&self, name: &str) -> Result<String> {
        let path = self.0.join(name);
        let mut text = String::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_RECORD_BYTES).read_to_string(&mut text))
            .with_context(|| format!("read {}", path.display()))?;
        Ok(text)
    }

    fn time(&self, name: &str) -> Result<SystemTime> {
        let text = self.text(name)?;
        let parsed = OffsetDateTime::parse(&text, &Rfc3339);
        parsed.map(SystemTime::from).map_err(|error| {
            Error::unknown(format!("time {text:?} in {}: {error}", self.0.join(name).display()))
        })
    }

    /// Removes all of it. Says whether there was anything.
    pub(crate) fn remove(&self) -> Result<bool> {
        match fs::remove_dir_all(&self.0) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io(error).context(format!("remove {}", self.0.display()))),
        }
    }
}

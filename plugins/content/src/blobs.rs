//! The directory of the blobs.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gantry_core::content::ContentInfo;
use gantry_core::{Digest, Error, Labels, Result, ResultExt};
use gantry_failpoint::{Point, pass};

/// The registered algorithms in byte order.
pub(crate) const ALGORITHMS: [&str; 3] = ["sha256", "sha384", "sha512"];

/// Where the blobs are. Source: features H22.
#[derive(Clone, Debug)]
pub(crate) struct Blobs(PathBuf);

impl Blobs {
    pub(crate) fn of(root: &Path) -> Blobs {
        Blobs(root.join("blobs"))
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.0.join(digest.algorithm()).join(digest.hex())
    }

    /// What the file system knows about a blob.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn metadata(&self, digest: &Digest) -> Result<Metadata> {
        fs::metadata(self.path(digest)).map_err(|error| missing(digest, error))
    }

    pub(crate) fn info(&self, digest: &Digest) -> Result<ContentInfo> {
        let file = self.metadata(digest)?;
        let created_at = file.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(ContentInfo {
            digest: digest.clone(),
            size_bytes: file.len(),
            created_at,
            // Source: containerd keeps the time of the last update in the access time.
            updated_at: file.accessed().unwrap_or(created_at),
            labels: Labels::new(),
        })
    }

    pub(crate) fn exists(&self, digest: &Digest) -> Result<bool> {
        let path = self.path(digest);
        path.try_exists().with_context(|| format!("stat {}", path.display()))
    }

    pub(crate) fn open(&self, digest: &Digest) -> Result<File> {
        File::open(self.path(digest)).map_err(|error| missing(digest, error))
    }

    /// Moves the file at `from`, which is on disk with all its bytes, to its place, durably.
    pub(crate) fn take(&self, from: &Path, digest: &Digest) -> Result<()> {
        let target = self.path(digest);
        let dir = self.0.join(digest.algorithm());
        if !dir.is_dir() {
            fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
            sync_dir(&self.0)?;
        }
        fs::rename(from, &target)
            .with_context(|| format!("rename {} to {}", from.display(), target.display()))?;
        pass(Point::ContentRenamed)?;
        sync_dir(&dir)
    }

    /// Makes the name of a blob that is there durable.
    pub(crate) fn sync_name(&self, digest: &Digest) -> Result<()> {
        sync_dir(&self.0)?;
        sync_dir(&self.0.join(digest.algorithm()))
    }

    pub(crate) fn remove(&self, digest: &Digest) -> Result<()> {
        fs::remove_file(self.path(digest)).map_err(|error| missing(digest, error))?;
        pass(Point::ContentUnlinked)
    }

    /// All digests in byte order. Files that are no blobs are passed over.
    pub(crate) fn digests(&self) -> Result<Vec<Digest>> {
        let mut found = Vec::new();
        for algorithm in ALGORITHMS {
            let dir = self.0.join(algorithm);
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io(error).context(format!("list {}", dir.display()))),
            };
            for entry in entries {
                let entry = entry.with_context(|| format!("list {}", dir.display()))?;
                let name = entry.file_name();
                match Digest::parse(format!("{algorithm}:{}", name.to_string_lossy())) {
                    Ok(digest) => found.push(digest),
                    Err(_) => tracing::warn!(path = %entry.path().display(), "no blob, though among them"),
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("sync {}", dir.display()))
}

fn missing(digest: &Digest, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        Error::not_found(format!("content {digest}"))
    } else {
        Error::io(error).context(format!("content {digest}"))
    }
}

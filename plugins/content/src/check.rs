//! What a check of the store asks of its files.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gantry_core::content::{ContentFiles, Stray};
use gantry_core::{Digest, Error, IngestRef, Result, ResultExt as _};

use crate::blobs::{ALGORITHMS, sync_dir};
use crate::ingest::IngestDir;
use crate::store::LocalContent;

/// Where damaged blobs are put: beside the blobs, out of their way.
const ASIDE: &str = "damaged";

/// The entries of a directory; none if it is not there.
fn entries(dir: &Path) -> Result<Vec<fs::DirEntry>> {
    let listed = fs::read_dir(dir).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    match listed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.with_context(|| format!("list {}", dir.display())),
    }
}

impl LocalContent {
    fn stray_blobs(&self, found: &mut Vec<Stray>) -> Result<()> {
        let blobs = self.inner.root.join("blobs");
        for entry in entries(&blobs)? {
            let name = entry.file_name();
            let algorithm = ALGORITHMS.into_iter().find(|known| name == *known);
            let Some(algorithm) = algorithm.filter(|_| entry.path().is_dir()) else {
                found.push(stray(entry.path(), "it is no directory of an algorithm that is known", false));
                continue;
            };
            for entry in entries(&entry.path())? {
                let text = format!("{algorithm}:{}", entry.file_name().to_string_lossy());
                if Digest::parse(text).is_err() {
                    found.push(stray(entry.path(), "its name is no digest", false));
                } else if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
                    found.push(stray(entry.path(), "it is no file", false));
                }
            }
        }
        Ok(())
    }

    fn stray_ingests(&self, found: &mut Vec<Stray>) -> Result<()> {
        let root = &self.inner.root;
        let ingests = root.join("ingest");
        let listed = entries(&ingests)?;
        // After the list: what is being made now was not in it, or has its writer.
        let open: HashSet<PathBuf> = self
            .inner
            .locks
            .held()
            .iter()
            .map(|reference| IngestDir::of(root, reference).path().to_owned())
            .collect();
        for entry in listed {
            let path = entry.path();
            if open.contains(&path) {
                continue;
            }
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(stray(path, "it is no directory of a write", false));
                continue;
            }
            match IngestDir::at(path.clone()).status() {
                // Its name is made of the ref, so that its writer finds it again.
                Ok(status) if IngestDir::of(root, &status.reference).path() == path => {}
                Ok(_) => found.push(stray(path, "its name is not that of its ref", false)),
                // Gone meanwhile.
                Err(_) if !path.exists() => {}
                Err(error) => found.push(stray(path, &format!("the remains of a write: {error}"), true)),
            }
        }
        Ok(())
    }
}

fn stray(path: PathBuf, what: &str, removable: bool) -> Stray {
    Stray { path, what: what.to_owned(), removable }
}

impl ContentFiles for LocalContent {
    fn strays(&self) -> Result<Vec<Stray>> {
        let mut found = Vec::new();
        self.stray_blobs(&mut found)?;
        self.stray_ingests(&mut found)?;
        Ok(found)
    }

    fn remove_stray(&self, stray: &Stray) -> Result<()> {
        if !stray.removable || stray.path.parent() != Some(&self.inner.root.join("ingest")) {
            let text = format!("{} is not the remains of a write", stray.path.display());
            return Err(Error::failed_precondition(text));
        }
        IngestDir::at(stray.path.clone()).remove().map(drop)
    }

    fn set_aside(&self, digest: &Digest) -> Result<PathBuf> {
        let (from, dir) = (self.inner.blobs.path(digest), self.inner.root.join(ASIDE));
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let to = dir.join(format!("{}-{}", digest.algorithm(), digest.hex()));
        fs::rename(&from, &to).with_context(|| format!("rename {} to {}", from.display(), to.display()))?;
        sync_dir(&dir)?;
        Ok(to)
    }

    fn is_open(&self, reference: &IngestRef) -> bool {
        self.inner.locks.is_held(reference)
    }
}

//! The directories that drivers share: `<root>/snapshots/<id>`, retired ones as `<root>/snapshots/rm-<id>`.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use gantry_core::snapshots::{SnapshotId, SnapshotUsage};
use gantry_core::{Error, Result, ResultExt as _};

/// Prefix of a directory that is on its way out. Source: the name that containerd's overlayfs snapshotter gives.
const RETIRED: &str = "rm-";

/// Snapshot directories below a driver's root.
#[derive(Debug)]
pub struct Directories {
    root: PathBuf,
}

/// An I/O error that names its step and path.
pub(crate) fn io_error(step: &str, path: &Path, source: io::Error) -> Error {
    Error::io(source).context(format!("{step} {}", path.display()))
}

impl Directories {
    /// Opens, or makes, `<root>/snapshots`, closed to other users.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub fn open(root: &Path) -> Result<Self> {
        // Source: security S05 and S18: a rootfs is never reachable for other users.
        for directory in [root.to_owned(), root.join("snapshots")] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .and_then(|()| fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)))
                .map_err(|error| io_error("create snapshot directory", &directory, error))?;
        }
        Ok(Directories { root: root.to_owned() })
    }

    /// The driver's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn all(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// The directory of `id`.
    pub fn path(&self, id: SnapshotId) -> PathBuf {
        self.all().join(id.to_string())
    }

    /// Makes the directory of `id` and lets `fill` put into it what belongs there; all of it is removed if that fails.
    ///
    /// # Errors
    /// `AlreadyExists` if the directory is there; what `fill` says.
    pub fn create(&self, id: SnapshotId, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let path = self.path(id);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| io_error("create snapshot directory", &path, error))?;
        fill(&path).inspect_err(|_| {
            // The error that is on its way matters more than one of the clean-up; `purge` tries again.
            if fs::remove_dir_all(&path).is_err() {
                let _ = self.retire(id);
            }
        })
    }

    /// Renames the directory of `id` out of the way. One that is not there is no error.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub fn retire(&self, id: SnapshotId) -> Result<()> {
        let (from, to) = (self.path(id), self.all().join(format!("{RETIRED}{id}")));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("retire snapshot directory", &from, error))
            }
            _ => Ok(()),
        }
    }

    fn names(&self) -> Result<Vec<String>> {
        let all = self.all();
        let names = fs::read_dir(&all)
            .and_then(|entries| {
                entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()
            })
            .map_err(|error| io_error("list snapshot directories", &all, error))?;
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    /// Deletes what was retired; goes on behind a failure and reports the first.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub fn purge(&self) -> Result<()> {
        let mut outcome = Ok(());
        for name in self.names()?.into_iter().filter(|name| name.starts_with(RETIRED)) {
            let path = self.all().join(name);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    outcome = outcome.and(Err(io_error("delete retired snapshot", &path, error)));
                }
                _ => {}
            }
        }
        outcome
    }

    /// Every id that has a directory.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub fn ids(&self) -> Result<Vec<SnapshotId>> {
        Ok(self.names()?.iter().filter_map(|name| name.parse().ok()).collect())
    }
}

/// What the tree at `path` takes: allocated bytes and inodes, each inode once.
///
/// # Errors
/// Those of the file system, naming the path. What vanishes meanwhile is left out.
pub fn usage(path: &Path) -> Result<SnapshotUsage> {
    let mut usage = SnapshotUsage::default();
    let mut seen = HashSet::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(|error| io_error("measure", &path, error))?,
        };
        if metadata.nlink() < 2 || metadata.is_dir() || seen.insert((metadata.dev(), metadata.ino())) {
            usage.inodes += 1;
            // Source: POSIX: st_blocks counts units of 512 bytes.
            usage.size_bytes += metadata.blocks() * 512;
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(&path).map_err(|error| io_error("measure", &path, error))? {
                open.push(entry.map_err(|error| io_error("measure", &path, error))?.path());
            }
        }
    }
    Ok(usage)
}

/// Makes the file system that holds `path` durable.
///
/// # Errors
/// Those of the file system, naming the path.
pub fn sync(path: &Path) -> Result<()> {
    let directory = fs::File::open(path).map_err(|error| io_error("open", path, error))?;
    rustix::fs::syncfs(&directory)
        .map_err(io::Error::from)
        .with_context(|| format!("sync {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_create_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::open(root.path()).unwrap();
        let error = directories
            .create(1, |path| {
                fs::write(path.join("x"), "y").unwrap();
                Err(Error::resource_exhausted("disk"))
            })
            .unwrap_err();
        assert_eq!(error.kind(), gantry_core::ErrorKind::ResourceExhausted);
        assert!(directories.ids().unwrap().is_empty());
        assert!(!directories.path(1).exists());
    }

    #[test]
    fn retired_directories_are_gone_after_purge() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::open(root.path()).unwrap();
        directories.create(7, |_| Ok(())).unwrap();
        directories.retire(7).unwrap();
        directories.retire(7).unwrap();
        assert!(directories.ids().unwrap().is_empty());
        assert!(root.path().join("snapshots/rm-7").exists());
        directories.purge().unwrap();
        assert!(!root.path().join("snapshots/rm-7").exists());
    }

    #[test]
    fn usage_counts_each_inode_once() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), vec![1; 8192]).unwrap();
        fs::hard_link(root.path().join("a"), root.path().join("b")).unwrap();
        let usage = usage(root.path()).unwrap();
        assert_eq!(usage.inodes, 2);
        assert!(usage.size_bytes >= 8192 && usage.size_bytes < 3 * 8192, "{usage:?}");
    }

    #[test]
    fn other_users_cannot_enter() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("driver");
        Directories::open(&root).unwrap();
        for directory in [root.clone(), root.join("snapshots")] {
            assert_eq!(fs::metadata(directory).unwrap().mode() & 0o777, 0o700);
        }
    }
}

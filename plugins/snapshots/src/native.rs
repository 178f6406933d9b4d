//! Snapshots as plain copies: for file systems on which nothing else works.

use std::path::Path;

use gantry_core::mount::Mount;
use gantry_core::snapshots::{DriverSnapshot, SnapshotDriver, SnapshotId, SnapshotKind, SnapshotUsage};
use gantry_core::{Error, ErrorKind, Result};

use crate::copy::copy_tree;
use crate::directories::{Directories, sync, usage};

/// The native snapshotter's driver.
#[derive(Debug)]
pub struct NativeDriver {
    directories: Directories,
}

impl NativeDriver {
    /// Opens, or makes, the driver's directories below `root`.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub fn open(root: &Path) -> Result<Self> {
        Ok(NativeDriver { directories: Directories::open(root)? })
    }
}

impl SnapshotDriver for NativeDriver {
    fn name(&self) -> &'static str {
        "native"
    }

    fn capabilities(&self) -> Vec<String> {
        Vec::new()
    }

    fn root(&self) -> &Path {
        self.directories.root()
    }

    fn create(&self, new: &DriverSnapshot) -> Result<()> {
        match (new.kind, new.parents.first()) {
            // A view of a parent shows the parent's own directory; it still has one, so that every record has a directory.
            (SnapshotKind::View, _) | (_, None) => self.directories.create(new.id, make_root),
            (_, Some(parent)) => {
                let from = self.directories.path(*parent);
                self.directories.create(new.id, |path| copy_tree(&from, path))
            }
        }
    }

    fn mounts(&self, of: &DriverSnapshot) -> Result<Vec<Mount>> {
        let (shown, access) = match (of.kind, of.parents.first()) {
            (SnapshotKind::Committed, _) => {
                return Err(Error::new(ErrorKind::FailedPrecondition, "a committed snapshot has no mounts"));
            }
            (SnapshotKind::Active, _) => (of.id, "rw"),
            (SnapshotKind::View, parent) => (parent.copied().unwrap_or(of.id), "ro"),
        };
        // Source: semantics.md, Snapshots: native lists rbind first.
        Ok(vec![Mount {
            kind: "bind".to_owned(),
            source: self.directories.path(shown).display().to_string(),
            target: String::new(),
            options: vec!["rbind".to_owned(), access.to_owned()],
        }])
    }

    fn commit(&self, active: &DriverSnapshot, new_parents: &[SnapshotId]) -> Result<()> {
        if active.parents == new_parents {
            return Ok(());
        }
        // A copy is whole: onto other parents it would have to be made anew.
        Err(Error::unimplemented("snapshotter \"native\" cannot rebase a snapshot onto another parent"))
    }

    fn retire(&self, id: SnapshotId) -> Result<()> {
        self.directories.retire(id)
    }

    fn purge(&self) -> Result<()> {
        self.directories.purge()
    }

    fn usage(&self, id: SnapshotId) -> Result<SnapshotUsage> {
        usage(&self.directories.path(id))
    }

    fn ids(&self) -> Result<Vec<SnapshotId>> {
        self.directories.ids()
    }

    fn sync(&self, id: SnapshotId) -> Result<()> {
        sync(&self.directories.path(id))
    }
}

/// The directory is the root of a file system: open to the users within it, as the driver's own root is closed.
fn make_root(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .map_err(|error| crate::directories::io_error("open to its users", path, error))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn snapshot(id: SnapshotId, kind: SnapshotKind, parents: &[SnapshotId]) -> DriverSnapshot {
        DriverSnapshot { id, kind, parents: parents.to_vec(), labels: Default::default() }
    }

    #[test]
    fn a_child_is_a_copy_that_leaves_its_parent_alone() {
        let root = tempfile::tempdir().unwrap();
        let driver = NativeDriver::open(root.path()).unwrap();
        driver.create(&snapshot(1, SnapshotKind::Active, &[])).unwrap();
        fs::write(driver.directories.path(1).join("f"), "old").unwrap();
        driver.create(&snapshot(2, SnapshotKind::Active, &[1])).unwrap();
        fs::write(driver.directories.path(2).join("f"), "new").unwrap();
        assert_eq!(fs::read_to_string(driver.directories.path(1).join("f")).unwrap(), "old");
        let mounts = driver.mounts(&snapshot(2, SnapshotKind::Active, &[1])).unwrap();
        assert_eq!(mounts[0].options, ["rbind", "rw"]);
        let view = driver.mounts(&snapshot(3, SnapshotKind::View, &[1])).unwrap();
        assert!(view[0].source.ends_with("snapshots/1"));
        assert_eq!(view[0].options, ["rbind", "ro"]);
    }

    #[test]
    fn a_rebase_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let driver = NativeDriver::open(root.path()).unwrap();
        let active = snapshot(2, SnapshotKind::Active, &[1]);
        driver.commit(&active, &[1]).unwrap();
        assert_eq!(driver.commit(&active, &[3]).unwrap_err().kind(), ErrorKind::Unimplemented);
    }
}

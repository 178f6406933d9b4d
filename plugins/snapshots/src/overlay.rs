//! Snapshots as overlay mounts: each is a directory `fs` of what differs from its parents, and `work` beside it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use gantry_core::mount::Mount;
use gantry_core::snapshots::{
    DirectoryFault, DriverSnapshot, SnapshotDriver, SnapshotId, SnapshotKind, SnapshotUsage,
};
use gantry_core::{Error, ErrorKind, Result};

use crate::directories::{Directories, io_error, sync, usage};

/// How the driver is set up.
#[derive(Clone, Debug, Default)]
pub struct OverlayConfig {
    /// Options added to every overlay mount, for example `volatile`. Default none.
    pub mount_options: Vec<String>,
}

/// The overlayfs snapshotter's driver.
#[derive(Debug)]
pub struct OverlayDriver {
    directories: Directories,
    extra_options: Vec<String>,
    in_user_namespace: bool,
}

impl OverlayDriver {
    /// Opens, or makes, the driver's directories below `root`.
    ///
    /// # Errors
    /// `FailedPrecondition` if the kernel has no overlay file system; those of the file system, naming the path.
    pub fn open(root: &Path, config: OverlayConfig) -> Result<Self> {
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !known.lines().any(|line| line.split_whitespace().last() == Some("overlay")) {
            return Err(Error::failed_precondition(
                "the kernel has no overlay file system: load the module overlay",
            ));
        }
        let in_user_namespace = in_user_namespace();
        let mut extra_options = config.mount_options;
        // Source: containerd adds index=off where the kernel knows the parameter: an upper directory may be mounted again below
        // another path.
        if Path::new("/sys/module/overlay/parameters/index").exists() {
            extra_options.push("index=off".to_owned());
        }
        if in_user_namespace {
            extra_options.push("userxattr".to_owned());
        }
        Ok(OverlayDriver { directories: Directories::open(root)?, extra_options, in_user_namespace })
    }

    fn upper(&self, id: SnapshotId) -> PathBuf {
        self.directories.path(id).join("fs")
    }

    fn work(&self, id: SnapshotId) -> PathBuf {
        self.directories.path(id).join("work")
    }

    fn bind(&self, id: SnapshotId, access: &str) -> Vec<Mount> {
        vec![Mount {
            kind: "bind".to_owned(),
            source: self.upper(id).display().to_string(),
            target: String::new(),
            options: vec![access.to_owned(), "rbind".to_owned()],
        }]
    }
}

fn make_work(work: &Path) -> Result<()> {
    fs::DirBuilder::new().mode(0o711).create(work).map_err(|error| io_error("create", work, error))
}

fn is_directory(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(io_error("look at", path, error)),
    }
}

/// Whether this process runs in a user namespace of its own. Source: the initial namespace maps every id to itself.
fn in_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"])
}

impl SnapshotDriver for OverlayDriver {
    fn name(&self) -> &'static str {
        "overlayfs"
    }

    fn capabilities(&self) -> Vec<String> {
        // Source: security S30: rebase is not offered within a user namespace. Id maps are not built yet, so they are not offered.
        if self.in_user_namespace { Vec::new() } else { vec!["rebase".to_owned()] }
    }

    fn root(&self) -> &Path {
        self.directories.root()
    }

    fn create(&self, new: &DriverSnapshot) -> Result<()> {
        self.directories.create(new.id, |path| {
            let mut upper = fs::DirBuilder::new();
            let fs_path = path.join("fs");
            upper.mode(0o755).create(&fs_path).map_err(|error| io_error("create", &fs_path, error))?;
            // The upper directory is the root of what is mounted: it keeps the owner that the parent gave it.
            if let Some(parent) = new.parents.first() {
                let parent = self.upper(*parent);
                let owner =
                    fs::metadata(&parent).map_err(|error| io_error("read the owner of", &parent, error))?;
                std::os::unix::fs::lchown(&fs_path, Some(owner.uid()), Some(owner.gid()))
                    .map_err(|error| io_error("change the owner of", &fs_path, error))?;
            }
            if new.kind == SnapshotKind::Active { make_work(&path.join("work")) } else { Ok(()) }
        })
    }

    fn mounts(&self, of: &DriverSnapshot) -> Result<Vec<Mount>> {
        // Source: semantics.md, Snapshots: bind mounts for a single directory, and the order of options.
        match (of.kind, of.parents.as_slice()) {
            (SnapshotKind::Committed, _) => {
                return Err(Error::new(ErrorKind::FailedPrecondition, "a committed snapshot has no mounts"));
            }
            (SnapshotKind::Active, []) => return Ok(self.bind(of.id, "rw")),
            (SnapshotKind::View, []) => return Ok(self.bind(of.id, "ro")),
            (SnapshotKind::View, [only]) => return Ok(self.bind(*only, "ro")),
            _ => {}
        }
        let mut options = Vec::new();
        if of.kind == SnapshotKind::Active {
            options.push(format!("workdir={}", self.work(of.id).display()));
            options.push(format!("upperdir={}", self.upper(of.id).display()));
        }
        let lower: Vec<String> = of.parents.iter().map(|id| self.upper(*id).display().to_string()).collect();
        options.push(format!("lowerdir={}", lower.join(":")));
        options.extend(self.extra_options.iter().cloned());
        Ok(vec![Mount {
            kind: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options,
        }])
    }

    fn commit(&self, _active: &DriverSnapshot, _new_parents: &[SnapshotId]) -> Result<()> {
        // The directory holds only what differs; which parents lie below is up to the next mount.
        Ok(())
    }

    fn retire(&self, id: SnapshotId) -> Result<()> {
        self.directories.retire(id)
    }

    fn purge(&self) -> Result<()> {
        self.directories.purge()
    }

    fn usage(&self, id: SnapshotId) -> Result<SnapshotUsage> {
        usage(&self.upper(id))
    }

    fn ids(&self) -> Result<Vec<SnapshotId>> {
        self.directories.ids()
    }

    fn inspect(&self, of: &DriverSnapshot) -> Result<Vec<DirectoryFault>> {
        let mut faults = Vec::new();
        let upper = self.upper(of.id);
        if !is_directory(&upper)? {
            faults.push(DirectoryFault {
                what: format!("{} is no directory", upper.display()),
                mendable: false,
            });
        }
        let work = self.work(of.id);
        if of.kind == SnapshotKind::Active && !is_directory(&work)? {
            // What is in there is of the kernel's own making, and of one mount only.
            faults
                .push(DirectoryFault { what: format!("{} is no directory", work.display()), mendable: true });
        }
        Ok(faults)
    }

    fn mend(&self, of: &DriverSnapshot) -> Result<()> {
        let work = self.work(of.id);
        if of.kind == SnapshotKind::Active && !is_directory(&work)? {
            make_work(&work)?;
        }
        Ok(())
    }

    fn sync(&self, id: SnapshotId) -> Result<()> {
        sync(&self.directories.path(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(id: SnapshotId, kind: SnapshotKind, parents: &[SnapshotId]) -> DriverSnapshot {
        DriverSnapshot { id, kind, parents: parents.to_vec(), labels: Default::default() }
    }

    #[test]
    fn mounts_are_the_originals_to_the_letter() {
        let root = tempfile::tempdir().unwrap();
        let driver = OverlayDriver::open(root.path(), OverlayConfig::default()).unwrap();
        let at = |rest: &str| format!("{}/snapshots/{rest}", root.path().display());
        for (id, kind, parents) in [
            (1, SnapshotKind::Active, vec![]),
            (2, SnapshotKind::Active, vec![1]),
            (3, SnapshotKind::View, vec![2, 1]),
        ] {
            driver.create(&snapshot(id, kind, &parents)).unwrap();
        }
        let single = driver.mounts(&snapshot(1, SnapshotKind::Active, &[])).unwrap();
        assert_eq!((single[0].kind.as_str(), &single[0].source), ("bind", &at("1/fs")));
        assert_eq!(single[0].options, ["rw", "rbind"]);
        let view = driver.mounts(&snapshot(9, SnapshotKind::View, &[1])).unwrap();
        assert_eq!((&view[0].source, view[0].options.join(",")), (&at("1/fs"), "ro,rbind".to_owned()));
        let active = driver.mounts(&snapshot(2, SnapshotKind::Active, &[1])).unwrap();
        assert_eq!((active[0].kind.as_str(), active[0].source.as_str()), ("overlay", "overlay"));
        let mut wanted = vec![
            format!("workdir={}", at("2/work")),
            format!("upperdir={}", at("2/fs")),
            format!("lowerdir={}", at("1/fs")),
        ];
        wanted.extend(driver.extra_options.iter().cloned());
        assert_eq!(active[0].options, wanted);
        let stacked = driver.mounts(&snapshot(3, SnapshotKind::View, &[2, 1])).unwrap();
        assert_eq!(stacked[0].options[0], format!("lowerdir={}:{}", at("2/fs"), at("1/fs")));
    }

    #[test]
    fn the_root_keeps_the_parents_owner() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let driver = OverlayDriver::open(root.path(), OverlayConfig::default()).unwrap();
        driver.create(&snapshot(1, SnapshotKind::Active, &[])).unwrap();
        std::os::unix::fs::chown(driver.upper(1), Some(1000), Some(1001)).unwrap();
        driver.create(&snapshot(2, SnapshotKind::Active, &[1])).unwrap();
        let owner = fs::metadata(driver.upper(2)).unwrap();
        assert_eq!((owner.uid(), owner.gid()), (1000, 1001));
    }

    #[test]
    fn a_lost_work_directory_is_made_anew_and_a_lost_upper_one_is_told() {
        let root = tempfile::tempdir().unwrap();
        let driver = OverlayDriver::open(root.path(), OverlayConfig::default()).unwrap();
        let active = snapshot(1, SnapshotKind::Active, &[]);
        driver.create(&active).unwrap();
        assert_eq!(driver.inspect(&active).unwrap(), []);
        fs::remove_dir(driver.work(1)).unwrap();
        fs::remove_dir(driver.upper(1)).unwrap();
        let faults = driver.inspect(&active).unwrap();
        assert_eq!(faults.iter().map(|fault| fault.mendable).collect::<Vec<_>>(), [false, true]);
        driver.mend(&active).unwrap();
        let faults = driver.inspect(&active).unwrap();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].what.contains("/1/fs"), "{faults:?}");
        // A committed one needs no work directory.
        fs::remove_dir(driver.work(1)).unwrap();
        assert_eq!(driver.inspect(&snapshot(1, SnapshotKind::Committed, &[])).unwrap().len(), 1);
    }

    #[test]
    fn a_missing_parent_fails_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let driver = OverlayDriver::open(root.path(), OverlayConfig::default()).unwrap();
        let error = driver.create(&snapshot(2, SnapshotKind::Active, &[1])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(driver.ids().unwrap().is_empty());
    }
}

//! Finding a mount's target below a root whose contents are hostile.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_core::{Error, Result, ResultExt};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

/// How often a lookup is repeated that a concurrent rename disturbed.
const MAX_TRIES: usize = 64;

/// Opens `target` below `root`, where no symlink of the tree leads out of `root`. An empty target is
/// the root itself, whose own path is trusted.
pub(crate) fn open(root: &Path, target: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let fd = rustix::fs::open(root, flags, Mode::empty()).map_err(io::Error::from);
    let fd = fd.with_context(|| format!("open {root:?}"))?;
    if target.is_empty() {
        return Ok(fd);
    }
    resolve(&fd, Path::new(target), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
        .with_context(|| format!("open {target:?} in {root:?}"))
}

fn resolve(dir: impl AsFd, path: &Path, how: ResolveFlags) -> Result<OwnedFd> {
    for _ in 0..MAX_TRIES {
        match openat2(&dir, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            result => return result.map_err(|error| Error::io(error.into())),
        }
    }
    Err(Error::unavailable("the tree changes all the time"))
}

/// A path that means what `fd` is open on, for calls that take no descriptor.
pub(crate) fn path_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The path of `target` below `root` as the kernel spells it now.
pub(crate) fn real_path(root: &Path, target: &str) -> Result<PathBuf> {
    let fd = open(root, target)?;
    std::fs::read_link(path_of(&fd)).context("read a descriptor's path")
}

/// The directory that holds the last part of `path`, and that part. Holding the directory, unlike
/// holding the mount itself, does not keep it busy.
pub(crate) fn parent(path: &Path, follow: bool) -> Result<(OwnedFd, PathBuf)> {
    let name = path.file_name().ok_or_else(|| Error::invalid_argument(format!("mount point {path:?}")))?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let how = if follow { ResolveFlags::empty() } else { ResolveFlags::NO_SYMLINKS };
    let fd = resolve(CWD, dir, how).with_context(|| format!("open {dir:?}"))?;
    Ok((fd, name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn symlinks_in_the_tree_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let root = dir.join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        symlink("/etc", root.join("absolute")).unwrap();
        symlink("../../../../../../etc", root.join("relative")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        for target in ["etc", "/etc", "absolute", "relative", "../../etc", "etc/../../../etc"] {
            assert_eq!(real_path(&root, target).unwrap(), root.join("etc"), "{target}");
        }
        assert_eq!(real_path(&root, "").unwrap(), root);
        assert_eq!(real_path(&root, "/").unwrap(), root);
        for target in ["magic", "missing"] {
            assert_eq!(real_path(&root, target).unwrap_err().kind(), gantry_core::ErrorKind::NotFound);
        }
    }
}

//! Removing a tree by descriptor, however deep, with two descriptors.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use gantry_core::Result;
use rustix::fs::{AtFlags, FileType, OFlags, RawDir};
use rustix::io::Errno;

use crate::failure::at;
use crate::lower::open_beneath;
use crate::name::join;

/// Removes `name` in `dir` and all below it. Says whether there was anything. Links are removed, never followed.
pub(crate) fn remove_tree(dir: &OwnedFd, name: &[u8]) -> Result<bool> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) => return Ok(true),
        Err(Errno::NOENT) => return Ok(false),
        // What unlinking a directory answers: Linux says EISDIR, POSIX says EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(at("remove", name, errno)),
    }
    // Directories that were found not empty, each before its parents.
    let mut left = vec![name.to_vec()];
    while let Some(path) = left.last().cloned() {
        let found = left.len();
        match open_beneath(dir, &path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => {
                for (child, kind) in entries(&fd).map_err(|errno| at("list", &path, errno))? {
                    let flags =
                        if kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                    match rustix::fs::unlinkat(&fd, &child[..], flags) {
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR) => left.push(join(&path, &child)),
                        Err(errno) => return Err(at("remove", &join(&path, &child), errno)),
                    }
                }
            }
            Err(Errno::NOENT) => {}
            // It was replaced by a file meanwhile: the removal below fails or takes it.
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(at("open", &path, errno)),
        }
        if left.len() > found {
            continue;
        }
        left.pop();
        let (parent, last) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (Some(&path[..slash]), &path[slash + 1..]),
            None => (None, &path[..]),
        };
        let opened =
            parent.map(|parent| open_beneath(dir, parent, OFlags::PATH | OFlags::DIRECTORY)).transpose();
        let removed = opened.and_then(|parent| {
            let parent = parent.as_ref().unwrap_or(dir);
            rustix::fs::unlinkat(parent, last, AtFlags::REMOVEDIR)
        });
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(at("remove", &path, errno)),
        }
    }
    Ok(true)
}

/// The names in a directory with their types; a type is looked up where the file system does not tell.
pub(crate) fn entries(dir: &OwnedFd) -> rustix::io::Result<Vec<(Vec<u8>, FileType)>> {
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 << 10];
    let mut raw = RawDir::new(dir, &mut buffer);
    let mut found = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push((name.to_vec(), entry.file_type()));
        }
    }
    for (name, kind) in &mut found {
        if *kind == FileType::Unknown {
            *kind = match rustix::fs::statat(dir, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::lower::open_root;

    #[test]
    fn a_deep_tree_goes_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        let mut path = dir.path().join("tree");
        for _ in 0..600 {
            path.push("d");
        }
        fs::create_dir_all(&path).unwrap();
        for depth in ["tree", "tree/d", "tree/d/d/d"] {
            fs::write(dir.path().join(depth).join("f"), "x").unwrap();
            symlink(&kept, dir.path().join(depth).join("link")).unwrap();
            fs::create_dir_all(dir.path().join(depth).join("other/empty")).unwrap();
        }
        let root = open_root(dir.path()).unwrap();
        assert!(remove_tree(&root, b"tree").unwrap());
        assert!(!remove_tree(&root, b"tree").unwrap());
        assert!(kept.join("file").exists());
        assert!(!dir.path().join("tree").exists());
    }
}

//! Paths of an image, their links followed inside it.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Symbolic links followed before giving up. Source: the kernel's own limit, path_resolution(7).
const MAX_LINKS: usize = 40;

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Walked {
    /// The path without any link, below the root.
    pub(super) path: PathBuf,
    /// A link was followed.
    pub(super) linked: bool,
    /// It passes somebody's descriptors, directory, root or program, or has too many links to tell.
    pub(super) magic: bool,
}

/// Follows `path` inside `root`.
pub(super) fn walk(root: &Path, path: &Path) -> Walked {
    let mut left: Vec<OsString> = parts(path);
    let mut walked = Walked { path: PathBuf::from("/"), linked: false, magic: false };
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." {
            walked.path.pop();
            continue;
        }
        walked.path.push(&name);
        walked.magic |= is_descriptor(&walked.path);
        if let Ok(target) = std::fs::read_link(outside(root, &walked.path)) {
            links += 1;
            walked.linked = true;
            if links > MAX_LINKS {
                walked.magic = true;
                return walked;
            }
            walked.path.pop();
            if target.is_absolute() {
                walked.path = PathBuf::from("/");
            }
            left.extend(parts(&target));
        }
    }
    walked
}

/// Where a path of the root is for us.
pub(super) fn outside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Whether `path` passes through somebody's descriptors, directory, root or program, be it to climb out again.
pub(super) fn passes_descriptor(path: &Path) -> bool {
    let mut at = PathBuf::from("/");
    path.components().any(|part| {
        match part {
            Component::Normal(name) => at.push(name),
            Component::ParentDir => {
                at.pop();
            }
            _ => {}
        }
        is_descriptor(&at)
    })
}

/// The path without `.` and `..`, as if there were no links.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut at = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => at.push(name),
            Component::ParentDir => {
                at.pop();
            }
            _ => {}
        }
    }
    at
}

/// Whether a clean path is that of somebody's descriptors, directory, root or program: `/proc/<who>/fd` and the like.
fn is_descriptor(path: &Path) -> bool {
    let mut parts = path.iter().skip(1);
    if parts.next() != Some("proc".as_ref()) {
        return false;
    }
    let who = parts.next().unwrap_or_default();
    let digits =
        who.to_str().is_some_and(|who| !who.is_empty() && who.bytes().all(|byte| byte.is_ascii_digit()));
    if who != "self" && who != "thread-self" && !digits {
        return false;
    }
    parts.any(|part| ["fd", "cwd", "root", "exe", "map_files"].iter().any(|magic| part == *magic))
}

/// The components of a path, last first.
fn parts(path: &Path) -> Vec<OsString> {
    let named = |part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_of_the_image_are_followed_inside_it() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("w")).unwrap();
        symlink("/proc/self/fd/7", root.path().join("direct")).unwrap();
        symlink("../../direct", root.path().join("w/indirect")).unwrap();
        symlink("loop", root.path().join("loop")).unwrap();
        symlink("/w", root.path().join("fine")).unwrap();
        let magic = |path: &str| walk(root.path(), Path::new(path)).magic;
        assert!(magic("/direct"));
        assert!(magic("/w/indirect/x"));
        assert!(magic("/loop"));
        assert!(!magic("/fine/absent"));
        assert!(!magic("/etc/../.."));
        let walked = walk(root.path(), Path::new("/../fine/./a/../b"));
        assert_eq!(walked, Walked { path: "/w/b".into(), linked: true, magic: false });
        assert_eq!(clean(Path::new("/../fine/./a/../b")), Path::new("/fine/b"));
    }
}

use std::fs::{self, File};
use std::os::unix::fs::symlink;

use super::*;
use crate::mount_all;

fn tmpfs(target: &str) -> Mount {
    Mount {
        kind: "tmpfs".into(),
        source: "tmpfs".into(),
        target: target.into(),
        options: vec!["size=1m".into()],
    }
}

#[test]
fn unmounting_what_is_not_mounted() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(unmount(dir.path(), Busy::Wait).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(unmount(&dir.path().join("no"), Busy::Wait).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(unmount(&dir.path().join("no/no"), Busy::Wait).unwrap_err().kind(), ErrorKind::NotFound);
    for path in [dir.path().to_owned(), dir.path().join("no"), dir.path().join("no/no")] {
        unmount_all(&path, Busy::Wait).unwrap();
        unmount_recursive(&path, Busy::Wait).unwrap();
    }
}

#[test]
fn stacked_and_nested_mounts_go_away_together() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    mount_all(&[tmpfs(""), tmpfs("")], &root).unwrap();
    fs::create_dir_all(root.join("a b/c")).unwrap();
    mount_all(&[tmpfs("a b")], &root).unwrap();
    fs::create_dir(root.join("a b/c")).unwrap();
    mount_all(&[tmpfs("a b/c"), tmpfs("a b/c")], &root).unwrap();
    assert_eq!(info::mounts_below(&root).unwrap().len(), 5);
    unmount_recursive(&root, Busy::Wait).unwrap();
    assert!(info::mounts_below(&root).unwrap().is_empty());

    mount_all(&[tmpfs(""), tmpfs("")], &root).unwrap();
    unmount_all(&root, Busy::Wait).unwrap();
    assert!(!info::is_mount_point(&root).unwrap());
}

#[test]
fn a_busy_mount_is_an_error_or_detached() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    mount_all(&[tmpfs("")], dir.path()).unwrap();
    let held = File::create(dir.path().join("file")).unwrap();
    let error = unmount_all(dir.path(), Busy::Wait).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    unmount_all(dir.path(), Busy::Detach).unwrap();
    assert!(!info::is_mount_point(dir.path()).unwrap());
    drop(held);
}

#[test]
fn no_symlink_is_followed_to_a_mount() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    let (outside, link) = (dir.path().join("outside"), dir.path().join("link"));
    fs::create_dir(&outside).unwrap();
    symlink(&outside, &link).unwrap();
    mount_all(&[tmpfs("")], &outside).unwrap();
    unmount_all(&link, Busy::Detach).unwrap();
    unmount_recursive(&link, Busy::Detach).unwrap();
    // Nor one of a hostile tree, which would lead out of it.
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    symlink(&outside, root.join("evil")).unwrap();
    unmount_list(&[tmpfs("evil")], &root, Busy::Detach).unwrap();
    assert!(info::is_mount_point(&outside).unwrap());
    unmount_all(&outside, Busy::Wait).unwrap();
}

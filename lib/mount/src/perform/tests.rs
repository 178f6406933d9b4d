use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::info;
use gantry_core::ErrorKind;

fn entry(kind: &str, source: &Path, target: &str, options: &[&str]) -> Mount {
    Mount {
        kind: kind.into(),
        source: source.to_str().unwrap().into(),
        target: target.into(),
        options: options.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_read_only_bind_cannot_be_written_while_its_source_can() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    let (source, root) = (dir.path().join("source"), dir.path().join("root"));
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::create_dir(&root).unwrap();
    mount(&entry("tmpfs", Path::new("tmpfs"), "", &[]), &source.join("sub")).unwrap();
    fs::write(source.join("sub/inner"), "").unwrap();

    mount(&entry("bind", &source, "", &["rbind", "ro", "nosuid", "noatime"]), &root).unwrap();
    let error = fs::write(root.join("file"), "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert!(root.join("sub/inner").exists());
    let options = info::mount_of(&root).unwrap().options;
    assert!(
        ["ro", "nosuid", "noatime"].iter().all(|have| options.split(',').any(|o| o == *have)),
        "{options}"
    );
    fs::write(source.join("file"), "x").unwrap();
    unmount::unmount_recursive(&root, Busy::Wait).unwrap();

    // Without the mounts below it, and writable.
    mount(&entry("bind", &source, "", &["bind", "rw"]), &root).unwrap();
    assert!(!root.join("sub/inner").exists());
    fs::write(root.join("file"), "y").unwrap();
    mount(&entry("", Path::new(""), "", &["remount", "bind", "ro"]), &root).unwrap();
    assert!(fs::write(root.join("file"), "z").is_err());
    unmount::unmount_all(&root, Busy::Wait).unwrap();
    unmount::unmount_recursive(&source, Busy::Wait).unwrap();
}

#[test]
fn a_file_can_be_bound_to_a_file() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, "from").unwrap();
    fs::write(&to, "to").unwrap();
    mount(&entry("bind", &from, "", &["bind"]), &to).unwrap();
    assert_eq!(fs::read_to_string(&to).unwrap(), "from");
    unmount::unmount_all(&to, Busy::Wait).unwrap();
    assert_eq!(fs::read_to_string(&to).unwrap(), "to");
}

#[test]
fn a_target_in_a_hostile_tree_stays_in_it() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    symlink("/etc", root.join("link")).unwrap();
    mount(&entry("tmpfs", Path::new("tmpfs"), "link", &[]), &root).unwrap();
    assert!(info::is_mount_point(&root.join("etc")).unwrap());
    assert!(!info::is_mount_point(Path::new("/etc")).unwrap());
    unmount::unmount_list(&[entry("", Path::new(""), "link", &[])], &root, Busy::Wait).unwrap();
    assert!(!info::is_mount_point(&root.join("etc")).unwrap());
}

#[test]
fn a_list_that_fails_leaves_nothing_mounted() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let tmpfs = entry("tmpfs", Path::new("tmpfs"), "sub", &["mode=700"]);
    let missing = entry("bind", Path::new("/no/such/source"), "sub", &["bind"]);
    let error = mount_all(&[tmpfs.clone(), tmpfs.clone(), missing], dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("/no/such/source"), "{error}");
    assert!(info::mounts_below(dir.path()).unwrap().is_empty());

    let bad = entry("tmpfs", Path::new("tmpfs"), "sub", &["X-containerd.x"]);
    assert_eq!(mount_all(&[tmpfs, bad], dir.path()).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let error = mount_all(&[entry("no-such-fs", Path::new("x"), "", &[])], dir.path()).unwrap_err();
    assert_eq!(error.os_error(), Some(rustix::io::Errno::NODEV.raw_os_error()));
    let ids = ["uidmap=0:1000:1", "gidmap=0:1000:1"];
    let error = mount_all(&[entry("tmpfs", Path::new("x"), "", &ids)], dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unimplemented);
}

#[test]
fn propagation_is_set_on_the_new_mount() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    mount(&entry("tmpfs", Path::new("tmpfs"), "", &["shared"]), dir.path()).unwrap();
    let info = info::mount_of(dir.path()).unwrap();
    assert!(info.tags.iter().any(|tag| tag.starts_with("shared:")), "{info:?}");
    mount(&entry("", Path::new(""), "", &["remount", "bind", "rprivate"]), dir.path()).unwrap();
    assert_eq!(info::mount_of(dir.path()).unwrap().tags, Vec::<String>::new());
    unmount::unmount_all(dir.path(), Busy::Wait).unwrap();
}

#[test]
fn a_file_is_mounted_through_a_loop_device_that_is_freed_with_it() {
    gantry_testkit::root!();
    if !Path::new("/dev/loop-control").exists() {
        gantry_testkit::skip!("no loop devices");
    }
    let dir = tempfile::tempdir().unwrap();
    let (disk, root) = (dir.path().join("disk"), dir.path().join("root"));
    fs::create_dir(&root).unwrap();
    fs::File::create(&disk).unwrap().set_len(16 << 20).unwrap();
    let mkfs = gantry_sys::Spawn::new("/sbin/mkfs.ext4").arg("-q").arg(&disk).spawn().unwrap();
    assert!(mkfs.wait().unwrap().status.success());
    mount(&entry("ext4", &disk, "", &["loop"]), &root).unwrap();
    fs::write(root.join("file"), "x").unwrap();
    let device = info::mount_of(&root).unwrap().source;
    let backing =
        format!("/sys/block/{}/loop/backing_file", Path::new(&device).file_name().unwrap().display());
    assert!(Path::new(&backing).exists());
    unmount::unmount_all(&root, Busy::Wait).unwrap();
    mount(&entry("ext4", &disk, "", &["loop", "ro"]), &root).unwrap();
    assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "x");
    assert!(fs::write(root.join("file"), "y").is_err());
    unmount::unmount_all(&root, Busy::Wait).unwrap();
}

#[test]
fn a_mapped_bind_shows_other_ids() {
    gantry_testkit::root!();
    use std::os::unix::fs::{MetadataExt, chown};
    let dir = tempfile::tempdir().unwrap();
    let (source, root) = (dir.path().join("source"), dir.path().join("root"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&root).unwrap();
    fs::write(source.join("file"), "").unwrap();
    chown(source.join("file"), Some(5), Some(6)).unwrap();
    let options = ["bind", "uidmap=0:100000:65536", "gidmap=0:200000:65536"];
    mount(&entry("bind", &source, "", &options), &root).unwrap();
    let shown = fs::metadata(root.join("file")).unwrap();
    assert_eq!((shown.uid(), shown.gid()), (100_005, 200_006));
    unmount::unmount_all(&root, Busy::Wait).unwrap();
}

//! Blobs on a file system with fs-verity: the kernel lets nobody change them, and the daemon uses them all the same.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use gantry_testkit::{DaemonOptions, Program, busybox_image, root, run, skip};

/// All files below `dir`.
fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn blobs_are_protected_where_the_file_system_can() {
    root!();
    let dir = tempfile::tempdir().unwrap();
    let (disk, place) = (dir.path().join("disk"), dir.path().join("place"));
    File::create(&disk).unwrap().set_len(256 << 20).unwrap();
    std::fs::create_dir(&place).unwrap();
    // Linux before 6.3 wants blocks as large as pages.
    let mkfs = ["-q", "-O", "verity", "-b", "4096"];
    run(Command::new("mkfs.ext4").args(mkfs).arg(&disk)).expect_success("mkfs.ext4");
    // A kernel without fs-verity mounts such a disk to read only.
    let mounted = run(Command::new("mount").args(["-o", "loop"]).args([&disk, &place]));
    if !mounted.success() || !Path::new("/sys/fs/ext4/features/verity").exists() {
        skip!("the kernel has no fs-verity");
    }
    let root = place.join("root");
    let mut daemon = DaemonOptions::new(Program::under_test()).root(&root).start();
    let archive = dir.path().join("image.tar");
    busybox_image().write_oci_archive(&archive, "example.org/busybox:1");
    daemon.ctr().ok(&["images", "import", &archive.to_string_lossy()]);
    let content = root.join("io.containerd.content.v1.content");
    let blobs = files(&content.join("blobs"));
    assert!(blobs.len() >= 3, "{blobs:?}");
    // containerd has it since 2.0.
    if !daemon.program().is_containerd() {
        for blob in &blobs {
            let refused = File::options().write(true).open(blob).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{}", blob.display());
        }
    }
    daemon.restart();
    let ctr = daemon.ctr();
    assert_eq!(ctr.ok(&["run", "--rm", "example.org/busybox:1", "c", "/bin/echo", "works"]), "works\n");
    daemon.clear("default");
    gantry_testkit::eventually("the blobs to be collected", || {
        files(&content.join("blobs")).is_empty().then_some(())
    });
    assert!(files(&content).iter().all(|file| !file.to_string_lossy().contains("fsverity")));
    daemon.stop();
    run(Command::new("umount").arg(&place)).expect_success("umount");
}

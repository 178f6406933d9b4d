//! Archives of GNU tar are read as it writes them, and it reads ours.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use common::{run, tree, unpack};
use gantry_archive::{WriteLayer, write_changes};
use gantry_core::Context;
use gantry_testkit::root;

/// A tree with one of everything.
fn make(dir: &Path) {
    fs::create_dir_all(dir.join("etc/sub")).unwrap();
    fs::write(dir.join("etc/motd"), "hello").unwrap();
    fs::write(dir.join("big"), vec![0x5au8; 3_000_001]).unwrap();
    fs::set_permissions(dir.join("etc/motd"), fs::Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(dir.join("etc/motd"), Some(1234), Some(3_000_000)).unwrap();
    fs::set_permissions(dir.join("etc/motd"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("../etc/motd", dir.join("etc/link")).unwrap();
    symlink("t".repeat(180), dir.join("etc/long-link")).unwrap();
    fs::hard_link(dir.join("etc/motd"), dir.join("hard")).unwrap();
    let long = dir.join("l".repeat(120)).join("m".repeat(150));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("näme"), "long").unwrap();
    run("mknod", &[&dir.join("null").to_string_lossy(), "c", "1", "3"]);
    run("mkfifo", &[&dir.join("fifo").to_string_lossy()]);
    let holes = fs::File::create(dir.join("holes")).unwrap();
    for index in 0..40u64 {
        holes.write_all_at(b"data", index * 100_000 + 7).unwrap();
    }
    holes.set_len(5_000_000).unwrap();
    fs::File::create(dir.join("only-hole")).unwrap().set_len(1_000_000).unwrap();
    fs::set_permissions(dir.join("etc/sub"), fs::Permissions::from_mode(0o1777)).unwrap();
    // Whole seconds, which every format holds.
    let paths: Vec<String> = tree(dir).into_keys().collect();
    for path in paths.iter().rev() {
        run("touch", &["-h", "-d", "@1700000001", &dir.join(path).to_string_lossy()]);
    }
}

#[test]
fn every_format_of_gnu_tar_is_read() {
    root!();
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    make(&from);
    let want = tree(&from);
    for (index, options) in [
        &["--format=gnu"][..],
        &["--format=pax"],
        &["--format=posix", "--xattrs"],
        &["--format=gnu", "--sparse"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ]
    .iter()
    .enumerate()
    {
        let archive = dir.path().join("archive.tar");
        let (archive_name, from_name) = (archive.to_string_lossy(), from.to_string_lossy());
        let args = [&["--numeric-owner"], *options, &["-cf", &archive_name, "-C", &from_name, "."]].concat();
        run("tar", &args);
        let to = dir.path().join(format!("to{index}"));
        fs::create_dir(&to).unwrap();
        unpack(&fs::read(&archive).unwrap(), &to).unwrap();
        let got = tree(&to);
        for (path, line) in &want {
            assert_eq!(got.get(path), Some(line), "{options:?} {path}");
        }
        assert_eq!(got.len(), want.len());
        if options.contains(&"--sparse") {
            assert!(to.join("holes").metadata().unwrap().blocks() < 1000, "holes stay holes: {options:?}");
        }
    }
}

#[test]
fn gnu_tar_reads_a_layer_of_ours() {
    root!();
    let dir = tempfile::tempdir().unwrap();
    let (from, empty, to) = (dir.path().join("from"), dir.path().join("empty"), dir.path().join("to"));
    make(&from);
    fs::create_dir(&empty).unwrap();
    fs::create_dir(&to).unwrap();
    let cx = Context::background();
    let layer = write_changes(&cx, &empty, &from, Vec::new(), &WriteLayer::default()).unwrap();
    assert_eq!(write_changes(&cx, &empty, &from, Vec::new(), &WriteLayer::default()).unwrap(), layer);
    let archive = dir.path().join("layer.tar");
    fs::write(&archive, &layer).unwrap();
    run("tar", &["--numeric-owner", "-xpf", &archive.to_string_lossy(), "-C", &to.to_string_lossy()]);
    assert_eq!(tree(&to), tree(&from));
}

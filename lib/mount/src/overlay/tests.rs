use std::fs;
use std::path::PathBuf;

use super::*;
use crate::{Busy, Mount, info, target, unmount_all};

#[test]
fn lists_of_layers_are_split_at_bare_colons() {
    assert_eq!(split("/a:/b"), (vec!["/a", "/b"], vec![]));
    assert_eq!(split("/a\\:x:/b\\\\:/c"), (vec!["/a\\:x", "/b\\\\", "/c"], vec![]));
    assert_eq!(split("/a:/b::/c::/d"), (vec!["/a", "/b"], vec!["/c", "/d"]));
    assert_eq!(unescape("/a\\:x\\\\\\,"), "/a:x\\,");
}

#[test]
fn layers_are_made_relative_to_what_they_share() {
    let options =
        Options::parse(["lowerdir=/r/s/12/fs:/r/s/1/fs:/r/s/1", "upperdir=/u", "workdir=/w", "index=off"]);
    let options = options.unwrap();
    let layers = Layers::of(&options);
    let common = common_directory(&layers).unwrap();
    assert_eq!(common, "/r/s");
    assert_eq!(relative_to(&layers, common).join(), "workdir=/w,upperdir=/u,lowerdir=12/fs:1/fs:1,index=off");
    for (list, common) in [("/a:/b", "/"), ("/a/b:/a/b", "/a"), ("/a/b:/a/b/c", "/a"), ("/x", "/")] {
        let options = Options::parse([format!("lowerdir={list}")]).unwrap();
        assert_eq!(common_directory(&Layers::of(&options)).unwrap(), common, "{list}");
    }
    assert!(common_directory(&Layers::default()).is_err());
}

/// Layers below a root path of `length` bytes; layer `n` holds a file `n` and a common file `top`.
fn layers(dir: &Path, length: usize, count: usize) -> (PathBuf, Vec<String>) {
    let dir = dir.canonicalize().unwrap();
    // Names have at most 255 bytes.
    let mut root = dir;
    while root.as_os_str().len() < length {
        let missing = length - root.as_os_str().len();
        root.push("r".repeat(missing.saturating_sub(1).clamp(1, 200)));
    }
    let paths: Vec<_> = (0..count).map(|n| root.join(format!("snapshots/{n}/fs"))).collect();
    for (n, path) in paths.iter().enumerate() {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join(n.to_string()), "").unwrap();
        fs::write(path.join("top"), n.to_string()).unwrap();
    }
    let lower = paths.iter().rev().map(|path| path.to_str().unwrap().to_owned()).collect();
    (root, lower)
}

fn check(merged: &Path, count: usize) {
    assert_eq!(fs::read_to_string(merged.join("top")).unwrap(), (count - 1).to_string());
    assert_eq!(fs::read_dir(merged).unwrap().count(), count + 1);
}

#[test]
fn a_hundred_layers_under_a_long_root_mount_either_way() {
    gantry_testkit::root!();
    for length in [100, 300] {
        let dir = tempfile::tempdir().unwrap();
        let (root, lower) = layers(dir.path(), length, 100);
        let [upper, work, merged] = ["u", "w", "m"].map(|name| dir.path().join(name));
        for path in [&upper, &work, &merged] {
            fs::create_dir(path).unwrap();
        }
        let words = [
            format!("lowerdir={}", lower.join(":")),
            format!("upperdir={}", upper.display()),
            format!("workdir={}", work.display()),
            "index=off".to_owned(),
            "nosuid".to_owned(),
        ];
        assert!(words[0].len() > MAX_DATA_BYTES && root.as_os_str().len() >= length);
        let options = Options::parse(&words).unwrap();
        let mut ways = vec![false];
        if supports_appending() {
            ways.push(true);
        }
        for append in ways {
            let fd = target::open(&merged, "").unwrap();
            mount_long("overlay", &options, &Layers::of(&options), &fd, append).unwrap();
            drop(fd);
            check(&merged, 100);
            fs::write(merged.join("written"), "").unwrap();
            assert!(upper.join("written").exists());
            assert!(info::mount_of(&merged).unwrap().options.contains("nosuid"));
            unmount_all(&merged, Busy::Wait).unwrap();
            fs::remove_file(upper.join("written")).unwrap();
        }
        // And as callers do it, read-only.
        let list = [Mount {
            kind: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: vec![words[0].clone(), "ro".into()],
        }];
        crate::mount_all(&list, &merged).unwrap();
        check(&merged, 100);
        assert!(fs::write(merged.join("written"), "").is_err());
        unmount_all(&merged, Busy::Wait).unwrap();
    }
}

#[test]
fn paths_with_colons_and_commas_survive_every_way() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let names = ["a:b", "c\\d", "e,f"].map(|name| dir.join(name));
    let [upper, work, merged] = ["u:p", "w:k", "m"].map(|name| dir.join(name));
    for path in names.iter().chain([&upper, &work, &merged]) {
        fs::create_dir(path).unwrap();
        fs::write(path.join(path.file_name().unwrap()), "").unwrap();
    }
    fs::remove_file(work.join("w:k")).unwrap();
    // As mount(2) wants them.
    let escape = |path: &PathBuf, chars: &[char]| {
        let mut text = String::new();
        for c in path.to_str().unwrap().chars() {
            if chars.contains(&c) {
                text.push('\\');
            }
            text.push(c);
        }
        text
    };
    let lower: Vec<_> = names.iter().map(|path| escape(path, &[':', '\\', ','])).collect();
    let words = [
        format!("lowerdir={}", lower.join(":")),
        format!("upperdir={}", escape(&upper, &['\\', ','])),
        format!("workdir={}", escape(&work, &['\\', ','])),
    ];
    let options = Options::parse(&words).unwrap();
    let seen = |way: &str| {
        for name in ["a:b", "c\\d", "e,f", "u:p"] {
            assert!(merged.join(name).exists(), "{name:?} {way}");
        }
        unmount_all(&merged, Busy::Wait).unwrap();
    };
    let fd = target::open(&merged, "").unwrap();
    mount("overlay", &options, &fd).unwrap();
    seen("in one call");
    mount_long("overlay", &options, &Layers::of(&options), &fd, false).unwrap();
    seen("relative");
    if supports_appending() {
        mount_long("overlay", &options, &Layers::of(&options), &fd, true).unwrap();
        seen("a layer at a time");
    }
}

#[test]
fn the_kernels_words_are_in_the_error() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    let fd = target::open(dir.path(), "").unwrap();
    let options = Options::parse(["lowerdir=/proc/self/no-such:/usr", "no_such_option"]).unwrap();
    for append in [false, supports_appending()] {
        let error = mount_long("overlay", &options, &Layers::of(&options), &fd, append).unwrap_err();
        assert!(error.os_error().is_some(), "{error}");
    }
}

#[test]
fn a_volatile_upper_is_mounted_again_in_the_same_boot_only() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let [lower, upper, work, merged] = ["l", "u", "w", "m"].map(|name| dir.join(name));
    for path in [&lower, &upper, &work, &merged] {
        fs::create_dir(path).unwrap();
    }
    let list = |words: &[&str]| {
        let mut options = vec![
            format!("lowerdir={}", lower.display()),
            format!("upperdir={}", upper.display()),
            format!("workdir={}", work.display()),
        ];
        options.extend(words.iter().map(ToString::to_string));
        [Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options }]
    };
    crate::mount_all(&list(&["volatile"]), &merged).unwrap();
    // In use: the mark must stay.
    let error = crate::mount_all(&list(&["volatile"]), &merged).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    unmount_all(&merged, Busy::Wait).unwrap();
    for words in [&["volatile"] as &[&str], &["volatile"], &[]] {
        crate::mount_all(&list(words), &merged).unwrap();
        fs::write(merged.join("file"), "x").unwrap();
        unmount_all(&merged, Busy::Wait).unwrap();
    }
    crate::mount_all(&list(&["volatile"]), &merged).unwrap();
    unmount_all(&merged, Busy::Wait).unwrap();
    // The machine was started anew.
    fs::write(work.join("gantry-volatile-boot"), "another").unwrap();
    let error = crate::mount_all(&list(&[]), &merged).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains(upper.to_str().unwrap()), "{error}");
}

#[test]
fn mapped_layers_show_other_ids_and_the_upper_directory_does_not() {
    gantry_testkit::root!();
    use std::os::unix::fs::{MetadataExt, chown};
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let [bottom, top, upper, work, merged] = ["b", "t", "u", "w", "m"].map(|name| dir.join(name));
    for path in [&bottom, &top, &upper, &work, &merged] {
        fs::create_dir(path).unwrap();
    }
    for path in [bottom.join("low"), top.join("high"), upper.join("own")] {
        fs::write(&path, "").unwrap();
        chown(&path, Some(5), Some(6)).unwrap();
    }
    let list = [Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        target: String::new(),
        options: vec![
            format!("lowerdir={}:{}", top.display(), bottom.display()),
            format!("upperdir={}", upper.display()),
            format!("workdir={}", work.display()),
            "uidmap=0:100000:65536".into(),
            "gidmap=0:200000:65536".into(),
        ],
    }];
    let before = info::mounts().unwrap().count();
    crate::mount_all(&list, &merged).unwrap();
    assert_eq!(info::mounts().unwrap().count(), before + 1);
    for (name, ids) in [("low", (100_005, 200_006)), ("high", (100_005, 200_006)), ("own", (5, 6))] {
        let shown = fs::metadata(merged.join(name)).unwrap();
        assert_eq!((shown.uid(), shown.gid()), ids, "{name}");
    }
    fs::write(merged.join("new"), "").unwrap();
    unmount_all(&merged, Busy::Wait).unwrap();
}

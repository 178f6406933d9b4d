//! The test that decides: a layer written straight into an overlay's upper directory looks, once mounted, as if it had
//! been extracted into the mount.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{run, tree, unpack};
use gantry_archive::{Lowers, OverlayXattrs, Target, WriteLayer, apply, write_changes, write_upper};
use gantry_core::{Context, ErrorKind};
use gantry_testkit::{Tar, root};

/// Layers on a disk of their own, extracted in two ways.
struct Stack {
    dir: PathBuf,
    layers: Vec<PathBuf>,
    whole: PathBuf,
    made: std::cell::Cell<u32>,
}

impl Stack {
    /// On a tmpfs: an overlay's upper directory cannot be on another overlay.
    fn new() -> Stack {
        let dir = PathBuf::from("/run/stack");
        fs::create_dir_all(&dir).unwrap();
        run("mount", &["-t", "tmpfs", "tmpfs", "/run/stack"]);
        let whole = dir.join("whole");
        fs::create_dir(&whole).unwrap();
        Stack { dir, layers: Vec::new(), whole, made: Default::default() }
    }

    fn make(&self, name: &str) -> PathBuf {
        let count = self.made.replace(self.made.get() + 1);
        let path = self.dir.join(format!("{name}{count}"));
        fs::create_dir(&path).unwrap();
        path
    }

    /// The layers so far, newest first.
    fn lowers(&self) -> Vec<PathBuf> {
        self.layers.iter().rev().cloned().collect()
    }

    fn mount(&self, upper: Option<&Path>) -> PathBuf {
        let (at, work) = (self.make(if upper.is_some() { "rw" } else { "ro" }), self.make("work"));
        let lowers: Vec<String> = self.lowers().iter().map(|dir| dir.display().to_string()).collect();
        let mut options = format!("lowerdir={}", lowers.join(":"));
        if let Some(upper) = upper {
            options += &format!(",upperdir={},workdir={},index=off", upper.display(), work.display());
        } else {
            options += ":/run/stack/nothing";
            fs::create_dir_all(self.dir.join("nothing")).unwrap();
        }
        run("mount", &["-t", "overlay", "overlay", "-o", &options, &at.to_string_lossy()]);
        at
    }

    /// Adds a layer, having compared: written into an upper directory and mounted; extracted into a mount;
    /// extracted into a copy of the whole.
    fn add(&mut self, archive: &[u8]) {
        let direct = self.make("layer");
        let lowers = Lowers::Known(self.lowers());
        let target = Target::Overlay { upper: direct.clone(), lowers, xattrs: OverlayXattrs::Trusted };
        let done = apply(&Context::background(), archive, &target).unwrap();
        assert_eq!((done.implied, done.missing_links), (Vec::new(), Vec::new()));
        unpack(archive, &self.whole).unwrap();
        let mounted = (!self.layers.is_empty()).then(|| {
            let upper = self.make("upper");
            let merged = self.mount(Some(&upper));
            unpack(archive, &merged).unwrap();
            let mounted = tree(&merged);
            run("umount", &[&merged.to_string_lossy()]);
            fs::remove_dir(&merged).unwrap();
            mounted
        });
        self.layers.push(direct);
        if let Some(mounted) = mounted {
            same(&self.seen(), &mounted, "written directly, extracted into a mount");
        }
        same(&self.seen(), &tree(&self.whole), "written directly, extracted into one directory");
    }

    /// What a mount of all layers shows.
    fn seen(&self) -> BTreeMap<String, String> {
        let at = self.mount(None);
        let seen = tree(&at);
        run("umount", &[&at.to_string_lossy()]);
        fs::remove_dir(&at).unwrap();
        seen
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        run("umount", &["-l", "/run/stack"]);
    }
}

/// Compares but for times of files that only exist because somebody wrote something below them just now.
fn same(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>, what: &str) {
    // A directory that no layer lists is made at the time of writing.
    let strip = |line: &String| {
        let mut words: Vec<&str> = line.split(' ').collect();
        if words.len() > 2 && !words[2].starts_with("1700000000.") && !words[2].starts_with("1600000000.") {
            words[2] = "now";
        }
        words.join(" ")
    };
    for path in a.keys().chain(b.keys()) {
        assert_eq!(a.get(path).map(strip), b.get(path).map(strip), "{what}: {path}");
    }
}

fn base() -> Tar {
    Tar::new()
        .dir("tmp", 0o1777)
        .dir("usr", 0o755)
        .dir("usr/lib", 0o755)
        .file("usr/lib/libc", 0o755, "libc")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr/lib")
        .owner(100, 200)
        .xattr("user.colour", b"green")
        .dir("srv", 0o2750)
        .file("srv/a", 0o644, "a")
        .file("srv/b", 0o4755, "b")
        .hardlink("srv/b2", "srv/b")
        .owner(0, 0)
        .dir("etc", 0o755)
        .dir("etc/conf.d", 0o711)
        .file("etc/conf.d/x", 0o600, "x")
        .dir("etc/deep", 0o700)
        .dir("etc/deep/er", 0o701)
        .file("etc/deep/er/f", 0o644, "f")
        .file("file", 0o644, "file")
        .dir("dir", 0o755)
        .file("dir/in", 0o644, "in")
        .fifo("pipe", 0o644)
        .device("null", 0o666, 1, 3)
}

#[test]
fn parents_that_are_not_listed_look_as_below() {
    root!();
    let mut stack = Stack::new();
    stack.add(&base().finish());
    stack.add(
        &Tar::new()
            .file("tmp/f", 0o644, "f")
            .file("srv/sub/new", 0o644, "new")
            .file("etc/deep/er/g", 0o644, "g")
            .file("lib/libm", 0o755, "libm")
            .file("abs/libz", 0o755, "libz")
            .file("new/dir/file", 0o644, "x")
            .finish(),
    );
    stack.add(
        &Tar::new()
            .file("srv/sub/newer", 0o644, "x")
            .file("lib/sub/x", 0o644, "y")
            .whiteout("srv/a")
            .finish(),
    );
    assert!(stack.layers[1].join("usr/lib/libm").exists(), "a link below is followed");
    assert!(!stack.layers[1].join("lib").exists(), "a link below is not hidden");
}

#[test]
fn what_is_removed_and_made_again_shows_nothing_of_before() {
    root!();
    let mut stack = Stack::new();
    stack.add(&base().finish());
    stack.add(
        &Tar::new()
            .whiteout("file")
            .whiteout("etc/conf.d")
            .dir("etc/conf.d", 0o755)
            .file("etc/conf.d/new", 0o644, "new")
            .file("dir", 0o644, "a file now")
            .dir("dir", 0o700)
            .file("dir/later", 0o644, "")
            .dir("file", 0o755)
            .file("file/in", 0o644, "")
            .file("lib", 0o644, "no link now")
            .dir("abs", 0o755)
            .file("abs/x", 0o644, "")
            .whiteout("missing")
            .whiteout("no/such/dir")
            .finish(),
    );
    stack.add(&Tar::new().whiteout("dir/later").whiteout("srv/b").whiteout("pipe").whiteout("usr").finish());
    stack.add(
        &Tar::new().file("usr/lib/back", 0o644, "x").file("srv/b", 0o644, "back").dir("pipe", 0o755).finish(),
    );
}

#[test]
fn opaque_marks_hide_what_lies_below_in_any_order() {
    root!();
    let mut stack = Stack::new();
    stack.add(&base().finish());
    stack.add(
        &Tar::new()
            .file("srv/new", 0o644, "new")
            .whiteout("srv/a")
            .opaque("srv")
            .whiteout("srv/b")
            .opaque("etc")
            .dir("etc/conf.d", 0o755)
            .file("etc/conf.d/y", 0o644, "y")
            .file("usr/lib/one", 0o644, "")
            .whiteout("usr/lib/libc")
            .file("usr/lib/sub/two", 0o644, "")
            .opaque("usr")
            .opaque("usr")
            .opaque("not/there")
            .finish(),
    );
    stack
        .add(&Tar::new().file("etc/conf.d/z", 0o644, "z").file("srv/more", 0o644, "").opaque("dir").finish());
    stack.add(
        &Tar::new().file("kept", 0o644, "").dir("usr", 0o755).file("usr/x", 0o644, "").opaque(".").finish(),
    );
}

#[test]
fn hard_links_reach_into_lower_layers() {
    root!();
    let mut stack = Stack::new();
    stack.add(&base().finish());
    stack.add(
        &Tar::new()
            .owner(100, 200)
            .hardlink("srv/c", "srv/a")
            .hardlink("elsewhere/libc", "lib/libc")
            .hardlink("pipe2", "/pipe")
            .hardlink("lib2", "lib")
            .finish(),
    );
    let target = Target::Overlay {
        upper: stack.make("refused"),
        lowers: Lowers::Known(stack.lowers()),
        xattrs: OverlayXattrs::Trusted,
    };
    for missing in ["srv/none", "srv", "none/none"] {
        let archive = Tar::new().hardlink("x", missing).finish();
        let error = apply(&Context::background(), &archive[..], &target).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}

#[test]
fn over_unknown_layers_what_depends_on_them_is_reported() {
    root!();
    let stack = Stack::new();
    let upper = stack.make("upper");
    let target =
        Target::Overlay { upper: upper.clone(), lowers: Lowers::Unknown, xattrs: OverlayXattrs::Trusted };
    let archive = Tar::new()
        .file("tmp/f", 0o644, "f")
        .file("lib/x/y", 0o644, "y")
        .dir("lib/x", 0o755)
        .file("own", 0o644, "")
        .hardlink("own2", "own")
        .hardlink("srv/link", "srv/target")
        .whiteout("gone")
        .finish();
    let done = apply(&Context::background(), &archive[..], &target).unwrap();
    assert_eq!(done.implied, ["lib", "srv", "tmp"].map(PathBuf::from));
    assert_eq!(done.missing_links.len(), 1);
    assert_eq!(done.missing_links[0].path, Path::new("srv/link"));
    assert_eq!(done.missing_links[0].target, Path::new("srv/target"));
    assert!(tree(&upper)["gone"].contains("device 0"));
}

#[test]
fn a_layer_of_the_difference_gives_the_same_tree_again() {
    root!();
    let mut stack = Stack::new();
    stack.add(&base().finish());
    let lower = stack.seen();
    let upper = stack.make("upper");
    let merged = stack.mount(Some(&upper));
    let at = |name: &str| merged.join(name);
    fs::write(at("srv/a"), "changed").unwrap();
    fs::remove_file(at("file")).unwrap();
    fs::remove_dir_all(at("etc/conf.d")).unwrap();
    fs::create_dir(at("etc/conf.d")).unwrap();
    fs::write(at("etc/conf.d/new"), "new").unwrap();
    fs::remove_dir_all(at("dir")).unwrap();
    fs::write(at("dir"), "a file").unwrap();
    fs::create_dir(at("made")).unwrap();
    fs::write(at("made/one"), "one").unwrap();
    fs::hard_link(at("made/one"), at("made/two")).unwrap();
    fs::remove_file(at("lib")).unwrap();
    fs::write(at("made/gone"), "").unwrap();
    fs::remove_file(at("made/gone")).unwrap();
    let wanted = tree(&merged);
    let cx = Context::background();
    let how = WriteLayer {
        source_date_epoch: Some(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000)),
    };
    let nothing = stack.make("nothing");
    let walked = {
        let below = stack.mount(None);
        let layer = write_changes(&cx, &below, &merged, Vec::new(), &how).unwrap();
        run("umount", &[&below.to_string_lossy()]);
        fs::remove_dir(&below).unwrap();
        layer
    };
    run("umount", &[&merged.to_string_lossy()]);
    fs::remove_dir(&merged).unwrap();
    let read = write_upper(&cx, &upper, &stack.lowers(), OverlayXattrs::Trusted, Vec::new(), &how).unwrap();
    for layer in [walked, read] {
        let copy = stack.dir.join("copy");
        fs::create_dir(&copy).unwrap();
        unpack(&base().finish(), &copy).unwrap();
        same(&tree(&copy), &lower, "the lower layer");
        unpack(&layer, &copy).unwrap();
        let wanted = wanted.iter().map(|(path, line)| {
            // Times of changed files were cut.
            let mut words: Vec<&str> = line.split(' ').collect();
            words[2] = "any";
            (path.clone(), words.join(" "))
        });
        let got = tree(&copy).into_iter().map(|(path, line)| {
            let mut words: Vec<&str> = line.split(' ').collect();
            words[2] = "any";
            (path, words.join(" "))
        });
        assert_eq!(got.collect::<BTreeMap<_, _>>(), wanted.collect::<BTreeMap<_, _>>());
        fs::remove_dir_all(&copy).unwrap();
    }
    fs::remove_dir(&nothing).unwrap();
}

#[test]
fn marks_without_end_are_taken_in_one_pass() {
    root!();
    // S28: deep directories, and marks on each of them again and again.
    let mut stack = Stack::new();
    stack.add(&base().finish());
    let mut archive = Tar::new();
    let mut deep = "etc/deep".to_owned();
    for level in 0..60 {
        deep = format!("{deep}/d{level}");
        for index in 0..20 {
            archive = archive
                .file(&format!("{deep}/f{index}"), 0o644, "x")
                .opaque("etc")
                .opaque(&deep)
                .whiteout(&format!("{deep}/g{index}"));
        }
    }
    stack.add(&archive.finish());
}

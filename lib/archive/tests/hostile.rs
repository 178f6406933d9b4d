//! Archives that want out of their root, or want too much.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{tree, unpack};
use gantry_archive::{Compression, Lowers, OverlayXattrs, Target, apply, apply_layer};
use gantry_core::{Context, ErrorKind};
use gantry_testkit::{Tar, root};

/// A directory with a root for archives, and a file next to it that no archive may touch.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/canary"), "canary").unwrap();
        fs::set_permissions(dir.path().join("outside/canary"), fs::Permissions::from_mode(0o600)).unwrap();
        Place { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    /// Extracts in both modes; afterwards everything outside is as it was.
    fn stays_inside(&self, archive: &[u8]) {
        let before = tree(&self.outside());
        let overlay = Target::Overlay {
            upper: self.root(),
            lowers: Lowers::Known(Vec::new()),
            xattrs: OverlayXattrs::Trusted,
        };
        for target in [Target::Directory(self.root()), overlay] {
            drop(apply(&Context::background(), archive, &target));
            assert_eq!(tree(&self.outside()), before);
            let above: Vec<_> =
                fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(above.len(), 2, "{above:?}");
            fs::remove_dir_all(self.root()).unwrap();
            fs::create_dir(self.root()).unwrap();
        }
    }
}

#[test]
fn names_with_dots_and_absolute_names_stay_inside() {
    root!();
    let place = Place::new();
    let up = "../".repeat(10);
    let absolute = place.outside().join("new");
    let archive = Tar::new()
        .file("../new", 0o644, "x")
        .file(&format!("{up}tmp/../../new2"), 0o644, "x")
        .file(&absolute.to_string_lossy(), 0o644, "x")
        .dir("..", 0o777)
        .dir("/", 0o777)
        .file("a/../../outside/canary", 0o777, "gone")
        .finish();
    unpack(&archive, &place.root()).unwrap();
    assert!(place.root().join("new").is_file() && place.root().join("new2").is_file());
    assert_eq!(fs::read(place.root().join("outside/canary")).unwrap(), b"gone");
    place.stays_inside(&archive);
}

#[test]
fn links_out_of_the_root_are_followed_within_it() {
    root!();
    let place = Place::new();
    let outside = place.outside();
    let outside = outside.to_string_lossy();
    let archive = Tar::new()
        .symlink("abs", &outside)
        .file("abs/through", 0o644, "x")
        .symlink("rel", "../outside")
        .file("rel/canary", 0o777, "gone")
        .symlink("chain", "rel/../abs")
        .file("chain/.wh.canary", 0, "")
        .file("chain/.wh..wh..opq", 0, "")
        .symlink("self", "self")
        .symlink("file", &format!("{outside}/canary"))
        .file("file", 0o755, "replaced")
        .finish();
    unpack(&archive, &place.root()).unwrap();
    let inside = place.root().join(outside.trim_start_matches('/'));
    assert!(inside.join("through").is_file());
    assert_eq!(fs::read(place.root().join("outside/canary")).unwrap(), b"gone");
    assert!(place.root().join("file").symlink_metadata().unwrap().is_file());
    place.stays_inside(&archive);
    let error = unpack(&Tar::new().symlink("self", "self").file("self/x", 0o644, "").finish(), &place.root());
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn hard_links_and_modes_do_not_reach_outside() {
    root!();
    let place = Place::new();
    let canary = place.outside().join("canary");
    let canary = canary.to_string_lossy();
    // S04: links to the canary, then entries that change modes onto them.
    for link in [&*canary, "../outside/canary", "out/canary"] {
        let archive =
            Tar::new().symlink("out", "../outside").hardlink("hard", link).file("hard", 0o4777, "x").finish();
        place.stays_inside(&archive);
        let error = unpack(&archive, &place.root()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    let archive = Tar::new()
        .symlink("soft", &canary)
        .owner(12, 34)
        .hardlink("hard", "soft")
        .dir("soft", 0o777)
        .finish();
    unpack(&archive, &place.root()).unwrap();
    assert!(place.root().join("hard").symlink_metadata().unwrap().is_symlink());
    place.stays_inside(&archive);
}

#[test]
fn whatever_comes_later_replaces_whatever_was_there() {
    root!();
    let place = Place::new();
    let archive = Tar::new()
        .dir("d", 0o755)
        .file("d/f", 0o644, "x")
        .device("d", 0o600, 1, 3)
        .symlink("s", "d")
        .dir("s", 0o711)
        .file("f", 0o644, "one")
        .hardlink("g", "f")
        .file("f", 0o600, "two")
        .fifo("p", 0o640)
        .dir("p", 0o700)
        .file("p/in", 0o644, "")
        .file("p", 0o644, "file")
        .hardlink("f", "f")
        .finish();
    unpack(&archive, &place.root()).unwrap();
    let at = |name: &str| place.root().join(name);
    assert_eq!(at("d").symlink_metadata().unwrap().rdev(), 0x103);
    assert_eq!(at("s").symlink_metadata().unwrap().mode() & 0o177_777, 0o040_711);
    assert_eq!(fs::read(at("g")).unwrap(), b"one");
    assert_eq!(fs::read(at("f")).unwrap(), b"two");
    assert_eq!(at("f").metadata().unwrap().nlink(), 1);
    assert_eq!(fs::read(at("p")).unwrap(), b"file");
    for bad in [
        Tar::new().dir("d", 0o755).hardlink("x", "d"),
        Tar::new().hardlink("x", ".."),
        Tar::new().hardlink("x", "missing"),
        Tar::new().file("file", 0o644, "").file("file/below", 0o644, ""),
        Tar::new().file("a/.wh..", 0, ""),
        Tar::new().symlink("x", ""),
    ] {
        let place = Place::new();
        let error = unpack(&bad.finish(), &place.root()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}

#[test]
fn an_archive_that_ends_early_is_refused_and_takes_no_room() {
    root!();
    let place = Place::new();
    for size in [1 << 30, (1u64 << 33) - 1] {
        let archive = Tar::new().file("first", 0o644, "x").lying_file("second", size).unfinished();
        let error = unpack(&archive, &place.root()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(place.root().join("second").metadata().unwrap().blocks() < 100);
    }
    for bytes in [&[0x5a; 4096][..], b"no archive", &[0u8; 100][..]] {
        let error = unpack(bytes, &place.root()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    for empty in [&[][..], &[0u8; 512][..], &[0u8; 1024][..], &[0u8; 10240][..]] {
        assert_eq!(unpack(empty, &place.root()).unwrap().entries, 0);
    }
}

#[test]
fn all_bytes_of_the_stream_count_for_the_diff_id() {
    root!();
    let place = Place::new();
    let mut archive = Tar::new().file("a", 0o644, "x").finish();
    let short =
        apply_layer(&Context::background(), &archive[..], None, &Target::Directory(place.root())).unwrap();
    archive.extend_from_slice(&[b'z'; 100_000]);
    let sum = gantry_testkit::sha256(&archive);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let mut packed = gantry_archive::Compressor::new(Vec::new(), compression).unwrap();
        std::io::Write::write_all(&mut packed, &archive).unwrap();
        let packed = packed.finish().unwrap();
        for stated in [None, Some(compression)] {
            let cx = Context::background();
            let done = apply_layer(&cx, &packed[..], stated, &Target::Directory(place.root())).unwrap();
            assert!(sum.to_string().contains(done.diff_id.hex()), "{sum} {}", done.diff_id);
            assert_eq!(done.size_bytes, archive.len() as u64);
            assert_eq!((done.applied.entries, done.applied.content_bytes), (1, 1));
            assert_ne!(done.diff_id, short.diff_id);
        }
    }
}

#[test]
fn a_cancelled_call_stops() {
    root!();
    let place = Place::new();
    let token = tokio_util::sync::CancellationToken::new();
    let cx = Context::background().with_cancellation(token.clone());
    token.cancel();
    let archive = Tar::new().file("a", 0o644, "x").finish();
    let error = apply_layer(&cx, &archive[..], None, &Target::Directory(place.root())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Canceled);
    assert!(!place.root().join("a").exists());
}

#[test]
fn s16_a_directory_swapped_for_a_link_leads_nowhere() {
    root!();
    // S16: another thread swaps a directory of the root for a link to the outside, again and again.
    let place = Place::new();
    let before = tree(&place.outside());
    let mut archive = Tar::new().dir("swapped", 0o755);
    for index in 0..400 {
        archive = archive
            .file(&format!("swapped/f{index}"), 0o666, "x")
            .dir(&format!("swapped/d{index}"), 0o777)
            .file(&format!("swapped/d{index}/f"), 0o666, "x")
            .symlink(&format!("swapped/s{index}"), "canary")
            .hardlink(&format!("swapped/h{index}"), &format!("swapped/f{index}"))
            .whiteout("swapped/canary");
    }
    let archive = archive.finish();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&place.root().join("swapped"), &place.outside(), &stop));
        for _ in 0..8 {
            // Most rounds fail somewhere; what counts is where they write.
            drop(unpack(&archive, &place.root()));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(tree(&place.outside()), before);
}

fn swap(path: &Path, outside: &Path, stop: &AtomicBool) {
    let aside = path.with_extension("aside");
    while !stop.load(Ordering::Relaxed) {
        if fs::rename(path, &aside).is_ok() {
            drop(symlink(outside, path));
            std::thread::yield_now();
            if path.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
                drop(fs::remove_file(path));
            }
            drop(fs::rename(&aside, path));
        }
    }
    drop(fs::rename(&aside, path));
}

#[test]
fn marks_of_an_overlay_never_come_out_of_an_archive() {
    root!();
    let place = Place::new();
    let archive = Tar::new()
        .xattr("trusted.overlay.redirect", b"/etc")
        .xattr("user.overlay.opaque", b"y")
        .xattr("trusted.other", b"x")
        .xattr("user.fine", b"x")
        .dir("d", 0o755)
        .xattr("user.fine", b"x")
        .symlink("link", "d")
        .finish();
    unpack(&archive, &place.root()).unwrap();
    let mut names = [0u8; 1024];
    let length = rustix::fs::listxattr(place.root().join("d"), &mut names[..]).unwrap();
    assert_eq!(&names[..length], b"user.fine\0");
}

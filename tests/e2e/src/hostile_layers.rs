//! Layers that try to write outside their root file system, and layers that are no archives.

use std::fs;
use std::path::Path;

use gantry_testkit::{Compression, Daemon, Image, ImageBuilder, Tar, busybox_layer, root};

fn image(hostile: Tar) -> Image {
    ImageBuilder::new()
        .layer(busybox_layer(), Compression::Gzip)
        .layer(hostile, Compression::Gzip)
        .env("PATH=/bin")
        .build()
}

/// Every file below `dir` called `name`, snapshots left out: what is in there is where it belongs.
fn find(dir: &Path, name: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name() == name {
            found.push(path.display().to_string());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.file_name() != "snapshots" {
            find(&path, name, found);
        }
    }
}

/// Imports `layer`, which may be refused or confined, but must not put `escaped` anywhere outside.
fn stays_inside(layer: Tar) {
    let daemon = Daemon::under_test();
    let ctr = daemon.ctr();
    let archive = daemon.dir().join("hostile.tar");
    image(layer).write_oci_archive(&archive, "example.org/hostile:1");
    let output = ctr.run(&["images", "import", &archive.to_string_lossy()]);
    if output.success() {
        // What was taken must also be usable, and removable.
        ctr.ok(&["run", "--rm", "example.org/hostile:1", "c1", "/bin/true"]);
    } else {
        assert!(
            !ctr.names(&["snapshots", "ls"]).iter().any(|key| key.starts_with("extract-")),
            "no half-made snapshot stays"
        );
    }
    let mut found = Vec::new();
    find(daemon.dir(), "escaped", &mut found);
    for dir in ["/", "/tmp", "/etc", "/run", "/root", "/var", "/var/lib"] {
        let path = Path::new(dir).join("escaped");
        if path.symlink_metadata().is_ok() {
            found.push(path.display().to_string());
            let _ = fs::remove_file(path);
        }
    }
    assert!(found.is_empty(), "outside the root file system: {found:?}");
    daemon.clear("default");
    daemon.leftovers().assert_none();
}

#[test]
fn names_with_dots_stay_inside() {
    root!();
    let up = "../".repeat(12);
    stays_inside(Tar::new().file("../escaped", 0o644, "x").file(&format!("{up}escaped"), 0o644, "x").file(
        &format!("tmp/{up}tmp/escaped"),
        0o644,
        "x",
    ));
}

#[test]
fn absolute_names_stay_inside() {
    root!();
    stays_inside(Tar::new().file("/escaped", 0o644, "x").file("//tmp/escaped", 0o644, "x"));
}

#[test]
fn links_to_elsewhere_are_not_followed() {
    root!();
    let up = "../".repeat(12);
    stays_inside(
        Tar::new()
            .symlink("abs", "/")
            .file("abs/escaped", 0o644, "x")
            .symlink("rel", &up)
            .file("rel/tmp/escaped", 0o644, "x")
            .symlink("chain", "rel")
            .file("chain/etc/escaped", 0o644, "x")
            .symlink("file", "/tmp/escaped")
            .file("file", 0o644, "x"),
    );
}

#[test]
fn hard_links_do_not_reach_outside() {
    root!();
    let up = "../".repeat(12);
    stays_inside(
        Tar::new()
            .symlink("out", &up)
            .hardlink("escaped-link", "out/etc/passwd")
            .hardlink("second", &format!("{up}etc/passwd")),
    );
}

#[test]
fn a_hard_link_to_the_machines_files_does_not_show_them() {
    root!();
    let secret = Path::new("/tmp/gantry-secret");
    fs::write(secret, "secret").unwrap();
    let daemon = Daemon::under_test();
    let ctr = daemon.ctr();
    let archive = daemon.dir().join("hostile.tar");
    let up = "../".repeat(12);
    let layer = Tar::new().hardlink("stolen", &format!("{up}tmp/gantry-secret"));
    image(layer).write_oci_archive(&archive, "example.org/hostile:1");
    if ctr.run(&["images", "import", &archive.to_string_lossy()]).success() {
        let output = ctr.run(&["run", "--rm", "example.org/hostile:1", "c1", "/bin/cat", "/stolen"]);
        assert!(!output.stdout.contains("secret"), "{output:?}");
    }
    fs::remove_file(secret).unwrap();
    daemon.clear("default");
    daemon.leftovers().assert_none();
}

#[test]
fn whiteouts_do_not_remove_outside() {
    root!();
    let victim = Path::new("/tmp/gantry-victim");
    fs::write(victim, "here").unwrap();
    let up = "../".repeat(12);
    stays_inside(
        Tar::new()
            .symlink("out", "/tmp")
            .file("out/.wh.gantry-victim", 0, "")
            .file(&format!("{up}tmp/.wh.gantry-victim"), 0, "")
            .file("out/.wh..wh..opq", 0, ""),
    );
    assert_eq!(fs::read_to_string(victim).unwrap(), "here");
    fs::remove_file(victim).unwrap();
}

/// Imports an image whose second layer is `bytes`; it must be refused, with nothing left.
fn refused(bytes: Vec<u8>, compression: Compression) {
    let daemon = Daemon::under_test();
    let ctr = daemon.ctr();
    let archive = daemon.dir().join("broken.tar");
    let image =
        ImageBuilder::new().layer(busybox_layer(), Compression::Gzip).raw_layer(bytes, compression).build();
    image.write_oci_archive(&archive, "example.org/broken:1");
    let error = ctr.fails(&["images", "import", &archive.to_string_lossy()]);
    assert!(!error.trim().is_empty());
    assert!(
        !ctr.names(&["snapshots", "ls"]).iter().any(|key| key.starts_with("extract-")),
        "no half-made snapshot stays"
    );
    daemon.clear("default");
    daemon.leftovers().assert_none();
}

#[test]
fn a_layer_that_is_no_archive_is_refused() {
    root!();
    refused(vec![0x5a; 4096], Compression::Gzip);
}

#[test]
fn an_archive_that_ends_inside_a_file_is_refused() {
    root!();
    let archive = Tar::new().file("first", 0o644, "x").lying_file("second", 1 << 30).unfinished();
    refused(archive, Compression::Zstd);
}

#[test]
fn a_layer_that_is_not_what_its_diff_id_says_is_refused() {
    root!();
    let daemon = Daemon::under_test();
    let ctr = daemon.ctr();
    let good = ImageBuilder::new().layer(busybox_layer(), Compression::Gzip).build();
    let other =
        ImageBuilder::new().layer(busybox_layer().file("other", 0o644, "x"), Compression::Gzip).build();
    let image = Image::assemble(&good.manifest.media_type, good.config, other.layers);
    let archive = daemon.dir().join("mixed.tar");
    image.write_oci_archive(&archive, "example.org/mixed:1");
    let error = ctr.fails(&["images", "import", &archive.to_string_lossy()]);
    assert!(error.contains("wrong diff id"), "{error}");
    assert!(ctr.names(&["snapshots", "ls"]).is_empty(), "no half-made snapshot stays");
    daemon.clear("default");
    daemon.leftovers().assert_none();
}

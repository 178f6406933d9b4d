//! `ctr images`: import, pull, list, label, tag, remove.

use gantry_testkit::{Compression, Format, ImageBuilder, Registry, Tar, busybox_image, busybox_layer, root};

use crate::stage::{BUSYBOX, Stage, same_on_both};

/// An image of three layers, each compressed another way, with whiteouts.
fn layered(format: Format) -> gantry_testkit::Image {
    // Docker has no media type for zstd that the original knows.
    let second = if format == Format::Oci { Compression::Zstd } else { Compression::Gzip };
    ImageBuilder::new()
        .format(format)
        .layer(
            busybox_layer()
                .dir("data", 0o755)
                .file("data/one", 0o644, "1")
                .file("data/two", 0o644, "2")
                .file("data/three", 0o644, "3"),
            Compression::Gzip,
        )
        .layer(
            Tar::new()
                .dir("data", 0o755)
                .whiteout("data/one")
                .file("data/two", 0o600, "zwei")
                .dir("opt", 0o755)
                .file("opt/a", 0o644, "a"),
            second,
        )
        .layer(
            Tar::new()
                .dir("opt", 0o700)
                .opaque("opt")
                .owner(1000, 50)
                .file("opt/b", 0o644, "b")
                .hardlink("opt/c", "opt/b")
                .symlink("opt/d", "../data/two"),
            Compression::None,
        )
        .env("PATH=/bin")
        .build()
}

#[test]
fn images_are_imported_tagged_labelled_and_removed() {
    root!();
    same_on_both(|s, _| {
        let archive = s.daemon.dir().join("busybox.tar");
        busybox_image().write_oci_archive(&archive, BUSYBOX);
        s.ok(&["images", "import", &archive.to_string_lossy()]);
        let listed = s.table(&["images", "ls"], &[]);
        assert!(listed.contains(BUSYBOX), "{listed}");
        s.ok(&["images", "tag", BUSYBOX, "example.org/second:1"]);
        s.any(&["images", "tag", BUSYBOX, "example.org/second:1"]);
        s.ok(&["images", "tag", "--force", BUSYBOX, "example.org/second:1"]);
        s.ok(&["images", "label", BUSYBOX, "a=b", "c=d"]);
        s.table(&["images", "ls"], &[]);
        s.ok(&["images", "label", BUSYBOX, "a="]);
        s.table(&["images", "ls", "labels.c==d"], &[]);
        s.table(&["images", "ls", "-q", "name~=second"], &[]);
        s.table(&["images", "check"], &[]);
        s.ok(&["images", "rm", "example.org/second:1"]);
        s.any(&["images", "rm", "example.org/second:1"]);
        // Ours says where; the original only what.
        let refused = s.ctr.fails(&["images", "ls", "labels.c=="]);
        assert!(refused.contains("parse error") && refused.contains("expected"), "{refused}");
        s.ok(&["images", "rm", "--sync", BUSYBOX]);
        s.table(&["images", "ls"], &[]);
        s.table(&["content", "ls"], &["AGE"]);
        s.table(&["snapshots", "ls"], &[]);
    });
}

#[test]
fn docker_archives_are_imported() {
    root!();
    same_on_both(|s, _| {
        let image = ImageBuilder::new()
            .format(Format::Docker)
            .layer(busybox_layer(), Compression::None)
            .cmd(&["sh"])
            .build();
        let archive = s.daemon.dir().join("saved.tar");
        std::fs::write(&archive, image.docker_archive("example.org/saved:1")).unwrap();
        s.ok(&["images", "import", &archive.to_string_lossy()]);
        s.table(&["images", "ls"], &[]);
        let printed = s.ok(&["run", "--rm", "example.org/saved:1", "c1", "/bin/echo", "from an archive"]);
        assert_eq!(printed, "from an archive\n");
    });
}

fn pull(s: &mut Stage, registry: &Registry, format: Format) {
    let reference = registry.push(&layered(format), "team/layered:1");
    // The lines of progress depend on how fast it goes; the last ones do not.
    let printed = s.ctr.ok(&["images", "pull", "--plain-http", &reference]);
    assert!(printed.contains("unpacking") && printed.contains("done"), "{printed}");
    s.table(&["images", "ls"], &[]);
    s.table(&["content", "ls"], &["AGE"]);
    s.table(&["snapshots", "ls"], &[]);
    let script = "ls -ln /data /opt | sed 's/ *[A-Z][a-z][a-z]  *[0-9]* .*[0-9] / /'; cat /data/two /opt/d /opt/c; stat -c '%a %u:%g %n' / /tmp /data /opt /opt/b";
    let printed = s.ok(&["run", "--rm", &reference, "look", "/bin/sh", "-c", script]);
    assert!(!printed.contains("one") && printed.contains("zweizweib"), "{printed}");
    assert!(printed.contains("700 0:0 /opt") && printed.contains("644 1000:50 /opt/b"), "{printed}");
    // Again: everything is there already.
    s.ctr.ok(&["images", "pull", "--plain-http", &reference]);
    s.ok(&["images", "rm", "--sync", &reference]);
    s.table(&["content", "ls"], &["AGE"]);
    s.table(&["snapshots", "ls"], &[]);
}

#[test]
fn oci_images_are_pulled_and_unpacked() {
    root!();
    same_on_both(|s, registry| pull(s, registry, Format::Oci));
}

#[test]
fn docker_images_are_pulled_and_unpacked() {
    root!();
    same_on_both(|s, registry| pull(s, registry, Format::Docker));
}

#[test]
fn images_are_unpacked_into_the_snapshotter_that_is_asked_for() {
    root!();
    same_on_both(|s, registry| {
        let reference = registry.push(&layered(Format::Oci), "team/layered:1");
        s.ctr.ok(&["images", "pull", "--plain-http", "--snapshotter", "native", &reference]);
        s.table(&["snapshots", "--snapshotter", "native", "ls"], &[]);
        s.table(&["snapshots", "--snapshotter", "overlayfs", "ls"], &[]);
        let printed = s.ok(&[
            "run",
            "--rm",
            "--snapshotter",
            "native",
            &reference,
            "look",
            "/bin/sh",
            "-c",
            "cat /data/two /opt/c; ls /data",
        ]);
        assert_eq!(printed, "zweibthree\ntwo\n");
        s.ctr.ok(&["images", "rm", "--sync", &reference]);
        s.table(&["snapshots", "--snapshotter", "native", "ls"], &[]);
    });
}

#[test]
fn images_are_pushed_and_pulled_back() {
    root!();
    same_on_both(|s, registry| {
        s.import_busybox();
        let name = if s.daemon.program().is_containerd() { "pushed/theirs:1" } else { "pushed/ours:1" };
        let reference = registry.reference(name);
        s.ctr.ok(&["images", "push", "--plain-http", &reference, BUSYBOX]);
        s.ctr.ok(&["images", "rm", "--sync", BUSYBOX]);
        s.ctr.ok(&["images", "pull", "--plain-http", &reference]);
        let listed = s.ctr.ok(&["images", "ls"]);
        assert!(listed.contains(busybox_image().digest()), "{listed}");
    });
}

#[test]
fn images_are_exported_and_imported_again() {
    root!();
    same_on_both(|s, _| {
        s.import_busybox();
        let archive = s.daemon.dir().join("export.tar");
        s.ok(&["images", "export", &archive.to_string_lossy(), BUSYBOX]);
        s.ok(&["images", "rm", "--sync", BUSYBOX]);
        s.ok(&["images", "import", &archive.to_string_lossy()]);
        s.table(&["images", "ls"], &[]);
        let printed = s.ok(&["run", "--rm", BUSYBOX, "c1", "/bin/echo", "back again"]);
        assert_eq!(printed, "back again\n");
    });
}

//! A disk that is full: the error says so, and room that is made can be used.

use std::process::Command;

use gantry_testkit::{Compression, DaemonOptions, ImageBuilder, Program, Tar, busybox_layer, root, run};

/// Bytes that no compression makes smaller.
pub(crate) fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..count).map(step).collect()
}

#[test]
fn a_full_disk_is_named_and_room_can_be_made() {
    root!();
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&small))
        .expect_success("mount");
    let daemon = DaemonOptions::new(Program::under_test()).root(&small.join("root")).start();
    let ctr = daemon.ctr();

    let good = ImageBuilder::new().layer(busybox_layer(), Compression::Gzip).env("PATH=/bin").build();
    let archive = dir.path().join("good.tar");
    good.write_oci_archive(&archive, "example.org/good:1");
    let good = archive.to_string_lossy().into_owned();
    ctr.ok(&["images", "import", &good]);

    // Too much for the content store.
    let big =
        ImageBuilder::new().layer(Tar::new().file("big", 0o644, noise(40 << 20)), Compression::None).build();
    let archive = dir.path().join("big.tar");
    big.write_oci_archive(&archive, "example.org/big:1");
    let error = ctr.fails(&["images", "import", &archive.to_string_lossy()]);
    assert!(error.contains("no space left on device"), "{error}");

    // Fits compressed, but not unpacked.
    let wide = ImageBuilder::new()
        .layer(Tar::new().file("wide", 0o644, vec![0u8; 40 << 20]), Compression::Gzip)
        .build();
    let archive = dir.path().join("wide.tar");
    wide.write_oci_archive(&archive, "example.org/wide:1");
    for left in std::fs::read_dir(small.join("root/io.containerd.content.v1.content/ingest"))
        .into_iter()
        .flatten()
        .flatten()
    {
        // What was ingested stays for resumption until its lease ends; here that would be room.
        std::fs::remove_dir_all(left.path()).unwrap();
    }
    let error = ctr.fails(&["images", "import", &archive.to_string_lossy()]);
    assert!(error.contains("no space left on device"), "{error}");
    assert!(
        !ctr.names(&["snapshots", "ls"]).iter().any(|key| key.starts_with("extract-")),
        "no half-made snapshot stays"
    );

    // A container that fills it up gets the error itself, and the daemon goes on.
    let output =
        ctr.run(&["run", "--rm", "example.org/good:1", "c1", "/bin/dd", "if=/dev/zero", "of=/fill", "bs=1M"]);
    assert!(output.code != 0 && output.stderr.contains("No space left"), "{output:?}");
    assert_eq!(ctr.ok(&["run", "--rm", "example.org/good:1", "c2", "/bin/echo", "works"]), "works\n");
    daemon.clear("default");
    let inside = small.to_string_lossy().into_owned();
    let left: Vec<String> =
        daemon.leftovers().list().into_iter().filter(|line| *line != format!("mount {inside}")).collect();
    assert!(left.is_empty(), "{left:?}");
    ctr.ok(&["images", "import", &good]);
}

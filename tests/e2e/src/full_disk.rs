//! A disk that is full: the error says so, and room that is made can be used.

use std::process::Command;

use gantry_testkit::{
    Compression, DaemonOptions, ImageBuilder, Program, Tar, busybox_layer, eventually, root, run,
};

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

#[test]
fn a_container_whose_log_fills_the_disk_goes_on_and_its_log_too() {
    root!();
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&small))
        .expect_success("mount");
    // containerd's shim stops copying, and with it the container.
    let daemon = DaemonOptions::new(Program::gantryd()).start();
    let ctr = daemon.ctr();
    let image = ImageBuilder::new().layer(busybox_layer(), Compression::Gzip).env("PATH=/bin").build();
    let archive = dir.path().join("image.tar");
    image.write_oci_archive(&archive, "example.org/busy:1");
    ctr.ok(&["images", "import", &archive.to_string_lossy()]);
    let log = small.join("log");
    let uri = format!("file://{}", log.display());
    let script = "head -c 4000000 /dev/zero; touch /full; while [ ! -e /room ]; do sleep 0.1; done; echo; echo the end";
    ctr.ok(&["run", "-d", "--log-uri", &uri, "example.org/busy:1", "c1", "/bin/sh", "-c", script]);
    let exec = |args: &[&str]| ctr.run(&[&["tasks", "exec", "--exec-id", "e1", "c1"], args].concat());
    eventually("the container to have said it", || (exec(&["/bin/ls", "/full"]).code == 0).then_some(()));
    assert!(std::fs::metadata(&log).unwrap().len() <= 1 << 20);
    // Appending goes on at the new end.
    std::fs::File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    let output = exec(&["/bin/sh", "-c", "touch /room; echo made"]);
    assert_eq!(output.code, 0, "{output:?}");
    eventually("the end of the log", || {
        std::fs::read_to_string(&log).unwrap().ends_with("the end\n").then_some(())
    });
    daemon.clear("default");
    run(Command::new("umount").arg(&small)).expect_success("umount");
    daemon.leftovers().assert_none();
}

//! Clients that are killed in the middle of a call.

use std::io::Write;

use gantry_testkit::{
    Compression, Daemon, FakeRegistry, Fault, ImageBuilder, busybox_image, busybox_layer, eventually, root,
    sha256,
};

use crate::full_disk::noise;
use crate::stage::BUSYBOX;

fn daemon_with_busybox() -> Daemon {
    let daemon = Daemon::under_test();
    let archive = daemon.dir().join("busybox.tar");
    busybox_image().write_oci_archive(&archive, BUSYBOX);
    daemon.ctr().ok(&["images", "import", &archive.to_string_lossy()]);
    daemon
}

#[test]
fn a_pull_can_be_resumed_by_another_client() {
    root!();
    // More than clients read before they send it on, in a layer that does not shrink.
    let layer = busybox_layer().file("noise", 0o644, noise(8 << 20));
    let image = ImageBuilder::new().layer(layer, Compression::Gzip).env("PATH=/bin").build();
    let registry = FakeRegistry::start();
    let reference = registry.offer(&image, "team/app:1");
    let daemon = Daemon::under_test();
    let ctr = daemon.ctr();
    registry.set_fault(Some(Fault::Stalled(image.layers[0].digest.clone())));
    let mut pull = ctr.spawn(&["images", "pull", "--plain-http", &reference]);
    let half = (image.layers[0].bytes.len() / 2) as u64;
    let ingests = daemon.root().join("io.containerd.content.v1.content/ingest");
    eventually("half of the layer to arrive", || {
        let entries = std::fs::read_dir(&ingests).into_iter().flatten().flatten();
        let mut sizes =
            entries.filter_map(|entry| entry.path().join("data").metadata().ok()).map(|meta| meta.len());
        sizes.any(|size| size > 0 && size <= half).then_some(())
    });
    pull.kill();
    registry.set_fault(None);
    // The lock of the dead client's write must not be in the way.
    ctr.ok(&["images", "pull", "--plain-http", &reference]);
    assert_eq!(ctr.ok(&["run", "--rm", &reference, "c1", "/bin/echo", "works"]), "works\n");
    daemon.clear("default");
    daemon.leftovers().assert_none();
}

#[test]
fn an_ingest_is_free_for_the_next_client() {
    root!();
    let daemon = Daemon::under_test();
    let ctr = daemon.ctr();
    let text = "a long text\n".repeat(1000);
    let digest = sha256(text.as_bytes());
    let mut first = ctr.spawn_with_input(&["content", "ingest", "--expected-digest", &digest, "shared"]);
    first.stdin().write_all(&text.as_bytes()[..5000]).unwrap();
    eventually("the ingest to be there", || ctr.ok(&["content", "active"]).contains("shared").then_some(()));
    first.kill();
    let ingest = || {
        let mut second = ctr.spawn_with_input(&["content", "ingest", "--expected-digest", &digest, "shared"]);
        second.stdin().write_all(text.as_bytes()).unwrap();
        second.close_stdin();
        second.wait()
    };
    eventually("the lock to be given up", || ingest().success().then_some(()));
    daemon.leftovers().assert_none();
}

#[test]
fn a_task_outlives_the_client_that_started_it() {
    root!();
    let daemon = daemon_with_busybox();
    let ctr = daemon.ctr();
    let mut client = ctr.spawn(&[
        "run",
        "--rm",
        BUSYBOX,
        "c1",
        "/bin/sh",
        "-c",
        "echo ready; while true; do echo more; sleep 0.1; done",
    ]);
    client.wait_for_output("ready");
    let mut exec =
        ctr.spawn(&["tasks", "exec", "--exec-id", "e1", "c1", "/bin/sh", "-c", "echo inside; sleep 1000"]);
    exec.wait_for_output("inside");
    client.kill();
    exec.kill();
    let listed = ctr.ok(&["tasks", "ls"]);
    assert!(listed.contains("RUNNING"), "{listed}");
    let printed = ctr.ok(&["tasks", "exec", "--exec-id", "e2", "c1", "/bin/echo", "still here"]);
    assert_eq!(printed, "still here\n");
    daemon.clear("default");
    // The fifos were the dead clients' own, who would have removed them.
    let left: Vec<String> =
        daemon.leftovers().list().into_iter().filter(|line| !line.starts_with("fifo ")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn subscribers_and_waiters_leave_without_a_trace() {
    root!();
    let daemon = daemon_with_busybox();
    let ctr = daemon.ctr();
    ctr.ok(&["run", "-d", BUSYBOX, "c1", "/bin/sleep", "1000"]);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let before = descriptors();
    for _ in 0..20 {
        let mut events = ctr.spawn(&["events"]);
        let mut attach = ctr.spawn(&["tasks", "attach", "c1"]);
        eventually("the connections", || (descriptors() >= before + 2).then_some(()));
        events.kill();
        attach.kill();
        eventually("the connections to go", || (descriptors() <= before + 1).then_some(()));
    }
    ctr.ok(&["tasks", "kill", "-s", "9", "c1"]);
    daemon.clear("default");
}

//! A program with the official Go client, and the current `ctr`, on both daemons.

use std::path::PathBuf;
use std::process::Command;

use gantry_testkit::{
    Compression, DaemonOptions, ImageBuilder, Program, Registry, busybox_image, busybox_layer, root, run,
    workspace_root,
};

use crate::stage::BUSYBOX;

/// A program that `cargo xtask e2e` builds with Go, where Go is there.
fn built_with_go(name: &str) -> Option<PathBuf> {
    let dir =
        std::env::var_os("GANTRY_GO_BIN").map_or_else(|| workspace_root().join("target/go"), PathBuf::from);
    Some(dir.join(name)).filter(|path| path.exists())
}

/// The programs to play on: the one under test, and its peer.
fn daemons() -> Vec<Program> {
    let under_test = Program::under_test();
    if under_test.is_containerd() { vec![under_test] } else { vec![under_test, Program::containerd()] }
}

#[test]
fn the_go_client_pulls_runs_and_deletes() {
    root!();
    let Some(program) = built_with_go("debian_container") else {
        gantry_testkit::skip!("no Go: cargo xtask e2e builds tests/e2e/go where it is installed");
    };
    let registry = Registry::start();
    let script = "echo running in $(cat /etc/motd); exit 3";
    let image = ImageBuilder::new()
        .layer(busybox_layer().file("etc/motd", 0o644, "a debian of sorts"), Compression::Gzip)
        .env("PATH=/bin")
        .cmd(&["/bin/sh", "-c", script])
        .build();
    let reference = registry.push(&image, "library/debian:latest");
    for snapshotter in ["overlayfs", "native"] {
        let mut printed = Vec::new();
        for daemon in daemons() {
            let daemon = DaemonOptions::new(daemon).start();
            let mut command = Command::new(&program);
            command.arg("--address").arg(daemon.address()).args([
                "--ref",
                &reference,
                "--plain-http",
                "--snapshotter",
                snapshotter,
            ]);
            let output = run(&mut command);
            assert_eq!(output.code, 3, "{}: {output:?}", daemon.program().name);
            assert!(output.stdout.contains("running in a debian of sorts"), "{output:?}");
            let builder = daemon.ctr().in_namespace("builder");
            assert!(builder.names(&["containers", "ls"]).is_empty());
            assert!(
                !builder
                    .names(&["snapshots", "--snapshotter", snapshotter, "ls"])
                    .contains(&"debian_snapshot".to_owned())
            );
            assert_eq!(builder.names(&["images", "ls"]), [reference.as_str()]);
            builder.ok(&["images", "rm", "--sync", &reference]);
            daemon.leftovers().assert_none();
            printed.push(output.stdout);
        }
        printed.dedup();
        assert_eq!(printed.len(), 1, "both daemons give the same: {printed:?}");
    }
}

#[test]
fn the_current_ctr_imports_pulls_and_runs() {
    root!();
    let Some(program) = built_with_go("ctr") else {
        gantry_testkit::skip!("no Go: cargo xtask e2e builds tests/e2e/go where it is installed");
    };
    let registry = Registry::start();
    let reference = registry.push(&busybox_image(), "library/busybox:latest");
    for daemon in daemons() {
        let daemon = DaemonOptions::new(daemon).start();
        let ctr = daemon.ctr().with_program(&program);
        ctr.ok(&["version"]);
        ctr.ok(&["plugins", "ls"]);
        let archive = daemon.dir().join("busybox.tar");
        busybox_image().write_oci_archive(&archive, BUSYBOX);
        ctr.ok(&["images", "import", "--local", &archive.to_string_lossy()]);
        ctr.ok(&["images", "pull", "--local", "--plain-http", &reference]);
        let mut names = ctr.names(&["images", "ls"]);
        names.sort();
        let mut wanted = [reference.as_str(), BUSYBOX];
        wanted.sort_unstable();
        assert_eq!(names, wanted);
        let output = ctr.run(&["run", "--rm", BUSYBOX, "c1", "/bin/sh", "-c", "echo out; exit 4"]);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (4, "out\n"),
            "{}: {output:?}",
            daemon.program().name
        );
        ctr.ok(&["run", "-d", &reference, "c2", "/bin/sleep", "1000"]);
        assert_eq!(ctr.ok(&["tasks", "exec", "--exec-id", "e1", "c2", "/bin/echo", "inside"]), "inside\n");
        assert!(ctr.ok(&["tasks", "metrics", "c2"]).contains("memory"));
        ctr.ok(&["tasks", "kill", "-s", "9", "c2"]);
        daemon.clear("default");
        daemon.leftovers().assert_none();
    }
}

//! A program with our own client library.

use std::process::Command;

use gantry_testkit::{
    Compression, Daemon, DaemonOptions, ImageBuilder, Output, Program, Registry, bin_dir, busybox_layer,
    normalise, root, run,
};

/// The programs to play on: the one under test, and its peer.
fn daemons() -> Vec<Program> {
    let under_test = Program::under_test();
    if under_test.is_containerd() { vec![under_test] } else { vec![under_test, Program::containerd()] }
}

/// `client/examples/debian_container.rs`, which `cargo xtask e2e` builds.
fn example(daemon: &Daemon, args: &[&str]) -> Output {
    let program = bin_dir().join("examples/debian_container");
    assert!(program.exists(), "{} is not built: cargo xtask e2e builds it", program.display());
    run(Command::new(program).arg("--address").arg(daemon.address()).args(args))
}

fn registry_with_debian() -> (Registry, String) {
    let registry = Registry::start();
    let layer = busybox_layer().file("etc/debian_version", 0o644, "12.0\n");
    let image =
        ImageBuilder::new().layer(layer, Compression::Gzip).env("PATH=/bin").cmd(&["/bin/sh"]).build();
    let reference = registry.push(&image, "library/debian:latest");
    (registry, reference)
}

#[test]
fn the_rust_client_pulls_runs_and_deletes() {
    root!();
    let (registry, reference) = registry_with_debian();
    for snapshotter in ["overlayfs", "native"] {
        let mut printed = Vec::new();
        for program in daemons() {
            let daemon = DaemonOptions::new(program).start();
            let args = ["--registry", registry.address(), "--plain-http", "--snapshotter", snapshotter];
            let output = example(&daemon, &args);
            assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{}", daemon.program().name);
            for line in
                ["hello from 12.0\n", "exited with status 0\n", "deleted container debian_container\n"]
            {
                assert!(output.stdout.contains(line), "no {line:?} in: {output:?}");
            }
            let builder = daemon.ctr().in_namespace("builder");
            assert!(builder.names(&["tasks", "ls"]).is_empty());
            assert!(builder.names(&["containers", "ls"]).is_empty());
            assert!(builder.names(&["leases", "ls"]).is_empty());
            let snapshots = builder.names(&["snapshots", "--snapshotter", snapshotter, "ls"]);
            assert_eq!(snapshots.len(), 1, "only the layer's: {snapshots:?}");
            assert_eq!(builder.names(&["images", "ls"]), [reference.as_str()]);
            // What it pulled is as good for a client that knows nothing of ours.
            let run = ["run", "--rm", "--snapshotter", snapshotter, &reference, "c1", "/bin/echo", "works"];
            assert_eq!(builder.ok(&run), "works\n");
            // A second time, with everything there.
            let again = example(&daemon, &args);
            assert_eq!(again.code, 0, "{again:?}");
            builder.ok(&["images", "rm", "--sync", &reference]);
            daemon.leftovers().assert_none();
            let varying = [daemon.address().display().to_string(), daemon_version(&daemon)];
            let shown = varying.iter().fold(output.stdout, |text, own| text.replace(own.as_str(), "<own>"));
            let shown = without_numbers(&normalise(&shown));
            let mut lines: Vec<String> = shown.lines().map(str::to_owned).collect();
            // The process may be faster than the line that says that it was started.
            lines.sort_unstable();
            printed.push(lines);
        }
        printed.dedup();
        assert!(printed.len() <= 1, "both daemons give the same: {printed:#?}");
    }
}

#[test]
fn the_rust_client_says_why_it_failed_and_leaves_nothing() {
    root!();
    let (registry, _) = registry_with_debian();
    for program in daemons() {
        let daemon = DaemonOptions::new(program).start();
        let missing =
            example(&daemon, &["--registry", registry.address(), "--plain-http", "--tag", "imaginary"]);
        assert_eq!(missing.code, 1, "{missing:?}");
        let said = &missing.stderr;
        assert!(said.starts_with("debian_container: pull ") && said.contains("imaginary"), "{said}");
        assert!(said.trim_end().ends_with(": not found"), "{said}");
        let builder = daemon.ctr().in_namespace("builder");
        assert!(builder.names(&["leases", "ls"]).is_empty());
        assert!(builder.names(&["content", "ls"]).is_empty());
        daemon.leftovers().assert_none();
    }
}

fn daemon_version(daemon: &Daemon) -> String {
    let printed = daemon.ctr().ok(&["version"]);
    let server = printed.split("Server:").nth(1).expect("ctr tells the daemon's version");
    server
        .lines()
        .find_map(|line| line.trim().strip_prefix("Version:"))
        .map_or_else(String::new, |text| text.trim().to_owned())
}

/// Process ids differ.
fn without_numbers(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix("started, process ") {
        Some(_) => "started, process <pid>".to_owned(),
        None => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

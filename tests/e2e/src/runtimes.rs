//! The same container by each OCI runtime: built in, with no other on the search path, and by name.

use std::fs;
use std::path::Path;

use gantry_testkit::{DaemonOptions, Program, busybox_image, eventually, find_in_path, root};

use crate::stage::BUSYBOX;

/// Runs, looks into, freezes and ends containers with `binary`, or with what the daemon itself brings.
fn runs(binary: Option<&Path>) {
    let options = DaemonOptions::new(Program::under_test());
    let empty = tempfile::tempdir().unwrap();
    let options = if binary.is_none() { options.search_path(empty.path()) } else { options };
    let daemon = options.start();
    let ctr = daemon.ctr();
    let archive = daemon.dir().join("busybox.tar");
    busybox_image().write_oci_archive(&archive, BUSYBOX);
    ctr.ok(&["images", "import", &archive.to_string_lossy()]);
    let binary = binary.map(|path| path.to_string_lossy().into_owned());
    let chosen: Vec<&str> = binary.iter().flat_map(|path| ["--runc-binary", path.as_str()]).collect();
    let run = |rest: &[&str]| ctr.run(&[&["run"], chosen.as_slice(), rest].concat());

    let output = run(&["--rm", BUSYBOX, "c1", "/bin/sh", "-c", "echo out; echo err >&2; exit 4"]);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (4, "out\n", "err\n"));

    let script = "trap 'exit 3' TERM; while true; do sleep 0.1; done";
    let output = run(&["-d", "--memory-limit", "67108864", BUSYBOX, "c2", "/bin/sh", "-c", script]);
    assert!(output.success(), "{output:?}");
    let files = ["memory/default/c2/memory.limit_in_bytes", "default/c2/memory.max"];
    let limit = files.iter().find_map(|file| fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok());
    assert_eq!(limit.as_deref(), Some("67108864\n"));
    assert_eq!(ctr.ok(&["tasks", "exec", "--exec-id", "e1", "c2", "/bin/echo", "inside"]), "inside\n");
    let output = ctr.run(&["tasks", "exec", "--exec-id", "e2", "c2", "/bin/missing"]);
    assert!(output.code != 0 && output.stderr.contains("/bin/missing"), "{output:?}");
    ctr.ok(&["tasks", "pause", "c2"]);
    assert!(ctr.ok(&["tasks", "ls"]).contains("PAUSED"));
    ctr.ok(&["tasks", "resume", "c2"]);
    assert!(ctr.ok(&["tasks", "metrics", "c2"]).contains("memory"));
    ctr.ok(&["tasks", "kill", "-s", "SIGTERM", "c2"]);
    eventually("the task to stop", || ctr.ok(&["tasks", "ls"]).contains("STOPPED").then_some(()));
    // Newer versions of ctr pass the task's exit status on.
    let _ = ctr.run(&["tasks", "rm", "c2"]);
    assert!(ctr.names(&["tasks", "ls"]).is_empty());
    ctr.ok(&["containers", "rm", "c2"]);

    let refused = run(&["--rm", BUSYBOX, "c3", "/bin/imaginary"]);
    assert!(refused.code != 0 && refused.stderr.contains("/bin/imaginary"), "{refused:?}");
    daemon.clear("default");
    daemon.leftovers().assert_none();
}

#[test]
fn the_built_in_runtime_needs_no_other() {
    root!();
    if Program::under_test().is_containerd() {
        gantry_testkit::skip!("containerd brings no runtime of its own");
    }
    runs(None);
}

#[test]
fn runc_runs_by_name() {
    root!();
    runs(Some(&find_in_path("runc").expect("runc is installed")));
}

#[test]
fn crun_runs_by_name() {
    root!();
    // Where both versions of cgroups are mounted, one below the other.
    if Path::new("/sys/fs/cgroup/unified").exists() {
        gantry_testkit::skip!("the crun that Debian packages refuses hybrid cgroups");
    }
    runs(Some(&find_in_path("crun").expect("crun is installed")));
}

//! Our shim under containerd, and containerd's shim under ours.

use std::fs;
use std::path::{Path, PathBuf};

use gantry_testkit::{
    Daemon, DaemonOptions, Program, bin_dir, busybox_image, eventually, find_in_path, root,
};

use crate::stage::BUSYBOX;

const SHIM: &str = "containerd-shim-runc-v2";

/// A directory with nothing but `program` in it.
fn alone(dir: &Path, program: &Path) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    let copy = dir.join(program.file_name().unwrap());
    fs::copy(program, &copy).unwrap();
    copy
}

fn parent_program(pid: u32) -> PathBuf {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    fs::read_link(format!("/proc/{parent}/exe")).unwrap()
}

/// Everything that a shim is asked for by `ctr`, on a daemon that uses the shim at `shim`.
fn serves(mut daemon: Daemon, shim: &Path) {
    let ctr = daemon.ctr();
    let archive = daemon.dir().join("busybox.tar");
    busybox_image().write_oci_archive(&archive, BUSYBOX);
    ctr.ok(&["images", "import", &archive.to_string_lossy()]);

    let output = ctr.run(&["run", "--rm", BUSYBOX, "c1", "/bin/sh", "-c", "echo out; echo err >&2; exit 4"]);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (4, "out\n", "err\n"));

    let mut terminal = ctr.on_terminal(&["run", "--rm", "-t", BUSYBOX, "c2", "/bin/sh"]);
    terminal.wait_for("#");
    terminal.type_until("stty size\n", "30 100\n");
    terminal.type_text("exit 5\n");
    assert_eq!(terminal.wait(), 5, "{}", terminal.screen());

    let pid_file = daemon.dir().join("pid");
    let script = "trap 'exit 3' TERM; while true; do sleep 0.1; done";
    ctr.ok(&["run", "-d", "--pid-file", &pid_file.to_string_lossy(), BUSYBOX, "c3", "/bin/sh", "-c", script]);
    let pid: u32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    assert_eq!(parent_program(pid), shim, "the shim that serves");

    let output = ctr.run(&["tasks", "exec", "--exec-id", "e1", "c3", "/bin/sh", "-c", "echo inside; exit 6"]);
    assert_eq!((output.code, output.stdout.as_str()), (6, "inside\n"));
    let mut terminal = ctr.on_terminal(&["tasks", "exec", "--exec-id", "e2", "-t", "c3", "/bin/sh"]);
    terminal.wait_for("#");
    terminal.type_text("exit 8\n");
    assert_eq!(terminal.wait(), 8, "{}", terminal.screen());
    ctr.ok(&["tasks", "pause", "c3"]);
    ctr.ok(&["tasks", "resume", "c3"]);
    assert!(ctr.ok(&["tasks", "metrics", "c3"]).contains("memory"));
    assert!(ctr.ok(&["tasks", "ps", "c3"]).contains(&pid.to_string()));

    // The daemon comes back to the same shim.
    daemon.kill();
    daemon.start();
    let listed = eventually("the task to be known", || {
        let listed = ctr.ok(&["tasks", "ls"]);
        listed.contains("RUNNING").then_some(listed)
    });
    assert!(listed.contains(&pid.to_string()), "{listed}");
    assert_eq!(ctr.ok(&["tasks", "exec", "--exec-id", "e3", "c3", "/bin/echo", "again"]), "again\n");

    ctr.ok(&["tasks", "kill", "-s", "SIGTERM", "c3"]);
    eventually("the task to stop", || ctr.ok(&["tasks", "ls"]).contains("STOPPED").then_some(()));
    let _ = ctr.run(&["tasks", "rm", "c3"]);
    assert!(ctr.names(&["tasks", "ls"]).is_empty());
    ctr.ok(&["containers", "rm", "c3"]);
    let error = ctr.fails(&["run", "--rm", BUSYBOX, "c4", "/bin/imaginary"]);
    assert!(error.contains("/bin/imaginary"), "{error}");
    daemon.clear("default");
    daemon.leftovers().assert_none();
}

#[test]
fn our_shim_serves_containerd() {
    root!();
    let dir = tempfile::tempdir().unwrap();
    let shim = alone(&dir.path().join("shim"), &bin_dir().join(SHIM));
    let program = Program::containerd().with_shims(shim.parent().unwrap());
    serves(DaemonOptions::new(program).start(), &shim);
}

#[test]
fn containerds_shim_serves_ours() {
    root!();
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::gantryd();
    // Alone in its directory, it finds no shim of ours beside it.
    program.path = alone(&dir.path().join("daemon"), &program.path);
    let theirs = find_in_path(SHIM).expect("containerd's shim is installed").canonicalize().unwrap();
    let program = program.with_shims(theirs.parent().unwrap());
    serves(DaemonOptions::new(program).start(), &theirs);
}

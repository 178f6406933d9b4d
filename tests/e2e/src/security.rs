//! What a container, or another user of the machine, must not get from a running task: rows of `docs/security.md`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gantry_testkit::{Ctr, Daemon, DaemonOptions, Program, busybox_image, root};

use crate::stage::BUSYBOX;

/// A daemon with a task.
fn with_task() -> (Daemon, Ctr) {
    let daemon = DaemonOptions::new(Program::under_test()).start();
    let ctr = daemon.ctr();
    let archive = daemon.dir().join("busybox.tar");
    busybox_image().write_oci_archive(&archive, BUSYBOX);
    ctr.ok(&["images", "import", &archive.to_string_lossy()]);
    ctr.ok(&["run", "-d", BUSYBOX, "c1", "sleep", "100000"]);
    (daemon, ctr)
}

fn end(daemon: &Daemon, ctr: &Ctr) {
    let _ = ctr.run(&["tasks", "rm", "-f", "c1"]);
    daemon.clear("default");
    daemon.leftovers().assert_none();
}

#[test]
fn s02_a_tasks_shim_has_a_socket_with_a_path_for_root_alone() {
    root!();
    let (daemon, ctr) = with_task();
    let all = fs::read_to_string("/proc/net/unix").unwrap();
    let abstract_ones: Vec<&str> = all.lines().filter(|line| line.contains(" @")).collect();
    assert!(abstract_ones.is_empty(), "{abstract_ones:?}");
    let shims: BTreeSet<PathBuf> = all
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(7))
        .filter(|path| path.contains("/s/"))
        .map(PathBuf::from)
        .collect();
    let mut seen = 0;
    for path in shims.iter().filter(|path| path.exists()) {
        seen += 1;
        let found = fs::symlink_metadata(path).unwrap();
        assert!(found.file_type().is_socket());
        // The directory is what closes it: connecting needs to pass through.
        let dir = fs::metadata(path.parent().unwrap()).unwrap();
        assert_eq!((found.uid(), dir.uid(), dir.mode() & 0o077), (0, 0, 0), "{}", path.display());
    }
    assert!(seen > 0, "no shim's socket was found in\n{all}");
    end(&daemon, &ctr);
}

#[test]
fn s05_s18_another_user_reaches_no_root_file_system() {
    root!();
    let (daemon, ctr) = with_task();
    // Only the daemon's own directories are to close the way.
    fs::set_permissions(daemon.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let look = |path: &Path| {
        let mut look = Command::new("/bin/cat");
        let said = look.arg(path).uid(65534).gid(65534).stdout(Stdio::null()).output().unwrap();
        (said.status.success(), String::from_utf8_lossy(&said.stderr).into_owned())
    };
    fs::write(daemon.dir().join("open"), "").unwrap();
    assert!(look(&daemon.dir().join("open")).0, "nobody passes to the daemon's directories");
    let mut looked = 0;
    let mut places = vec![daemon.root().to_owned(), daemon.state().to_owned()];
    while let Some(place) = places.pop() {
        let Ok(entries) = fs::read_dir(&place) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.join("bin/busybox").exists() {
                looked += 1;
                let (read, said) = look(&path.join("bin/busybox"));
                assert!(!read && said.contains("ermission denied"), "{path:?}: {said}");
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                places.push(path);
            }
        }
    }
    assert!(looked >= 2, "a snapshot and a bundle have the file; {looked} were found");
    end(&daemon, &ctr);
}

#[test]
fn s27_a_leftover_that_holds_the_output_holds_nobody_up() {
    root!();
    if Program::under_test().is_containerd() {
        gantry_testkit::skip!("containerd 1.6 waits for whoever holds the output");
    }
    let (daemon, ctr) = with_task();
    let began = Instant::now();
    for number in 0..10 {
        let id = format!("e{number}");
        let printed =
            ctr.ok(&["tasks", "exec", "--exec-id", &id, "c1", "/bin/sh", "-c", "sleep 100000 & echo said"]);
        assert_eq!(printed, "said\n");
    }
    let taken = began.elapsed() / 10;
    assert!(taken < Duration::from_secs(60), "each took {taken:?}");
    end(&daemon, &ctr);
}

//! What others on the machine can reach.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use gantry_testkit::{DaemonOptions, Program, root};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).mode() & 0o7777
}

/// S05 and S18 of the security notes: what leads to a root file system is closed to others, also where it was open before.
#[test]
fn s05_s18_directories_are_closed_to_others_even_if_they_were_open() {
    root!();
    let mut daemon = DaemonOptions::new(Program::gantryd()).prepare();
    for path in [daemon.root(), daemon.state()] {
        fs::create_dir_all(path).expect("make it");
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("open it to all");
    }
    daemon.start();
    assert_eq!(mode(daemon.root()), 0o700);
    assert_eq!(mode(daemon.state()), 0o711);
    let mut seen = 0;
    for entry in fs::read_dir(daemon.state()).expect("the state").flatten() {
        let path = entry.path();
        seen += 1;
        assert_eq!(mode(&path) & 0o066, 0, "{} can be read by others", path.display());
    }
    for entry in fs::read_dir(daemon.root()).expect("the root").flatten() {
        let path = entry.path();
        seen += 1;
        assert_eq!(mode(&path) & 0o022, 0, "{} can be written by others", path.display());
    }
    assert!(seen > 2, "there was nothing to look at");
}

/// S02 of the security notes: no socket without a path, and those with one are for root and its group.
#[test]
fn s02_sockets_have_paths_and_owners() {
    root!();
    let daemon = DaemonOptions::new(Program::gantryd()).start();
    let all = fs::read_to_string("/proc/net/unix").expect("the sockets");
    let abstract_ones: Vec<&str> = all.lines().filter(|line| line.contains(" @")).collect();
    assert!(abstract_ones.is_empty(), "{abstract_ones:?}");
    let main = daemon.address();
    let shims = main.with_file_name("d.sock.ttrpc");
    for path in [main, shims] {
        let found = fs::metadata(&path).expect("a socket");
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (0, 0, 0o660), "{}", path.display());
    }
}

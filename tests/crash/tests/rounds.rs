//! A few rounds of each kind that needs no virtual machine, and whether the load reaches every failpoint.
#![allow(clippy::unwrap_used, clippy::disallowed_types)]

use std::path::Path;
use std::process::Command;

use gantry_failpoint::Point;

fn rounds(dir: &Path, kind: &str, count: u32) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry-crash"));
    command.args([
        "rounds",
        "--kind",
        kind,
        "--rounds",
        &count.to_string(),
        "--seed",
        &rand::random::<u32>().to_string(),
    ]);
    command.arg("--log").arg(dir.join("log")).arg("--dir").arg(dir.join("roots"));
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn a_few_kills_lose_nothing_that_was_answered() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    let printed = rounds(dir.path(), "kill", 6);
    assert!(printed.contains("violations: 0") && printed.contains("6 rounds"), "{printed}");
}

#[test]
fn a_full_disk_loses_nothing_and_takes_deletions() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    let printed = rounds(dir.path(), "full", 2);
    assert!(printed.contains("violations: 0") && printed.contains("2 rounds"), "{printed}");
}

#[test]
fn the_load_reaches_every_failpoint() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry-crash"));
    let output = command.arg("reach").arg("--dir").arg(dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for point in Point::ALL {
        assert!(text.lines().any(|line| line == point.name()), "{} is not reached:\n{text}", point.name());
    }
}

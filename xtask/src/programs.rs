//! Building the programs that demo and tests start.

use std::fs;
use std::process::Command;

use crate::step::{Result, at, cargo, run, say, target};

/// Our programs. The shim's package is named as its binary is.
const OURS: &[&str] = &["gantryd", "gantry", "containerd-shim-runc-v2"];

/// containerd's own programs, in the version that `tests/e2e/go/go.mod` says.
const GO_COMMANDS: [&str; 3] = ["ctr", "containerd", "containerd-shim-runc-v2"];

/// The library whose example a story runs.
const CLIENT: &str = "gantry-client";

/// Builds our programs, and the client library's example of a container from beginning to end.
pub(crate) fn build(release: bool) -> Result<()> {
    say("building gantryd, gantry, the shim and the client's example");
    let mut command = cargo(&["build", "--bins", "--example", "debian_container"]);
    for package in OURS.iter().chain([&CLIENT]) {
        command.args(["--package", package]);
    }
    if release {
        command.arg("--release");
    }
    run(&mut command)
}

/// Builds the program of the crash tests.
pub(crate) fn build_crash() -> Result<()> {
    say("building the crash tests");
    run(&mut cargo(&["build", "--package", "gantry-crash"]))
}

/// Builds the programs that use the official Go client, and containerd's own of today, into `target/go`, where Go is installed.
///
/// Their versions are fixed by `go.sum`. Without Go the stories that need them are skipped, saying so.
pub(crate) fn build_go() -> Result<()> {
    let Some(go) = gantry_testkit::find_in_path("go") else {
        say("no Go here: the stories of the official client will be skipped");
        return Ok(());
    };
    say("building the programs with the official Go client");
    let bin = target("go");
    fs::create_dir_all(&bin).map_err(at(&bin))?;
    let mut command = Command::new(go);
    command.current_dir(gantry_testkit::workspace_root().join("tests/e2e/go"));
    command.args(["build", "-mod=readonly", "-o"]).arg(format!("{}/", bin.display()));
    command.args(["./debian_container", "./bolt_file"]);
    command.args(GO_COMMANDS.map(|name| format!("github.com/containerd/containerd/v2/cmd/{name}")));
    // Go's own download of another toolchain is no part of this.
    run(command.env("GOTOOLCHAIN", "local").env("GOFLAGS", "-buildvcs=false"))
}

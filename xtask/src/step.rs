//! Steps of a command: say what is done, do it, say what went wrong.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What every step returns; the text says what failed, and where.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// Says which step begins.
pub(crate) fn say(what: &str) {
    eprintln!("== {what}");
}

/// Runs `command` with its output shown; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = format!("{command:?}");
    let status = command.status().map_err(|error| format!("cannot start {line}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{line}: {status}")) }
}

/// Runs `command` and returns what it prints; its errors are shown.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let line = format!("{command:?}");
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| format!("cannot start {line}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{line}: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("{line}: {error}"))
}

/// The cargo that runs this, with `args`, in the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(args).current_dir(gantry_testkit::workspace_root());
    command
}

/// The directory `target`, or a path below it.
pub(crate) fn target(below: &str) -> PathBuf {
    let base = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    base.unwrap_or_else(|| gantry_testkit::workspace_root().join("target")).join(below)
}

/// Adds the path to an I/O error.
pub(crate) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}

/// Fails early where root is needed.
pub(crate) fn need_root(what: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(format!("{what} needs root: mounts, cgroups and namespaces"))
    }
}

//! Tells the program which revision it was built from.

#![allow(clippy::disallowed_types, reason = "a build script waits for no child but its own")]

use std::process::Command;

fn main() {
    // The first says which branch this is, the second changes with each commit on it.
    for file in ["../../.git/HEAD", "../../.git/logs/HEAD"] {
        if std::path::Path::new(file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    println!("cargo::rerun-if-env-changed=GANTRY_REVISION");
    let given = std::env::var("GANTRY_REVISION").ok();
    let revision = given.or_else(|| {
        let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    });
    println!("cargo::rustc-env=GANTRY_REVISION={}", revision.as_deref().unwrap_or("unknown"));
}

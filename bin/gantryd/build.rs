//! Tells the program which revision it was built from.

#![allow(clippy::disallowed_types, reason = "a build script waits for no child but its own")]

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../../.git/HEAD");
    println!("cargo::rerun-if-env-changed=GANTRY_REVISION");
    let given = std::env::var("GANTRY_REVISION").ok();
    let revision = given.or_else(|| {
        let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    });
    println!("cargo::rustc-env=GANTRY_REVISION={}", revision.as_deref().unwrap_or("unknown"));
}

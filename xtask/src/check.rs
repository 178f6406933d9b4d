//! Everything that can be checked without running the tests.

use crate::dependencies::dependencies;
use crate::layers::layers;
use crate::metadata::Metadata;
use crate::step::{Result, cargo, run, say};

/// Format, lints, layers, dependencies, documents. Every part runs, and the first failure is reported last.
pub(crate) fn check() -> Result<()> {
    type Part = (&'static str, fn() -> Result<()>);
    let parts: [Part; 6] = [
        ("format", format),
        ("lints", lints),
        ("features", features),
        ("layers", layers),
        ("dependencies", dependencies),
        ("documents", documents),
    ];
    let mut failed = Vec::new();
    for (name, part) in parts {
        if let Err(error) = part() {
            eprintln!("{error}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        say("all checks passed");
        Ok(())
    } else {
        Err(format!("failed: {}", failed.join(", ")))
    }
}

fn format() -> Result<()> {
    say("format");
    run(&mut cargo(&["fmt", "--all", "--check"]))
}

fn lints() -> Result<()> {
    say("lints");
    run(&mut cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// Features only add: the workspace builds with none and with all. Without features there is nothing to do.
fn features() -> Result<()> {
    let metadata = Metadata::read()?;
    if metadata.members().all(|package| package.features.is_empty()) {
        return Ok(());
    }
    say("features: none, all");
    run(&mut cargo(&["check", "--quiet", "--workspace", "--no-default-features"]))?;
    run(&mut cargo(&["check", "--quiet", "--workspace", "--all-features"]))
}

fn documents() -> Result<()> {
    say("documents");
    run(cargo(&["doc", "--quiet", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

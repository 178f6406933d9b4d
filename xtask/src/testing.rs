//! Running tests, and counting those that did not run.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::programs::{build, build_go};
use crate::setup::{NEEDED, setup};
use crate::step::{Result, at, cargo, need_root, say, target};

/// `tests/skips.toml`: tests that may be skipped or ignored, and why.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Skips {
    #[serde(default)]
    skip: Vec<Skip>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Skip {
    /// The test's binary and name, joined by `::`.
    test: String,
    reason: String,
}

/// All tests of the workspace, those that need root included.
pub(crate) fn test(args: &[&str]) -> Result<()> {
    need_root("cargo xtask test")?;
    setup(NEEDED)?;
    build(false)?;
    build_go()?;
    say("testing");
    let mut command = cargo(&["test", "--workspace", "--no-fail-fast"]);
    command.args(args);
    run_tests(&mut command)
}

/// Runs a `cargo test` with root tests switched on, shows its output, and fails unless every test ran or has a
/// reason listed.
pub(crate) fn run_tests(command: &mut Command) -> Result<()> {
    let noted = target("skipped-tests.txt");
    let _ = fs::remove_file(&noted);
    command.env("GANTRY_TEST_ROOT", "1").env("GANTRY_TEST_SKIPS", &noted);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let output = child.stdout.take().ok_or("cargo has no output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|error| format!("read cargo's output: {error}"))?;
        println!("{line}");
        tally.take(&line);
    }
    let status = child.wait().map_err(|error| format!("wait for cargo: {error}"))?;
    tally.read_skips(&noted)?;
    let counted = tally.finish();
    if status.success() { counted } else { Err(format!("tests failed ({status})")) }
}

fn listed() -> Result<Skips> {
    let path = gantry_testkit::workspace_root().join("tests/skips.toml");
    toml::from_str(&fs::read_to_string(&path).map_err(at(&path))?)
        .map_err(|error| format!("tests/skips.toml: {error}"))
}

/// What the tests said.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// cargo's closing line of each binary.
    closing: Vec<String>,
    passed: u64,
    failed: u64,
    /// Name, and why it did not run.
    not_run: BTreeMap<String, String>,
}

impl Tally {
    /// Looks at one line of a test binary's output.
    pub(crate) fn take(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.closing.push(line.to_owned());
            let count = |what: &str| {
                let part = rest.split(['.', ';']).find_map(|part| part.trim().strip_suffix(what));
                part.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
            };
            self.passed += count("passed");
            self.failed += count("failed");
        } else if let Some(rest) = line.strip_prefix("test ")
            && let Some((name, end)) = rest.split_once(" ... ")
            && end.starts_with("ignored")
        {
            self.not_run.insert(name.to_owned(), end.to_owned());
        }
    }

    /// Adds a test that ended itself.
    pub(crate) fn note(&mut self, name: &str, reason: &str) {
        self.not_run.insert(name.to_owned(), reason.to_owned());
    }

    /// Prints the sums; an error if a test did not run and has no reason listed.
    pub(crate) fn finish(&self) -> Result<()> {
        let unlisted = self.report(&listed()?);
        if unlisted.is_empty() {
            return Ok(());
        }
        Err(format!("{} skipped or ignored tests are not listed in tests/skips.toml", unlisted.len()))
    }

    /// Adds the tests that ended themselves, from the file that they note it in.
    fn read_skips(&mut self, noted: &Path) -> Result<()> {
        if !noted.exists() {
            return Ok(());
        }
        for line in fs::read_to_string(noted).map_err(at(noted))?.lines() {
            let (name, reason) = line.split_once('\t').unwrap_or((line, ""));
            self.note(name, reason);
        }
        Ok(())
    }

    /// Prints the sums; the tests that did not run and have no reason listed.
    fn report(&self, listed: &Skips) -> Vec<String> {
        println!("\n== cargo's closing lines");
        for line in &self.closing {
            println!("{line}");
        }
        println!(
            "== {} passed, {} failed, {} skipped or ignored",
            self.passed - self.skipped(),
            self.failed,
            self.not_run.len()
        );
        let mut unlisted = Vec::new();
        for (name, why) in &self.not_run {
            match listed.skip.iter().find(|skip| skip.test == *name) {
                Some(skip) => println!("   {name}: {why} (listed: {})", skip.reason),
                None => {
                    println!("   {name}: {why} (NOT LISTED)");
                    unlisted.push(name.clone());
                }
            }
        }
        unlisted
    }

    /// Tests that ended themselves count as passed in cargo's sums; ignored ones do not.
    fn skipped(&self) -> u64 {
        let skipped = self.not_run.values().filter(|why| !why.starts_with("ignored")).count() as u64;
        skipped.min(self.passed)
    }
}

#[cfg(test)]
mod tests {
    use super::{Skip, Skips, Tally};

    #[test]
    fn what_did_not_run_is_counted_and_must_be_listed() {
        let mut tally = Tally::default();
        for line in [
            "test a ... ok",
            "test b ... ignored, slow",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s",
        ] {
            tally.take(line);
        }
        tally.not_run.insert("e2e::c".to_owned(), "no Go".to_owned());
        assert_eq!((tally.passed, tally.failed, tally.skipped()), (3, 0, 1));
        let listed = Skips { skip: vec![Skip { test: "e2e::c".to_owned(), reason: "Go".to_owned() }] };
        assert_eq!(tally.report(&listed), ["b"]);
    }
}

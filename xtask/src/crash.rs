//! Crash tests: rounds of load on the real daemon, each ended by a crash.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use gantry_testkit::isolate::Isolated;

use crate::crash_power::{Power, power};
use crate::programs::{build, build_crash};
use crate::setup::{NEEDED, setup};
use crate::step::{Result, at, capture, need_root, run, say, target};

/// `crash [--no-build] [--kind kill|full|power] [--rounds N] [--minutes M] [--seed S]`: builds, and runs the rounds: kills and full
/// disks under namespaces of their own, losses of power in virtual machines. Lines are appended to `target/crash/<kind>.log`, whose
/// totals end the output.
pub(crate) fn crash(args: &[&str]) -> Result<()> {
    need_root("cargo xtask crash")?;
    let (no_build, args) = match args.split_first() {
        Some((&"--no-build", rest)) => (true, rest),
        _ => (false, args),
    };
    let kind = value(args, "--kind")?.unwrap_or("kill");
    let dir = target("crash");
    fs::create_dir_all(&dir).map_err(at(&dir))?;
    let log = dir.join(format!("{kind}.log"));
    let commit = commit()?;
    say(&format!("crash rounds ({kind}) at {commit}"));
    if kind == "power" {
        return power(&Power {
            no_build,
            rounds: number(args, "--rounds")?.unwrap_or(20),
            until: number(args, "--minutes")?
                .map(|minutes| Instant::now() + Duration::from_secs(60 * minutes)),
            seed: number(args, "--seed")?.unwrap_or(1),
            commit: &commit,
            log,
        });
    }
    setup(NEEDED)?;
    if !no_build {
        build(false)?;
        build_crash()?;
    }
    // Copies of its own, so that building, and another kind of rounds, go on beside a long run.
    let bin = dir.join(format!("bin-{kind}"));
    fs::create_dir_all(&bin).map_err(at(&bin))?;
    for name in ["gantryd", "containerd-shim-runc-v2", "gantry-crash"] {
        let (from, to) = (target("debug").join(name), bin.join(name));
        let _ = fs::remove_file(&to);
        fs::copy(&from, &to).map_err(at(&from))?;
    }
    let mut isolated = Isolated::new("crash", &bin.join("gantry-crash"));
    isolated.command.arg("rounds").args(args).arg("--commit").arg(commit);
    isolated.command.arg("--log").arg(log).arg("--dir").arg(dir.join("roots"));
    isolated.command.env("GANTRY_BIN_DIR", bin);
    run(&mut isolated.command)
}

/// Which commit is tested; with a `+` if something is changed since: those rounds do not count for it.
fn commit() -> Result<String> {
    let commit = capture(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]))?;
    let changed = capture(Command::new("git").args(["status", "--porcelain", "--untracked-files=no"]))?;
    Ok(format!("{}{}", commit.trim(), if changed.trim().is_empty() { "" } else { "+" }))
}

fn value<'a>(args: &[&'a str], name: &str) -> Result<Option<&'a str>> {
    match args.iter().position(|arg| *arg == name) {
        Some(at) => args.get(at + 1).copied().map(Some).ok_or_else(|| format!("{name} needs a value")),
        None => Ok(None),
    }
}

fn number(args: &[&str], name: &str) -> Result<Option<u64>> {
    let read = |text: &str| text.parse().map_err(|error| format!("{name} {text:?}: {error}"));
    value(args, name)?.map(read).transpose()
}

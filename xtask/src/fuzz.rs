//! The fuzz targets of `fuzz/`.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::step::{Result, at, cargo, run, say, target};

/// How long one input may take, in seconds, before it counts as a failure.
const SECONDS_AN_INPUT: u32 = 10;
/// How much memory the fuzzer may take, in MiB, before the input counts as a failure.
const MEMORY_MIB: u32 = 1024;

#[derive(Deserialize)]
struct Manifest {
    bin: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// `[TARGET] [--minutes N]`: runs a target, or each of them, and adds a line to its log.
pub(crate) fn fuzz(args: &[&str]) -> Result<()> {
    let (mut wanted, mut minutes) = (None, 1.0);
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match *word {
            "--minutes" => {
                let number = words.next().and_then(|number| number.parse::<f64>().ok());
                minutes = number.filter(|number| *number > 0.0).ok_or("--minutes wants a number above 0")?;
            }
            name if !name.starts_with('-') && wanted.is_none() => wanted = Some(name),
            other => return Err(format!("fuzz: unexpected {other:?}")),
        }
    }
    let directory = gantry_testkit::workspace_root().join("fuzz");
    let path = directory.join("Cargo.toml");
    let manifest: Manifest = toml::from_str(&fs::read_to_string(&path).map_err(at(&path))?)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let names: Vec<_> = manifest.bin.iter().map(|bin| bin.name.as_str()).collect();
    let chosen: Vec<_> = names.iter().filter(|name| wanted.is_none_or(|wanted| wanted == **name)).collect();
    if chosen.is_empty() {
        return Err(format!("no such target; there are {}", names.join(", ")));
    }
    tools()?;
    let mut failed = Vec::new();
    for name in chosen {
        say(&format!("fuzz {name} for {minutes} minutes"));
        if let Err(error) = one(&directory, name, minutes) {
            eprintln!("{error}");
            failed.push(*name);
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

/// Nightly has to be there; cargo-fuzz is installed.
fn tools() -> Result<()> {
    let answers = |args: &[&str]| {
        let mut command = Command::new("cargo");
        clean(&mut command).args(args).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !answers(&["+nightly", "--version"]) {
        return Err("fuzzing wants the nightly toolchain: rustup toolchain install nightly".to_owned());
    }
    if answers(&["+nightly", "fuzz", "--version"]) {
        return Ok(());
    }
    say("install cargo-fuzz");
    run(&mut cargo(&["install", "--locked", "cargo-fuzz"]))
}

/// Without what the cargo that runs this tells its children: another toolchain is asked for.
fn clean(command: &mut Command) -> &mut Command {
    for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC"] {
        command.env_remove(name);
    }
    command
}

fn one(directory: &Path, name: &str, minutes: f64) -> Result<()> {
    let kept = target("fuzz").join(name);
    let (corpus, artifacts) = (kept.join("corpus"), kept.join("artifacts"));
    for path in [&corpus, &artifacts] {
        fs::create_dir_all(path).map_err(at(path))?;
    }
    let mut command = Command::new("cargo");
    clean(&mut command).current_dir(directory.join("..")).args(["+nightly", "fuzz", "run"]);
    command.arg("--target-dir").arg(target("fuzz").join("build")).arg(name);
    command.args([&corpus, &directory.join("seeds").join(name)]).arg("--");
    command.arg(format!("-max_total_time={}", (minutes * 60.0).ceil()));
    command.args([format!("-timeout={SECONDS_AN_INPUT}"), format!("-rss_limit_mb={MEMORY_MIB}")]);
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args(["-print_final_stats=1", "-max_len=4096", "-use_value_profile=1"]);
    let totals = watch(&mut command)?;
    let crashes = fs::read_dir(&artifacts).map_err(at(&artifacts))?.count();
    let line = format!("{name}: {}, {} failing inputs kept", totals.text(minutes), crashes);
    eprintln!("{line}");
    let log = target("fuzz").join(format!("{name}.log"));
    let mut log_file = OpenOptions::new().create(true).append(true).open(&log).map_err(at(&log))?;
    writeln!(log_file, "{} {line}", revision()).map_err(at(&log))?;
    match totals.failed {
        None => Ok(()),
        Some(how) => Err(format!("{name}: {how}; its input is in {}", artifacts.display())),
    }
}

/// What a run printed about itself.
#[derive(Debug, Default, PartialEq)]
struct Totals {
    executions: u64,
    /// Points reached by the inputs that were there at the beginning.
    first_coverage: Option<u64>,
    coverage: u64,
    new_inputs: u64,
    peak_mib: u64,
    failed: Option<String>,
}

impl Totals {
    /// Takes what a line says. Source: libFuzzer's output: `#123 NEW cov: 45 ft: ...`, and `stat::name: value` at its end.
    fn line(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        match words.next() {
            Some("stat::number_of_executed_units:") => self.executions = number(words.next()),
            Some("stat::new_units_added:") => self.new_inputs = number(words.next()),
            Some("stat::peak_rss_mb:") => self.peak_mib = number(words.next()),
            Some(count) if count.starts_with('#') => {
                if let Some(coverage) = line.split_once("cov: ").map(|(_, rest)| rest) {
                    self.coverage = number(coverage.split_whitespace().next());
                    self.first_coverage.get_or_insert(self.coverage);
                }
            }
            _ if line.contains("ERROR: libFuzzer: ") || line.contains("ERROR: AddressSanitizer: ") => {
                self.failed = line.split_once("ERROR: ").map(|(_, how)| how.to_owned());
            }
            _ => {}
        }
    }

    fn text(&self, minutes: f64) -> String {
        format!(
            "{minutes} minutes, {} executions, coverage {} to {}, {} inputs added, {} MiB at most, {}",
            self.executions,
            self.first_coverage.unwrap_or_default(),
            self.coverage,
            self.new_inputs,
            self.peak_mib,
            self.failed.as_deref().unwrap_or("no failure")
        )
    }
}

/// Runs the fuzzer and shows the lines that say more than its pulse.
fn watch(command: &mut Command) -> Result<Totals> {
    let line = format!("{command:?}");
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| format!("{line}: {error}"))?;
    let mut totals = Totals::default();
    if let Some(output) = child.stderr.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(|error| format!("read what the fuzzer prints: {error}"))?;
            let line = String::from_utf8_lossy(&line);
            totals.line(&line);
            if !line.starts_with('#') && !line.starts_with("\tNEW_") {
                eprintln!("{line}");
            }
        }
    }
    let status = child.wait().map_err(|error| format!("{line}: {error}"))?;
    if !status.success() && totals.failed.is_none() {
        return Err(format!("{line}: {status}"));
    }
    Ok(totals)
}

/// The commit that is checked out, for the log.
fn revision() -> String {
    let mut command = Command::new("git");
    command.current_dir(gantry_testkit::workspace_root()).args(["rev-parse", "--short", "HEAD"]);
    match command.output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::Totals;

    #[test]
    fn totals_are_read_from_what_the_fuzzer_prints() {
        let mut totals = Totals::default();
        for line in [
            "#5\tINITED cov: 210 ft: 300 corp: 4/40b exec/s: 0 rss: 40Mb",
            "#99\tNEW    cov: 345 ft: 700 corp: 9/90b lim: 4 exec/s: 0 rss: 41Mb L: 2/9 MS: 1 ChangeBit-",
            "stat::number_of_executed_units: 123456",
            "stat::new_units_added:          78",
            "stat::peak_rss_mb:              412",
        ] {
            totals.line(line);
        }
        let wanted = Totals {
            executions: 123_456,
            first_coverage: Some(210),
            coverage: 345,
            new_inputs: 78,
            peak_mib: 412,
            failed: None,
        };
        assert_eq!(totals, wanted);
        totals.line("==9== ERROR: libFuzzer: timeout after 10 seconds");
        assert_eq!(totals.failed.as_deref(), Some("libFuzzer: timeout after 10 seconds"));
    }
}

//! One line a round, over all runs, and the totals of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use gantry_core::{Result, ResultExt as _};
use gantry_failpoint::Point;
use serde::{Deserialize, Serialize};

/// How a round's daemon ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// Killed at a random time.
    Killed,
    /// At the failpoint of this name, the nth time it was passed; whether it got there.
    Failpoint { name: String, passage: u32, reached: bool },
    /// The step at this failpoint failed, the nth time; killed afterwards.
    Failed { name: String, passage: u32 },
    /// The disk was full; then the daemon went on (`false`) or was killed (`true`).
    Full { killed: bool },
    /// The machine was stopped without warning.
    PowerLoss,
}

/// One round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) commit: String,
    pub(crate) seed: u64,
    pub(crate) round: u64,
    pub(crate) end: End,
    pub(crate) operations: u64,
    pub(crate) refused: u64,
    /// Objects that the notes knew of afterwards.
    pub(crate) objects: usize,
    /// Further things worth knowing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) detail: String,
    pub(crate) violations: Vec<String>,
}

/// The log of one kind of crash.
pub(crate) struct Log {
    path: PathBuf,
    pub(crate) rounds: Vec<Round>,
}

impl Log {
    /// Reads what earlier runs have written.
    ///
    /// # Errors
    /// Those of the file; `Unknown` for a line that is no round.
    pub(crate) fn open(path: &Path) -> Result<Log> {
        let step = || format!("log {}", path.display());
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other.with_context(step)?,
        };
        let read = |line: &str| {
            serde_json::from_str(line)
                .map_err(|error| gantry_core::Error::unknown(error.to_string()).context(step()))
        };
        let rounds = text.lines().map(read).collect::<Result<Vec<Round>>>()?;
        Ok(Log { path: path.to_owned(), rounds })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// Those of the file.
    pub(crate) fn add(&mut self, round: Round) -> Result<()> {
        let step = || format!("log {}", self.path.display());
        let mut line = serde_json::to_string(&round)
            .map_err(|error| gantry_core::Error::internal(error.to_string()).context(step()))?;
        line.push('\n');
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).with_context(step)?;
        self.rounds.push(round);
        Ok(())
    }

    /// How often each failpoint has ended a daemon.
    pub(crate) fn hits(&self) -> BTreeMap<&'static str, usize> {
        let mut hits: BTreeMap<&'static str, usize> =
            Point::ALL.iter().map(|point| (point.name(), 0)).collect();
        for round in &self.rounds {
            if let End::Failpoint { name, reached: true, .. } = &round.end
                && let Some(count) = hits.get_mut(&**name)
            {
                *count += 1;
            }
        }
        hits
    }

    pub(crate) fn violations(&self) -> usize {
        self.rounds.iter().map(|round| round.violations.len()).sum()
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commits: BTreeSet<&str> = self.rounds.iter().map(|round| round.commit.as_str()).collect();
        let sum = |of: fn(&Round) -> u64| self.rounds.iter().map(of).sum::<u64>();
        writeln!(
            f,
            "{}: {} rounds at {} commits ({})",
            self.path.display(),
            self.rounds.len(),
            commits.len(),
            commits.into_iter().collect::<Vec<_>>().join(" ")
        )?;
        writeln!(
            f,
            "operations answered {}, refused or cut off {}",
            sum(|round| round.operations),
            sum(|round| round.refused)
        )?;
        let count = |fits: fn(&End) -> bool| self.rounds.iter().filter(|round| fits(&round.end)).count();
        writeln!(
            f,
            "ended: {} at random, {} at failpoints, {} after a failed step, {} with a full disk, {} by loss of power",
            count(|end| matches!(end, End::Killed))
                + count(|end| matches!(end, End::Failpoint { reached: false, .. })),
            count(|end| matches!(end, End::Failpoint { reached: true, .. })),
            count(|end| matches!(end, End::Failed { .. })),
            count(|end| matches!(end, End::Full { .. })),
            count(|end| matches!(end, End::PowerLoss)),
        )?;
        if count(|end| matches!(end, End::Failpoint { .. })) > 0 {
            for (name, hits) in self.hits() {
                writeln!(f, "  {name:<22} {hits}")?;
            }
        }
        write!(f, "violations: {}", self.violations())?;
        for round in self.rounds.iter().filter(|round| !round.violations.is_empty()) {
            write!(f, "\n  round {} at {}, {:?}:", round.round, round.commit, round.end)?;
            for violation in &round.violations {
                write!(f, "\n    {violation}")?;
            }
        }
        Ok(())
    }
}

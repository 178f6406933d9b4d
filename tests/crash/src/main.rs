//! Crash tests: a real daemon under the load of eight clients is killed at random times and at every failpoint, fills its disk,
//! or loses power with its machine; then what it had answered must hold.
//!
//! `cargo xtask crash` runs this program under namespaces of its own. [`notes`] is what the clients were answered, [`load`] what
//! they do, [`check`] what must hold afterwards, [`log`] one line a round.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, reason = "a test that starts daemons and waits for no child but its own")]

mod check;
mod daemon;
mod full;
mod guest;
mod load;
mod log;
mod notes;
mod reach;
mod rounds;
mod there;
mod trees;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use gantry_core::{Result, ResultExt as _};

use crate::rounds::Plan;

/// What ends a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A kill.
    Kill,
    /// A full disk.
    Full,
}

/// Crash tests. Meant to be run by `cargo xtask crash`.
#[derive(Debug, Parser)]
enum Arguments {
    /// Runs rounds and appends a line for each to a log.
    Rounds(Rounds),
    /// The part of a round of power loss within the machine.
    Guest(guest::Guest),
    /// Works until every failpoint was passed, and prints their names.
    Reach {
        /// Where the root is made.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Prints the totals of a log; fails if there was a violation.
    Totals {
        /// The log.
        #[arg(long)]
        log: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Rounds {
    /// What ends a round.
    #[arg(long, value_enum, default_value = "kill")]
    kind: Kind,
    /// How many rounds.
    #[arg(long, default_value_t = 500)]
    rounds: u64,
    /// Ends after so many minutes, if that comes first.
    #[arg(long)]
    minutes: Option<u64>,
    /// Where random numbers begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The log.
    #[arg(long)]
    log: PathBuf,
    /// Which commit is tested, for the log.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Where roots are made.
    #[arg(long)]
    dir: PathBuf,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gantry-crash: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("start the runtime")?;
    match arguments {
        Arguments::Guest(arguments) => runtime.block_on(guest::guest(&arguments)).map(|()| true),
        Arguments::Reach { dir } => runtime.block_on(reach::reach(&dir)),
        Arguments::Totals { log } => {
            let log = log::Log::open(&log)?;
            println!("{log}");
            Ok(log.violations() == 0)
        }
        Arguments::Rounds(rounds) => {
            let plan = Plan {
                rounds: rounds.rounds,
                until: rounds.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes)),
                seed: rounds.seed,
                log: rounds.log,
                commit: rounds.commit,
                dir: rounds.dir,
            };
            match rounds.kind {
                Kind::Kill => runtime.block_on(rounds::kill_rounds(&plan)),
                Kind::Full => runtime.block_on(full::full_rounds(&plan)),
            }
        }
    }
}

//! `gantryd fsck`: checks the store of a root that no daemon uses.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use gantry_core::maintenance::Maintenance as _;
use gantry_core::maintenance::check::{CheckEvent, CheckOptions, CheckSummary, Finding, Outcome, Problem};
use gantry_core::{Context, Error, ErrorKind, Result, ResultExt as _};

use crate::arguments::{Arguments, Fsck};
use crate::config::Config;
use crate::{logging, plugins};

/// Nothing could be checked. Source: fsck(8), "operational error".
const EXIT_NOT_CHECKED: u8 = 8;

/// How long the database may take to close.
const GRACE: Duration = Duration::from_secs(10);

/// Checks, and says so; the exit status.
pub(crate) fn run(arguments: &Arguments, options: &Fsck) -> ExitCode {
    match check(arguments, options) {
        Ok(summary) => ExitCode::from(summary.exit_status()),
        Err(error) => {
            eprintln!("gantryd: {error}");
            ExitCode::from(EXIT_NOT_CHECKED)
        }
    }
}

fn check(arguments: &Arguments, options: &Fsck) -> Result<CheckSummary> {
    let mut config = arguments.configuration()?;
    if arguments.log_level.is_none() {
        // The findings are printed; the log would only say the same in other words.
        "error".clone_into(&mut config.log_level);
    }
    logging::start(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let outcome = runtime.block_on(look(config, options));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn look(config: Config, options: &Fsck) -> Result<CheckSummary> {
    let database = config.root.join("gantry/store.db");
    let root = config.root.display().to_string();
    let step = || format!("check root {root}");
    if !database.exists() {
        return Err(Error::not_found(format!("no database {}", database.display())).context(step()));
    }
    let config = Arc::new(config);
    let opened = {
        let config = Arc::clone(&config);
        tokio::task::spawn_blocking(move || plugins::open_as_is(&config)).await
    };
    let metadata = match opened.map_err(|_| Error::internal("opening the store panicked"))? {
        // So damaged that it cannot be opened: that is a finding.
        Err(error) if error.kind() == ErrorKind::DataLoss => return unreadable(&database, &error, options),
        other => other.with_context(step)?,
    };
    let how = CheckOptions { deep: options.deep, repair: options.repair };
    let checked = async {
        let mut events = metadata.maintenance().check(&Context::background(), how).await?;
        while let Some(event) = events.try_next().await? {
            print(&event, options)?;
            if let CheckEvent::Summary(summary) = event {
                return Ok(summary);
            }
        }
        Err(Error::internal("the check ended early"))
    };
    let checked = checked.await.with_context(step);
    let closed = metadata.close(GRACE).await;
    checked.and_then(|summary| closed.map(|()| summary))
}

fn print(event: &CheckEvent, options: &Fsck) -> Result<()> {
    let line = match event {
        event if options.json => event.to_json(),
        CheckEvent::Progress { .. } => return Ok(()),
        CheckEvent::Finding(finding) => finding.to_string(),
        CheckEvent::Summary(summary) => summary.to_string(),
    };
    writeln!(std::io::stdout(), "{line}").context("write to standard output")
}

fn unreadable(database: &std::path::Path, error: &Error, options: &Fsck) -> Result<CheckSummary> {
    let finding = Finding {
        problem: Problem::DatabaseDamaged,
        object: None,
        path: database.display().to_string(),
        detail: error.to_string(),
        outcome: Outcome::Left,
        action: "copy the file, and rebuild it with `sqlite3 FILE .recover`, or restore a copy".to_owned(),
    };
    let mut summary = CheckSummary::default();
    summary.count(finding.outcome);
    print(&CheckEvent::Finding(finding), options)?;
    print(&CheckEvent::Summary(summary), options)?;
    Ok(summary)
}

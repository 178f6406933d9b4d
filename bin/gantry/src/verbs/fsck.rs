//! `gantry fsck`: of a running daemon over its socket, of a stopped root by the daemon's own program.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::TryStreamExt as _;
use gantry_client::Client;
use gantry_core::maintenance::check::{CheckEvent, CheckOptions, CheckSummary};
use gantry_core::{Context, Error, ErrorKind, ResultExt as _};
use gantry_sys::process::{Spawn, Stdio};

use crate::arguments::Global;
use crate::failure::{Advise as _, Failure, Result};
use crate::output;
use crate::verbs::{connect, only_gantryd};

/// Nothing could be checked. Source: fsck(8), "operational error".
const EXIT_NOT_CHECKED: i32 = 8;

/// What the exit status says.
pub(crate) const EXIT_STATUS: &str = "Exit status:
  0  no damage
  1  damage, and all of it was repaired
  4  damage that was not repaired
  8  nothing could be checked";

/// What `fsck` takes.
#[derive(Args)]
pub(crate) struct Flags {
    /// Read every blob and compare its digest, and look at every page of the database
    #[arg(long)]
    deep: bool,
    /// Repair what can be repaired without loss
    #[arg(long)]
    repair: bool,
    /// Check this root, which no daemon uses, instead of asking the daemon
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The configuration of the daemon that used the root
    #[arg(long, value_name = "FILE", requires = "root")]
    config: Option<PathBuf>,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(global: &Global, flags: &Flags) -> Result<i32> {
    let checked = async {
        match &flags.root {
            Some(root) if !is_in_use_by_daemon(global, root).await => stopped(flags, root).await,
            _ => running(&connect(global).await?, flags).await,
        }
    };
    checked.await.map_err(|failure: Failure| failure.code(EXIT_NOT_CHECKED))
}

/// Asks the daemon.
async fn running(client: &Client, flags: &Flags) -> Result<i32> {
    let how = CheckOptions { deep: flags.deep, repair: flags.repair };
    let events = client.services().maintenance.check(&Context::background(), how).await;
    let mut events = only_gantryd(events.context("check the store"))
        .advise(ErrorKind::Unavailable, || "wait until the other check has ended".to_owned())?;
    let mut summary: Option<CheckSummary> = None;
    while let Some(event) = only_gantryd(events.try_next().await.context("check the store"))? {
        if let CheckEvent::Summary(last) = &event {
            summary = Some(*last);
        }
        match event {
            event if flags.json => output::line(event.to_json())?,
            CheckEvent::Progress { .. } => {}
            CheckEvent::Finding(finding) => output::line(finding)?,
            CheckEvent::Summary(summary) => output::line(summary)?,
        }
    }
    let ended = || Error::unavailable("the daemon stopped before the check had ended");
    Ok(summary.ok_or_else(ended)?.exit_status().into())
}

/// Whether the daemon at the address is the one that uses `root`: then it is asked, and nobody else.
async fn is_in_use_by_daemon(global: &Global, root: &Path) -> bool {
    let lock = root.join("gantry/store.db.lock");
    let Ok(holder) = std::fs::read_to_string(&lock) else { return false };
    let Ok(client) = connect(global).await else { return false };
    let server = client.services().introspection.server(&Context::background()).await;
    let pid = server.map(|server| server.pid).unwrap_or_default();
    if holder.trim() != pid.to_string() {
        return false;
    }
    // The file stays behind a daemon that ended, and pids come again: what counts is whether it is locked.
    File::open(&lock).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Runs the daemon's program, which alone knows the store. It refuses a root that is in use, naming the process.
async fn stopped(flags: &Flags, root: &Path) -> Result<i32> {
    let root = std::path::absolute(root).with_context(|| format!("root {}", root.display()))?;
    let mut program = Spawn::new(gantryd()).inherit_env();
    program = program.stdin(Stdio::Null).stdout(Stdio::Inherit).stderr(Stdio::Inherit);
    program = program.arg("fsck").arg("--root").arg(root);
    if let Some(config) = &flags.config {
        program = program.arg("--config").arg(config);
    }
    for (given, flag) in [(flags.deep, "--deep"), (flags.repair, "--repair"), (flags.json, "--json")] {
        if given {
            program = program.arg(flag);
        }
    }
    let child = program.spawn().context("run gantryd");
    let child = child.advise(ErrorKind::NotFound, || {
        "a stopped root is checked by gantryd: put it on the path".to_owned()
    })?;
    let exit = child.wait_async().await.context("wait for gantryd")?;
    Ok(exit.status.code().map_or(EXIT_NOT_CHECKED, i32::from))
}

/// The daemon's program: beside this one, or on the search path.
fn gantryd() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("gantryd"));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("gantryd"))
}

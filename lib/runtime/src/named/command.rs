//! One call of a runtime's command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_core::{Error, ErrorKind, Result, ResultExt};
use gantry_sys::process::Capture;
use gantry_sys::{Child, ExitStatus, Spawn, Stdio};

use super::reason;

/// A call that is being put together.
#[derive(Debug)]
pub(super) struct Call {
    spawn: Spawn,
    verb: &'static str,
    log: Log,
    timeout: Duration,
}

/// The file that a runtime writes what went wrong to; removed when dropped.
#[derive(Debug)]
struct Log(PathBuf);

impl Drop for Log {
    fn drop(&mut self) {
        // The runtime may never have made it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Kills a runtime that nobody waits for any more.
struct Killer(Option<Child>);

impl Drop for Killer {
    fn drop(&mut self) {
        if let Some(child) = &self.0 {
            // It may have ended.
            drop(child.kill(9));
        }
    }
}

impl Call {
    pub(super) fn new(
        binary: &Path,
        state_dir: &Path,
        systemd_cgroup: bool,
        verb: &'static str,
        timeout: Duration,
    ) -> Result<Call> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        super::make_private(state_dir)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let log = Log(state_dir.join(format!(".log-{}-{number}.json", std::process::id())));
        // Source: runc's global options, which crun, runsc and youki share.
        let mut spawn = super::spawn(binary).arg("--root").arg(state_dir);
        spawn = spawn.arg("--log").arg(&log.0).args(["--log-format", "json"]);
        if systemd_cgroup {
            spawn = spawn.arg("--systemd-cgroup");
        }
        // A group of its own, so that a signal meant for the caller's terminal does not reach it.
        Ok(Call { spawn: spawn.arg(verb).process_group(0), verb, log, timeout })
    }

    #[must_use]
    pub(super) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.spawn = self.spawn.arg(arg);
        self
    }

    #[must_use]
    pub(super) fn args(mut self, args: Vec<String>) -> Self {
        self.spawn = self.spawn.args(args);
        self
    }

    /// Runs it and keeps only what went wrong.
    pub(super) async fn run(self) -> Result<()> {
        self.output(0).await.map(drop)
    }

    /// Runs it and returns what it printed.
    pub(super) async fn output(self, max_stdout_bytes: usize) -> Result<Vec<u8>> {
        let Call { spawn, verb, log, timeout } = self;
        let capture = Capture { max_stdout_bytes, timeout: Some(timeout), ..Capture::default() };
        let output = spawn.output(capture).await.with_context(|| format!("OCI runtime {verb} failed"))?;
        if output.status.success() {
            if output.truncated && max_stdout_bytes > 0 {
                return Err(Error::resource_exhausted(format!("the answer of OCI runtime {verb}")));
            }
            return Ok(output.stdout);
        }
        Err(failure(verb, &log, output.status, &output.stderr))
    }

    /// Runs it with streams that belong to the container: nothing is read from them.
    pub(super) async fn run_on(self, [stdin, stdout, stderr]: [Stdio; 3]) -> Result<()> {
        let Call { spawn, verb, log, timeout } = self;
        let step = || format!("OCI runtime {verb} failed");
        let child =
            spawn.stdin(stdin).stdout(stdout).stderr(stderr).spawn_async().await.with_context(step)?;
        let mut killer = Killer(Some(child));
        let Some(child) = &killer.0 else { return Err(Error::internal("a call without a child")) };
        match tokio::time::timeout(timeout, child.wait_async()).await {
            Err(_) => {
                let said = reason::last_error(&log.0);
                let error =
                    Error::deadline_exceeded(said.unwrap_or_else(|| "the runtime did not answer".to_owned()));
                Err(error.context(step()))
            }
            Ok(exit) => {
                let exit = exit.with_context(step)?;
                killer.0 = None;
                if exit.status.success() { Ok(()) } else { Err(failure(verb, &log, exit.status, b"")) }
            }
        }
    }
}

/// Why a call failed: its log's last error, else its standard error's last line, else how it ended.
fn failure(verb: &'static str, log: &Log, status: ExitStatus, stderr: &[u8]) -> Error {
    let said = reason::last_error(&log.0).or_else(|| reason::last_line(stderr));
    let text = said.unwrap_or_else(|| format!("the runtime ended with {status} and gave no reason"));
    let (kind, text) = reason::explain(verb, text);
    let error = Error::new(kind, text);
    // Source: containerd's runc shim prefixes all but kill, whose texts clients compare.
    if verb == "kill" && kind == ErrorKind::NotFound {
        error
    } else {
        error.context(format!("OCI runtime {verb} failed"))
    }
}

//! A logger: a program of the client's that reads a process's output (`binary://`).

use std::os::fd::OwnedFd;
use std::time::Duration;

use gantry_core::{Error, Result, ResultExt};
use gantry_sys::{Child, Spawn};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::{Owner, target};

/// How long a logger may take to say that it is ready. Ours; the original waits for ever.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a logger may take to end by itself once its input did, before it is asked to.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a logger may take to end once it was asked to. Source: features I14.
const STOP_TIMEOUT: Duration = Duration::from_secs(12);

/// SIGTERM. Source: signal(7).
const TERMINATE: i32 = 15;

#[derive(Debug)]
pub(super) struct Logger {
    child: Child,
}

impl Logger {
    /// Starts the program of `binary://path?key=value` and gives the pipes for output and errors.
    ///
    /// It gets the two as descriptors 3 and 4, and says that it is ready by closing 5, or for `binary-v2` by writing a
    /// byte to it first. Source: features I14.
    pub(super) async fn start(url: &str, owner: &Owner) -> Result<(Logger, OwnedFd, OwnedFd)> {
        let what = || format!("start logger {url:?}");
        let must_write = url.starts_with("binary-v2:");
        let path = target::url_path(url)?;
        let args = target::url_query(url)?.into_iter().flat_map(|(key, value)| [key, value]);
        let (out_read, out) = super::pipe(owner)?;
        let (err_read, err) = super::pipe(owner)?;
        let (ready, ready_write) = pipe_with(PipeFlags::CLOEXEC).map_err(std::io::Error::from)?;
        let child = Spawn::new(&path)
            .args(args)
            .inherit_env()
            // What it starts is killed with it.
            .process_group(0)
            .env("CONTAINER_ID", &owner.container_id)
            .env("CONTAINER_NAMESPACE", &owner.namespace)
            .descriptor(out_read, 3)
            .descriptor(err_read, 4)
            .descriptor(ready_write, 5)
            .spawn_async()
            .await
            .with_context(what)?;
        let logger = Logger { child };
        let mut ready = pipe::Receiver::from_owned_fd(ready).context("watch a pipe")?;
        let said = tokio::time::timeout(READY_TIMEOUT, ready.read(&mut [0])).await;
        let failed = match said {
            Ok(Ok(0)) if must_write => Error::unknown("logger ended before it was ready"),
            Ok(Ok(_)) => return Ok((logger, out, err)),
            Ok(Err(error)) => Error::io(error),
            Err(_) => Error::deadline_exceeded("logger is not ready"),
        };
        logger.kill();
        Err(failed.context(what()))
    }

    /// Waits for the logger to read to the end, then asks it to end, then ends it.
    pub(super) async fn stop(self) {
        if tokio::time::timeout(END_TIMEOUT, self.child.wait_async()).await.is_ok() {
            return;
        }
        let _ = self.child.kill(TERMINATE);
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait_async()).await.is_err() {
            tracing::warn!(pid = self.child.pid(), "a logger did not end and is killed");
            self.kill();
        }
    }

    /// Kills it with its group.
    fn kill(&self) {
        let Some(group) = Pid::from_raw(self.child.pid()) else { return };
        if !matches!(self.child.try_wait(), Ok(None)) {
            // Its number may be another's by now.
            return;
        }
        if let Err(error) = rustix::process::kill_process_group(group, Signal::KILL) {
            tracing::debug!(%error, pid = self.child.pid(), "kill a logger");
        }
    }
}

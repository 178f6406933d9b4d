//! Running a program to its end and keeping what it said, within bounds.

use std::os::fd::OwnedFd;
use std::time::Duration;

use gantry_core::{Error, Result, ResultExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use super::{Child, Spawn, Stdio};
use crate::exit::ExitStatus;

/// What to give a program and how much of its output to keep.
#[derive(Clone, Debug)]
pub struct Capture {
    /// What it reads on its standard input; nothing by default.
    pub stdin: Vec<u8>,
    /// How many bytes of its standard output to keep; more is read and dropped. 1 MiB by default.
    pub max_stdout_bytes: usize,
    /// How many bytes of its standard error to keep. 64 KiB by default.
    pub max_stderr_bytes: usize,
    /// How long it may take before it is killed; for ever by default.
    pub timeout: Option<Duration>,
}

impl Default for Capture {
    fn default() -> Self {
        Capture { stdin: Vec::new(), max_stdout_bytes: 1 << 20, max_stderr_bytes: 64 << 10, timeout: None }
    }
}

/// What a program said, and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// The start of its standard output.
    pub stdout: Vec<u8>,
    /// The start of its standard error.
    pub stderr: Vec<u8>,
    /// Whether it said more than was kept.
    pub truncated: bool,
}

/// A stream being read, and what was kept of it.
struct Reader {
    pipe: Option<pipe::Receiver>,
    kept: Vec<u8>,
    max: usize,
    truncated: bool,
}

impl Reader {
    fn new(fd: OwnedFd, max: usize) -> Result<Self> {
        let pipe = pipe::Receiver::from_owned_fd(fd).context("watch a pipe")?;
        Ok(Reader { pipe: Some(pipe), kept: Vec::new(), max, truncated: false })
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = bytes.len().min(self.max - self.kept.len());
        self.kept.extend_from_slice(&bytes[..room]);
        self.truncated |= room < bytes.len();
    }

    /// Reads to the end. May be dropped between two reads.
    async fn read(&mut self) {
        let mut buffer = [0; 8192];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer).await {
                Ok(0) | Err(_) => self.pipe = None,
                Ok(n) => self.keep(&buffer[..n]),
            }
        }
    }

    /// Reads what is there now. From the descriptor itself: the reactor may not have heard yet of
    /// what the program wrote last, and would say that there is nothing.
    fn drain(&mut self) {
        let mut buffer = [0; 8192];
        while let Some(pipe) = &self.pipe {
            match rustix::io::read(pipe, &mut buffer) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) | Err(_) => self.pipe = None,
                Ok(n) => self.keep(&buffer[..n]),
            }
        }
    }
}

/// Kills the child when dropped before it has ended: the caller gave up.
struct Killer<'a> {
    child: &'a Child,
    group: bool,
}

impl Killer<'_> {
    fn kill(&self) {
        // Both fail only if there is nobody left to kill.
        if self.group
            && matches!(self.child.try_wait(), Ok(None))
            && let Some(pid) = rustix::process::Pid::from_raw(self.child.pid())
        {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        drop(self.child.kill(libc::SIGKILL));
    }
}

impl Drop for Killer<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Spawn {
    /// Runs the program to its end and returns what it said. A failing exit status is no error.
    ///
    /// Its streams are read until *it* has ended, not until end of file: what it leaves running may
    /// hold them open. The program is killed at the deadline and when this future is dropped, with
    /// its process group if it was given one of its own.
    ///
    /// # Errors
    /// `DeadlineExceeded` if it was killed at the deadline, with the last line of its standard
    /// error; otherwise as [`spawn`](Self::spawn).
    pub async fn output(mut self, capture: Capture) -> Result<Output> {
        let label = self.label();
        let group = self.session || self.group == Some(0);
        let mut input = None;
        if !capture.stdin.is_empty() {
            let (theirs, ours) = super::pipe().context("open a pipe")?;
            self.streams[0] = Stdio::Fd(theirs);
            input = Some(pipe::Sender::from_owned_fd(ours).context("watch a pipe")?);
        }
        let (ours, theirs) = super::pipe().context("open a pipe")?;
        self.streams[1] = Stdio::Fd(theirs);
        let mut stdout = Reader::new(ours, capture.max_stdout_bytes)?;
        let (ours, theirs) = super::pipe().context("open a pipe")?;
        self.streams[2] = Stdio::Fd(theirs);
        let mut stderr = Reader::new(ours, capture.max_stderr_bytes)?;

        let child = self.spawn_async().await?;
        let killer = Killer { child: &child, group };
        let feed = async {
            if let Some(mut pipe) = input.take() {
                // It may end, or close its input, without reading all; that is its own affair.
                drop(pipe.write_all(&capture.stdin).await);
            }
            std::future::pending::<()>().await
        };
        let deadline = async {
            match capture.timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        let mut exit = None;
        {
            let read_out = async {
                stdout.read().await;
                std::future::pending::<()>().await
            };
            let read_err = async {
                stderr.read().await;
                std::future::pending::<()>().await
            };
            // Reading and feeding never complete, and stop mattering once the child has ended or
            // time is up; what they have read by then is kept in the readers.
            tokio::select! {
                ended = child.wait_async() => exit = Some(ended?),
                () = deadline => {}
                () = feed => {}
                () = read_out => {}
                () = read_err => {}
            }
        }
        let in_time = exit.is_some();
        let exit = match exit {
            Some(exit) => exit,
            None => {
                killer.kill();
                child.wait_async().await?
            }
        };
        std::mem::forget(killer);
        stdout.drain();
        stderr.drain();
        if !in_time {
            let said = String::from_utf8_lossy(&stderr.kept);
            let last = said.lines().rev().find(|line| !line.trim().is_empty());
            let error = match last {
                Some(line) => Error::deadline_exceeded(format!("run {label}: {}", line.trim())),
                None => Error::deadline_exceeded(format!("run {label}")),
            };
            return Err(error);
        }
        let truncated = stdout.truncated || stderr.truncated;
        Ok(Output { status: exit.status, stdout: stdout.kept, stderr: stderr.kept, truncated })
    }
}

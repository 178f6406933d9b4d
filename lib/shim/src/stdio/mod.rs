//! Where a process's input comes from and its output goes.
//!
//! ```text
//! client ─ fifo ─► copy ─► pipe ─► process ─► pipe ─► copy ─► fifo, file
//!                                          └────────► pipe ─► logger (binary://)
//!                              terminal: one pty in place of the pipes
//! ```
//!
//! [`Plumbing::open`] makes both ends before the process exists; [`Plumbing::run`] starts copying once it does. The
//! shim copies, so that a client that comes and goes is invisible to the process, and the process's file descriptors
//! never are the client's own.

mod copy;
mod log_file;
mod logger;
pub(crate) mod readers;
mod target;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use gantry_core::tasks::TaskIo;
use gantry_core::{Error, Result, ResultExt};
use gantry_runtime::Io;
use gantry_sys::Stdio;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

use copy::{Sink, Source};
use logger::Logger;
use target::{StdinFifo, Target};

/// Whose the pipes are, and whom a logger works for.
#[derive(Clone, Debug, Default)]
pub struct Owner {
    /// The container, for a logger.
    pub container_id: String,
    /// Its namespace, for a logger.
    pub namespace: String,
    /// The user that may reopen the pipes.
    pub uid: u32,
    /// The group that may reopen the pipes.
    pub gid: u32,
}

/// The shim's ends, before the process exists. Dropping it closes everything.
#[derive(Debug)]
pub struct Plumbing {
    stdin: Option<StdinFifo>,
    stdin_pipe: Option<OwnedFd>,
    outputs: Vec<(Option<OwnedFd>, Target)>,
    logger: Option<Logger>,
}

impl Plumbing {
    /// Opens what `io` names and makes the process's ends.
    ///
    /// # Errors
    /// `Unknown` for a scheme that is not understood; `NotFound` and the like for what cannot be opened.
    pub async fn open(io: &TaskIo, owner: &Owner) -> Result<(Io, Plumbing)> {
        let stdin = match io.stdin.as_str() {
            "" => None,
            path => Some(StdinFifo::open(path)?),
        };
        let mut plumbing = Plumbing { stdin, stdin_pipe: None, outputs: Vec::new(), logger: None };
        let (stdout, stderr) = plumbing.targets(io, owner).await?;
        if io.terminal {
            plumbing.outputs.push((None, stdout));
            return Ok((Io::Terminal, plumbing));
        }
        let mut streams = [Stdio::Null, Stdio::Null, Stdio::Null];
        if plumbing.stdin.is_some() {
            let (read, write) = pipe(owner)?;
            streams[0] = Stdio::Fd(read);
            plumbing.stdin_pipe = Some(write);
        }
        let mut first = None;
        for (stream, target) in streams[1..].iter_mut().zip([stdout, stderr]) {
            match target {
                Target::Nowhere => {}
                Target::WithOutput => *stream = first.take().map_or(Stdio::Null, Stdio::Fd),
                // A logger reads from its own pipe: nothing to copy, only to hold open.
                Target::Pipe(fd) => {
                    *stream = Stdio::Fd(fd.try_clone().context("duplicate a pipe")?);
                    plumbing.outputs.push((None, Target::Pipe(fd)));
                }
                target => {
                    let (read, write) = pipe(owner)?;
                    first = Some(write.try_clone().context("duplicate a pipe")?);
                    *stream = Stdio::Fd(write);
                    plumbing.outputs.push((Some(read), target));
                }
            }
        }
        Ok((Io::Streams(streams), plumbing))
    }

    /// Where output and errors go. With a terminal everything goes to the first.
    async fn targets(&mut self, io: &TaskIo, owner: &Owner) -> Result<(Target, Target)> {
        let stderr = if io.terminal { "" } else { io.stderr.as_str() };
        let Some((scheme, _)) = io.stdout.split_once("://") else {
            return Ok((Target::open(&io.stdout)?, Target::open(stderr)?));
        };
        match scheme {
            "fifo" => Ok((Target::open(&io.stdout)?, Target::open(stderr)?)),
            // Source: semantics, "stdio file://": both go into the first one's file. Through one pipe, so that they get there
            // in the order in which they were written.
            "file" => Ok((target::file(&io.stdout)?, Target::WithOutput)),
            "binary" | "binary-v2" => {
                let (logger, out, err) = Logger::start(&io.stdout, owner).await?;
                self.logger = Some(logger);
                Ok((Target::Pipe(out), if io.terminal { Target::Nowhere } else { Target::Pipe(err) }))
            }
            // Source: the original's text.
            other => Err(Error::unknown(format!("unknown STDIO scheme {other}"))),
        }
    }

    /// Starts copying. `console` is the terminal's master if the process has one.
    ///
    /// # Errors
    /// If the descriptors cannot be waited on.
    pub fn run(self, console: Option<OwnedFd>) -> Result<ProcessIo> {
        let mut io = ProcessIo {
            stdin_keeper: None,
            input: JoinSet::new(),
            output: JoinSet::new(),
            console: None,
            held: Vec::new(),
            logger: self.logger,
        };
        let stdin = self.stdin.map(StdinFifo::split);
        if let Some(console) = console {
            let console = Arc::new(copy::pollable(console).context("watch a terminal")?);
            if let Some((read, keeper)) = stdin {
                io.stdin_keeper = Some(keeper);
                io.input.spawn(copy::run(Source::Input(read), Sink::Shared(Arc::clone(&console))));
            }
            if let Some((_, target)) = self.outputs.into_iter().next() {
                let source = Source::Terminal(Arc::clone(&console));
                io.output.spawn(copy::run(source, Sink::of(target).context("watch an output")?));
            }
            io.console = Some(console);
            return Ok(io);
        }
        if let (Some((read, keeper)), Some(pipe)) = (stdin, self.stdin_pipe) {
            io.stdin_keeper = Some(keeper);
            let sink = Sink::Own(copy::pollable(pipe).context("watch a pipe")?);
            io.input.spawn(copy::run(Source::Input(read), sink));
        }
        for (from, target) in self.outputs {
            match (from, target) {
                (Some(from), target) => {
                    let source = Source::Pipe(copy::pollable(from).context("watch a pipe")?);
                    io.output.spawn(copy::run(source, Sink::of(target).context("watch an output")?));
                }
                (None, Target::Pipe(fd)) => io.held.push(fd),
                (None, _) => {}
            }
        }
        Ok(io)
    }
}

/// The running copies of one process.
#[derive(Debug)]
pub struct ProcessIo {
    /// Keeps standard input open while clients come and go.
    stdin_keeper: Option<OwnedFd>,
    input: JoinSet<()>,
    output: JoinSet<()>,
    console: Option<Arc<AsyncFd<OwnedFd>>>,
    /// A logger's pipes: it must not see an end before the process is deleted.
    held: Vec<OwnedFd>,
    logger: Option<Logger>,
}

impl ProcessIo {
    /// Lets standard input end once every client has closed it and what they wrote was passed on.
    pub fn close_stdin(&mut self) {
        self.stdin_keeper = None;
    }

    /// The process has ended: nobody takes input any more, or looks at the size of its terminal.
    pub fn end_input(&mut self) {
        self.stdin_keeper = None;
        self.input.abort_all();
        self.console = None;
    }

    /// Sets the size of the terminal; without one, nothing.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        let Some(console) = &self.console else { return Ok(()) };
        gantry_sys::pty::set_size(console.get_ref(), gantry_sys::pty::Size { width, height })
            .context("resize the terminal")
    }

    /// Waits until the output of an ended process was passed on, at most for `patience`, and closes everything.
    /// Children that it left behind may hold the pipes open; nobody waits for them longer.
    pub async fn close(mut self, patience: Duration) {
        self.input.shutdown().await;
        let all = async { while self.output.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::debug!("output is still open after its process ended");
            self.output.shutdown().await;
        }
        self.held.clear();
        if let Some(logger) = self.logger.take() {
            logger.stop().await;
        }
    }
}

/// A pipe whose ends `owner` may reopen through `/proc`.
fn pipe(owner: &Owner) -> Result<(OwnedFd, OwnedFd)> {
    let io = |errno: rustix::io::Errno| Error::io(errno.into()).context("make a pipe");
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(io)?;
    if (owner.uid, owner.gid) != (0, 0) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.uid), rustix::fs::Gid::from_raw(owner.gid));
        rustix::fs::fchown(&read, Some(uid), Some(gid)).map_err(io)?;
    }
    Ok((read, write))
}

#[cfg(test)]
mod tests;

//! Copying from one descriptor to another without holding memory in between.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::log_file::LogFile;
use super::target::Target;

/// How much one step moves. It lives on the stack for the step only: an idle copy holds no buffer.
const STEP_BYTES: usize = 8192;

#[derive(Debug)]
pub(super) enum Source {
    Input(AsyncFd<OwnedFd>),
    Pipe(AsyncFd<OwnedFd>),
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

#[derive(Debug)]
pub(super) enum Sink {
    Nowhere,
    Log(LogFile),
    /// What cannot be waited on.
    Device(File),
    Own(AsyncFd<OwnedFd>),
    Shared(Arc<AsyncFd<OwnedFd>>),
}

impl Sink {
    pub(super) fn of(target: Target) -> io::Result<Sink> {
        Ok(match target {
            Target::Nowhere | Target::WithOutput => Sink::Nowhere,
            Target::File(file) => Sink::Log(file),
            Target::Fifo(fd) | Target::Pipe(fd) => match pollable(fd.try_clone()?) {
                Ok(fd) => Sink::Own(fd),
                // Some devices, like /dev/null, cannot be waited on and never make one wait.
                Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
                    Sink::Device(File::from(fd))
                }
                Err(error) => return Err(error),
            },
        })
    }

    /// Writes what can be written now.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Nowhere => Ok(bytes.len()),
            Sink::Log(log) => {
                log.write(bytes);
                Ok(bytes.len())
            }
            Sink::Device(file) => file.write(bytes),
            Sink::Own(fd) => Ok(rustix::io::write(fd.get_ref(), bytes)?),
            Sink::Shared(fd) => Ok(rustix::io::write(fd.get_ref(), bytes)?),
        }
    }
}

/// A descriptor that can be waited on.
pub(super) fn pollable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    let interest = match flags & rustix::fs::OFlags::RWMODE {
        rustix::fs::OFlags::WRONLY => Interest::WRITABLE,
        rustix::fs::OFlags::RDONLY => Interest::READABLE,
        _ => Interest::READABLE | Interest::WRITABLE,
    };
    gantry_sys::descriptor::async_fd(fd, interest)
}

/// Copies until the source ends. A sink that fails ends an input; output is drained, so that a full disk or a logger
/// that died never stops the process.
pub(super) async fn run(source: Source, mut sink: Sink) {
    let (from, is_input) = match &source {
        Source::Input(fd) => (fd, true),
        Source::Pipe(fd) => (fd, false),
        Source::Terminal(fd) => (&**fd, false),
    };
    loop {
        let step = match from.readable().await {
            Ok(mut guard) => match guard.try_io(|from| step(from.get_ref(), &mut sink)) {
                Ok(step) => step,
                Err(_would_block) => continue,
            },
            Err(error) => Err(error),
        };
        let rest = match step {
            Ok(Step::Moved) => continue,
            Ok(Step::End) => return,
            Ok(Step::Stuck(rest)) => rest,
            Ok(Step::Lost(error)) => {
                tracing::debug!(%error, "an output or input is gone");
                if is_input {
                    return;
                }
                sink = Sink::Nowhere;
                continue;
            }
            Err(error) => {
                tracing::debug!(%error, "copying ended");
                return;
            }
        };
        if let Err(error) = write_all(&mut sink, &rest).await {
            tracing::debug!(%error, "an output or input is gone");
            if is_input {
                return;
            }
            sink = Sink::Nowhere;
        }
    }
}

enum Step {
    Moved,
    End,
    /// The sink is full; this was read and not written.
    Stuck(Vec<u8>),
    Lost(io::Error),
}

/// Reads once and writes what was read, as far as it goes without waiting.
fn step(from: &OwnedFd, sink: &mut Sink) -> io::Result<Step> {
    let mut buffer = [0; STEP_BYTES];
    let read = match rustix::io::read(from.as_fd(), &mut buffer) {
        Ok(0) => return Ok(Step::End),
        Ok(read) => read,
        // A terminal's master says so when the last process has closed it.
        Err(Errno::IO) => return Ok(Step::End),
        Err(Errno::INTR) => return Ok(Step::Moved),
        Err(errno) => return Err(errno.into()),
    };
    let mut rest = &buffer[..read];
    while !rest.is_empty() {
        match sink.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Stuck(rest.to_vec())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Step::Lost(error)),
        }
    }
    Ok(Step::Moved)
}

async fn write_all(sink: &mut Sink, mut rest: &[u8]) -> io::Result<()> {
    let fd = match sink {
        Sink::Own(fd) => &*fd,
        Sink::Shared(fd) => &**fd,
        Sink::Device(file) => return file.write_all(rest),
        // These take everything at once.
        Sink::Nowhere | Sink::Log(_) => return Ok(()),
    };
    while !rest.is_empty() {
        let mut guard = fd.writable().await?;
        match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), rest)?)) {
            Ok(Ok(written)) => rest = &rest[written..],
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
    Ok(())
}

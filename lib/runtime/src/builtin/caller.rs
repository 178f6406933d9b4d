//! Starting a helper and hearing what it reports.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::time::Duration;

use gantry_core::{Error, Result, ResultExt};
use gantry_sys::executable;
use gantry_sys::namespace::{self, Kind};
use gantry_sys::pidfd::Pidfd;
use gantry_sys::{Child, Spawn, Stdio};
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::helper::{HELPER_ARGUMENT, INIT, REPORT, REQUEST, Request};
use super::report::{self, Message};

/// The most that a helper may say.
const MAX_REPORT_BYTES: usize = 1 << 20;

/// How many log lines are kept; the first ones count.
const MAX_LOGS: usize = 16;

/// A helper at work. Dropping it kills what has not become a container's.
#[derive(Debug)]
pub(super) struct Helper {
    stream: UnixStream,
    child: Option<Child>,
    buffer: Vec<u8>,
    heard: usize,
    logs: Vec<String>,
    reason: Option<String>,
    console: Option<OwnedFd>,
}

/// Where a helper is born.
#[derive(Debug)]
pub(super) enum Place {
    /// Beside this process.
    Here,
    /// In the pid namespace of a container's init, and in its cgroups.
    Inside(Pidfd, Vec<std::path::PathBuf>),
}

impl Helper {
    /// Starts one.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) async fn start(
        program: Option<&Path>,
        request: &Request,
        [stdin, stdout, stderr]: [Stdio; 3],
        place: Place,
    ) -> Result<Helper> {
        let text = serde_json::to_vec(request).map_err(|error| Error::internal(error.to_string()))?;
        let executable = match program {
            Some(path) => executable::protected(path)?,
            None => executable::protected_self()?,
        };
        let (ours, theirs) = StdStream::pair().context("make a socket")?;
        ours.set_nonblocking(true).context("set up a socket")?;
        let stream = UnixStream::from_std(ours).context("watch a socket")?;
        let spawn = Spawn::from_fd(executable, "gantry-oci-runtime")
            .arg(HELPER_ARGUMENT)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .descriptor(theirs, REPORT)
            .descriptor(memory(&text)?, REQUEST);
        let work = move || match place {
            Place::Here => spawn.process_group(0).spawn(),
            Place::Inside(init, groups) => {
                use std::os::fd::AsFd;
                let held = init.as_fd().try_clone_to_owned().context("duplicate a pidfd")?;
                let spawn = groups.into_iter().fold(spawn.descriptor(held, INIT), Spawn::cgroup);
                namespace::in_process(init.as_fd(), &[Kind::Pid], || spawn.spawn())
            }
        };
        let child = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::internal(format!("a job did not finish: {error}")))??;
        Ok(Helper {
            stream,
            child: Some(child),
            buffer: Vec::new(),
            heard: 0,
            logs: Vec::new(),
            reason: None,
            console: None,
        })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, Child::pid)
    }

    /// The terminal that it sent.
    pub(super) fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    /// Waits until it has done its work and has ended; returns the init it made.
    ///
    /// # Errors
    /// What it reported; `DeadlineExceeded`.
    pub(super) async fn finish(mut self, timeout: Duration) -> Result<i32> {
        let work = async {
            loop {
                match self.next().await? {
                    Some(Message::Done(pid)) => {
                        // Its children become ours only when it has ended.
                        if let Some(child) = &self.child {
                            child.wait_async().await?;
                        }
                        return Ok(pid);
                    }
                    Some(Message::Failed(code, text)) => return Err(self.explain(code, &text)),
                    Some(_) => {}
                    None => return Err(self.ended_early().await),
                }
            }
        };
        let done = tokio::time::timeout(timeout, work).await;
        let done =
            done.unwrap_or_else(|_| Err(Error::deadline_exceeded("the built-in runtime did not answer")));
        match &done {
            Ok(_) => self.child = None,
            Err(_) => self.kill().await,
        }
        done
    }

    /// Waits until it has become another program.
    ///
    /// # Errors
    /// What it reported; `DeadlineExceeded`.
    pub(super) async fn becomes(&mut self, timeout: Duration) -> Result<()> {
        let work = async {
            let mut ready = false;
            loop {
                match self.next().await? {
                    Some(Message::Done(_)) => ready = true,
                    Some(Message::Failed(code, text)) => return Err(self.explain(code, &text)),
                    Some(_) => {}
                    // The descriptor was closed by becoming the program, or by its end.
                    None if ready => return Ok(()),
                    None => return Err(self.ended_early().await),
                }
            }
        };
        let done = tokio::time::timeout(timeout, work).await;
        let done =
            done.unwrap_or_else(|_| Err(Error::deadline_exceeded("the built-in runtime did not answer")));
        match &done {
            Ok(()) => self.child = None,
            Err(_) => self.kill().await,
        }
        done
    }

    async fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            // Both fail only if it has ended and was reaped.
            drop(child.kill(9));
            drop(child.wait_async().await);
        }
    }

    async fn ended_early(&self) -> Error {
        let how = match &self.child {
            Some(child) => child
                .wait_async()
                .await
                .map_or_else(|error| error.to_string(), |exit| exit.status.to_string()),
            None => "an unknown status".to_owned(),
        };
        self.explain(2, &format!("the helper of the built-in runtime ended with {how}"))
    }

    /// The best reason there is.
    fn explain(&self, code: i32, text: &str) -> Error {
        match self.reason.as_ref().or(self.logs.first()) {
            // Source: the words that runc puts before it.
            Some(reason) => Error::unknown(format!("unable to start container process: {}", reason.trim())),
            None => report::failure(code, text),
        }
    }

    /// The next message; `None` at the end.
    async fn next(&mut self) -> Result<Option<Message>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let message: Message = serde_json::from_slice(&line)
                    .map_err(|error| Error::internal(format!("what the helper reports: {error}")))?;
                match &message {
                    Message::Log(text) if self.logs.len() < MAX_LOGS => self.logs.push(text.clone()),
                    Message::Reason(text) => self.reason = Some(text.clone()),
                    _ => {}
                }
                return Ok(Some(message));
            }
            let mut bytes = [0; 4096];
            let stream = &self.stream;
            let read = || gantry_sys::socket::receive(stream, &mut bytes);
            let received = match stream.async_io(Interest::READABLE, read).await {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(Error::io(error).context("hear the helper")),
            };
            self.console = received.descriptors.into_iter().next().or(self.console.take());
            if received.bytes == 0 {
                return Ok(None);
            }
            self.heard += received.bytes;
            if self.heard > MAX_REPORT_BYTES {
                return Err(Error::resource_exhausted("what the helper reports"));
            }
            self.buffer.extend_from_slice(&bytes[..received.bytes]);
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            // It may have ended.
            drop(child.kill(9));
        }
    }
}

/// A file in memory with `bytes`, to be read from its beginning.
fn memory(bytes: &[u8]) -> Result<OwnedFd> {
    let fd = memfd_create("request", MemfdFlags::CLOEXEC).map_err(std::io::Error::from);
    let mut file = File::from(fd.context("create a file in memory")?);
    file.write_all(bytes).and_then(|()| file.rewind()).context("fill a file in memory")?;
    Ok(file.into())
}

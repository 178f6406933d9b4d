//! [`Process`]: a task's init process, or an exec in it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gantry_core::tasks::{ExitRecord, ProcessRecord, TaskStatus};
use gantry_core::{ContainerId, Error, ErrorKind, ExecId, Result, ResultExt};

use crate::client::Client;
use crate::process_io::ProcessIo;

/// The signal that cannot be caught.
const SIGKILL: u32 = 9;
/// How long a killed process may take to end: the kernel may be busy with what it asked for.
const KILL_WITHIN: Duration = Duration::from_secs(20);

/// A process in a container, made and perhaps begun.
pub struct Process {
    client: Client,
    container: ContainerId,
    exec: Option<ExecId>,
    pid: Mutex<u32>,
    io: Mutex<Option<ProcessIo>>,
}

impl Process {
    pub(crate) fn new(
        client: Client,
        container: ContainerId,
        exec: Option<ExecId>,
        pid: u32,
        io: Option<ProcessIo>,
    ) -> Self {
        Process { client, container, exec, pid: Mutex::new(pid), io: Mutex::new(io) }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The container.
    pub fn container_id(&self) -> &ContainerId {
        &self.container
    }

    /// The exec's id; `None` for the init process.
    pub fn exec_id(&self) -> Option<&ExecId> {
        self.exec.as_ref()
    }

    /// Its process id on the daemon's host; 0 for an exec that has not begun.
    pub fn pid(&self) -> u32 {
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exec_text(&self) -> &str {
        self.exec.as_ref().map_or("", ExecId::as_str)
    }

    fn step(&self, verb: &str) -> String {
        match &self.exec {
            Some(exec) => format!("{verb} exec {exec:?} of task {:?}", self.container),
            None => format!("{verb} task {:?}", self.container),
        }
    }

    /// Begins it, and the copying of its input.
    ///
    /// # Errors
    /// `Unknown` for what the runtime refuses, for example a missing executable. It must be deleted then.
    pub async fn start(&self) -> Result<()> {
        let cx = self.client.context();
        let started =
            self.client.services().tasks.start(&cx, self.container.as_str(), self.exec_text()).await;
        let mut io = self.io.lock().unwrap_or_else(PoisonError::into_inner);
        match started {
            Ok(pid) => {
                *self.pid.lock().unwrap_or_else(PoisonError::into_inner) = pid;
                if let Some(io) = io.as_mut() {
                    let (client, container) = (self.client.clone(), self.container.clone());
                    let exec = self.exec_text().to_owned();
                    io.started(async move {
                        let tasks = &client.services().tasks;
                        let closed = tasks.close_io(&client.context(), container.as_str(), &exec, true).await;
                        match closed {
                            // It may have ended already.
                            Err(error) if error.kind() != ErrorKind::NotFound => {
                                tracing::debug!(%error, "closing standard input");
                            }
                            _ => {}
                        }
                    });
                }
                Ok(())
            }
            Err(error) => {
                *io = None;
                Err(error.context(self.step("start")))
            }
        }
    }

    /// Waits for its end. May be called before it begins, and by several at once.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` if the daemon goes away meanwhile.
    pub async fn wait(&self) -> Result<ExitRecord> {
        let cx = self.client.context();
        let ended = self.client.services().tasks.wait(&cx, self.container.as_str(), self.exec_text()).await;
        ended.with_context(|| self.step("wait for"))
    }

    /// Its state.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn status(&self) -> Result<ProcessRecord> {
        let cx = self.client.context();
        let record = self.client.services().tasks.get(&cx, self.container.as_str(), self.exec_text()).await;
        record.with_context(|| self.step("state of"))
    }

    /// Sends a signal; with `all` to every process of the container.
    ///
    /// # Errors
    /// `NotFound` if it has ended.
    pub async fn kill(&self, signal: u32, all: bool) -> Result<()> {
        let cx = self.client.context();
        let tasks = &self.client.services().tasks;
        let killed = tasks.kill(&cx, self.container.as_str(), self.exec_text(), signal, all).await;
        killed.with_context(|| self.step(&format!("send signal {signal} to")))
    }

    /// Sets the size of its terminal, in characters.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn resize(&self, width: u32, height: u32) -> Result<()> {
        let cx = self.client.context();
        let tasks = &self.client.services().tasks;
        let resized = tasks.resize_pty(&cx, self.container.as_str(), self.exec_text(), width, height).await;
        resized.with_context(|| self.step("resize the terminal of"))
    }

    /// Closes its standard input.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn close_io(&self) -> Result<()> {
        let cx = self.client.context();
        let tasks = &self.client.services().tasks;
        let closed = tasks.close_io(&cx, self.container.as_str(), self.exec_text(), true).await;
        closed.with_context(|| self.step("close standard input of"))
    }

    /// Waits until all of its output was copied, after its end; at once if its output is not copied here.
    pub async fn wait_io(&self) {
        let io = self.io.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(io) = io {
            io.drain().await;
        }
    }

    /// Ends it, if it runs, by the signal KILL to it and what belongs to it, and deletes it.
    ///
    /// # Errors
    /// `NotFound`; `DeadlineExceeded` if it does not end.
    pub async fn kill_and_delete(&self) -> Result<ExitRecord> {
        match self.status().await?.status {
            TaskStatus::Stopped => return self.delete().await,
            // A frozen process takes no signal.
            TaskStatus::Paused | TaskStatus::Pausing if self.exec.is_none() => {
                let cx = self.client.context();
                let thawed = self.client.services().tasks.resume(&cx, self.container.as_str()).await;
                thawed.with_context(|| self.step("resume"))?;
            }
            _ => {}
        }
        match self.kill(SIGKILL, self.exec.is_none()).await {
            // What never began cannot be killed, but deleted.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return self.delete().await.map_err(|_| error);
            }
            // It may have ended by itself in between.
            _ => {}
        }
        match tokio::time::timeout(KILL_WITHIN, self.wait()).await {
            Ok(ended) => ended?,
            Err(_) => {
                let why = format!("it did not end within {} s of the signal KILL", KILL_WITHIN.as_secs());
                return Err(Error::deadline_exceeded(why).context(self.step("wait for")));
            }
        };
        self.delete().await
    }

    /// Deletes it, stopped, and its fifos.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` while it runs.
    pub async fn delete(&self) -> Result<ExitRecord> {
        let cx = self.client.context();
        let deleted =
            self.client.services().tasks.delete(&cx, self.container.as_str(), self.exec_text()).await;
        let deleted = deleted.with_context(|| self.step("delete"))?;
        // The shim has let go of its ends now.
        self.wait_io().await;
        Ok(deleted)
    }
}

//! One process of a task: its init, or an exec in it.
//!
//! ```text
//!   created ──start──► running ──exit──► stopped ──delete──► (forgotten)
//!      │                │   ▲               ▲
//!      │            pause   resume          │      (pausing, paused: init only)
//!      │                ▼   │               │
//!      │       pausing ─► paused ──exit─────┤
//!      └──────────────── exit ──────────────┘      (killed before it was started)
//! ```
//!
//! `turn` is held by whoever changes the state. An exit takes its turn too, so that it is told after the start that it
//! may have overtaken. Reading the state and sending a signal wait for nobody.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use gantry_core::tasks::{ExitRecord, ProcessRecord, TaskIo, TaskStatus};
use gantry_core::{Error, ErrorKind, Result};
use gantry_sys::Exit;
use gantry_sys::children::Follow;
use tokio::sync::watch;

use crate::stdio::ProcessIo;

/// A process and its state.
#[derive(Debug)]
pub(crate) struct Process {
    /// The exec id; empty for init.
    pub(crate) exec_id: String,
    /// What was asked for as input and output.
    pub(crate) io: TaskIo,
    /// Held by whoever changes the state.
    pub(crate) turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    ended: watch::Sender<Option<Ended>>,
}

/// How and when a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) status: u32,
    pub(crate) at: SystemTime,
}

impl From<Exit> for Ended {
    fn from(exit: Exit) -> Self {
        Ended { status: exit.status.status(), at: exit.exited_at }
    }
}

#[derive(Debug)]
struct State {
    status: TaskStatus,
    pid: u32,
    follow: Option<Arc<Follow>>,
    running_io: Option<ProcessIo>,
    /// Standard input was closed before there was one to close.
    stdin_closed: bool,
}

impl Process {
    /// A process that is created and not begun.
    pub(crate) fn new(exec_id: &str, io: TaskIo) -> Process {
        Process {
            exec_id: exec_id.to_owned(),
            io,
            turn: tokio::sync::Mutex::new(()),
            state: Mutex::new(State {
                status: TaskStatus::Created,
                pid: 0,
                follow: None,
                running_io: None,
                stdin_closed: false,
            }),
            ended: watch::Sender::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it; a poisoned state is still whole.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes note of the real process and of the copying that goes with it.
    pub(crate) fn attach(&self, follow: Arc<Follow>, mut io: ProcessIo) {
        let mut state = self.lock();
        if state.stdin_closed {
            io.close_stdin();
        }
        state.pid = follow.pid().unsigned_abs();
        state.follow = Some(follow);
        state.running_io = Some(io);
    }

    pub(crate) fn status(&self) -> TaskStatus {
        self.lock().status
    }

    pub(crate) fn set_status(&self, status: TaskStatus) {
        let mut state = self.lock();
        // Nothing leads back from stopped.
        if state.status != TaskStatus::Stopped {
            state.status = status;
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.lock().pid
    }

    /// Takes note of the end, lets go of what only a living process needs, and tells waiters.
    pub(crate) fn end(&self, ended: Ended) {
        {
            let mut state = self.lock();
            state.status = TaskStatus::Stopped;
            state.follow = None;
            if let Some(io) = &mut state.running_io {
                io.end_input();
            }
        }
        self.ended.send_replace(Some(ended));
    }

    pub(crate) fn ended(&self) -> Option<Ended> {
        *self.ended.borrow()
    }

    /// Waits for the end.
    pub(crate) async fn wait(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        loop {
            if let Some(ended) = *ended.borrow_and_update() {
                return ended;
            }
            // The sender lives as long as this process, which we hold.
            let _ = ended.changed().await;
        }
    }

    /// Sends a signal to this process alone.
    ///
    /// # Errors
    /// `FailedPrecondition` before its start; `NotFound` after its end. Source: semantics, "Tasks".
    pub(crate) fn signal(&self, signal: u32) -> Result<()> {
        let follow = {
            let state = self.lock();
            match (&state.follow, state.status) {
                (_, TaskStatus::Stopped) => return Err(already_finished()),
                (Some(follow), _) => Arc::clone(follow),
                (None, _) => return Err(Error::failed_precondition("process not created")),
            }
        };
        let signal =
            i32::try_from(signal).map_err(|_| Error::invalid_argument(format!("signal {signal}")))?;
        follow.kill(signal).map_err(|error| match error.kind() {
            ErrorKind::NotFound => already_finished(),
            _ => error,
        })
    }

    /// Sets the size of the terminal, if there is one.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn resize(&self, width: u32, height: u32) -> Result<()> {
        let limit = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
        match &self.lock().running_io {
            Some(io) => io.resize(limit(width), limit(height)),
            None => Ok(()),
        }
    }

    /// Lets standard input end.
    pub(crate) fn close_stdin(&self) {
        let mut state = self.lock();
        state.stdin_closed = true;
        if let Some(io) = &mut state.running_io {
            io.close_stdin();
        }
    }

    /// Ends the copying, once what the process said was passed on or `patience` ran out.
    pub(crate) async fn close_io(&self, patience: Duration) {
        let io = self.lock().running_io.take();
        if let Some(io) = io {
            io.close(patience).await;
        }
    }

    /// The state as the protocol knows it.
    pub(crate) fn record(&self, container_id: &str) -> ProcessRecord {
        let ended = self.ended();
        let state = self.lock();
        ProcessRecord {
            container_id: container_id.to_owned(),
            id: if self.exec_id.is_empty() { container_id.to_owned() } else { self.exec_id.clone() },
            pid: state.pid,
            status: state.status,
            io: self.io.clone(),
            exit_status: ended.map_or(0, |ended| ended.status),
            exited_at: ended.map(|ended| ended.at),
        }
    }

    /// The end as the protocol knows it.
    pub(crate) fn exit_record(&self, container_id: &str, ended: Ended) -> ExitRecord {
        ExitRecord {
            id: if self.exec_id.is_empty() { container_id.to_owned() } else { self.exec_id.clone() },
            pid: self.pid(),
            status: ended.status,
            exited_at: ended.at,
        }
    }
}

/// Source: the original's text.
pub(crate) fn already_finished() -> Error {
    Error::not_found("process already finished")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_answers_after_the_end_and_again() {
        let process = Process::new("", TaskIo::default());
        assert_eq!(process.signal(15).unwrap_err().kind(), ErrorKind::FailedPrecondition);
        let ended = Ended { status: 3, at: SystemTime::now() };
        let (waited, ()) = tokio::join!(process.wait(), async { process.end(ended) });
        assert_eq!((waited, process.wait().await), (ended, ended));
        process.set_status(TaskStatus::Running);
        assert_eq!(process.status(), TaskStatus::Stopped);
        assert_eq!(process.signal(15).unwrap_err().kind(), ErrorKind::NotFound);
        let record = process.record("web");
        assert_eq!((record.id.as_str(), record.exit_status), ("web", 3));
    }
}

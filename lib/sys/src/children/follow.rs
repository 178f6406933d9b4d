//! One child, from outside the book.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_core::{Error, ErrorKind, Result, ResultExt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;

use super::{Watch, book, take_by_pidfd};
use crate::descriptor::async_fd;
use crate::exit::Exit;
use crate::pidfd::{kill_error, send_signal};

/// A child whose end will be known: signals, waiting, and its exit.
#[derive(Debug)]
pub struct Follow {
    pub(super) watch: Arc<Watch>,
    /// Whether this process forked it, so that nobody else is obliged to take its exit.
    pub(super) spawned: bool,
}

impl Follow {
    /// The process id. It names the process only until its exit is known.
    pub fn pid(&self) -> i32 {
        self.watch.pid
    }

    /// The descriptor of the process; readable once it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.watch.pidfd.as_fd()
    }

    /// Sends `signal`.
    ///
    /// # Errors
    /// `NotFound` if the process has ended; `InvalidArgument` if there is no such signal.
    pub fn kill(&self, signal: i32) -> Result<()> {
        if self.watch.exit.borrow().is_some() {
            return Err(Error::not_found(format!("process {} has ended", self.pid())));
        }
        send_signal(self.pidfd(), signal).map_err(|error| kill_error(error, self.pid(), signal))
    }

    /// The exit, if the process has ended.
    ///
    /// # Errors
    /// `Internal` if something else took the exit: a wait outside this crate, or the parent that a
    /// registered process had.
    pub fn try_wait(&self) -> Result<Option<Exit>> {
        if let Some(exit) = *self.watch.exit.borrow() {
            return Ok(Some(exit));
        }
        let mut book = book();
        if let Some(exit) = *self.watch.exit.borrow() {
            return Ok(Some(exit));
        }
        match take_by_pidfd(self.pidfd()) {
            Ok(Some(status)) => {
                let exit = Exit::now(status);
                book.ended(&self.watch, exit);
                Ok(Some(exit))
            }
            Ok(None) => Ok(None),
            // A registered process that is not our child yet; its parent is about to end.
            Err(_) if !self.spawned && !self.watch.is_reaped() => Ok(None),
            Err(error) => Err(Error::with_source(ErrorKind::Internal, error)
                .context(format!("exit of process {} was taken by another wait", self.pid()))),
        }
    }

    /// Blocks this thread until the process has ended.
    ///
    /// # Errors
    /// As [`try_wait`](Self::try_wait).
    pub fn wait(&self) -> Result<Exit> {
        loop {
            if let Some(exit) = self.wait_timeout(Duration::from_secs(3600))? {
                return Ok(exit);
            }
        }
    }

    /// Blocks this thread until the process has ended or time is up, and then returns `None`.
    ///
    /// # Errors
    /// As [`try_wait`](Self::try_wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<Exit>> {
        // Some years are for ever, and an Instant cannot hold just any sum.
        let end = Instant::now() + timeout.min(Duration::from_secs(1 << 30));
        let mut pause = NotOurs::default();
        loop {
            if let Some(exit) = self.try_wait()? {
                return Ok(Some(exit));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let wait = Timespec::try_from(left).map_err(|_| Error::invalid_argument("timeout"))?;
            let mut fds = [PollFd::new(&self.watch.pidfd, PollFlags::IN)];
            match poll(&mut fds, Some(&wait)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                // It has ended; if it is not ours yet, its old parent is about to end too.
                Ok(_) => match self.try_wait()? {
                    Some(exit) => return Ok(Some(exit)),
                    None => std::thread::sleep(pause.next().min(left)),
                },
                Err(error) => return Err(Error::io(error.into()).context("poll a process")),
            }
        }
    }

    /// Waits until the process has ended. May be dropped and called again at any time.
    ///
    /// # Errors
    /// As [`try_wait`](Self::try_wait).
    pub async fn wait_async(&self) -> Result<Exit> {
        if let Some(exit) = self.try_wait()? {
            return Ok(exit);
        }
        // A duplicate, so that several may wait at once: a reactor takes each descriptor once.
        let pidfd = self.watch.pidfd.try_clone().context("duplicate a pidfd")?;
        let ready = async_fd(pidfd, Interest::READABLE).context("watch a pidfd")?;
        let mut exit = self.watch.exit.subscribe();
        let mut pause = NotOurs::default();
        loop {
            // Both branches only observe, so either may be dropped.
            tokio::select! {
                guard = ready.readable() => drop(guard.context("watch a pidfd")?),
                _ = exit.changed() => {}
            }
            match self.try_wait()? {
                Some(exit) => return Ok(exit),
                // The descriptor stays readable; what is missing is the end of the old parent.
                None => {
                    let pause = tokio::time::sleep(pause.next());
                    tokio::select! {
                        () = pause => {}
                        _ = exit.changed() => {}
                    }
                }
            }
        }
    }
}

/// Pauses while a process that has ended still belongs to another parent.
struct NotOurs(Duration);

impl Default for NotOurs {
    fn default() -> Self {
        NotOurs(Duration::from_millis(1))
    }
}

impl NotOurs {
    fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(Duration::from_millis(100));
        now
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        if self.watch.exit.borrow().is_some() {
            return;
        }
        let mut book = book();
        if self.spawned {
            // Somebody has to take its exit, or it stays a zombie.
            book.orphans.push(Arc::clone(&self.watch));
            book.sweep();
        } else if book.watched().get(&self.watch.pid).is_some_and(|known| Arc::ptr_eq(known, &self.watch))
            // The book's and ours: nobody else follows it.
            && Arc::strong_count(&self.watch) == 2
        {
            book.watched().remove(&self.watch.pid);
        }
    }
}

//! Taking the exits of children that a process did not start: what a subreaper must do.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_core::{Error, Result, ResultExt};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::children;
pub use crate::children::{Expectation, Follow};

static ACTIVE: AtomicBool = AtomicBool::new(false);

/// The one reaper of a process that inherits orphans.
///
/// It takes the exit of every child. Those of [`Spawn`](crate::Spawn) and those registered through an
/// [`Expectation`] learn theirs; grandchildren that nobody asked for merely vanish. With a reaper
/// at work no other wait-for-any may exist in the process, nor `std`'s or tokio's `Command`.
#[derive(Debug)]
pub struct Reaper {
    signals: Signal,
}

impl Reaper {
    /// Makes this process a subreaper and begins to watch for exits; [`run`](Self::run) takes them.
    ///
    /// # Errors
    /// `FailedPrecondition` if there is a reaper already.
    pub fn new() -> Result<Self> {
        if ACTIVE.swap(true, Ordering::AcqRel) {
            return Err(Error::failed_precondition("this process has a reaper already"));
        }
        // From here on, dropping the value frees the place again.
        let made = set_subreaper(true)
            .context("become a subreaper")
            .and_then(|()| signal(SignalKind::child()).context("watch SIGCHLD"));
        match made {
            Ok(signals) => Ok(Reaper { signals }),
            Err(error) => {
                ACTIVE.store(false, Ordering::Release);
                Err(error)
            }
        }
    }

    /// Takes exits until `shutdown` completes, and once more then.
    ///
    /// # Errors
    /// When the kernel refuses `waitid`, which it does not.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<()> {
        tokio::pin!(shutdown);
        loop {
            children::reap().context("take exits")?;
            // Receiving a signal notification loses nothing when dropped: the next turn takes all.
            tokio::select! {
                received = self.signals.recv() => {
                    if received.is_none() {
                        return Err(Error::internal("SIGCHLD is not delivered any more"));
                    }
                }
                () = &mut shutdown => break,
            }
        }
        children::reap().context("take exits")?;
        Ok(())
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        ACTIVE.store(false, Ordering::Release);
    }
}

/// Makes this process inherit the orphans among its descendants, or stops that.
///
/// # Errors
/// When the kernel refuses.
pub fn set_subreaper(yes: bool) -> io::Result<()> {
    // The kernel takes any number but 0 for yes.
    let value = yes.then(rustix::process::getpid);
    Ok(rustix::process::set_child_subreaper(value)?)
}

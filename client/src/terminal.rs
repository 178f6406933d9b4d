//! The user's own terminal, while a process in a container has one.

use std::os::fd::{AsFd, OwnedFd};

use gantry_core::{Result, ResultExt};
use gantry_sys::pty;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use crate::process::Process;

/// A terminal that passes everything on as it is typed. Dropping this restores it.
pub struct RawTerminal {
    fd: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    /// Makes the terminal `fd` raw.
    ///
    /// # Errors
    /// If `fd` is no terminal.
    pub fn enter(fd: impl AsFd) -> Result<Self> {
        let fd = fd.as_fd().try_clone_to_owned().context("terminal")?;
        let before = tcgetattr(&fd).map_err(std::io::Error::from).context("read the terminal's mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&fd, OptionalActions::Flush, &raw)
            .map_err(std::io::Error::from)
            .context("make the terminal raw")?;
        Ok(RawTerminal { fd, before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nobody could be told.
        let _ = tcsetattr(&self.fd, OptionalActions::Flush, &self.before);
    }
}

/// Gives `process`'s terminal the size of `fd`, now and whenever that changes, until dropped. Never returns.
pub async fn follow_size(process: &Process, fd: impl AsFd) {
    let mut changes = match signal(SignalKind::window_change()) {
        Ok(changes) => Some(changes),
        Err(error) => {
            tracing::debug!(%error, "changes of the terminal's size are not followed");
            None
        }
    };
    loop {
        if let Ok(size) = pty::size(&fd)
            && size.width > 0
            && let Err(error) = process.resize(size.width.into(), size.height.into()).await
        {
            tracing::debug!(%error, "resize the terminal");
        }
        match &mut changes {
            Some(changes) => {
                changes.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

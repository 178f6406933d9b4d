//! Processes that are not our children, held by descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use gantry_core::{Error, Result, ResultExt};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;

use crate::descriptor::async_fd;

/// A process held by a descriptor: the number cannot come to mean another process.
#[derive(Debug)]
pub struct Pidfd {
    pid: i32,
    fd: OwnedFd,
}

impl Pidfd {
    /// Takes hold of process `pid`.
    ///
    /// # Errors
    /// `NotFound` if there is none; `InvalidArgument` for numbers that are no process id.
    pub fn open(pid: i32) -> Result<Self> {
        let fd = open(pid).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => Error::not_found(format!("process {pid}")),
            Some(libc::EINVAL) => Error::invalid_argument(format!("process id {pid}")),
            _ => Error::io(error).context(format!("open process {pid}")),
        })?;
        Ok(Pidfd { pid, fd })
    }

    /// The number it was opened by.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends `signal`.
    ///
    /// # Errors
    /// `NotFound` if the process has ended; `InvalidArgument` if there is no such signal.
    pub fn kill(&self, signal: i32) -> Result<()> {
        send_signal(self.as_fd(), signal).map_err(|error| kill_error(error, self.pid, signal))
    }

    /// Whether the process has ended.
    ///
    /// # Errors
    /// When the kernel refuses to poll, which it does not.
    pub fn has_ended(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        loop {
            match poll(&mut fds, Some(&rustix::event::Timespec::default())) {
                // Even without waiting: a signal that is due counts, SIGCHLD of another child above all.
                Err(rustix::io::Errno::INTR) => {}
                ready => return Ok(ready? > 0),
            }
        }
    }

    /// Waits until the process has ended. How it ended, only its parent learns.
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub async fn ended(&self) -> Result<()> {
        let fd = self.fd.try_clone().context("duplicate a pidfd")?;
        let ready = async_fd(fd, Interest::READABLE).context("watch a pidfd")?;
        drop(ready.readable().await.context("watch a pidfd")?);
        Ok(())
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

pub(crate) fn open(pid: i32) -> io::Result<OwnedFd> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let pid = if pid > 0 { Pid::from_raw(pid) } else { None };
    Ok(pidfd_open(pid.ok_or_else(invalid)?, PidfdFlags::empty())?)
}

/// Sends `signal` to the process of `pidfd`.
///
/// # Errors
/// `EINVAL` if there is no such signal; `ESRCH` if the process has ended.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    if !(1..=64).contains(&signal) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the signal only travels to the kernel, which accepts 1 to 64; nothing here relies on
    // it not being one that libc keeps for itself.
    let signal = unsafe { Signal::from_raw_unchecked(signal) };
    Ok(pidfd_send_signal(pidfd, signal)?)
}

/// Whether the process of `pidfd` is there, be it as a zombie: its parent has not taken its exit.
pub(crate) fn exists(pidfd: BorrowedFd<'_>) -> bool {
    // rustix has no signal 0, which checks and sends nothing.
    // SAFETY: the call takes numbers and no signal information.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), 0, std::ptr::null::<u8>(), 0)
    };
    // Without permission to signal it, there is somebody.
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

pub(crate) fn kill_error(error: io::Error, pid: i32, signal: i32) -> Error {
    match error.raw_os_error() {
        Some(libc::ESRCH) => Error::not_found(format!("process {pid} has ended")),
        Some(libc::EINVAL) => Error::invalid_argument(format!("signal {signal}")),
        _ => Error::io(error).context(format!("send signal {signal} to process {pid}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Spawn;

    #[tokio::test]
    async fn a_held_process_is_signalled_and_seen_to_end() {
        let child = Spawn::new("/bin/sleep").arg("1000").spawn().unwrap();
        let held = Pidfd::open(child.pid()).unwrap();
        assert!(!held.has_ended().unwrap());
        held.kill(libc::SIGKILL).unwrap();
        held.ended().await.unwrap();
        assert!(held.has_ended().unwrap());
        assert!(exists(held.as_fd()));
        child.wait().unwrap();
        assert!(!exists(held.as_fd()));
        assert_eq!(held.kill(libc::SIGKILL).unwrap_err().kind(), gantry_core::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn looking_whether_it_has_ended_minds_no_signal() {
        let _heard = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1()).unwrap();
        let own = Pidfd::open(rustix::process::getpid().as_raw_pid()).unwrap();
        let (process, thread) = (rustix::process::getpid(), rustix::thread::gettid());
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let (process, thread) = (process.as_raw_pid(), thread.as_raw_pid());
                    // SAFETY: the call takes numbers; the signal has a handler.
                    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) };
                }
            });
            let looked: Vec<_> = (0..100_000).map(|_| own.has_ended()).collect();
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            for has_ended in looked {
                assert!(!has_ended.unwrap());
            }
        });
    }

    #[test]
    fn impossible_numbers_are_refused() {
        for pid in [0, -1, i32::MIN] {
            assert_eq!(Pidfd::open(pid).unwrap_err().kind(), gantry_core::ErrorKind::InvalidArgument);
        }
        let own = Pidfd::open(rustix::process::getpid().as_raw_pid()).unwrap();
        for signal in [0, 65, -9] {
            assert_eq!(own.kill(signal).unwrap_err().kind(), gantry_core::ErrorKind::InvalidArgument);
        }
    }
}

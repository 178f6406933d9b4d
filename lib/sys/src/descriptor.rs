//! Descriptors and tokio.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `fd` with the current tokio runtime. Readiness is edge triggered: use it with
/// non-blocking descriptors, or with those that are only watched (pidfd, eventfd).
///
/// # Errors
/// `EPERM` if the kernel cannot watch such a descriptor (a regular file); `EEXIST` if this very
/// descriptor is registered already.
pub fn async_fd(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the value owns its descriptor and OwnedFd always reports the same number, which stays
    // open until AsyncFd has deregistered it.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

//! Where servers listen: Unix sockets, whatever the length of their paths.

use std::path::Path;

use gantry_core::Result;
use tokio::net::{UnixListener, UnixStream};

/// The path of an address: `unix:///run/x.sock` or the path itself.
pub fn path_of(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix://").unwrap_or(address))
}

/// Listens at `path`, for this user only. Must be called within a runtime.
///
/// # Errors
/// `AlreadyExists` if something is there; otherwise what the kernel said.
pub fn bind(path: &Path) -> Result<UnixListener> {
    listener(gantry_sys::socket::listen(path, 0o600)?)
}

/// A listening socket made elsewhere. Must be called within a runtime.
///
/// # Errors
/// If the socket is not fit for waiting on.
pub fn listener(socket: std::os::unix::net::UnixListener) -> Result<UnixListener> {
    socket.set_nonblocking(true)?;
    Ok(UnixListener::from_std(socket)?)
}

/// Connects to `path`. Must be called within a runtime. It never waits.
///
/// # Errors
/// `NotFound` if there is no socket; `Unavailable` if nobody listens or its queue is full.
pub fn connect(path: &Path) -> Result<UnixStream> {
    let socket = gantry_sys::socket::connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(UnixStream::from_std(socket)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_path_with_or_without_scheme() {
        assert_eq!(path_of("unix:///run/x"), Path::new("/run/x"));
        assert_eq!(path_of("/run/x"), Path::new("/run/x"));
    }
}

//! The socket by which a runtime hands over the master of a container's terminal.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_core::{Error, Result, ResultExt};
use tokio::io::Interest;
use tokio::net::UnixListener;

/// Runtimes connect to the path as it is, so it must fit a socket address: 108 bytes, and these are short.
const PLACES: [&str; 2] = ["/run", "/tmp"];

/// A listening socket in a directory of its own, both removed when dropped.
#[derive(Debug)]
pub(crate) struct ConsoleSocket {
    dir: PathBuf,
    path: PathBuf,
    listener: UnixListener,
}

impl ConsoleSocket {
    /// Makes one.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn listen() -> Result<ConsoleSocket> {
        let dir = make_dir()?;
        let path = dir.join("pty.sock");
        let listener = gantry_sys::socket::listen(&path, 0o600)
            .and_then(|listener| UnixListener::from_std(listener).context("watch a console socket"));
        match listener {
            Ok(listener) => Ok(ConsoleSocket { dir, path, listener }),
            Err(error) => {
                remove(&path, &dir);
                Err(error)
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the master. May be dropped at any time.
    ///
    /// # Errors
    /// `Unknown` if the runtime sends something else.
    pub(crate) async fn receive(&self) -> Result<OwnedFd> {
        let (stream, _) = self.listener.accept().await.context("accept a console")?;
        // The runtime puts the terminal's name beside it. Source: runc's docs/terminals.md.
        let mut name = [0; 4096];
        let received = stream
            .async_io(Interest::READABLE, || gantry_sys::socket::receive(&stream, &mut name))
            .await
            .context("receive a console")?;
        let mut descriptors = received.descriptors.into_iter();
        match (descriptors.next(), descriptors.next()) {
            (Some(master), None) => {
                gantry_sys::pty::clear_onlcr(&master).context("what the runtime sent is no terminal")?;
                Ok(master)
            }
            _ => Err(Error::unknown("the runtime did not send one terminal")),
        }
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        remove(&self.path, &self.dir);
    }
}

fn remove(path: &Path, dir: &Path) {
    // What is left is an empty directory in /run.
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_dir(dir);
}

fn make_dir() -> Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for place in PLACES {
        for _ in 0..100 {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let dir = Path::new(place).join(format!("gantry-pty-{}-{number}", std::process::id()));
            // Making it fails if anybody has it already, so nobody can have prepared it.
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => return Ok(dir),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
    }
    Err(Error::io(last).context("make a directory for a console socket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_terminals_master_comes_across_and_nothing_is_left() {
        let socket = ConsoleSocket::listen().unwrap();
        let stream = gantry_sys::socket::connect(socket.path()).unwrap();
        let pty = gantry_sys::pty::Pty::open().unwrap();
        gantry_sys::socket::send(&stream, b"/dev/pts/0", &pty.master).unwrap();
        let master = socket.receive().await.unwrap();
        rustix::io::write(&pty.slave, b"x\n").unwrap();
        let mut text = [0; 8];
        assert_eq!(rustix::io::read(&master, &mut text).unwrap(), 2);
        let dir = socket.dir.clone();
        drop(socket);
        assert!(!dir.exists());
    }

    #[tokio::test]
    async fn what_is_no_terminal_is_refused() {
        let socket = ConsoleSocket::listen().unwrap();
        let stream = gantry_sys::socket::connect(socket.path()).unwrap();
        gantry_sys::socket::send(&stream, b"x", std::fs::File::open("/dev/null").unwrap()).unwrap();
        assert!(socket.receive().await.is_err());
        drop(stream);
        let stream = gantry_sys::socket::connect(socket.path()).unwrap();
        rustix::io::write(&stream, b"x").unwrap();
        assert!(socket.receive().await.is_err());
    }
}

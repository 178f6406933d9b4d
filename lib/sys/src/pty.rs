//! Pseudo terminals.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use gantry_core::{Result, ResultExt};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// A new pseudo terminal.
#[derive(Debug)]
pub struct Pty {
    /// Our side: what is written here is typed, what is read here was printed.
    pub master: OwnedFd,
    /// The program's side, its standard streams.
    pub slave: OwnedFd,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Characters in a row.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

impl Pty {
    /// Opens a pseudo terminal. The slave is reached through the master, never by its name, which
    /// could mean something else in another mount namespace.
    ///
    /// # Errors
    /// `ResourceExhausted` and others when the system has no more terminals.
    pub fn open() -> Result<Self> {
        let open = || -> rustix::io::Result<Pty> {
            let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            unlockpt(&master)?;
            let slave =
                ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            Ok(Pty { master, slave })
        };
        open().map_err(io::Error::from).context("open a pseudo terminal")
    }
}

/// The program's side of the terminal whose master is `master`.
///
/// # Errors
/// `ENOTTY` if that is no master.
pub fn slave(master: impl AsFd) -> io::Result<OwnedFd> {
    Ok(ioctl_tiocgptpeer(master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?)
}

/// The size of the terminal that `fd` is either side of.
///
/// # Errors
/// `ENOTTY` if it is no terminal.
pub fn size(fd: impl AsFd) -> io::Result<Size> {
    let size = tcgetwinsize(fd)?;
    Ok(Size { width: size.ws_col, height: size.ws_row })
}

/// Sets the size of a terminal; the programs on it are told.
///
/// # Errors
/// `ENOTTY` if it is no terminal.
pub fn set_size(fd: impl AsFd, size: Size) -> io::Result<()> {
    Ok(tcsetwinsize(fd, Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 })?)
}

/// Keeps a terminal from turning `\n` into `\r\n` on output, as clients of containers expect.
///
/// # Errors
/// `ENOTTY` if it is no terminal.
pub fn clear_onlcr(fd: impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd();
    let mut attributes = tcgetattr(fd)?;
    attributes.output_modes.remove(rustix::termios::OutputModes::ONLCR);
    Ok(tcsetattr(fd, OptionalActions::Now, &attributes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Spawn;

    #[test]
    fn a_program_on_the_slave_has_a_terminal_of_the_size_that_was_set() {
        let pty = Pty::open().unwrap();
        set_size(&pty.master, Size { width: 132, height: 43 }).unwrap();
        assert_eq!(size(&pty.slave).unwrap(), Size { width: 132, height: 43 });
        clear_onlcr(&pty.slave).unwrap();
        let child = Spawn::new("/bin/sh")
            .args(["-c", "stty size </dev/tty; exit 5"])
            .env("PATH", "/usr/bin:/bin")
            .stdin(pty.slave.try_clone().unwrap())
            .stdout(pty.slave.try_clone().unwrap())
            .stderr(pty.slave)
            .controlling_terminal()
            .spawn()
            .unwrap();
        let mut text = Vec::new();
        let mut buffer = [0; 100];
        // The master fails with EIO once the last slave is closed.
        while let Ok(n) = rustix::io::read(&pty.master, &mut buffer) {
            text.extend_from_slice(&buffer[..n]);
        }
        assert_eq!(child.wait().unwrap().status.code(), Some(5));
        assert_eq!(String::from_utf8(text).unwrap(), "43 132\n");
    }

    #[test]
    fn a_pipe_is_no_terminal() {
        let (ours, _theirs) = crate::process::pipe().unwrap();
        assert_eq!(size(ours).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}

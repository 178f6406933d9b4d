//! Named pipes as containers' clients use them: either side may come late, leave, and come back.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use gantry_core::{Error, Result, ResultExt};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, mkfifoat, open};

/// Makes a FIFO, or accepts the one that is there.
///
/// # Errors
/// `FailedPrecondition` if something else has that name.
pub fn make(path: &Path, mode: u32) -> Result<()> {
    match mkfifoat(CWD, path, Mode::from_raw_mode(mode)) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => {
            let stat = rustix::fs::lstat(path).map_err(io::Error::from);
            let stat = stat.with_context(|| format!("look at {path:?}"))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo {
                return Ok(());
            }
            Err(Error::failed_precondition(format!("{path:?} is there and no FIFO")))
        }
        Err(error) => Err(Error::io(error.into()).context(format!("make FIFO {path:?}"))),
    }
}

/// Which ends of a FIFO to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The reading one. Opens at once; reads say end of file while there is no writer.
    Read,
    /// The writing one. Opens only while there is a reader.
    Write,
    /// Both: opens at once, and while it is held neither side ever sees the other leave.
    Both,
}

/// Opens an end of a FIFO without waiting for anybody. The descriptor is non-blocking.
///
/// # Errors
/// `Unavailable` for the writing end while there is no reader; `NotFound` if the FIFO is not there;
/// `InvalidArgument` if `path` is something else.
pub fn open_now(path: &Path, end: End) -> Result<OwnedFd> {
    let access = match end {
        End::Read => OFlags::RDONLY,
        End::Write => OFlags::WRONLY,
        End::Both => OFlags::RDWR,
    };
    // NOCTTY and NONBLOCK: a name from outside may be a terminal or a device that would block.
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = open(path, flags, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::NXIO => Error::unavailable(format!("FIFO {path:?} has no reader")),
        error => Error::io(error.into()).context(format!("open FIFO {path:?}")),
    })?;
    let stat = fstat(&fd).map_err(io::Error::from).with_context(|| format!("look at {path:?}"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return Err(Error::invalid_argument(format!("{path:?} is no FIFO")));
    }
    Ok(fd)
}

/// Opens the writing end, waiting for a reader. Drop the future to give up.
///
/// # Errors
/// As [`open_now`], but for the missing reader.
pub async fn open_writer(path: &Path) -> Result<OwnedFd> {
    // The kernel tells nobody that a reader has come, so this asks again.
    let mut pause = Duration::from_millis(1);
    loop {
        match open_now(path, End::Write) {
            Err(error) if error.kind() == gantry_core::ErrorKind::Unavailable => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_core::ErrorKind;

    #[tokio::test]
    async fn a_writer_waits_for_its_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        make(&path, 0o600).unwrap();
        make(&path, 0o600).unwrap();
        assert_eq!(open_now(&path, End::Write).unwrap_err().kind(), ErrorKind::Unavailable);
        let (writer, reader) = tokio::join!(open_writer(&path), async { open_now(&path, End::Read) });
        rustix::io::write(writer.unwrap(), b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(reader.unwrap(), &mut byte).unwrap(), 1);
    }

    #[test]
    fn holding_both_ends_hides_that_a_side_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        make(&path, 0o600).unwrap();
        let _both = open_now(&path, End::Both).unwrap();
        let writer = open_now(&path, End::Write).unwrap();
        let reader = open_now(&path, End::Read).unwrap();
        drop(writer);
        let mut byte = [0];
        assert_eq!(rustix::io::read(&reader, &mut byte), Err(rustix::io::Errno::AGAIN));
    }

    #[test]
    fn what_is_no_fifo_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(open_now(&path, End::Read).unwrap_err().kind(), ErrorKind::NotFound);
        std::fs::write(&path, "").unwrap();
        assert_eq!(open_now(&path, End::Read).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(make(&path, 0o600).unwrap_err().kind(), ErrorKind::FailedPrecondition);
    }
}

//! Errors on their way through `std::io`.

use std::io;

use gantry_core::{Error, ErrorKind};

/// What is wrong with an archive.
pub(crate) fn malformed(what: impl Into<String>) -> Error {
    Error::invalid_argument(what.into())
}

/// The error behind a failed read of the archive: our own if a reader of ours carried it through `std::io`; otherwise
/// whatever a decoder found wrong with its input is the input's fault.
pub(crate) fn from_read(error: io::Error) -> Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        let inner = error.into_inner().expect("get_ref found it");
        return *inner.downcast::<Error>().expect("its type was just checked");
    }
    let kind = match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            ErrorKind::InvalidArgument
        }
        // The zstd decoder reports what is wrong with its input as `Other`.
        io::ErrorKind::Other if error.raw_os_error().is_none() => ErrorKind::InvalidArgument,
        _ => ErrorKind::from_io(&error),
    };
    Error::with_source(kind, error).context("read archive")
}

/// The error behind a failed write of an archive.
pub(crate) fn from_write(error: io::Error) -> Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        return from_read(error);
    }
    Error::io(error).context("write archive")
}

/// Carries an error of ours through `std::io`; [`from_read`] takes it out again.
pub(crate) fn into_io(error: Error) -> io::Error {
    io::Error::other(error)
}

/// The error of a system call about the entry or file `path`.
pub(crate) fn at(step: &str, path: &[u8], errno: rustix::io::Errno) -> Error {
    Error::io(errno.into()).context(format!("{step} {:?}", String::from_utf8_lossy(path)))
}

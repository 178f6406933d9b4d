//! Errors and statuses: core's table, applied to tonic's type.

use gantry_core::Error;
use tonic::{Code, Status};

/// How long a status message may be: it travels in a header, three bytes for each that needs escaping, and clients refuse
/// headers above 16 KiB. Source: hyper's default limit of a header list.
const MAX_MESSAGE_BYTES: usize = 4096;

/// The status that carries `error`.
pub fn to_status(error: Error) -> Status {
    Status::new(Code::from_i32(error.kind().code()), error.short_message(MAX_MESSAGE_BYTES))
}

/// The error that came as `status`; its message is kept to the letter.
pub fn from_status(status: Status) -> Error {
    Error::from_status(status.code().into(), status.message())
}

#[cfg(test)]
mod tests {
    use gantry_core::ErrorKind;

    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for kind in ErrorKind::all() {
            let error = Error::new(kind, "snapshot \"x\"").context("remove");
            let message = error.message();
            let back = from_status(to_status(error));
            assert_eq!(back.kind(), kind);
            assert_eq!(back.message(), message);
            assert_eq!(from_status(to_status(Error::bare(kind))).kind(), kind);
        }
    }

    #[test]
    fn a_long_message_keeps_its_ends() {
        let status = to_status(Error::new(ErrorKind::Conflict, "ä".repeat(100_000)));
        assert!(status.message().len() < 4096);
        assert!(status.message().ends_with(": conflict"));
        assert_eq!(from_status(status).kind(), ErrorKind::Conflict);
    }
}

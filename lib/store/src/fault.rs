//! SQLite's errors in gantry's terms.

use std::path::Path;

use gantry_core::{Error, ErrorKind};
use rusqlite::ErrorCode;

/// What `error` means; it names the file, so that "disk full" says which disk.
pub(crate) fn fault(error: rusqlite::Error, path: &Path) -> Error {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::OutOfMemory | ErrorCode::TooBig) => {
            ErrorKind::ResourceExhausted
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Unavailable,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::DataLoss,
        Some(
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied,
        ) => ErrorKind::PermissionDenied,
        Some(ErrorCode::OperationInterrupted) => ErrorKind::Canceled,
        // A disk that cannot hold the WAL's index is reported as an I/O error.
        // Source: SQLite's result codes, SQLITE_IOERR_SHMSIZE = 10 | (19 << 8).
        Some(ErrorCode::SystemIoFailure) if extended_code(&error) == Some(10 | (19 << 8)) => {
            ErrorKind::ResourceExhausted
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => ErrorKind::Unknown,
        _ => ErrorKind::Internal,
    };
    Error::with_source(kind, error).context(format!("database {}", path.display()))
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|inner| inner.extended_code)
}

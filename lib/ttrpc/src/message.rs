//! The envelopes of a call: request, response, status.

use bytes::Bytes;
use gantry_core::{Error, ErrorKind};
use prost::Message;

/// What opens a call. Source: `ttrpc.Request`.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// Full service name, as in `containerd.task.v2.Task`.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Method name, as in `Create`.
    #[prost(string, tag = "2")]
    pub method: String,
    /// The encoded request message.
    #[prost(bytes = "bytes", tag = "3")]
    pub payload: Bytes,
    /// How long the caller will wait, in nanoseconds; 0 or less: for ever.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
    /// Pairs beside the message; a key may come more than once.
    #[prost(message, repeated, tag = "5")]
    pub metadata: Vec<KeyValue>,
}

/// What ends a call. Source: `ttrpc.Response`.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// Absent or code 0: the call succeeded.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// The encoded response message.
    #[prost(bytes = "bytes", tag = "2")]
    pub payload: Bytes,
}

/// One pair of metadata. Source: `ttrpc.KeyValue`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct KeyValue {
    /// Lower case.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Any text.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// How a call ended. Source: `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// A gRPC status code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What went wrong.
    #[prost(string, tag = "2")]
    pub message: String,
    /// More of it; kept, not read.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<prost_types::Any>,
}

/// How long the text of a status may be: an answer has to fit a frame, and quoting makes a text longer.
const MAX_STATUS_BYTES: usize = 4096;

impl Status {
    /// The status that carries `error`.
    pub fn of(error: &Error) -> Status {
        Status {
            code: error.kind().code(),
            message: error.short_message(MAX_STATUS_BYTES),
            details: Vec::new(),
        }
    }
}

impl Response {
    /// The answer of a call that succeeded.
    pub fn ok(payload: Bytes) -> Response {
        Response { status: None, payload }
    }

    /// The answer of a call that failed.
    pub fn failed(error: &Error) -> Response {
        Response { status: Some(Status::of(error)), payload: Bytes::new() }
    }

    /// The payload, or the error that the status carries.
    ///
    /// # Errors
    /// Of the kind that the status names.
    pub fn into_result(self) -> Result<Bytes, Error> {
        match self.status {
            Some(status) if status.code != 0 => Err(Error::from_status(status.code, &status.message)),
            _ => Ok(self.payload),
        }
    }
}

/// The error of a message of `length` bytes, which does not fit a frame.
pub(crate) fn too_long(length: usize) -> Error {
    Error::resource_exhausted(format!(
        "message length {length} exceeds maximum message size of {}",
        crate::frame::MAX_PAYLOAD_BYTES
    ))
}

/// The error of every call on a connection that ended.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "ttrpc: closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_a_response() {
        for kind in ErrorKind::all() {
            let error = Error::new(kind, "task \"a\"").context("start");
            let bytes = Response::failed(&error).encode_to_vec();
            let back = Response::decode(&bytes[..]).unwrap().into_result().unwrap_err();
            assert_eq!((back.kind(), back.message()), (kind, error.message()));
        }
    }

    #[test]
    fn the_text_of_a_status_is_bounded_and_keeps_its_kind() {
        let status = Status::of(&Error::new(ErrorKind::NotModified, "\"".repeat(5 << 20)));
        assert!(status.message.len() <= MAX_STATUS_BYTES, "{} bytes", status.message.len());
        assert_eq!(Error::from_status(status.code, &status.message).kind(), ErrorKind::NotModified);
    }

    #[test]
    fn a_status_of_code_zero_is_success() {
        let response = Response { status: Some(Status::default()), payload: Bytes::from_static(b"x") };
        assert_eq!(response.into_result().unwrap(), &b"x"[..]);
    }
}

//! The gRPC wire, both ends, one folder per service.
#![forbid(unsafe_code)]

//! The shim protocol's framing, both ends.
#![forbid(unsafe_code)]

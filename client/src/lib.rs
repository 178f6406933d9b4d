//! The client library: connect, pull, create containers, run tasks.
#![forbid(unsafe_code)]

//! Content store on a local file system.
#![forbid(unsafe_code)]

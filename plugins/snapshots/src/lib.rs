//! Snapshot drivers: overlayfs, native.
#![forbid(unsafe_code)]

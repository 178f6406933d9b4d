//! Applies layers to snapshots and computes layers.
#![forbid(unsafe_code)]

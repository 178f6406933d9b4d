//! Bundles, shims and tasks, seen from the daemon.
#![forbid(unsafe_code)]

//! The shim as a daemon sees it: started, called over ttrpc, heard through its events, and cleaned up after.
#![allow(clippy::unwrap_used, clippy::disallowed_types, reason = "tests; nothing here waits for any child")]

mod growth;
mod life;
mod lifecycle;
mod outputs;
mod processes;
mod stage;

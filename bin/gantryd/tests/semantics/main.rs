//! What containerd was seen to answer where one would guess otherwise, asked of a daemon over its socket.
//!
//! One file for each section of the facts. `GANTRY_E2E_DAEMON=containerd` asks Debian's containerd the same.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod collection;
mod containers;
mod content;
mod content_write;
mod images;
mod leases;
mod support;
mod write;

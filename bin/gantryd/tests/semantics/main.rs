//! What containerd was seen to answer where one would guess otherwise, asked of a daemon over its socket.
//!
//! One file for each section of the facts. `GANTRY_E2E_DAEMON=containerd` asks Debian's containerd the same.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod all_services;
mod collection;
mod containers;
mod content;
mod content_sharing;
mod content_write;
mod events;
mod expiry;
mod filters;
mod health;
mod images;
mod leases;
mod maintenance;
mod messages;
mod metrics;
mod mount_users;
mod mounts;
mod namespaces;
mod raw;
mod restart;
mod running;
mod sandbox_controllers;
mod sandboxes;
mod snapshots;
mod streams;
mod subscription;
mod support;
mod write;

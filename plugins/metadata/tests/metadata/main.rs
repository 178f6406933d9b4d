//! What the metadata promises, noun by noun, and after a crash. Each test states a line of the semantics that clients rely on.
#![allow(clippy::unwrap_used)]

mod check;
mod collection;
mod containers;
mod content;
mod contract;
mod crash;
mod explain;
mod images;
mod leases;
mod model;
mod namespaces;
mod sandboxes;
mod snapshots;
mod support;
mod takeover;

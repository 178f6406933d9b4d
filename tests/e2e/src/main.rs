//! Whole-system tests: a daemon, its clients, and what they leave behind.
//!
//! `GANTRY_E2E_DAEMON` chooses the daemon: `gantryd` (the default), `containerd`, or a path. A story that
//! is played on ours is played on containerd as well, and both must print the same (`stage.rs`).
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_types,
    reason = "all of this is tests, and nothing waits for any child"
)]

mod stage;

// What clients do, compared.
mod containers;
mod content;
mod events;
mod images;
mod leases;
mod metrics;
mod namespaces;
mod plugins;
mod run;
mod runtimes;
mod snapshots;
mod tasks;

// Our own command line.
mod command_line;

// What goes wrong.
mod bad_processes;
mod client_leaves;
mod full_disk;
mod hostile_layers;
mod pull_faults;
mod same_root;
mod security;

// What survives, and what is replaced.
mod go_client;
mod kill_nine;
mod rust_client;
mod strange_shims;
mod takeover;
mod verity;

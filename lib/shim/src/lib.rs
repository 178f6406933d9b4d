//! What a shim is made of, and the shim protocol's conversions.
//!
//! A shim is the small process beside a container that owns it: its input and output, its processes, their exits. It
//! outlives the daemon, keeps what the daemon must learn, and ends when there is nothing left to own. [`serve`] is that
//! process; [`start`] and [`cleanup`] are what a daemon runs before and after it. The daemon's half is [`client`], and
//! [`convert`] is the one place where the protocol's messages become our types, for both.
//!
//! How a container is made is left to `gantry-runtime`. Read [`shim::Shim`] first, then `task` and `process`.
#![forbid(unsafe_code)]

pub mod address;
pub mod bootstrap;
pub mod bundle;
pub mod cgroup;
pub mod cleanup;
pub mod client;
pub mod command_line;
pub mod convert;
pub mod forward;
pub mod info;
pub mod log;
pub mod publisher;
pub mod runtime;
pub mod sandbox;
pub mod sandbox_client;
pub mod serve;
pub mod service;
pub mod shim;
pub mod start;
pub mod stdio;
pub mod wire;

mod execs;
mod process;
mod task;

//! The client library: connect, pull images, create containers, run tasks in them.
//!
//! A [`Client`] holds [`Services`], one trait object a noun, so the same client works over a daemon's socket
//! ([`Client::connect`]) and over services in the same process ([`Client::from_services`]). What a daemon does is left
//! to it; what containerd's own client does around its calls is here: leases, fetching, unpacking in order, specs from
//! image configurations, fifos and terminals.
//!
//! Begin with [`Client`]; then [`PullOptions`], [`ContainerOptions`] and [`ProcessIo`].
#![forbid(unsafe_code)]

mod client;
mod connect;
mod container;
mod image;
mod job;
mod lease;
mod new_container;
mod process;
mod process_io;
mod pull;
mod runc_options;
mod services;
mod task;
mod terminal;

pub use client::Client;
pub use container::{Container, DeleteContainer};
pub use image::Image;
pub use new_container::{ContainerOptions, EditSpec};
pub use process::Process;
pub use process_io::{FifoIo, Input, IoRequest, Output, ProcessIo};
pub use pull::{PullEvent, PullItem, PullOptions};
pub use runc_options::RuncOptions;
pub use services::{DaemonVersion, Services, Snapshotters, VersionSource};
pub use task::Task;
pub use terminal::{RawTerminal, follow_size};

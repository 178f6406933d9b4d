//! Fixtures for tests: isolation, images, registries, daemons, and what they leave behind.
//!
//! A test that needs root begins with [`root!`], which runs it again under kernel namespaces of its
//! own. An image comes from [`ImageBuilder`], is served by [`Registry`] (Debian's `docker-registry`)
//! or by [`FakeRegistry`] (with faults on request), and is used through [`Ctr`] on a [`Daemon`].
//! [`Leftovers`] names everything that a story did not clean up.
//!
//! [`suite`] holds what every implementation of a trait of `core` promises, [`properties`] what holds for any input,
//! [`model`] plays random operations on all nouns together.
//!
//! This crate knows no plugin and nothing of a daemon's inside: it sees binaries and sockets. It is
//! only ever a dev-dependency, so its fixtures panic with a message rather than return errors.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, reason = "fixtures start programs; nothing here waits for any child")]

mod binaries;
mod busybox;
mod command;
mod ctr;
mod daemon;
mod eventually;
mod fake_content;
mod fake_registry;
mod http;
mod image;
pub mod isolate;
mod leftovers;
pub mod model;
mod normalise;
pub mod properties;
mod registry;
pub mod suite;
mod tar;
mod tree;

pub use binaries::{bin_dir, find_in_path, workspace_root};
pub use busybox::{busybox_image, busybox_layer};
pub use command::{Background, Output, Pty, run};
pub use ctr::Ctr;
pub use daemon::{Daemon, DaemonOptions, Program};
pub use eventually::{eventually, limit, scaled};
pub use fake_content::FakeContent;
pub use fake_registry::{FakeRegistry, Fault};
pub use image::{Blob, Compression, Format, Image, ImageBuilder, sha256};
pub use leftovers::Leftovers;
pub use normalise::{normalise, normalise_table};
pub use registry::Registry;
pub use tar::Tar;
pub use tree::tree_lines;

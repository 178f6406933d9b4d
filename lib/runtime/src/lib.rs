//! OCI runtimes: by name (runc, crun, runsc, youki) and built in.
//!
//! One trait, two kinds. [`OciRuntime`] is what both do; [`select`] says which one a bundle gets. What
//! is read here from a container's directory or image is hostile. Copying output, following exits and
//! reading figures belong to the caller (a shim).
//!
//! ```text
//! select::for_new(config, bundle) ──► create ──► start ──► kill, exec, pause, ... ──► delete
//!                                        │                    ▲
//!                     records what ran in the bundle          │
//!                                        └── select::for_existing(config, bundle)
//! ```
//!
//! The built-in kind does its work in a short-lived process: this program executed again. So a program
//! that uses it begins its `main` with
//!
//! ```text
//! if let Some(code) = gantry_runtime::builtin::run_if_asked() { std::process::exit(code) }
//! ```
//!
//! before it starts any thread. The first type to read is [`OciRuntime`].
#![forbid(unsafe_code)]

pub mod builtin;
mod console;
mod devices;
mod guard;
mod limits;
mod named;
mod oci_runtime;
pub mod select;
mod spec;

pub use oci_runtime::{Checkpoint, Io, Made, NewContainer, NewProcess, OciRuntime, Restore, State, Status};
pub use select::RuntimeConfig;

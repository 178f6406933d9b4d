//! The mount manager: performs mount lists with steps that the kernel does not know, and keeps what it mounted until it is no
//! longer wanted.
//!
//! ```text
//! <state>/t/<number of the record>/1, 1-type     the last mount of the list that was performed here
//!                                 /2, 2-type     the one before it ...
//! ```
//!
//! The record is written before anything is mounted and removed before anything is unmounted, so whatever a crash leaves is a
//! directory without record, which the next collection unmounts. Records are kept by whoever implements
//! [`MountRecords`](gantry_core::mounts::MountRecords). Start at [`LocalMounts`].
#![forbid(unsafe_code)]

mod erofs;
mod format;
mod loopback;
mod manager;
mod mkdir;
mod mkfs;
mod names;
mod plan;
mod roots;
mod targets;

pub use erofs::ErofsHandler;
pub use loopback::LoopbackHandler;
pub use manager::{LocalMounts, MountsConfig};

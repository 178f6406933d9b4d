//! Applies layers to snapshots and computes layers.
//!
//! Where mounts are a single bind or an overlay with an upper directory, nothing is mounted: a layer is written straight
//! into the directory behind them, and read straight out of it. What only a mount can express goes through a temporary
//! one. How tar, compression and whiteouts work is `gantry-archive`'s business, mounting `gantry-mount`'s.
//! Start at [`WalkingDiffer`].
#![forbid(unsafe_code)]

mod apply;
mod compare;
mod differ;
mod job;
mod layers;
mod processor;
mod stream;

pub use differ::WalkingDiffer;
pub use processor::StreamProcessor;

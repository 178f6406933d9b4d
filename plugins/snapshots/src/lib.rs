//! Snapshot drivers: overlayfs and native.
//!
//! A driver makes and removes directories by id and says how they are mounted; names, parents and labels are kept beside the
//! metadata. [`OverlayDriver`] stacks directories, [`NativeDriver`] copies them. What they share is in [`directories`].
#![forbid(unsafe_code)]

mod copy;
pub mod directories;
mod native;
mod overlay;

pub use native::NativeDriver;
pub use overlay::{OverlayConfig, OverlayDriver};

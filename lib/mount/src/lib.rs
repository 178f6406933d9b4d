//! Mount lists: parsing options, mounting and unmounting them.
//!
//! A snapshotter answers a list of [`Mount`]s and whoever needs the files performs it, with
//! [`mount_all`] and [`unmount_all`] or, for a moment, with [`with_temp_mount`]. Everything here
//! blocks, and changes the mount namespace of the calling thread. Mounts made by a mount manager
//! (`format/..`, `mkfs/..`) and their `X-` options are not for this crate.
//!
//! The paths in a list are hostile: what lies below a target may be an image's tree.
#![forbid(unsafe_code)]

mod bind;
mod helper;
pub mod info;
mod options;
mod overlay;
mod perform;
mod target;
mod temporary;
mod unmount;
mod volatile;

pub use gantry_core::mount::Mount;
pub use options::Options;
pub use perform::{mount, mount_all};
pub use temporary::{clear_temp_mounts, read_only, with_temp_mount};
pub use unmount::{Busy, unmount, unmount_all, unmount_list, unmount_recursive};

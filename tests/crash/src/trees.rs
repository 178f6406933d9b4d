//! The directories behind snapshots.

use std::io;
use std::path::PathBuf;

use gantry_core::mount::Mount;
use gantry_testkit::tree_lines;
use sha2::{Digest as _, Sha256};

/// The directories behind a view's mounts, top first. These tests know only binds and overlays.
pub(crate) fn directories(mounts: &[Mount]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for mount in mounts {
        match mount.options.iter().find_map(|option| option.strip_prefix("lowerdir=")) {
            Some(lowers) => found.extend(lowers.split(':').map(PathBuf::from)),
            None => found.push(PathBuf::from(&mount.source)),
        }
    }
    found
}

/// The directory that is written to behind an active snapshot's mounts.
pub(crate) fn upper(mounts: &[Mount]) -> Option<PathBuf> {
    let mount = mounts.first()?;
    let upper = mount.options.iter().find_map(|option| option.strip_prefix("upperdir="));
    Some(PathBuf::from(upper.unwrap_or(&mount.source)))
}

/// One word for all trees.
///
/// # Errors
/// Those of the file system.
pub(crate) fn sum(roots: &[PathBuf]) -> io::Result<String> {
    let mut hasher = Sha256::new();
    for root in roots {
        for line in tree_lines(root)? {
            hasher.update(line.as_bytes());
            hasher.update([0]);
        }
        hasher.update([1]);
    }
    Ok(hex(&hasher.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

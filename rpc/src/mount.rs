//! Mount lists.

use gantry_api::containerd::types::Mount as Proto;
use gantry_core::mount::Mount;

pub(crate) fn from_proto(mounts: Vec<Proto>) -> Vec<Mount> {
    let one = |mount: Proto| Mount {
        kind: mount.r#type,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    };
    mounts.into_iter().map(one).collect()
}

pub(crate) fn to_proto(mounts: Vec<Mount>) -> Vec<Proto> {
    let one = |mount: Mount| Proto {
        r#type: mount.kind,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    };
    mounts.into_iter().map(one).collect()
}

//! Active mounts, and handlers of types that the kernel does not know alone.

use std::sync::Arc;

use gantry_core::mounts::{MountHandler, MountManager};
use gantry_metadata::Metadata;
use gantry_mounts::{ErofsHandler, LocalMounts, MountsConfig};
use gantry_plugin::{Plugin, PluginKind};

/// Whether the kernel has EROFS.
pub(super) fn has_erofs() -> bool {
    ErofsHandler::is_supported()
}

/// Mounts EROFS images.
pub(super) const EROFS: Plugin = Plugin {
    kind: PluginKind::MountHandler,
    id: "erofs",
    requires: &[],
    init: |ic| {
        ic.put::<dyn MountHandler>(PluginKind::MountHandler, Arc::new(ErofsHandler));
        Ok(())
    },
};

/// The mount manager. Its id is the original's; the records are in the one database.
pub(super) const BOLT: Plugin = Plugin {
    kind: PluginKind::MountManager,
    id: "bolt",
    requires: &[PluginKind::Metadata, PluginKind::MountHandler],
    init: |ic| {
        let metadata = ic.get::<Metadata>(PluginKind::Metadata)?;
        let config = MountsConfig {
            state: ic.state(),
            // Source: containerd lets mounts make things below the daemon's root only.
            roots: vec![ic.daemon_root().to_owned()],
            handlers: ic.all::<dyn MountHandler>(PluginKind::MountHandler),
        };
        let opened = LocalMounts::open(config, Arc::new(metadata.mounts()));
        let mounts = Arc::new(tokio::runtime::Handle::current().block_on(opened)?);
        metadata.collect_with(Arc::clone(&mounts) as Arc<_>);
        ic.put::<dyn MountManager>(PluginKind::MountManager, mounts);
        Ok(())
    },
};

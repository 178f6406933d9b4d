//! Snapshotters: drivers by id; their names and parents are the metadata's.

use std::path::PathBuf;
use std::sync::Arc;

use gantry_core::Error;
use gantry_core::snapshots::SnapshotDriver;
use gantry_plugin::{InitContext, InitError, Plugin, PluginKind};
use gantry_snapshots::{NativeDriver, OverlayConfig, OverlayDriver};

use crate::config::{Config, NativeSection, OverlaySection};

fn root(ic: &InitContext<'_>, configured: &str) -> PathBuf {
    if configured.is_empty() { ic.root() } else { PathBuf::from(configured) }
}

/// Name and directory of each snapshotter that is not left out.
///
/// # Errors
/// As [`Config::section`].
pub(crate) fn roots(config: &Config) -> Result<Vec<(String, PathBuf)>, Error> {
    let overlay: OverlaySection = config.section("io.containerd.snapshotter.v1.overlayfs")?;
    let native: NativeSection = config.section("io.containerd.snapshotter.v1.native")?;
    let mut found = Vec::new();
    for (plugin, configured) in [(&OVERLAYFS, overlay.root_path), (&NATIVE, native.root_path)] {
        let uri = plugin.uri();
        if config.disabled_plugins.contains(&uri) {
            continue;
        }
        let root = if configured.is_empty() { config.root.join(uri) } else { PathBuf::from(configured) };
        found.push((plugin.id.to_owned(), root));
    }
    Ok(found)
}

fn offer(ic: &mut InitContext<'_>, driver: Arc<dyn SnapshotDriver>) {
    ic.export("root", driver.root().display().to_string());
    for capability in driver.capabilities() {
        ic.capability(capability);
    }
    ic.put::<dyn SnapshotDriver>(PluginKind::Snapshotter, driver);
}

/// Stacked directories.
pub(super) const OVERLAYFS: Plugin = Plugin {
    kind: PluginKind::Snapshotter,
    id: "overlayfs",
    requires: &[],
    init: |ic| {
        let section: OverlaySection =
            ic.shared::<Arc<Config>>()?.section("io.containerd.snapshotter.v1.overlayfs")?;
        if section.upperdir_label || section.slow_chown {
            return Err(InitError::Failed(Error::unimplemented(
                "upperdir_label and slow_chown of the overlayfs snapshotter",
            )));
        }
        let config = OverlayConfig { mount_options: section.mount_options };
        let driver = OverlayDriver::open(&root(ic, &section.root_path), config)?;
        offer(ic, Arc::new(driver));
        Ok(())
    },
};

/// Plain copies.
pub(super) const NATIVE: Plugin = Plugin {
    kind: PluginKind::Snapshotter,
    id: "native",
    requires: &[],
    init: |ic| {
        let section: NativeSection =
            ic.shared::<Arc<Config>>()?.section("io.containerd.snapshotter.v1.native")?;
        let driver = NativeDriver::open(&root(ic, &section.root_path))?;
        offer(ic, Arc::new(driver));
        Ok(())
    },
};

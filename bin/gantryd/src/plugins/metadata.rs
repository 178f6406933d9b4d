//! The store: blobs on disk, the database over them, collection, leases, sandbox records.

use std::sync::Arc;

use gantry_content::LocalContent;
use gantry_core::Error;
use gantry_core::containers::ContainerStore;
use gantry_core::content::ContentStore;
use gantry_core::events::EventPublisher;
use gantry_core::images::ImageStore;
use gantry_core::leases::LeaseManager;
use gantry_core::maintenance::Maintenance;
use gantry_core::namespaces::NamespaceStore;
use gantry_core::sandboxes::SandboxStore;
use gantry_core::snapshots::{SnapshotDriver, Snapshotter};
use gantry_core::streaming::StreamManager;
use gantry_metadata::{CollectionConfig, Metadata, MetadataConfig, MetadataParts};
use gantry_plugin::{Plugin, PluginKind};
use gantry_services::StreamsService;

use super::{AsIs, Jobs};
use crate::config::{self, CollectionSection, Config, MetadataSection};

/// Blobs on disk.
pub(super) const CONTENT: Plugin = Plugin {
    kind: PluginKind::Content,
    id: "content",
    requires: &[],
    init: |ic| {
        let root = ic.root();
        ic.export("root", root.display().to_string());
        let as_is = ic.shared::<AsIs>().is_ok();
        let content = if as_is { LocalContent::open_as_is(&root)? } else { LocalContent::open(&root)? };
        ic.put::<dyn ContentStore>(PluginKind::Content, Arc::new(content));
        Ok(())
    },
};

/// A boot id that crash tests give instead of the kernel's: what was not synced in another one counts as damaged.
const TEST_BOOT_ID: &str = "GANTRY_TEST_BOOT_ID";

/// The database. Its id is the original's.
pub(super) const BOLT: Plugin = Plugin {
    kind: PluginKind::Metadata,
    id: "bolt",
    requires: &[PluginKind::Content, PluginKind::Event, PluginKind::Snapshotter],
    init: |ic| {
        let config = Arc::clone(ic.shared::<Arc<Config>>()?);
        let section: MetadataSection = config.section("io.containerd.metadata.v1.bolt")?;
        let collection: CollectionSection = config.section("io.containerd.gc.v1.scheduler")?;
        let metadata_config = MetadataConfig {
            content_sharing: section.content_sharing_policy.parse()?,
            no_sync: section.no_sync,
            collection: CollectionConfig {
                pause_threshold: collection.pause_threshold,
                deletion_threshold: collection.deletion_threshold,
                mutation_threshold: collection.mutation_threshold,
                schedule_delay: config::parse_duration(&collection.schedule_delay)?,
                startup_delay: config::parse_duration(&collection.startup_delay)?,
            },
        };
        let directory = ic.daemon_root().join("gantry");
        std::fs::create_dir_all(&directory)
            .map_err(|error| Error::io(error).context(format!("create {}", directory.display())))?;
        let parts = MetadataParts {
            path: directory.join("store.db"),
            content: ic.get::<dyn ContentStore>(PluginKind::Content)?,
            drivers: ic
                .all::<dyn SnapshotDriver>(PluginKind::Snapshotter)
                .into_iter()
                .map(|(_, driver)| driver)
                .collect(),
            events: ic.get::<dyn EventPublisher>(PluginKind::Event)?,
        };
        let runtime = tokio::runtime::Handle::current();
        let metadata = if ic.shared::<AsIs>().is_ok() {
            runtime.block_on(Metadata::open_as_is(metadata_config, parts))?
        } else {
            runtime.block_on(Metadata::open_in_boot(
                metadata_config,
                parts,
                std::env::var(TEST_BOOT_ID).ok(),
            ))?
        };
        ic.export("policy", section.content_sharing_policy);
        ic.export("path", metadata.path().display().to_string());
        ic.put::<dyn NamespaceStore>(PluginKind::Metadata, Arc::new(metadata.namespaces()));
        ic.put::<dyn ContainerStore>(PluginKind::Metadata, Arc::new(metadata.containers()));
        ic.put::<dyn ImageStore>(PluginKind::Metadata, Arc::new(metadata.images()));
        ic.put::<dyn LeaseManager>(PluginKind::Metadata, Arc::new(metadata.leases()));
        ic.put::<dyn ContentStore>(PluginKind::Metadata, Arc::new(metadata.content()));
        ic.put::<dyn SandboxStore>(PluginKind::Metadata, Arc::new(metadata.sandboxes()));
        ic.put::<dyn Maintenance>(PluginKind::Metadata, Arc::new(metadata.maintenance()));
        for name in metadata.snapshotters() {
            if let Some(snapshotter) = metadata.snapshotter(&name) {
                ic.put_as::<dyn Snapshotter>(PluginKind::Metadata, &name, Arc::new(snapshotter));
            }
        }
        ic.put::<Metadata>(PluginKind::Metadata, Arc::new(metadata));
        Ok(())
    },
};

/// Runs collections.
pub(super) const SCHEDULER: Plugin = Plugin {
    kind: PluginKind::Gc,
    id: "scheduler",
    requires: &[PluginKind::Metadata],
    init: |ic| {
        let metadata = ic.get::<Metadata>(PluginKind::Metadata)?;
        let collection = &metadata.config().collection;
        // Source: features A13: the names under which the parameters are published.
        let exports = [
            ("PauseThreshold", collection.pause_threshold.to_string()),
            ("DeletionThreshold", collection.deletion_threshold.to_string()),
            ("MutationThreshold", collection.mutation_threshold.to_string()),
            ("ScheduleDelay", format!("{:?}", collection.schedule_delay)),
        ];
        for (name, value) in exports {
            ic.export(name, value);
        }
        let jobs = ic.shared::<Jobs>()?.clone();
        let stop = jobs.stop.clone().cancelled_owned();
        jobs.tracker.spawn(async move { metadata.run(stop).await });
        Ok(())
    },
};

/// Leases.
pub(super) const LEASES: Plugin = Plugin {
    kind: PluginKind::Lease,
    id: "manager",
    requires: &[PluginKind::Metadata, PluginKind::Gc],
    init: |ic| {
        let leases = ic.get::<dyn LeaseManager>(PluginKind::Metadata)?;
        ic.put::<dyn LeaseManager>(PluginKind::Lease, leases);
        Ok(())
    },
};

/// Sandbox records.
pub(super) const SANDBOXES: Plugin = Plugin {
    kind: PluginKind::SandboxStore,
    id: "local",
    requires: &[PluginKind::Metadata],
    init: |ic| {
        let sandboxes = ic.get::<dyn SandboxStore>(PluginKind::Metadata)?;
        ic.put::<dyn SandboxStore>(PluginKind::SandboxStore, sandboxes);
        Ok(())
    },
};

/// Open streams, collected with their leases.
pub(super) const STREAMS: Plugin = Plugin {
    kind: PluginKind::Streaming,
    id: "manager",
    requires: &[PluginKind::Metadata],
    init: |ic| {
        let streams = Arc::new(StreamsService::default());
        ic.get::<Metadata>(PluginKind::Metadata)?.collect_with(Arc::clone(&streams) as Arc<_>);
        ic.put::<dyn StreamManager>(PluginKind::Streaming, streams);
        Ok(())
    },
};

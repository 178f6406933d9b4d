//! The metadata and the model do the same.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_core::content::ContentStore;
use gantry_metadata::MetadataConfig;
use gantry_testkit::model::{self, Stores, Subject};

use crate::support::World;

struct Direct {
    world: Option<World>,
    dir: tempfile::TempDir,
}

impl Direct {
    async fn opened(dir: &std::path::Path) -> World {
        // Thousands of small databases: none has to outlive the machine.
        let config = MetadataConfig { no_sync: true, ..MetadataConfig::default() };
        World::open_with(dir, config, None).await
    }
}

#[async_trait]
impl Subject for Direct {
    const REMOTE: bool = false;
    const REBASES: bool = true;

    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Direct { world: Some(Self::opened(dir.path()).await), dir }
    }

    fn stores(&self) -> Stores {
        let world = self.world.as_ref().unwrap();
        let metadata = &world.metadata;
        Stores {
            namespaces: Arc::new(metadata.namespaces()),
            containers: Arc::new(metadata.containers()),
            images: Arc::new(metadata.images()),
            content: Arc::new(metadata.content()),
            leases: Arc::new(metadata.leases()),
            sandboxes: Arc::new(metadata.sandboxes()),
            snapshots: Arc::new(metadata.snapshotter("plain").unwrap()),
            snapshotter: "plain".to_owned(),
            behind: Some(Arc::clone(&world.content) as Arc<dyn ContentStore>),
        }
    }

    async fn reopen(&mut self) {
        self.world.take().unwrap().metadata.close(Duration::from_secs(5)).await.unwrap();
        self.world = Some(Self::opened(self.dir.path()).await);
    }
}

#[test]
fn the_metadata_does_what_the_model_does() {
    model::compare::<Direct>(1);
}

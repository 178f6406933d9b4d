//! [`Image`]: a stored image.

use gantry_core::images::Image as ImageRecord;
use gantry_core::{Digest, Error, ErrorKind, Result, ResultExt, SnapshotKey};
use gantry_oci::image_content::{self, SelectedImage};
use gantry_oci::{ImageConfig, PlatformMatcher};

use crate::client::Client;
use crate::pull;

/// An image as it was stored when this was made.
#[derive(Clone)]
pub struct Image {
    client: Client,
    record: ImageRecord,
}

impl Image {
    pub(crate) fn new(client: Client, record: ImageRecord) -> Self {
        Image { client, record }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// What it points at.
    pub fn digest(&self) -> &Digest {
        &self.record.target.digest
    }

    /// Its record.
    pub fn record(&self) -> &ImageRecord {
        &self.record
    }

    async fn select(&self, platform: &PlatformMatcher) -> Result<(SelectedImage, ImageConfig)> {
        let content = &*self.client.services().content;
        let cx = self.client.context();
        let found = async {
            let selected = image_content::select_image(content, &cx, &self.record.target, platform).await?;
            let config = image_content::image_config(content, &cx, &selected.manifest).await?;
            Ok::<_, Error>((selected, config))
        };
        found.await.with_context(|| format!("image {:?}", self.record.name))
    }

    /// Its configuration for `platform`.
    ///
    /// # Errors
    /// `NotFound` if it has none, or none that is stored.
    pub async fn config(&self, platform: &PlatformMatcher) -> Result<ImageConfig> {
        Ok(self.select(platform).await?.1)
    }

    /// How much its content for `platform` takes in the content store: manifest, configuration and layers.
    ///
    /// # Errors
    /// As [`Image::config`].
    pub async fn size_bytes(&self, platform: &PlatformMatcher) -> Result<u64> {
        let (selected, _) = self.select(platform).await?;
        let manifest = &selected.manifest;
        let layers = manifest.layers.iter().map(|layer| &layer.descriptor);
        let all = layers.chain([&selected.descriptor, &manifest.config.descriptor]);
        Ok(all.map(|part| u64::try_from(part.size_bytes).unwrap_or(0)).fold(0, u64::saturating_add))
    }

    /// Whether its layers are unpacked in `snapshotter`.
    ///
    /// # Errors
    /// As [`Image::config`]; those of the snapshotter.
    pub async fn is_unpacked(&self, snapshotter: &str, platform: &PlatformMatcher) -> Result<bool> {
        let config = self.config(platform).await?;
        if config.diff_ids.is_empty() {
            return Ok(true);
        }
        let name = SnapshotKey::parse(config.chain_id()?.into_string())?;
        match self.client.snapshotter(snapshotter)?.stat(&self.client.context(), &name).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.context(format!("image {:?}", self.record.name))),
        }
    }

    /// Unpacks its layers, which must be stored, into `snapshotter`. When this fails, or is dropped, no snapshot of a
    /// layer that is not whole is left.
    ///
    /// # Errors
    /// As [`Image::config`]; those of applying layers.
    pub async fn unpack(&self, snapshotter: &str, platform: &PlatformMatcher) -> Result<()> {
        let (selected, config) = self.select(platform).await?;
        pull::unpack_stored(&self.client, &selected.manifest, &config, snapshotter)
            .await
            .with_context(|| format!("unpack image {:?}", self.record.name))
    }
}

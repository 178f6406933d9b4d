//! Images: names pointing at descriptors.

use std::time::SystemTime;

use async_trait::async_trait;

use crate::field_mask::FieldMask;
use crate::filters::{Adaptor, label_field};
use crate::{Context, Descriptor, Digest, ItemStream, Labels, Result};

/// An image as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its name, any text but the empty one; immutable.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// What it points at: a manifest or an index. Its size must be positive.
    pub target: Descriptor,
    /// When it was stored; set by the store, never changed.
    pub created_at: SystemTime,
    /// When it was last changed; set by the store.
    pub updated_at: SystemTime,
}

impl Adaptor for Image {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            // Source: features E18; names are lower case, and the annotations are not below the target.
            ["name"] if !self.name.is_empty() => Some(self.name.clone()),
            ["target", "digest"] => Some(self.target.digest.to_string()),
            ["target", "mediatype"] if !self.target.media_type.is_empty() => {
                Some(self.target.media_type.clone())
            }
            ["labels", key @ ..] => label_field(&self.labels, key),
            ["annotations", key @ ..] => label_field(&self.target.annotations, key),
            _ => None,
        }
    }
}

/// What an image is changed to. Which of it counts says the update's mask.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageChange {
    /// Which image.
    pub name: String,
    /// Its new labels, or those that the mask names.
    pub labels: Labels,
    /// Its new target, with annotations. Absent where only labels change; checked where it is given.
    pub target: Option<Descriptor>,
}

impl From<Image> for ImageChange {
    fn from(image: Image) -> Self {
        ImageChange { name: image.name, labels: image.labels, target: Some(image.target) }
    }
}

/// How an image is deleted.
#[derive(Clone, Debug, Default)]
pub struct DeleteImage {
    /// Wait for a collection after the deletion.
    pub sync: bool,
    /// Delete only if the image still points at this digest.
    pub if_target: Option<Digest>,
}

/// Where image records are kept, by namespace.
#[async_trait]
pub trait ImageStore: Send + Sync {
    /// Stores `new`. `source_date_epoch` replaces the time of storing. The lease of the context gets the image.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for an empty name or a bad target.
    async fn create(&self, cx: &Context, new: Image, source_date_epoch: Option<SystemTime>) -> Result<Image>;

    /// The image named `name`.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get(&self, cx: &Context, name: &str) -> Result<Image>;

    /// The images that any of `filters` matches (all, without filters), in byte order of their names.
    ///
    /// # Errors
    /// `InvalidArgument` for a filter that does not parse.
    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<Image>>;

    /// Changes the parts that `mask` names: `labels`, `labels.<k>`, `target`, `annotations`, `annotations.<k>`;
    /// without mask labels and target.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for another path, a bad target, or none where the mask wants one.
    async fn update(
        &self,
        cx: &Context,
        changed: ImageChange,
        mask: &FieldMask,
        source_date_epoch: Option<SystemTime>,
    ) -> Result<Image>;

    /// Removes an image record; its content goes with the next collection.
    ///
    /// # Errors
    /// `NotFound`, also if it points elsewhere than [`DeleteImage::if_target`].
    async fn delete(&self, cx: &Context, name: &str, how: DeleteImage) -> Result<()>;
}

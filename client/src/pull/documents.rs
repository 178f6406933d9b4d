//! Fetching an image's documents: from the index down to the manifest and configuration of one platform.

use bytes::Bytes;
use gantry_core::{Descriptor, Error, Labels, Result};
use gantry_oci::manifest::{ChildDescriptor, Document, Manifest};
use gantry_oci::{ImageConfig, PlatformMatcher, gc_labels, image_content, media_types};
use gantry_registry::{Repository, Resolved};

use super::blobs::{Source, found};
use super::{Pull, PullItem};

/// Indexes may name indexes, but not for ever.
const MAX_INDEX_DEPTH: usize = 8;
/// How many candidates of one pull are looked at: each costs two requests.
const MAX_CANDIDATES: usize = 64;

/// The documents of the image that was chosen.
pub(super) struct Documents {
    pub(super) manifest: Manifest,
    pub(super) config: ImageConfig,
}

impl Pull {
    /// Fetches index, manifest and configuration. Candidates that turn out to be for another platform are passed over.
    pub(super) async fn documents(&self, repository: &Repository, resolved: &Resolved) -> Result<Documents> {
        // The last of the queue is taken next, so the best goes in last.
        let mut queue = vec![(resolved.descriptor.clone(), 0usize)];
        let mut candidates = 0;
        while let Some((descriptor, depth)) = queue.pop() {
            candidates += 1;
            if candidates > MAX_CANDIDATES {
                return Err(Error::invalid_argument("too many manifests to choose among"));
            }
            let given = (depth == 0).then(|| resolved.document.clone()).flatten();
            match self.document(repository, &descriptor, given).await? {
                Document::Index(index) => {
                    if depth >= MAX_INDEX_DEPTH {
                        return Err(Error::invalid_argument("indexes nested too deeply"));
                    }
                    let chosen = index.select(&self.options.platform);
                    queue.extend(chosen.iter().rev().map(|child| (child.descriptor.clone(), depth + 1)));
                }
                Document::Manifest(manifest) => {
                    let config = self.config(repository, &manifest.config).await?;
                    if runs(&self.options.platform, &config) {
                        return Ok(Documents { manifest, config });
                    }
                }
            }
        }
        Err(Error::not_found(format!("{} has no image for the wanted platform", resolved.descriptor.digest)))
    }

    async fn document(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        given: Option<Bytes>,
    ) -> Result<Document> {
        let index = media_types::is_index(&descriptor.media_type);
        self.tell(found(if index { PullItem::Index } else { PullItem::Manifest }, descriptor));
        let bytes = self.bytes(repository, descriptor, given).await?;
        let document = Document::parse(&bytes, &descriptor.media_type)?;
        let labels = gc_labels::child_labels(&document.children());
        self.store(descriptor, Source::Memory(bytes), labels).await?;
        Ok(document)
    }

    async fn config(&self, repository: &Repository, child: &ChildDescriptor) -> Result<ImageConfig> {
        let descriptor = &child.descriptor;
        if !media_types::is_config(&descriptor.media_type) {
            return Err(Error::invalid_argument(format!(
                "{} is no image: its config is of type {:?}",
                self.reference, descriptor.media_type
            )));
        }
        self.tell(found(PullItem::Config, descriptor));
        let bytes = self.bytes(repository, descriptor, None).await?;
        let config = ImageConfig::parse(&bytes)?;
        self.store(descriptor, Source::Memory(bytes), Labels::new()).await?;
        Ok(config)
    }

    /// A document's bytes: given, stored, or fetched.
    async fn bytes(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        given: Option<Bytes>,
    ) -> Result<Bytes> {
        if let Some(bytes) = given
            && image_content::digest_like(&descriptor.digest, &bytes) == descriptor.digest
        {
            return Ok(bytes);
        }
        let content = &*self.client.services().content;
        // What is stored wrongly is fetched again, and the store says what it thinks of it.
        if let Ok(bytes) = image_content::read_document(content, &self.cx, descriptor).await {
            return Ok(Bytes::from(bytes));
        }
        repository.fetch_document(descriptor).await
    }
}

/// Whether an image is for the wanted platform; one that does not say is.
fn runs(matcher: &PlatformMatcher, config: &ImageConfig) -> bool {
    let platform = &config.platform;
    platform.os.is_empty() || platform.architecture.is_empty() || matcher.matches(platform)
}

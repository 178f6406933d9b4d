use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_core::content::ContentReader;

use super::*;
use crate::manifest::Index;
use crate::platforms;

#[derive(Default)]
struct Blobs(HashMap<String, Bytes>);

struct Blob(Bytes);

#[async_trait]
impl ContentReader for Blob {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let start = (offset as usize).min(self.0.len());
        // Short reads are allowed, so give them.
        Ok(self.0.slice(start..(start + length.min(100)).min(self.0.len())))
    }
}

#[async_trait]
impl ContentProvider for Blobs {
    async fn reader(&self, _: &Context, digest: &Digest) -> Result<Arc<dyn ContentReader>> {
        let blob = self.0.get(digest.as_str()).ok_or_else(|| Error::not_found(digest.to_string()))?;
        Ok(Arc::new(Blob(blob.clone())))
    }
}

impl Blobs {
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let digest = Digest::sha256(Sha256::digest(&bytes));
        let size = bytes.len() as i64;
        self.0.insert(digest.to_string(), bytes.into());
        Descriptor::new(media_type, digest, size)
    }

    fn image(&mut self, platform: &str) -> Descriptor {
        let parsed = platforms::parse(platform).unwrap();
        let config = format!(r#"{{"os":"{}","architecture":"{}"}}"#, parsed.os, parsed.architecture);
        let config = self.add(media_types::OCI_CONFIG, config.into_bytes());
        let manifest = Manifest {
            media_type: media_types::OCI_MANIFEST.into(),
            artifact_type: String::new(),
            config: ChildDescriptor::new(config),
            layers: Vec::new(),
            subject: None,
            annotations: Default::default(),
        };
        self.add(media_types::OCI_MANIFEST, manifest.to_bytes())
    }

    fn index(&mut self, entries: &[(&Descriptor, Option<&str>)]) -> Descriptor {
        let manifests = entries
            .iter()
            .map(|(descriptor, platform)| ChildDescriptor {
                platform: platform.map(|text| platforms::parse(text).unwrap()),
                ..ChildDescriptor::new((*descriptor).clone())
            })
            .collect();
        let index = Index {
            media_type: media_types::OCI_INDEX.into(),
            artifact_type: String::new(),
            manifests,
            subject: None,
            annotations: Default::default(),
        };
        self.add(media_types::OCI_INDEX, index.to_bytes())
    }
}

#[tokio::test]
async fn the_image_of_the_platform_is_found_through_nested_indexes() {
    let mut blobs = Blobs::default();
    let (amd64, arm64) = (blobs.image("linux/amd64"), blobs.image("linux/arm64"));
    let inner = blobs.index(&[(&arm64, Some("linux/arm64"))]);
    let outer = blobs.index(&[(&inner, None), (&amd64, Some("linux/amd64"))]);
    let cx = Context::background();
    for (platform, expected) in [("linux/amd64", &amd64), ("linux/arm64", &arm64)] {
        let matcher = PlatformMatcher::only(platforms::parse(platform).unwrap());
        let found = select_image(&blobs, &cx, &outer, &matcher).await.unwrap();
        assert_eq!(found.descriptor.digest, expected.digest);
    }
    let matcher = PlatformMatcher::only(platforms::parse("linux/s390x").unwrap());
    assert_eq!(select_image(&blobs, &cx, &outer, &matcher).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn an_image_that_was_not_fetched_is_passed_over_for_the_next_best() {
    let mut blobs = Blobs::default();
    let (v7, v6) = (blobs.image("linux/arm"), blobs.image("linux/arm/v6"));
    let mut gone = v7.clone();
    gone.digest = Digest::sha256([7u8; 32]);
    let index = blobs.index(&[(&gone, Some("linux/arm/v7")), (&v6, Some("linux/arm/v6"))]);
    let matcher = PlatformMatcher::only(platforms::parse("linux/arm/v7").unwrap());
    let found = select_image(&blobs, &Context::background(), &index, &matcher).await.unwrap();
    assert_eq!(found.descriptor.digest, v6.digest);
}

#[tokio::test]
async fn stored_bytes_without_their_digest_are_data_loss() {
    let mut blobs = Blobs::default();
    let image = blobs.image("linux/amd64");
    let damaged = Bytes::from(vec![b' '; blobs.0[image.digest.as_str()].len()]);
    blobs.0.insert(image.digest.to_string(), damaged);
    let error = read_document(&blobs, &Context::background(), &image).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
}

#[tokio::test]
async fn indexes_nested_without_end_are_refused() {
    let mut blobs = Blobs::default();
    let mut descriptor = blobs.image("linux/amd64");
    for _ in 0..20 {
        descriptor = blobs.index(&[(&descriptor, None)]);
    }
    let error =
        select_image(&blobs, &Context::background(), &descriptor, &PlatformMatcher::all()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

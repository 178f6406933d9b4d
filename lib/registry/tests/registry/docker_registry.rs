//! Against Debian's `docker-registry`.

use std::sync::Arc;

use crate::server::*;
use async_trait::async_trait;
use bytes::Bytes;
use gantry_core::content::ContentReader;
use gantry_core::{ErrorKind, Result};
use gantry_oci::manifest::{ChildDescriptor, Document, Index, Manifest};
use gantry_oci::media_types;
use gantry_registry::push::{PushOptions, Pushed};
use gantry_registry::{FetchOptions, Repository};
use gantry_testkit::Registry;

struct Blob(Bytes);

#[async_trait]
impl ContentReader for Blob {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let start = (offset as usize).min(self.0.len());
        Ok(self.0.slice(start..(start + length).min(self.0.len())))
    }
}

fn blob(bytes: &[u8]) -> Arc<dyn ContentReader> {
    Arc::new(Blob(Bytes::copy_from_slice(bytes)))
}

/// Pushes an image of one layer and returns its manifest.
async fn push_image(
    repository: &Repository,
    layer_bytes: &[u8],
    options: &PushOptions,
) -> (Vec<u8>, Vec<Pushed>) {
    let config_bytes =
        br#"{"os":"linux","architecture":"amd64","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
    let config = descriptor(media_types::OCI_CONFIG, config_bytes);
    let layer = layer(layer_bytes);
    let mut pushed = Vec::new();
    pushed.push(repository.push_blob(&config, blob(config_bytes), options).await.unwrap());
    pushed.push(repository.push_blob(&layer, blob(layer_bytes), options).await.unwrap());
    let manifest = Manifest {
        media_type: media_types::OCI_MANIFEST.into(),
        artifact_type: String::new(),
        config: ChildDescriptor::new(config),
        layers: vec![ChildDescriptor::new(layer)],
        subject: None,
        annotations: Default::default(),
    };
    let bytes = manifest.to_bytes();
    let described = descriptor(media_types::OCI_MANIFEST, &bytes);
    repository.push_manifest(&described, bytes.clone().into(), true).await.unwrap();
    (bytes, pushed)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_can_be_resolved_and_fetched() {
    let registry = Registry::start();
    let layer_bytes = noise(3 << 20);
    for (name, options) in [
        ("whole", PushOptions::default()),
        ("pieces", PushOptions { chunk_bytes: Some(1 << 20), ..Default::default() }),
    ] {
        let repository =
            repository(&registry.reference(&format!("app/{name}:t")), options_for_loopback()).await;
        let (manifest_bytes, pushed) = push_image(&repository, &layer_bytes, &options).await;
        assert_eq!(pushed, [Pushed::Sent, Pushed::Sent], "{name}");
        let resolved = repository.resolve().await.unwrap();
        assert_eq!(resolved.descriptor, descriptor(media_types::OCI_MANIFEST, &manifest_bytes));
        let document = repository.fetch_document(&resolved.descriptor).await.unwrap();
        let children = Document::parse(&document, &resolved.descriptor.media_type).unwrap().children();
        let reader = repository.fetch_blob(&children[1].descriptor, FetchOptions::default()).await.unwrap();
        assert_eq!(read_all(reader).await.unwrap(), layer_bytes);
        let part = FetchOptions { range: Some(1_000_000..1_000_100), ..Default::default() };
        let reader = repository.fetch_blob(&children[1].descriptor, part).await.unwrap();
        assert_eq!(read_all(reader).await.unwrap(), &layer_bytes[1_000_000..1_000_100]);
        // A second time, nothing is sent.
        let (_, pushed) = push_image(&repository, &layer_bytes, &options).await;
        assert_eq!(pushed, [Pushed::Existed, Pushed::Existed]);
    }
}

/// The registry is on this machine, so nothing says that it is plain.
fn options_for_loopback() -> gantry_registry::RegistryOptions {
    options()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_taken_over_from_another_repository() {
    let registry = Registry::start();
    let layer_bytes = noise(100_000);
    let first = repository(&registry.reference("one/app:t"), options()).await;
    push_image(&first, &layer_bytes, &PushOptions::default()).await;
    let second = repository(&registry.reference("two/app:t"), options()).await;
    let options =
        PushOptions { mount_from: vec!["absent/app".into(), "one/app".into()], ..Default::default() };
    let (_, pushed) = push_image(&second, &layer_bytes, &options).await;
    // The registry answers the first try, from a repository that is not there, with an upload, which is used.
    assert!(pushed.iter().all(|how| matches!(how, Pushed::Sent | Pushed::Mounted(_))), "{pushed:?}");
    let third = repository(&registry.reference("three/app:t"), crate::server::options()).await;
    let options = PushOptions { mount_from: vec!["one/app".into()], ..Default::default() };
    let (_, pushed) = push_image(&third, &layer_bytes, &options).await;
    assert_eq!(pushed, [Pushed::Mounted("one/app".into()), Pushed::Mounted("one/app".into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found() {
    let registry = Registry::start();
    let repository = repository(&registry.reference("app/none:t"), options()).await;
    assert_eq!(repository.resolve().await.unwrap_err().kind(), ErrorKind::NotFound);
    let error =
        repository.fetch_blob(&layer(b"absent"), FetchOptions::default()).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!repository.has_blob(&layer(b"absent")).await.unwrap());
    assert_eq!(repository.referrers(&digest(b"absent"), None).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_its_digest_is_refused_by_the_registry() {
    let registry = Registry::start();
    let repository = repository(&registry.reference("app/lie:t"), options()).await;
    let mut lie = layer(b"what it says");
    lie.digest = digest(b"something else");
    let error = repository.push_blob(&lie, blob(b"what it says"), &PushOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    let error = repository.push_manifest(&lie, manifest().into(), true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let short = repository.push_blob(&layer(b"abc"), blob(b"ab"), &PushOptions::default()).await.unwrap_err();
    assert_eq!(short.kind(), ErrorKind::InvalidArgument, "{short}");
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_found_by_the_tag_of_registries_without_the_api() {
    let registry = Registry::start();
    let base = registry.reference("app/signed:t");
    let repository_of_image = repository(&base, options()).await;
    let (image, _) = push_image(&repository_of_image, &noise(1000), &PushOptions::default()).await;
    let subject = digest(&image);
    let mut entry = ChildDescriptor::new(descriptor(media_types::OCI_MANIFEST, &image));
    entry.artifact_type = "application/x.signature".into();
    let index = Index {
        media_type: media_types::OCI_INDEX.into(),
        artifact_type: String::new(),
        manifests: vec![entry.clone()],
        subject: None,
        annotations: Default::default(),
    };
    let bytes = index.to_bytes();
    let tag = format!("{}/app/signed:{}-{}", registry.address(), subject.algorithm(), subject.hex());
    let list = repository(&tag, options()).await;
    list.push_manifest(&descriptor(media_types::OCI_INDEX, &bytes), bytes.into(), true).await.unwrap();
    assert_eq!(repository_of_image.referrers(&subject, None).await.unwrap(), [entry.clone()]);
    assert_eq!(
        repository_of_image.referrers(&subject, Some("application/x.signature")).await.unwrap(),
        [entry]
    );
    assert_eq!(repository_of_image.referrers(&subject, Some("application/x.other")).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_blob_is_pushed() {
    let registry = Registry::start();
    let repository = repository(&registry.reference("app/empty:t"), options()).await;
    for options in [PushOptions::default(), PushOptions { chunk_bytes: Some(10), ..Default::default() }] {
        repository.push_blob(&layer(b""), blob(b""), &options).await.unwrap();
    }
    assert!(repository.has_blob(&layer(b"")).await.unwrap());
}

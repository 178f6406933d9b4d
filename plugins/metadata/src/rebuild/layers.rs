//! Which stored layer makes which snapshot: the chain ids of all images whose documents a namespace has.

use std::collections::HashMap;

use gantry_core::content::ContentReader;
use gantry_core::{Context, Descriptor, Digest, ErrorKind, Result};
use gantry_oci::manifest::{Document, MAX_DOCUMENT_BYTES};
use gantry_oci::{ImageConfig, chain_id, media_types};
use gantry_store::{Reading, params};

use crate::database::Inner;

/// A layer to apply, and what its archive must turn out to be.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
}

/// Layers by chain id.
pub(super) type Layers = HashMap<Digest, Layer>;

/// Every layer that is stored in `namespace` with a manifest and a configuration that name it. Images are not asked: an image may
/// have been removed while its content and its snapshots are still there.
pub(super) async fn stored(inner: &Inner, namespace: &str) -> Result<Layers> {
    let owner = namespace.to_owned();
    let read = move |db: &Reading<'_>| {
        let sql = "SELECT digest, size FROM blobs WHERE namespace = ?1";
        db.all(sql, params![owner], |row| Ok((Digest::parse(row.get::<String>(0)?)?, row.get::<i64>(1)?)))
    };
    let blobs: HashMap<Digest, i64> = inner.store.read(read).await?.into_iter().collect();
    let mut layers = Layers::new();
    for (digest, size) in &blobs {
        let Some(bytes) = document(inner, digest, *size).await? else { continue };
        let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, "") else { continue };
        let config = &manifest.config.descriptor.digest;
        let Some(size) = blobs.get(config) else { continue };
        let Some(bytes) = document(inner, config, *size).await? else { continue };
        let Ok(config) = ImageConfig::parse(&bytes) else { continue };
        let children = manifest.layers.iter().map(|child| &child.descriptor);
        let children: Vec<&Descriptor> =
            children.filter(|child| media_types::is_layer(&child.media_type)).collect();
        if children.len() != config.diff_ids.len() {
            continue;
        }
        let chains = chain_id::chain_ids(&config.diff_ids);
        for ((descriptor, diff_id), chain) in children.into_iter().zip(config.diff_ids).zip(chains) {
            if blobs.contains_key(&descriptor.digest) {
                layers.insert(chain, Layer { descriptor: descriptor.clone(), diff_id });
            }
        }
    }
    Ok(layers)
}

/// The blob, if it may be a document.
async fn document(inner: &Inner, digest: &Digest, size: i64) -> Result<Option<Vec<u8>>> {
    let Some(size) = usize::try_from(size).ok().filter(|size| *size as u64 <= MAX_DOCUMENT_BYTES as u64)
    else {
        return Ok(None);
    };
    let reader = match inner.content.reader(&Context::background(), digest).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if reader.read_at(0, 1).await?.first() != Some(&b'{') {
        return Ok(None);
    }
    whole(reader.as_ref(), size).await.map(Some)
}

async fn whole(reader: &dyn ContentReader, size: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        let part = reader.read_at(bytes.len() as u64, size - bytes.len()).await?;
        if part.is_empty() {
            break;
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

//! Manifests and indexes: the documents that name an image's configuration and layers.

use std::collections::BTreeMap;

use gantry_core::platforms::Platform;
use gantry_core::{Descriptor, Digest, Error, Result, ResultExt};
use serde::Deserialize;
use serde_json::Value;

pub use crate::json::MAX_DOCUMENT_BYTES;
use crate::json::{Object, decode, or_default};
use crate::{PlatformMatcher, media_types};

/// A descriptor as it stands in a document, with what only documents say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildDescriptor {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// Other places to fetch it from. They are strangers: no credentials go there (S01).
    pub urls: Vec<String>,
    /// What it is built for; usually given in an index only.
    pub platform: Option<Platform>,
    /// What kind of artifact it is; may be empty.
    pub artifact_type: String,
}

/// The manifest of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What the document says it is; may be empty.
    pub media_type: String,
    /// What kind of artifact it is; may be empty.
    pub artifact_type: String,
    /// The image configuration.
    pub config: ChildDescriptor,
    /// The layers, the lowest first.
    pub layers: Vec<ChildDescriptor>,
    /// The manifest this one is about, if it is a referrer.
    pub subject: Option<ChildDescriptor>,
    /// Notes about the image.
    pub annotations: BTreeMap<String, String>,
}

/// Manifests, usually of one image for several platforms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// What the document says it is; may be empty.
    pub media_type: String,
    /// What kind of artifact it is; may be empty.
    pub artifact_type: String,
    /// The manifests.
    pub manifests: Vec<ChildDescriptor>,
    /// The manifest this index is about, if it is a referrer.
    pub subject: Option<ChildDescriptor>,
    /// Notes about the index.
    pub annotations: BTreeMap<String, String>,
}

/// A manifest or an index, told apart by what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "documents are held one at a time")]
pub enum Document {
    /// Of one image.
    Manifest(Manifest),
    /// Of several.
    Index(Index),
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    variant: String,
    #[serde(default, rename = "os.version", deserialize_with = "or_default")]
    os_version: String,
    #[serde(default, rename = "os.features", deserialize_with = "or_default")]
    os_features: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default, deserialize_with = "or_default")]
    media_type: String,
    #[serde(default, deserialize_with = "or_default")]
    digest: String,
    #[serde(default, deserialize_with = "or_default")]
    size: i64,
    #[serde(default, deserialize_with = "or_default")]
    urls: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    platform: Option<Object<RawPlatform>>,
    #[serde(default, deserialize_with = "or_default")]
    artifact_type: String,
}

/// Every field that tells a manifest from an index. Deriving `Deserialize` refuses a key that stands there twice.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default, deserialize_with = "or_default")]
    media_type: String,
    #[serde(default, deserialize_with = "or_default")]
    artifact_type: String,
    #[serde(default, deserialize_with = "or_default")]
    manifests: Vec<Object<RawDescriptor>>,
    #[serde(default)]
    config: Option<Object<RawDescriptor>>,
    #[serde(default, deserialize_with = "or_default")]
    layers: Vec<Object<RawDescriptor>>,
    #[serde(default)]
    subject: Option<Object<RawDescriptor>>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
}

impl ChildDescriptor {
    /// A child with nothing but a descriptor.
    pub fn new(descriptor: Descriptor) -> Self {
        ChildDescriptor { descriptor, urls: Vec::new(), platform: None, artifact_type: String::new() }
    }

    fn from_raw(Object(raw): Object<RawDescriptor>) -> Result<Self> {
        if raw.media_type.is_empty() {
            return Err(Error::invalid_argument("descriptor without mediaType"));
        }
        if raw.size < 0 {
            return Err(Error::invalid_argument(format!(
                "descriptor {:?} with size {}",
                raw.digest, raw.size
            )));
        }
        Ok(ChildDescriptor {
            descriptor: Descriptor {
                media_type: raw.media_type,
                digest: Digest::parse(raw.digest)?,
                size_bytes: raw.size,
                annotations: raw.annotations,
            },
            urls: raw.urls,
            platform: raw.platform.map(|Object(platform)| Platform {
                os: platform.os,
                architecture: platform.architecture,
                variant: platform.variant,
                os_version: platform.os_version,
                os_features: platform.os_features,
            }),
            artifact_type: raw.artifact_type,
        })
    }

    /// The child as it stands in a document.
    pub fn to_json(&self) -> Value {
        let mut object = serde_json::Map::new();
        object.insert("mediaType".into(), self.descriptor.media_type.clone().into());
        object.insert("digest".into(), self.descriptor.digest.as_str().into());
        object.insert("size".into(), self.descriptor.size_bytes.into());
        if !self.urls.is_empty() {
            object.insert("urls".into(), self.urls.clone().into());
        }
        if !self.descriptor.annotations.is_empty() {
            object.insert("annotations".into(), string_map(&self.descriptor.annotations));
        }
        if let Some(platform) = &self.platform {
            let mut inner = serde_json::Map::new();
            inner.insert("architecture".into(), platform.architecture.clone().into());
            inner.insert("os".into(), platform.os.clone().into());
            if !platform.os_version.is_empty() {
                inner.insert("os.version".into(), platform.os_version.clone().into());
            }
            if !platform.os_features.is_empty() {
                inner.insert("os.features".into(), platform.os_features.clone().into());
            }
            if !platform.variant.is_empty() {
                inner.insert("variant".into(), platform.variant.clone().into());
            }
            object.insert("platform".into(), inner.into());
        }
        if !self.artifact_type.is_empty() {
            object.insert("artifactType".into(), self.artifact_type.clone().into());
        }
        object.into()
    }
}

fn string_map(map: &BTreeMap<String, String>) -> Value {
    map.iter()
        .map(|(key, value)| (key.clone(), Value::from(value.clone())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn children_from_raw(raw: Vec<Object<RawDescriptor>>) -> Result<Vec<ChildDescriptor>> {
    raw.into_iter().map(ChildDescriptor::from_raw).collect()
}

impl Document {
    /// Reads a manifest or an index that its descriptor, or its server, calls `media_type`; with an empty
    /// `media_type` the document itself decides.
    ///
    /// # Errors
    /// `InvalidArgument` if it is longer than [`MAX_DOCUMENT_BYTES`], is no such document, has a descriptor that is
    /// not well formed, is of another kind than `media_type` says, or could be read as both kinds (S06).
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self> {
        // A map first: keys that another reader would take for the same one count too, since Go's decoder does not
        // look at case.
        let keys: BTreeMap<String, serde::de::IgnoredAny> = decode("manifest", bytes)?;
        let has = |name: &str| keys.keys().any(|key| key.eq_ignore_ascii_case(name));
        if has("fsLayers") {
            return Err(Error::invalid_argument("schema 1 manifests are not supported"));
        }
        let index_like = has("manifests");
        let manifest_like = has("config") || has("layers");
        if index_like && manifest_like {
            return Err(Error::invalid_argument(
                "document has both manifests and config or layers, so it could be read as either",
            ));
        }
        let raw: RawDocument = decode("manifest", bytes)?;
        let expects_index = media_types::is_index(media_type) || media_types::is_index(&raw.media_type);
        let expects_manifest =
            media_types::is_manifest(media_type) || media_types::is_manifest(&raw.media_type);
        if expects_index && (manifest_like || expects_manifest) {
            return Err(Error::invalid_argument(format!(
                "expected an index but found a manifest ({media_type})"
            )));
        }
        if expects_manifest && index_like {
            return Err(Error::invalid_argument(format!(
                "expected a manifest but found an index ({media_type})"
            )));
        }
        let subject = raw.subject.map(ChildDescriptor::from_raw).transpose().context("subject")?;
        if index_like || expects_index {
            return Ok(Document::Index(Index {
                media_type: raw.media_type,
                artifact_type: raw.artifact_type,
                manifests: children_from_raw(raw.manifests).context("manifests")?,
                subject,
                annotations: raw.annotations,
            }));
        }
        let config = raw.config.ok_or_else(|| Error::invalid_argument("manifest without config"))?;
        Ok(Document::Manifest(Manifest {
            media_type: raw.media_type,
            artifact_type: raw.artifact_type,
            config: ChildDescriptor::from_raw(config).context("config")?,
            layers: children_from_raw(raw.layers).context("layers")?,
            subject,
            annotations: raw.annotations,
        }))
    }

    /// What the document refers to: a manifest's config and layers, or an index's manifests, in that order.
    pub fn children(&self) -> Vec<ChildDescriptor> {
        match self {
            Document::Manifest(manifest) => manifest.children().cloned().collect(),
            Document::Index(index) => index.manifests.clone(),
        }
    }

    /// The manifest that a referrer is about.
    pub fn subject(&self) -> Option<&ChildDescriptor> {
        match self {
            Document::Manifest(manifest) => manifest.subject.as_ref(),
            Document::Index(index) => index.subject.as_ref(),
        }
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// As [`Document::parse`]; `InvalidArgument` if it is an index.
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self> {
        match Document::parse(bytes, media_type)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(Error::invalid_argument("expected a manifest but found an index")),
        }
    }

    /// The config, then the layers.
    pub fn children(&self) -> impl Iterator<Item = &ChildDescriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// The document, compact.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut object = serde_json::Map::new();
        object.insert("schemaVersion".into(), 2.into());
        if !self.media_type.is_empty() {
            object.insert("mediaType".into(), self.media_type.clone().into());
        }
        if !self.artifact_type.is_empty() {
            object.insert("artifactType".into(), self.artifact_type.clone().into());
        }
        object.insert("config".into(), self.config.to_json());
        object.insert("layers".into(), self.layers.iter().map(ChildDescriptor::to_json).collect());
        if let Some(subject) = &self.subject {
            object.insert("subject".into(), subject.to_json());
        }
        if !self.annotations.is_empty() {
            object.insert("annotations".into(), string_map(&self.annotations));
        }
        Value::from(object).to_string().into_bytes()
    }
}

impl Index {
    /// Reads an index.
    ///
    /// # Errors
    /// As [`Document::parse`]; `InvalidArgument` if it is a manifest.
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self> {
        match Document::parse(bytes, media_type)? {
            Document::Index(index) => Ok(index),
            Document::Manifest(_) => Err(Error::invalid_argument("expected an index but found a manifest")),
        }
    }

    /// The entries that `matcher` takes, the best first. Entries that name no platform are taken and come last.
    pub fn select(&self, matcher: &PlatformMatcher) -> Vec<&ChildDescriptor> {
        let mut ranked: Vec<(usize, &ChildDescriptor)> = self
            .manifests
            .iter()
            .filter(|child| {
                media_types::is_manifest(&child.descriptor.media_type)
                    || media_types::is_index(&child.descriptor.media_type)
            })
            .filter_map(|child| match &child.platform {
                None => Some((usize::MAX, child)),
                Some(platform) => Some((matcher.rank(platform)?, child)),
            })
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, child)| child).collect()
    }

    /// The document, compact.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut object = serde_json::Map::new();
        object.insert("schemaVersion".into(), 2.into());
        if !self.media_type.is_empty() {
            object.insert("mediaType".into(), self.media_type.clone().into());
        }
        if !self.artifact_type.is_empty() {
            object.insert("artifactType".into(), self.artifact_type.clone().into());
        }
        object.insert("manifests".into(), self.manifests.iter().map(ChildDescriptor::to_json).collect());
        if let Some(subject) = &self.subject {
            object.insert("subject".into(), subject.to_json());
        }
        if !self.annotations.is_empty() {
            object.insert("annotations".into(), string_map(&self.annotations));
        }
        Value::from(object).to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests;

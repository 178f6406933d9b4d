//! A descriptor: media type, digest and size of some content.

use std::collections::BTreeMap;

use crate::Digest;

/// Points at content. Source: OCI image specification, `descriptor.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What the content is, required, for example `application/vnd.oci.image.manifest.v1+json`.
    pub media_type: String,
    /// The content's address, required.
    pub digest: Digest,
    /// The content's length in bytes.
    pub size_bytes: i64,
    /// Optional notes about the content.
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor without annotations.
    pub fn new(media_type: impl Into<String>, digest: Digest, size_bytes: i64) -> Self {
        Descriptor { media_type: media_type.into(), digest, size_bytes, annotations: BTreeMap::new() }
    }
}

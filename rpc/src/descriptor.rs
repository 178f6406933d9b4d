//! Descriptors.

use gantry_api::containerd::types::Descriptor as Proto;
use gantry_core::{Descriptor, Digest, Result, ResultExt};

/// The descriptor in the request's field `field`.
pub(crate) fn from_proto(descriptor: Proto, field: &'static str) -> Result<Descriptor> {
    Ok(Descriptor {
        media_type: descriptor.media_type,
        digest: Digest::parse(descriptor.digest).context(field)?,
        size_bytes: descriptor.size,
        annotations: descriptor.annotations,
    })
}

pub(crate) fn to_proto(descriptor: Descriptor) -> Proto {
    Proto {
        media_type: descriptor.media_type,
        digest: descriptor.digest.into_string(),
        size: descriptor.size_bytes,
        annotations: descriptor.annotations,
    }
}

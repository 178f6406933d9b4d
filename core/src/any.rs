//! A payload whose type travels as a URL beside its bytes.

use bytes::Bytes;

/// What protocol buffers call `google.protobuf.Any`: opaque to gantry unless it knows the type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Any {
    /// Names the type, for example `types.containerd.io/opencontainers/runtime-spec/1/Spec`.
    pub type_url: String,
    /// The encoded value; JSON for OCI specs, protocol buffers otherwise.
    pub value: Bytes,
}

impl Any {
    /// A payload of the type `type_url`.
    pub fn new(type_url: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Any { type_url: type_url.into(), value: value.into() }
    }

    /// The type's name: the part of the URL behind its last `/`.
    pub fn type_name(&self) -> &str {
        self.type_url.rsplit('/').next().unwrap_or_default()
    }
}

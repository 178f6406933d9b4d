//! Media types of images, and what kind of document or layer each names.
//!
//! Source: OCI image specification `media-types.md`, Docker's image manifest v2 schema 2, and containerd's `images`
//! package for its own types.

/// Docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's index.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's first manifest, which nothing reads any more.
pub const DOCKER_SCHEMA1_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// Docker's image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's layer; in the field it may be compressed all the same.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker's layer, compressed with gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker's layer, compressed with zstd.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// Docker's layer that lives on a host of its own.
pub const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
/// The same, compressed with gzip.
pub const DOCKER_FOREIGN_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The empty JSON object, as the config of artifacts.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// OCI layer, uncompressed.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, compressed with gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, compressed with zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// OCI layer that must not be pushed.
pub const OCI_NON_DISTRIBUTABLE_LAYER: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";

/// A layer that is an EROFS image.
pub const EROFS_LAYER: &str = "application/vnd.erofs.layer.v1";
/// An in-toto attestation, which stands among an image's layers but holds no files.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// A checkpoint of containerd: criu's images.
pub const CHECKPOINT: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
/// A checkpoint of containerd: its configuration.
pub const CHECKPOINT_CONFIG: &str = "application/vnd.containerd.container.checkpoint.config.v1+proto";

/// How a layer's bytes are compressed, as far as its media type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// The type does not tell; the first bytes do.
    Detect,
}

/// The type without parameters: what stands before `;`, in lower case, without blanks.
pub fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The type and its `+suffixes`.
fn split_suffixes(media_type: &str) -> (&str, Vec<&str>) {
    let mut parts = media_type.split('+');
    let base = parts.next().unwrap_or_default();
    (base, parts.collect())
}

/// Whether this is a manifest of one image.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, DOCKER_MANIFEST | OCI_MANIFEST)
}

/// Whether this is an index of manifests.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, DOCKER_MANIFEST_LIST | OCI_INDEX)
}

/// Whether this is an image configuration.
pub fn is_config(media_type: &str) -> bool {
    matches!(media_type, DOCKER_CONFIG | OCI_CONFIG)
}

/// Whether this is an image configuration, or one of containerd's checkpoints.
pub fn is_known_config(media_type: &str) -> bool {
    is_config(media_type) || matches!(media_type, CHECKPOINT | CHECKPOINT_CONFIG)
}

/// Whether this is a layer of a root file system.
pub fn is_layer(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.")
        || matches!(
            split_suffixes(media_type).0,
            DOCKER_LAYER
                | DOCKER_LAYER_GZIP
                | DOCKER_LAYER_ZSTD
                | DOCKER_FOREIGN_LAYER
                | DOCKER_FOREIGN_LAYER_GZIP
                | EROFS_LAYER
        )
}

/// Whether this layer lives on a host of its own and is not pushed.
pub fn is_non_distributable(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

/// Whether this layer is encrypted and needs a stream processor before it is unpacked.
pub fn is_encrypted(media_type: &str) -> bool {
    split_suffixes(media_type).1.contains(&"encrypted")
}

/// How a tar layer of this type is compressed; `None` if it is no tar layer, or is encrypted.
pub fn layer_compression(media_type: &str) -> Option<Compression> {
    let (base, suffixes) = split_suffixes(media_type);
    if suffixes.contains(&"encrypted") {
        return None;
    }
    match base {
        DOCKER_LAYER | DOCKER_FOREIGN_LAYER => Some(Compression::Detect),
        DOCKER_LAYER_GZIP | DOCKER_FOREIGN_LAYER_GZIP => Some(Compression::Gzip),
        DOCKER_LAYER_ZSTD => Some(Compression::Zstd),
        OCI_LAYER | OCI_NON_DISTRIBUTABLE_LAYER => match suffixes.last() {
            None => Some(Compression::None),
            Some(&"gzip") => Some(Compression::Gzip),
            Some(&"zstd") => Some(Compression::Zstd),
            Some(_) => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_told_from_everything_else() {
        for layer in [
            DOCKER_LAYER,
            DOCKER_LAYER_GZIP,
            DOCKER_LAYER_ZSTD,
            DOCKER_FOREIGN_LAYER_GZIP,
            OCI_LAYER,
            OCI_LAYER_GZIP,
            OCI_LAYER_ZSTD,
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
            EROFS_LAYER,
        ] {
            assert!(is_layer(layer), "{layer}");
        }
        for other in [OCI_MANIFEST, OCI_INDEX, OCI_CONFIG, DOCKER_CONFIG, IN_TOTO, OCI_EMPTY, ""] {
            assert!(!is_layer(other), "{other}");
            assert_eq!(layer_compression(other), None, "{other}");
        }
    }

    #[test]
    fn compression_follows_the_media_type() {
        assert_eq!(layer_compression(OCI_LAYER), Some(Compression::None));
        assert_eq!(layer_compression(OCI_LAYER_GZIP), Some(Compression::Gzip));
        assert_eq!(layer_compression(OCI_LAYER_ZSTD), Some(Compression::Zstd));
        assert_eq!(layer_compression(DOCKER_LAYER), Some(Compression::Detect));
        assert_eq!(layer_compression(DOCKER_LAYER_GZIP), Some(Compression::Gzip));
        assert_eq!(layer_compression(DOCKER_FOREIGN_LAYER_GZIP), Some(Compression::Gzip));
        assert_eq!(layer_compression("application/vnd.oci.image.layer.v1.tar+brotli"), None);
        assert_eq!(layer_compression("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), None);
        assert!(is_encrypted("application/vnd.oci.image.layer.v1.tar+encrypted"));
    }

    #[test]
    fn parameters_do_not_hide_a_type() {
        assert_eq!(essence("Application/vnd.oci.image.index.v1+json; charset=utf-8"), OCI_INDEX);
        assert_eq!(essence(""), "");
    }
}

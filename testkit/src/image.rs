//! Building images: layers, configuration, manifest, and the forms in which they travel.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::tar::Tar;

/// The `sha256:` digest of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Which family of media types an image uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Those of the OCI image specification.
    #[default]
    Oci,
    /// Those of Docker's schema 2.
    Docker,
}

/// How a layer travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// gzip.
    #[default]
    Gzip,
    /// zstd.
    Zstd,
}

/// Bytes and how a descriptor names them.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Media type.
    pub media_type: String,
    /// Digest of `bytes`, or what claims to be.
    pub digest: String,
    /// The content.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// A blob with its true digest.
    #[must_use]
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Blob {
        Blob { media_type: media_type.to_owned(), digest: sha256(&bytes), bytes }
    }

    /// Its descriptor.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len() })
    }
}

/// An image in the making.
#[derive(Clone, Debug, Default)]
pub struct ImageBuilder {
    format: Format,
    layers: Vec<(Vec<u8>, Compression)>,
    env: Vec<String>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    user: String,
    workdir: String,
    labels: BTreeMap<String, String>,
}

impl ImageBuilder {
    /// An image without layers, for this machine's architecture.
    #[must_use]
    pub fn new() -> ImageBuilder {
        ImageBuilder::default()
    }

    /// Which media types to use; OCI's unless told.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Adds a layer on top of those so far.
    #[must_use]
    pub fn layer(self, tar: Tar, compression: Compression) -> Self {
        self.raw_layer(tar.finish(), compression)
    }

    /// Adds a layer of any bytes, an archive or not.
    #[must_use]
    pub fn raw_layer(mut self, archive: Vec<u8>, compression: Compression) -> Self {
        self.layers.push((archive, compression));
        self
    }

    /// Adds `NAME=value` to the environment.
    #[must_use]
    pub fn env(mut self, pair: &str) -> Self {
        self.env.push(pair.to_owned());
        self
    }

    /// The entry point.
    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(ToString::to_string).collect();
        self
    }

    /// The default command.
    #[must_use]
    pub fn cmd(mut self, words: &[&str]) -> Self {
        self.cmd = words.iter().map(ToString::to_string).collect();
        self
    }

    /// The user that the process runs as.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// The working directory.
    #[must_use]
    pub fn workdir(mut self, dir: &str) -> Self {
        dir.clone_into(&mut self.workdir);
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The finished image.
    #[must_use]
    pub fn build(self) -> Image {
        let types = MediaTypes::of(self.format);
        let diff_ids: Vec<String> = self.layers.iter().map(|(archive, _)| sha256(archive)).collect();
        let mut config = json!({
            "created": "2023-11-14T22:13:20Z",
            "architecture": architecture(),
            "os": "linux",
            "config": { "Env": self.env, "Cmd": self.cmd, "Labels": self.labels },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        for (key, value) in [("User", self.user), ("WorkingDir", self.workdir)] {
            if !value.is_empty() {
                config["config"][key] = json!(value);
            }
        }
        if !self.entrypoint.is_empty() {
            config["config"]["Entrypoint"] = json!(self.entrypoint);
        }
        let config = Blob::new(types.config, config.to_string().into_bytes());
        let layers: Vec<Blob> = self
            .layers
            .into_iter()
            .map(|(archive, compression)| {
                let media_type = format!("{}{}", types.layer, types.suffix(compression));
                Blob::new(&media_type, compress(archive, compression))
            })
            .collect();
        Image::assemble(types.manifest, config, layers)
    }
}

struct MediaTypes {
    manifest: &'static str,
    config: &'static str,
    layer: &'static str,
    gzip: &'static str,
    zstd: &'static str,
}

impl MediaTypes {
    /// Source: OCI image specification, media-types.md; Docker's "Image Manifest Version 2, Schema 2".
    fn of(format: Format) -> MediaTypes {
        match format {
            Format::Oci => MediaTypes {
                manifest: "application/vnd.oci.image.manifest.v1+json",
                config: "application/vnd.oci.image.config.v1+json",
                layer: "application/vnd.oci.image.layer.v1.tar",
                gzip: "+gzip",
                zstd: "+zstd",
            },
            Format::Docker => MediaTypes {
                manifest: "application/vnd.docker.distribution.manifest.v2+json",
                config: "application/vnd.docker.container.image.v1+json",
                layer: "application/vnd.docker.image.rootfs.diff.tar",
                gzip: ".gzip",
                zstd: ".zstd",
            },
        }
    }

    fn suffix(&self, compression: Compression) -> &'static str {
        match compression {
            Compression::None => "",
            Compression::Gzip => self.gzip,
            Compression::Zstd => self.zstd,
        }
    }
}

fn compress(archive: Vec<u8>, compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => archive,
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&archive).expect("memory takes bytes");
            encoder.finish().expect("memory takes bytes")
        }
        Compression::Zstd => zstd::encode_all(archive.as_slice(), 3).expect("memory takes bytes"),
    }
}

/// This machine's architecture in the words of image indexes.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A finished image.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest.
    pub manifest: Blob,
    /// The configuration.
    pub config: Blob,
    /// The layers, lowest first.
    pub layers: Vec<Blob>,
}

impl Image {
    /// An image of these parts, with a manifest that names them as they describe themselves.
    #[must_use]
    pub fn assemble(manifest_type: &str, config: Blob, layers: Vec<Blob>) -> Image {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        Image { manifest: Blob::new(manifest_type, manifest.to_string().into_bytes()), config, layers }
    }

    /// The digest of the manifest.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// Manifest, configuration and layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        [&self.manifest, &self.config].into_iter().chain(&self.layers)
    }

    /// The archive of an OCI layout that names the image `name`.
    ///
    /// Source: OCI image specification, image-layout.md; the annotation is the one that containerd's
    /// importer reads a full name from.
    #[must_use]
    pub fn oci_archive(&self, name: &str) -> Vec<u8> {
        let mut target = self.manifest.descriptor();
        target["annotations"] = json!({ "io.containerd.image.name": name });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [target],
        });
        let mut tar = Tar::new()
            .file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", 0o644, index.to_string())
            .dir("blobs", 0o755)
            .dir("blobs/sha256", 0o755);
        for blob in self.blobs() {
            tar = tar.file(&format!("blobs/{}", blob.digest.replace(':', "/")), 0o644, &blob.bytes);
        }
        tar.finish()
    }

    /// What `docker save` of the image would write. Layers must not be compressed.
    ///
    /// Source: the Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format".
    #[must_use]
    pub fn docker_archive(&self, name: &str) -> Vec<u8> {
        let file_name =
            |blob: &Blob, ending: &str| format!("{}{ending}", blob.digest.trim_start_matches("sha256:"));
        let config = file_name(&self.config, ".json");
        let layers: Vec<String> = self.layers.iter().map(|layer| file_name(layer, "/layer.tar")).collect();
        let manifest = json!([{ "Config": config, "RepoTags": [name], "Layers": layers }]);
        let mut tar = Tar::new().file(&config, 0o644, &self.config.bytes);
        for (layer, path) in self.layers.iter().zip(&layers) {
            tar = tar.file(path, 0o644, &layer.bytes);
        }
        tar.file("manifest.json", 0o644, manifest.to_string()).finish()
    }

    /// Writes the archive of an OCI layout to `path`.
    pub fn write_oci_archive(&self, path: &Path, name: &str) {
        fs::write(path, self.oci_archive(name))
            .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::{Compression, Format, ImageBuilder, sha256};
    use crate::tar::Tar;

    fn layer(text: &str) -> Tar {
        Tar::new().file("file", 0o644, text)
    }

    #[test]
    fn the_same_parts_give_the_same_digest() {
        let build = || ImageBuilder::new().layer(layer("a"), Compression::Gzip).env("A=b").build();
        assert_eq!(build().digest(), build().digest());
        assert_ne!(
            build().digest(),
            ImageBuilder::new().layer(layer("b"), Compression::Gzip).env("A=b").build().digest()
        );
    }

    #[test]
    fn manifest_names_each_layer_by_the_digest_of_its_bytes() {
        let image = ImageBuilder::new()
            .format(Format::Docker)
            .layer(layer("a"), Compression::Gzip)
            .layer(layer("b"), Compression::Zstd)
            .layer(layer("c"), Compression::None)
            .build();
        let manifest: serde_json::Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
        for (index, blob) in image.layers.iter().enumerate() {
            assert_eq!(manifest["layers"][index]["digest"], sha256(&blob.bytes));
        }
        let config: serde_json::Value = serde_json::from_slice(&image.config.bytes).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][2], image.layers[2].digest);
        assert_ne!(config["rootfs"]["diff_ids"][0], image.layers[0].digest);
    }
}

//! Reading an image's documents from a content store: bounded, and checked against their digests.

use gantry_core::content::ContentProvider;
use gantry_core::{Context, Descriptor, Digest, Error, ErrorKind, Result, ResultExt};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::json::{MAX_DOCUMENT_BYTES, check_size};
use crate::manifest::{ChildDescriptor, Document, Manifest};
use crate::{ImageConfig, PlatformMatcher, media_types};

/// Indexes may name indexes, but not for ever.
const MAX_INDEX_DEPTH: usize = 8;

/// One image of an index, or the image itself.
#[derive(Clone, Debug)]
pub struct SelectedImage {
    /// Its manifest's descriptor.
    pub descriptor: Descriptor,
    /// Its manifest.
    pub manifest: Manifest,
}

/// The digest of `bytes` under the algorithm of `like`.
pub fn digest_like(like: &Digest, bytes: &[u8]) -> Digest {
    fn hex(sum: impl AsRef<[u8]>) -> String {
        use std::fmt::Write as _;
        sum.as_ref().iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
            text
        })
    }
    match like.algorithm() {
        "sha384" => {
            Digest::parse(format!("sha384:{}", hex(Sha384::digest(bytes)))).expect("a sum has its length")
        }
        "sha512" => {
            Digest::parse(format!("sha512:{}", hex(Sha512::digest(bytes)))).expect("a sum has its length")
        }
        _ => Digest::sha256(Sha256::digest(bytes)),
    }
}

/// Reads a whole document.
///
/// # Errors
/// `NotFound` if it is not in the store; `InvalidArgument` if it is longer than
/// [`crate::manifest::MAX_DOCUMENT_BYTES`]; `DataLoss` if the store's bytes do not have their digest.
pub async fn read_document(
    content: &(impl ContentProvider + ?Sized),
    cx: &Context,
    descriptor: &Descriptor,
) -> Result<Vec<u8>> {
    let digest = &descriptor.digest;
    let reader = content.reader(cx, digest).await.with_context(|| format!("read {digest}"))?;
    let size = reader.size_bytes();
    check_size(digest.as_str(), size)?;
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0).min(MAX_DOCUMENT_BYTES));
    while (bytes.len() as u64) < size {
        let rest = usize::try_from(size - bytes.len() as u64).unwrap_or(MAX_DOCUMENT_BYTES);
        let part = reader
            .read_at(bytes.len() as u64, rest.min(1 << 20))
            .await
            .with_context(|| format!("read {digest}"))?;
        if part.is_empty() {
            return Err(Error::new(ErrorKind::DataLoss, format!("{digest} ends at byte {}", bytes.len())));
        }
        bytes.extend_from_slice(&part);
        check_size(digest.as_str(), bytes.len() as u64)?;
    }
    if digest_like(digest, &bytes) != *digest {
        return Err(Error::new(
            ErrorKind::DataLoss,
            format!("stored content does not have its digest {digest}"),
        ));
    }
    Ok(bytes)
}

/// Reads a manifest or an index.
///
/// # Errors
/// As [`read_document`] and [`Document::parse`].
pub async fn document(
    content: &(impl ContentProvider + ?Sized),
    cx: &Context,
    descriptor: &Descriptor,
) -> Result<Document> {
    let bytes = read_document(content, cx, descriptor).await?;
    Document::parse(&bytes, &descriptor.media_type).with_context(|| format!("parse {}", descriptor.digest))
}

/// What `descriptor` refers to; nothing if it is neither a manifest nor an index.
///
/// # Errors
/// As [`document`].
pub async fn children(
    content: &(impl ContentProvider + ?Sized),
    cx: &Context,
    descriptor: &Descriptor,
) -> Result<Vec<ChildDescriptor>> {
    if !media_types::is_manifest(&descriptor.media_type) && !media_types::is_index(&descriptor.media_type) {
        return Ok(Vec::new());
    }
    Ok(document(content, cx, descriptor).await?.children())
}

/// The best image for `matcher` below `target` of which the manifest is in the store.
///
/// # Errors
/// `NotFound` if no image is for such a platform, or none of them is in the store; those of [`document`].
pub async fn select_image(
    content: &(impl ContentProvider + ?Sized),
    cx: &Context,
    target: &Descriptor,
    matcher: &PlatformMatcher,
) -> Result<SelectedImage> {
    let mut queue = vec![(target.clone(), 0usize)];
    let mut missing = None;
    while let Some((descriptor, depth)) = queue.pop() {
        let read = match document(content, cx, &descriptor).await {
            // An index usually names more than was fetched.
            Err(error) if error.kind() == ErrorKind::NotFound && depth > 0 => {
                missing.get_or_insert(error);
                continue;
            }
            other => other?,
        };
        match read {
            Document::Index(index) => {
                if depth >= MAX_INDEX_DEPTH {
                    return Err(Error::invalid_argument(format!(
                        "{}: indexes nested too deeply",
                        target.digest
                    )));
                }
                // The last of the queue is taken next, so the best goes in last.
                let chosen = index.select(matcher);
                queue.extend(chosen.iter().rev().map(|child| (child.descriptor.clone(), depth + 1)));
                if queue.len() > 10_000 {
                    return Err(Error::invalid_argument(format!("{}: too many manifests", target.digest)));
                }
            }
            Document::Manifest(manifest) => {
                // A manifest that nobody described may still be for another platform: its config tells.
                if *matcher != PlatformMatcher::all()
                    && media_types::is_config(&manifest.config.descriptor.media_type)
                {
                    let config = match image_config(content, cx, &manifest).await {
                        Err(error) if error.kind() == ErrorKind::NotFound => {
                            missing.get_or_insert(error);
                            continue;
                        }
                        other => other?,
                    };
                    let platform = &config.platform;
                    let named = !platform.os.is_empty() && !platform.architecture.is_empty();
                    if named && !matcher.matches(platform) {
                        continue;
                    }
                }
                return Ok(SelectedImage { descriptor, manifest });
            }
        }
    }
    Err(missing.unwrap_or_else(|| {
        Error::not_found(format!(
            "no image for the wanted platform in {} ({})",
            target.digest, target.media_type
        ))
    }))
}

/// The image configuration of `manifest`.
///
/// # Errors
/// `InvalidArgument` if the manifest has a config of another kind; those of [`read_document`] and
/// [`ImageConfig::parse`].
pub async fn image_config(
    content: &(impl ContentProvider + ?Sized),
    cx: &Context,
    manifest: &Manifest,
) -> Result<ImageConfig> {
    let descriptor = &manifest.config.descriptor;
    if !media_types::is_config(&descriptor.media_type) {
        return Err(Error::invalid_argument(format!(
            "unknown image config media type {:?}",
            descriptor.media_type
        )));
    }
    let bytes = read_document(content, cx, descriptor).await?;
    ImageConfig::parse(&bytes).with_context(|| format!("parse {}", descriptor.digest))
}

#[cfg(test)]
mod tests;

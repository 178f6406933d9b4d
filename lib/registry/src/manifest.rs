//! Fetching manifests and indexes by digest.

use bytes::Bytes;
use gantry_core::{Descriptor, Error, ErrorKind, Result, ResultExt};
use gantry_oci::image_content::digest_like;
use gantry_oci::manifest::MAX_DOCUMENT_BYTES;
use gantry_oci::media_types;
use http::{HeaderValue, Method, header};

use crate::explain::Operation;
use crate::repository::Repository;
use crate::transport::HostClient;
use crate::{answer, failure, resolve};

/// Every kind of manifest, those that are read before others.
pub(crate) fn accept_any() -> HeaderValue {
    let types = [
        media_types::DOCKER_MANIFEST,
        media_types::DOCKER_MANIFEST_LIST,
        media_types::OCI_MANIFEST,
        media_types::OCI_INDEX,
        "*/*",
    ];
    HeaderValue::try_from(types.join(", ")).expect("media types fit a header")
}

fn accept(media_type: &str) -> HeaderValue {
    HeaderValue::try_from(format!("{media_type}, */*")).unwrap_or_else(|_| accept_any())
}

impl Repository {
    /// Fetches a manifest, an index, or another small document whose descriptor is known, and checks its digest.
    ///
    /// # Errors
    /// As [`Repository::resolve`]; `InvalidArgument` if the descriptor's size is more than is read;
    /// `FailedPrecondition` if what every host has is something else.
    pub async fn fetch_document(&self, descriptor: &Descriptor) -> Result<Bytes> {
        let step = || format!("fetch {} of {}", descriptor.digest, self.reference.name());
        if u64::try_from(descriptor.size_bytes).map_or(true, |size| size > MAX_DOCUMENT_BYTES as u64) {
            return Err(Error::invalid_argument(format!(
                "a document of {} bytes is more than the {MAX_DOCUMENT_BYTES} that are read",
                descriptor.size_bytes
            ))
            .context(step()));
        }
        let hosts = self.hosts_for(Operation::Pull).with_context(step)?;
        let media_type = &descriptor.media_type;
        let is_manifest = media_types::is_manifest(media_type) || media_types::is_index(media_type);
        let mut failures = Vec::new();
        let last = hosts.len() - 1;
        for (place, host) in hosts.iter().enumerate() {
            // A registry keeps manifests apart, but a plain copy may have them among its blobs.
            let kinds: &[&str] = if is_manifest { &["manifests", "blobs"] } else { &["blobs"] };
            for (nth, kind) in kinds.iter().enumerate() {
                match self.document_at(host, kind, descriptor, place == last).await {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) if error.kind() == ErrorKind::NotFound && nth + 1 < kinds.len() => {}
                    Err(error) => {
                        failures.push((host.host.host.clone(), error));
                        break;
                    }
                }
            }
        }
        Err(failure::of_hosts(failures).context(step()))
    }

    async fn document_at(
        &self,
        host: &HostClient,
        kind: &str,
        descriptor: &Descriptor,
        patient: bool,
    ) -> Result<Bytes> {
        let mut ask = self.ask(host, Method::GET, &format!("{kind}/{}", descriptor.digest), false);
        ask.patient = patient;
        ask.headers.insert(header::ACCEPT, accept(&descriptor.media_type));
        // Compressed on the way, it would have another size and digest.
        ask.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let response = host.ask(&ask).await?;
        if !response.status().is_success() {
            return Err(host.unexpected(response).await);
        }
        let max = usize::try_from(descriptor.size_bytes).unwrap_or(MAX_DOCUMENT_BYTES);
        let bytes = match answer::read_body(response, max, self.timeouts.answer * 2).await {
            Err(error) if error.kind() == ErrorKind::ResourceExhausted => {
                return Err(Error::failed_precondition(format!(
                    "the host's document is longer than {} bytes",
                    descriptor.size_bytes
                )));
            }
            other => other?,
        };
        if bytes.len() != max {
            return Err(Error::failed_precondition(format!(
                "unexpected size {}, expected {}",
                bytes.len(),
                descriptor.size_bytes
            )));
        }
        let digest = digest_like(&descriptor.digest, &bytes);
        if digest != descriptor.digest {
            return Err(resolve::mismatch(&descriptor.digest, &digest));
        }
        Ok(Bytes::from(bytes))
    }
}

//! Resolving: which manifest a name points at.

use bytes::Bytes;
use gantry_core::{Descriptor, Digest, Error, ErrorKind, Result, ResultExt};
use gantry_oci::image_content::digest_like;
use gantry_oci::manifest::{Document, MAX_DOCUMENT_BYTES};
use gantry_oci::media_types;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::Response;

use crate::explain::Operation;
use crate::repository::{Repository, Resolved};
use crate::transport::HostClient;
use crate::{answer, failure, manifest};

/// Source: OCI distribution specification, "Legacy Docker support HTTP headers".
pub(crate) const CONTENT_DIGEST: &str = "docker-content-digest";

impl Repository {
    /// Finds the manifest or index that this repository's reference points at: by its digest if it has one, else by
    /// its tag.
    ///
    /// # Errors
    /// `NotFound` if no host has it; `Unauthenticated` or `PermissionDenied` if one wants other credentials;
    /// `Unavailable` if none can be asked; `FailedPrecondition` if a host's answer contradicts itself or the digest;
    /// `Unimplemented` for manifests of Docker's first schema.
    pub async fn resolve(&self) -> Result<Resolved> {
        let step = || format!("resolve {}", self.reference);
        let operation = if self.reference.digest().is_some() { Operation::Pull } else { Operation::Resolve };
        let hosts = self.hosts_for(operation).with_context(step)?;
        let mut failures = Vec::new();
        let last = hosts.len() - 1;
        for (place, host) in hosts.iter().enumerate() {
            match self.resolve_at(host, place == last).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) => {
                    tracing::debug!(host = %host.host.host, %error, "resolve: trying the next host");
                    failures.push((host.host.host.clone(), error));
                }
            }
        }
        Err(failure::of_hosts(failures).context(step()))
    }

    async fn resolve_at(&self, host: &HostClient, patient: bool) -> Result<Resolved> {
        let path = format!("manifests/{}", self.reference.object());
        let mut ask = self.ask(host, Method::HEAD, &path, false);
        ask.patient = patient;
        ask.headers.insert(header::ACCEPT, manifest::accept_any());
        let response = host.ask(&ask).await?;
        // Some hosts do not know this question, or forbid it without a word why.
        let asked_wrongly =
            matches!(response.status(), StatusCode::METHOD_NOT_ALLOWED | StatusCode::FORBIDDEN);
        if !asked_wrongly {
            if !response.status().is_success() {
                return Err(host.unexpected(response).await);
            }
            if let Some(descriptor) = self.described(response.headers())? {
                return Ok(Resolved { descriptor, host: host.host.host.clone(), document: None });
            }
        }
        ask.method = Method::GET;
        let response = host.ask(&ask).await?;
        if !response.status().is_success() {
            return Err(host.unexpected(response).await);
        }
        self.described_by_document(host, response).await
    }

    /// The descriptor that headers alone tell; `None` if they do not tell all of it.
    fn described(&self, headers: &HeaderMap) -> Result<Option<Descriptor>> {
        let size = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse::<u64>().ok())
            .filter(|size| *size > 0);
        let media_type = media_type(headers)?;
        let digest = match (named_digest(headers)?, self.reference.digest()) {
            (Some(named), Some(wanted)) if named != *wanted => {
                return Err(Error::failed_precondition(format!(
                    "the host offers {named} in place of {wanted}"
                )));
            }
            (_, Some(wanted)) => Some(wanted.clone()),
            (named, None) => named,
        };
        let (Some(size), Some(digest), Some(media_type)) = (size, digest, media_type) else {
            return Ok(None);
        };
        if size > MAX_DOCUMENT_BYTES as u64 {
            return Err(too_large(size));
        }
        let size = i64::try_from(size).map_err(|_| too_large(size))?;
        Ok(Some(Descriptor::new(media_type, digest, size)))
    }

    async fn described_by_document(&self, host: &HostClient, response: Response) -> Result<Resolved> {
        let named = named_digest(response.headers())?;
        let media_type = media_type(response.headers())?;
        let bytes = answer::read_body(response, MAX_DOCUMENT_BYTES, self.timeouts.answer * 2).await?;
        let like = self.reference.digest().or(named.as_ref());
        let digest = match like {
            Some(like) => digest_like(like, &bytes),
            None => Digest::sha256(<sha2::Sha256 as sha2::Digest>::digest(&bytes)),
        };
        for expected in self.reference.digest().into_iter().chain(&named) {
            if *expected != digest && expected.algorithm() == digest.algorithm() {
                return Err(mismatch(expected, &digest));
            }
        }
        let document = Document::parse(&bytes, media_type.as_deref().unwrap_or_default())?;
        let media_type = match (media_type, &document) {
            (Some(media_type), _) => media_type,
            (None, Document::Manifest(manifest)) if !manifest.media_type.is_empty() => {
                manifest.media_type.clone()
            }
            (None, Document::Index(index)) if !index.media_type.is_empty() => index.media_type.clone(),
            (None, Document::Manifest(_)) => media_types::OCI_MANIFEST.to_owned(),
            (None, Document::Index(_)) => media_types::OCI_INDEX.to_owned(),
        };
        let size = i64::try_from(bytes.len()).map_err(|_| too_large(bytes.len() as u64))?;
        Ok(Resolved {
            descriptor: Descriptor::new(media_type, digest, size),
            host: host.host.host.clone(),
            document: Some(Bytes::from(bytes)),
        })
    }
}

/// The manifest's type that an answer names; `None` if it names nothing useful.
fn media_type(headers: &HeaderMap) -> Result<Option<String>> {
    let essence =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(media_types::essence);
    match essence.as_deref() {
        Some(
            media_types::DOCKER_SCHEMA1_MANIFEST | "application/vnd.docker.distribution.manifest.v1+json",
        ) => Err(Error::unimplemented("manifests of Docker's first schema; rebuild the image")),
        Some(known) if media_types::is_manifest(known) || media_types::is_index(known) => {
            Ok(Some(known.to_owned()))
        }
        // What plain file servers say.
        None
        | Some("" | "application/octet-stream" | "application/json" | "text/plain" | "binary/octet-stream") => {
            Ok(None)
        }
        Some(other) if other.len() <= 255 && other.contains('/') => Ok(Some(other.to_owned())),
        Some(_) => Ok(None),
    }
}

pub(crate) fn named_digest(headers: &HeaderMap) -> Result<Option<Digest>> {
    match headers.get(CONTENT_DIGEST).map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok("")) => Ok(None),
        Some(Ok(text)) if text.len() <= 256 => {
            Digest::parse(text).map(Some).map_err(|error| error.with_kind(ErrorKind::FailedPrecondition))
        }
        Some(_) => Err(Error::failed_precondition("the answer's digest is not one")),
    }
}

pub(crate) fn mismatch(expected: &Digest, got: &Digest) -> Error {
    Error::failed_precondition(format!("unexpected digest {got}, expected {expected}"))
}

fn too_large(size: u64) -> Error {
    Error::invalid_argument(format!(
        "the manifest has {size} bytes, more than the {MAX_DOCUMENT_BYTES} that are read"
    ))
}

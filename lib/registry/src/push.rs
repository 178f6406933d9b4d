//! Pushing: blobs first, then the manifests that name them.

use std::sync::Arc;

use bytes::Bytes;
use gantry_core::content::ContentReader;
use gantry_core::{Descriptor, Error, ErrorKind, Result, ResultExt};
use gantry_oci::image_content::digest_like;
use gantry_oci::manifest::MAX_DOCUMENT_BYTES;
use http::{HeaderValue, Method, StatusCode, header};
use reqwest::{Response, Url};

use crate::explain::Operation;
use crate::repository::Repository;
use crate::transport::{Ask, Body, HostClient, Place};
use crate::{resolve, retry};

/// How a blob gets to a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// Repositories of the same registry that may have the blob already: it need not be sent then.
    pub mount_from: Vec<String>,
    /// Send the blob in pieces of this many bytes, each of which can be sent again; in one by default.
    pub chunk_bytes: Option<u64>,
}

/// What pushing a blob came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// It was taken over from this repository.
    Mounted(String),
    /// It was sent.
    Sent,
}

impl Repository {
    fn push_host(&self) -> Result<Arc<HostClient>> {
        Ok(self.hosts_for(Operation::Push)?.remove(0))
    }

    /// Whether the registry has the blob.
    ///
    /// # Errors
    /// As [`Repository::resolve`], but for `NotFound`.
    pub async fn has_blob(&self, descriptor: &Descriptor) -> Result<bool> {
        let host = self.push_host()?;
        self.blob_exists(&host, descriptor)
            .await
            .with_context(|| format!("host {}", host.host.host))
            .with_context(|| format!("look for {} in {}", descriptor.digest, self.reference.name()))
    }

    async fn blob_exists(&self, host: &HostClient, descriptor: &Descriptor) -> Result<bool> {
        let ask = self.ask(host, Method::HEAD, &format!("blobs/{}", descriptor.digest), true);
        let response = host.ask(&ask).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(host.unexpected(response).await),
        }
    }

    /// Sends a blob, unless the registry has it or can take it over from another repository.
    ///
    /// # Errors
    /// `Unauthenticated` or `PermissionDenied` if the registry wants other credentials; `NotFound` if the repository
    /// does not exist and is not made; `FailedPrecondition` if the registry does not find the digest in what it got;
    /// `Unavailable` if it cannot be reached or does not take the blob.
    pub async fn push_blob(
        &self,
        descriptor: &Descriptor,
        content: Arc<dyn ContentReader>,
        options: &PushOptions,
    ) -> Result<Pushed> {
        let step = || format!("push {} to {}", descriptor.digest, self.reference.name());
        let host = self.push_host().with_context(step)?;
        let size = u64::try_from(descriptor.size_bytes).unwrap_or(0);
        if content.size_bytes() != size {
            return Err(Error::invalid_argument(format!(
                "the content has {} bytes, its descriptor says {}",
                content.size_bytes(),
                descriptor.size_bytes
            ))
            .context(step()));
        }
        self.push_blob_to(&host, descriptor, content, options)
            .await
            .with_context(|| format!("host {}", host.host.host))
            .with_context(step)
    }

    async fn push_blob_to(
        &self,
        host: &HostClient,
        descriptor: &Descriptor,
        content: Arc<dyn ContentReader>,
        options: &PushOptions,
    ) -> Result<Pushed> {
        if self.blob_exists(host, descriptor).await? {
            return Ok(Pushed::Existed);
        }
        let mut location = None;
        for repository in options.mount_from.iter().filter(|name| *name != self.reference.repository()) {
            match self.mount(host, descriptor, repository).await {
                Ok(None) => return Ok(Pushed::Mounted(repository.clone())),
                // The registry would rather have it sent, and has begun an upload.
                Ok(Some(begun)) => {
                    location = Some(begun);
                    break;
                }
                // The other repository may be private; the blob can still be sent.
                Err(error) => tracing::debug!(from = repository, %error, "cannot take the blob over"),
            }
        }
        let mut attempt = 0;
        loop {
            let begun = match location.take() {
                Some(begun) => begun,
                None => self.begin(host, &[]).await?.1,
            };
            let sent = match options.chunk_bytes.filter(|bytes| *bytes > 0) {
                Some(bytes) => self.send_chunks(host, descriptor, &content, begun, bytes).await,
                None => self.send_whole(host, descriptor, &content, begun).await,
            };
            attempt += 1;
            match sent {
                Ok(()) => return Ok(Pushed::Sent),
                // An upload that broke off cannot be gone on with for sure: begin another.
                Err(error) if error.kind() == ErrorKind::Unavailable && attempt < retry::MAX_ATTEMPTS => {
                    tracing::debug!(host = %host.host.host, digest = %descriptor.digest, %error, attempt, "sending again");
                    tokio::time::sleep(retry::wait(attempt, None)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Begins an upload; what comes back is the answer's status and the upload's place.
    async fn begin(&self, host: &HostClient, query: &[(String, String)]) -> Result<(StatusCode, Url)> {
        let mut ask = self.ask(host, Method::POST, "blobs/uploads/", true);
        ask.query.extend_from_slice(query);
        if let Some((_, from)) = query.iter().find(|(key, _)| key == "from") {
            ask.scopes.insert(format!("repository:{from}:pull"));
        }
        let response = host.ask(&ask).await.context("begin an upload")?;
        match response.status() {
            StatusCode::CREATED => Ok((StatusCode::CREATED, host.origin()?)),
            StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT => {
                Ok((StatusCode::ACCEPTED, host.location(&response)?))
            }
            _ => Err(host.unexpected(response).await.context("begin an upload")),
        }
    }

    /// Source: OCI distribution specification, "Mounting a blob from another repository".
    async fn mount(&self, host: &HostClient, descriptor: &Descriptor, from: &str) -> Result<Option<Url>> {
        let query =
            [("mount".to_owned(), descriptor.digest.to_string()), ("from".to_owned(), from.to_owned())];
        let (status, location) = self.begin(host, &query).await?;
        Ok((status != StatusCode::CREATED).then_some(location))
    }

    /// A request to the place of an upload.
    fn ask_upload(&self, host: &HostClient, method: Method, location: Url) -> Ask {
        let mut ask = self.ask(host, method, "", true);
        ask.place = Place::Url(location);
        ask.query.clear();
        ask
    }

    async fn send_whole(
        &self,
        host: &HostClient,
        descriptor: &Descriptor,
        content: &Arc<dyn ContentReader>,
        location: Url,
    ) -> Result<()> {
        let mut ask = self.ask_upload(host, Method::PUT, location);
        ask.query.push(("digest".to_owned(), descriptor.digest.to_string()));
        ask.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        ask.body = Body::Part { reader: Arc::clone(content), start: 0, end: content.size_bytes() };
        let response = host.ask(&ask).await?;
        self.finished(host, response).await
    }

    async fn send_chunks(
        &self,
        host: &HostClient,
        descriptor: &Descriptor,
        content: &Arc<dyn ContentReader>,
        mut location: Url,
        chunk_bytes: u64,
    ) -> Result<()> {
        let size = content.size_bytes();
        let mut at = 0;
        let mut failures = 0;
        while at < size {
            let end = size.min(at.saturating_add(chunk_bytes));
            let mut ask = self.ask_upload(host, Method::PATCH, location.clone());
            ask.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            let range = HeaderValue::try_from(format!("{at}-{}", end - 1)).expect("digits fit a header");
            ask.headers.insert(header::CONTENT_RANGE, range);
            ask.body = Body::Part { reader: Arc::clone(content), start: at, end };
            let trouble = match host.ask(&ask).await {
                Ok(response) if response.status().is_success() => {
                    location = host.location(&response)?;
                    at = end;
                    failures = 0;
                    continue;
                }
                Ok(response) => host.unexpected(response).await,
                Err(error) => error,
            };
            failures += 1;
            if !matches!(trouble.kind(), ErrorKind::Unavailable | ErrorKind::OutOfRange)
                || failures >= retry::MAX_ATTEMPTS
            {
                return Err(trouble);
            }
            tokio::time::sleep(retry::wait(failures, None)).await;
            // The registry knows how much it has.
            let (place, has) = self.upload_state(host, location.clone()).await.map_err(|_| trouble)?;
            location = place;
            at = has.min(size);
        }
        let mut ask = self.ask_upload(host, Method::PUT, location);
        ask.query.push(("digest".to_owned(), descriptor.digest.to_string()));
        let response = host.ask(&ask).await?;
        self.finished(host, response).await
    }

    /// Where an upload goes on, and how many bytes the registry has.
    async fn upload_state(&self, host: &HostClient, location: Url) -> Result<(Url, u64)> {
        let response = host.ask(&self.ask_upload(host, Method::GET, location.clone())).await?;
        if !response.status().is_success() {
            return Err(host.unexpected(response).await);
        }
        let range =
            response.headers().get(header::RANGE).and_then(|value| value.to_str().ok()).unwrap_or("0-0");
        let last: u64 = range
            .trim_start_matches("bytes=")
            .split_once('-')
            .and_then(|(_, last)| last.parse().ok())
            .ok_or_else(|| Error::failed_precondition("the registry does not say how much it has"))?;
        // Source: the specification cannot tell nothing from one byte; sending the first byte again is refused then,
        // and the upload begun anew.
        let has = if last == 0 { 0 } else { last.saturating_add(1) };
        let place = if response.headers().contains_key(header::LOCATION) {
            host.location(&response)?
        } else {
            location
        };
        Ok((place, has))
    }

    async fn finished(&self, host: &HostClient, response: Response) -> Result<()> {
        match response.status() {
            StatusCode::CREATED | StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::ACCEPTED => Ok(()),
            status => {
                let error = host.unexpected(response).await;
                // What the registry says of the digest is about the content, not the request.
                let about_digest =
                    status == StatusCode::BAD_REQUEST && error.to_string().contains("DIGEST_INVALID");
                Err(if about_digest { error.with_kind(ErrorKind::FailedPrecondition) } else { error })
            }
        }
    }

    /// Stores a manifest or index under this repository's tag, or under its digest only if there is no tag, or if
    /// `tagged` is false. Everything it names must be there.
    ///
    /// # Errors
    /// As [`Repository::push_blob`]; `InvalidArgument` if `bytes` are not what the descriptor says, or something that
    /// the manifest names is not there.
    pub async fn push_manifest(&self, descriptor: &Descriptor, bytes: Bytes, tagged: bool) -> Result<()> {
        let step = || format!("push manifest {} to {}", descriptor.digest, self.reference);
        let host = self.push_host().with_context(step)?;
        if bytes.len() > MAX_DOCUMENT_BYTES || digest_like(&descriptor.digest, &bytes) != descriptor.digest {
            return Err(
                Error::invalid_argument("the manifest is not what its descriptor says").context(step())
            );
        }
        self.put_manifest(&host, descriptor, bytes, tagged)
            .await
            .with_context(|| format!("host {}", host.host.host))
            .with_context(step)
    }

    async fn put_manifest(
        &self,
        host: &HostClient,
        descriptor: &Descriptor,
        bytes: Bytes,
        tagged: bool,
    ) -> Result<()> {
        let digest = &descriptor.digest;
        let name = match self.reference.tag() {
            // A reference with a digest of something else does not move the tag.
            Some(tag) if tagged && self.reference.digest().is_none_or(|named| named == digest) => tag,
            _ => digest.as_str(),
        };
        let mut ask = self.ask(host, Method::PUT, &format!("manifests/{name}"), true);
        let media_type = HeaderValue::try_from(descriptor.media_type.as_str())
            .map_err(|_| Error::invalid_argument(format!("media type {:?}", descriptor.media_type)))?;
        ask.headers.insert(header::CONTENT_TYPE, media_type);
        ask.body = Body::Bytes(bytes);
        let response = host.ask(&ask).await?;
        if let Some(stored) = resolve::named_digest(response.headers())?
            && response.status().is_success()
            && stored.algorithm() == digest.algorithm()
            && stored != *digest
        {
            return Err(resolve::mismatch(digest, &stored));
        }
        self.finished(host, response).await
    }
}

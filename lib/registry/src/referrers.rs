//! What refers to a manifest: signatures, attestations.

use gantry_core::{Digest, Error, ErrorKind, Result, ResultExt};
use gantry_oci::manifest::{ChildDescriptor, Index, MAX_DOCUMENT_BYTES};
use gantry_oci::media_types;
use http::{HeaderValue, Method, header};

use crate::explain::Operation;
use crate::repository::Repository;
use crate::transport::HostClient;
use crate::{answer, failure};

impl Repository {
    /// The manifests that name `subject`, of `artifact_type` if one is given. None is no error.
    ///
    /// # Errors
    /// As [`Repository::resolve`], but for `NotFound`.
    pub async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<ChildDescriptor>> {
        let step = || format!("referrers of {subject} in {}", self.reference.name());
        let hosts = self.hosts_for(Operation::Referrers).with_context(step)?;
        let mut failures = Vec::new();
        let last = hosts.len() - 1;
        for (place, host) in hosts.iter().enumerate() {
            match self.referrers_at(host, subject, artifact_type, place == last).await {
                Ok(mut found) => {
                    // A host need not filter.
                    found.retain(|child| artifact_type.is_none_or(|wanted| child.artifact_type == wanted));
                    return Ok(found);
                }
                Err(error) => failures.push((host.host.host.clone(), error)),
            }
        }
        let error = failure::of_hosts(failures);
        if error.kind() == ErrorKind::NotFound { Ok(Vec::new()) } else { Err(error.context(step())) }
    }

    async fn referrers_at(
        &self,
        host: &HostClient,
        subject: &Digest,
        artifact_type: Option<&str>,
        patient: bool,
    ) -> Result<Vec<ChildDescriptor>> {
        // Source: OCI distribution specification, "Listing referrers" and "Referrers tag schema".
        let tag = format!("manifests/{}-{}", subject.algorithm(), subject.hex());
        let mut answer = Err(Error::not_found("referrers"));
        for path in [format!("referrers/{subject}"), tag] {
            let mut ask = self.ask(host, Method::GET, &path, false);
            ask.patient = patient;
            ask.headers.insert(header::ACCEPT, HeaderValue::from_static(media_types::OCI_INDEX));
            if let Some(artifact_type) = artifact_type.filter(|_| path.starts_with("referrers/")) {
                ask.query.push(("artifactType".to_owned(), artifact_type.to_owned()));
            }
            let response = host.ask(&ask).await?;
            if response.status().is_success() {
                let body = answer::read_body(response, MAX_DOCUMENT_BYTES, self.timeouts.answer).await?;
                return Ok(Index::parse(&body, media_types::OCI_INDEX)?.manifests);
            }
            let error = host.unexpected(response).await;
            if !matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::InvalidArgument | ErrorKind::Unimplemented
            ) {
                return Err(error);
            }
            answer = Err(error.with_kind(ErrorKind::NotFound));
        }
        answer
    }
}

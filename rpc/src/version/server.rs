//! Serves the version. Class (c).

use gantry_api::containerd::services::version::v1::{VersionResponse, version_server::Version};
use tonic::{Request, Response, Status};

/// Answers with what it was made with.
#[derive(Clone, Debug)]
pub struct GrpcVersion {
    /// The version, for example `v2.1.0`.
    pub version: String,
    /// The commit it was built from.
    pub revision: String,
}

#[tonic::async_trait]
impl Version for GrpcVersion {
    async fn version(&self, _: Request<()>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse { version: self.version.clone(), revision: self.revision.clone() }))
    }
}

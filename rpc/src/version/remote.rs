//! Asks for the version.

use gantry_api::containerd::services::version::v1::version_client::VersionClient;
use gantry_core::{Context, Result};
use tonic::transport::Channel;

use super::GrpcVersion;
use crate::remote::{ask, remote};

remote! {
    /// A daemon's version.
    RemoteVersion, VersionClient<Channel>
}

impl RemoteVersion {
    /// The version, and the commit it was built from.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn get(&self, cx: &Context) -> Result<GrpcVersion> {
        let answer = ask!(self.version(cx, ()));
        Ok(GrpcVersion { version: answer.version, revision: answer.revision })
    }
}

//! Asks for the daemon's health.

use gantry_api::grpc::health::v1::HealthCheckRequest;
use gantry_api::grpc::health::v1::health_check_response::ServingStatus;
use gantry_api::grpc::health::v1::health_client::HealthClient;
use gantry_core::{Context, Result};
use tonic::transport::Channel;

use crate::remote::{ask, remote};

remote! {
    /// A daemon's health.
    RemoteHealth, HealthClient<Channel>
}

impl RemoteHealth {
    /// Whether the daemon serves.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn is_serving(&self, cx: &Context) -> Result<bool> {
        Ok(ask!(self.check(cx, HealthCheckRequest::default())).status() == ServingStatus::Serving)
    }
}

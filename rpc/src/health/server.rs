//! Serves health. Source: observed: only the empty service name is known, and it is serving.

use futures_util::StreamExt as _;
use futures_util::stream::{once, pending};
use gantry_api::grpc::health::v1::health_check_response::ServingStatus;
use gantry_api::grpc::health::v1::health_server::Health;
use gantry_api::grpc::health::v1::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use gantry_core::{Error, ErrorKind};
use tonic::{Request, Response, Status};

use crate::jobs::JobSet;
use crate::message::Answers;
use crate::status::to_status;

/// Serves as long as the process does. All methods are of class (c).
pub struct GrpcHealth {
    jobs: JobSet,
}

impl GrpcHealth {
    /// Its watches end when `jobs` stop.
    pub fn new(jobs: JobSet) -> Self {
        GrpcHealth { jobs }
    }
}

fn serving(service: &str) -> Result<HealthCheckResponse, Status> {
    if service.is_empty() {
        return Ok(HealthCheckResponse { status: ServingStatus::Serving.into() });
    }
    Err(to_status(Error::with_source(ErrorKind::NotFound, "unknown service")))
}

#[tonic::async_trait]
impl Health for GrpcHealth {
    type WatchStream = Answers<HealthCheckResponse>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        serving(&request.get_ref().service).map(Response::new)
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let statuses = [(String::new(), serving("")?)].into();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        // Source: gRPC health checking protocol: a watch of what is unknown says so, and waits for it to become known.
        let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
        let now = serving(&request.get_ref().service).unwrap_or(unknown);
        let stopping = self.jobs.stopping().clone().cancelled_owned();
        Ok(Response::new(once(async move { Ok(now) }).chain(pending()).take_until(stopping).boxed()))
    }
}

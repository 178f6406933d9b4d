//! Health, and services that are not there.

use gantry_api::grpc::health::v1::HealthCheckRequest;
use gantry_api::grpc::health::v1::health_check_response::ServingStatus;
use gantry_testkit::root;
use tonic::Code;

use crate::raw;
use crate::support::{Wire, code, in_test};

#[tokio::test]
async fn only_the_empty_service_is_serving() {
    root!();
    let wire = Wire::start();
    let check = async |service: &str| {
        let answer = wire.health().check(HealthCheckRequest { service: service.into() }).await?;
        Ok::<_, tonic::Status>(answer.into_inner().status())
    };
    assert_eq!(check("").await.unwrap(), ServingStatus::Serving);
    for service in ["containerd.services.images.v1.Images", "grpc.health.v1.Health", "other"] {
        assert_eq!(code(check(service).await), Code::NotFound, "{service}");
    }
}

#[tokio::test]
async fn services_that_are_not_there_are_unimplemented() {
    root!();
    let wire = Wire::start();
    for method in [
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "containerd.services.transfer.v1.Transfer/Transfer",
        "containerd.services.sandbox.v1.Controller/Create",
        "containerd.services.sandbox.v1.Controller/Platform",
    ] {
        let answer = raw::call(&wire, &format!("/{method}"), in_test(Vec::new())).await;
        assert_eq!(code(answer), Code::Unimplemented, "{method}");
    }
}

//! Health, and services that are not there.

use gantry_api::grpc::health::v1::health_check_response::ServingStatus;
use gantry_api::grpc::health::v1::{HealthCheckRequest, HealthListRequest};
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
async fn a_watch_begins_with_the_state_and_goes_on_for_unknown_services_too() {
    root!();
    let wire = Wire::start();
    for (service, state) in [("", ServingStatus::Serving), ("other", ServingStatus::ServiceUnknown)] {
        let request = HealthCheckRequest { service: service.into() };
        let mut states = wire.health().watch(request).await.unwrap().into_inner();
        assert_eq!(states.message().await.unwrap().unwrap().status(), state, "{service:?}");
        let more = tokio::time::timeout(std::time::Duration::from_millis(50), states.message()).await;
        assert!(more.is_err(), "nothing changes, and the stream stays open");
    }
}

#[tokio::test]
async fn a_list_has_the_empty_service_alone() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let all = wire.health().list(HealthListRequest {}).await.unwrap().into_inner().statuses;
    let all: Vec<_> = all.into_iter().map(|(name, state)| (name, state.status())).collect();
    assert_eq!(all, [(String::new(), ServingStatus::Serving)]);
}

#[tokio::test]
async fn services_that_are_not_there_are_unimplemented() {
    root!();
    let wire = Wire::start();
    for method in [
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "containerd.services.transfer.v1.Transfer/Transfer",
        "containerd.services.sandbox.v1.Controller/Platform",
    ] {
        let answer = raw::call(&wire, &format!("/{method}"), in_test(Vec::new())).await;
        assert_eq!(code(answer), Code::Unimplemented, "{method}");
    }
}

//! Containers and what all services share, over a socket.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use gantry_api::containerd::services as pb;
use gantry_core::containers::{Container, ContainerStore as _};
use gantry_core::{Any, ContainerId, Context, ErrorKind};
use gantry_rpc::Services;
use gantry_rpc::containers::RemoteContainers;
use gantry_testkit::FakeContent;
use support::{Daemon, FakeContainers, cx};
use tonic::Code;

fn daemon() -> Daemon {
    Daemon::start(Services {
        version: "v2.0.0".into(),
        containers: Some(Arc::new(FakeContainers::default())),
        content: Some(Arc::new(FakeContent::default())),
        ..Services::default()
    })
}

fn container(id: &str) -> Container {
    Container::new(ContainerId::parse(id).unwrap(), "io.containerd.runc.v2")
}

#[tokio::test]
async fn a_container_lives_over_the_wire() {
    let daemon = daemon();
    let store = RemoteContainers::new(daemon.channel.clone());
    store.create(&cx(), container("b")).await.unwrap();
    store.create(&cx(), container("a")).await.unwrap();
    let error = store.create(&cx(), container("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(error.message(), "container \"a\": already exists");
    let all: Vec<_> = store.list(&cx(), &[]).await.unwrap().try_collect().await.unwrap();
    assert_eq!(all.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let error = store.list(&cx(), &["=".to_owned()]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    store.delete(&cx(), "a").await.unwrap();
    assert_eq!(store.get(&cx(), "a").await.unwrap_err().kind(), ErrorKind::NotFound);
    let error = store.get(&Context::background(), "b").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    drop(store);
    daemon.stop().await;
}

#[tokio::test]
async fn a_list_above_16_mib_fails_but_streams() {
    let daemon = daemon();
    let store = RemoteContainers::new(daemon.channel.clone());
    for id in ["a", "b", "c"] {
        let mut one = container(id);
        one.spec = Some(Any::new("s", vec![0; 7 << 20]));
        store.create(&cx(), one).await.unwrap();
    }
    let all: Vec<_> = store.list(&cx(), &[]).await.unwrap().try_collect().await.unwrap();
    assert_eq!(all.len(), 3);
    let mut client = pb::containers::v1::containers_client::ContainersClient::new(daemon.channel.clone())
        .max_decoding_message_size(64 << 20);
    let mut request = tonic::Request::new(pb::containers::v1::ListContainersRequest::default());
    request.metadata_mut().insert("containerd-namespace", "test".parse().unwrap());
    assert_eq!(client.list(request).await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_request_above_16_mib_is_resource_exhausted() {
    let daemon = daemon();
    let mut client = pb::containers::v1::containers_client::ContainersClient::new(daemon.channel.clone())
        .max_encoding_message_size(64 << 20);
    let request = pb::containers::v1::GetContainerRequest { id: "x".repeat(17 << 20) };
    assert_eq!(client.get(request).await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn absent_sub_messages_are_invalid_arguments() {
    let daemon = daemon();
    let mut containers = pb::containers::v1::containers_client::ContainersClient::new(daemon.channel.clone());
    let status = containers.create(pb::containers::v1::CreateContainerRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("\"container\""), "{status}");
    let status = containers.update(pb::containers::v1::UpdateContainerRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let mut content = pb::content::v1::content_client::ContentClient::new(daemon.channel.clone());
    let status = content.update(pb::content::v1::UpdateRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_deadline_that_passes_is_deadline_exceeded() {
    let daemon = Daemon::start(Services {
        containers: Some(Arc::new(support::StuckContainers)),
        ..Services::default()
    });
    let store = RemoteContainers::new(daemon.channel.clone());
    let soon = std::time::Instant::now() + std::time::Duration::from_millis(50);
    let error = store.get(&cx().with_deadline(soon), "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    let token = tokio_util::sync::CancellationToken::new();
    token.cancel();
    let error = store.get(&cx().with_cancellation(token), "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Canceled);
}

#[tokio::test]
async fn what_is_not_built_is_unimplemented() {
    let daemon = daemon();
    let mut transfer = pb::transfer::v1::transfer_client::TransferClient::new(daemon.channel.clone());
    let status = transfer.transfer(pb::transfer::v1::TransferRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let mut diff = pb::diff::v1::diff_client::DiffClient::new(daemon.channel.clone());
    assert_eq!(
        diff.apply(pb::diff::v1::ApplyRequest::default()).await.unwrap_err().code(),
        Code::Unimplemented
    );
}

#[tokio::test]
async fn only_the_empty_service_is_healthy() {
    use gantry_api::grpc::health::v1::{HealthCheckRequest, health_client::HealthClient};
    let daemon = daemon();
    assert!(gantry_rpc::health::RemoteHealth::new(daemon.channel.clone()).is_serving(&cx()).await.unwrap());
    let mut health = HealthClient::new(daemon.channel.clone());
    let status = health.check(HealthCheckRequest { service: "x".into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let version = gantry_rpc::version::RemoteVersion::new(daemon.channel.clone());
    assert_eq!(version.get(&Context::background()).await.unwrap().version, "v2.0.0");
    // An open watch does not hold up the end.
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    daemon.stop().await;
}

//! All services: namespaces, names and labels.

use gantry_api::containerd::services::containers::v1::{
    CreateContainerRequest, GetContainerRequest, ListContainersRequest,
};
use gantry_api::containerd::services::content::v1::{Info, InfoRequest, UpdateRequest};
use gantry_api::containerd::services::images::v1::{CreateImageRequest, GetImageRequest, ListImagesRequest};
use gantry_api::containerd::services::introspection::v1::introspection_client::IntrospectionClient;
use gantry_api::containerd::services::leases::v1::ListRequest;
use gantry_api::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, ListNamespacesRequest, Namespace,
};
use gantry_api::containerd::services::snapshots::v1::{ListSnapshotsRequest, StatSnapshotRequest};
use gantry_api::containerd::services::tasks::v1::{ListTasksRequest, MetricsRequest};
use gantry_api::containerd::services::version::v1::version_client::VersionClient;
use gantry_testkit::root;
use tonic::{Code, Status};

use crate::support::{
    Wire, code, container, digest_of, image, in_test, is_there, pairs, refused, with, within,
};
use crate::write::{Writing, stat, write};

#[tokio::test]
async fn a_missing_or_empty_namespace_is_a_failed_precondition_with_two_exceptions() {
    root!();
    let wire = Wire::start();
    let missing: &[(&'static str, &str)] = &[];
    for headers in [missing, &[("containerd-namespace", "")]] {
        let failed = Code::FailedPrecondition;
        let request = || with(headers, ListContainersRequest::default());
        assert_eq!(code(wire.containers().list(request()).await), failed);
        assert_eq!(code(wire.images().list(with(headers, ListImagesRequest::default())).await), failed);
        let request = InfoRequest { digest: digest_of("absent") };
        assert_eq!(code(wire.content().info(with(headers, request)).await), failed);
        assert_eq!(code(Writing::open_by(&wire, |all| with(headers, all), stat("r")).await), failed);
        assert_eq!(code(wire.leases().list(with(headers, ListRequest::default())).await), failed);
        let request = StatSnapshotRequest { snapshotter: "native".into(), key: "k".into() };
        assert_eq!(code(wire.snapshots().stat(with(headers, request)).await), failed);
        assert_eq!(code(wire.tasks().list(with(headers, ListTasksRequest::default())).await), failed);
        let request = ListSnapshotsRequest { snapshotter: "native".into(), ..Default::default() };
        let ended = match wire.snapshots().list(with(headers, request)).await {
            Ok(answers) => answers.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        };
        assert_eq!(code(ended), Code::Unknown);
        let metrics = wire.tasks().metrics(with(headers, MetricsRequest::default())).await;
        assert_eq!(code(metrics), Code::Unknown);
    }
}

#[tokio::test]
async fn version_server_and_namespaces_need_no_namespace() {
    root!();
    let wire = Wire::start();
    VersionClient::new(wire.channel.clone()).version(()).await.unwrap();
    IntrospectionClient::new(wire.channel.clone()).server(()).await.unwrap();
    wire.namespaces().list(ListNamespacesRequest::default()).await.unwrap();
    let request = within("not--valid", ListNamespacesRequest::default());
    wire.namespaces().list(request).await.expect("nor do they look at it");
}

#[tokio::test]
async fn an_invalid_namespace_is_refused_and_of_two_the_first_counts() {
    root!();
    let wire = Wire::start();
    let invalid = ["a--b", "a_", ".a", "a b", "a/b", &"n".repeat(77)];
    for name in invalid {
        let answer = wire.containers().list(within(name, ListContainersRequest::default())).await;
        assert_eq!(code(answer), Code::InvalidArgument, "{name:?}");
    }
    let two = [("containerd-namespace", "one"), ("containerd-namespace", "two")];
    let request = CreateContainerRequest { container: Some(container("c", &[])) };
    wire.containers().create(with(&two, request)).await.unwrap();
    let get = || GetContainerRequest { id: "c".into() };
    assert!(is_there(wire.containers().get(within("one", get())).await));
    assert!(!is_there(wire.containers().get(within("two", get())).await));
}

#[tokio::test]
async fn the_first_write_creates_its_namespace() {
    root!();
    let wire = Wire::start();
    let request = CreateContainerRequest { container: Some(container("c", &[])) };
    wire.containers().create(within("by-container", request)).await.unwrap();
    let image = Some(image("i", &digest_of("absent"), &[]));
    let request = CreateImageRequest { image, ..Default::default() };
    wire.images().create(within("by-image", request)).await.unwrap();
    let request =
        gantry_api::containerd::services::leases::v1::CreateRequest { id: "l".into(), ..Default::default() };
    wire.leases().create(within("by-lease", request)).await.unwrap();
    wire.blob_by(|messages| within("by-content", messages), "hello", &[]).await;
    Writing::open_by(&wire, |messages| within("by-ingest", messages), write("r", 0, "a")).await.unwrap();
    let all = wire.namespaces().list(ListNamespacesRequest::default()).await.unwrap().into_inner();
    let names: Vec<String> = all.namespaces.into_iter().map(|namespace| namespace.name).collect();
    for name in ["by-container", "by-content", "by-image", "by-ingest", "by-lease"] {
        assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
    }
}

async fn create_container(wire: &Wire, id: &str, labels: &[(&str, &str)]) -> Result<(), Status> {
    let request = CreateContainerRequest { container: Some(container(id, labels)) };
    wire.containers().create(in_test(request)).await.map(drop)
}

async fn create_namespace(wire: &Wire, name: &str) -> Result<(), Status> {
    let namespace = Some(Namespace { name: name.into(), ..Default::default() });
    wire.namespaces().create(in_test(CreateNamespaceRequest { namespace })).await.map(drop)
}

#[tokio::test]
async fn identifiers_have_a_form_and_at_most_76_bytes() {
    root!();
    let wire = Wire::start();
    for good in ["a", "A.b_c-9", "0", &"i".repeat(76)] {
        create_container(&wire, good, &[]).await.unwrap();
        create_namespace(&wire, good).await.unwrap();
    }
    for bad in ["", "a--b", "a_", ".a", "a b", "a/b", "ä", "a\n", &"i".repeat(77)] {
        assert_eq!(code(create_container(&wire, bad, &[]).await), Code::InvalidArgument, "{bad:?}");
        assert_eq!(code(create_namespace(&wire, bad).await), Code::InvalidArgument, "{bad:?}");
    }
}

#[tokio::test]
async fn other_names_are_not_checked() {
    root!();
    let wire = Wire::start();
    for name in ["a b", "../..", "line\nbreak", "ä", &"n".repeat(300)] {
        wire.image(name, &digest_of("absent"), &[]).await;
        assert!(is_there(wire.images().get(in_test(GetImageRequest { name: name.into() })).await));
        wire.prepare("native", name, "", &[]).await.unwrap();
        assert!(wire.has_snapshot(name).await);
        Writing::open(&wire, write(name, 0, "a")).await.unwrap();
        wire.lease(name, &[]).await;
    }
}

#[tokio::test]
async fn labels_have_a_length_and_a_key_and_are_not_stored_empty() {
    root!();
    let wire = Wire::start();
    let fits = "v".repeat(4096 - "key".len());
    let long = "v".repeat(4097 - "key".len());
    create_container(&wire, "c", &[("key", &fits), ("empty", "")]).await.unwrap();
    let request = in_test(GetContainerRequest { id: "c".into() });
    let stored = wire.containers().get(request).await.unwrap().into_inner().container.unwrap();
    assert_eq!(stored.labels, pairs(&[("key", &fits)]));
    let invalid = Code::InvalidArgument;
    assert_eq!(code(create_container(&wire, "d", &[("key", &long)]).await), invalid);
    let image = |labels: &[(&str, &str)]| CreateImageRequest {
        image: Some(image("i", &digest_of("absent"), labels)),
        ..Default::default()
    };
    assert_eq!(code(wire.images().create(in_test(image(&[("key", &long)]))).await), invalid);
    assert_eq!(code(wire.prepare("native", "k", "", &[("key", &long)]).await), invalid);
    let digest = wire.blob("hello", &[]).await;
    let info = Some(Info { digest, labels: pairs(&[("key", &long)]), ..Default::default() });
    let request = UpdateRequest { info, update_mask: None };
    assert_eq!(code(wire.content().update(in_test(request)).await), invalid);
    wire.lease("leases do not check", &[("key", &long)]).await;
    assert_eq!(code(create_container(&wire, "d", &[("", "value")]).await), Code::Unknown);
    assert_eq!(code(wire.images().create(in_test(image(&[("", "value")]))).await), Code::Unknown);
    assert_eq!(code(wire.prepare("native", "k", "", &[("", "value")]).await), Code::Unknown);
}

#[tokio::test]
async fn an_empty_snapshot_key_is_unknown() {
    root!();
    let wire = Wire::start();
    let text = "bucket name required";
    refused(wire.prepare("native", "", "", &[]).await, Code::Unknown, text);
    wire.prepare("native", "k", "", &[]).await.unwrap();
    refused(wire.commit("native", "", "k", &[]).await, Code::Unknown, text);
    wire.lease("l", &[]).await;
    refused(wire.hold("l", "snapshots/", "k").await, Code::Unknown, text);
}

#[tokio::test]
async fn lists_come_in_byte_order() {
    root!();
    let wire = Wire::start();
    for id in ["b", "a", "a.b", "B", "a1", "aa"] {
        create_container(&wire, id, &[]).await.unwrap();
        wire.image(id, &digest_of("absent"), &[]).await;
        wire.lease(id, &[]).await;
        wire.prepare("native", id, "", &[]).await.unwrap();
        wire.blob(id, &[]).await;
    }
    let order = ["B", "a", "a.b", "a1", "aa", "b"];
    let all = wire.containers().list(in_test(Default::default())).await.unwrap().into_inner();
    let names: Vec<String> = all.containers.into_iter().map(|container| container.id).collect();
    assert_eq!(names, order);
    let all = wire.images().list(in_test(Default::default())).await.unwrap().into_inner();
    assert_eq!(all.images.into_iter().map(|image| image.name).collect::<Vec<_>>(), order);
    let all = wire.leases().list(in_test(Default::default())).await.unwrap().into_inner();
    assert_eq!(all.leases.into_iter().map(|lease| lease.id).collect::<Vec<_>>(), order);
    let request = ListSnapshotsRequest { snapshotter: "native".into(), ..Default::default() };
    let mut pages = wire.snapshots().list(in_test(request)).await.unwrap().into_inner();
    let mut names = Vec::new();
    while let Some(page) = pages.message().await.unwrap() {
        names.extend(page.info.into_iter().map(|info| info.name));
    }
    assert_eq!(names, order);
    let mut digests: Vec<String> = order.iter().map(|data| digest_of(data)).collect();
    digests.sort();
    let mut pages = wire.content().list(in_test(Default::default())).await.unwrap().into_inner();
    let mut names = Vec::new();
    while let Some(page) = pages.message().await.unwrap() {
        names.extend(page.info.into_iter().map(|info| info.digest));
    }
    assert_eq!(names, digests);
}

//! Leases.

use gantry_api::containerd::services::containers::v1::CreateContainerRequest;
use gantry_api::containerd::services::content::v1::AbortRequest;
use gantry_api::containerd::services::images::v1::CreateImageRequest;
use gantry_api::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, DeleteResourceRequest, Resource,
};
use gantry_api::containerd::services::snapshots::v1::{
    PrepareSnapshotRequest, RemoveSnapshotRequest, ViewSnapshotRequest,
};
use gantry_testkit::root;
use tonic::Code;

use crate::support::{Wire, code, container, digest_of, image, in_test, leased, pairs, refused};
use crate::write::{Writing, write};

#[tokio::test]
async fn a_resource_has_one_of_four_types_and_need_not_exist() {
    root!();
    let wire = Wire::start();
    wire.lease("l", &[]).await;
    let digest = digest_of("absent");
    wire.hold("l", "content", &digest).await.unwrap();
    let kinds = ["ingests", "snapshots/native", "snapshots/no such snapshotter", "images"];
    // In 1.6 leases hold no images.
    let kinds = if wire.since_2() { &kinds[..] } else { &kinds[..3] };
    for kind in kinds {
        wire.hold("l", kind, "absent").await.unwrap();
        wire.hold("l", kind, "absent").await.expect("adding twice is right");
    }
    assert_eq!(wire.held("l").await.len(), 1 + kinds.len());
    assert_eq!(code(wire.hold("l", "content", "no digest").await), Code::InvalidArgument);
    for kind in ["containers", "", "sandboxes/a"] {
        assert_eq!(code(wire.hold("l", kind, "x").await), Code::Unimplemented, "{kind:?}");
    }
    for kind in ["content/x", "snapshots", "snapshots/a/b"] {
        assert_eq!(code(wire.hold("l", kind, &digest).await), Code::InvalidArgument, "{kind:?}");
    }
    refused(wire.hold("l", "snapshots/", "k").await, Code::Unknown, "bucket name required");
    assert_eq!(code(wire.hold("no such lease", "images", "x").await), Code::NotFound);
}

#[tokio::test]
async fn deleting_a_resource_that_is_not_there_is_right() {
    root!();
    let wire = Wire::start();
    wire.lease("l", &[]).await;
    let resource = Some(Resource { id: "absent".into(), r#type: "ingests".into() });
    let request = DeleteResourceRequest { id: "l".into(), resource };
    wire.leases().delete_resource(in_test(request)).await.unwrap();
}

#[tokio::test]
async fn an_absent_resource_is_named() {
    root!();
    let wire = Wire::start();
    if wire.daemon.program().is_containerd() {
        return; // It ends there.
    }
    wire.lease("l", &[]).await;
    let request = AddResourceRequest { id: "l".into(), resource: None };
    refused(wire.leases().add_resource(in_test(request)).await, Code::InvalidArgument, "resource");
    let request = DeleteResourceRequest { id: "l".into(), resource: None };
    refused(wire.leases().delete_resource(in_test(request)).await, Code::InvalidArgument, "resource");
}

#[tokio::test]
async fn ids_and_labels_of_leases_are_not_checked() {
    root!();
    let wire = Wire::start();
    let long = "x".repeat(5000);
    for id in ["a b", "../..", "line\nbreak", &"i".repeat(300)] {
        wire.lease(id, &[("long", &long), ("empty", "")]).await;
        wire.release(id).await;
    }
    let request = CreateRequest { id: "a".into(), labels: pairs(&[("empty", ""), ("x", "y")]) };
    let lease = wire.leases().create(in_test(request)).await.unwrap().into_inner().lease.unwrap();
    assert_eq!(lease.id, "a");
    let all = wire.leases().list(in_test(Default::default())).await.unwrap().into_inner().leases;
    assert_eq!(all[0].labels, pairs(&[("x", "y")]), "an empty value is not stored");
}

#[tokio::test]
async fn a_header_that_names_no_lease_is_refused_by_content_and_snapshots_only() {
    root!();
    let wire = Wire::start();
    let absent = Writing::open_by(&wire, |messages| leased("none", messages), write("r", 0, "a")).await;
    assert_eq!(code(absent), Code::NotFound);
    let (snapshotter, key) = ("native".to_owned(), "k".to_owned());
    let request =
        PrepareSnapshotRequest { snapshotter: snapshotter.clone(), key: key.clone(), ..Default::default() };
    assert_eq!(code(wire.snapshots().prepare(leased("none", request)).await), Code::NotFound);
    let request = ViewSnapshotRequest { snapshotter, key, ..Default::default() };
    assert_eq!(code(wire.snapshots().view(leased("none", request)).await), Code::NotFound);
    assert!(!wire.has_snapshot("k").await);
    let request = CreateContainerRequest { container: Some(container("c", &[])) };
    wire.containers().create(leased("none", request)).await.unwrap();
    let image = Some(image("i", &digest_of("absent"), &[]));
    let request = CreateImageRequest { image, ..Default::default() };
    wire.images().create(leased("none", request)).await.unwrap();
}

#[tokio::test]
async fn a_lease_takes_what_is_made_under_it_but_containers() {
    root!();
    let wire = Wire::start();
    wire.lease("l", &[]).await;
    let request = CreateContainerRequest { container: Some(container("c", &[])) };
    wire.containers().create(leased("l", request)).await.unwrap();
    assert!(wire.held("l").await.is_empty());
    let made = Some(image("i", &digest_of("absent"), &[]));
    let request = CreateImageRequest { image: made, ..Default::default() };
    wire.images().create(leased("l", request)).await.unwrap();
    // In 1.6 leases hold no images.
    let images: &[&str] = if wire.since_2() { &["images i"] } else { &[] };
    assert_eq!(wire.held("l").await, images);

    wire.lease("m", &[]).await;
    let prepare =
        PrepareSnapshotRequest { snapshotter: "native".into(), key: "k".into(), ..Default::default() };
    wire.snapshots().prepare(leased("m", prepare)).await.unwrap();
    assert_eq!(wire.held("m").await, ["snapshots/native k"]);
    let remove = RemoveSnapshotRequest { snapshotter: "native".into(), key: "k".into() };
    wire.snapshots().remove(leased("m", remove)).await.unwrap();
    assert!(wire.held("m").await.is_empty(), "removed under the lease, it is dropped from it");

    wire.lease("n", &[]).await;
    let (writing, _) =
        Writing::open_by(&wire, |messages| leased("n", messages), write("r", 0, "a")).await.unwrap();
    writing.close().await;
    assert_eq!(wire.held("n").await, ["ingests r"]);
    wire.content().abort(leased("n", AbortRequest { r#ref: "r".into() })).await.unwrap();
    assert!(wire.held("n").await.is_empty());
    let digest = wire.blob_by(|messages| leased("n", messages), "hello", &[]).await;
    assert!(wire.held("n").await.contains(&format!("content {digest}")));
}

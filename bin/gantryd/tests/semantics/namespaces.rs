//! Namespaces.

use std::collections::BTreeMap;

use gantry_api::containerd::services::leases::v1::{CreateRequest, ListRequest};
use gantry_api::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, DeleteNamespaceRequest, GetNamespaceRequest, ListNamespacesRequest, Namespace,
    UpdateNamespaceRequest,
};
use gantry_api::containerd::services::snapshots::v1::{PrepareSnapshotRequest, RemoveSnapshotRequest};
use gantry_testkit::root;
use tonic::{Code, Request, Status};

use crate::support::{TEST, Wire, code, digest_of, mask, pairs, refused, within};
use crate::write::{Writing, write};

/// A request as it is; 1.6 publishes its event in the header's namespace, and fails without one.
fn plain<T>(wire: &Wire, message: T) -> Request<T> {
    if wire.since_2() { Request::new(message) } else { within("header", message) }
}

async fn get(wire: &Wire, name: &str) -> BTreeMap<String, String> {
    let answer = wire.namespaces().get(GetNamespaceRequest { name: name.into() }).await.unwrap();
    answer.into_inner().namespace.unwrap().labels
}

async fn create(wire: &Wire, name: &str, labels: &[(&str, &str)]) -> Result<Namespace, Status> {
    let namespace = Some(Namespace { name: name.into(), labels: pairs(labels) });
    let answer = wire.namespaces().create(plain(wire, CreateNamespaceRequest { namespace })).await?;
    Ok(answer.into_inner().namespace.unwrap())
}

async fn update(
    wire: &Wire,
    name: &str,
    labels: &[(&str, &str)],
    paths: &[&str],
) -> Result<Option<Namespace>, Status> {
    let namespace = Some(Namespace { name: name.into(), labels: pairs(labels) });
    let update_mask = if paths.is_empty() { None } else { mask(paths) };
    let request = UpdateNamespaceRequest { namespace, update_mask };
    Ok(wire.namespaces().update(plain(wire, request)).await?.into_inner().namespace)
}

async fn delete(wire: &Wire, name: &str) -> Result<(), Status> {
    wire.namespaces().delete(plain(wire, DeleteNamespaceRequest { name: name.into() })).await.map(drop)
}

#[tokio::test]
async fn an_unknown_namespace_is_answered_with_empty_labels() {
    root!();
    let wire = Wire::start();
    for name in ["absent", "", "a--b", "../..", &"n".repeat(300)] {
        assert!(get(&wire, name).await.is_empty(), "{name:?}");
    }
    let all = wire.namespaces().list(ListNamespacesRequest::default()).await.unwrap().into_inner();
    assert!(all.namespaces.iter().all(|namespace| namespace.name != "absent"));
}

#[tokio::test]
async fn an_update_replaces_all_labels_or_those_its_mask_names() {
    root!();
    let wire = Wire::start();
    create(&wire, TEST, &[("a", "1"), ("b", "1")]).await.unwrap();
    let answer = update(&wire, TEST, &[("a", "2"), ("b", "2")], &["labels.a"]).await.unwrap();
    // 1.6 answers with an empty one.
    assert_eq!(answer, if wire.since_2() { None } else { Some(Namespace::default()) });
    assert_eq!(get(&wire, TEST).await, pairs(&[("a", "2"), ("b", "1")]));
    update(&wire, TEST, &[("a", "")], &["labels.a"]).await.unwrap();
    assert_eq!(get(&wire, TEST).await, pairs(&[("b", "1")]));
    update(&wire, TEST, &[("c", "3")], &[]).await.unwrap();
    assert_eq!(get(&wire, TEST).await, pairs(&[("c", "3")]));
    for path in ["labels", "name", "label.a"] {
        let answer = update(&wire, TEST, &[("d", "4")], &[path]).await;
        assert_eq!(code(answer), Code::InvalidArgument, "{path}");
    }
    let long = "x".repeat(4096);
    assert_eq!(code(update(&wire, TEST, &[("long", &long)], &[]).await), Code::Unknown);
    assert_eq!(code(update(&wire, TEST, &[("long", &long)], &["labels.long"]).await), Code::Unknown);
    assert_eq!(get(&wire, TEST).await, pairs(&[("c", "3")]));
    assert_eq!(code(create(&wire, "new", &[("long", &long)]).await), Code::InvalidArgument);
}

#[tokio::test]
async fn an_update_of_a_namespace_that_does_not_exist_works() {
    root!();
    let wire = Wire::start();
    update(&wire, "absent", &[("a", "1")], &[]).await.unwrap();
    assert_eq!(get(&wire, "absent").await, pairs(&[("a", "1")]));
}

#[tokio::test]
async fn create_answers_an_empty_label_back_and_does_not_store_it() {
    root!();
    let wire = Wire::start();
    let given = [("a", "1"), ("empty", "")];
    assert_eq!(create(&wire, TEST, &given).await.unwrap().labels, pairs(&given));
    assert_eq!(get(&wire, TEST).await, pairs(&[("a", "1")]));
    assert_eq!(code(create(&wire, TEST, &[]).await), Code::AlreadyExists);
}

#[tokio::test]
async fn a_namespace_with_containers_images_blobs_or_snapshots_is_not_deleted() {
    root!();
    let wire = Wire::start();
    create(&wire, "empty", &[]).await.unwrap();
    delete(&wire, "empty").await.unwrap();
    assert_eq!(code(delete(&wire, "empty").await), Code::NotFound);

    let prepare =
        PrepareSnapshotRequest { snapshotter: "native".into(), key: "k".into(), ..Default::default() };
    wire.snapshots().prepare(within("snapshots", prepare)).await.unwrap();
    assert_eq!(code(delete(&wire, "snapshots").await), Code::FailedPrecondition);
    let remove = RemoveSnapshotRequest { snapshotter: "native".into(), key: "k".into() };
    wire.snapshots().remove(within("snapshots", remove)).await.unwrap();
    delete(&wire, "snapshots").await.unwrap();

    let container = Some(crate::support::container("c", &[]));
    let request = gantry_api::containerd::services::containers::v1::CreateContainerRequest { container };
    wire.containers().create(within("containers", request)).await.unwrap();
    let image = Some(crate::support::image("i", &digest_of("absent"), &[]));
    let request =
        gantry_api::containerd::services::images::v1::CreateImageRequest { image, ..Default::default() };
    wire.images().create(within("images", request)).await.unwrap();
    wire.blob_by(|messages| within("blobs", messages), "hello", &[]).await;
    for name in ["containers", "images", "blobs"] {
        assert_eq!(code(delete(&wire, name).await), Code::FailedPrecondition, "{name}");
    }
}

#[tokio::test]
async fn leases_and_ingests_go_with_their_namespace() {
    root!();
    let wire = Wire::start();
    let lease = CreateRequest { id: "l".into(), ..Default::default() };
    wire.leases().create(within(TEST, lease)).await.unwrap();
    Writing::open(&wire, write("r", 0, "a")).await.unwrap().0.close().await;
    delete(&wire, TEST).await.unwrap();
    let all = wire.leases().list(within(TEST, ListRequest::default())).await.unwrap();
    assert!(all.into_inner().leases.is_empty());
    let all = wire.content().list_statuses(within(TEST, Default::default())).await.unwrap();
    assert!(all.into_inner().statuses.is_empty());
}

#[tokio::test]
async fn an_absent_namespace_is_named() {
    root!();
    let wire = Wire::start();
    if wire.daemon.program().is_containerd() {
        return; // It ends there.
    }
    let create = wire.namespaces().create(CreateNamespaceRequest::default()).await;
    refused(create, Code::InvalidArgument, "\"namespace\"");
    let update = wire.namespaces().update(UpdateNamespaceRequest::default()).await;
    refused(update, Code::InvalidArgument, "\"namespace\"");
}

//! Events.

use gantry_api::Timestamp;
use gantry_api::containerd::events::{SnapshotCommit, SnapshotPrepare, SnapshotRemove};
use gantry_api::containerd::services::content::v1::{Info as ContentInfo, UpdateRequest};
use gantry_api::containerd::services::events::v1::{ForwardRequest, SubscribeRequest};
use gantry_api::containerd::services::images::v1::{
    DeleteImageRequest, ImageCreate, ImageDelete, UpdateImageRequest,
};
use gantry_api::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, DeleteNamespaceRequest, Namespace, UpdateNamespaceRequest,
};
use gantry_api::containerd::services::snapshots::v1::{
    Info, RemoveSnapshotRequest, UpdateSnapshotRequest, ViewSnapshotRequest,
};
use gantry_api::containerd::types::Envelope;
use gantry_testkit::root;
use prost::Message as _;
use tonic::{Code, Status};

use crate::subscription::{Subscription, publish};
use crate::support::{GO_ZERO, TEST, Wire, any, code, digest_of, image, in_test, pairs, refused, within};

#[tokio::test]
async fn a_topic_is_a_path_of_identifiers() {
    root!();
    let wire = Wire::start();
    for topic in ["", "/", "a", "a/b", "/a/", "//", "/a//b", "/a b", "/a--b", "/.a", "/a_"] {
        assert_eq!(code(publish(&wire, TEST, topic).await), Code::InvalidArgument, "{topic:?}");
    }
    for topic in ["/a", "/a/b/c", "/a.b/c-d/e_f"] {
        publish(&wire, TEST, topic).await.unwrap();
    }
}

async fn forward(wire: &Wire, envelope: Envelope) -> Result<(), Status> {
    let request = ForwardRequest { envelope: Some(envelope) };
    wire.events().forward(within("header", request)).await.map(drop)
}

#[tokio::test]
async fn a_forwarded_envelope_needs_no_time_and_keeps_its_namespace() {
    root!();
    let wire = Wire::start();
    let mut seen = Subscription::start(&wire, &[]).await;
    let envelope = |timestamp| Envelope {
        timestamp,
        namespace: "envelope".into(),
        topic: "/a/b".into(),
        event: Some(any("forwarded")),
    };
    let epoch = Timestamp { seconds: 0, nanos: 0 };
    let absent = forward(&wire, envelope(None)).await;
    if wire.since_2() {
        absent.unwrap();
    } else {
        // 1.6 reads Go's zero time from nothing.
        assert_eq!(code(absent), Code::InvalidArgument);
    }
    forward(&wire, envelope(Some(epoch))).await.unwrap();
    assert_eq!(code(forward(&wire, envelope(Some(GO_ZERO))).await), Code::InvalidArgument);
    let bare = Envelope { namespace: String::new(), ..envelope(Some(epoch)) };
    assert_eq!(code(forward(&wire, bare).await), Code::InvalidArgument);
    let count = if wire.since_2() { 2 } else { 1 };
    let events = seen.so_far(&wire).await;
    assert_eq!(events.len(), count, "{events:?}");
    for event in events {
        assert_eq!((&*event.namespace, event.event), ("envelope", Some(any("forwarded"))));
    }
}

#[tokio::test]
async fn events_of_images_have_a_type_of_their_own() {
    root!();
    let wire = Wire::start();
    let mut seen = Subscription::start(&wire, &[]).await;
    let digest = digest_of("absent");
    wire.image("i", &digest, &[("a", "1")]).await;
    let request =
        UpdateImageRequest { image: Some(image("i", &digest, &[("b", "1")])), ..Default::default() };
    wire.images().update(in_test(request)).await.unwrap();
    let request = DeleteImageRequest { name: "i".into(), ..Default::default() };
    wire.images().delete(in_test(request)).await.unwrap();
    wire.container("c", &[]).await;
    let events = seen.so_far(&wire).await;
    let told: Vec<(&str, &str)> =
        events.iter().map(|event| (&*event.topic, &*event.event.as_ref().unwrap().type_url)).collect();
    let wanted = [
        ("/images/create", "containerd.services.images.v1.ImageCreate"),
        ("/images/update", "containerd.services.images.v1.ImageUpdate"),
        ("/images/delete", "containerd.services.images.v1.ImageDelete"),
        ("/containers/create", "containerd.events.ContainerCreate"),
    ];
    assert_eq!(told, wanted);
    let payload = |at: usize| &*events[at].event.as_ref().unwrap().value;
    let created = ImageCreate { name: "i".into(), labels: pairs(&[("a", "1")]) };
    assert_eq!(ImageCreate::decode(payload(0)).unwrap(), created);
    assert_eq!(ImageDelete::decode(payload(2)).unwrap(), ImageDelete { name: "i".into() });
}

#[tokio::test]
async fn events_of_snapshots_carry_the_snapshotter_and_a_view_has_none() {
    root!();
    let wire = Wire::start();
    let mut seen = Subscription::start(&wire, &[]).await;
    wire.prepare("native", "k", "", &[]).await.unwrap();
    wire.commit("native", "n", "k", &[]).await.unwrap();
    let native = || "native".to_owned();
    let request = ViewSnapshotRequest {
        snapshotter: native(),
        key: "v".into(),
        parent: "n".into(),
        ..Default::default()
    };
    wire.snapshots().view(in_test(request)).await.unwrap();
    let request = RemoveSnapshotRequest { snapshotter: native(), key: "v".into() };
    wire.snapshots().remove(in_test(request)).await.unwrap();
    let events = seen.so_far(&wire).await;
    let topics: Vec<&str> = events.iter().map(|event| &*event.topic).collect();
    assert_eq!(topics, ["/snapshot/prepare", "/snapshot/commit", "/snapshot/remove"]);
    let payload = |at: usize| &*events[at].event.as_ref().unwrap().value;
    // 1.6 has no such field.
    let snapshotter = if wire.since_2() { native() } else { String::new() };
    let prepared =
        SnapshotPrepare { key: "k".into(), snapshotter: snapshotter.clone(), ..Default::default() };
    assert_eq!(SnapshotPrepare::decode(payload(0)).unwrap(), prepared);
    let committed = SnapshotCommit { key: "k".into(), name: "n".into(), snapshotter: snapshotter.clone() };
    assert_eq!(SnapshotCommit::decode(payload(1)).unwrap(), committed);
    let removed = SnapshotRemove { key: "v".into(), snapshotter };
    assert_eq!(SnapshotRemove::decode(payload(2)).unwrap(), removed);
}

#[tokio::test]
async fn labels_of_content_and_snapshots_and_leases_send_nothing() {
    root!();
    let wire = Wire::start();
    let digest = wire.blob("hello", &[]).await;
    wire.prepare("native", "k", "", &[]).await.unwrap();
    let mut seen = Subscription::start(&wire, &[]).await;
    let info = Some(ContentInfo { digest, labels: pairs(&[("a", "1")]), ..Default::default() });
    let request = UpdateRequest { info, update_mask: None };
    wire.content().update(in_test(request)).await.unwrap();
    let info = Some(Info { name: "k".into(), labels: pairs(&[("a", "1")]), ..Default::default() });
    let request = UpdateSnapshotRequest { snapshotter: "native".into(), info, update_mask: None };
    wire.snapshots().update(in_test(request)).await.unwrap();
    wire.lease("l", &[]).await;
    wire.hold("l", "snapshots/native", "k").await.unwrap();
    wire.hold("l", "ingests", "r").await.unwrap();
    assert_eq!(seen.topics(&wire).await, [""; 0]);
}

#[tokio::test]
async fn events_of_namespaces_are_in_the_namespace_of_the_request() {
    root!();
    let wire = Wire::start();
    let mut seen = Subscription::start(&wire, &[]).await;
    let namespace = || Some(Namespace { name: "new".into(), ..Default::default() });
    let mut namespaces = wire.namespaces();
    let request = CreateNamespaceRequest { namespace: namespace() };
    namespaces.create(within("header", request)).await.unwrap();
    let request = UpdateNamespaceRequest { namespace: namespace(), update_mask: None };
    namespaces.update(within("header", request)).await.unwrap();
    let request = DeleteNamespaceRequest { name: "new".into() };
    namespaces.delete(within("header", request)).await.unwrap();
    // 1.6 says the header's, but for the last.
    let own = if wire.since_2() { "new" } else { "header" };
    let wanted = [
        format!("{own} /namespaces/create"),
        format!("{own} /namespaces/update"),
        "new /namespaces/delete".to_owned(),
    ];
    assert_eq!(seen.topics(&wire).await, wanted);
}

#[tokio::test]
async fn a_subscriber_sees_all_namespaces() {
    root!();
    let wire = Wire::start();
    let mut seen = Subscription::start(&wire, &[]).await;
    publish(&wire, "one", "/a").await.unwrap();
    publish(&wire, "two", "/b").await.unwrap();
    assert_eq!(seen.topics(&wire).await, ["one /a", "two /b"]);
}

#[tokio::test]
async fn a_bad_filter_of_a_subscription_is_unknown() {
    root!();
    let wire = Wire::start();
    let request = SubscribeRequest { filters: vec!["topic==\"/a\"".into(), "a/b==c".into()] };
    let ended = match wire.events().subscribe(request).await {
        Ok(answers) => answers.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    };
    assert_eq!(code(ended), Code::Unknown);
}

#[tokio::test]
async fn an_absent_envelope_is_named() {
    root!();
    let wire = Wire::start();
    if wire.daemon.program().is_containerd() {
        return; // It ends there.
    }
    let answer = wire.events().forward(in_test(ForwardRequest::default())).await;
    refused(answer, Code::InvalidArgument, "\"envelope\"");
}

//! Our own service: who keeps what, told by the daemon that keeps it.

use gantry_api::containerd::services::content::v1::DeleteContentRequest;
use gantry_api::containerd::services::images::v1::CreateImageRequest;
use gantry_api::gantry::services::maintenance::v1 as pb;
use gantry_api::gantry::services::maintenance::v1::maintenance_client::MaintenanceClient;
use gantry_testkit::root;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::support::{Wire, code, image, in_test, within};

fn maintenance(wire: &Wire) -> MaintenanceClient<Channel> {
    MaintenanceClient::new(wire.channel.clone())
}

fn of(kind: &str, name: &str) -> pb::ExplainRequest {
    let object = pb::Object { kind: kind.into(), name: name.into(), ..Default::default() };
    pb::ExplainRequest { object: Some(object) }
}

async fn explain(wire: &Wire, kind: &str, name: &str) -> pb::ExplainResponse {
    maintenance(wire).explain(in_test(of(kind, name))).await.unwrap().into_inner()
}

async fn would_go(wire: &Wire, request: Request<pb::WhatWouldGoRequest>) -> Vec<(String, u64)> {
    let mut answers = maintenance(wire).what_would_go(request).await.unwrap().into_inner();
    let mut found = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let objects = answer.objects.into_iter();
        found.extend(objects.map(|one| (one.object.unwrap().name, one.freed_bytes)));
    }
    found
}

#[tokio::test]
async fn leases_labels_and_images_are_told_as_holders_and_what_has_none_goes() {
    root!();
    let wire = Wire::start();
    if wire.daemon.program().is_containerd() {
        assert_eq!(code(maintenance(&wire).collect(pb::CollectRequest {}).await), Code::Unimplemented);
        return;
    }
    let layer = wire.blob("layer", &[]).await;
    let manifest = wire.blob("manifest", &[("containerd.io/gc.ref.content.l.0", &layer)]).await;
    assert_eq!(would_go(&wire, in_test(pb::WhatWouldGoRequest {})).await.len(), 2);
    let request = CreateImageRequest { image: Some(image("i", &manifest, &[])), ..Default::default() };
    wire.images().create(in_test(request)).await.unwrap();
    wire.lease("l", &[("containerd.io/gc.expire", "2100-01-01T00:00:00Z")]).await;
    wire.hold("l", "content", &layer).await.unwrap();

    let explained = explain(&wire, "content", &layer).await;
    assert_eq!(explained.fate(), pb::Fate::Kept);
    let [lease, over_image] = explained.chains.as_slice() else { panic!("two chains: {explained:?}") };
    assert_eq!(lease.holders[0].edge(), pb::Edge::LeaseResource);
    let root = lease.root.as_ref().unwrap();
    assert_eq!((root.reason(), root.expires.unwrap().seconds), (pb::RootReason::Lease, 4_102_444_800));
    let names: Vec<&str> =
        over_image.holders.iter().map(|holder| holder.object.as_ref().unwrap().name.as_str()).collect();
    assert_eq!(names, [manifest.as_str(), "i"]);
    assert_eq!(over_image.holders[0].label, "containerd.io/gc.ref.content.l.0");
    assert_eq!(over_image.root.as_ref().unwrap().reason(), pb::RootReason::Image);

    let loose = wire.blob("loose", &[]).await;
    assert_eq!(explain(&wire, "content", &loose).await.fate(), pb::Fate::Collected);
    assert_eq!(would_go(&wire, in_test(pb::WhatWouldGoRequest {})).await, [(loose.clone(), 5)]);
    assert!(would_go(&wire, within("other", pb::WhatWouldGoRequest {})).await.is_empty());
    // Its record goes; its file waits for the collection, and belongs to nobody.
    wire.content().delete(in_test(DeleteContentRequest { digest: loose.clone() })).await.unwrap();
    assert!(would_go(&wire, in_test(pb::WhatWouldGoRequest {})).await.is_empty());
    assert_eq!(would_go(&wire, Request::new(pb::WhatWouldGoRequest {})).await, [(loose, 5)]);
    maintenance(&wire).collect(pb::CollectRequest {}).await.unwrap();
    assert!(would_go(&wire, Request::new(pb::WhatWouldGoRequest {})).await.is_empty());
}

#[tokio::test]
async fn questions_that_make_no_sense_are_refused() {
    root!();
    let wire = Wire::start();
    if wire.daemon.program().is_containerd() {
        return;
    }
    let mut client = maintenance(&wire);
    assert_eq!(code(client.explain(Request::new(of("image", "i"))).await), Code::FailedPrecondition);
    assert_eq!(code(client.explain(in_test(of("image", "i"))).await), Code::NotFound);
    assert_eq!(code(client.explain(in_test(of("layer", "i"))).await), Code::InvalidArgument);
    assert_eq!(code(client.explain(in_test(of("snapshot", "k"))).await), Code::InvalidArgument);
    assert_eq!(code(client.explain(in_test(pb::ExplainRequest::default())).await), Code::InvalidArgument);
    let long = "x".repeat(1 << 20);
    assert_eq!(code(client.explain(in_test(of("lease", &long))).await), Code::NotFound);
}

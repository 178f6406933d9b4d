//! Filters.

use gantry_api::containerd::services::containers::v1::ListContainersRequest;
use gantry_api::containerd::services::content::v1::{ListContentRequest, ListStatusesRequest};
use gantry_api::containerd::services::images::v1::{CreateImageRequest, Image, ListImagesRequest};
use gantry_api::containerd::services::introspection::v1::PluginsRequest;
use gantry_api::containerd::services::introspection::v1::introspection_client::IntrospectionClient;
use gantry_api::containerd::services::leases::v1::ListRequest;
use gantry_api::containerd::services::snapshots::v1::{ListSnapshotsRequest, ViewSnapshotRequest};
use gantry_api::containerd::types::Descriptor;
use gantry_testkit::root;
use tonic::{Code, Status};

use crate::subscription::{Subscription, publish};
use crate::support::{TEST, Wire, code, descriptor, digest_of, image, in_test, pairs};
use crate::write::{Writing, write};

fn owned(filters: &[&str]) -> Vec<String> {
    filters.iter().map(|filter| (*filter).to_owned()).collect()
}

async fn containers(wire: &Wire, filters: &[&str]) -> Result<Vec<String>, Status> {
    let request = in_test(ListContainersRequest { filters: owned(filters) });
    let all = wire.containers().list(request).await?.into_inner().containers;
    Ok(all.into_iter().map(|container| container.id).collect())
}

async fn images(wire: &Wire, filter: &str) -> usize {
    let request = in_test(ListImagesRequest { filters: owned(&[filter]) });
    wire.images().list(request).await.unwrap().into_inner().images.len()
}

async fn content(wire: &Wire, filter: &str) -> Result<usize, Status> {
    let request = in_test(ListContentRequest { filters: owned(&[filter]) });
    let mut pages = wire.content().list(request).await?.into_inner();
    let mut count = 0;
    while let Some(page) = pages.message().await? {
        count += page.info.len();
    }
    Ok(count)
}

async fn snapshots(wire: &Wire, filter: &str) -> Result<Vec<String>, Status> {
    let request = ListSnapshotsRequest { snapshotter: "native".into(), filters: owned(&[filter]) };
    let mut pages = wire.snapshots().list(in_test(request)).await?.into_inner();
    let mut found = Vec::new();
    while let Some(page) = pages.message().await? {
        found.extend(page.info.into_iter().map(|info| info.name));
    }
    Ok(found)
}

#[tokio::test]
async fn several_filters_are_any_of_them_and_an_empty_one_matches_everything() {
    root!();
    let wire = Wire::start();
    for id in ["c1", "c2", "c3"] {
        wire.container(id, &[]).await;
    }
    let all = ["c1", "c2", "c3"];
    assert_eq!(containers(&wire, &[]).await.unwrap(), all);
    assert_eq!(containers(&wire, &["id==c1", "id==c3"]).await.unwrap(), ["c1", "c3"]);
    assert_eq!(containers(&wire, &["id==c1,id==c3"]).await.unwrap(), [""; 0]);
    assert_eq!(containers(&wire, &["id==none", ""]).await.unwrap(), all);
    assert_eq!(code(containers(&wire, &["id==c1", "id=c1"]).await), Code::InvalidArgument);
    assert_eq!(code(containers(&wire, &["", "a/b==c"]).await), Code::InvalidArgument);
}

#[tokio::test]
async fn an_absent_field_differs_from_everything() {
    root!();
    let wire = Wire::start();
    wire.container("c1", &[("a", "1"), ("empty", "")]).await;
    wire.container("c2", &[]).await;
    for (filter, wanted) in [
        ("bogus!=1", &["c1", "c2"] as &[_]),
        ("bogus==1", &[]),
        ("bogus", &[]),
        ("labels.a!=1", &["c2"]),
        ("labels.a!=2", &["c1", "c2"]),
        ("labels.a", &["c1"]),
        ("labels.empty", &[]),
        ("labels.empty!=x", &["c1", "c2"]),
    ] {
        assert_eq!(containers(&wire, &[filter]).await.unwrap(), wanted, "{filter}");
    }
}

#[tokio::test]
async fn dots_join_a_label_and_other_signs_must_be_quoted() {
    root!();
    let wire = Wire::start();
    wire.container("c1", &[("with.dot", "x"), ("a-b", "y"), ("a/b", "z")]).await;
    wire.container("c2", &[]).await;
    for filter in [
        "labels.with.dot==x",
        "labels.\"with.dot\"==x",
        "labels.\"a-b\"==y",
        "labels.\"a/b\"==z",
        "labels.\"a/b\"",
    ] {
        assert_eq!(containers(&wire, &[filter]).await.unwrap(), ["c1"], "{filter}");
    }
    for filter in ["labels.a-b==y", "labels.a/b==z", "labels.a-b"] {
        assert_eq!(code(containers(&wire, &[filter]).await), Code::InvalidArgument, "{filter}");
    }
    for filter in ["id==c1==c2", "id==c1;", "id=='c1", "id~=("] {
        assert_eq!(containers(&wire, &[filter]).await.unwrap(), [""; 0], "{filter} parses");
    }
}

#[tokio::test]
async fn fields_that_are_not_adapted_match_nothing() {
    root!();
    let wire = Wire::start();
    let digest = wire.blob("hello", &[]).await;
    Writing::open(&wire, write("r", 0, "hello")).await.unwrap().0.close().await;
    let target = Descriptor { annotations: pairs(&[("x", "1")]), ..descriptor(&digest) };
    let target = Descriptor { media_type: "text/plain".into(), ..target };
    let made = Image { target: Some(target), ..image("i", &digest, &[]) };
    let request = CreateImageRequest { image: Some(made), ..Default::default() };
    wire.images().create(in_test(request)).await.unwrap();

    assert_eq!(content(&wire, &format!("digest=={digest}")).await.unwrap(), 1);
    assert_eq!(content(&wire, "size==5").await.unwrap(), 0);
    assert_eq!(images(&wire, "target.size==1").await, 0);
    assert_eq!(images(&wire, "name==i").await, 1);
    assert_eq!(images(&wire, &format!("target.digest=={digest}")).await, 1);
    assert_eq!(images(&wire, "target.mediatype==\"text/plain\"").await, 1);
    for filter in ["target.mediaType==\"text/plain\"", "target.media_type==\"text/plain\""] {
        assert_eq!(images(&wire, filter).await, 0, "{filter}");
    }
    assert_eq!(images(&wire, "annotations.x==1").await, 1);
    assert_eq!(images(&wire, "target.annotations.x==1").await, 0);
    for (filter, count) in [("ref==r", 1), ("offset==5", 0), ("total==0", 0), ("expected", 0)] {
        let request = in_test(ListStatusesRequest { filters: owned(&[filter]) });
        let all = wire.content().list_statuses(request).await.unwrap().into_inner().statuses;
        assert_eq!(all.len(), count, "{filter}");
    }
}

#[tokio::test]
async fn kinds_of_snapshots_are_active_view_and_committed() {
    root!();
    let wire = Wire::start();
    wire.prepare("native", "c", "", &[]).await.unwrap();
    wire.commit("native", "committed 1", "c", &[]).await.unwrap();
    wire.prepare("native", "active 1", "committed 1", &[]).await.unwrap();
    let request =
        ViewSnapshotRequest { snapshotter: "native".into(), key: "view 1".into(), ..Default::default() };
    wire.snapshots().view(in_test(request)).await.unwrap();
    for kind in ["active", "view", "committed"] {
        let found = snapshots(&wire, &format!("kind=={kind}")).await.unwrap();
        assert_eq!(found, [format!("{kind} 1")]);
    }
    for filter in ["kind==Active", "kind==1"] {
        assert_eq!(snapshots(&wire, filter).await.unwrap(), [""; 0], "{filter}");
    }
    assert_eq!(snapshots(&wire, "parent==\"committed 1\"").await.unwrap(), ["active 1"]);
}

#[tokio::test]
async fn a_bad_filter_fails_every_list() {
    root!();
    let wire = Wire::start();
    wire.container("c1", &[]).await;
    let bad = || owned(&["a/b==c"]);
    let invalid = Code::InvalidArgument;
    assert_eq!(code(containers(&wire, &["a/b==c"]).await), invalid);
    let request = ListImagesRequest { filters: bad() };
    assert_eq!(code(wire.images().list(in_test(request)).await), invalid);
    assert_eq!(code(content(&wire, "a/b==c").await), invalid);
    let request = ListStatusesRequest { filters: bad() };
    assert_eq!(code(wire.content().list_statuses(in_test(request)).await), invalid);
    let request = ListRequest { filters: bad() };
    assert_eq!(code(wire.leases().list(in_test(request)).await), invalid);
    // 1.6 has no code for this one, as for a missing namespace.
    let of_snapshots = if wire.since_2() { invalid } else { Code::Unknown };
    assert_eq!(code(snapshots(&wire, "a/b==c").await), of_snapshots);
    let request = PluginsRequest { filters: bad() };
    let mut introspection = IntrospectionClient::new(wire.channel.clone());
    assert_eq!(code(introspection.plugins(in_test(request)).await), invalid);
    let request = gantry_api::containerd::services::tasks::v1::MetricsRequest { filters: bad() };
    assert_eq!(code(wire.tasks().metrics(in_test(request)).await), Code::Unknown);
}

#[tokio::test]
async fn a_topic_must_be_quoted_to_be_equal() {
    root!();
    let wire = Wire::start();
    let unquoted = "topic==/images/create";
    for (filter, matches) in [
        (unquoted, false),
        ("topic==\"/images/create\"", true),
        ("topic~=/images/", true),
        ("topic~=|^/images/create$|", true),
        ("topic~=(", false),
        ("namespace==test", true),
        ("event.name==i", true),
    ] {
        if filter == unquoted && !wire.since_2() {
            continue; // 1.6 refuses it.
        }
        let mut seen = Subscription::start(&wire, &[filter]).await;
        wire.image("i", &digest_of("absent"), &[]).await;
        let request = gantry_api::containerd::services::images::v1::DeleteImageRequest {
            name: "i".into(),
            ..Default::default()
        };
        wire.images().delete(in_test(request)).await.unwrap();
        publish(&wire, TEST, "/other").await.unwrap();
        let topics = seen.topics(&wire).await;
        let created = topics.contains(&"test /images/create".to_owned());
        assert_eq!(created, matches, "{filter}: {topics:?}");
    }
}

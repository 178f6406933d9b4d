//! What expires, and labels that a collection reads less often.

use gantry_api::containerd::services::content::v1::StatusRequest;
use gantry_api::containerd::services::leases::v1::ListRequest;
use gantry_api::containerd::services::sandbox::v1::store_client::StoreClient;
use gantry_api::containerd::services::sandbox::v1::{StoreCreateRequest, StoreDeleteRequest};
use gantry_api::containerd::types::Sandbox;
use gantry_api::containerd::types::sandbox::Runtime;
use gantry_testkit::root;

use crate::support::{Wire, in_test, is_there, leased, pairs};
use crate::write::{Writing, write};

const PAST: &str = "2001-01-01T00:00:00Z";
const FUTURE: &str = "2101-01-01T00:00:00Z";
const EXPIRE: &str = "containerd.io/gc.expire";

/// A daemon that collects once by itself, and then only when it is asked to.
async fn start_resting() -> Wire {
    let wire = Wire::start_with(
        "[plugins.\"io.containerd.gc.v1.scheduler\"]\n  startup_delay = \"1h\"\n  pause_threshold = 0.0000001",
    );
    if wire.is_gantry() {
        // Ours collects by the clock too, and rests afterwards.
        wire.lease("first", &[(EXPIRE, PAST)]).await;
        for _ in 0..1000 {
            if leases(&wire).await.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(leases(&wire).await.is_empty());
    }
    wire
}

async fn leases(wire: &Wire) -> Vec<String> {
    let all = wire.leases().list(in_test(ListRequest::default())).await.unwrap().into_inner().leases;
    all.into_iter().map(|lease| lease.id).collect()
}

#[tokio::test]
async fn a_list_shows_an_expired_lease_until_the_next_collection() {
    root!();
    let wire = start_resting().await;
    wire.lease("expired", &[(EXPIRE, PAST)]).await;
    for _ in 0..3 {
        assert_eq!(leases(&wire).await, ["expired"]);
    }
    wire.collect().await;
    assert!(leases(&wire).await.is_empty());
}

#[tokio::test]
async fn ingests_of_an_expired_lease_go_with_it() {
    root!();
    let wire = start_resting().await;
    for (lease, expiry) in [("expired", PAST), ("running", FUTURE)] {
        wire.lease(lease, &[(EXPIRE, expiry)]).await;
        let message = write(lease, 0, "a");
        let (writing, _) =
            Writing::open_by(&wire, |messages| leased(lease, messages), message).await.unwrap();
        writing.close().await;
    }
    let has = async |r#ref: &str| {
        is_there(wire.content().status(in_test(StatusRequest { r#ref: r#ref.into() })).await)
    };
    assert!(has("expired").await && has("running").await);
    wire.collect().await;
    assert!(!has("expired").await);
    assert!(has("running").await);
}

#[tokio::test]
async fn content_and_snapshots_are_kept_until_they_expire() {
    root!();
    let wire = Wire::start();
    let blob = wire.blob("kept", &[(EXPIRE, FUTURE)]).await;
    wire.prepare("native", "kept", "", &[(EXPIRE, FUTURE)]).await.unwrap();
    let gone = wire.blob("gone", &[(EXPIRE, PAST)]).await;
    wire.prepare("native", "gone", "", &[(EXPIRE, PAST)]).await.unwrap();
    let never = wire.blob("never", &[(EXPIRE, "no time")]).await;
    wire.collect().await;
    // containerd says so and does not do it: it reads the label of leases and images only.
    assert_eq!(wire.has_blob(&blob).await, wire.is_gantry());
    assert_eq!(wire.has_snapshot("kept").await, wire.is_gantry());
    assert!(!wire.has_blob(&gone).await && !wire.has_snapshot("gone").await && !wire.has_blob(&never).await);
}

#[tokio::test]
async fn a_flat_lease_keeps_an_images_target_alone() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return; // In 1.6 leases hold no images.
    }
    let layer = wire.blob("layer", &[]).await;
    let target = wire.blob("target", &[("containerd.io/gc.ref.content.l.0", &layer)]).await;
    wire.image("i", &target, &[(EXPIRE, PAST)]).await;
    wire.lease("flat", &[("containerd.io/gc.flat", "1")]).await;
    wire.hold("flat", "images", "i").await.unwrap();
    wire.lease("outer", &[]).await;
    wire.collect().await;
    assert!(wire.has_blob(&target).await && !wire.has_blob(&layer).await);
}

#[tokio::test]
async fn a_sandbox_keeps_what_its_labels_refer_to() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let blob = wire.blob("blob", &[]).await;
    wire.prepare("native", "s", "", &[]).await.unwrap();
    let sandbox = Sandbox {
        sandbox_id: "s".into(),
        runtime: Some(Runtime { name: "io.containerd.runc.v2".into(), options: None }),
        labels: pairs(&[
            ("containerd.io/gc.ref.content.x", &blob),
            ("containerd.io/gc.ref.snapshot.native", "s"),
        ]),
        ..Default::default()
    };
    let mut store = StoreClient::new(wire.channel.clone());
    store.create(in_test(StoreCreateRequest { sandbox: Some(sandbox) })).await.unwrap();
    wire.collect().await;
    assert!(wire.has_blob(&blob).await && wire.has_snapshot("s").await);
    store.delete(in_test(StoreDeleteRequest { sandbox_id: "s".into() })).await.unwrap();
    wire.collect().await;
    assert!(!wire.has_blob(&blob).await && !wire.has_snapshot("s").await);
}

#[tokio::test]
async fn a_condition_keeps_its_bearer_while_a_snapshot_was_used_lately() {
    root!();
    let wire = Wire::start();
    if !wire.is_gantry() {
        return; // In containerd since 2.3.
    }
    let used = |at: &str| {
        [("containerd.io/gc.cond.value-usedat", at.to_owned()), ("containerd.io/gc.root", "x".into())]
    };
    for (key, at) in [("old", PAST), ("fresh", FUTURE)] {
        let labels = used(at);
        let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
        wire.prepare("native", key, "", &labels).await.unwrap();
    }
    let mut wrong = Vec::new();
    for (value, stays) in [
        ("usedat<720h|fresh", true),
        ("usedat<720h|old", false),
        ("usedat>720h|old", true),
        ("usedat>720h|fresh", false),
        ("usedat<1s,usedat>1h|old", true),
        ("other=1,usedat<1h|fresh", true),
        // Only less and more are known; the others are no conditions.
        ("usedat=1h|fresh", false),
        ("usedat!=1h|fresh", false),
        ("usedat<=720h|fresh", false),
        ("usedat>=1s|old", false),
        ("usedat<720h", false),
        ("usedat<soon|fresh", false),
        ("usedat<720h|absent", false),
    ] {
        let blob = wire.blob(value, &[("containerd.io/gc.cond.snapshot.native/x", value)]).await;
        wrong.push((value, stays, blob));
    }
    wire.image(
        "i",
        &wrong[0].2,
        &[(EXPIRE, PAST), ("containerd.io/gc.cond.snapshot.native", "usedat<1h|fresh")],
    )
    .await;
    wire.image(
        "j",
        &wrong[0].2,
        &[(EXPIRE, PAST), ("containerd.io/gc.cond.snapshot.native", "usedat<1h|old")],
    )
    .await;
    wire.collect().await;
    for (value, stays, blob) in wrong {
        assert_eq!(wire.has_blob(&blob).await, stays, "{value}");
    }
    let images = wire.images().list(in_test(Default::default())).await.unwrap().into_inner().images;
    assert_eq!(images.into_iter().map(|image| image.name).collect::<Vec<_>>(), ["i"]);
}

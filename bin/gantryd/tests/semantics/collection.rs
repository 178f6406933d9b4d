//! What a collection keeps and what it takes.

use gantry_api::containerd::services::content::v1::StatusRequest;
use gantry_api::containerd::services::images::v1::{DeleteImageRequest, GetImageRequest};
use gantry_api::containerd::services::leases::v1::ListRequest;
use gantry_testkit::root;

use crate::support::{Wire, digest_of, in_test, is_there, leased};
use crate::write::{Writing, write};

const PAST: &str = "2001-01-01T00:00:00Z";
const FUTURE: &str = "2101-01-01T00:00:00Z";
const EXPIRE: &str = "containerd.io/gc.expire";
const FLAT: &str = "containerd.io/gc.flat";
const ROOT: &str = "containerd.io/gc.root";

/// A committed snapshot of the snapshotter `native`.
async fn snapshot(wire: &Wire, name: &str, parent: &str, labels: &[(&str, &str)]) {
    // One that has not been committed yet would be collected as well.
    wire.prepare("native", "to commit", parent, &[]).await.unwrap();
    wire.commit("native", name, "to commit", labels).await.unwrap();
}

async fn has_lease(wire: &Wire, id: &str) -> bool {
    let all = wire.leases().list(in_test(ListRequest::default())).await.unwrap().into_inner().leases;
    all.iter().any(|lease| lease.id == id)
}

async fn has_image(wire: &Wire, name: &str) -> bool {
    is_there(wire.images().get(in_test(GetImageRequest { name: name.into() })).await)
}

async fn has_ingest(wire: &Wire, r#ref: &str) -> bool {
    is_there(wire.content().status(in_test(StatusRequest { r#ref: r#ref.into() })).await)
}

#[tokio::test]
async fn a_lease_keeps_what_its_resources_reference_unless_it_is_flat() {
    root!();
    let wire = Wire::start();
    let config = wire.blob("config", &[]).await;
    let manifest = wire.blob("manifest", &[("containerd.io/gc.ref.content.config", &config)]).await;
    let other = wire.blob("other", &[]).await;
    wire.lease("deep", &[]).await;
    wire.hold("deep", "content", &manifest).await.unwrap();
    wire.lease("flat", &[(FLAT, "any value")]).await;
    wire.hold("flat", "content", &manifest).await.unwrap();
    wire.collect().await;
    assert!(wire.has_blob(&manifest).await && wire.has_blob(&config).await);
    assert!(!wire.has_blob(&other).await);
    wire.release("deep").await;
    assert!(wire.has_blob(&manifest).await, "the flat lease keeps its resource");
    assert!(!wire.has_blob(&config).await, "but not what that references");
    wire.release("flat").await;
    assert!(!wire.has_blob(&manifest).await);
}

#[tokio::test]
async fn a_flat_lease_keeps_the_parents_of_a_snapshot() {
    root!();
    let wire = Wire::start();
    snapshot(&wire, "parent", "", &[]).await;
    snapshot(&wire, "child", "parent", &[]).await;
    snapshot(&wire, "other", "parent", &[]).await;
    wire.lease("flat", &[(FLAT, "1")]).await;
    wire.hold("flat", "snapshots/native", "child").await.unwrap();
    wire.collect().await;
    assert!(wire.has_snapshot("child").await && wire.has_snapshot("parent").await);
    assert!(!wire.has_snapshot("other").await);
}

#[tokio::test]
async fn an_expired_lease_goes_with_its_resources() {
    root!();
    let wire = Wire::start();
    // The expired one comes last: it may be collected at any time, with all that nothing holds.
    for (lease, expiry) in [("future", FUTURE), ("no time", "tomorrow"), ("past", PAST)] {
        let digest = wire.blob(lease, &[]).await;
        wire.lease(lease, &[(EXPIRE, expiry)]).await;
        let held = wire.hold(lease, "content", &digest).await;
        assert!(held.is_ok() || lease == "past", "{lease}: {held:?}");
    }
    wire.collect().await;
    for (lease, stays) in [("past", false), ("future", true), ("no time", true)] {
        assert_eq!(has_lease(&wire, lease).await, stays, "{lease}");
        assert_eq!(wire.has_blob(&digest_of(lease)).await, stays, "{lease}");
    }
}

#[tokio::test]
async fn any_label_that_begins_like_a_root_with_a_value_is_one() {
    root!();
    let wire = Wire::start();
    let mut roots = Vec::new();
    for (key, value) in
        [(ROOT, "any"), (ROOT, PAST), ("containerd.io/gc.roots", "1"), ("containerd.io/gc.root.x", "1")]
    {
        roots.push((key, wire.blob(&format!("{key} {value}"), &[(key, value)]).await));
    }
    let empty = wire.blob("empty", &[(ROOT, "")]).await;
    let other = wire.blob("other", &[("containerd.io/gc.roo", "1")]).await;
    wire.collect().await;
    for (key, root) in roots {
        // 1.6 compares the whole key.
        let counts = wire.since_2() || key == ROOT;
        assert_eq!(wire.has_blob(&root).await, counts, "{key}");
    }
    assert!(!wire.has_blob(&empty).await && !wire.has_blob(&other).await);
}

#[tokio::test]
async fn references_are_told_by_the_form_of_their_key() {
    root!();
    let wire = Wire::start();
    let mut kept = Vec::new();
    for key in ["gc.ref.content", "gc.ref.content.a", "gc.ref.content.a.b", "gc.ref.content/a"] {
        let digest = wire.blob(key, &[]).await;
        let key = format!("containerd.io/{key}");
        wire.blob(&format!("root {key}"), &[(ROOT, "1"), (&key, &digest)]).await;
        kept.push(digest);
    }
    let not = wire.blob("not", &[]).await;
    wire.blob("root not", &[(ROOT, "1"), ("containerd.io/gc.ref.contentx", &not)]).await;
    wire.collect().await;
    for digest in kept {
        assert!(wire.has_blob(&digest).await, "{digest}");
    }
    assert!(!wire.has_blob(&not).await);
}

#[tokio::test]
async fn content_snapshots_images_and_containers_reference() {
    root!();
    let wire = Wire::start();
    let (content, native) = ("containerd.io/gc.ref.content", "containerd.io/gc.ref.snapshot.native");
    let mut blobs = Vec::new();
    for holder in ["blob", "snapshot", "image", "container"] {
        blobs.push(wire.blob(holder, &[]).await);
        snapshot(&wire, holder, "", &[]).await;
    }
    let target = wire.blob("target", &[]).await;
    wire.blob("root", &[(ROOT, "1"), (content, &blobs[0]), (native, "blob")]).await;
    let labels = [(ROOT, "1"), (content, &blobs[1]), ("containerd.io/gc.ref.snapshot.native/x", "snapshot")];
    snapshot(&wire, "root", "", &labels).await;
    let labels = [(content, &*blobs[2]), ("containerd.io/gc.ref.snapshot.native/y", "image")];
    wire.image("i", &target, &labels).await;
    wire.container("c", &[(content, &blobs[3]), (native, "container")]).await;
    snapshot(&wire, "other", "", &[]).await;
    wire.collect().await;
    for (holder, digest) in ["blob", "snapshot", "image", "container"].iter().zip(&blobs) {
        assert!(wire.has_blob(digest).await, "the content that a {holder} references");
        assert!(wire.has_snapshot(holder).await, "the snapshot that a {holder} references");
    }
    assert!(wire.has_blob(&target).await && !wire.has_snapshot("other").await);
}

#[tokio::test]
async fn a_back_reference_keeps_its_bearer_while_the_named_one_lives() {
    root!();
    let wire = Wire::start();
    let target = wire.blob("target", &[(ROOT, "1")]).await;
    wire.image("i", &target, &[]).await;
    wire.container("c", &[]).await;
    let by_content = wire.blob("a", &[("containerd.io/gc.bref.content", &target)]).await;
    let by_image = wire.blob("b", &[("containerd.io/gc.bref.image.x", "i")]).await;
    let by_container = wire.blob("c", &[("containerd.io/gc.bref.container", "c")]).await;
    let by_nothing = wire.blob("d", &[("containerd.io/gc.bref.image", "none")]).await;
    snapshot(&wire, "s", "", &[("containerd.io/gc.bref.image", "i")]).await;
    wire.collect().await;
    // 1.6 knows no back references.
    let kept = wire.since_2();
    for digest in [&by_content, &by_image, &by_container] {
        assert_eq!(wire.has_blob(digest).await, kept, "{digest}");
    }
    assert_eq!(wire.has_snapshot("s").await, kept);
    assert!(!wire.has_blob(&by_nothing).await);
    let request = DeleteImageRequest { name: "i".into(), sync: true, target: None };
    wire.images().delete(in_test(request)).await.unwrap();
    assert!(!wire.has_blob(&by_image).await && !wire.has_snapshot("s").await);
    assert_eq!(wire.has_blob(&by_container).await, kept);
}

#[tokio::test]
async fn an_expired_image_is_collected_unless_a_lease_holds_it() {
    root!();
    let wire = Wire::start();
    let target = wire.blob("target", &[]).await;
    wire.lease("l", &[]).await;
    wire.hold("l", "images", "held").await.ok();
    wire.image("held", &target, &[(EXPIRE, PAST)]).await;
    wire.image("future", &target, &[(EXPIRE, FUTURE)]).await;
    wire.image("past", &target, &[(EXPIRE, PAST)]).await;
    wire.collect().await;
    // 1.6 collects no images.
    assert_eq!(has_image(&wire, "past").await, !wire.since_2());
    assert!(has_image(&wire, "held").await && has_image(&wire, "future").await);
    assert!(wire.has_blob(&target).await);
}

#[tokio::test]
async fn ingests_survive_unless_their_lease_goes() {
    root!();
    let wire = Wire::start();
    let (_open, _) = Writing::open(&wire, write("open", 0, "a")).await.unwrap();
    Writing::open(&wire, write("left", 0, "a")).await.unwrap().0.close().await;
    for (lease, r#ref) in [("deleted", "of deleted"), ("kept", "of kept")] {
        wire.lease(lease, &[]).await;
        let message = write(r#ref, 0, "a");
        let (writing, _) =
            Writing::open_by(&wire, |messages| leased(lease, messages), message).await.unwrap();
        writing.close().await;
    }
    wire.collect().await;
    for r#ref in ["open", "left", "of deleted", "of kept"] {
        assert!(has_ingest(&wire, r#ref).await, "{}", r#ref);
    }
    wire.release("deleted").await;
    assert!(!has_ingest(&wire, "of deleted").await);
    for r#ref in ["open", "left", "of kept"] {
        assert!(has_ingest(&wire, r#ref).await, "{}", r#ref);
    }
}

#[tokio::test]
async fn deleting_an_image_in_step_waits_for_the_collection() {
    root!();
    let wire = Wire::start();
    let target = wire.blob("target", &[]).await;
    wire.image("i", &target, &[]).await;
    wire.collect().await;
    assert!(wire.has_blob(&target).await);
    let request = DeleteImageRequest { name: "i".into(), sync: true, target: None };
    wire.images().delete(in_test(request)).await.unwrap();
    assert!(!wire.has_blob(&target).await);
}

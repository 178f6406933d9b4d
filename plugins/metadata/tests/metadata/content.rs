use bytes::Bytes;
use gantry_core::content::{CommitContent, ContentProvider, ContentStore, ContentWriter, OpenWriter};
use gantry_core::field_mask::FieldMask;
use gantry_core::leases::{LeaseManager, LeaseResource};
use gantry_core::namespaces::{NamespaceRecord, NamespaceStore};
use gantry_core::{Context, Digest, ErrorKind, IngestRef, Labels, LeaseId, Namespace};
use gantry_metadata::{ContentSharing, MetadataConfig};

use crate::support::{World, all, cx, digest_of, labels, leased};

async fn world() -> (tempfile::TempDir, World) {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    (dir, world)
}

fn open(reference: &str, expected: Option<&Digest>) -> OpenWriter {
    OpenWriter {
        reference: IngestRef::parse(reference).unwrap(),
        total_bytes: 0,
        expected: expected.cloned(),
    }
}

async fn writer(
    world: &World,
    cx: &Context,
    reference: &str,
    expected: Option<&Digest>,
) -> Box<dyn ContentWriter> {
    world.metadata.content().writer(cx, open(reference, expected)).await.unwrap()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test]
async fn a_blob_is_visible_in_its_namespace_only() {
    let (_dir, world) = world().await;
    let content = world.metadata.content();
    let digest = world.blob(&cx("a"), b"data", labels(&[("k", "v")])).await;
    let info = content.info(&cx("a"), &digest).await.unwrap();
    assert_eq!((info.size_bytes, info.labels), (4, labels(&[("k", "v")])));
    let reader = content.reader(&cx("a"), &digest).await.unwrap();
    assert_eq!(reader.read_at(1, 2).await.unwrap(), "at");
    assert_eq!(content.info(&cx("b"), &digest).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(content.reader(&cx("b"), &digest).await.err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(content.delete(&cx("b"), &digest).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn the_same_ref_in_two_namespaces_is_two_ingests() {
    let (_dir, world) = world().await;
    let content = world.metadata.content();
    let mut first = writer(&world, &cx("a"), "r", None).await;
    let mut second = writer(&world, &cx("b"), "r", None).await;
    first.write(bytes("one")).await.unwrap();
    second.write(bytes("three")).await.unwrap();
    let locked = content.writer(&cx("a"), open("r", None)).await.err().unwrap();
    assert_eq!(locked.kind(), ErrorKind::Unavailable);
    let reference = IngestRef::parse("r").unwrap();
    let status = content.status(&cx("a"), &reference).await.unwrap();
    assert_eq!((status.reference, status.offset_bytes), (reference, 3));
    assert_eq!(content.statuses(&cx("b"), &[]).await.unwrap().len(), 1);
    assert!(content.statuses(&cx("b"), &["ref==other".to_owned()]).await.unwrap().is_empty());
    drop(first);
    let mut resumed = writer(&world, &cx("a"), "r", None).await;
    assert_eq!(resumed.status().await.unwrap().offset_bytes, 3);
}

#[tokio::test]
async fn an_ingest_is_resumed_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    let mut first = writer(&world, &cx("a"), "r", None).await;
    first.write(bytes("da")).await.unwrap();
    drop(first);
    world.metadata.collect().await.unwrap();
    world.metadata.close(std::time::Duration::from_secs(5)).await.unwrap();
    drop(world);
    let world = World::open(dir.path()).await;
    world.metadata.collect().await.unwrap();
    let mut second = writer(&world, &cx("a"), "r", None).await;
    assert_eq!(second.status().await.unwrap().offset_bytes, 2);
    second.write(bytes("ta")).await.unwrap();
    assert_eq!(second.commit(CommitContent::default()).await.unwrap(), digest_of(b"data"));
    assert_eq!(second.write(bytes("x")).await.unwrap_err().kind(), ErrorKind::FailedPrecondition);
}

#[tokio::test]
async fn a_mismatch_at_commit_leaves_the_ingest() {
    let (_dir, world) = world().await;
    let mut writer = writer(&world, &cx("a"), "r", None).await;
    writer.write(bytes("data")).await.unwrap();
    let wrong = [
        CommitContent { total_bytes: 5, ..CommitContent::default() },
        CommitContent { expected: Some(digest_of(b"other")), ..CommitContent::default() },
    ];
    for wrong in wrong {
        assert_eq!(writer.commit(wrong).await.unwrap_err().kind(), ErrorKind::FailedPrecondition);
    }
    let long = CommitContent { labels: labels(&[("k", &"v".repeat(4096))]), ..CommitContent::default() };
    assert_eq!(writer.commit(long).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(writer.status().await.unwrap().offset_bytes, 4);
    writer.commit(CommitContent { total_bytes: 4, ..CommitContent::default() }).await.unwrap();
    let reference = IngestRef::parse("r").unwrap();
    let gone = world.metadata.content().status(&cx("a"), &reference).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_blob_that_is_there_is_already_exists_at_open_or_at_commit_and_joins_the_lease() {
    let (_dir, world) = world().await;
    let leases = world.metadata.leases();
    let digest = world.blob(&cx("a"), b"data", labels(&[("k", "v")])).await;
    let lease = LeaseId::parse("l").unwrap();
    leases.create(&cx("a"), Some(lease.clone()), Labels::new()).await.unwrap();
    let taken =
        world.metadata.content().writer(&leased("a", "l"), open("r", Some(&digest))).await.err().unwrap();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    let kept = leases.resources(&cx("a"), &lease).await.unwrap();
    assert_eq!(kept, [LeaseResource { id: digest.to_string(), kind: "content".into() }]);
    let again = world.try_blob(&cx("a"), b"data", labels(&[("k", "dropped")])).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    let info = world.metadata.content().info(&cx("a"), &digest).await.unwrap();
    assert_eq!(info.labels, labels(&[("k", "v")]));
    assert!(world.metadata.content().statuses(&cx("a"), &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_missing_lease_is_not_found() {
    let (_dir, world) = world().await;
    let refused =
        world.metadata.content().writer(&leased("a", "missing"), open("r", None)).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert!(world.metadata.content().statuses(&cx("a"), &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_lease_holds_the_ingest_and_then_the_blob() {
    let (_dir, world) = world().await;
    let leases = world.metadata.leases();
    let lease = LeaseId::parse("l").unwrap();
    leases.create(&cx("a"), Some(lease.clone()), Labels::new()).await.unwrap();
    let resources = async || {
        let kept = leases.resources(&cx("a"), &lease).await.unwrap();
        kept.into_iter().map(|resource| resource.kind).collect::<Vec<_>>()
    };
    let mut one = writer(&world, &leased("a", "l"), "one", None).await;
    writer(&world, &leased("a", "l"), "two", None).await;
    assert_eq!(resources().await, ["ingests", "ingests"]);
    one.write(bytes("data")).await.unwrap();
    one.commit(CommitContent::default()).await.unwrap();
    assert_eq!(resources().await, ["content", "ingests"]);
    let two = IngestRef::parse("two").unwrap();
    world.metadata.content().abort(&leased("a", "l"), &two).await.unwrap();
    assert_eq!(resources().await, ["content"]);
    let again = world.metadata.content().abort(&leased("a", "l"), &two).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_blob_of_another_namespace_is_had_without_its_data() {
    let (_dir, world) = world().await;
    let content = world.metadata.content();
    let digest = world.blob(&cx("a"), b"data", Labels::new()).await;
    let mut shared = writer(&world, &cx("b"), "r", Some(&digest)).await;
    let status = shared.status().await.unwrap();
    assert_eq!((status.offset_bytes, status.total_bytes), (4, 4));
    // The ingest alone keeps the file, even if the other namespace lets it go.
    content.delete(&cx("a"), &digest).await.unwrap();
    world.metadata.collect().await.unwrap();
    assert!(world.content.blob_path(&digest).exists());
    let wrong = CommitContent { total_bytes: 3, ..CommitContent::default() };
    assert_eq!(shared.commit(wrong).await.unwrap_err().kind(), ErrorKind::FailedPrecondition);
    let how = CommitContent { labels: labels(&[("k", "v")]), ..CommitContent::default() };
    assert_eq!(shared.commit(how).await.unwrap(), digest);
    assert_eq!(content.info(&cx("b"), &digest).await.unwrap().labels, labels(&[("k", "v")]));
}

#[tokio::test]
async fn writing_to_a_shared_ingest_begins_from_its_data_or_from_nothing() {
    let (_dir, world) = world().await;
    let digest = world.blob(&cx("a"), b"data", Labels::new()).await;
    let mut appended = writer(&world, &cx("b"), "r", Some(&digest)).await;
    appended.write(bytes("!")).await.unwrap();
    assert_eq!(appended.status().await.unwrap().offset_bytes, 5);
    assert_eq!(appended.commit(CommitContent::default()).await.unwrap(), digest_of(b"data!"));
    let mut truncated = writer(&world, &cx("b"), "s", Some(&digest)).await;
    truncated.truncate(0).await.unwrap();
    assert_eq!(truncated.status().await.unwrap().offset_bytes, 0);
    truncated.write(bytes("data")).await.unwrap();
    assert_eq!(truncated.commit(CommitContent::default()).await.unwrap(), digest);
    let mut beyond = writer(&world, &cx("c"), "t", Some(&digest)).await;
    assert_eq!(beyond.truncate(5).await.unwrap_err().kind(), ErrorKind::OutOfRange);
}

#[tokio::test]
async fn isolated_content_is_shared_only_by_namespaces_that_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = MetadataConfig { content_sharing: ContentSharing::Isolated, ..MetadataConfig::default() };
    let world = World::open_with(dir.path(), config, None).await;
    let digest = world.blob(&cx("a"), b"data", Labels::new()).await;
    let mut own = writer(&world, &cx("b"), "r", Some(&digest)).await;
    assert_eq!(own.status().await.unwrap().offset_bytes, 0);
    own.write(bytes("data")).await.unwrap();
    assert_eq!(own.commit(CommitContent::default()).await.unwrap(), digest);
    let shareable = NamespaceRecord {
        name: Namespace::parse("a").unwrap(),
        labels: labels(&[("containerd.io/namespace.shareable", "true")]),
    };
    let none = Context::background();
    world.metadata.namespaces().update(&none, shareable, &FieldMask::default()).await.unwrap();
    let mut shared = writer(&world, &cx("c"), "r", Some(&digest)).await;
    assert_eq!(shared.status().await.unwrap().offset_bytes, 4);
}

#[tokio::test]
async fn an_empty_blob_can_be_committed() {
    let (_dir, world) = world().await;
    let mut empty = writer(&world, &cx("a"), "r", None).await;
    assert_eq!(empty.commit(CommitContent::default()).await.unwrap(), digest_of(b""));
    assert_eq!(world.metadata.content().info(&cx("a"), &digest_of(b"")).await.unwrap().size_bytes, 0);
}

#[tokio::test]
async fn labels_are_updated_by_mask_and_lists_come_in_order() {
    let (_dir, world) = world().await;
    let content = world.metadata.content();
    let mut digests = Vec::new();
    for number in 0..5 {
        digests.push(
            world.blob(&cx("a"), format!("{number}").as_bytes(), labels(&[("a", "1"), ("b", "2")])).await,
        );
    }
    let mask = FieldMask::new(["labels.b", "labels.c"]);
    let updated = content.update(&cx("a"), &digests[0], labels(&[("c", "3")]), &mask).await.unwrap();
    assert_eq!(updated.labels, labels(&[("a", "1"), ("c", "3")]));
    assert!(updated.updated_at > updated.created_at);
    let all_labels =
        content.update(&cx("a"), &digests[1], labels(&[("z", "1")]), &FieldMask::default()).await;
    assert_eq!(all_labels.unwrap().labels, labels(&[("z", "1")]));
    let refused = content.update(&cx("a"), &digests[0], Labels::new(), &FieldMask::new(["size"])).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
    let missing = content.update(&cx("b"), &digests[0], Labels::new(), &FieldMask::default()).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    digests.sort();
    let listed = all(content.list(&cx("a"), &[]).await.unwrap()).await;
    assert_eq!(listed.into_iter().map(|info| info.digest).collect::<Vec<_>>(), digests);
    let filtered = all(content.list(&cx("a"), &["labels.z".to_owned()]).await.unwrap()).await;
    assert_eq!(filtered.len(), 1);
}

#[tokio::test]
async fn an_abort_while_a_writer_is_open_is_no_error_for_either() {
    let (_dir, world) = world().await;
    let open = writer(&world, &cx("a"), "r", None).await;
    world.metadata.content().abort(&cx("a"), &IngestRef::parse("r").unwrap()).await.unwrap();
    drop(open);
    // The next ingest of that name begins anew.
    let mut next = writer(&world, &cx("a"), "r", None).await;
    assert_eq!(next.status().await.unwrap().offset_bytes, 0);
}

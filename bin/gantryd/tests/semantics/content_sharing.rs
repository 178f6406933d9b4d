//! Who may have a blob that another namespace has, and writes that outlive the daemon.

use gantry_api::containerd::services::content::v1::{ListStatusesRequest, WriteContentRequest};
use gantry_api::containerd::services::namespaces::v1::{Namespace, UpdateNamespaceRequest};
use gantry_testkit::root;
use tonic::Code;

use crate::support::{Wire, code, digest_of, in_test, pairs, within};
use crate::write::{Writing, commit, stat, write};

const ISOLATED: &str = "[plugins.\"io.containerd.gc.v1.scheduler\"]\n  startup_delay = \"1h\"\n\
    [plugins.\"io.containerd.metadata.v1.bolt\"]\n  content_sharing_policy = \"isolated\"";

/// The offset that a write begins at which expects the blob of `data`.
async fn offset(wire: &Wire, r#ref: &str, data: &str) -> i64 {
    let total = i64::try_from(data.len()).unwrap();
    let message = WriteContentRequest { expected: digest_of(data), total, ..stat(r#ref) };
    let (writing, answer) = Writing::open(wire, message).await.unwrap();
    writing.close().await;
    answer.offset
}

#[tokio::test]
async fn an_isolated_blob_must_be_sent_again() {
    root!();
    let wire = Wire::start_with(ISOLATED);
    wire.blob_by(|messages| within("other", messages), "hello", &[]).await;
    assert_eq!(offset(&wire, "r", "hello").await, 0);
    let message = WriteContentRequest { expected: digest_of("hello"), total: 5, ..commit("r", 0) };
    let (mut writing, _) =
        Writing::open(&wire, WriteContentRequest { data: Default::default(), ..stat("r") }).await.unwrap();
    assert_eq!(code(writing.send(message).await), Code::FailedPrecondition, "nothing was sent");
    drop(writing);
    assert!(!wire.has_blob(&digest_of("hello")).await);
    let sent = wire.blob("hello", &[]).await;
    assert!(wire.has_blob(&sent).await);
}

#[tokio::test]
async fn a_namespace_may_share_its_blobs_where_they_are_isolated() {
    root!();
    let wire = Wire::start_with(ISOLATED);
    wire.blob_by(|messages| within("other", messages), "hello", &[]).await;
    for (value, shared) in [("false", false), ("true", true), ("yes", false)] {
        let labels = pairs(&[("containerd.io/namespace.shareable", value)]);
        let request = UpdateNamespaceRequest {
            namespace: Some(Namespace { name: "other".into(), labels }),
            update_mask: None,
        };
        // 1.6 needs the header for its event.
        wire.namespaces().update(in_test(request)).await.unwrap();
        // 1.6 answers 0 for every value.
        let shared = shared && wire.since_2();
        assert_eq!(offset(&wire, value, "hello").await == 5, shared, "{value}");
    }
    // The bearer of the label shares; the one who asks needs none.
    wire.blob("mine", &[]).await;
    let message = WriteContentRequest { expected: digest_of("mine"), total: 4, ..stat("r") };
    let (_writing, answer) =
        Writing::open_by(&wire, |messages| within("other", messages), message).await.unwrap();
    assert_eq!(answer.offset, 0);
}

#[tokio::test]
async fn an_ingest_goes_on_after_the_daemon_was_killed() {
    root!();
    let mut wire = Wire::start();
    let message = WriteContentRequest { total: 11, ..write("r", 0, "hello ") };
    let (writing, _) = Writing::open(&wire, message).await.unwrap();
    let list = async |wire: &Wire| {
        let request = in_test(ListStatusesRequest::default());
        wire.content().list_statuses(request).await.unwrap().into_inner().statuses.remove(0)
    };
    let before = list(&wire).await;
    wire.daemon.kill();
    drop(writing);
    wire.daemon.start();
    wire.reconnect();
    let after = list(&wire).await;
    assert_eq!((after.r#ref.as_str(), after.offset, after.total), ("r", 6, 11));
    assert_eq!(after.started_at, before.started_at);
    let (mut writing, answer) =
        Writing::open(&wire, WriteContentRequest { total: 11, ..stat("r") }).await.unwrap();
    assert_eq!((answer.offset, answer.started_at), (6, before.started_at));
    assert_eq!(writing.send(write("", 6, "world")).await.unwrap().offset, 11);
    let done =
        writing.send(WriteContentRequest { expected: digest_of("hello world"), ..commit("", 11) }).await;
    assert_eq!(done.unwrap().digest, digest_of("hello world"));
    assert!(wire.has_blob(&digest_of("hello world")).await);
}

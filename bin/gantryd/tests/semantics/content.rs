//! Content: reading, labels and ingests.

use gantry_api::containerd::services::content::v1::{
    Info, ListStatusesRequest, ReadContentRequest, UpdateRequest, WriteContentRequest,
};
use gantry_testkit::root;
use tonic::{Code, Status};

use crate::support::{Wire, code, digest_of, in_test, mask, pairs, refused};
use crate::write::{Writing, write};

/// The offset of the first answer, and all data.
async fn read(wire: &Wire, digest: &str, offset: i64, size: i64) -> Result<(Option<i64>, String), Status> {
    let request = ReadContentRequest { digest: digest.into(), offset, size };
    let mut answers = wire.content().read(in_test(request)).await?.into_inner();
    let (mut first, mut data) = (None, Vec::new());
    while let Some(answer) = answers.message().await? {
        first.get_or_insert(answer.offset);
        data.extend_from_slice(&answer.data);
    }
    Ok((first, String::from_utf8(data).unwrap()))
}

#[tokio::test]
async fn a_read_is_cut_at_the_end_and_its_offset_counts_from_0() {
    root!();
    let wire = Wire::start();
    let digest = wire.blob("hello", &[]).await;
    let all = (Some(0), "hello".to_owned());
    assert_eq!(read(&wire, &digest, 0, 0).await.unwrap(), all);
    assert_eq!(read(&wire, &digest, 0, -1).await.unwrap(), all);
    assert_eq!(read(&wire, &digest, -3, 0).await.unwrap(), all);
    assert_eq!(read(&wire, &digest, 0, 100).await.unwrap(), all);
    assert_eq!(read(&wire, &digest, 2, 2).await.unwrap(), (Some(0), "ll".to_owned()));
    assert_eq!(read(&wire, &digest, 5, 0).await.unwrap().1, "", "at the end is nothing");
    assert_eq!(code(read(&wire, &digest, 6, 0).await), Code::OutOfRange);
    assert_eq!(code(read(&wire, &digest_of("absent"), 0, 0).await), Code::NotFound);
}

#[tokio::test]
async fn an_update_replaces_the_labels_or_those_its_mask_names() {
    root!();
    let wire = Wire::start();
    let digest = wire.blob("hello", &[("a", "1"), ("b", "2")]).await;
    let update = async |labels: &[(&str, &str)], paths| {
        let info = Some(Info { digest: digest.clone(), labels: pairs(labels), ..Default::default() });
        let answer = wire.content().update(in_test(UpdateRequest { info, update_mask: paths })).await?;
        Ok::<_, Status>(answer.into_inner().info.unwrap().labels)
    };
    let one = update(&[("a", "3"), ("b", "3"), ("c", "3")], mask(&["labels.a", "labels.c"])).await.unwrap();
    assert_eq!(one, pairs(&[("a", "3"), ("b", "2"), ("c", "3")]));
    let one = update(&[("a", "")], mask(&["labels.a", "labels.b"])).await.unwrap();
    assert_eq!(one, pairs(&[("c", "3")]));
    let all = update(&[("d", "4")], mask(&["labels"])).await.unwrap();
    assert_eq!(all, pairs(&[("d", "4")]));
    assert_eq!(update(&[("e", "5"), ("f", "")], None).await.unwrap(), pairs(&[("e", "5")]));
    for path in ["size", "digest", "label"] {
        assert_eq!(code(update(&[], mask(&[path])).await), Code::InvalidArgument, "{path}");
    }
}

#[tokio::test]
async fn an_ingests_total_and_start_survive_a_restart() {
    root!();
    let mut wire = Wire::start();
    let message = WriteContentRequest { total: 9, expected: digest_of("other"), ..write("r", 0, "hello") };
    Writing::open(&wire, message).await.unwrap().0.close().await;
    let list = async |wire: &Wire| {
        let request = in_test(ListStatusesRequest::default());
        let mut all = wire.content().list_statuses(request).await.unwrap().into_inner().statuses;
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    };
    let before = list(&wire).await;
    assert_eq!((before.offset, before.total, before.expected.as_str()), (5, 9, ""));
    wire.restart();
    let after = list(&wire).await;
    assert_eq!((after.offset, after.total, after.expected.as_str()), (5, 9, ""));
    assert_eq!(after.started_at, before.started_at);
}

#[tokio::test]
async fn an_update_without_info_is_told_so() {
    root!();
    let wire = Wire::start();
    if wire.daemon.program().is_containerd() {
        return; // It ends there.
    }
    refused(wire.content().update(in_test(UpdateRequest::default())).await, Code::InvalidArgument, "info");
    let message = WriteContentRequest { expected: "none".into(), ..crate::write::commit("r", 0) };
    refused(Writing::open(&wire, message).await, Code::InvalidArgument, "expected");
}

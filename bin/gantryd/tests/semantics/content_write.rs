//! Content: the conversation of a write.

use gantry_api::containerd::services::content::v1::{
    AbortRequest, InfoRequest, ReadContentRequest, StatusRequest, WriteContentRequest,
};
use gantry_testkit::root;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::support::{GO_ZERO, Wire, code, digest_of, in_test, is_there, leased, pairs, refused, within};
use crate::write::{Writing, commit, stat, write};

async fn offset(wire: &Wire, r#ref: &str) -> Option<i64> {
    let status = wire.content().status(in_test(StatusRequest { r#ref: r#ref.into() })).await;
    match status {
        Ok(status) => Some(status.into_inner().status.unwrap().offset),
        Err(status) => {
            assert_eq!(status.code(), Code::NotFound, "{status}");
            None
        }
    }
}

#[tokio::test]
async fn offset_0_truncates_the_ingest_also_at_commit() {
    root!();
    let wire = Wire::start();
    let (mut writing, answer) = Writing::open(&wire, write("r", 0, "hello")).await.unwrap();
    assert_eq!(answer.offset, 5);
    assert_eq!(writing.send(write("", 0, "ab")).await.unwrap().offset, 2);
    let message = WriteContentRequest { total: 2, ..commit("", 0) };
    refused(writing.send(message).await, Code::FailedPrecondition, "size validation: 0 != 2");
    assert_eq!(offset(&wire, "r").await, Some(0), "the ingest stays");
}

#[tokio::test]
async fn a_positive_offset_must_be_the_current_one_and_a_negative_one_appends() {
    root!();
    let wire = Wire::start();
    let (mut writing, _) = Writing::open(&wire, write("r", 0, "hello")).await.unwrap();
    assert_eq!(writing.send(write("", 5, " ")).await.unwrap().offset, 6);
    assert_eq!(writing.send(write("", -1, "you")).await.unwrap().offset, 9);
    assert_eq!(code(writing.send(write("", 3, "x")).await), Code::OutOfRange);
    assert_eq!(offset(&wire, "r").await, Some(9));
}

#[tokio::test]
async fn total_is_no_limit_and_counts_at_commit() {
    root!();
    let wire = Wire::start();
    let first = WriteContentRequest { total: 3, ..write("r", 0, "hello") };
    let (mut writing, answer) = Writing::open(&wire, first).await.unwrap();
    assert_eq!(answer.offset, 5);
    refused(writing.send(commit("", 5)).await, Code::FailedPrecondition, "");
    assert_eq!(offset(&wire, "r").await, Some(5), "the ingest stays");
    let first = WriteContentRequest { total: 3, ..write("s", 0, "hello") };
    let (mut writing, _) = Writing::open(&wire, first).await.unwrap();
    let message = WriteContentRequest { total: 5, ..commit("", 5) };
    let answer = writing.send(message).await.expect("the commit's own total counts");
    assert_eq!(answer.digest, digest_of("hello"));
}

#[tokio::test]
async fn a_wrong_digest_keeps_the_ingest_and_the_commits_own_counts() {
    root!();
    let wire = Wire::start();
    let wrong = WriteContentRequest { expected: digest_of("something else"), ..write("r", 0, "hello") };
    let (mut writing, _) = Writing::open(&wire, wrong.clone()).await.unwrap();
    refused(writing.send(commit("", 5)).await, Code::FailedPrecondition, "");
    assert_eq!(offset(&wire, "r").await, Some(5));
    let (mut writing, _) = Writing::open(&wire, wrong).await.unwrap();
    let message = WriteContentRequest { expected: digest_of("hello"), ..commit("", 5) };
    assert_eq!(writing.send(message).await.unwrap().digest, digest_of("hello"));
}

#[tokio::test]
async fn ref_and_expected_of_later_messages_are_ignored() {
    root!();
    let wire = Wire::start();
    let (mut writing, _) = Writing::open(&wire, write("one", 0, "a")).await.unwrap();
    let message = WriteContentRequest { expected: digest_of("something else"), ..write("two", 1, "b") };
    assert_eq!(writing.send(message).await.unwrap().offset, 2);
    assert_eq!(offset(&wire, "one").await, Some(2));
    assert_eq!(offset(&wire, "two").await, None);
    let committed = writing.send(commit("", 2)).await;
    if wire.since_2() {
        assert_eq!(committed.unwrap().digest, digest_of("ab"));
    } else {
        // 1.6 goes by the expected digest of any message.
        refused(committed, Code::FailedPrecondition, "unexpected commit digest");
    }
}

#[tokio::test]
async fn the_last_answer_comes_a_second_time() {
    root!();
    let wire = Wire::start();
    let (writing, answer) = Writing::open(&wire, write("r", 0, "ab")).await.unwrap();
    assert_eq!(writing.close().await, [answer]);
    let (writing, answer) = Writing::open(&wire, commit("r", 2)).await.unwrap();
    assert_eq!(answer.digest, digest_of("ab"));
    assert_eq!(writing.close().await, [answer]);
    let (mut writing, answer) = Writing::open(&wire, write("r", 0, "abc")).await.unwrap();
    assert_eq!(answer.offset, 3);
    let committed = writing.send(commit("", 3)).await.unwrap();
    assert_eq!(writing.send(write("", 0, "more")).await.unwrap(), committed, "a message after the commit");
}

#[tokio::test]
async fn the_first_message_must_come_and_name_a_ref() {
    root!();
    let wire = Wire::start();
    refused(Writing::open(&wire, write("", 0, "a")).await, Code::InvalidArgument, "");
    let (messages, receiver) = tokio::sync::mpsc::channel(1);
    drop(messages);
    let answers = wire.content().write(in_test(ReceiverStream::new(receiver))).await;
    let ended = match answers {
        Ok(answers) => answers.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    };
    refused(ended, Code::Unknown, "EOF");
}

#[tokio::test]
async fn a_ref_that_is_being_written_is_unavailable() {
    root!();
    let wire = Wire::start();
    let (_writing, _) = Writing::open(&wire, write("r", 0, "a")).await.unwrap();
    refused(Writing::open(&wire, stat("r")).await, Code::Unavailable, "");
    Writing::open_by(&wire, |messages| within("other", messages), stat("r")).await.unwrap();
}

#[tokio::test]
async fn abort_works_while_a_writer_is_open_which_goes_on() {
    root!();
    let wire = Wire::start();
    let (mut writing, _) = Writing::open(&wire, write("r", 0, "a")).await.unwrap();
    wire.content().abort(in_test(AbortRequest { r#ref: "r".into() })).await.unwrap();
    assert_eq!(offset(&wire, "r").await, None);
    assert_eq!(writing.send(write("", 1, "b")).await.unwrap().offset, 2);
}

#[tokio::test]
async fn an_expected_blob_that_exists_is_refused_at_once_and_leased() {
    root!();
    let wire = Wire::start();
    let digest = wire.blob("hello", &[]).await;
    for (lease, message) in [
        ("stat", stat("r")),
        ("write", write("r", 0, "hello")),
        ("commit", commit("r", 0)),
        ("total", WriteContentRequest { total: 1, ..stat("r") }),
    ] {
        wire.lease(lease, &[]).await;
        let message = WriteContentRequest { expected: digest.clone(), ..message };
        let answer = Writing::open_by(&wire, |messages| leased(lease, messages), message).await;
        refused(answer, Code::AlreadyExists, "");
        assert_eq!(wire.held(lease).await, [format!("content {digest}")], "{lease}");
    }
}

#[tokio::test]
async fn without_expected_the_commit_finds_the_blob_and_drops_the_labels() {
    root!();
    let wire = Wire::start();
    let digest = wire.blob("hello", &[("old", "1")]).await;
    let (mut writing, _) = Writing::open(&wire, write("r", 0, "hello")).await.unwrap();
    let message = WriteContentRequest { labels: pairs(&[("new", "1")]), ..commit("", 5) };
    refused(writing.send(message).await, Code::AlreadyExists, "");
    let info = wire.content().info(in_test(InfoRequest { digest })).await.unwrap().into_inner();
    assert_eq!(info.info.unwrap().labels, pairs(&[("old", "1")]));
}

#[tokio::test]
async fn a_blob_of_another_namespace_is_committed_without_being_sent() {
    root!();
    let wire = Wire::start();
    let digest = wire.blob_by(|messages| within("other", messages), "hello", &[]).await;
    assert!(!wire.has_blob(&digest).await);
    let read = ReadContentRequest { digest: digest.clone(), ..Default::default() };
    let read = match wire.content().read(in_test(read)).await {
        Ok(answers) => answers.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    };
    assert!(!is_there(read));
    let expecting = |message| WriteContentRequest { expected: digest.clone(), total: 5, ..message };
    let (mut writing, answer) = Writing::open(&wire, expecting(stat("truncated"))).await.unwrap();
    assert_eq!(answer.offset, 5);
    assert_eq!(writing.send(write("", 0, "")).await.unwrap().offset, 0);
    drop(writing);
    let (_writing, answer) = Writing::open(&wire, expecting(write("written", 0, "he"))).await.unwrap();
    assert_eq!(answer.offset, 2, "a first write at 0 begins an empty ingest");
    let (mut writing, answer) = Writing::open(&wire, expecting(stat("shared"))).await.unwrap();
    assert_eq!(answer.offset, 5);
    assert_eq!(writing.send(commit("", 5)).await.unwrap().digest, digest);
    assert!(wire.has_blob(&digest).await);
}

#[tokio::test]
async fn only_answers_to_stat_carry_times() {
    root!();
    let wire = Wire::start();
    let (mut writing, answer) = Writing::open(&wire, write("r", 0, "a")).await.unwrap();
    // 1.6 sends Go's zero time instead.
    let none = if wire.since_2() { None } else { Some(GO_ZERO) };
    assert_eq!((answer.started_at, answer.updated_at), (none, none));
    let answer = writing.send(stat("")).await.unwrap();
    for time in [answer.started_at, answer.updated_at] {
        assert!(time.is_some_and(|time| time.seconds > 0), "{answer:?}");
    }
}

#[tokio::test]
async fn an_empty_blob_is_committed() {
    root!();
    let wire = Wire::start();
    let (_, answer) = Writing::open(&wire, commit("r", 0)).await.unwrap();
    assert_eq!(answer.digest, digest_of(""));
    assert!(wire.has_blob(&digest_of("")).await);
}

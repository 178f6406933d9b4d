//! The conversation of a content write, over a socket.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use gantry_api::containerd::services::content::v1 as pb;
use gantry_core::ErrorKind;
use gantry_core::IngestRef;
use gantry_core::content::{CommitContent, ContentProvider as _, ContentStore, OpenWriter};
use gantry_rpc::Services;
use gantry_rpc::content::RemoteContentStore;
use gantry_testkit::{FakeContent, content_store_suite};
use pb::WriteAction::{self, Commit, Stat, Write};
use sha2::{Digest as _, Sha256};
use support::{Daemon, cx};
use tonic::{Code, Request, Status};

content_store_suite!(remote, |dir: std::path::PathBuf| async move {
    let services = Services { content: Some(Arc::new(FakeContent::default())), ..Services::default() };
    let daemon = Daemon::start_in(&dir, services);
    let store = RemoteContentStore::new(daemon.channel.clone());
    // It is served until the runtime ends.
    std::mem::forget(daemon);
    Arc::new(store) as Arc<dyn ContentStore>
});

type Answers = Result<Vec<pb::WriteContentResponse>, Status>;

fn daemon() -> (Daemon, FakeContent) {
    let content = FakeContent::default();
    let services = Services { content: Some(Arc::new(content.clone())), ..Services::default() };
    (Daemon::start(services), content)
}

fn say(action: WriteAction, offset: i64, data: &'static str) -> pb::WriteContentRequest {
    let action = action.into();
    pb::WriteContentRequest { action, r#ref: "r".into(), offset, data: data.into(), ..Default::default() }
}

/// Sends all messages, closes, and gives every answer.
async fn write(daemon: &Daemon, messages: Vec<pb::WriteContentRequest>) -> Answers {
    let mut request = Request::new(tokio_stream::iter(messages));
    request.metadata_mut().insert("containerd-namespace", "test".parse().unwrap());
    let mut client = pb::content_client::ContentClient::new(daemon.channel.clone());
    let mut answers = client.write(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await? {
        all.push(answer);
    }
    Ok(all)
}

fn offsets(answers: Answers) -> Vec<i64> {
    answers.unwrap().iter().map(|answer| answer.offset).collect()
}

#[tokio::test]
async fn the_last_answer_is_sent_twice() {
    let (daemon, _) = daemon();
    assert_eq!(offsets(write(&daemon, vec![say(Write, 0, "abc")]).await), [3, 3]);
    assert_eq!(offsets(write(&daemon, vec![say(Write, 3, "d"), say(Commit, 4, "")]).await), [4, 4, 4]);
    daemon.stop().await;
}

#[tokio::test]
async fn offset_zero_truncates_and_a_negative_one_appends() {
    let (daemon, content) = daemon();
    write(&daemon, vec![say(Write, 0, "abc"), say(Write, -1, "def")]).await.unwrap();
    assert_eq!(content.ingest("r").unwrap(), b"abcdef");
    assert_eq!(offsets(write(&daemon, vec![say(Write, 0, "x")]).await), [1, 1]);
    assert_eq!(content.ingest("r").unwrap(), b"x");
    let mut commit = say(Commit, 0, "");
    commit.total = 1;
    let status = write(&daemon, vec![commit]).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("size validation 0 != 1"), "{status}");
}

#[tokio::test]
async fn a_wrong_positive_offset_is_out_of_range_and_the_ingest_stays() {
    let (daemon, content) = daemon();
    let status = write(&daemon, vec![say(Write, 0, "abc"), say(Write, 2, "d")]).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    assert_eq!(content.ingest("r").unwrap(), b"abc");
}

#[tokio::test]
async fn only_stat_answers_carry_times_and_total() {
    let (daemon, _) = daemon();
    let mut stat = say(Stat, 0, "");
    stat.total = 9;
    let answers = write(&daemon, vec![stat, say(Write, 0, "abc")]).await.unwrap();
    assert!(answers[0].started_at.is_some() && answers[0].updated_at.is_some());
    assert_eq!(answers[0].total, 9);
    assert!(answers[1].started_at.is_none() && answers[1].updated_at.is_none());
    assert_eq!(answers[1].digest, format!("sha256:{:x}", Sha256::digest("abc")));
}

#[tokio::test]
async fn a_first_message_without_ref_and_no_message_at_all_are_refused() {
    let (daemon, _) = daemon();
    let mut nameless = say(Stat, 0, "");
    nameless.r#ref.clear();
    assert_eq!(write(&daemon, vec![nameless]).await.unwrap_err().code(), Code::InvalidArgument);
    let status = write(&daemon, vec![]).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, "EOF"));
}

#[tokio::test]
async fn a_malformed_expected_digest_is_an_invalid_argument_also_at_commit() {
    let (daemon, _) = daemon();
    for action in [Stat, Commit] {
        let mut message = say(action, 0, "");
        message.expected = "nonsense".into();
        let status = write(&daemon, vec![say(Stat, 0, ""), message.clone()]).await;
        if action == Commit {
            assert_eq!(status.unwrap_err().code(), Code::InvalidArgument);
        }
        assert_eq!(write(&daemon, vec![message]).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn an_expected_digest_that_is_there_already_exists() {
    let (daemon, _) = daemon();
    let digest =
        write(&daemon, vec![say(Write, 0, "abc"), say(Commit, -1, "")]).await.unwrap()[1].digest.clone();
    for action in [Stat, Write, Commit] {
        let mut message = say(action, 0, "");
        message.expected = digest.clone();
        let status = write(&daemon, vec![message]).await.unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists);
    }
    // Named at commit only, too; the ingest is of no use then.
    let mut commit = say(Commit, -1, "");
    commit.expected = digest;
    let status = write(&daemon, vec![say(Write, 0, "abc"), commit]).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
}

#[tokio::test]
async fn reading_counts_from_zero_and_cuts_at_the_end() {
    let (daemon, _) = daemon();
    let digest =
        write(&daemon, vec![say(Write, 0, "abcdef"), say(Commit, -1, "")]).await.unwrap()[1].digest.clone();
    let mut client = pb::content_client::ContentClient::new(daemon.channel.clone());
    let mut read = async |offset, size| {
        let request = pb::ReadContentRequest { digest: digest.clone(), offset, size };
        let mut answers = client.read(request).await?.into_inner();
        let mut all = Vec::new();
        while let Some(answer) = answers.message().await? {
            all.push((answer.offset, answer.data));
        }
        Ok::<_, Status>(all)
    };
    assert_eq!(read(2, 3).await.unwrap(), [(0, Bytes::from("cde"))]);
    assert_eq!(read(4, 99).await.unwrap(), [(0, Bytes::from("ef"))]);
    assert_eq!(read(-5, 0).await.unwrap(), [(0, Bytes::from("abcdef"))]);
    assert_eq!(read(6, 0).await.unwrap(), []);
    assert_eq!(read(7, 0).await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test]
async fn the_remote_store_writes_locks_and_reads() {
    let (daemon, content) = daemon();
    let store = RemoteContentStore::new(daemon.channel.clone());
    let open = || OpenWriter { reference: IngestRef::parse("w").unwrap(), total_bytes: 0, expected: None };
    let mut writer = store.writer(&cx(), open()).await.unwrap();
    let error = store.writer(&cx(), open()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let data = Bytes::from(vec![7u8; 9 << 20]);
    writer.write(Bytes::from("gone")).await.unwrap();
    writer.truncate(0).await.unwrap();
    writer.write(data.clone()).await.unwrap();
    assert_eq!(writer.status().await.unwrap().offset_bytes, 9 << 20);
    let digest = writer.commit(CommitContent::default()).await.unwrap();
    drop(writer);
    assert!(!content.is_locked("w"));
    let reader = store.reader(&cx(), &digest).await.unwrap();
    let mut back = Vec::new();
    loop {
        let chunk = reader.read_at(back.len() as u64, usize::MAX).await.unwrap();
        if chunk.is_empty() {
            break;
        }
        back.extend_from_slice(&chunk);
    }
    assert_eq!(back, data);
    drop((reader, store));
    daemon.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_unlocks_its_ingest() {
    let (daemon, content) = daemon();
    let store = RemoteContentStore::new(daemon.channel.clone());
    let open = || OpenWriter { reference: IngestRef::parse("w").unwrap(), total_bytes: 0, expected: None };
    let mut writer = store.writer(&cx(), open()).await.unwrap();
    writer.write(Bytes::from("abc")).await.unwrap();
    drop(writer);
    // The server learns of it in its own time.
    while content.is_locked("w") {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.writer(&cx(), open()).await.unwrap().status().await.unwrap().offset_bytes, 3);
}

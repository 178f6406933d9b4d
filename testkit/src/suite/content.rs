//! What every [`ContentStore`] promises, whether or not it knows namespaces.

use std::sync::Arc;

use bytes::Bytes;
use gantry_core::content::{CommitContent, ContentStore, ContentWriter, OpenWriter};
use gantry_core::{Digest, ErrorKind, IngestRef, Labels};
use sha2::{Digest as _, Sha256};

use super::{all, cx, filters, labels, mask, refused};

/// Tests that what `$open` opens keeps content as it should.
#[macro_export]
macro_rules! content_store_suite {
    ($module:ident, $open:expr) => {
        $crate::suite_of!(
            $module,
            content,
            $open,
            [
                what_is_written_is_read,
                reads_stop_at_the_end,
                a_ref_has_one_writer,
                a_write_resumes_where_it_was_left,
                a_write_is_cut_and_goes_on,
                what_differs_is_refused_and_stays,
                an_expected_blob_that_is_there_is_refused,
                aborted_writes_are_gone,
                blobs_are_listed_labelled_and_deleted,
                an_empty_blob_is_a_blob,
            ]
        );
    };
}

type Store = Arc<dyn ContentStore>;

fn digest(bytes: &[u8]) -> Digest {
    Digest::sha256(Sha256::digest(bytes))
}

fn reference(text: &str) -> IngestRef {
    IngestRef::parse(text).expect("any text")
}

/// Opens a writer. Across a socket the end of one that was dropped takes a moment to get there, and the ref is locked until then.
async fn open(store: &Store, name: &str) -> Box<dyn ContentWriter> {
    let open = OpenWriter { reference: reference(name), total_bytes: 0, expected: None };
    let end = tokio::time::Instant::now() + crate::limit();
    loop {
        match store.writer(&cx("one"), open.clone()).await {
            Err(error) if error.kind() == ErrorKind::Unavailable && tokio::time::Instant::now() < end => {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            opened => return opened.expect("open a writer"),
        }
    }
}

async fn put(store: &Store, bytes: &'static [u8]) -> Digest {
    let mut writer = open(store, "put").await;
    writer.write(Bytes::from_static(bytes)).await.expect("write");
    writer.commit(CommitContent::default()).await.expect("commit")
}

#[doc(hidden)]
pub async fn what_is_written_is_read(store: Store) {
    let mut writer = open(&store, "name with / and ..").await;
    for part in ["one ", "two ", "three"] {
        writer.write(Bytes::from(part)).await.expect("write");
    }
    assert_eq!(writer.digest().await.expect("digest"), digest(b"one two three"));
    let how = CommitContent {
        total_bytes: 13,
        expected: Some(digest(b"one two three")),
        labels: labels(&[("a", "1")]),
    };
    let made = writer.commit(how).await.expect("commit");
    drop(writer);
    let info = store.info(&cx("one"), &made).await.expect("info");
    assert_eq!((info.size_bytes, info.labels), (13, labels(&[("a", "1")])));
    let reader = store.reader(&cx("one"), &made).await.expect("reader");
    assert_eq!(reader.size_bytes(), 13);
    assert_eq!(&*reader.read_at(0, 100).await.expect("read"), b"one two three");
    refused(store.status(&cx("one"), &reference("name with / and ..")).await, ErrorKind::NotFound);
}

#[doc(hidden)]
pub async fn reads_stop_at_the_end(store: Store) {
    let made = put(&store, b"0123456789").await;
    let reader = store.reader(&cx("one"), &made).await.expect("reader");
    assert_eq!(&*reader.read_at(8, 100).await.expect("read"), b"89");
    assert_eq!(&*reader.read_at(2, 3).await.expect("read"), b"234");
    assert!(reader.read_at(10, 1).await.expect("read").is_empty());
    refused(store.reader(&cx("one"), &digest(b"other")).await.map(|_| ()), ErrorKind::NotFound);
}

#[doc(hidden)]
pub async fn a_ref_has_one_writer(store: Store) {
    let first = open(&store, "shared").await;
    let again = OpenWriter { reference: reference("shared"), total_bytes: 0, expected: None };
    refused(store.writer(&cx("one"), again).await.map(|_| ()), ErrorKind::Unavailable);
    drop(first);
    open(&store, "shared").await;
}

#[doc(hidden)]
pub async fn a_write_resumes_where_it_was_left(store: Store) {
    let mut writer = open(&store, "resumed").await;
    writer.write(Bytes::from("first ")).await.expect("write");
    drop(writer);
    assert_eq!(store.status(&cx("one"), &reference("resumed")).await.expect("status").offset_bytes, 6);
    let mut writer = open(&store, "resumed").await;
    assert_eq!(writer.status().await.expect("status").offset_bytes, 6);
    writer.write(Bytes::from("second")).await.expect("write");
    let made = writer.commit(CommitContent::default()).await.expect("commit");
    assert_eq!(made, digest(b"first second"));
}

#[doc(hidden)]
pub async fn a_write_is_cut_and_goes_on(store: Store) {
    let mut writer = open(&store, "cut").await;
    writer.write(Bytes::from("0123456789")).await.expect("write");
    refused(writer.truncate(11).await, ErrorKind::OutOfRange);
    // Over the wire an ingest can be cut to nothing only.
    let kept: &[u8] = match writer.truncate(4).await {
        Err(error) if error.kind() == ErrorKind::Unimplemented => b"0123456789",
        cut => {
            cut.expect("truncate");
            b"0123"
        }
    };
    writer.write(Bytes::from("more")).await.expect("write");
    assert_eq!(writer.digest().await.expect("digest"), digest(&[kept, b"more"].concat()));
    writer.truncate(0).await.expect("truncate");
    assert_eq!(writer.status().await.expect("status").offset_bytes, 0);
    writer.write(Bytes::from("end")).await.expect("write");
    assert_eq!(writer.commit(CommitContent::default()).await.expect("commit"), digest(b"end"));
}

#[doc(hidden)]
pub async fn what_differs_is_refused_and_stays(store: Store) {
    let mut writer = open(&store, "checked").await;
    writer.write(Bytes::from("content")).await.expect("write");
    let size = CommitContent { total_bytes: 3, ..CommitContent::default() };
    refused(writer.commit(size).await, ErrorKind::FailedPrecondition);
    drop(writer);
    let mut writer = open(&store, "checked").await;
    let wrong = CommitContent { expected: Some(digest(b"other")), ..CommitContent::default() };
    refused(writer.commit(wrong).await, ErrorKind::FailedPrecondition);
    drop(writer);
    refused(store.info(&cx("one"), &digest(b"content")).await, ErrorKind::NotFound);
    assert_eq!(
        store.status(&cx("one"), &reference("checked")).await.expect("the ingest stays").offset_bytes,
        7
    );
}

#[doc(hidden)]
pub async fn an_expected_blob_that_is_there_is_refused(store: Store) {
    let made = put(&store, b"content").await;
    let open_expected = OpenWriter { reference: reference("again"), total_bytes: 7, expected: Some(made) };
    refused(store.writer(&cx("one"), open_expected).await.map(|_| ()), ErrorKind::AlreadyExists);
    let mut writer = open(&store, "unknowing").await;
    writer.write(Bytes::from("content")).await.expect("write");
    refused(writer.commit(CommitContent::default()).await, ErrorKind::AlreadyExists);
    drop(writer);
    refused(store.status(&cx("one"), &reference("unknowing")).await, ErrorKind::NotFound);
}

#[doc(hidden)]
pub async fn aborted_writes_are_gone(store: Store) {
    refused(store.abort(&cx("one"), &reference("none")).await, ErrorKind::NotFound);
    let mut writer = open(&store, "aborted").await;
    writer.write(Bytes::from("content")).await.expect("write");
    drop(writer);
    assert_eq!(store.statuses(&cx("one"), &[]).await.expect("statuses").len(), 1);
    store.abort(&cx("one"), &reference("aborted")).await.expect("abort");
    assert_eq!(store.statuses(&cx("one"), &[]).await.expect("statuses"), []);
    assert_eq!(open(&store, "aborted").await.status().await.expect("status").offset_bytes, 0);
}

#[doc(hidden)]
pub async fn blobs_are_listed_labelled_and_deleted(store: Store) {
    let mut made = vec![put(&store, b"a").await, put(&store, b"b").await, put(&store, b"c").await];
    made.sort();
    let digests = |list: Vec<gantry_core::content::ContentInfo>| {
        list.into_iter().map(|info| info.digest).collect::<Vec<_>>()
    };
    assert_eq!(digests(all(store.list(&cx("one"), &[]).await).await), made);
    store
        .update(&cx("one"), &made[1], labels(&[("a", "1"), ("b", "2")]), &mask(&["labels.a"]))
        .await
        .expect("update");
    assert_eq!(
        digests(all(store.list(&cx("one"), &filters(&["labels.a==1"])).await).await),
        [made[1].clone()]
    );
    assert!(all(store.list(&cx("one"), &filters(&["labels.b"])).await).await.is_empty());
    let cleared = store.update(&cx("one"), &made[1], Labels::new(), &mask(&[])).await.expect("update");
    assert_eq!(cleared.labels, Labels::new());
    refused(
        store.update(&cx("one"), &made[1], Labels::new(), &mask(&["size"])).await,
        ErrorKind::InvalidArgument,
    );
    store.delete(&cx("one"), &made[1]).await.expect("delete");
    refused(store.delete(&cx("one"), &made[1]).await, ErrorKind::NotFound);
    refused(store.info(&cx("one"), &made[1]).await, ErrorKind::NotFound);
}

#[doc(hidden)]
pub async fn an_empty_blob_is_a_blob(store: Store) {
    let mut writer = open(&store, "empty").await;
    let made = writer.commit(CommitContent::default()).await.expect("commit");
    assert_eq!(made, digest(b""));
    assert_eq!(store.info(&cx("one"), &made).await.expect("info").size_bytes, 0);
}

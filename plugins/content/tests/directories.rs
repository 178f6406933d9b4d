//! The directories that others, containerd among them, rely on; and what a crash or a full disk leaves in them.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_types, reason = "a test mounts a small disk")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;
use gantry_content::LocalContent;
use gantry_core::content::{CommitContent, ContentProvider, ContentStore, OpenWriter};
use gantry_core::{Context, Digest, ErrorKind, IngestRef};

/// Source: `printf content | sha256sum`, likewise of `ref-1`, and sha512sum of `content`.
const CONTENT: &str = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73";

fn open(reference: &str) -> OpenWriter {
    OpenWriter { reference: IngestRef::parse(reference).unwrap(), total_bytes: 0, expected: None }
}

fn ingest(root: &Path) -> std::path::PathBuf {
    let mut dirs: Vec<_> =
        fs::read_dir(root.join("ingest")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(dirs.len(), 1, "{dirs:?}");
    dirs.remove(0)
}

#[tokio::test]
async fn an_ingest_and_its_blob_are_where_containerd_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalContent::open(dir.path()).unwrap();
    let cx = Context::background();
    let mut writer = store.writer(&cx, OpenWriter { total_bytes: 7, ..open("ref-1") }).await.unwrap();
    writer.write(Bytes::from("cont")).await.unwrap();
    let ingest = ingest(dir.path());
    assert_eq!(ingest.file_name().unwrap().len(), 64);
    assert_eq!(fs::read_to_string(ingest.join("ref")).unwrap(), "ref-1");
    assert_eq!(fs::read_to_string(ingest.join("data")).unwrap(), "cont");
    assert_eq!(fs::read_to_string(ingest.join("total")).unwrap(), "7");
    assert!(fs::read_to_string(ingest.join("startedat")).unwrap().ends_with('Z'));
    assert!(ingest.join("updatedat").exists());
    drop(writer);
    drop(store);
    // Another process goes on, and knows the total but not the digest.
    let store = LocalContent::open(dir.path()).unwrap();
    let status = store.status(&cx, &IngestRef::parse("ref-1").unwrap()).await.unwrap();
    assert_eq!((status.offset_bytes, status.total_bytes, status.expected), (4, 7, None));
    let mut writer = store.writer(&cx, open("ref-1")).await.unwrap();
    writer.write(Bytes::from("ent")).await.unwrap();
    let digest = writer.commit(CommitContent::default()).await.unwrap();
    assert_eq!(digest.hex(), CONTENT);
    let blob = dir.path().join("blobs/sha256").join(CONTENT);
    assert_eq!(fs::read_to_string(&blob).unwrap(), "content");
    assert_eq!(fs::metadata(&blob).unwrap().permissions().mode() & 0o7777, 0o444);
    assert!(!ingest.exists());
    assert_eq!(writer.write(Bytes::from("x")).await.unwrap_err().kind(), ErrorKind::FailedPrecondition);
}

#[tokio::test]
async fn strays_are_told_apart_and_a_damaged_blob_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalContent::open(dir.path()).unwrap();
    let cx = Context::background();
    let mut writer = store.writer(&cx, open("ref-1")).await.unwrap();
    writer.write(Bytes::from("content")).await.unwrap();
    let digest = writer.commit(CommitContent::default()).await.unwrap();
    let mut held = store.writer(&cx, open("ref-2")).await.unwrap();
    held.write(Bytes::from("half")).await.unwrap();
    let files = store.files().unwrap();
    assert_eq!(files.strays().unwrap(), []);
    let (blobs, ingests) = (dir.path().join("blobs"), dir.path().join("ingest"));
    for path in [blobs.join("README"), blobs.join("sha256/short"), ingests.join("file")] {
        fs::write(path, "x").unwrap();
    }
    fs::create_dir(blobs.join("sha256").join("a".repeat(64))).unwrap();
    fs::create_dir(blobs.join("md5")).unwrap();
    // What a crash leaves of a write, and a copy under another name.
    fs::create_dir(ingests.join("b".repeat(64))).unwrap();
    drop(held);
    let whole = fs::read_dir(&ingests).unwrap().map(|entry| entry.unwrap().path());
    let whole = whole.into_iter().find(|path| path.join("data").exists()).unwrap();
    let copy = ingests.join("c".repeat(64));
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(&whole).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let strays = files.strays().unwrap();
    let mut found: Vec<String> =
        strays.iter().map(|stray| stray.path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    found.sort();
    let [a, b, c] = ["a", "b", "c"].map(|letter| letter.repeat(64));
    assert_eq!(found, ["README", &a, &b, &c, "file", "md5", "short"].map(str::to_owned));
    let removable: Vec<_> = strays.iter().filter(|stray| stray.removable).map(|stray| &stray.path).collect();
    assert_eq!(removable, [&ingests.join(&b)]);
    for stray in &strays {
        assert_eq!(files.remove_stray(stray).is_ok(), stray.removable, "{stray:?}");
    }
    assert!(!ingests.join("b".repeat(64)).exists() && copy.exists() && blobs.join("README").exists());
    let aside = files.set_aside(&digest).unwrap();
    assert_eq!(fs::read_to_string(&aside).unwrap(), "content");
    assert_eq!(store.info(&cx, &digest).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(files.set_aside(&digest).unwrap_err().kind(), ErrorKind::NotFound);
    // Opened as it is, nothing is tidied.
    fs::create_dir(ingests.join("d".repeat(64))).unwrap();
    drop(LocalContent::open_as_is(dir.path()).unwrap());
    assert!(ingests.join("d".repeat(64)).exists());
    drop(LocalContent::open(dir.path()).unwrap());
    assert!(!ingests.join("d".repeat(64)).exists());
}

#[tokio::test]
async fn a_commit_may_expect_another_algorithm() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalContent::open(dir.path()).unwrap();
    let cx = Context::background();
    let mut first = store.writer(&cx, open("a")).await.unwrap();
    first.write(Bytes::from("content")).await.unwrap();
    let wrong = Digest::parse(format!("sha512:{}", "0".repeat(128))).unwrap();
    let how = CommitContent { expected: Some(wrong.clone()), ..CommitContent::default() };
    let error = first.commit(how).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    let right = error
        .to_string()
        .split_whitespace()
        .find_map(|word| Digest::parse(word.trim_end_matches(',')).ok().filter(|digest| *digest != wrong));
    let right = right.expect("the error names the true digest");
    assert_eq!(right.algorithm(), "sha512");
    let mut second = store.writer(&cx, open("a")).await.unwrap();
    let how = CommitContent { expected: Some(right.clone()), ..CommitContent::default() };
    assert_eq!(second.commit(how).await.unwrap(), right);
    let mut third = store.writer(&cx, OpenWriter { expected: Some(wrong), ..open("b") }).await.unwrap();
    third.write(Bytes::from("other")).await.unwrap();
    assert_eq!(third.commit(CommitContent::default()).await.unwrap().algorithm(), "sha512");
}

#[tokio::test]
async fn what_a_crash_left_is_cleared_or_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalContent::open(dir.path()).unwrap();
    let cx = Context::background();
    let mut writer = store.writer(&cx, open("whole")).await.unwrap();
    writer.write(Bytes::from("kept")).await.unwrap();
    drop((writer, store));
    // A commit that was cut off after its rename, and a start that was cut off before its data.
    let remains = dir.path().join("ingest").join("0".repeat(64));
    fs::create_dir(&remains).unwrap();
    fs::write(remains.join("ref"), "gone").unwrap();
    let store = LocalContent::open(dir.path()).unwrap();
    assert!(!remains.exists());
    // Records that are broken do not end the write: it starts over.
    let ingest = ingest(dir.path());
    fs::write(ingest.join("startedat"), "yesterday").unwrap();
    assert_eq!(store.statuses(&cx, &[]).await.unwrap(), []);
    let mut writer = store.writer(&cx, open("whole")).await.unwrap();
    assert_eq!(writer.status().await.unwrap().offset_bytes, 0);
    writer.write(Bytes::from("x")).await.unwrap();
    assert_eq!(fs::read_to_string(ingest.join("data")).unwrap(), "x");
}

#[tokio::test]
async fn an_abort_leaves_an_open_writer_writing() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalContent::open(dir.path()).unwrap();
    let cx = Context::background();
    let mut writer = store.writer(&cx, open("a")).await.unwrap();
    writer.write(Bytes::from("one")).await.unwrap();
    store.abort(&cx, &IngestRef::parse("a").unwrap()).await.unwrap();
    writer.write(Bytes::from("two")).await.unwrap();
    assert_eq!(writer.commit(CommitContent::default()).await.unwrap_err().kind(), ErrorKind::Aborted);
    assert!(store.list(&cx, &[]).await.is_ok());
    store.writer(&cx, open("a")).await.map(drop).unwrap();
}

#[tokio::test]
async fn a_deleted_blob_is_read_to_its_end_by_who_has_it_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalContent::open(dir.path()).unwrap();
    let cx = Context::background();
    let mut writer = store.writer(&cx, open("a")).await.unwrap();
    writer.write(Bytes::from("content")).await.unwrap();
    let digest = writer.commit(CommitContent::default()).await.unwrap();
    let reader = store.reader(&cx, &digest).await.unwrap();
    store.delete(&cx, &digest).await.unwrap();
    assert_eq!(&*reader.read_at(3, 9).await.unwrap(), b"tent");
    let (one, other) = (reader.local_file().unwrap(), reader.local_file().unwrap());
    assert_eq!(std::io::read_to_string(one).unwrap(), "content");
    assert_eq!(std::io::read_to_string(other).unwrap(), "content");
    assert_eq!(store.reader(&cx, &digest).await.map(drop).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_full_disk_is_named_and_keeps_the_ingest_but_not_its_lock() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(mounted.success());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = LocalContent::open(dir.path()).unwrap();
        let cx = Context::background();
        let mut writer = store.writer(&cx, open("big")).await.unwrap();
        let mut error = None;
        for _ in 0..40 {
            if let Err(failed) = writer.write(Bytes::from(vec![7u8; 100_000])).await {
                error = Some(failed);
                break;
            }
        }
        let error = error.expect("two megabytes do not fit into one");
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
        // The writer is still there, and the ref is free all the same.
        let mut again = store.writer(&cx, open("big")).await.unwrap();
        let kept = again.status().await.unwrap().offset_bytes;
        assert!(kept > 500_000, "{kept} bytes were kept");
        again.truncate(10).await.unwrap();
        let digest = again.commit(CommitContent::default()).await.unwrap();
        assert_eq!(&*store.reader(&cx, &digest).await.unwrap().read_at(0, 100).await.unwrap(), [7u8; 10]);
        drop(writer);
    });
    let unmounted = std::process::Command::new("umount").arg("-l").arg(dir.path()).status().unwrap();
    assert!(unmounted.success());
}

//! `ctr content`.

use std::io::Write;

use gantry_testkit::{busybox_image, root, sha256};

use crate::stage::{BUSYBOX, same_on_both};

#[test]
fn content_is_listed_read_labelled_and_deleted() {
    root!();
    same_on_both(|s, _| {
        let image = busybox_image();
        s.import_busybox();
        s.table(&["content", "ls"], &["AGE"]);
        s.table(&["content", "ls", "-q"], &[]);
        let manifest = s.ok(&["content", "get", image.digest()]);
        assert_eq!(sha256(manifest.as_bytes()), image.digest());
        s.ok(&["content", "label", &image.config.digest, "a=b"]);
        let table = s.table(&["content", "ls", "labels.a==b"], &["AGE"]);
        assert!(table.contains(&image.config.digest), "{table}");
        s.ok(&["images", "rm", "--sync", BUSYBOX]);
        s.any(&["content", "get", image.digest()]);
        s.table(&["content", "ls"], &["AGE"]);
    });
}

#[test]
fn content_is_ingested_and_checked() {
    root!();
    same_on_both(|s, _| {
        let text = "some bytes of content\n";
        let digest = sha256(text.as_bytes());
        let mut ingest =
            s.ctr.spawn_with_input(&["content", "ingest", "--expected-digest", &digest, "ref-1"]);
        ingest.stdin().write_all(text.as_bytes()).unwrap();
        ingest.close_stdin();
        ingest.wait().expect_success("ingest");
        s.ok(&["content", "get", &digest]);
        // What is not what it claims to be does not come in.
        let wrong = sha256(b"other");
        let mut ingest = s.ctr.spawn_with_input(&["content", "ingest", "--expected-digest", &wrong, "ref-2"]);
        ingest.stdin().write_all(text.as_bytes()).unwrap();
        ingest.close_stdin();
        let refused = ingest.wait();
        assert!(refused.code != 0 && refused.stderr.contains("failed precondition"), "{refused:?}");
        s.any(&["content", "get", &wrong]);
        s.table(&["content", "ls"], &["AGE"]);
        s.any(&["content", "rm", &digest]);
        s.table(&["content", "ls"], &["AGE"]);
        s.any(&["content", "rm", &digest]);
        // A resumable write stays until its lease or somebody ends it.
        let ingests = s.daemon.root().join("io.containerd.content.v1.content/ingest");
        for left in std::fs::read_dir(ingests).unwrap().flatten() {
            std::fs::remove_dir_all(left.path()).unwrap();
        }
    });
}

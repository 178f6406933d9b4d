//! A file that bbolt itself wrote, with branches, large values, freed pages and nested buckets, key by key.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_types,
    reason = "a test, which starts the program that writes its file"
)]

use std::path::PathBuf;
use std::process::Command;

use gantry_bolt::{Bucket, Database, Item};
use gantry_testkit::{run, sha256, workspace_root};

fn show(bucket: &Bucket<'_>, above: &str, lines: &mut Vec<String>) {
    for entry in bucket.entries() {
        let (key, item) = entry.unwrap();
        let path = format!("{above}/{}", String::from_utf8(key).unwrap());
        match item {
            Item::Value(value) => {
                let digest = sha256(&value);
                lines.push(format!("{path} {}", digest.trim_start_matches("sha256:")));
            }
            Item::Bucket(inner) => {
                lines.push(format!("{path} bucket {}", inner.sequence()));
                show(&inner, &path, lines);
            }
        }
    }
}

#[test]
fn what_bbolt_wrote_is_read_key_by_key() {
    let bin =
        std::env::var_os("GANTRY_GO_BIN").map_or_else(|| workspace_root().join("target/go"), PathBuf::from);
    let program = bin.join("bolt_file");
    if !program.exists() {
        gantry_testkit::skip!("no Go: cargo xtask test builds tests/e2e/go where it is installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("written.db");
    let wanted = run(Command::new(program).arg(&path)).expect_success("bolt_file");
    let database = Database::open(&path).unwrap();
    let top = database.root().unwrap().bucket("top").unwrap().unwrap();
    let mut lines = Vec::new();
    show(&top, "top", &mut lines);
    assert_eq!(lines.len(), wanted.lines().count());
    for (ours, theirs) in lines.iter().zip(wanted.lines()) {
        assert_eq!(ours, theirs);
    }
    // And each by its key, from the root.
    for line in lines.iter().step_by(97) {
        let path = line.split(' ').next().unwrap();
        let mut names: Vec<&str> = path.split('/').skip(1).collect();
        let last = names.pop().unwrap();
        let mut bucket = top.clone();
        for name in names {
            bucket = bucket.bucket(name).unwrap().unwrap();
        }
        let found = bucket.get(last).unwrap();
        match line.contains(" bucket ") {
            true => assert!(found.is_none() && bucket.bucket(last).unwrap().is_some(), "{line}"),
            false => assert!(line.ends_with(sha256(&found.unwrap()).trim_start_matches("sha256:")), "{line}"),
        }
    }
    assert!(top.get("key-that-is-not-there").unwrap().is_none());
}

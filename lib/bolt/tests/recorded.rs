//! A file that containerd 1.6 wrote: what is in it, and what becomes of it when bytes of it change.
#![allow(clippy::unwrap_used)]

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gantry_bolt::{Bucket, Database, Item};
use gantry_core::{ErrorKind, Result};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Two namespaces with 41 images, a lease, a container and two snapshots each, and an ingest; made with `ctr`.
const RECORDED: &[u8] = include_bytes!("data/containerd-1.6.db.gz");
const PAGE: usize = 4096;

fn recorded() -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(RECORDED).read_to_end(&mut bytes).unwrap();
    bytes
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Files {
        Files { dir: tempfile::tempdir().unwrap() }
    }

    fn with(&self, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join("meta.db");
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// Everything below `bucket`, as paths with the lengths of their values.
fn walk(bucket: &Bucket<'_>, above: &str, found: &mut Vec<(String, Option<usize>)>) -> Result<()> {
    for entry in bucket.entries() {
        let (key, item) = entry?;
        let name = format!("{above}/{}", String::from_utf8_lossy(&key));
        match item {
            Item::Value(value) => {
                assert_eq!(bucket.get(&key)?, Some(value.clone()), "{name} by its key");
                found.push((name, Some(value.len())));
            }
            Item::Bucket(inner) => {
                assert!(bucket.bucket(&key)?.is_some(), "{name} by its key");
                found.push((name.clone(), None));
                walk(&inner, &name, found)?;
            }
        }
    }
    Ok(())
}

fn all(path: &Path) -> Result<Vec<(String, Option<usize>)>> {
    let database = Database::open(path)?;
    let mut found = Vec::new();
    walk(&database.root()?, "", &mut found)?;
    Ok(found)
}

#[test]
fn what_containerd_stored_is_read_in_byte_order() {
    let files = Files::new();
    let path = files.with(&recorded());
    let database = Database::open(&path).unwrap();
    assert!(database.txid() > 100, "{}", database.txid());
    let root = database.root().unwrap();
    let schema = root.bucket("v1").unwrap().unwrap();
    // A signed number of variable length: 3.
    assert_eq!(schema.get("version").unwrap(), Some(vec![6]));
    let names: Vec<Vec<u8>> = schema.entries().map(|entry| entry.unwrap().0).collect();
    assert_eq!(names, [b"alpha".to_vec(), b"beta".to_vec(), b"version".to_vec()]);
    for namespace in ["alpha", "beta"] {
        let namespace_bucket = schema.bucket(namespace).unwrap().unwrap();
        let labels = namespace_bucket.bucket("labels").unwrap().unwrap();
        assert_eq!(labels.get("team").unwrap().as_deref(), Some(namespace.as_bytes()));
        let images = namespace_bucket.bucket("images").unwrap().unwrap();
        let names: Vec<Vec<u8>> = images.entries().map(|entry| entry.unwrap().0).collect();
        assert_eq!(names.len(), 41);
        assert!(names.is_sorted());
        let snapshots = namespace_bucket.bucket("snapshots").unwrap().unwrap();
        assert!(snapshots.bucket("overlayfs").unwrap().unwrap().sequence() >= 2);
        assert!(schema.get(namespace).unwrap().is_none(), "a bucket is no value");
        assert!(labels.bucket("team").unwrap().is_none(), "a value is no bucket");
        assert!(images.bucket("nothing").unwrap().is_none());
    }
    drop(database);
    assert!(all(&path).unwrap().len() > 700);
}

#[test]
fn any_changed_byte_is_an_error_or_another_value_and_never_a_panic_or_endless_work() {
    let files = Files::new();
    let original = recorded();
    let cases: u32 =
        std::env::var("GANTRY_BOLT_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(1500);
    let mut random = StdRng::seed_from_u64(0xB017);
    let (mut refused, begun) = (0, Instant::now());
    for case in 0..cases {
        let mut bytes = original.clone();
        for _ in 0..random.random_range(1..6) {
            let page = random.random_range(0..bytes.len() / PAGE) * PAGE;
            // Headers and tables are where structure is.
            let within = if random.random_bool(0.7) {
                random.random_range(0..400)
            } else {
                random.random_range(0..PAGE)
            };
            bytes[page + within] = match random.random_range(0..4) {
                0 => 0,
                1 => 0xff,
                2 => bytes[page + within] ^ (1 << random.random_range(0..8)),
                _ => random.random(),
            };
        }
        if random.random_bool(0.1) {
            let to = random.random_range(0..bytes.len() / PAGE) * PAGE;
            let from = random.random_range(0..bytes.len() / PAGE) * PAGE;
            bytes.copy_within(from..from + PAGE, to);
        }
        if random.random_bool(0.05) {
            bytes.truncate(random.random_range(0..bytes.len()));
        }
        if let Err(error) = all(&files.with(&bytes)) {
            assert_eq!(error.kind(), ErrorKind::DataLoss, "case {case}: {error}");
            assert!(error.to_string().contains("meta.db"), "{error}");
            refused += 1;
        }
    }
    assert!(refused > cases / 20, "most of the structure is looked at: {refused} of {cases}");
    assert!(begun.elapsed() < Duration::from_millis(u64::from(cases) * 100), "{:?}", begun.elapsed());
}

/// Changes the root page of the bucket `key` to what `to` makes of the pages, wherever a leaf says it.
fn redirect(bytes: &mut [u8], key: &[u8], to: u64) {
    let mut changed = 0;
    for page in 2..bytes.len() / PAGE {
        let at = page * PAGE;
        if bytes[at + 8] != 2 {
            continue;
        }
        let u32_at =
            |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        for element in 0..usize::from(u16::from_le_bytes(bytes[at + 10..at + 12].try_into().unwrap())) {
            let element = at + 16 + element * 16;
            let (flags, start) = (u32_at(bytes, element), element + u32_at(bytes, element + 4));
            let key_size = u32_at(bytes, element + 8);
            if flags == 1 && bytes.get(start..start + key_size) == Some(key) {
                bytes[start + key_size..start + key_size + 8].copy_from_slice(&to.to_le_bytes());
                changed += 1;
            }
        }
    }
    assert!(changed > 0);
}

#[test]
fn a_bucket_that_holds_itself_has_an_end() {
    let files = Files::new();
    let mut bytes = recorded();
    let root = |bytes: &[u8], meta: usize| {
        u64::from_le_bytes(bytes[meta * PAGE + 32..meta * PAGE + 40].try_into().unwrap())
    };
    // Both metas' roots, whichever is the later one.
    let roots = [root(&bytes, 0), root(&bytes, 1)];
    redirect(&mut bytes, b"images", roots[0]);
    let error = all(&files.with(&bytes)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    assert!(error.to_string().contains("used twice") || error.to_string().contains("page"), "{error}");
    let mut bytes = recorded();
    redirect(&mut bytes, b"images", u64::MAX / 2);
    let error = all(&files.with(&bytes)).unwrap_err();
    assert!(error.to_string().contains("lie outside"), "{error}");
}

#[test]
fn a_torn_meta_page_leaves_the_other_one() {
    let files = Files::new();
    let original = recorded();
    let newest = Database::open(files.with(&original)).unwrap().txid();
    let mut seen = Vec::new();
    for meta in [0, 1] {
        let mut bytes = original.clone();
        bytes[meta * PAGE + 40] ^= 1;
        seen.push(Database::open(files.with(&bytes)).unwrap().txid());
    }
    seen.sort_unstable();
    assert_eq!(seen, [newest - 1, newest]);
    let mut bytes = original;
    bytes[40] ^= 1;
    bytes[PAGE + 40] ^= 1;
    let error = Database::open(files.with(&bytes)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
}

#[test]
fn what_is_no_file_of_this_kind_is_refused() {
    let files = Files::new();
    for bytes in [&b""[..], b"x", &[0; 100_000], b"SQLite format 3\0"] {
        let error = Database::open(files.with(bytes)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
    }
    let error = Database::open(files.dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert_eq!(Database::open(files.dir.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
}

//! bbolt files: any bytes are read to an end or are damage, whatever their pages say of each other. The sums of the meta pages
//! are made right first, since nothing behind a wrong one is looked at.
#![no_main]

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;

use gantry_bolt::{Bucket, Database, Item};
use gantry_core::{ErrorKind, Result};

/// Longer files only take longer.
const MAX_BYTES: usize = 1 << 20;

/// Makes the sums of the meta pages right: one at the beginning, one at the size of a page that the first one says.
fn with_sums(input: &[u8]) -> Vec<u8> {
    let mut bytes = input[..input.len().min(MAX_BYTES)].to_vec();
    let size = bytes.get(24..28).map_or(0, |size| u32::from_le_bytes(size.try_into().expect("four bytes")));
    for at in [0, size as usize] {
        if let Some(meta) = bytes.get_mut(at.saturating_add(16)..at.saturating_add(80)) {
            // Source: FNV-1a, as in lib/bolt.
            let sum = meta[..56].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
            meta[56..].copy_from_slice(&sum.to_le_bytes());
        }
    }
    bytes
}

/// Reads everything, each value by its key as well. How many keys there were.
fn walk(bucket: &Bucket<'_>) -> Result<usize> {
    let mut count = 0;
    for entry in bucket.entries() {
        let (key, item) = entry?;
        count += 1;
        match item {
            Item::Value(value) => assert_eq!(bucket.get(&key)?, Some(value), "a value by its key"),
            Item::Bucket(inner) => {
                assert!(bucket.bucket(&key)?.is_some(), "a bucket by its key");
                count += walk(&inner)?;
            }
        }
    }
    Ok(count)
}

fn read(file: &File) -> Result<usize> {
    let database = Database::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    walk(&database.root()?)
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create("bolt", flags).expect("a file in memory"));
    let bytes = with_sums(input);
    file.write_all(&bytes).and_then(|()| file.seek(SeekFrom::Start(0))).expect("memory takes it");
    match read(&file) {
        // An element takes 16 bytes.
        Ok(count) => assert!(count <= bytes.len() / 16, "{count} keys in {} bytes", bytes.len()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}"),
    }
});

use std::io::Read;

use gantry_core::ErrorKind;

use super::TarReader;
use crate::header::NewHeader;
use crate::pax;

fn header(kind: u8, path: &[u8], size: u64) -> Vec<u8> {
    NewHeader { path, kind, mode: 0o644, uid: 0, gid: 0, size, mtime: 0, link: b"", device: (0, 0) }
        .encode()
        .to_vec()
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn refused(archive: &[u8]) {
    let mut reader = TarReader::new(archive);
    loop {
        match reader.next_entry() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the archive was taken"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
                return;
            }
        }
    }
}

#[test]
fn extended_headers_beyond_their_limit_are_refused() {
    for kind in [b'x', b'g', b'L', b'K'] {
        let start = header(kind, b"pax", (1 << 20) + 1);
        let endless = (&start[..]).chain(std::io::repeat(b'a'));
        let error = TarReader::new(endless).next_entry().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        refused(&[header(kind, b"pax", 1 << 20), vec![b'a'; 1000]].concat());
    }
}

#[test]
fn records_override_the_header_and_empty_ones_do_not() {
    let mut records = Vec::new();
    for (key, value) in
        [("path", "long/name"), ("size", "3"), ("uid", "70000000"), ("linkpath", ""), ("mtime", "1.5")]
    {
        pax::encode(key.as_bytes(), value.as_bytes(), &mut records);
    }
    let size = records.len() as u64;
    let archive =
        [header(b'x', b"p", size), padded(records), header(b'0', b"short", 99), padded(b"abc".to_vec())];
    let archive = archive.concat();
    let mut reader = TarReader::new(&archive[..]);
    let entry = reader.next_entry().unwrap().unwrap();
    assert_eq!(
        (&entry.path[..], entry.size_bytes, entry.uid, entry.mtime.nanos),
        (&b"long/name"[..], 3, 70_000_000, 500_000_000)
    );
    let mut content = String::new();
    reader.read_to_string(&mut content).unwrap();
    assert_eq!(content, "abc");
    assert!(reader.next_entry().unwrap().is_none());
}

#[test]
fn a_global_header_changes_no_entry() {
    let mut records = Vec::new();
    pax::encode(b"path", b"everything", &mut records);
    let size = records.len() as u64;
    let archive = [header(b'g', b"p", size), padded(records), header(b'0', b"own", 0)].concat();
    assert_eq!(TarReader::new(&archive[..]).next_entry().unwrap().unwrap().path, b"own");
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let sparse = |pairs: &[(&str, &str)], data: &[u8]| {
        let mut records = Vec::new();
        for (key, value) in pairs {
            pax::encode(format!("GNU.sparse.{key}").as_bytes(), value.as_bytes(), &mut records);
        }
        let size = records.len() as u64;
        let file = header(b'0', b"f", data.len() as u64);
        [header(b'x', b"p", size), padded(records), file, padded(data.to_vec())].concat()
    };
    let good = sparse(&[("size", "10"), ("map", "2,3,8,2")], b"abcde");
    let mut reader = TarReader::new(&good[..]);
    assert_eq!(reader.next_entry().unwrap().unwrap().size_bytes, 10);
    let mut content = Vec::new();
    reader.read_to_end(&mut content).unwrap();
    assert_eq!(content, b"\0\0abc\0\0\0de");
    for bad in [
        sparse(&[("size", "10"), ("map", "2,3,4,2")], b"abcde"),
        sparse(&[("size", "9"), ("map", "2,3,8,2")], b"abcde"),
        sparse(&[("size", "10"), ("map", "2,3,8")], b"abcde"),
        sparse(&[("size", "10"), ("map", "0,9")], b"abcde"),
        sparse(&[("map", "0,5")], b"abcde"),
        sparse(&[("size", "9223372036854775807"), ("map", "9223372036854775807,9223372036854775807")], b""),
        sparse(&[("major", "1"), ("minor", "0"), ("realsize", "9")], b"99999999\n"),
        sparse(&[("major", "1"), ("minor", "0"), ("realsize", "9")], b"2\n1\n"),
        sparse(&[("major", "2"), ("minor", "0"), ("realsize", "9")], b"0\n"),
    ] {
        refused(&bad);
    }
}

#[test]
fn owners_and_sizes_out_of_range_are_refused() {
    let with = |field: std::ops::Range<usize>, value: &[u8]| {
        let mut block = header(b'0', b"f", 0);
        block[field.clone()].copy_from_slice(value);
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    };
    refused(&with(108..116, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]));
    refused(&with(108..116, &[0xff; 8]));
    refused(&with(124..136, &[0xff; 12]));
    refused(&[header(b'0', b"", 0), vec![0; 512], header(b'0', b"f", 0)].concat());
}

#[test]
fn random_bytes_never_panic() {
    // A fixed sequence: a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut records = Vec::new();
    pax::encode(b"GNU.sparse.map", b"0,1,5,2", &mut records);
    pax::encode(b"GNU.sparse.size", b"9", &mut records);
    let seed = [
        header(b'x', b"p", records.len() as u64),
        padded(records),
        header(b'0', b"f", 3),
        padded(b"abc".to_vec()),
        header(b'S', b"s", 3),
        padded(b"abc".to_vec()),
        header(b'L', b"l", 9),
        padded(b"long name".to_vec()),
        header(b'5', b"d", 0),
    ]
    .concat();
    for _ in 0..20_000 {
        let mut archive = seed.clone();
        for _ in 0..next() % 4 + 1 {
            let at = next() as usize % archive.len();
            archive[at] = next() as u8;
            // Most changes would end at the sum: it is made right again.
            let start = at / 512 * 512;
            let block = &mut archive[start..start + 512];
            block[148..156].fill(b' ');
            let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let mut reader = TarReader::new(&archive[..]);
        for _ in 0..20 {
            match reader.next_entry() {
                Ok(Some(_)) => drop(std::io::copy(&mut reader.by_ref().take(1 << 16), &mut std::io::sink())),
                Ok(None) | Err(_) => break,
            }
        }
    }
}

//! Fetching blobs from servers that break off, trickle, lie and forget.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::server::*;
use gantry_core::{Digest, ErrorKind};
use gantry_registry::{FetchOptions, RegistryOptions};
use sha2::Digest as _;

/// A server of one blob that knows ranges, and lets `spoil` answer first; that says whether it did.
fn serving(
    blob: &[u8],
    spoil: impl Fn(usize, &Seen, &mut Out<'_>) -> bool + Send + Sync + 'static,
) -> Server {
    let (blob, count) = (blob.to_vec(), AtomicUsize::new(0));
    Server::start(move |seen, out| {
        if spoil(count.fetch_add(1, Ordering::Relaxed), seen, out) {
            return;
        }
        match seen.header("range") {
            None => out.reply("200 OK", &[], &blob),
            Some(range) => {
                let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
                let line = format!("Content-Range: bytes {start}-{end}/{}", blob.len());
                out.reply("206 Partial Content", &[&line], &blob[start..=end]);
            }
        }
    })
}

async fn fetch(server: &Server, blob: &[u8]) -> gantry_core::Result<Vec<u8>> {
    read_all(at(server).await.fetch_blob(&layer(blob), FetchOptions::default()).await?).await
}

#[tokio::test]
async fn a_blob_arrives_whole() {
    let blob = noise(3 << 20);
    let server = serving(&blob, |_, _, _| false);
    assert_eq!(fetch(&server, &blob).await.unwrap(), blob);
    assert_eq!(server.lines(), [format!("GET /v2/app/x/blobs/{}", digest(&blob))]);
    assert_eq!(server.seen()[0].header("range"), None);
    assert_eq!(server.seen()[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn an_empty_blob_needs_no_request() {
    let server = serving(b"", |_, _, _| false);
    assert_eq!(fetch(&server, b"").await.unwrap(), b"");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_resumed_where_it_stopped() {
    let blob = noise(100_000);
    let copy = blob.clone();
    let server = serving(&blob, move |nth, seen, out| {
        if nth >= 3 {
            return false;
        }
        let start = seen.range_start();
        let length = copy.len() - start;
        let line = format!("Content-Range: bytes {start}-{}/{}", copy.len() - 1, copy.len());
        let status = if start == 0 { "200 OK" } else { "206 Partial Content" };
        out.head(status, &[&line], length);
        out.bytes(&copy[start..start + 20_000]);
        true
    });
    assert_eq!(fetch(&server, &blob).await.unwrap(), blob);
    let ranges: Vec<_> = server.seen().iter().map(Seen::range_start).collect();
    assert_eq!(ranges, [0, 20_000, 40_000, 60_000]);
}

#[tokio::test]
async fn a_server_that_does_not_know_ranges_is_read_from_the_start_again() {
    let blob = noise(100_000);
    let copy = blob.clone();
    let server = serving(&blob, move |nth, _, out| {
        out.head("200 OK", &[], copy.len());
        out.bytes(if nth == 0 { &copy[..30_000] } else { &copy });
        true
    });
    assert_eq!(fetch(&server, &blob).await.unwrap(), blob);
    assert_eq!(server.seen()[1].range_start(), 30_000);
}

#[tokio::test]
async fn a_trickle_is_given_up_and_dialled_again() {
    let blob = noise(50_000);
    let copy = blob.clone();
    let server = serving(&blob, move |nth, _, out| {
        if nth > 0 {
            return false;
        }
        out.head("200 OK", &[], copy.len());
        for byte in &copy {
            if std::io::Write::write_all(out.0, &[*byte]).is_err() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        true
    });
    assert_eq!(fetch(&server, &blob).await.unwrap(), blob);
    assert_eq!(server.seen().len(), 2);
    assert!(server.seen()[1].range_start() > 0);
}

#[tokio::test]
async fn a_server_that_stands_still_fails_in_the_end() {
    let blob = noise(50_000);
    let copy = blob.clone();
    let server = serving(&blob, move |_, seen, out| {
        let start = seen.range_start();
        let line = format!("Content-Range: bytes {start}-{}/{}", copy.len() - 1, copy.len());
        out.head(if start == 0 { "200 OK" } else { "206 Partial Content" }, &[&line], copy.len() - start);
        out.bytes(&copy[start..start + 10]);
        out.wait_for_the_end();
        true
    });
    let error = fetch(&server, &blob).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("stalls"), "{error}");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_reader_that_takes_its_time_is_no_stall() {
    let blob = noise(4 << 20);
    let server = serving(&blob, |_, _, _| false);
    let mut reader = at(&server).await.fetch_blob(&layer(&blob), FetchOptions::default()).await.unwrap();
    let mut all = reader.next().await.unwrap().unwrap().to_vec();
    // Longer than the window of the stall rule.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    while let Some(piece) = reader.next().await.unwrap() {
        all.extend_from_slice(&piece);
    }
    assert_eq!(all, blob);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn bytes_without_their_digest_are_refused() {
    let blob = noise(50_000);
    let mut wrong = blob.clone();
    wrong[40_000] ^= 1;
    let server = serving(&wrong, |_, _, _| false);
    let error = fetch(&server, &blob).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    assert!(error.to_string().contains(digest(&blob).as_str()), "{error}");
}

#[tokio::test]
async fn a_blob_of_another_length_is_refused() {
    let blob = noise(50_000);
    for length in [49_999, 50_001] {
        let other = noise(length);
        let server = serving(&other, |_, _, _| false);
        assert_eq!(fetch(&server, &blob).await.unwrap_err().kind(), ErrorKind::FailedPrecondition);
        // Without a length it shows only while reading.
        let server = serving(&other.clone(), move |_, seen, out| {
            if seen.header("range").is_some() {
                out.reply("416 Range Not Satisfiable", &[], b"");
                return true;
            }
            out.bytes(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            out.bytes(&other);
            true
        });
        fetch(&server, &blob).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_range_of_other_bytes_is_refused() {
    let blob = noise(50_000);
    let copy = blob.clone();
    let server = serving(&blob, move |nth, seen, out| {
        match nth {
            0 => {
                out.head("200 OK", &[], copy.len());
                out.bytes(&copy[..20_000]);
            }
            _ => {
                let line = format!("Content-Range: bytes {}-49999/50000", seen.range_start() - 1);
                out.reply("206 Partial Content", &[&line], &copy[seen.range_start() - 1..]);
            }
        }
        true
    });
    let error = fetch(&server, &blob).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
}

#[tokio::test]
async fn a_part_is_fetched_alone() {
    let blob = noise(50_000);
    for known in [true, false] {
        let copy = blob.clone();
        let server = serving(&blob, move |_, _, out| {
            if !known {
                out.reply("200 OK", &[], &copy);
            }
            !known
        });
        let repository = at(&server).await;
        let options = FetchOptions { range: Some(1000..3000), ..FetchOptions::default() };
        let reader = repository.fetch_blob(&layer(&blob), options).await.unwrap();
        assert_eq!(read_all(reader).await.unwrap(), &blob[1000..3000]);
        assert_eq!(server.seen()[0].header("range"), Some("bytes=1000-2999"));
        let beyond = FetchOptions { range: Some(0..50_001), ..FetchOptions::default() };
        let error = repository.fetch_blob(&layer(&blob), beyond).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfRange);
    }
}

#[tokio::test]
async fn another_host_takes_over_in_the_middle() {
    let blob = noise(100_000);
    let copy = blob.clone();
    let dying = serving(&blob, move |nth, _, out| {
        if nth == 0 {
            out.head("200 OK", &[], copy.len());
            out.bytes(&copy[..30_000]);
        }
        // Afterwards it only hangs up.
        true
    });
    let origin = serving(&blob, |_, _, _| false);
    let text = format!("server = 'http://{}'\n[host.'http://{}']\n", origin.address, dying.address);
    let (_dir, hosts) = hosts("r.example", &text);
    let repository = repository("r.example/app/x:t", RegistryOptions { hosts, ..options() }).await;
    let mut reader = repository.fetch_blob(&layer(&blob), FetchOptions::default()).await.unwrap();
    assert_eq!(reader.source(), Some(dying.address.clone()));
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        all.extend_from_slice(&piece);
        assert_eq!(reader.offset() as usize, all.len());
    }
    assert_eq!(all, blob);
    assert_eq!(origin.seen()[0].range_start(), 30_000);
}

#[tokio::test]
async fn an_absent_blob_is_known_before_anything_is_read() {
    let server = Server::start(|_, out| out.reply("404 Not Found", &[], b""));
    let error =
        at(&server).await.fetch_blob(&layer(b"x"), FetchOptions::default()).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    assert!(
        text.contains(digest(b"x").as_str()) && text.contains("app/x") && text.contains(&server.address),
        "{text}"
    );
}

#[tokio::test]
async fn other_digest_algorithms_are_checked_too() {
    let blob = noise(10_000);
    let sum: String = sha2::Sha512::digest(&blob).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut descriptor = layer(&blob);
    descriptor.digest = Digest::parse(format!("sha512:{sum}")).unwrap();
    let server = serving(&blob, |_, _, _| false);
    let repository = at(&server).await;
    let reader = repository.fetch_blob(&descriptor, FetchOptions::default()).await.unwrap();
    assert_eq!(read_all(reader).await.unwrap(), blob);
    descriptor.digest = Digest::parse(format!("sha512:{}", sum.replace(['0', '1'], "2"))).unwrap();
    let reader = repository.fetch_blob(&descriptor, FetchOptions::default()).await.unwrap();
    read_all(reader).await.unwrap_err();
}

#[tokio::test]
async fn a_document_is_checked_and_bounded() {
    let body = manifest();
    let wanted = descriptor(gantry_oci::media_types::OCI_MANIFEST, &body);
    let server = Server::start(move |_, out| out.reply("200 OK", &[], &body));
    assert_eq!(&at(&server).await.fetch_document(&wanted).await.unwrap()[..], &manifest()[..]);
    assert_eq!(server.lines(), [format!("GET /v2/app/x/manifests/{}", wanted.digest)]);
    for spoiled in
        [[manifest(), b" ".to_vec()].concat(), manifest()[1..].to_vec(), vec![b' '; manifest().len()]]
    {
        let server = Server::start(move |_, out| out.reply("200 OK", &[], &spoiled));
        let error = at(&server).await.fetch_document(&wanted).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    }
    // A plain copy of a registry may have it among its blobs.
    let server = Server::start(|seen, out| match seen.path().contains("/blobs/") {
        true => out.reply("200 OK", &[], &manifest()),
        false => out.reply("404 Not Found", &[], b""),
    });
    at(&server).await.fetch_document(&wanted).await.unwrap();
    let mut huge = wanted.clone();
    huge.size_bytes = 1 << 40;
    assert_eq!(at(&server).await.fetch_document(&huge).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

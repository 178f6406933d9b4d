//! The digest of a blob's bytes.

use std::io::Read as _;
use std::sync::Arc;

use gantry_core::content::ContentReader;
use gantry_core::maintenance::check::CheckEvent;
use gantry_core::{Context, Digest, Error, ErrorKind, Result, ResultExt as _};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tokio::sync::mpsc;

use crate::database::Inner;

/// How much is read at a time.
const CHUNK_BYTES: usize = 1 << 20;

enum Hasher {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    fn of(digest: &Digest) -> Hasher {
        match digest.algorithm() {
            "sha384" => Hasher::Sha384(Sha384::new()),
            "sha512" => Hasher::Sha512(Sha512::new()),
            _ => Hasher::Sha256(Sha256::new()),
        }
    }

    fn update(&mut self, data: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(data),
            Hasher::Sha384(hasher) => hasher.update(data),
            Hasher::Sha512(hasher) => hasher.update(data),
        }
    }

    fn matches(self, digest: &Digest) -> bool {
        let sum = match self {
            Hasher::Sha256(hasher) => hasher.finalize().to_vec(),
            Hasher::Sha384(hasher) => hasher.finalize().to_vec(),
            Hasher::Sha512(hasher) => hasher.finalize().to_vec(),
        };
        let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        hex == digest.hex()
    }
}

/// Reads a blob whole; whether its bytes have its digest.
///
/// # Errors
/// `NotFound` if there is no such file; `Canceled` if nobody listens on `events` any more; those of reading.
pub(super) async fn is_whole(
    inner: &Inner,
    digest: &Digest,
    events: &mpsc::Sender<Result<CheckEvent>>,
) -> Result<bool> {
    let cx = Context::background();
    let reader = inner.content.reader(&cx, digest).await?;
    if let Some(file) = reader.local_file() {
        let (digest, events) = (digest.clone(), events.clone());
        return inner.blocking(move || hash_file(file, &digest, &events)).await;
    }
    hash_reader(reader, digest, events).await
}

fn gone() -> Error {
    Error::bare(ErrorKind::Canceled)
}

fn hash_file(
    mut file: std::fs::File,
    digest: &Digest,
    events: &mpsc::Sender<Result<CheckEvent>>,
) -> Result<bool> {
    let mut hasher = Hasher::of(digest);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        if events.is_closed() {
            return Err(gone());
        }
        match file.read(&mut chunk).with_context(|| format!("read content {digest}"))? {
            0 => return Ok(hasher.matches(digest)),
            length => hasher.update(&chunk[..length]),
        }
    }
}

async fn hash_reader(
    reader: Arc<dyn ContentReader>,
    digest: &Digest,
    events: &mpsc::Sender<Result<CheckEvent>>,
) -> Result<bool> {
    let mut hasher = Hasher::of(digest);
    let mut offset = 0;
    loop {
        if events.is_closed() {
            return Err(gone());
        }
        let data = reader.read_at(offset, CHUNK_BYTES).await?;
        if data.is_empty() {
            return Ok(hasher.matches(digest));
        }
        hasher.update(&data);
        offset += data.len() as u64;
    }
}

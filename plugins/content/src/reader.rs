//! Reading a blob.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_core::content::ContentReader;
use gantry_core::{Digest, Error, Result};

use crate::blocking::Blocking;

/// The most that is read at once, whatever is asked for.
const MAX_READ_BYTES: usize = 4 << 20;

/// An open blob. It can be read to its end also after it was deleted.
pub(crate) struct LocalReader {
    pub(crate) digest: Digest,
    pub(crate) file: Arc<File>,
    pub(crate) size_bytes: u64,
    pub(crate) blocking: Arc<Blocking>,
}

#[async_trait]
impl ContentReader for LocalReader {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let left = usize::try_from(self.size_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(left).min(MAX_READ_BYTES);
        if length == 0 {
            return Ok(Bytes::new());
        }
        let (file, digest) = (Arc::clone(&self.file), self.digest.clone());
        self.blocking
            .run(move || {
                let mut data = vec![0u8; length];
                file.read_exact_at(&mut data, offset)
                    .map_err(|error| Error::io(error).context(format!("read content {digest}")))?;
                Ok(Bytes::from(data))
            })
            .await
    }

    fn local_file(&self) -> Option<File> {
        // Opened anew: a duplicate would share its position with others.
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd())).ok()
    }
}

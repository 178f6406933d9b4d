//! The uncompressed stream of a layer, hashed as it is read.

use std::io::{self, Read};

use gantry_core::{Context, Digest, Result};
use sha2::{Digest as _, Sha256};

use crate::failure::{from_read, into_io};

/// How much is read and hashed at once.
const BUFFER_BYTES: usize = 128 << 10;

/// A stream that fails once the call it serves was given up.
pub struct Cancellable<'a, R> {
    cx: &'a Context,
    inner: R,
}

impl<'a, R: Read> Cancellable<'a, R> {
    /// Reads `inner` for as long as `cx` lasts.
    pub fn new(cx: &'a Context, inner: R) -> Self {
        Cancellable { cx, inner }
    }
}

impl<R: Read> Read for Cancellable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cx.check().map_err(into_io)?;
        self.inner.read(buffer)
    }
}

/// Reads a stream in large pieces and hashes every byte of it, so that what follows the archive's end counts too.
pub struct LayerStream<R> {
    inner: R,
    hash: Sha256,
    size_bytes: u64,
    buffer: Box<[u8]>,
    unread: std::ops::Range<usize>,
}

impl<R: Read> LayerStream<R> {
    /// Hashes `inner`, which is not compressed (any more).
    pub fn new(inner: R) -> Self {
        let buffer = vec![0u8; BUFFER_BYTES].into_boxed_slice();
        LayerStream { inner, hash: Sha256::new(), size_bytes: 0, buffer, unread: 0..0 }
    }

    /// Reads on to the end, and gives the digest and the size of the whole: the diff id of a layer.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn finish(mut self) -> Result<(Digest, u64)> {
        while self.fill().map_err(from_read)? > 0 {}
        Ok((Digest::sha256(self.hash.finalize()), self.size_bytes))
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut filled = 0;
        // Decoders give small pieces; hashing prefers large ones.
        while filled < self.buffer.len() {
            match self.inner.read(&mut self.buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.hash.update(&self.buffer[..filled]);
        self.size_bytes += filled as u64;
        self.unread = 0..filled;
        Ok(filled)
    }
}

impl<R: Read> Read for LayerStream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() && self.fill()? == 0 {
            return Ok(0);
        }
        let count = buffer.len().min(self.unread.len());
        let start = self.unread.start;
        buffer[..count].copy_from_slice(&self.buffer[start..start + count]);
        self.unread.start += count;
        Ok(count)
    }
}

//! Content as blocking streams.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use gantry_core::content::{ContentReader, ContentWriter};
use gantry_core::{Context, Error, Result};
use tokio::runtime::Handle;

/// How much is asked for, or handed on, at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Reads a blob from its start. Blocks: only for threads of the blocking pool.
pub(crate) enum ContentStream {
    /// From its file.
    File(File),
    /// Piece by piece through its reader.
    Reader { cx: Context, runtime: Handle, reader: Arc<dyn ContentReader>, offset: u64, chunk: Bytes },
}

impl ContentStream {
    pub(crate) fn new(cx: &Context, runtime: &Handle, reader: &Arc<dyn ContentReader>) -> Self {
        match reader.local_file() {
            Some(file) => ContentStream::File(file),
            None => ContentStream::Reader {
                cx: cx.clone(),
                runtime: runtime.clone(),
                reader: Arc::clone(reader),
                offset: 0,
                chunk: Bytes::new(),
            },
        }
    }
}

impl Read for ContentStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (cx, runtime, reader, offset, chunk) = match self {
            ContentStream::File(file) => return file.read(buffer),
            ContentStream::Reader { cx, runtime, reader, offset, chunk } => {
                (cx, runtime, reader, offset, chunk)
            }
        };
        if chunk.is_empty() {
            let read = waiting(cx, runtime, reader.read_at(*offset, CHUNK_BYTES));
            *chunk = read.map_err(io::Error::other)?;
            *offset += chunk.len() as u64;
        }
        let count = chunk.len().min(buffer.len());
        chunk.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Writes an ingest. Blocks: only for threads of the blocking pool.
pub(crate) struct ContentSink<'a> {
    cx: &'a Context,
    runtime: &'a Handle,
    writer: &'a mut dyn ContentWriter,
    buffer: Vec<u8>,
}

impl<'a> ContentSink<'a> {
    pub(crate) fn new(cx: &'a Context, runtime: &'a Handle, writer: &'a mut dyn ContentWriter) -> Self {
        ContentSink { cx, runtime, writer, buffer: Vec::with_capacity(CHUNK_BYTES) }
    }

    fn hand_on(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        waiting(self.cx, self.runtime, self.writer.write(Bytes::from(data))).map_err(io::Error::other)
    }
}

impl Write for ContentSink<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= CHUNK_BYTES {
            self.hand_on()?;
        }
        let count = data.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&data[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_on()
    }
}

/// Waits for a store, but no longer than for the caller.
pub(crate) fn waiting<T>(cx: &Context, runtime: &Handle, work: impl Future<Output = Result<T>>) -> Result<T> {
    runtime.block_on(async {
        tokio::select! {
            done = work => done,
            () = cx.cancellation().cancelled() => Err(Error::bare(gantry_core::ErrorKind::Canceled)),
        }
    })
}

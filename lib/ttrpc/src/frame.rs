//! A frame: ten bytes of header, then at most 4 MiB of payload.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::net::unix::OwnedReadHalf;

/// Length of a frame's header. Source: the ttrpc protocol description, "Message format".
pub const HEADER_BYTES: usize = 10;

/// The longest payload of a frame. Source: the ttrpc protocol description, `messageLengthMax` of its Go library.
pub const MAX_PAYLOAD_BYTES: usize = 4 << 20;

/// What one read asks the kernel for at least; held only while a frame is incomplete.
const READ_BYTES: usize = 4096;

/// The most one read of a long frame asks for, so that a length alone never allocates its frame.
const READ_LONG_BYTES: usize = 64 << 10;

/// What a frame is. Source: the ttrpc protocol description, "Message types".
pub mod kind {
    /// A call's start, from the client.
    pub const REQUEST: u8 = 1;
    /// A call's end, from the server.
    pub const RESPONSE: u8 = 2;
    /// A message within a stream, either way.
    pub const DATA: u8 = 3;
}

/// A frame's flags. Source: the ttrpc protocol description, "Message flags".
pub mod flags {
    /// The sender will send no more on this stream.
    pub const REMOTE_CLOSED: u8 = 1;
    /// The sender will send more on this stream.
    pub const REMOTE_OPEN: u8 = 2;
    /// The frame carries no message, not even an empty one.
    pub const NO_DATA: u8 = 4;
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Payload length.
    pub length_bytes: u32,
    /// Which call it belongs to. A client's are odd and rise.
    pub stream_id: u32,
    /// One of [`kind`]; others are ignored.
    pub kind: u8,
    /// Bits of [`flags`].
    pub flags: u8,
}

impl Header {
    /// Reads a header from its ten bytes.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Header {
        let mut rest = &bytes[..];
        Header {
            length_bytes: rest.get_u32(),
            stream_id: rest.get_u32(),
            kind: rest.get_u8(),
            flags: rest.get_u8(),
        }
    }

    /// The ten bytes of this header.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&self.length_bytes.to_be_bytes());
        out[4..8].copy_from_slice(&self.stream_id.to_be_bytes());
        out[8] = self.kind;
        out[9] = self.flags;
        out
    }

    /// Whether all bits of `flag` are set.
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag == flag
    }
}

/// A frame ready to be written: header and payload in one buffer, so that it leaves in one call.
pub(crate) fn encode(stream_id: u32, kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length_bytes = u32::try_from(payload.len()).expect("callers check MAX_PAYLOAD_BYTES");
    let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
    out.extend_from_slice(&Header { length_bytes, stream_id, kind, flags }.to_bytes());
    out.extend_from_slice(payload);
    out
}

/// What came in.
#[derive(Debug)]
pub enum Incoming {
    /// A whole frame.
    Frame(Header, Bytes),
    /// The header of a frame that is too long; its payload is being discarded.
    TooLong(Header),
}

/// Reads frames from one half of a connection. It holds no memory while the connection is idle.
#[derive(Debug)]
pub struct FrameReader {
    io: OwnedReadHalf,
    pending: BytesMut,
    /// How much of an overlong payload is still to be thrown away.
    discard_bytes: usize,
}

impl FrameReader {
    /// A reader of `io`.
    pub fn new(io: OwnedReadHalf) -> Self {
        FrameReader { io, pending: BytesMut::new(), discard_bytes: 0 }
    }

    /// The next frame, or `None` when the peer closed between two frames.
    ///
    /// Dropping the future loses nothing: what was read stays here.
    ///
    /// # Errors
    /// `UnexpectedEof` when the peer closed within a frame; otherwise what the kernel said.
    pub async fn next(&mut self) -> io::Result<Option<Incoming>> {
        loop {
            if let Some(incoming) = self.parse() {
                return Ok(Some(incoming));
            }
            if !self.fill().await? {
                if self.pending.is_empty() && self.discard_bytes == 0 {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn parse(&mut self) -> Option<Incoming> {
        let header = self.header()?;
        let length = header.length_bytes as usize;
        if length > MAX_PAYLOAD_BYTES {
            self.pending.advance(HEADER_BYTES);
            self.discard_bytes = length;
            self.discard();
            return Some(Incoming::TooLong(header));
        }
        if self.pending.len() < HEADER_BYTES + length {
            return None;
        }
        let mut frame = self.pending.split_to(HEADER_BYTES + length).freeze();
        frame.advance(HEADER_BYTES);
        Some(Incoming::Frame(header, frame))
    }

    fn header(&self) -> Option<Header> {
        if self.discard_bytes > 0 {
            return None;
        }
        self.pending.first_chunk::<HEADER_BYTES>().map(Header::parse)
    }

    fn discard(&mut self) {
        let now = self.discard_bytes.min(self.pending.len());
        self.pending.advance(now);
        self.discard_bytes -= now;
    }

    /// How much the frame at the front still lacks, bounded on both sides.
    fn wanted(&self) -> usize {
        let whole = match self.header() {
            Some(header) => HEADER_BYTES + header.length_bytes as usize,
            None => self.discard_bytes,
        };
        whole.saturating_sub(self.pending.len()).clamp(READ_BYTES, READ_LONG_BYTES)
    }

    /// Waits for bytes and reads once; false at the end.
    async fn fill(&mut self) -> io::Result<bool> {
        loop {
            if self.pending.is_empty() {
                self.pending = BytesMut::new();
            }
            self.io.readable().await?;
            let wanted = self.wanted();
            self.pending.reserve(wanted);
            match self.io.try_read_buf(&mut self.pending) {
                Ok(0) => return Ok(false),
                Ok(_) => {
                    self.discard();
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    fn pair() -> (UnixStream, FrameReader) {
        let (near, far) = UnixStream::pair().unwrap();
        let (read, write) = far.into_split();
        write.forget();
        (near, FrameReader::new(read))
    }

    #[tokio::test]
    async fn a_frame_that_arrives_byte_by_byte_is_whole() {
        let (mut near, mut reader) = pair();
        let bytes = encode(7, kind::DATA, flags::REMOTE_OPEN, b"hello");
        let writer = async {
            for byte in bytes {
                near.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (got, ()) = tokio::join!(reader.next(), writer);
        let Some(Incoming::Frame(header, payload)) = got.unwrap() else { panic!("no frame") };
        assert_eq!((header.stream_id, header.kind, header.flags), (7, kind::DATA, flags::REMOTE_OPEN));
        assert_eq!(&payload[..], b"hello");
    }

    #[tokio::test]
    async fn an_overlong_frame_is_reported_and_its_payload_thrown_away() {
        let (mut near, mut reader) = pair();
        let length = MAX_PAYLOAD_BYTES + 1;
        let header = Header {
            length_bytes: u32::try_from(length).unwrap(),
            stream_id: 1,
            kind: kind::REQUEST,
            flags: 0,
        };
        let writer = async {
            near.write_all(&header.to_bytes()).await.unwrap();
            near.write_all(&vec![0xff; length]).await.unwrap();
            near.write_all(&encode(3, kind::REQUEST, 0, b"after")).await.unwrap();
        };
        let reading = async {
            let first = reader.next().await.unwrap();
            let second = reader.next().await.unwrap();
            (first, second, reader.pending.capacity())
        };
        let ((first, second, held), ()) = tokio::join!(reading, writer);
        assert!(matches!(first, Some(Incoming::TooLong(h)) if h.stream_id == 1));
        assert!(matches!(second, Some(Incoming::Frame(h, p)) if h.stream_id == 3 && &p[..] == b"after"));
        assert!(held <= 2 * READ_LONG_BYTES, "{held} bytes are held after a discard");
    }

    #[tokio::test]
    async fn a_length_alone_allocates_little() {
        let (mut near, mut reader) = pair();
        let header = Header {
            length_bytes: u32::try_from(MAX_PAYLOAD_BYTES).unwrap(),
            stream_id: 1,
            kind: kind::REQUEST,
            flags: 0,
        };
        near.write_all(&header.to_bytes()).await.unwrap();
        near.write_all(b"few").await.unwrap();
        drop(near);
        assert_eq!(reader.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(reader.pending.capacity() <= 2 * READ_LONG_BYTES);
    }

    #[tokio::test]
    async fn the_end_between_frames_is_no_error() {
        let (mut near, mut reader) = pair();
        near.write_all(&encode(1, kind::REQUEST, 0, b"")).await.unwrap();
        drop(near);
        assert!(matches!(reader.next().await.unwrap(), Some(Incoming::Frame(..))));
        assert!(reader.next().await.unwrap().is_none());
    }
}

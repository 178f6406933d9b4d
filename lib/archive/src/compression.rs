//! Compressed streams: gzip, zstd, plain.

use std::io::{self, BufReader, Chain, Cursor, Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use gantry_core::{Error, ErrorKind, Result};

use crate::failure::{from_read, from_write};

/// How much is read at once.
const BUFFER_BYTES: usize = 64 << 10;
/// The largest window a zstd stream may ask for: 128 MiB, which is what `zstd` itself takes without being told more.
/// Source: zstd's manual, "--long".
const MAX_ZSTD_WINDOW_LOG: u32 = 27;
/// Source: RFC 1952, section 2.3.1, with the only method there is.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 0x08];
/// Source: RFC 8878, section 3.1.1.
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// The last three bytes of a skippable frame's magic; the first is 0x50 to 0x5f. Source: RFC 8878, section 3.1.2.
const ZSTD_SKIPPABLE_MAGIC: &[u8] = &[0x2a, 0x4d, 0x18];

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Compression {
    /// What the first bytes of a stream (ten are enough) say about it.
    pub fn detect(start: &[u8]) -> Compression {
        if start.starts_with(GZIP_MAGIC) {
            return Compression::Gzip;
        }
        let skippable = start.len() >= 4 && start[0] & 0xf0 == 0x50 && &start[1..4] == ZSTD_SKIPPABLE_MAGIC;
        if start.starts_with(ZSTD_MAGIC) || skippable { Compression::Zstd } else { Compression::None }
    }
}

/// A stream whose first bytes were looked at and put back.
type Input<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// Reads what a compressed stream holds. Members and frames that follow each other are one stream; skippable frames
/// are skipped. Memory is bounded by the format's window.
pub struct Decompressor<R: Read> {
    decoder: Decoder<R>,
}

enum Decoder<R: Read> {
    None(Input<R>),
    Gzip(Box<MultiGzDecoder<Input<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Input<R>>>),
}

impl<R: Read> Decompressor<R> {
    /// Reads `inner` by what its first bytes say.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn detect(mut inner: R) -> Result<Self> {
        let mut start = Vec::new();
        inner.by_ref().take(4).read_to_end(&mut start).map_err(from_read)?;
        let compression = Compression::detect(&start);
        Self::with_start(start, inner, compression)
    }

    /// Reads `inner`, which is compressed as said.
    ///
    /// # Errors
    /// `ResourceExhausted` if no decoder can be made.
    pub fn new(inner: R, compression: Compression) -> Result<Self> {
        Self::with_start(Vec::new(), inner, compression)
    }

    fn with_start(start: Vec<u8>, inner: R, compression: Compression) -> Result<Self> {
        let input = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(start).chain(inner));
        let decoder = match compression {
            Compression::None => Decoder::None(input),
            Compression::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(input))),
            Compression::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(input).and_then(|mut decoder| {
                    decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
                    Ok(decoder)
                });
                let exhausted = |error| Error::with_source(ErrorKind::ResourceExhausted, error);
                Decoder::Zstd(Box::new(decoder.map_err(exhausted)?))
            }
        };
        Ok(Decompressor { decoder })
    }

    /// How the stream is compressed.
    pub fn compression(&self) -> Compression {
        match self.decoder {
            Decoder::None(_) => Compression::None,
            Decoder::Gzip(_) => Compression::Gzip,
            Decoder::Zstd(_) => Compression::Zstd,
        }
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.decoder {
            Decoder::None(input) => input.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// Compresses what is written. The same bytes always give the same stream.
pub struct Compressor<W: Write> {
    encoder: Encoder<W>,
}

enum Encoder<W: Write> {
    None(W),
    Gzip(Box<GzEncoder<W>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, W>>),
}

impl<W: Write> Compressor<W> {
    /// Writes to `inner`.
    ///
    /// # Errors
    /// `ResourceExhausted` if no encoder can be made.
    pub fn new(inner: W, compression: Compression) -> Result<Self> {
        let encoder = match compression {
            Compression::None => Encoder::None(inner),
            Compression::Gzip => {
                Encoder::Gzip(Box::new(GzEncoder::new(inner, flate2::Compression::default())))
            }
            Compression::Zstd => {
                let exhausted = |error| Error::with_source(ErrorKind::ResourceExhausted, error);
                // 0 is zstd's own default level.
                Encoder::Zstd(Box::new(zstd::stream::write::Encoder::new(inner, 0).map_err(exhausted)?))
            }
        };
        Ok(Compressor { encoder })
    }

    /// Ends the stream and gives the one behind it back.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn finish(self) -> Result<W> {
        let finished = match self.encoder {
            Encoder::None(inner) => Ok(inner),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        };
        finished.map_err(from_write)
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match &mut self.encoder {
            Encoder::None(inner) => inner.write(buffer),
            Encoder::Gzip(encoder) => encoder.write(buffer),
            Encoder::Zstd(encoder) => encoder.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.encoder {
            Encoder::None(inner) => inner.flush(),
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(compression: Compression, content: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::new(Vec::new(), compression).unwrap();
        compressor.write_all(content).unwrap();
        compressor.finish().unwrap()
    }

    fn unpacked(stream: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        Decompressor::detect(stream).unwrap().read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn members_and_frames_that_follow_each_other_are_one_stream() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let stream =
                [packed(compression, b"one "), packed(compression, b""), packed(compression, b"two")]
                    .concat();
            assert_eq!(Decompressor::detect(&stream[..]).unwrap().compression(), compression);
            assert_eq!(unpacked(&stream).unwrap(), b"one two");
        }
    }

    #[test]
    fn skippable_frames_are_skipped_wherever_they_stand() {
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let stream = [&skippable[..], &packed(Compression::Zstd, b"data"), &skippable].concat();
        assert_eq!(unpacked(&stream).unwrap(), b"data");
    }

    #[test]
    fn streams_that_are_cut_off_fail() {
        let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        for compression in [Compression::Gzip, Compression::Zstd] {
            let stream = packed(compression, &content);
            assert_eq!(unpacked(&stream).unwrap(), content);
            for cut in [stream.len() - 1, stream.len() / 2, 5] {
                let error = from_read(unpacked(&stream[..cut]).unwrap_err());
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{compression:?} {cut} {error}");
            }
        }
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(b"x").unwrap();
        let stream = encoder.finish().unwrap();
        assert_eq!(from_read(unpacked(&stream).unwrap_err()).kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn what_is_neither_is_passed_through() {
        for plain in [&b""[..], b"a", b"PK\x03\x04", &[0x1f, 0x8b], &[0x1f, 0x8b, 0x07, 0]] {
            assert_eq!(unpacked(plain).unwrap(), plain);
        }
    }
}

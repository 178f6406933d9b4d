//! Reading an archive entry by entry.

use std::io::{self, Read};

use gantry_core::{Error, Result};

use crate::entry::{Entry, EntryKind, Timestamp};
use crate::failure::{from_read, into_io, malformed};
use crate::header::{BLOCK, Header};
use crate::pax;
use crate::sparse::{self, MAX_PIECES, SparseMap};

/// The largest extended header or long name. Source: the limit of Go's `archive/tar`, which containerd reads with.
const MAX_SPECIAL_BYTES: u64 = 1 << 20;

/// Reads ustar, pax and GNU archives, sparse files included. Memory is bounded whatever the archive holds.
///
/// [`TarReader::next_entry`] goes to the next entry; the reader itself then reads that entry's content, with zeros
/// for holes.
pub struct TarReader<R> {
    inner: R,
    /// Stored bytes of the current entry that have not been read.
    stored_left: u64,
    /// What fills the current entry's last block.
    padding: u64,
    /// Where the next byte of the content belongs.
    position: u64,
    size: u64,
    /// Pieces of data yet to be read, the next one last; the current one shrinks as it is read.
    pieces: Vec<(u64, u64)>,
    sparse: bool,
    ended: bool,
}

/// What special entries said about the next one.
#[derive(Default)]
struct Pending {
    records: Vec<(Vec<u8>, Vec<u8>)>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> TarReader<R> {
    /// Reads the archive in `inner`, best a buffered one.
    pub fn new(inner: R) -> Self {
        TarReader {
            inner,
            stored_left: 0,
            padding: 0,
            position: 0,
            size: 0,
            pieces: Vec::new(),
            sparse: false,
            ended: false,
        }
    }

    /// The stream behind the archive: after the last entry it holds what follows the archive's end.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Whether the current entry's content has holes.
    pub(crate) fn is_sparse(&self) -> bool {
        self.sparse
    }

    /// The next entry, or `None` at the end of the archive. What is left of the present one is skipped.
    ///
    /// # Errors
    /// `InvalidArgument` if this is no tar archive, or ends inside an entry; those of the stream.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut pending = Pending::default();
        let mut special = false;
        loop {
            self.skip_rest()?;
            let Some(block) = self.header_block()? else {
                return match special {
                    true => Err(malformed("archive/tar: the archive ends after an extended header")),
                    false => Ok(None),
                };
            };
            let Some(header) = Header::parse(&block)? else {
                unreachable!("header_block takes blocks of zeros for the end");
            };
            match header.kind() {
                b'x' => {
                    let data = self.special(&header)?;
                    pending.records = pax::parse(&data)?;
                }
                // Global records are ignored, as in Go's reader: they concern no entry of a layer.
                b'g' => {
                    let data = self.special(&header)?;
                    pax::parse(&data)?;
                    continue;
                }
                b'L' => pending.long_name = Some(c_text(self.special(&header)?)),
                b'K' => pending.long_link = Some(c_text(self.special(&header)?)),
                _ => return self.entry(&header, pending).map(Some),
            }
            special = true;
        }
    }

    /// The next header, or `None` at the end.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        if self.ended {
            return Ok(None);
        }
        let Some(block) = self.block_or_end()? else {
            self.ended = true;
            return Ok(None);
        };
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Some(block));
        }
        // Two blocks of zeros end an archive; a stream that ends after one, or none, is taken too.
        self.ended = true;
        match self.block_or_end()? {
            Some(second) if second.iter().any(|byte| *byte != 0) => {
                Err(malformed("archive/tar: a single block of zeros inside the archive"))
            }
            _ => Ok(None),
        }
    }

    /// One block; `None` if the stream ends before its first byte.
    fn block_or_end(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0u8; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(truncated()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(from_read(error)),
            }
        }
        Ok(Some(block))
    }

    /// The content of a special entry.
    fn special(&mut self, header: &Header<'_>) -> Result<Vec<u8>> {
        let size = stored_size(header.size()?)?;
        if size > MAX_SPECIAL_BYTES {
            return Err(malformed("archive/tar: header field too long"));
        }
        self.begin(size, size, None);
        let mut data = vec![0u8; usize::try_from(size).expect("at most 1 MiB")];
        self.read_exact(&mut data).map_err(from_read)?;
        Ok(data)
    }

    fn begin(&mut self, stored: u64, size: u64, map: Option<SparseMap>) {
        self.stored_left = stored;
        self.padding = stored.next_multiple_of(BLOCK as u64) - stored;
        self.position = 0;
        self.size = size;
        self.sparse = map.is_some();
        self.pieces = map.map_or_else(|| vec![(0, size)], |map| map.pieces.into_iter().rev().collect());
    }

    fn skip_rest(&mut self) -> Result<()> {
        let mut left = self.stored_left + self.padding;
        let mut scratch = [0u8; 8192];
        while left > 0 {
            let want = usize::try_from(left.min(scratch.len() as u64)).expect("at most the buffer");
            match self.inner.read(&mut scratch[..want]) {
                Ok(0) => return Err(truncated()),
                Ok(count) => left -= count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(from_read(error)),
            }
        }
        (self.stored_left, self.padding, self.size, self.position) = (0, 0, 0, 0);
        self.pieces.clear();
        Ok(())
    }

    fn entry(&mut self, header: &Header<'_>, pending: Pending) -> Result<Entry> {
        let mut kind = match header.kind() {
            // A contiguous file is a file to everyone but its writer. Source: POSIX.
            b'0' | 0 | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::Link,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => EntryKind::Other(other),
        };
        let mut fields = Fields {
            stored: stored_size(header.size()?)?,
            uid: header.uid()?,
            gid: header.gid()?,
            entry: Entry::new(pending.long_name.unwrap_or_else(|| header.path()), kind, 0),
            sparse: SparseRecords::default(),
        };
        fields.entry.link = pending.long_link.unwrap_or_else(|| header.link().to_vec());
        fields.entry.mtime = Timestamp { seconds: header.mtime()?, nanos: 0 };
        fields.entry.mode = (header.mode()? & 0o7777) as u32;
        for (key, value) in pending.records {
            fields.take(&key, value)?;
        }
        let Fields { stored, uid, gid, mut entry, sparse } = fields;
        if header.kind() == 0 && entry.path.ends_with(b"/") {
            // Before POSIX a trailing slash was all that marked a directory.
            kind = EntryKind::Directory;
            entry.kind = kind;
        }
        entry.uid = id(uid)?;
        entry.gid = id(gid)?;
        if entry.path.contains(&0) || entry.link.contains(&0) {
            return Err(malformed("archive/tar: a name holds a NUL"));
        }
        if matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
            let (major, minor) = header.device()?;
            let part = |number: i64| {
                u32::try_from(number).map_err(|_| malformed("archive/tar: device number out of range"))
            };
            entry.device = (part(major)?, part(minor)?);
        }
        if !matches!(kind, EntryKind::File | EntryKind::Other(_)) {
            // Links, directories and devices have no content, whatever size they state. Source: Go's `archive/tar`.
            self.begin(0, 0, None);
            return Ok(entry);
        }
        let map = if header.kind() == b'S' {
            Some(self.old_gnu_map(header, stored)?)
        } else if sparse.is_sparse() {
            if let Some(name) = &sparse.name {
                entry.path.clone_from(name);
            }
            Some(self.pax_map(sparse, stored)?)
        } else {
            None
        };
        match map {
            // A 1.0 map stands before the data and has been read: only what is left counts.
            Some((map, left)) => {
                entry.size_bytes = map.size_bytes;
                self.begin(left, map.size_bytes, Some(map));
            }
            None => {
                entry.size_bytes = stored;
                self.begin(stored, stored, None);
            }
        }
        Ok(entry)
    }

    fn old_gnu_map(&mut self, header: &Header<'_>, stored: u64) -> Result<(SparseMap, u64)> {
        let (mut pieces, mut more, size) = sparse::old_gnu_head(header.bytes())?;
        while more {
            let block = self.block_or_end()?.ok_or_else(truncated)?;
            let before = pieces.len();
            sparse::old_gnu_pieces(&block[..504], &mut pieces)?;
            more = block[504] != 0;
            if pieces.len() == before && more {
                return Err(malformed("archive/tar: invalid sparse map"));
            }
        }
        Ok((SparseMap::new(pieces, size, stored)?, stored))
    }

    /// The map and how many stored bytes follow it.
    fn pax_map(&mut self, records: SparseRecords, stored: u64) -> Result<(SparseMap, u64)> {
        let size = records.size.ok_or_else(|| malformed("archive/tar: sparse file without a size"))?;
        if records.major == 0 {
            return Ok((SparseMap::new(sparse::pairs(&records.numbers)?, size, stored)?, stored));
        }
        if (records.major, records.minor) != (1, 0) {
            return Err(malformed("archive/tar: unknown sparse format"));
        }
        self.begin(stored, stored, None);
        let mut numbers = Vec::new();
        let mut wanted: Option<usize> = None;
        let mut number: Option<u64> = None;
        while wanted != Some(numbers.len()) {
            let mut block = [0u8; BLOCK];
            self.read_exact(&mut block).map_err(from_read)?;
            for byte in block {
                if wanted == Some(numbers.len()) {
                    break;
                }
                let wrong = || malformed("archive/tar: invalid sparse map");
                match byte {
                    b'0'..=b'9' => {
                        let digit = u64::from(byte - b'0');
                        let grown =
                            number.unwrap_or(0).checked_mul(10).and_then(|value| value.checked_add(digit));
                        number = Some(grown.ok_or_else(wrong)?);
                    }
                    b'\n' => {
                        let value = number.take().ok_or_else(wrong)?;
                        if wanted.is_none() {
                            if value > MAX_PIECES as u64 {
                                return Err(wrong());
                            }
                            wanted = Some(2 * value as usize);
                        } else {
                            numbers.push(value);
                        }
                    }
                    _ => return Err(wrong()),
                }
            }
        }
        let left = self.stored_left;
        Ok((SparseMap::new(sparse::pairs(&numbers)?, size, left)?, left))
    }

    /// Reads the next bytes of data into `buffer` and tells where in the file they belong; `None` at the end. Holes
    /// are left out.
    pub(crate) fn next_run(&mut self, buffer: &mut [u8]) -> Result<Option<(u64, usize)>> {
        while self.pieces.last().is_some_and(|(_, length)| *length == 0) {
            self.pieces.pop();
        }
        let Some((offset, length)) = self.pieces.last_mut() else { return Ok(None) };
        let want = usize::try_from((*length).min(buffer.len() as u64)).expect("at most the buffer");
        let count = loop {
            match self.inner.read(&mut buffer[..want]) {
                Ok(0) => return Err(truncated()),
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(from_read(error)),
            }
        };
        let at = *offset;
        *offset += count as u64;
        *length -= count as u64;
        self.stored_left -= count as u64;
        self.position = *offset;
        Ok(Some((at, count)))
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.position >= self.size {
            return Ok(0);
        }
        while self.pieces.last().is_some_and(|(_, length)| *length == 0) {
            self.pieces.pop();
        }
        let next = self.pieces.last().map_or(self.size, |(offset, _)| *offset);
        if self.position < next {
            let count =
                usize::try_from((next - self.position).min(buffer.len() as u64)).expect("at most the buffer");
            buffer[..count].fill(0);
            self.position += count as u64;
            return Ok(count);
        }
        Ok(self.next_run(buffer).map_err(into_io)?.map_or(0, |(_, count)| count))
    }
}

/// Header fields while pax records override them.
struct Fields {
    stored: u64,
    uid: i64,
    gid: i64,
    entry: Entry,
    sparse: SparseRecords,
}

impl Fields {
    fn take(&mut self, key: &[u8], value: Vec<u8>) -> Result<()> {
        if let Some(name) = key.strip_prefix(pax::XATTR_PREFIX) {
            self.entry.xattrs.push((name.to_vec(), value));
            return Ok(());
        }
        if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.take(name, value);
        }
        if value.is_empty() {
            // An empty value takes a record back: the header's own field holds.
            return Ok(());
        }
        match key {
            b"path" => self.entry.path = value,
            b"linkpath" => self.entry.link = value,
            b"size" => self.stored = pax::decimal(&value)?,
            b"uid" => self.uid = pax::decimal(&value)? as i64,
            b"gid" => self.gid = pax::decimal(&value)? as i64,
            b"mtime" => self.entry.mtime = pax::timestamp(&value)?,
            b"atime" => self.entry.atime = Some(pax::timestamp(&value)?),
            _ => {}
        }
        Ok(())
    }
}

/// The `GNU.sparse.*` records of one entry.
#[derive(Default)]
struct SparseRecords {
    major: u64,
    minor: u64,
    size: Option<u64>,
    name: Option<Vec<u8>>,
    numbers: Vec<u64>,
    mapped: bool,
}

impl SparseRecords {
    fn is_sparse(&self) -> bool {
        self.mapped || self.major > 0
    }

    fn take(&mut self, key: &[u8], value: Vec<u8>) -> Result<()> {
        match key {
            b"major" => self.major = pax::decimal(&value)?,
            b"minor" => self.minor = pax::decimal(&value)?,
            b"size" | b"realsize" => self.size = Some(pax::decimal(&value)?),
            b"name" => {
                if value.contains(&0) {
                    return Err(malformed("archive/tar: a name holds a NUL"));
                }
                self.name = Some(value);
            }
            b"numblocks" => self.mapped = true,
            b"offset" | b"numbytes" => {
                self.mapped = true;
                self.numbers.push(pax::decimal(&value)?);
            }
            b"map" => {
                self.mapped = true;
                self.numbers = value
                    .split(|byte| *byte == b',')
                    .filter(|part| !part.is_empty())
                    .map(pax::decimal)
                    .collect::<Result<_>>()?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn truncated() -> Error {
    malformed("archive/tar: unexpected EOF")
}

fn stored_size(size: i64) -> Result<u64> {
    u64::try_from(size).map_err(|_| malformed("archive/tar: negative size"))
}

/// An owner or group. The kernel takes the last number for "leave as it is".
fn id(number: i64) -> Result<u32> {
    u32::try_from(number)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| malformed(format!("archive/tar: owner {number} out of range")))
}

fn c_text(mut data: Vec<u8>) -> Vec<u8> {
    if let Some(end) = data.iter().position(|byte| *byte == 0) {
        data.truncate(end);
    }
    data
}

#[cfg(test)]
mod tests;

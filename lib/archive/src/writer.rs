//! Writing an archive.

use std::io::{self, Read, Write};

use gantry_core::{Error, Result};

use crate::entry::{Entry, EntryKind, Timestamp};
use crate::failure::{from_read, from_write, malformed};
use crate::header::{BLOCK, MAX_OCTAL_7, MAX_OCTAL_11, NewHeader};
use crate::pax;

/// Writes pax archives. The same entries always give the same bytes: records come in a fixed order and nothing of the
/// machine or the moment gets in.
pub struct TarWriter<W> {
    inner: W,
}

impl<W: Write> TarWriter<W> {
    /// Writes to `inner`.
    pub fn new(inner: W) -> Self {
        TarWriter { inner }
    }

    /// Adds an entry whose content, `entry.size_bytes` long, is read from `content`.
    ///
    /// # Errors
    /// `InvalidArgument` for an entry that no archive can hold; `DataLoss` if `content` ends early; those of the
    /// streams.
    pub fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        self.header(entry)?;
        let copied = copy(&mut content.take(entry.size_bytes), &mut self.inner)?;
        if copied != entry.size_bytes {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            return Err(Error::new(
                gantry_core::ErrorKind::DataLoss,
                format!("{path:?} shrank while it was read"),
            ));
        }
        let padding = copied.next_multiple_of(BLOCK as u64) - copied;
        self.inner.write_all(&[0u8; BLOCK][..padding as usize]).map_err(from_write)
    }

    /// Ends the archive and gives the stream back.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn finish(mut self) -> Result<W> {
        self.inner.write_all(&[0u8; 2 * BLOCK]).map_err(from_write)?;
        Ok(self.inner)
    }

    fn header(&mut self, entry: &Entry) -> Result<()> {
        let kind = match entry.kind {
            EntryKind::File => b'0',
            EntryKind::Link => b'1',
            EntryKind::Symlink => b'2',
            EntryKind::CharDevice => b'3',
            EntryKind::BlockDevice => b'4',
            EntryKind::Directory => b'5',
            EntryKind::Fifo => b'6',
            EntryKind::Other(_) => {
                return Err(malformed("archive/tar: cannot write an entry of unknown type"));
            }
        };
        if entry.path.is_empty() || entry.path.contains(&0) || entry.link.contains(&0) {
            return Err(malformed("archive/tar: name is empty or holds a NUL"));
        }
        if u64::from(entry.device.0.max(entry.device.1)) > MAX_OCTAL_7 {
            return Err(malformed("archive/tar: device number too large"));
        }
        let mut records = Vec::new();
        if let Some(atime) = entry.atime {
            pax::encode(b"atime", time_text(atime).as_bytes(), &mut records);
        }
        if u64::from(entry.gid) > MAX_OCTAL_7 {
            pax::encode(b"gid", entry.gid.to_string().as_bytes(), &mut records);
        }
        if entry.link.len() > 100 {
            pax::encode(b"linkpath", &entry.link, &mut records);
        }
        let fits = entry.mtime.nanos == 0 && (0..=MAX_OCTAL_11 as i64).contains(&entry.mtime.seconds);
        if !fits {
            pax::encode(b"mtime", time_text(entry.mtime).as_bytes(), &mut records);
        }
        if entry.path.len() > 100 {
            pax::encode(b"path", &entry.path, &mut records);
        }
        if entry.size_bytes > MAX_OCTAL_11 {
            pax::encode(b"size", entry.size_bytes.to_string().as_bytes(), &mut records);
        }
        if u64::from(entry.uid) > MAX_OCTAL_7 {
            pax::encode(b"uid", entry.uid.to_string().as_bytes(), &mut records);
        }
        let mut xattrs: Vec<_> = entry.xattrs.iter().collect();
        xattrs.sort();
        for (name, value) in xattrs {
            if name.contains(&b'=') || name.contains(&0) {
                // The format cannot hold such a name.
                continue;
            }
            pax::encode(&[pax::XATTR_PREFIX, name].concat(), value, &mut records);
        }
        if !records.is_empty() {
            let header = NewHeader {
                path: b"PaxHeaders.0/entry",
                kind: b'x',
                mode: 0o644,
                uid: 0,
                gid: 0,
                size: records.len() as u64,
                mtime: 0,
                link: b"",
                device: (0, 0),
            };
            self.inner.write_all(&header.encode()).map_err(from_write)?;
            records.resize(records.len().next_multiple_of(BLOCK), 0);
            self.inner.write_all(&records).map_err(from_write)?;
        }
        let header = NewHeader {
            path: &entry.path,
            kind,
            mode: entry.mode & 0o7777,
            uid: u64::from(entry.uid),
            gid: u64::from(entry.gid),
            size: entry.size_bytes,
            mtime: u64::try_from(entry.mtime.seconds).unwrap_or(0),
            link: &entry.link,
            device: entry.device,
        };
        self.inner.write_all(&header.encode()).map_err(from_write)
    }
}

/// Like `std::io::copy`, with errors told apart: those of reading and those of writing.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<u64> {
    let mut buffer = vec![0u8; 64 << 10];
    let mut copied = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(from_read(error)),
        };
        to.write_all(&buffer[..count]).map_err(from_write)?;
        copied += count as u64;
    }
}

fn time_text(time: Timestamp) -> String {
    match (time.seconds, time.nanos) {
        (seconds, 0) => seconds.to_string(),
        (seconds @ 0.., nanos) => trim(format!("{seconds}.{nanos:09}")),
        (seconds, nanos) => {
            // Two seconds before plus three quarters is written -1.25.
            trim(format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos))
        }
    }
}

fn trim(text: String) -> String {
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TarReader;

    #[test]
    fn entries_are_read_back_as_written() {
        let mut entries = Vec::new();
        let mut plain = Entry::new("etc/motd", EntryKind::File, 0o4755);
        (plain.uid, plain.gid, plain.size_bytes) = (1000, 3_000_000, 5);
        plain.mtime = Timestamp { seconds: -2, nanos: 750_000_000 };
        plain.xattrs =
            vec![(b"security.capability".to_vec(), vec![0, 1, 255]), (b"user.a".to_vec(), b"x=y\n".to_vec())];
        entries.push(plain);
        let mut link = Entry::new("l".repeat(300), EntryKind::Symlink, 0o777);
        link.link = vec![b't'; 150];
        link.mtime = Timestamp { seconds: 1 << 40, nanos: 1 };
        link.atime = Some(Timestamp { seconds: 3, nanos: 0 });
        entries.push(link);
        let mut device = Entry::new("dev/sda", EntryKind::BlockDevice, 0o660);
        device.device = (8, 1);
        device.uid = u32::MAX - 1;
        entries.push(device);
        entries.push(Entry::new("dir/", EntryKind::Directory, 0o1777));
        let mut writer = TarWriter::new(Vec::new());
        for entry in &entries {
            writer.append(entry, &mut &b"hello"[..entry.size_bytes as usize]).unwrap();
        }
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let mut reader = TarReader::new(&bytes[..]);
        for entry in &entries {
            assert_eq!(&reader.next_entry().unwrap().unwrap(), entry);
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            assert_eq!(content, &b"hello"[..entry.size_bytes as usize]);
        }
        assert!(reader.next_entry().unwrap().is_none());
        assert!(reader.next_entry().unwrap().is_none());
    }

    #[test]
    fn content_that_ends_early_is_an_error() {
        let mut entry = Entry::new("a", EntryKind::File, 0o644);
        entry.size_bytes = 10;
        let error = TarWriter::new(Vec::new()).append(&entry, &mut &b"short"[..]).unwrap_err();
        assert_eq!(error.kind(), gantry_core::ErrorKind::DataLoss);
    }
}

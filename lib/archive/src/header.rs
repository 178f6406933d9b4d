//! The 512-byte header block: fields, numbers, checksum.
//!
//! Source: POSIX.1-1988 (ustar) and the GNU tar manual, "Basic Tar Format".

use gantry_core::Result;

use crate::failure::malformed;

/// The unit of a tar archive.
pub(crate) const BLOCK: usize = 512;
/// The largest number that eight octal digits less the terminator hold: ids and modes.
pub(crate) const MAX_OCTAL_7: u64 = 0o7_777_777;
/// The largest size that eleven octal digits hold.
pub(crate) const MAX_OCTAL_11: u64 = 0o77_777_777_777;

/// Which dialect a header's magic announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Before POSIX: no magic.
    V7,
    /// POSIX ustar, also with pax records before it.
    Ustar,
    /// GNU's own.
    Gnu,
}

/// One header block as read.
pub(crate) struct Header<'a>(&'a [u8; BLOCK]);

impl<'a> Header<'a> {
    /// Checks the block's sum; `None` for a block of zeros.
    pub(crate) fn parse(block: &'a [u8; BLOCK]) -> Result<Option<Self>> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let stated = number(&block[148..156])?;
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (index, byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&index) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte as i8);
        }
        // Some old writers summed signed bytes.
        if stated != unsigned && stated != signed {
            return Err(malformed("archive/tar: invalid tar header"));
        }
        Ok(Some(Header(block)))
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match &self.0[257..265] {
            b"ustar\x0000" => Dialect::Ustar,
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar") => Dialect::Ustar,
            _ => Dialect::V7,
        }
    }

    pub(crate) fn kind(&self) -> u8 {
        self.0[156]
    }

    pub(crate) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[0..100]);
        let prefix = if self.dialect() == Dialect::Ustar { text(&self.0[345..500]) } else { &[] };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(crate) fn link(&self) -> &'a [u8] {
        text(&self.0[157..257])
    }

    pub(crate) fn mode(&self) -> Result<i64> {
        number(&self.0[100..108])
    }

    pub(crate) fn uid(&self) -> Result<i64> {
        number(&self.0[108..116])
    }

    pub(crate) fn gid(&self) -> Result<i64> {
        number(&self.0[116..124])
    }

    pub(crate) fn size(&self) -> Result<i64> {
        number(&self.0[124..136])
    }

    pub(crate) fn mtime(&self) -> Result<i64> {
        number(&self.0[136..148])
    }

    /// Major and minor number; zero before POSIX.
    pub(crate) fn device(&self) -> Result<(i64, i64)> {
        if self.dialect() == Dialect::V7 {
            return Ok((0, 0));
        }
        Ok((number(&self.0[329..337])?, number(&self.0[337..345])?))
    }

    pub(crate) fn bytes(&self) -> &'a [u8; BLOCK] {
        self.0
    }
}

/// The field's text up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// A number: octal digits padded with blanks or NULs, or base 256 if the first bit is set (GNU).
pub(crate) fn number(field: &[u8]) -> Result<i64> {
    let first = field[0];
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (index, byte) in field.iter().enumerate() {
            let byte = match (index, negative) {
                (0, false) => byte & 0x7f,
                (0, true) => byte | 0x80,
                _ => *byte,
            };
            // Twelve bytes at most: 96 bits fit.
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).map_err(|_| malformed("archive/tar: number out of range in header"));
    }
    let padding = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !padding(byte)).unwrap_or(field.len());
    let end = field.iter().rposition(|byte| !padding(byte)).map_or(start, |last| last + 1);
    let mut value = 0i64;
    for byte in &field[start..end] {
        if !(b'0'..=b'7').contains(byte) {
            return Err(malformed("archive/tar: number in header is not octal"));
        }
        value = (value << 3) | i64::from(byte - b'0');
    }
    // Twelve digits of three bits are far from 63 bits.
    Ok(value)
}

/// A header to write. Fields that do not fit are the writer's business (pax records).
pub(crate) struct NewHeader<'a> {
    pub(crate) path: &'a [u8],
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) size: u64,
    pub(crate) mtime: u64,
    pub(crate) link: &'a [u8],
    pub(crate) device: (u32, u32),
}

impl NewHeader<'_> {
    pub(crate) fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0u8; BLOCK];
        put(&mut block[0..100], self.path);
        octal(&mut block[100..108], u64::from(self.mode));
        octal(&mut block[108..116], self.uid);
        octal(&mut block[116..124], self.gid);
        octal(&mut block[124..136], self.size);
        octal(&mut block[136..148], self.mtime);
        block[156] = self.kind;
        put(&mut block[157..257], self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], u64::from(self.device.0));
        octal(&mut block[337..345], u64::from(self.device.1));
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block[148..155], sum);
        block
    }
}

fn put(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// Writes octal digits and a NUL; a number too large for the field is written as 0, since a pax record overrides it.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    let text = if text.len() > digits { "0".repeat(digits) } else { text };
    field[..digits].copy_from_slice(text.as_bytes());
    field[digits] = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"  644 \0 ").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0\0\0\0\0").unwrap(), 0);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]).unwrap(), 258);
        assert_eq!(number(&[0xff; 12]).unwrap(), -1);
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]).unwrap(), -2);
        number(b"9999999\0").unwrap_err();
        number(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).unwrap_err();
    }

    #[test]
    fn a_wrong_sum_is_no_header() {
        let mut block = NewHeader {
            path: b"a",
            kind: b'0',
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 5,
            mtime: 0,
            link: b"",
            device: (0, 0),
        }
        .encode();
        assert_eq!(Header::parse(&block).unwrap().unwrap().size().unwrap(), 5);
        block[0] = b'b';
        assert!(Header::parse(&block).is_err());
        assert!(Header::parse(&[0; BLOCK]).unwrap().is_none());
    }
}

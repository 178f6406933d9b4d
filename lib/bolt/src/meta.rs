//! The two meta pages: which tree is the last one that was committed.
//!
//! Source of this format, here and in `page.rs`: bbolt's files as its documentation and `bbolt page` describe them, version 2.
//! Numbers are in the byte order of the machine that wrote them; only little-endian ones are read.

/// Source: the first field of a meta page.
const MAGIC: u32 = 0xED0C_DAED;
/// Source: the second field; no other version was ever released.
const VERSION: u32 = 2;
/// The header of every page: id, flags, count, overflow.
pub(crate) const PAGE_HEADER: usize = 16;
/// Magic, version, page size, flags, root, sequence, freelist, high-water mark, transaction.
const HASHED: usize = 56;
/// Those and their checksum.
const META: usize = HASHED + 8;
/// What is read to find one.
pub(crate) const META_PAGE: usize = PAGE_HEADER + META;

/// Sizes that a page can have: powers of two, as every kernel's.
pub(crate) const PAGE_SIZES: std::ops::RangeInclusive<u32> = 9..=20;

/// One meta page's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) page_size: u32,
    /// The page of the root bucket.
    pub(crate) root: u64,
    /// No page at or above this number is in use.
    pub(crate) high_water: u64,
    /// Counts the transactions that were committed.
    pub(crate) txid: u64,
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// FNV-1a of 64 bits. Source: the hash's own publication.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Meta {
    /// Reads the meta that begins `page`; none if it is not one, or not whole.
    pub(crate) fn parse(page: &[u8]) -> Option<Meta> {
        let meta = page.get(PAGE_HEADER..META_PAGE)?;
        let known = u32_at(meta, 0)? == MAGIC && u32_at(meta, 4)? == VERSION;
        if !known || u64_at(meta, HASHED)? != checksum(meta.get(..HASHED)?) {
            return None;
        }
        let page_size = u32_at(meta, 8)?;
        if !page_size.is_power_of_two() || !PAGE_SIZES.contains(&page_size.trailing_zeros()) {
            return None;
        }
        Some(Meta {
            page_size,
            root: u64_at(meta, 16)?,
            high_water: u64_at(meta, 40)?,
            txid: u64_at(meta, 48)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_fnv_1a() {
        // Source: the hash's published test vectors.
        assert_eq!(checksum(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(checksum(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(checksum(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn what_is_no_meta_is_refused() {
        assert_eq!(Meta::parse(&[]), None);
        assert_eq!(Meta::parse(&[0; META_PAGE]), None);
        assert_eq!(Meta::parse(&[0xff; META_PAGE]), None);
    }
}

//! Files with holes.
//!
//! Source: the GNU tar manual, "Storing Sparse Files": the old GNU format, and pax formats 0.0, 0.1 and 1.0.

use gantry_core::Result;

use crate::failure::malformed;
use crate::header::{BLOCK, number};

/// Offset and length of each piece of data, ascending.
pub(crate) type Pieces = Vec<(u64, u64)>;

/// How many pieces of data a file may have. Without a limit a small archive could claim an endless map.
pub(crate) const MAX_PIECES: usize = 1 << 16;

/// Where the stored bytes belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SparseMap {
    /// The data.
    pub(crate) pieces: Pieces,
    /// The file's length, holes included.
    pub(crate) size_bytes: u64,
}

impl SparseMap {
    /// Checks that the pieces ascend, stay within the file, and take no more than what is stored.
    pub(crate) fn new(pieces: Pieces, size_bytes: u64, stored_bytes: u64) -> Result<Self> {
        let wrong = || malformed("archive/tar: invalid sparse map");
        if pieces.len() > MAX_PIECES || size_bytes > i64::MAX as u64 {
            return Err(wrong());
        }
        let (mut end, mut sum) = (0u64, 0u64);
        for (offset, length) in &pieces {
            if *offset < end {
                return Err(wrong());
            }
            end = offset.checked_add(*length).filter(|end| *end <= size_bytes).ok_or_else(wrong)?;
            sum += length;
        }
        if sum > stored_bytes {
            return Err(wrong());
        }
        Ok(SparseMap { pieces, size_bytes })
    }
}

/// The pieces in `fields` (offset and length, 12 bytes each) up to the first empty one.
pub(crate) fn old_gnu_pieces(fields: &[u8], pieces: &mut Pieces) -> Result<()> {
    for field in fields.chunks_exact(24) {
        if field[0] == 0 {
            break;
        }
        let (offset, length) = (number(&field[..12])?, number(&field[12..])?);
        let wrong = || malformed("archive/tar: invalid sparse map");
        if pieces.len() >= MAX_PIECES {
            return Err(wrong());
        }
        pieces
            .push((u64::try_from(offset).map_err(|_| wrong())?, u64::try_from(length).map_err(|_| wrong())?));
    }
    Ok(())
}

/// The map at the head of an old GNU sparse header: pieces, whether more follow, the file's length.
pub(crate) fn old_gnu_head(block: &[u8; BLOCK]) -> Result<(Pieces, bool, u64)> {
    let mut pieces = Vec::new();
    old_gnu_pieces(&block[386..482], &mut pieces)?;
    let size = number(&block[483..495])?;
    let size = u64::try_from(size).map_err(|_| malformed("archive/tar: invalid sparse map"))?;
    Ok((pieces, block[482] != 0, size))
}

/// Pairs of numbers from a list.
pub(crate) fn pairs(numbers: &[u64]) -> Result<Pieces> {
    if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > MAX_PIECES {
        return Err(malformed("archive/tar: invalid sparse map"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

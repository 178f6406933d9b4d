//! One page with all its elements checked: nothing in it points outside it, and its keys are in order.

use std::ops::Range;

use crate::meta::{PAGE_HEADER, u32_at, u64_at};

/// Source: the flags in a page's header.
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
/// Source: the flag of a leaf's element whose value is a bucket.
const BUCKET: u32 = 0x01;
/// What an element of either kind takes in the table behind the header.
const ELEMENT: usize = 16;

/// An element of a leaf.
#[derive(Clone, Debug)]
pub(crate) struct LeafElement {
    pub(crate) is_bucket: bool,
    key: Range<usize>,
    value: Range<usize>,
}

/// An element of a branch.
#[derive(Clone, Debug)]
pub(crate) struct BranchElement {
    pub(crate) child: u64,
    key: Range<usize>,
}

#[derive(Clone, Debug)]
pub(crate) enum Elements {
    Branch(Vec<BranchElement>),
    Leaf(Vec<LeafElement>),
}

/// A page's bytes, with those that overflow from it, and where its elements are.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    bytes: Vec<u8>,
    pub(crate) elements: Elements,
}

/// The header's number of pages that follow and belong to this one.
pub(crate) fn overflow(header: &[u8]) -> Option<u32> {
    u32_at(header, 12)
}

impl Page {
    /// Checks `bytes`, the page that is to have the number `id` (0 for one within a value).
    pub(crate) fn parse(id: u64, bytes: Vec<u8>) -> Result<Page, String> {
        let (Some(own), Some(flags), Some(count)) =
            (u64_at(&bytes, 0), u16_at(&bytes, 8), u16_at(&bytes, 10))
        else {
            return Err("is shorter than its header".to_owned());
        };
        // Source: a bucket that is kept within its value has a page without number.
        if own != id {
            return Err(format!("says that it is page {own}"));
        }
        let count = usize::from(count);
        let table = PAGE_HEADER + count * ELEMENT;
        if table > bytes.len() {
            return Err(format!("says that it has {count} elements, for which it has no room"));
        }
        let elements = match flags {
            BRANCH => Elements::Branch(branch(&bytes, count, table)?),
            LEAF => Elements::Leaf(leaf(&bytes, count, table)?),
            other => return Err(format!("has flags {other:#x}, and a branch or a leaf is expected")),
        };
        let page = Page { bytes, elements };
        if (1..count).any(|index| page.key(index - 1) >= page.key(index)) {
            return Err("has keys that are not in order".to_owned());
        }
        Ok(page)
    }

    pub(crate) fn count(&self) -> usize {
        match &self.elements {
            Elements::Branch(elements) => elements.len(),
            Elements::Leaf(elements) => elements.len(),
        }
    }

    /// The key of the element `index`, which there must be.
    pub(crate) fn key(&self, index: usize) -> &[u8] {
        let range = match &self.elements {
            Elements::Branch(elements) => elements[index].key.clone(),
            Elements::Leaf(elements) => elements[index].key.clone(),
        };
        &self.bytes[range]
    }

    pub(crate) fn value(&self, element: &LeafElement) -> &[u8] {
        &self.bytes[element.value.clone()]
    }

    /// Where `key` is, or belongs.
    pub(crate) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.key(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// The range of `length` bytes that an element at `element` says begin `position` behind it. Data lies behind the table, one
/// element's after the other's.
fn data(
    bytes: &[u8],
    element: usize,
    position: u32,
    length: u64,
    end: &mut usize,
) -> Result<Range<usize>, String> {
    let start = element.checked_add(position as usize);
    let stop = start.and_then(|start| start.checked_add(usize::try_from(length).ok()?));
    match (start, stop) {
        (Some(start), Some(stop)) if start >= *end && stop <= bytes.len() => {
            *end = stop;
            Ok(start..stop)
        }
        (Some(start), Some(stop)) if stop <= bytes.len() => {
            Err(format!("has data at {start} that overlaps what ends at {end}"))
        }
        _ => Err(format!("has an element whose data, {length} bytes, lies outside it")),
    }
}

fn branch(bytes: &[u8], count: usize, table: usize) -> Result<Vec<BranchElement>, String> {
    if count == 0 {
        return Err("is a branch without children".to_owned());
    }
    let mut end = table;
    (0..count)
        .map(|index| {
            let at = PAGE_HEADER + index * ELEMENT;
            let fields = (u32_at(bytes, at), u32_at(bytes, at + 4), u64_at(bytes, at + 8));
            let (Some(position), Some(key_size), Some(child)) = fields else {
                return Err("is cut short".to_owned());
            };
            Ok(BranchElement { child, key: data(bytes, at, position, u64::from(key_size), &mut end)? })
        })
        .collect()
}

fn leaf(bytes: &[u8], count: usize, table: usize) -> Result<Vec<LeafElement>, String> {
    let mut end = table;
    (0..count)
        .map(|index| {
            let at = PAGE_HEADER + index * ELEMENT;
            let fields =
                (u32_at(bytes, at), u32_at(bytes, at + 4), u32_at(bytes, at + 8), u32_at(bytes, at + 12));
            let (Some(flags), Some(position), Some(key_size), Some(value_size)) = fields else {
                return Err("is cut short".to_owned());
            };
            let both = u64::from(key_size) + u64::from(value_size);
            let range = data(bytes, at, position, both, &mut end)?;
            let middle = range.start + key_size as usize;
            if flags & !BUCKET != 0 {
                return Err(format!("has an element with flags {flags:#x}"));
            }
            Ok(LeafElement { is_bucket: flags == BUCKET, key: range.start..middle, value: middle..range.end })
        })
        .collect()
}

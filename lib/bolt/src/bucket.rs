//! Buckets: keys with values, and with other buckets.

use std::fmt;
use std::sync::Arc;

use gantry_core::Result;

use crate::database::Database;
use crate::meta::u64_at;
use crate::page::{Elements, LeafElement, Page};

/// What a bucket's value holds before a page that is kept within it: the root page's number and a counter.
const BUCKET_HEADER: usize = 16;
/// How many branches lie one below another at most; 20 of them could not be filled by any disk.
const MAX_DEPTH: usize = 64;

/// A bucket of an open database.
#[derive(Clone)]
pub struct Bucket<'d> {
    database: &'d Database,
    root: Root,
    sequence: u64,
}

#[derive(Clone)]
enum Root {
    /// Pages of its own, from this one on.
    Page(u64),
    /// Small enough for the value that speaks of it.
    Inline(Arc<Page>),
}

/// What a key has.
pub enum Item<'d> {
    /// Bytes.
    Value(Vec<u8>),
    /// A bucket.
    Bucket(Bucket<'d>),
}

impl fmt::Debug for Bucket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Root::Page(page) => write!(f, "Bucket(page {page})"),
            Root::Inline(page) => write!(f, "Bucket(inline, {} keys)", page.count()),
        }
    }
}

impl<'d> Bucket<'d> {
    pub(crate) fn at_page(database: &'d Database, page: u64, sequence: u64) -> Self {
        Bucket { database, root: Root::Page(page), sequence }
    }

    /// The bucket that the value of a leaf on page `page` speaks of.
    pub(crate) fn parse(database: &'d Database, page: u64, value: &[u8]) -> Result<Self> {
        let (Some(root), Some(sequence)) = (u64_at(value, 0), u64_at(value, 8)) else {
            return Err(database.damaged(page, "has a bucket that is cut short"));
        };
        let root = match root {
            0 => {
                let inline = Page::parse(0, value[BUCKET_HEADER..].to_vec())
                    .map_err(|what| database.damaged(page, format!("has a bucket whose own page {what}")))?;
                if matches!(inline.elements, Elements::Branch(_)) {
                    return Err(database.damaged(page, "has a bucket whose own page is a branch"));
                }
                Root::Inline(Arc::new(inline))
            }
            root => Root::Page(root),
        };
        Ok(Bucket { database, root, sequence })
    }

    /// The page that it begins on, if it has pages of its own.
    pub(crate) fn page(&self) -> Option<u64> {
        match self.root {
            Root::Page(page) => Some(page),
            Root::Inline(_) => None,
        }
    }

    /// Its page, if that is kept within the value that speaks of it.
    pub(crate) fn inline(&self) -> Option<&Page> {
        match &self.root {
            Root::Page(_) => None,
            Root::Inline(page) => Some(page),
        }
    }

    /// The counter that numbers what is put into it.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    fn first_page(&self) -> Result<(u64, Arc<Page>)> {
        match &self.root {
            Root::Page(page) => Ok((*page, self.database.page(*page)?)),
            Root::Inline(page) => Ok((0, Arc::clone(page))),
        }
    }

    fn find(&self, key: &[u8]) -> Result<Option<Item<'d>>> {
        let (mut id, mut page) = self.first_page()?;
        for _ in 0..MAX_DEPTH {
            let child = match &page.elements {
                Elements::Leaf(elements) => {
                    let Ok(index) = page.search(key) else { return Ok(None) };
                    return item(self.database, id, &page, &elements[index]).map(Some);
                }
                // The child whose first key is not above this one.
                Elements::Branch(elements) => {
                    let index = page.search(key).unwrap_or_else(|above| above.saturating_sub(1));
                    elements[index].child
                }
            };
            page = self.database.page(child)?;
            id = child;
        }
        Err(self.database.damaged(id, "lies too deep"))
    }

    /// The value of `key`; none if it is not there, or is a bucket.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        Ok(match self.find(key.as_ref())? {
            Some(Item::Value(value)) => Some(value),
            _ => None,
        })
    }

    /// The bucket `key`; none if it is not there, or is a value.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn bucket(&self, key: impl AsRef<[u8]>) -> Result<Option<Bucket<'d>>> {
        Ok(match self.find(key.as_ref())? {
            Some(Item::Bucket(bucket)) => Some(bucket),
            _ => None,
        })
    }

    /// All that is in it, in byte order of the keys.
    pub fn entries(&self) -> Entries<'d> {
        Entries { database: self.database, bucket: Some(self.clone()), open: Vec::new() }
    }
}

fn item<'d>(database: &'d Database, id: u64, page: &Page, element: &LeafElement) -> Result<Item<'d>> {
    let value = page.value(element);
    match element.is_bucket {
        true => Bucket::parse(database, id, value).map(Item::Bucket),
        false => Ok(Item::Value(value.to_vec())),
    }
}

/// What is in a bucket, one after the other. Ends after an error.
pub struct Entries<'d> {
    database: &'d Database,
    /// Not begun yet.
    bucket: Option<Bucket<'d>>,
    /// From the root to the leaf: each page with its number and the next of its elements.
    open: Vec<(u64, Arc<Page>, usize)>,
}

impl<'d> Entries<'d> {
    fn step(&mut self) -> Result<Option<(Vec<u8>, Item<'d>)>> {
        if let Some(bucket) = self.bucket.take() {
            let (id, page) = bucket.first_page()?;
            self.open.push((id, page, 0));
        }
        while let Some((id, page, next)) = self.open.last_mut() {
            let index = *next;
            *next += 1;
            if index >= page.count() {
                self.open.pop();
                continue;
            }
            let (id, page) = (*id, Arc::clone(page));
            match &page.elements {
                Elements::Leaf(elements) => {
                    let item = item(self.database, id, &page, &elements[index])?;
                    return Ok(Some((page.key(index).to_vec(), item)));
                }
                Elements::Branch(_) if self.open.len() >= MAX_DEPTH => {
                    return Err(self.database.damaged(id, "lies too deep"));
                }
                Elements::Branch(elements) => {
                    let child = elements[index].child;
                    self.open.push((child, self.database.page(child)?, 0));
                }
            }
        }
        Ok(None)
    }
}

impl<'d> Iterator for Entries<'d> {
    type Item = Result<(Vec<u8>, Item<'d>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.open.clear();
        }
        step.transpose()
    }
}

//! One look through the whole tree: every page is used once, and every key lies where a search would look for it.
//!
//! Afterwards whatever walks the buckets is sure to end: without this a page that is its own grandchild, or a bucket that holds
//! itself, would have no end.

use std::collections::HashSet;

use gantry_core::Result;

use crate::bucket::Bucket;
use crate::database::Database;
use crate::page::{Elements, LeafElement, Page};

/// How many buckets lie one in another, and how many branches one below another, in all. containerd's have about ten.
const MAX_DEPTH: usize = 128;

/// A page that is still to be looked at.
struct Waiting {
    page: u64,
    /// Its keys are at or above this,
    from: Option<Vec<u8>>,
    /// and below this.
    to: Option<Vec<u8>>,
    depth: usize,
}

struct Verifier<'d> {
    database: &'d Database,
    used: HashSet<u64>,
    waiting: Vec<Waiting>,
}

/// Looks through the tree whose root bucket begins on the page `root`.
///
/// # Errors
/// `DataLoss` naming the page that is wrong; those of reading the file.
pub(crate) fn verify(database: &Database, root: u64) -> Result<()> {
    let mut verifier = Verifier { database, used: HashSet::new(), waiting: Vec::new() };
    verifier.wait(Waiting { page: root, from: None, to: None, depth: 0 })?;
    while let Some(next) = verifier.waiting.pop() {
        verifier.look(&next)?;
    }
    Ok(())
}

impl Verifier<'_> {
    fn wait(&mut self, next: Waiting) -> Result<()> {
        if next.depth > MAX_DEPTH {
            return Err(self.database.damaged(next.page, "lies too deep"));
        }
        self.waiting.push(next);
        Ok(())
    }

    fn look(&mut self, next: &Waiting) -> Result<()> {
        let id = next.page;
        // Before it is read, so that pages which many others point to are not read again and again.
        if !self.used.insert(id) {
            return Err(self.database.damaged(id, "is used twice"));
        }
        let page = self.database.page(id)?;
        for more in 1..=u64::from(self.database.overflow_of(id)?) {
            if !self.used.insert(id + more) {
                return Err(self.database.damaged(id + more, "is used twice"));
            }
        }
        if page.count() > 0 {
            let below = next.from.as_deref().is_some_and(|from| page.key(0) < from);
            let above = next.to.as_deref().is_some_and(|to| page.key(page.count() - 1) >= to);
            if below || above {
                return Err(self.database.damaged(id, "has keys that belong to other pages"));
            }
        }
        match &page.elements {
            Elements::Branch(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    let to = (index + 1 < elements.len()).then(|| page.key(index + 1).to_vec());
                    self.wait(Waiting {
                        page: element.child,
                        from: Some(page.key(index).to_vec()),
                        to: to.or_else(|| next.to.clone()),
                        depth: next.depth + 1,
                    })?;
                }
            }
            Elements::Leaf(elements) => self.buckets(id, &page, elements, next.depth)?,
        }
        Ok(())
    }

    /// Has the buckets of a leaf looked at. One that is kept within its value may hold others, each shorter than it is.
    fn buckets(&mut self, id: u64, page: &Page, elements: &[LeafElement], depth: usize) -> Result<()> {
        for element in elements.iter().filter(|element| element.is_bucket) {
            let bucket = Bucket::parse(self.database, id, page.value(element))?;
            if let Some(page) = bucket.page() {
                self.wait(Waiting { page, from: None, to: None, depth: depth + 1 })?;
            }
            if let Some(Page { elements: Elements::Leaf(inner), .. }) = bucket.inline()
                && let Some(inline) = bucket.inline()
            {
                if depth >= MAX_DEPTH {
                    return Err(self.database.damaged(id, "has buckets that lie too deep"));
                }
                self.buckets(id, inline, inner, depth + 1)?;
            }
        }
        Ok(())
    }
}

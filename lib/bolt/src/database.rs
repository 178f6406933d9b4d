//! The file: its meta pages, and reading its other pages.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gantry_core::{Error, ErrorKind, Result, ResultExt as _};

use crate::bucket::Bucket;
use crate::lock;
use crate::meta::{META_PAGE, Meta, PAGE_HEADER, PAGE_SIZES};
use crate::page::{Page, overflow};
use crate::verify;

/// The longest run of pages that is read as one. A value of containerd's is at most the size of a gRPC message, 16 MiB.
const MAX_RUN_BYTES: u64 = 128 << 20;
/// How many bytes of pages are kept for the next look at them.
const CACHE_BYTES: usize = 4 << 20;

/// A database file, locked against writers for as long as this is held.
#[derive(Debug)]
pub struct Database {
    file: File,
    path: PathBuf,
    length: u64,
    meta: Meta,
    cache: Mutex<Cache>,
    verified: OnceLock<()>,
}

/// A database file that nobody can write to while this is held.
#[derive(Debug)]
pub struct Locked {
    // Never read: closing it is what unlocks.
    _file: File,
    path: PathBuf,
}

impl Locked {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[derive(Debug, Default)]
struct Cache {
    pages: HashMap<u64, Arc<Page>>,
    bytes: usize,
}

impl Database {
    /// Opens `path` and finds what was committed last.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` if it is no regular file, or if a process has it open for writing (naming its pid);
    /// `DataLoss` if it has no whole meta page.
    pub fn open(path: impl Into<PathBuf>) -> Result<Database> {
        let path = path.into();
        // Not to wait for a writer, if somebody put a FIFO there.
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(nonblock).open(&path);
        let file = file.with_context(|| format!("open database {}", path.display()))?;
        let metadata = file.metadata().with_context(|| format!("read {}", path.display()))?;
        if !metadata.is_file() {
            return Err(Error::failed_precondition(format!("{} is no regular file", path.display())));
        }
        lock::share(&file, &path)?;
        // Only now: what was written before the lock was taken counts.
        let length = file.metadata().with_context(|| format!("read {}", path.display()))?.len();
        let meta = find_meta(&file, length)
            .with_context(|| format!("read {}", path.display()))?
            .ok_or_else(|| damaged(&path, None, "has no valid meta page: it is no bbolt file, or damaged"))?;
        Ok(Database { file, path, length, meta, cache: Mutex::default(), verified: OnceLock::new() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the last transaction that was committed: it grows with every change.
    pub fn txid(&self) -> u64 {
        self.meta.txid
    }

    /// Keeps the lock and lets go of all else.
    #[must_use]
    pub fn keep_locked(self) -> Locked {
        Locked { _file: self.file, path: self.path }
    }

    /// The bucket that holds all others. The first call looks through the whole file.
    ///
    /// # Errors
    /// `DataLoss` naming file and page if the tree is damaged anywhere; those of reading the file.
    pub fn root(&self) -> Result<Bucket<'_>> {
        if self.verified.get().is_none() {
            verify::verify(self, self.meta.root)?;
            let _ = self.verified.set(());
        }
        Ok(Bucket::at_page(self, self.meta.root, 0))
    }

    pub(crate) fn damaged(&self, page: u64, what: impl AsRef<str>) -> Error {
        damaged(&self.path, Some(page), what)
    }

    /// The page `id`, with those that overflow from it.
    pub(crate) fn page(&self, id: u64) -> Result<Arc<Page>> {
        if let Some(page) = self.cache().pages.get(&id) {
            return Ok(Arc::clone(page));
        }
        let (page, bytes) = self.read_page(id)?;
        let page = Arc::new(page);
        let mut cache = self.cache();
        if cache.bytes + bytes > CACHE_BYTES {
            *cache = Cache::default();
        }
        if bytes <= CACHE_BYTES {
            cache.bytes += bytes;
            cache.pages.insert(id, Arc::clone(&page));
        }
        Ok(page)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many pages follow the page `id` and belong to it.
    pub(crate) fn overflow_of(&self, id: u64) -> Result<u32> {
        let mut header = [0; PAGE_HEADER];
        let at = self.offset(id, 0)?;
        self.file.read_exact_at(&mut header, at).map_err(|error| self.unreadable(id, error))?;
        overflow(&header).ok_or_else(|| self.damaged(id, "is cut short"))
    }

    fn read_page(&self, id: u64) -> Result<(Page, usize)> {
        let more = self.overflow_of(id)?;
        let length = (u64::from(more) + 1) * u64::from(self.meta.page_size);
        if length > MAX_RUN_BYTES {
            return Err(self.damaged(id, format!("says that {more} pages belong to it")));
        }
        let at = self.offset(id, u64::from(more))?;
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, at).map_err(|error| self.unreadable(id, error))?;
        let size = bytes.len();
        Page::parse(id, bytes).map(|page| (page, size)).map_err(|what| self.damaged(id, what))
    }

    /// Where the page `id` begins; it and `more` behind it must be in use and in the file.
    fn offset(&self, id: u64, more: u64) -> Result<u64> {
        let size = u64::from(self.meta.page_size);
        let last = id.checked_add(more).filter(|last| id >= 2 && *last < self.meta.high_water);
        let end = last.and_then(|last| last.checked_add(1)?.checked_mul(size));
        match end {
            Some(end) if end <= self.length => Ok(id * size),
            _ => Err(self.damaged(id, format!("and {more} behind it lie outside the file's pages in use"))),
        }
    }

    fn unreadable(&self, id: u64, error: std::io::Error) -> Error {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                self.damaged(id, "is not there any more: the file was cut short")
            }
            _ => Error::io(error).context(format!("read page {id} of {}", self.path.display())),
        }
    }
}

fn damaged(path: &Path, page: Option<u64>, what: impl AsRef<str>) -> Error {
    let what = what.as_ref();
    let text = match page {
        Some(page) => format!("database {}: page {page} {what}", path.display()),
        None => format!("database {} {what}", path.display()),
    };
    Error::new(ErrorKind::DataLoss, text)
}

/// The valid meta page of the two that has the higher transaction. The second is looked for by its place if the first, which
/// says how large pages are, is not valid.
fn find_meta(file: &File, length: u64) -> std::io::Result<Option<Meta>> {
    let read = |at: u64| {
        let mut page = [0; META_PAGE];
        if at + META_PAGE as u64 > length {
            return Ok(None);
        }
        file.read_exact_at(&mut page, at).map(|()| Meta::parse(&page))
    };
    let first = read(0)?;
    let mut best = first;
    for power in PAGE_SIZES {
        let size = 1 << power;
        if first.is_some_and(|first| first.page_size != size) {
            continue;
        }
        let second = read(u64::from(size))?.filter(|second| second.page_size == size);
        if second.is_some_and(|second| best.is_none_or(|best| second.txid > best.txid)) {
            best = second;
        }
    }
    Ok(best)
}

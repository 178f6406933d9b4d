//! Records of blobs, and their files.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use gantry_core::maintenance::check::Problem;
use gantry_core::maintenance::{ObjectKind, ObjectName};
use gantry_core::{Context, Digest, ErrorKind, Result, ResultExt as _};
use gantry_store::{Reading, Writing, params};

use super::{Checker, Draft, Mended, PAGE, hash};
use crate::collection::{Node, NodeKind};
use crate::columns::{length_at, length_to_column};
use crate::database::Inner;

/// So many blobs are read at once.
const HASHES: usize = 4;

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(1);

/// All records of a digest.
struct Blob {
    digest: String,
    records: u64,
    /// The shortest and the longest size that is recorded.
    sizes: (u64, u64),
}

/// One record.
struct BlobRow {
    id: i64,
    namespace: String,
    size: u64,
}

impl Checker {
    async fn blob_page(&self, after: String) -> Result<Vec<Blob>> {
        let read = move |db: &Reading<'_>| {
            let sql = "SELECT digest, count(*), min(size), max(size) FROM blobs WHERE digest > ?1 \
                       GROUP BY digest ORDER BY digest LIMIT ?2";
            db.all(sql, params![after, PAGE as i64], |row| {
                // A size that cannot be is one that differs from the file's.
                let size = |index| length_at(row, index).unwrap_or(u64::MAX);
                Ok(Blob { digest: row.get(0)?, records: length_at(row, 1)?, sizes: (size(2), size(3)) })
            })
        };
        self.inner.store.read(read).await
    }

    async fn total(&self, sql: &'static str) -> Result<u64> {
        let read = move |db: &Reading<'_>| db.one(sql, [], |row| Ok(length_at(row, 0).unwrap_or(0)));
        Ok(self.inner.store.read(read).await?.unwrap_or(0))
    }

    /// Every record has its file, of the recorded size.
    pub(super) async fn blobs(&mut self) -> Result<()> {
        let total = self.total("SELECT count(*) FROM blobs").await?;
        let mut after = String::new();
        loop {
            self.progress("blobs", self.summary.blobs, total).await?;
            let page = self.blob_page(after.clone()).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.digest);
            for blob in page {
                self.summary.blobs += blob.records;
                self.blob(blob).await?;
            }
        }
    }

    async fn blob(&mut self, blob: Blob) -> Result<()> {
        let Ok(digest) = Digest::parse(blob.digest.as_str()) else {
            return self.unreadable_blob(blob.digest).await;
        };
        match self.inner.content.info(&Context::background(), &digest).await {
            Ok(info) if blob.sizes == (info.size_bytes, info.size_bytes) => Ok(()),
            Err(error) if error.kind() != ErrorKind::NotFound => {
                self.unchecked(&format!("content {digest}"), &error).await
            }
            _ => self.look_again(digest).await,
        }
    }

    /// The second look, under the lock that commits and removals hold: what differs now is wrong.
    async fn look_again(&mut self, digest: Digest) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let _alone = inner.digests.lock(digest.as_str().to_owned()).await;
        let rows = inner.records_of(&digest).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let info = match inner.content.info(&Context::background(), &digest).await {
            Ok(info) => info,
            Err(error) if error.kind() == ErrorKind::NotFound => return self.missing(digest, rows).await,
            Err(error) => return self.unchecked(&format!("content {digest}"), &error).await,
        };
        if rows.iter().all(|row| row.size == info.size_bytes) {
            return Ok(());
        }
        match hash::is_whole(&inner, &digest, &self.events).await {
            Ok(true) => self.wrong_size(digest, rows, info.size_bytes).await,
            Ok(false) => self.damaged(digest, rows).await,
            Err(error) if error.kind() == ErrorKind::Canceled => Err(error),
            Err(error) => self.unchecked(&format!("content {digest}"), &error).await,
        }
    }

    async fn missing(&mut self, digest: Digest, rows: Vec<BlobRow>) -> Result<()> {
        self.told.insert(digest.to_string());
        let needed = self.needed_by(nodes(&rows)).await?;
        let draft = Draft::new(Problem::BlobMissing).object(named(&digest, &rows));
        let draft = draft.detail(told_of(&rows, &needed));
        let inner = Arc::clone(&self.inner);
        let repair = async move {
            inner.forget_blob(&digest).await?;
            Ok(Mended::Done("removed its record: pulling an image that needs it fetches it again".to_owned()))
        };
        self.settle(draft, "removes its record, so that a pull fetches it again", repair).await
    }

    async fn wrong_size(&mut self, digest: Digest, rows: Vec<BlobRow>, size: u64) -> Result<()> {
        self.told.insert(digest.to_string());
        let recorded: Vec<String> = rows.iter().map(|row| row.size.to_string()).collect();
        let detail =
            format!("{} recorded, {size} bytes in the file, whose digest is right", recorded.join(", "));
        let draft = Draft::new(Problem::BlobSize).object(named(&digest, &rows)).detail(detail);
        let inner = Arc::clone(&self.inner);
        let repair = async move {
            let write = move |db: &Writing<'_>| {
                let sql = "UPDATE blobs SET size = ?2 WHERE digest = ?1";
                db.execute(sql, params![digest.as_str(), length_to_column(size)?]).map(drop)
            };
            inner.change(write).await?;
            Ok(Mended::Done(format!("recorded {size} bytes")))
        };
        self.settle(draft, "records the file's size", repair).await
    }

    async fn damaged(&mut self, digest: Digest, rows: Vec<BlobRow>) -> Result<()> {
        if !self.told.insert(digest.to_string()) {
            return Ok(());
        }
        let needed = self.needed_by(nodes(&rows)).await?;
        let draft = Draft::new(Problem::BlobDamaged).object(named(&digest, &rows));
        let draft = draft.detail(told_of(&rows, &needed));
        let inner = Arc::clone(&self.inner);
        let repair = async move {
            inner.forget_blob(&digest).await?;
            let aside = inner.put_aside(&digest).await?;
            Ok(Mended::Done(format!("{aside} and removed its record: a pull fetches it again")))
        };
        self.settle(
            draft,
            "puts the file aside and removes its record, so that a pull fetches it again",
            repair,
        )
        .await
    }

    /// Every blob's bytes have its digest.
    pub(super) async fn hashes(&mut self) -> Result<()> {
        let total =
            self.total("SELECT sum(size) FROM (SELECT max(size) AS size FROM blobs GROUP BY digest)").await?;
        let mut last = Instant::now();
        let mut after = String::new();
        self.progress("digests", 0, total).await?;
        loop {
            let page = self.blob_page(after.clone()).await?;
            let Some(end) = page.last() else { break };
            after.clone_from(&end.digest);
            let wanted: Vec<(Digest, u64)> = page
                .into_iter()
                .filter(|blob| !self.told.contains(&blob.digest))
                .filter_map(|blob| Some((Digest::parse(blob.digest).ok()?, blob.sizes.1)))
                .collect();
            let (inner, events) = (Arc::clone(&self.inner), self.events.clone());
            let mut hashing = stream::iter(wanted)
                .map(move |(digest, size)| {
                    let (inner, events) = (Arc::clone(&inner), events.clone());
                    async move {
                        let whole = hash::is_whole(&inner, &digest, &events).await;
                        (digest, size, whole)
                    }
                })
                .buffer_unordered(HASHES);
            while let Some((digest, size, whole)) = hashing.next().await {
                match whole {
                    Ok(true) => {}
                    Ok(false) => self.hash_again(digest).await?,
                    Err(error) if error.kind() == ErrorKind::Canceled => return Err(error),
                    // Deleted meanwhile, or told of before.
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => self.unchecked(&format!("content {digest}"), &error).await?,
                }
                self.summary.hashed_bytes += size;
                if last.elapsed() > PROGRESS {
                    last = Instant::now();
                    self.progress("digests", self.summary.hashed_bytes, total).await?;
                }
            }
        }
        self.progress("digests", total, total).await
    }

    async fn hash_again(&mut self, digest: Digest) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let _alone = inner.digests.lock(digest.as_str().to_owned()).await;
        let rows = inner.records_of(&digest).await?;
        if rows.is_empty() {
            return Ok(());
        }
        match hash::is_whole(&inner, &digest, &self.events).await {
            Ok(true) => Ok(()),
            Ok(false) => self.damaged(digest, rows).await,
            Err(error) if error.kind() == ErrorKind::NotFound => self.missing(digest, rows).await,
            Err(error) => Err(error),
        }
    }
}

impl Inner {
    async fn records_of(&self, digest: &Digest) -> Result<Vec<BlobRow>> {
        let digest = digest.clone();
        let read = move |db: &Reading<'_>| {
            let sql = "SELECT id, namespace, size FROM blobs WHERE digest = ?1 ORDER BY namespace";
            db.all(sql, params![digest.as_str()], |row| {
                let size = length_at(row, 2).unwrap_or(u64::MAX);
                Ok(BlobRow { id: row.get(0)?, namespace: row.get(1)?, size })
            })
        };
        self.store.read(read).await
    }

    /// Removes a blob's records in every namespace. The caller holds the digest's lock.
    async fn forget_blob(&self, digest: &Digest) -> Result<()> {
        let gone = digest.clone();
        let write = move |db: &Writing<'_>| {
            db.execute("DELETE FROM blobs WHERE digest = ?1", params![gone.as_str()]).map(drop)
        };
        self.delete(write).await
    }

    /// Takes a damaged file out of the way; says what was done.
    async fn put_aside(&self, digest: &Digest) -> Result<String> {
        match self.content.files() {
            Some(files) => {
                let damaged = digest.clone();
                let path = self.blocking(move || files.set_aside(&damaged)).await;
                let path = path.with_context(|| format!("put content {digest} aside"))?;
                Ok(format!("moved the file to {}", path.display()))
            }
            None => {
                self.content.delete(&Context::background(), digest).await?;
                Ok("removed the file".to_owned())
            }
        }
    }
}

fn nodes(rows: &[BlobRow]) -> Vec<Node> {
    rows.iter().map(|row| Node { kind: NodeKind::Blob, id: row.id }).collect()
}

fn named(digest: &Digest, rows: &[BlobRow]) -> ObjectName {
    let namespace = match rows {
        [only] => only.namespace.clone(),
        _ => String::new(),
    };
    ObjectName { kind: ObjectKind::Content, namespace, snapshotter: String::new(), name: digest.to_string() }
}

fn told_of(rows: &[BlobRow], needed: &str) -> String {
    match rows {
        [_] => needed.to_owned(),
        _ => {
            let names: Vec<&str> = rows.iter().map(|row| row.namespace.as_str()).collect();
            format!("in namespaces {}, {needed}", names.join(", "))
        }
    }
}

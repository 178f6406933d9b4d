//! A write in progress.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_core::content::{CommitContent, ContentWriter, IngestStatus, OpenWriter};
use gantry_core::{Context, Digest, Error, ErrorKind, IngestRef, Result, ResultExt};
use gantry_failpoint::{Point, pass};

use crate::blobs::Blobs;
use crate::hasher::Hasher;
use crate::ingest::IngestDir;
use crate::locks::RefLock;
use crate::store::Inner;

/// An open write: gone after a commit, and after a failure of the disk.
pub(crate) struct LocalWriter {
    inner: Arc<Inner>,
    reference: IngestRef,
    open: Option<OpenIngest>,
}

/// The write's file and what is known of it. Dropping it frees the ref.
pub(crate) struct OpenIngest {
    dir: IngestDir,
    file: File,
    hasher: Hasher,
    status: IngestStatus,
    _lock: RefLock,
}

impl LocalWriter {
    pub(crate) fn new(inner: Arc<Inner>, open: OpenIngest) -> LocalWriter {
        LocalWriter { inner, reference: open.status.reference.clone(), open: Some(open) }
    }

    fn ended(&self) -> Error {
        Error::failed_precondition(format!("writer of ref {:?} is closed", self.reference.as_str()))
    }

    /// Runs `call` with the write, which is kept if that works. A caller that leaves meanwhile frees the ref.
    async fn with<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&mut OpenIngest) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut open = self.open.take().ok_or_else(|| self.ended())?;
        let (open, done) = self
            .inner
            .blocking
            .run(move || {
                let done = call(&mut open);
                Ok((open, done))
            })
            .await?;
        let refused = done.as_ref().is_err_and(|error| error.kind() == ErrorKind::OutOfRange);
        if done.is_ok() || refused {
            self.open = Some(open);
        }
        done
    }
}

impl OpenIngest {
    /// Makes the ingest, or takes it up where it was left: its sum is computed anew.
    pub(crate) fn open(cx: &Context, dir: IngestDir, how: &OpenWriter, lock: RefLock) -> Result<OpenIngest> {
        let hasher = Hasher::like(how.expected.as_ref());
        match Self::resume(cx, &dir, how, hasher.clone()) {
            Ok((file, hasher, status)) => {
                let status = IngestStatus { expected: how.expected.clone(), ..status };
                return Ok(OpenIngest { dir, file, hasher, status, _lock: lock });
            }
            Err(error) if matches!(error.kind(), ErrorKind::Canceled | ErrorKind::DeadlineExceeded) => {
                return Err(error);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                // Source: containerd starts over as well.
                tracing::warn!(r#ref = %how.reference, %error, "a write cannot be resumed and starts over");
            }
        }
        let now = SystemTime::now();
        let file = match dir.create(&how.reference, how.total_bytes, now) {
            Ok(file) => file,
            Err(error) => {
                if !dir.data().exists() {
                    // Half made, it would be no ingest; what cannot be removed now goes with the next start.
                    let _ = dir.remove();
                }
                return Err(error);
            }
        };
        pass(Point::IngestMade)?;
        let status = IngestStatus {
            reference: how.reference.clone(),
            offset_bytes: 0,
            total_bytes: how.total_bytes,
            expected: how.expected.clone(),
            started_at: now,
            updated_at: now,
        };
        Ok(OpenIngest { dir, file, hasher, status, _lock: lock })
    }

    fn resume(
        cx: &Context,
        dir: &IngestDir,
        how: &OpenWriter,
        mut hasher: Hasher,
    ) -> Result<(File, Hasher, IngestStatus)> {
        let mut status = dir.status()?;
        if status.reference != how.reference {
            return Err(Error::internal(format!(
                "{} belongs to {:?}",
                dir.path().display(),
                status.reference
            )));
        }
        if how.total_bytes > 0 && status.total_bytes > 0 && how.total_bytes != status.total_bytes {
            let (now, before) = (how.total_bytes, status.total_bytes);
            return Err(Error::failed_precondition(format!("total is {now} bytes now, was {before}")));
        }
        let data = dir.data();
        let mut file = File::options()
            .read(true)
            .write(true)
            .open(&data)
            .with_context(|| format!("open {}", data.display()))?;
        let mut checked = Checked { cx, file: &mut file, failed: None };
        let summed = hasher.read(&mut checked);
        if let Some(error) = checked.failed {
            return Err(error);
        }
        status.offset_bytes = summed.with_context(|| format!("read {}", data.display()))?;
        if status.total_bytes == 0 {
            status.total_bytes = how.total_bytes;
        }
        Ok((file, hasher, status))
    }

    fn write(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            match self.file.write_at(data, self.status.offset_bytes) {
                Ok(0) => return Err(self.failed("write", io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    // What was written counts, even if the next bytes fail.
                    self.hasher.update(&data[..count]);
                    self.status.offset_bytes += count as u64;
                    data = &data[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("write", error)),
            }
        }
        pass(Point::IngestWritten)?;
        self.status.updated_at = SystemTime::now();
        Ok(())
    }

    fn truncate(&mut self, size_bytes: u64) -> Result<()> {
        let offset = self.status.offset_bytes;
        if size_bytes > offset {
            return Err(Error::out_of_range(format!("truncate to {size_bytes} of {offset} bytes")));
        }
        if size_bytes < offset {
            let mut hasher = Hasher::like(Some(&self.hasher.digest()));
            let data = self.dir.data();
            // A descriptor of its own: the path may be gone, if the write was aborted.
            let mut head = Head { file: &self.file, offset: 0, left: size_bytes };
            let summed = hasher.read(&mut head).with_context(|| format!("read {}", data.display()))?;
            if summed != size_bytes {
                return Err(Error::new(
                    ErrorKind::DataLoss,
                    format!("{} has become shorter", data.display()),
                ));
            }
            self.file.set_len(size_bytes).map_err(|error| self.failed("truncate", error))?;
            self.hasher = hasher;
            self.status.offset_bytes = size_bytes;
        }
        self.status.updated_at = SystemTime::now();
        Ok(())
    }

    fn commit(self, blobs: &Blobs, how: &CommitContent, verity: bool) -> Result<Digest> {
        let size = self.status.offset_bytes;
        let length = self.file.metadata().map_err(|error| self.failed("stat", error))?.len();
        if length != size {
            let path = self.dir.data();
            return Err(Error::new(ErrorKind::DataLoss, format!("{} changed its length", path.display())));
        }
        if how.total_bytes > 0 && how.total_bytes != size {
            return Err(Error::failed_precondition(format!(
                "unexpected commit size {size}, expected {}",
                how.total_bytes
            )));
        }
        let mut digest = self.hasher.digest();
        if let Some(expected) = &how.expected {
            if expected.algorithm() != digest.algorithm() {
                let mut hasher = Hasher::like(Some(expected));
                let mut all = Head { file: &self.file, offset: 0, left: size };
                hasher.read(&mut all).map_err(|error| self.failed("read", error))?;
                digest = hasher.digest();
            }
            if *expected != digest {
                return Err(Error::failed_precondition(format!(
                    "unexpected commit digest {digest}, expected {expected}"
                )));
            }
        }
        if blobs.exists(&digest)? {
            // Who gave it its name may have ended before that was durable, and the record comes next.
            blobs.sync_name(&digest)?;
            self.dir.remove()?;
            return Err(Error::already_exists(format!("content {digest}")));
        }
        let now = SystemTime::now();
        // All that the blob will be is on disk before it has its name.
        let times = fs::FileTimes::new().set_accessed(now).set_modified(now);
        self.file.set_times(times).map_err(|error| self.failed("set times of", error))?;
        self.file
            .set_permissions(fs::Permissions::from_mode(0o444))
            .map_err(|error| self.failed("chmod", error))?;
        self.file.sync_all().map_err(|error| self.failed("sync", error))?;
        pass(Point::ContentSynced)?;
        blobs.take(&self.dir.data(), &digest).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::new(
                ErrorKind::Aborted,
                format!("ref {:?} was aborted before its commit", self.status.reference.as_str()),
            ),
            _ => error,
        })?;
        pass(Point::ContentNamed)?;
        if verity {
            // It is refused while anybody can write, so our own descriptor goes first.
            drop(self.file);
            if let Err(error) = gantry_sys::verity::enable(&blobs.path(&digest)) {
                // The blob is whole without it. Source: containerd goes on too.
                tracing::warn!(%digest, %error, "a blob is not protected");
            }
        }
        if let Err(error) = self.dir.remove() {
            // The blob is there: a failure now would be a lie. The next start removes what is left.
            tracing::warn!(r#ref = %self.status.reference, %error, "remove an ingest after its commit");
        }
        Ok(digest)
    }

    fn failed(&self, step: &str, error: io::Error) -> Error {
        Error::io(error).context(format!("{step} {}", self.dir.data().display()))
    }
}

/// Stops reading when the caller gave up.
struct Checked<'a> {
    cx: &'a Context,
    file: &'a mut File,
    failed: Option<Error>,
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Err(error) = self.cx.check() {
            self.failed = Some(error);
            return Ok(0);
        }
        self.file.read(buffer)
    }
}

/// The first bytes of a file, by position.
struct Head<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Head<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

#[async_trait]
impl ContentWriter for LocalWriter {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        if data.is_empty() && self.open.is_some() {
            return Ok(());
        }
        self.with(move |open| open.write(&data)).await
    }

    async fn truncate(&mut self, size_bytes: u64) -> Result<()> {
        self.with(move |open| open.truncate(size_bytes)).await
    }

    async fn status(&mut self) -> Result<IngestStatus> {
        self.open.as_ref().map(|open| open.status.clone()).ok_or_else(|| self.ended())
    }

    async fn digest(&mut self) -> Result<Digest> {
        self.open.as_ref().map(|open| open.hasher.digest()).ok_or_else(|| self.ended())
    }

    async fn commit(&mut self, how: CommitContent) -> Result<Digest> {
        // Source: containerd: a commit closes the writer whether or not it works.
        let open = self.open.take().ok_or_else(|| self.ended())?;
        let inner = Arc::clone(&self.inner);
        self.inner
            .blocking
            .run(move || {
                let digest = open.commit(&inner.blobs, &how, inner.verity)?;
                inner.set_labels(&digest, how.labels);
                Ok(digest)
            })
            .await
    }
}

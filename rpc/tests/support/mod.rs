//! A server on a Unix socket, and small in-memory stores behind it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use gantry_core::containers::{Container, ContainerStore};
use gantry_core::content::*;
use gantry_core::field_mask::FieldMask;
use gantry_core::filters::Filters;
use gantry_core::{Context, Digest, Error, IngestRef, ItemStream, Labels, Namespace, Result};
use gantry_rpc::{JobSet, Services};
use sha2::{Digest as _, Sha256};
use tonic::transport::Channel;

pub struct Daemon {
    pub channel: Channel,
    pub jobs: JobSet,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    serving: tokio::task::JoinHandle<Result<()>>,
    _dir: tempfile::TempDir,
}

impl Daemon {
    pub fn start(services: Services) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let jobs = JobSet::default();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let shutdown = async move { drop(stopped.await) };
        let serve = gantry_rpc::serve(
            listener,
            services.routes(&jobs),
            jobs.clone(),
            Duration::from_secs(5),
            shutdown,
        );
        #[allow(clippy::disallowed_methods)] // stop() waits for it
        let serving = tokio::spawn(serve);
        let channel = gantry_rpc::connect(path).unwrap();
        Daemon { channel, jobs, stop: Some(stop), serving, _dir: dir }
    }

    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        drop(self.channel);
        self.serving.await.unwrap().unwrap();
    }
}

pub fn cx() -> Context {
    Context::new(Namespace::parse("test").unwrap())
}

#[derive(Default)]
pub struct FakeContainers(Mutex<BTreeMap<String, Container>>);

#[async_trait]
impl ContainerStore for FakeContainers {
    async fn create(&self, cx: &Context, new: Container) -> Result<Container> {
        cx.namespace()?;
        if new.runtime.name.is_empty() {
            return Err(Error::invalid_argument("container.Runtime.Name must be set"));
        }
        let mut all = self.0.lock().unwrap();
        if all.contains_key(new.id.as_str()) {
            return Err(Error::already_exists(format!("container {:?}", new.id)));
        }
        all.insert(new.id.to_string(), new.clone());
        Ok(new)
    }

    async fn get(&self, cx: &Context, id: &str) -> Result<Container> {
        cx.namespace()?;
        let found = self.0.lock().unwrap().get(id).cloned();
        found.ok_or_else(|| Error::not_found(format!("container {id:?}")))
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<Container>> {
        cx.namespace()?;
        let filters = Filters::parse(filters)?;
        let all: Vec<_> = self.0.lock().unwrap().values().filter(|c| filters.matches(*c)).cloned().collect();
        Ok(futures_util::stream::iter(all.into_iter().map(Ok)).boxed())
    }

    async fn update(&self, cx: &Context, changed: Container, mask: &FieldMask) -> Result<Container> {
        let mut stored = self.get(cx, changed.id.as_str()).await?;
        if mask.is_empty() || mask.paths.iter().any(|path| path == "labels") {
            stored.labels = changed.labels;
        }
        self.0.lock().unwrap().insert(stored.id.to_string(), stored.clone());
        Ok(stored)
    }

    async fn delete(&self, cx: &Context, id: &str) -> Result<()> {
        self.get(cx, id).await?;
        self.0.lock().unwrap().remove(id);
        Ok(())
    }
}

/// Answers nothing, for ever.
pub struct StuckContainers;

#[async_trait]
impl ContainerStore for StuckContainers {
    async fn create(&self, _: &Context, _: Container) -> Result<Container> {
        std::future::pending().await
    }

    async fn get(&self, _: &Context, _: &str) -> Result<Container> {
        std::future::pending().await
    }

    async fn list(&self, _: &Context, _: &[String]) -> Result<ItemStream<Container>> {
        std::future::pending().await
    }

    async fn update(&self, _: &Context, _: Container, _: &FieldMask) -> Result<Container> {
        std::future::pending().await
    }

    async fn delete(&self, _: &Context, _: &str) -> Result<()> {
        std::future::pending().await
    }
}

#[derive(Default)]
struct Ingest {
    data: Vec<u8>,
    locked: bool,
}

#[derive(Default)]
pub struct State {
    blobs: BTreeMap<Digest, (Bytes, Labels)>,
    ingests: BTreeMap<String, Ingest>,
}

#[derive(Clone, Default)]
pub struct FakeContent(Arc<Mutex<State>>);

impl FakeContent {
    pub fn ingest(&self, reference: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().ingests.get(reference).map(|ingest| ingest.data.clone())
    }

    pub fn locked(&self, reference: &str) -> bool {
        self.0.lock().unwrap().ingests.get(reference).is_some_and(|ingest| ingest.locked)
    }
}

struct Writer(FakeContent, OpenWriter);

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(ingest) = self.0.0.lock().unwrap().ingests.get_mut(self.1.reference.as_str()) {
            ingest.locked = false;
        }
    }
}

impl Writer {
    fn with<T>(&self, f: impl FnOnce(&mut Ingest) -> T) -> T {
        f(self.0.0.lock().unwrap().ingests.entry(self.1.reference.to_string()).or_default())
    }
}

#[async_trait]
impl ContentWriter for Writer {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        self.with(|ingest| ingest.data.extend_from_slice(&data));
        Ok(())
    }

    async fn truncate(&mut self, size_bytes: u64) -> Result<()> {
        self.with(|ingest| ingest.data.truncate(size_bytes as usize));
        Ok(())
    }

    async fn status(&mut self) -> Result<IngestStatus> {
        Ok(IngestStatus {
            reference: self.1.reference.clone(),
            offset_bytes: self.with(|ingest| ingest.data.len() as u64),
            total_bytes: self.1.total_bytes,
            expected: None,
            started_at: UNIX_EPOCH + Duration::from_secs(1),
            updated_at: UNIX_EPOCH + Duration::from_secs(2),
        })
    }

    async fn digest(&mut self) -> Result<Digest> {
        Ok(self.with(|ingest| Digest::sha256(Sha256::digest(&ingest.data))))
    }

    async fn commit(&mut self, how: CommitContent) -> Result<Digest> {
        let data = self.with(|ingest| ingest.data.clone());
        let size = data.len() as u64;
        if how.total_bytes > 0 && how.total_bytes != size {
            let text = format!("commit: size validation {size} != {}", how.total_bytes);
            return Err(Error::failed_precondition(text));
        }
        let digest = self.digest().await?;
        if how.expected.is_some_and(|expected| expected != digest) {
            return Err(Error::failed_precondition("commit: unexpected digest"));
        }
        let mut state = self.0.0.lock().unwrap();
        state.ingests.remove(self.1.reference.as_str());
        state.blobs.insert(digest.clone(), (data.into(), how.labels));
        Ok(digest)
    }
}

struct Reader(Bytes);

#[async_trait]
impl ContentReader for Reader {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let start = (offset as usize).min(self.0.len());
        Ok(self.0.slice(start..(start + length).min(self.0.len())))
    }
}

#[async_trait]
impl ContentProvider for FakeContent {
    async fn reader(&self, _: &Context, digest: &Digest) -> Result<Arc<dyn ContentReader>> {
        let data = self.0.lock().unwrap().blobs.get(digest).map(|(data, _)| data.clone());
        Ok(Arc::new(Reader(data.ok_or_else(|| Error::not_found(format!("content {digest}")))?)))
    }
}

#[async_trait]
impl ContentStore for FakeContent {
    async fn info(&self, cx: &Context, digest: &Digest) -> Result<ContentInfo> {
        cx.namespace()?;
        let state = self.0.lock().unwrap();
        let (data, labels) =
            state.blobs.get(digest).ok_or_else(|| Error::not_found(format!("content {digest}")))?;
        Ok(ContentInfo {
            digest: digest.clone(),
            size_bytes: data.len() as u64,
            created_at: UNIX_EPOCH,
            updated_at: UNIX_EPOCH,
            labels: labels.clone(),
        })
    }

    async fn update(&self, cx: &Context, digest: &Digest, _: Labels, _: &FieldMask) -> Result<ContentInfo> {
        self.info(cx, digest).await
    }

    async fn list(&self, _: &Context, _: &[String]) -> Result<ItemStream<ContentInfo>> {
        Err(Error::unimplemented("list"))
    }

    async fn delete(&self, _: &Context, digest: &Digest) -> Result<()> {
        let gone = self.0.lock().unwrap().blobs.remove(digest);
        gone.map(drop).ok_or_else(|| Error::not_found(format!("content {digest}")))
    }

    async fn writer(&self, cx: &Context, open: OpenWriter) -> Result<Box<dyn ContentWriter>> {
        cx.namespace()?;
        let mut state = self.0.lock().unwrap();
        if let Some(digest) = open.expected.as_ref().filter(|digest| state.blobs.contains_key(*digest)) {
            return Err(Error::already_exists(format!("content {digest}")));
        }
        let ingest = state.ingests.entry(open.reference.to_string()).or_default();
        if std::mem::replace(&mut ingest.locked, true) {
            return Err(Error::unavailable(format!("ref {:?} locked", open.reference)));
        }
        drop(state);
        Ok(Box::new(Writer(self.clone(), open)))
    }

    async fn status(&self, _: &Context, reference: &IngestRef) -> Result<IngestStatus> {
        Err(Error::not_found(format!("ingest {reference:?}")))
    }

    async fn statuses(&self, _: &Context, _: &[String]) -> Result<Vec<IngestStatus>> {
        Ok(Vec::new())
    }

    async fn abort(&self, _: &Context, reference: &IngestRef) -> Result<()> {
        let gone = self.0.lock().unwrap().ingests.remove(reference.as_str());
        gone.map(drop).ok_or_else(|| Error::not_found(format!("ingest {reference:?}")))
    }
}

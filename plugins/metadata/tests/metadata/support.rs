//! What the tests put behind and around the metadata: a content store and a snapshot driver of plain files, and an ear for events.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use gantry_core::content::{
    CommitContent, ContentInfo, ContentProvider, ContentReader, ContentStore, ContentWriter, IngestStatus,
    OpenWriter,
};
use gantry_core::events::{Envelope, Event, EventPublisher};
use gantry_core::field_mask::FieldMask;
use gantry_core::mount::Mount;
use gantry_core::snapshots::{DriverSnapshot, SnapshotDriver, SnapshotId, SnapshotUsage};
use gantry_core::{
    Context, Digest, Error, ErrorKind, IngestRef, ItemStream, Labels, LeaseId, Namespace, Result, SnapshotKey,
};
use gantry_metadata::{Metadata, MetadataConfig, MetadataParts};
use sha2::{Digest as _, Sha256};

/// A context in namespace `name`.
pub(crate) fn cx(name: &str) -> Context {
    Context::new(Namespace::parse(name).unwrap())
}

/// The same with a lease.
pub(crate) fn leased(name: &str, lease: &str) -> Context {
    cx(name).with_lease(LeaseId::parse(lease).unwrap())
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn key(text: &str) -> SnapshotKey {
    SnapshotKey::parse(text).unwrap()
}

pub(crate) fn digest_of(data: &[u8]) -> Digest {
    Digest::sha256(Sha256::digest(data))
}

pub(crate) async fn all<T>(items: ItemStream<T>) -> Vec<T> {
    items.try_collect().await.unwrap()
}

/// Everything the metadata needs, in one directory.
pub(crate) struct World {
    pub(crate) metadata: Metadata,
    pub(crate) content: Arc<FileContent>,
    pub(crate) driver: Arc<DirectoryDriver>,
    pub(crate) events: Arc<Ear>,
}

impl World {
    pub(crate) async fn open(root: &Path) -> World {
        Self::open_with(root, MetadataConfig::default(), None).await
    }

    pub(crate) async fn open_with(root: &Path, config: MetadataConfig, boot: Option<&str>) -> World {
        Self::try_open(root, config, boot).await.unwrap()
    }

    pub(crate) async fn try_open(root: &Path, config: MetadataConfig, boot: Option<&str>) -> Result<World> {
        let (parts, content, driver, events) = parts(root);
        let metadata = Metadata::open_in_boot(config, parts, boot.map(str::to_owned)).await?;
        Ok(World { metadata, content, driver, events })
    }

    /// Opens what no process uses as it is.
    pub(crate) async fn open_as_is(root: &Path) -> Result<World> {
        let (parts, content, driver, events) = parts(root);
        let metadata = Metadata::open_as_is(MetadataConfig::default(), parts).await?;
        Ok(World { metadata, content, driver, events })
    }

    /// Writes and commits a blob.
    pub(crate) async fn blob(&self, cx: &Context, data: &[u8], labels: Labels) -> Digest {
        self.try_blob(cx, data, labels).await.unwrap()
    }

    pub(crate) async fn try_blob(&self, cx: &Context, data: &[u8], labels: Labels) -> Result<Digest> {
        let digest = digest_of(data);
        let reference = IngestRef::parse(format!("ref {digest}")).unwrap();
        let open = OpenWriter { reference, total_bytes: 0, expected: None };
        let mut writer = self.metadata.content().writer(cx, open).await?;
        writer.write(Bytes::copy_from_slice(data)).await?;
        writer.commit(CommitContent { total_bytes: 0, expected: Some(digest), labels }).await
    }

    pub(crate) async fn has_blob(&self, cx: &Context, digest: &Digest) -> bool {
        self.metadata.content().info(cx, digest).await.is_ok()
    }
}

fn parts(root: &Path) -> (MetadataParts, Arc<FileContent>, Arc<DirectoryDriver>, Arc<Ear>) {
    let content = Arc::new(FileContent::open(root.join("content")));
    let driver = Arc::new(DirectoryDriver::new(root.join("snapshots")));
    fs::create_dir_all(&driver.root).unwrap();
    let events = Arc::new(Ear::default());
    let parts = MetadataParts {
        path: root.join("gantry/store.db"),
        content: Arc::clone(&content) as Arc<dyn ContentStore>,
        drivers: vec![Arc::clone(&driver) as Arc<dyn SnapshotDriver>],
        events: Arc::clone(&events) as Arc<dyn EventPublisher>,
    };
    (parts, content, driver, events)
}

/// Remembers what was published.
#[derive(Default)]
pub(crate) struct Ear {
    pub(crate) heard: Mutex<Vec<(String, Event)>>,
}

#[async_trait]
impl EventPublisher for Ear {
    async fn publish(&self, cx: &Context, event: Event) {
        self.heard.lock().unwrap().push((cx.namespace().unwrap().to_string(), event));
    }

    async fn forward(&self, _envelope: Envelope) -> Result<()> {
        Ok(())
    }
}

/// Snapshots as plain directories.
pub(crate) struct DirectoryDriver {
    pub(crate) root: PathBuf,
    /// Is called once, before the next directory is made.
    pub(crate) before_create: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl DirectoryDriver {
    pub(crate) fn new(root: PathBuf) -> Self {
        DirectoryDriver { root, before_create: Mutex::default() }
    }

    pub(crate) fn path(&self, id: SnapshotId) -> PathBuf {
        self.root.join(id.to_string())
    }
}

impl SnapshotDriver for DirectoryDriver {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn capabilities(&self) -> Vec<String> {
        vec!["rebase".to_owned()]
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn create(&self, new: &DriverSnapshot) -> Result<()> {
        let before = self.before_create.lock().unwrap().take();
        if let Some(before) = before {
            before();
        }
        for parent in &new.parents {
            if !self.path(*parent).exists() {
                return Err(Error::internal(format!("parent {parent} has no directory")));
            }
        }
        Ok(fs::create_dir(self.path(new.id))?)
    }

    fn mounts(&self, of: &DriverSnapshot) -> Result<Vec<Mount>> {
        let mut options = vec![of.kind.as_str().to_owned()];
        options.extend(of.parents.iter().map(|parent| format!("parent={parent}")));
        let source = self.path(of.id).display().to_string();
        Ok(vec![Mount { kind: "plain".to_owned(), source, target: String::new(), options }])
    }

    fn commit(&self, active: &DriverSnapshot, new_parents: &[SnapshotId]) -> Result<()> {
        Ok(fs::write(self.path(active.id).join("parents"), format!("{new_parents:?}"))?)
    }

    fn retire(&self, id: SnapshotId) -> Result<()> {
        match fs::rename(self.path(id), self.root.join(format!("gone-{id}"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn purge(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("gone-") {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn usage(&self, id: SnapshotId) -> Result<SnapshotUsage> {
        let inodes = fs::read_dir(self.path(id))?.count() as u64;
        Ok(SnapshotUsage { size_bytes: 4096, inodes })
    }

    fn ids(&self) -> Result<Vec<SnapshotId>> {
        let names =
            fs::read_dir(&self.root)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: Vec<String> = names.collect::<Result<_>>()?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn sync(&self, id: SnapshotId) -> Result<()> {
        Ok(fs::File::open(self.path(id))?.sync_all()?)
    }
}

/// Content as plain files. Knows no namespaces.
pub(crate) struct FileContent {
    root: PathBuf,
    locked: Arc<Mutex<HashSet<IngestRef>>>,
}

impl FileContent {
    fn open(root: PathBuf) -> Self {
        fs::create_dir_all(root.join("blobs")).unwrap();
        fs::create_dir_all(root.join("ingest")).unwrap();
        FileContent { root, locked: Arc::default() }
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.as_str())
    }

    fn ingest(&self, reference: &IngestRef) -> PathBuf {
        self.root.join("ingest").join(digest_of(reference.as_str().as_bytes()).hex())
    }

    fn status_at(path: &Path) -> Result<IngestStatus> {
        let now = SystemTime::now();
        Ok(IngestStatus {
            reference: IngestRef::parse(fs::read_to_string(path.join("ref"))?)?,
            offset_bytes: fs::metadata(path.join("data"))?.len(),
            total_bytes: 0,
            expected: None,
            started_at: now,
            updated_at: now,
        })
    }
}

struct FileReader(fs::File);

#[async_trait]
impl ContentReader for FileReader {
    fn size_bytes(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let mut file = self.0.try_clone()?;
        file.seek(SeekFrom::Start(offset))?;
        let mut data = Vec::new();
        file.take(length as u64).read_to_end(&mut data)?;
        Ok(data.into())
    }
}

struct FileWriter {
    path: PathBuf,
    blobs: PathBuf,
    reference: IngestRef,
    locked: Arc<Mutex<HashSet<IngestRef>>>,
}

impl FileWriter {
    fn data(&self) -> Result<Vec<u8>> {
        Ok(fs::read(self.path.join("data"))?)
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        self.locked.lock().unwrap().remove(&self.reference);
    }
}

#[async_trait]
impl ContentWriter for FileWriter {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        let mut file = fs::OpenOptions::new().append(true).open(self.path.join("data"))?;
        Ok(file.write_all(&data)?)
    }

    async fn truncate(&mut self, size_bytes: u64) -> Result<()> {
        let file = fs::OpenOptions::new().write(true).open(self.path.join("data"))?;
        if size_bytes > file.metadata()?.len() {
            return Err(Error::new(ErrorKind::OutOfRange, "truncate beyond the end"));
        }
        Ok(file.set_len(size_bytes)?)
    }

    async fn status(&mut self) -> Result<IngestStatus> {
        FileContent::status_at(&self.path)
    }

    async fn digest(&mut self) -> Result<Digest> {
        Ok(digest_of(&self.data()?))
    }

    async fn commit(&mut self, how: CommitContent) -> Result<Digest> {
        let digest = self.digest().await?;
        if how.expected.is_some_and(|expected| expected != digest) {
            return Err(Error::failed_precondition("unexpected digest"));
        }
        let blob = self.blobs.join(digest.as_str());
        let existed = blob.exists();
        if !existed {
            let file = fs::File::open(self.path.join("data"))?;
            file.sync_all()?;
            fs::rename(self.path.join("data"), &blob)?;
        }
        fs::remove_dir_all(&self.path)?;
        if existed { Err(Error::already_exists("blob")) } else { Ok(digest) }
    }
}

#[async_trait]
impl ContentProvider for FileContent {
    async fn reader(&self, _cx: &Context, digest: &Digest) -> Result<Arc<dyn ContentReader>> {
        Ok(Arc::new(FileReader(fs::File::open(self.blob_path(digest))?)))
    }
}

#[async_trait]
impl ContentStore for FileContent {
    async fn info(&self, _cx: &Context, digest: &Digest) -> Result<ContentInfo> {
        let size_bytes = fs::metadata(self.blob_path(digest))?.len();
        let now = SystemTime::now();
        let digest = digest.clone();
        Ok(ContentInfo { digest, size_bytes, created_at: now, updated_at: now, labels: Labels::new() })
    }

    async fn update(&self, _: &Context, _: &Digest, _: Labels, _: &FieldMask) -> Result<ContentInfo> {
        Err(Error::unimplemented("update"))
    }

    async fn list(&self, cx: &Context, _filters: &[String]) -> Result<ItemStream<ContentInfo>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.root.join("blobs"))? {
            let name = entry?.file_name().into_string().unwrap();
            match self.info(cx, &Digest::parse(name)?).await {
                // Removed since the list began.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                info => found.push(info),
            }
        }
        Ok(stream::iter(found).boxed())
    }

    async fn delete(&self, _cx: &Context, digest: &Digest) -> Result<()> {
        Ok(fs::remove_file(self.blob_path(digest))?)
    }

    async fn writer(&self, _cx: &Context, open: OpenWriter) -> Result<Box<dyn ContentWriter>> {
        if !self.locked.lock().unwrap().insert(open.reference.clone()) {
            return Err(Error::unavailable("ref locked"));
        }
        let path = self.ingest(&open.reference);
        fs::create_dir_all(&path)?;
        // A kill may come between making a file and filling it.
        fs::write(path.join("ref.tmp"), open.reference.as_str())?;
        fs::rename(path.join("ref.tmp"), path.join("ref"))?;
        fs::OpenOptions::new().create(true).append(true).open(path.join("data"))?;
        let (blobs, locked) = (self.root.join("blobs"), Arc::clone(&self.locked));
        Ok(Box::new(FileWriter { path, blobs, reference: open.reference, locked }))
    }

    async fn status(&self, _cx: &Context, reference: &IngestRef) -> Result<IngestStatus> {
        Self::status_at(&self.ingest(reference))
    }

    async fn statuses(&self, _cx: &Context, _filters: &[String]) -> Result<Vec<IngestStatus>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.root.join("ingest"))? {
            match Self::status_at(&entry?.path()) {
                Ok(status) => found.push(status),
                // A kill came between its directory and its files.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn abort(&self, _cx: &Context, reference: &IngestRef) -> Result<()> {
        Ok(fs::remove_dir_all(self.ingest(reference))?)
    }
}

//! Snapshots that a loss of power has damaged come back as they were: the real store, drivers and differ, in another boot.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use gantry_content::LocalContent;
use gantry_core::content::{CommitContent, ContentStore, OpenWriter};
use gantry_core::diff::{ApplyDiff, DiffApplier};
use gantry_core::events::EventPublisher;
use gantry_core::mount::Mount;
use gantry_core::snapshots::{CommitSnapshot, NewSnapshot, SnapshotDriver, Snapshotter};
use gantry_core::wire_names::{LABEL_GC_ROOT, LABEL_SNAPSHOT_REF};
use gantry_core::{
    Context, Descriptor, Digest, ErrorKind, IngestRef, Labels, Namespace, Result, SnapshotKey,
};
use gantry_diff::WalkingDiffer;
use gantry_events::EventExchange;
use gantry_metadata::{Metadata, MetadataConfig, MetadataParts, MetadataSnapshotter};
use gantry_oci::chain_id::chain_ids;
use gantry_snapshots::{NativeDriver, OverlayConfig, OverlayDriver};
use gantry_testkit::{Compression, Image, ImageBuilder, Tar, sha256, tree_lines};

fn cx() -> Context {
    Context::new(Namespace::parse("n").unwrap())
}

fn key(text: &str) -> SnapshotKey {
    SnapshotKey::parse(text).unwrap()
}

fn rooted() -> Labels {
    Labels::from([(LABEL_GC_ROOT.to_owned(), "kept".to_owned())])
}

/// The store with everything that it works with, in one boot.
struct World {
    metadata: Metadata,
    differ: Arc<WalkingDiffer>,
}

impl World {
    async fn open(root: &Path, boot: &str) -> World {
        let content = Arc::new(LocalContent::open(&root.join("content")).unwrap());
        let overlay = OverlayDriver::open(&root.join("overlayfs"), OverlayConfig::default()).unwrap();
        let native = NativeDriver::open(&root.join("native")).unwrap();
        let drivers: Vec<Arc<dyn SnapshotDriver>> = vec![Arc::new(overlay), Arc::new(native)];
        let parts = MetadataParts {
            path: root.join("gantry/store.db"),
            content: content as Arc<dyn ContentStore>,
            drivers,
            events: Arc::new(EventExchange::new()) as Arc<dyn EventPublisher>,
        };
        let config = MetadataConfig::default();
        let metadata = Metadata::open_in_boot(config, parts, Some(boot.to_owned())).await.unwrap();
        let differ = Arc::new(WalkingDiffer::new(Arc::new(metadata.content()), root.join("tmpmounts")));
        World { metadata, differ }
    }

    fn rebuild(&self) {
        self.metadata.rebuild_with(Arc::clone(&self.differ) as Arc<dyn DiffApplier>);
    }

    fn snapshotter(&self, name: &str) -> MetadataSnapshotter {
        self.metadata.snapshotter(name).unwrap()
    }

    async fn close(self) {
        self.metadata.close(Duration::from_secs(30)).await.unwrap();
    }

    /// Ends as a machine without power does: nothing is closed or synced any more. Whatever the store's own jobs still had in hand has ended on return.
    async fn lose_power(self, root: &Path) {
        drop(self);
        // The lock goes with the last handle, which jobs may hold a moment longer; `World::open` would be refused.
        let lock = fs::File::open(root.join("gantry/store.db.lock")).unwrap();
        for _ in 0..500 {
            if lock.try_lock().is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the store is still held");
    }

    async fn store(&self, image: &Image) {
        for blob in image.blobs() {
            let digest = Digest::parse(&*blob.digest).unwrap();
            let reference = IngestRef::parse(format!("w {digest}")).unwrap();
            let open = OpenWriter { reference, total_bytes: 0, expected: None };
            let mut writer = self.metadata.content().writer(&cx(), open).await.unwrap();
            writer.write(Bytes::copy_from_slice(&blob.bytes)).await.unwrap();
            let how = CommitContent { total_bytes: 0, expected: Some(digest), labels: rooted() };
            writer.commit(how).await.unwrap();
        }
    }

    /// Unpacks one layer as clients do.
    async fn layer(&self, snapshotter: &str, image: &Image, place: usize) -> Result<()> {
        let chains = chains(image);
        let service = self.snapshotter(snapshotter);
        let mut labels = rooted();
        labels.insert(LABEL_SNAPSHOT_REF.to_owned(), chains[place].clone());
        let active = key(&format!("extract {place}"));
        let parent = place.checked_sub(1).map(|below| key(&chains[below]));
        let new = NewSnapshot { key: active.clone(), parent, labels: labels.clone() };
        let mounts = service.prepare(&cx(), new).await?;
        let layer = &image.layers[place];
        let size = i64::try_from(layer.bytes.len()).unwrap();
        let descriptor = Descriptor::new(&*layer.media_type, Digest::parse(&*layer.digest)?, size);
        self.differ.apply(&cx(), &descriptor, &mounts, ApplyDiff::default()).await?;
        let how = CommitSnapshot { name: key(&chains[place]), key: active, labels, parent: None };
        service.commit(&cx(), how).await
    }

    async fn unpack(&self, snapshotter: &str, image: &Image) {
        for place in 0..image.layers.len() {
            self.layer(snapshotter, image, place).await.unwrap();
        }
    }

    /// The trees that a view of `chain` shows, top first.
    async fn trees(&self, snapshotter: &str, chain: &str) -> Result<Vec<Vec<String>>> {
        let service = self.snapshotter(snapshotter);
        let new = NewSnapshot { key: key("look"), parent: Some(key(chain)), labels: rooted() };
        let mounts = service.view(&cx(), new).await?;
        service.remove(&cx(), &key("look")).await?;
        Ok(directories(&mounts).iter().map(|directory| tree_lines(directory).unwrap()).collect())
    }
}

/// The directories behind mounts, top first.
fn directories(mounts: &[Mount]) -> Vec<PathBuf> {
    let option = |name: &str| mounts[0].options.iter().find_map(|option| option.strip_prefix(name));
    match option("lowerdir=") {
        Some(lowers) => lowers.split(':').map(PathBuf::from).collect(),
        None => vec![PathBuf::from(&mounts[0].source)],
    }
}

fn layers() -> [Tar; 3] {
    let base = Tar::new()
        .dir("etc", 0o755)
        .file("etc/a", 0o640, "a")
        .file("etc/b", 0o600, vec![b'b'; 100_000])
        .dir("lib", 0o700)
        .file("lib/old", 0o644, "old")
        .dir("tmp", 0o1777)
        .symlink("l", "etc/a")
        .hardlink("etc/h", "etc/b");
    let middle = Tar::new()
        .dir("etc", 0o711)
        .whiteout("etc/a")
        .owner(1000, 1001)
        .file("etc/own", 0o4755, "own")
        .owner(0, 0)
        .dir("lib", 0o755)
        .opaque("lib")
        .file("lib/new", 0o644, "new")
        .fifo("lib/p", 0o600);
    let top =
        Tar::new().dir("etc", 0o755).xattr("user.x", b"y").file("etc/b", 0o604, "changed").whiteout("tmp");
    [base, middle, top]
}

fn image() -> Image {
    let [base, middle, top] = layers();
    ImageBuilder::new()
        .layer(base, Compression::Gzip)
        .layer(middle, Compression::Zstd)
        .layer(top, Compression::None)
        .build()
}

fn chains(_image: &Image) -> Vec<String> {
    let diff_ids: Vec<Digest> =
        layers().into_iter().map(|tar| Digest::parse(sha256(&tar.finish())).unwrap()).collect();
    chain_ids(&diff_ids).iter().map(ToString::to_string).collect()
}

/// What a loss of power may do: files are empty or gone, modes and names as well.
fn damage(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            damage(&path);
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        } else if meta.is_file() {
            fs::File::create(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
    }
}

fn all_snapshots(root: &Path, snapshotter: &str) -> Vec<PathBuf> {
    let all = root.join(snapshotter).join("snapshots");
    fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The directories of snapshots alone: those that are on their way out are named otherwise, and may vanish at any time.
fn recorded_snapshots(root: &Path, snapshotter: &str) -> Vec<PathBuf> {
    let mut all = all_snapshots(root, snapshotter);
    all.retain(|path| path.file_name().unwrap().to_str().unwrap().parse::<u64>().is_ok());
    all
}

async fn kinds(world: &World, snapshotter: &str) -> BTreeMap<String, String> {
    let infos = world.snapshotter(snapshotter).list(&cx(), &[]).await.unwrap();
    let infos: Vec<_> = infos.try_collect().await.unwrap();
    infos.iter().map(|info| (info.name.to_string(), info.kind.as_str().to_owned())).collect()
}

async fn damaged_and_rebuilt(snapshotter: &str) {
    let dir = tempfile::tempdir().unwrap();
    let image = image();
    let chains = chains(&image);
    let world = World::open(dir.path(), "first").await;
    world.store(&image).await;
    world.unpack(snapshotter, &image).await;
    let before = world.trees(snapshotter, &chains[2]).await.unwrap();
    let new = NewSnapshot { key: key("container"), parent: Some(key(&chains[2])), labels: rooted() };
    world.snapshotter(snapshotter).prepare(&cx(), new).await.unwrap();
    world.lose_power(dir.path()).await;
    for (number, snapshot) in recorded_snapshots(dir.path(), snapshotter).iter().enumerate() {
        // One is not there at all.
        if number == 0 { fs::remove_dir_all(snapshot).unwrap() } else { damage(snapshot) }
    }
    let world = World::open(dir.path(), "second").await;
    assert_eq!(world.metadata.recovery().suspect.len(), 3);
    world.rebuild();
    assert_eq!(world.trees(snapshotter, &chains[2]).await.unwrap(), before);
    // What stands on it is given out as well, and nothing of the old directories is left.
    world.snapshotter(snapshotter).mounts(&cx(), &key("container")).await.unwrap();
    assert_eq!(kinds(&world, snapshotter).await.len(), 4);
    world.close().await;
    assert_eq!(all_snapshots(dir.path(), snapshotter).len(), 4);
    let world = World::open(dir.path(), "third").await;
    assert_eq!(world.metadata.recovery().suspect, []);
    assert_eq!(world.trees(snapshotter, &chains[2]).await.unwrap(), before);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_overlay_trees_come_back_identical() {
    gantry_testkit::root!();
    damaged_and_rebuilt("overlayfs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_copies_come_back_identical() {
    gantry_testkit::root!();
    damaged_and_rebuilt("native").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_layer_without_children_is_removed() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    let image = image();
    let world = World::open(dir.path(), "first").await;
    world.store(&image).await;
    world.unpack("overlayfs", &image).await;
    let layer = Digest::parse(&*image.layers[1].digest).unwrap();
    world.metadata.content().delete(&cx(), &layer).await.unwrap();
    world.lose_power(dir.path()).await;
    let world = World::open(dir.path(), "second").await;
    world.rebuild();
    let chains = chains(&image);
    // The lowest can be rebuilt; those above have nothing to stand on.
    for _ in 0..500 {
        if kinds(&world, "overlayfs").await.len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = kinds(&world, "overlayfs").await;
    assert_eq!(left.keys().collect::<Vec<_>>(), [&chains[0]]);
    assert_eq!(world.trees("overlayfs", &chains[2]).await.unwrap_err().kind(), ErrorKind::NotFound);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_layer_under_a_container_is_refused_until_it_is_unpacked_again() {
    gantry_testkit::root!();
    let dir = tempfile::tempdir().unwrap();
    let image = image();
    let chains = chains(&image);
    let world = World::open(dir.path(), "first").await;
    world.store(&image).await;
    world.unpack("overlayfs", &image).await;
    let before = world.trees("overlayfs", &chains[2]).await.unwrap();
    let new = NewSnapshot { key: key("container"), parent: Some(key(&chains[2])), labels: rooted() };
    world.snapshotter("overlayfs").prepare(&cx(), new).await.unwrap();
    for layer in &image.layers {
        world.metadata.content().delete(&cx(), &Digest::parse(&*layer.digest).unwrap()).await.unwrap();
    }
    world.lose_power(dir.path()).await;
    for snapshot in recorded_snapshots(dir.path(), "overlayfs") {
        damage(&snapshot);
    }
    let world = World::open(dir.path(), "second").await;
    world.rebuild();
    let service = world.snapshotter("overlayfs");
    let refused = service.mounts(&cx(), &key("container")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DataLoss);
    assert!(refused.to_string().contains("pull its image again"), "{refused}");
    assert_eq!(service.stat(&cx(), &key(&chains[0])).await.unwrap_err().kind(), ErrorKind::NotFound);
    // A pull stores the blobs again, finds no layer unpacked and unpacks each.
    for layer in &image.layers {
        let digest = Digest::parse(&*layer.digest).unwrap();
        let reference = IngestRef::parse(format!("again {digest}")).unwrap();
        let open = OpenWriter { reference, total_bytes: 0, expected: None };
        let mut writer = world.metadata.content().writer(&cx(), open).await.unwrap();
        writer.write(Bytes::copy_from_slice(&layer.bytes)).await.unwrap();
        writer.commit(CommitContent { total_bytes: 0, expected: None, labels: rooted() }).await.unwrap();
    }
    for (place, chain) in chains.iter().enumerate() {
        if service.stat(&cx(), &key(chain)).await.is_err() {
            world.layer("overlayfs", &image, place).await.unwrap();
        }
    }
    service.mounts(&cx(), &key("container")).await.unwrap();
    assert_eq!(world.trees("overlayfs", &chains[2]).await.unwrap(), before);
    assert_eq!(kinds(&world, "overlayfs").await.len(), 4);
    world.close().await;
    assert_eq!(all_snapshots(dir.path(), "overlayfs").len(), 4);
}

//! Unpacking an image whose lower layers were unpacked for another one, which is removed meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use async_trait::async_trait;
use gantry_client::{Client, Services, Snapshotters};
use gantry_core::field_mask::FieldMask;
use gantry_core::images::DeleteImage;
use gantry_core::mount::Mount;
use gantry_core::snapshots::{CommitSnapshot, NewSnapshot, SnapshotInfo, SnapshotUsage, Snapshotter};
use gantry_core::{Context, ItemStream, Labels, Namespace, Result, SnapshotKey};
use gantry_oci::PlatformMatcher;
use gantry_testkit::{Compression, Daemon, ImageBuilder, Tar, root};

const FIRST: &str = "example.org/first:1";
const SECOND: &str = "example.org/second:1";

/// A snapshotter behind which the first image is removed, and all that only it keeps, once a layer was found so many times.
struct Removing {
    behind: Arc<dyn Snapshotter>,
    client: Client,
    left: Arc<AtomicIsize>,
}

#[async_trait]
impl Snapshotter for Removing {
    async fn prepare(&self, cx: &Context, new: NewSnapshot) -> Result<Vec<Mount>> {
        self.behind.prepare(cx, new).await
    }

    async fn view(&self, cx: &Context, new: NewSnapshot) -> Result<Vec<Mount>> {
        self.behind.view(cx, new).await
    }

    async fn mounts(&self, cx: &Context, key: &SnapshotKey) -> Result<Vec<Mount>> {
        self.behind.mounts(cx, key).await
    }

    async fn commit(&self, cx: &Context, how: CommitSnapshot) -> Result<()> {
        self.behind.commit(cx, how).await
    }

    async fn remove(&self, cx: &Context, key: &SnapshotKey) -> Result<()> {
        self.behind.remove(cx, key).await
    }

    async fn stat(&self, cx: &Context, key: &SnapshotKey) -> Result<SnapshotInfo> {
        let found = self.behind.stat(cx, key).await?;
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let how = DeleteImage { sync: true, if_target: None };
            self.client.services().images.delete(&self.client.context(), FIRST, how).await?;
        }
        Ok(found)
    }

    async fn update(
        &self,
        cx: &Context,
        key: &SnapshotKey,
        labels: Labels,
        mask: &FieldMask,
    ) -> Result<SnapshotInfo> {
        self.behind.update(cx, key, labels, mask).await
    }

    async fn list(&self, cx: &Context, filters: &[String]) -> Result<ItemStream<SnapshotInfo>> {
        self.behind.list(cx, filters).await
    }

    async fn usage(&self, cx: &Context, key: &SnapshotKey) -> Result<SnapshotUsage> {
        self.behind.usage(cx, key).await
    }

    async fn cleanup(&self, cx: &Context) -> Result<()> {
        self.behind.cleanup(cx).await
    }
}

struct RemovingAll {
    client: Client,
    left: Arc<AtomicIsize>,
}

impl Snapshotters for RemovingAll {
    fn by_name(&self, name: &str) -> Result<Arc<dyn Snapshotter>> {
        let behind = self.client.snapshotter(name)?;
        Ok(Arc::new(Removing { behind, client: self.client.clone(), left: Arc::clone(&self.left) }))
    }
}

/// Unpacks the second image, and removes the first when its layers have been found `found` times.
async fn unpack_while_removed(snapshotter: &str, found: isize) {
    let daemon = Daemon::under_test();
    let ctr = daemon.ctr();
    let base = || {
        let files = (0..200).map(|number| format!("etc/f{number}"));
        files.fold(Tar::new().dir("etc", 0o755), |tar, name| tar.file(&name, 0o644, "x"))
    };
    for (name, flags) in [(FIRST, &["--snapshotter", snapshotter][..]), (SECOND, &["--no-unpack"])] {
        let image = ImageBuilder::new()
            .layer(base(), Compression::Gzip)
            .layer(Tar::new().file("name", 0o644, name), Compression::Gzip)
            .build();
        let archive = daemon.dir().join("image.tar");
        image.write_oci_archive(&archive, name);
        let mut args = vec!["images", "import"];
        args.extend(flags);
        let archive = archive.display().to_string();
        args.push(&archive);
        ctr.ok(&args);
    }
    let namespace = Namespace::parse("default").expect("it is valid");
    let plain = Client::connect_lazy(&daemon.address(), namespace).expect("the address is one");
    let left = Arc::new(AtomicIsize::new(found));
    let snapshotters = Arc::new(RemovingAll { client: plain.clone(), left: Arc::clone(&left) });
    let services = Services { snapshotters, ..plain.services().clone() };
    let client = Client::from_services(services, plain.namespace().clone());
    let image = client.image(SECOND).await.expect("it is imported");
    image.unpack(snapshotter, &PlatformMatcher::host()).await.expect("unpack it");
    assert!(left.load(Ordering::SeqCst) < found, "nothing was removed meanwhile");
    assert_eq!(ctr.names(&["images", "ls"]), [SECOND]);
    // The image keeps them now, whatever is collected.
    ctr.ok(&["images", "rm", "--sync", "example.org/none:1"]);
    assert_eq!(ctr.names(&["snapshots", "--snapshotter", snapshotter, "ls"]).len(), 2);
    assert!(ctr.names(&["leases", "ls"]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_was_found_and_then_removed_is_unpacked_again() {
    root!();
    for snapshotter in ["overlayfs", "native"] {
        unpack_while_removed(snapshotter, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_was_found_is_kept_for_what_stands_on_it() {
    root!();
    for snapshotter in ["overlayfs", "native"] {
        unpack_while_removed(snapshotter, 2).await;
    }
}

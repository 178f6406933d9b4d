//! Images of three layers, the lowest of which all clients share, unpacked by the daemon's differ.

use gantry_client::Client;
use gantry_core::images::{DeleteImage, Image};
use gantry_core::snapshots::NewSnapshot;
use gantry_core::wire_names::LABEL_GC_REF_CONTENT;
use gantry_core::{Descriptor, Digest, Error, Labels, LeaseId, Result, SnapshotKey};
use gantry_oci::PlatformMatcher;
use gantry_testkit::{Compression, ImageBuilder, Tar};
use rand::Rng as _;

use super::Worker;
use crate::notes::{Kind, Note, There};
use crate::trees;

/// Where images are unpacked.
pub(crate) const IMAGE_SNAPSHOTTERS: [&str; 2] = ["overlayfs", "native"];
/// How many images a client keeps.
const KEPT: usize = 2;

/// What all images stand on.
fn base() -> Tar {
    let mut tar = Tar::new().dir("bin", 0o755).dir("etc", 0o755).dir("lib", 0o700).dir("tmp", 0o1777);
    for number in 0..40 {
        tar =
            tar.file(&format!("etc/f{number}"), 0o640, super::content::data(&format!("base {number}"), 3000));
    }
    tar.file("bin/tool", 0o4755, super::content::data("tool", 20_000))
        .symlink("bin/sh", "tool")
        .hardlink("bin/t2", "bin/tool")
}

/// A layer that takes from what is below it: whiteouts, an opaque directory, a changed mode, other owners.
fn middle(name: &str) -> Tar {
    Tar::new()
        .dir("etc", 0o711)
        .whiteout("etc/f1")
        .file("etc/f2", 0o600, name)
        .owner(1000, 1001)
        .dir("home", 0o755)
        .file("home/own", 0o644, super::content::data(name, 9000))
        .owner(0, 0)
        .dir("lib", 0o755)
        .opaque("lib")
        .file("lib/l", 0o644, "x")
        .fifo("lib/p", 0o600)
}

fn top(name: &str) -> Tar {
    Tar::new().dir("var", 0o755).file("var/name", 0o644, name).whiteout("etc/f3").dir("etc", 0o755)
}

impl Worker {
    pub(super) async fn image(&mut self) -> Result<()> {
        let own = self.notes.of(self.number, Kind::Image);
        if own.len() >= KEPT {
            let (subject, _) = own[self.rng.random_range(0..own.len())].clone();
            return self.delete_image(subject).await;
        }
        let name = format!("docker.io/library/{}:latest", self.name("m"));
        let built = ImageBuilder::new()
            .layer(base(), Compression::Gzip)
            .layer(middle(&name), Compression::Zstd)
            .layer(top(&name), Compression::None)
            .build();
        let lease = self.new_lease().await?;
        let cx = self.leased(&lease)?;
        // Shared with others: nobody notes it.
        self.write(&cx, built.layers[0].bytes.clone(), Labels::new()).await?;
        for layer in &built.layers[1..] {
            self.blob(&lease, layer.bytes.clone(), Labels::new()).await?;
        }
        self.blob(&lease, built.config.bytes.clone(), Labels::new()).await?;
        let mut labels = Labels::new();
        for (number, blob) in [&built.config].into_iter().chain(&built.layers).enumerate() {
            labels.insert(format!("{LABEL_GC_REF_CONTENT}.{number}"), blob.digest.clone());
        }
        self.blob(&lease, built.manifest.bytes.clone(), labels).await?;
        let digest = Digest::parse(&*built.manifest.digest)?;
        let size = i64::try_from(built.manifest.bytes.len()).unwrap_or(i64::MAX);
        let target = Descriptor::new(&*built.manifest.media_type, digest, size);
        let now = std::time::UNIX_EPOCH;
        let record =
            Image { name: name.clone(), labels: Labels::new(), target, created_at: now, updated_at: now };
        let images = self.client.services().images.clone();
        let subject = self.subject(Kind::Image, &*name);
        // From here on the image keeps what the lease keeps.
        let mut after = vec![(subject.clone(), self.yes("stored"))];
        for (kept, note) in self.notes.kept_by(&subject.namespace, &lease) {
            after.push((kept, Note { owners: vec![name.clone(), lease.clone()], ..note }));
        }
        self.change(after, images.create(&cx, record, None)).await?;
        let id = LeaseId::parse(&*lease)?;
        let leases = self.client.services().leases.clone();
        let mut after = vec![(self.subject(Kind::Lease, &*lease), self.no())];
        for (kept, note) in self.notes.kept_by(&subject.namespace, &lease) {
            after.push((kept, Note { owners: vec![name.clone()], ..note }));
        }
        self.change(after, leases.delete(&self.cx(), &id, false)).await?;
        if self.rng.random_range(0..4) > 0 {
            let snapshotter = IMAGE_SNAPSHOTTERS[usize::from(self.rng.random_range(0..4) == 0)];
            self.client.image(&name).await?.unpack(snapshotter, &PlatformMatcher::host()).await?;
            let chain = self.client.image(&name).await?.config(&PlatformMatcher::host()).await?.chain_id()?;
            let sum = tree(&self.client, snapshotter, chain.as_str()).await?;
            let fact = format!("unpacked {snapshotter} {chain} {sum}");
            self.notes.set(vec![(subject, self.yes(fact))]);
        }
        Ok(())
    }

    pub(super) async fn delete_image(&mut self, subject: crate::notes::Subject) -> Result<()> {
        let images = self.client.services().images.clone();
        let mut changes: Vec<_> = self
            .notes
            .kept_by(&subject.namespace, &subject.name)
            .into_iter()
            .filter(|(_, note)| note.owners.len() == 1)
            .map(|(kept, note)| (kept, Note { there: There::No, ..note }))
            .collect();
        let name = subject.name.clone();
        changes.push((subject, self.no()));
        let how = DeleteImage { sync: true, if_target: None };
        self.change(changes, images.delete(&self.cx(), &name, how)).await
    }
}

/// One word for all directories of the chain that ends at `chain`.
///
/// # Errors
/// Those of making a view of it.
pub(crate) async fn tree(client: &Client, snapshotter: &str, chain: &str) -> Result<String> {
    let service = client.snapshotter(snapshotter)?;
    let key = SnapshotKey::parse(format!("look-{}-{:x}", std::process::id(), rand::random::<u64>()))?;
    let (cx, leases) = (client.context(), &client.services().leases);
    let lease = leases.create(&cx, Some(LeaseId::parse(key.as_str())?), Labels::new()).await?;
    let cx = cx.with_lease(lease.id.clone());
    let looked = async {
        let parent = Some(SnapshotKey::parse(chain)?);
        let mounts =
            service.view(&cx, NewSnapshot { key: key.clone(), parent, labels: Labels::new() }).await?;
        let directories = trees::directories(&mounts);
        let sum = tokio::task::spawn_blocking(move || trees::sum(&directories)).await;
        let sum = sum.map_err(|_| Error::internal("the walk panicked"))?.map_err(Error::io)?;
        service.remove(&cx, &key).await?;
        Ok(sum)
    };
    let sum = looked.await;
    leases.delete(&client.context(), &lease.id, false).await?;
    sum
}

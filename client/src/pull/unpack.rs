//! Unpacking layers in order, while later ones are still being fetched.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gantry_core::diff::ApplyDiff;
use gantry_core::field_mask::FieldMask;
use gantry_core::leases::LeaseResource;
use gantry_core::snapshots::{CommitSnapshot, NewSnapshot, Snapshotter};
use gantry_core::wire_names::{
    LABEL_GC_REF_SNAPSHOT, LABEL_SNAPSHOT_PREFIX, LABEL_SNAPSHOT_REF, LABEL_UNCOMPRESSED,
};
use gantry_core::{Context, Descriptor, Digest, Error, ErrorKind, Labels, Result, ResultExt, SnapshotKey};
use gantry_oci::manifest::Manifest;
use gantry_oci::{ImageConfig, chain_id, media_types};
use tokio::sync::watch;

use super::{Progress, PullEvent};
use crate::client::Client;
use crate::job;
use crate::lease::{self, unique_name};

/// How often a key is made anew when somebody else's work gets in between.
const PREPARE_TRIES: usize = 4;
/// How often, and after which pause, the removal of a half-made snapshot is tried again: what is being applied to it
/// may take a moment to stop.
const UNDO_TRIES: u32 = 8;
const UNDO_PAUSE: Duration = Duration::from_millis(100);

/// Which of a manifest's children have been fetched.
pub(crate) struct Arrived(Vec<watch::Sender<bool>>);

/// The other end.
pub(crate) struct Arrivals(Vec<watch::Receiver<bool>>);

pub(crate) fn arrivals(count: usize) -> (Arrived, Arrivals) {
    let (senders, receivers) = (0..count).map(|_| watch::channel(false)).unzip();
    (Arrived(senders), Arrivals(receivers))
}

impl Arrived {
    pub(crate) fn tell(&self, place: usize) {
        self.0[place].send_replace(true);
    }
}

impl Arrivals {
    async fn wait(&mut self, place: usize) -> Result<()> {
        let arrival = self.0[place].wait_for(|arrived| *arrived).await;
        arrival.map(|_| ()).map_err(|_| Error::canceled("fetching the layer ended"))
    }
}

/// One layer to unpack.
pub(crate) struct Layer {
    /// Its place among the manifest's children.
    place: usize,
    descriptor: Descriptor,
    diff_id: Digest,
    chain_id: Digest,
}

/// The layers of an image with their diff ids.
pub(crate) struct Layers(Vec<Layer>);

impl Layers {
    /// Pairs a manifest's layers with its configuration's diff ids.
    pub(crate) fn pair(manifest: &Manifest, config: &ImageConfig) -> Result<Self> {
        let layers: Vec<_> = manifest
            .layers
            .iter()
            .enumerate()
            .filter(|(_, child)| media_types::is_layer(&child.descriptor.media_type))
            .collect();
        if layers.len() != config.diff_ids.len() {
            return Err(Error::invalid_argument(format!(
                "the manifest has {} layers, its config {} diff ids",
                layers.len(),
                config.diff_ids.len()
            )));
        }
        let chains = chain_id::chain_ids(&config.diff_ids);
        let layers = layers.into_iter().zip(&config.diff_ids).zip(chains);
        Ok(Layers(
            layers
                .map(|(((place, child), diff_id), chain_id)| Layer {
                    place,
                    descriptor: child.descriptor.clone(),
                    diff_id: diff_id.clone(),
                    chain_id,
                })
                .collect(),
        ))
    }
}

/// Unpacking into one snapshotter.
pub(crate) struct Extraction {
    client: Client,
    cx: Context,
    snapshotter_name: String,
    snapshotter: Arc<dyn Snapshotter>,
    /// The snapshot that is being written to.
    active: Mutex<Option<SnapshotKey>>,
}

impl Extraction {
    pub(crate) fn new(client: &Client, cx: &Context, snapshotter: &str) -> Result<Self> {
        Ok(Extraction {
            client: client.clone(),
            cx: cx.clone(),
            snapshotter_name: snapshotter.to_owned(),
            snapshotter: client.snapshotter(snapshotter)?,
            active: Mutex::new(None),
        })
    }

    fn set_active(&self, key: Option<SnapshotKey>) {
        *self.active.lock().unwrap_or_else(PoisonError::into_inner) = key;
    }

    /// Unpacks every layer, each after it has arrived. After an error, or when dropped, [`Extraction::undo`] must follow.
    pub(crate) async fn run(
        &self,
        layers: &Layers,
        mut arrivals: Arrivals,
        progress: &Progress,
    ) -> Result<()> {
        let mut parent = None;
        for layer in &layers.0 {
            let existed = self.layer(layer, parent, &mut arrivals, progress).await.with_context(|| {
                format!("unpack {} into {}", layer.descriptor.digest, self.snapshotter_name)
            })?;
            progress.tell(PullEvent::Unpacked {
                digest: layer.descriptor.digest.clone(),
                chain_id: layer.chain_id.clone(),
                existed,
            });
            parent = Some(SnapshotKey::parse(layer.chain_id.as_str())?);
        }
        Ok(())
    }

    /// Unpacks one layer; says whether it was there before.
    async fn layer(
        &self,
        layer: &Layer,
        parent: Option<SnapshotKey>,
        arrivals: &mut Arrivals,
        progress: &Progress,
    ) -> Result<bool> {
        let name = SnapshotKey::parse(layer.chain_id.as_str())?;
        if self.keep_existing(&name).await? {
            return Ok(true);
        }
        // Nothing is held while waiting for the network.
        arrivals.wait(layer.place).await?;
        let mut labels: Labels = layer
            .descriptor
            .annotations
            .iter()
            .filter(|(key, _)| key.starts_with(LABEL_SNAPSHOT_PREFIX))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        labels.insert(LABEL_SNAPSHOT_REF.to_owned(), layer.chain_id.to_string());
        let mut tries = 0;
        let (key, mounts) = loop {
            // Source: containerd's unpacker, `snapshots.UnpackKeyFormat`.
            let key = SnapshotKey::parse(format!("extract-{} {}", unique_name(), layer.chain_id))?;
            let new = NewSnapshot { key: key.clone(), parent: parent.clone(), labels: labels.clone() };
            // Before the call: dropped during it, the snapshot may be there or not.
            self.set_active(Some(key.clone()));
            match self.snapshotter.prepare(&self.cx, new).await {
                Ok(mounts) => break (key, mounts),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    self.set_active(None);
                    if self.keep_existing(&name).await? {
                        return Ok(true);
                    }
                    tries += 1;
                    if tries >= PREPARE_TRIES {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        };
        progress.tell(PullEvent::Unpacking { digest: layer.descriptor.digest.clone() });
        let applier = &self.client.services().applier;
        let applied = applier.apply(&self.cx, &layer.descriptor, &mounts, ApplyDiff::default()).await?;
        if applied.digest != layer.diff_id {
            return Err(Error::failed_precondition(format!(
                "wrong diff id: the layer has {}, the config says {}",
                applied.digest, layer.diff_id
            )));
        }
        let commit = CommitSnapshot { name, key: key.clone(), labels, parent: None };
        match self.snapshotter.commit(&self.cx, commit).await {
            Ok(()) => self.set_active(None),
            // Another client was faster; its snapshot is as good, ours is not needed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.undo().await,
            Err(error) => return Err(error),
        }
        self.label(&layer.descriptor.digest, LABEL_UNCOMPRESSED.to_owned(), &layer.diff_id).await?;
        Ok(false)
    }

    /// Whether a layer is unpacked already; from then on the lease keeps it, so that it is still there for those that stand on it.
    async fn keep_existing(&self, name: &SnapshotKey) -> Result<bool> {
        if !self.exists(name).await? {
            return Ok(false);
        }
        let Some(lease) = self.cx.lease() else { return Ok(true) };
        let resource = LeaseResource::snapshot(&self.snapshotter_name, name.as_str());
        let leases = &self.client.services().leases;
        leases.add_resource(&self.cx, lease, resource).await.with_context(|| format!("keep {name}"))?;
        // Whoever removed what it stood under may have taken it along before the lease knew of it.
        self.exists(name).await
    }

    async fn exists(&self, name: &SnapshotKey) -> Result<bool> {
        match self.snapshotter.stat(&self.cx, name).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn label(&self, digest: &Digest, key: String, value: &Digest) -> Result<()> {
        let mask = FieldMask::new([format!("labels.{key}")]);
        let labels = Labels::from([(key, value.to_string())]);
        let labelled = self.client.services().content.update(&self.cx, digest, labels, &mask).await;
        labelled.map(|_| ()).with_context(|| format!("label {digest}"))
    }

    /// Lets the configuration keep the uppermost snapshot.
    pub(crate) async fn mark_config(&self, config: &Digest, layers: &Layers) -> Result<()> {
        let Some(last) = layers.0.last() else { return Ok(()) };
        let key = format!("{LABEL_GC_REF_SNAPSHOT}.{}", self.snapshotter_name);
        self.label(config, key, &last.chain_id).await
    }

    /// Removes the snapshot that was being written to, if any.
    pub(crate) async fn undo(&self) {
        let key = self.active.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(key) = key else { return };
        // Apart from the cancellation that may have brought us here.
        let cx = self.client.context();
        for attempt in 1.. {
            match self.snapshotter.remove(&cx, &key).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return,
                Err(error) if attempt >= UNDO_TRIES => {
                    tracing::warn!(%key, %error, "removing a half unpacked snapshot failed");
                    return;
                }
                Err(_) => tokio::time::sleep(UNDO_PAUSE * attempt).await,
                Ok(()) => return,
            }
        }
    }
}

/// Unpacks an image of which everything is stored.
pub(crate) async fn unpack_stored(
    client: &Client,
    manifest: &Manifest,
    config: &ImageConfig,
    snapshotter: &str,
) -> Result<()> {
    let layers = Layers::pair(manifest, config)?;
    let cancellation = tokio_util::sync::CancellationToken::new();
    let _stop = cancellation.clone().drop_guard();
    let cx = client.context().with_cancellation(cancellation.clone());
    let count = manifest.layers.len();
    let config = manifest.config.descriptor.digest.clone();
    let (client, snapshotter) = (client.clone(), snapshotter.to_owned());
    // As with a pull: dropped, it undoes what is half done.
    let running = job::start(async move {
        let (cx, lease) = lease::protect(&client, &cx).await?;
        let result = async {
            let extraction = Extraction::new(&client, &cx, &snapshotter)?;
            let silent = Progress::default();
            let (arrived, arrivals) = arrivals(count);
            (0..count).for_each(|place| arrived.tell(place));
            let done = tokio::select! {
                () = cancellation.cancelled() => Err(Error::canceled("unpack")),
                result = extraction.run(&layers, arrivals, &silent) => result,
            };
            match done {
                Ok(()) => extraction.mark_config(&config, &layers).await,
                Err(error) => {
                    extraction.undo().await;
                    Err(error)
                }
            }
        }
        .await;
        lease.end().await;
        result
    });
    running.await.map_err(|error| Error::with_source(ErrorKind::Internal, error))?
}

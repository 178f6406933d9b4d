//! Pulling an image: resolve, fetch side by side, unpack in order, and store its record last.
//!
//! ```text
//! lease ─ resolve ─ index ─ manifest ─ config ─┬─ fetch layers, several at once ─┬─ labels ─ image record ─ end of lease
//!                                              └─ unpack layer by layer ─────────┘
//! ```

mod blobs;
mod documents;
mod unpack;

use std::sync::Arc;

use gantry_core::field_mask::FieldMask;
use gantry_core::images::Image as ImageRecord;
use gantry_core::{Context, Descriptor, Digest, Error, ErrorKind, Labels, Result, ResultExt};
use gantry_oci::{PlatformMatcher, Reference};
use gantry_registry::{Registry, RegistryOptions};
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::job;
use crate::lease;

pub(crate) use unpack::{Layers, unpack_stored};

/// How an image is pulled.
#[derive(Clone)]
pub struct PullOptions {
    /// Which platform's image is fetched; this host's by default.
    pub platform: PlatformMatcher,
    /// The snapshotter to unpack into; the namespace's default if absent.
    pub snapshotter: Option<String>,
    /// Whether the layers are unpacked. No by default.
    pub unpack: bool,
    /// Hosts, credentials and time limits.
    pub registry: RegistryOptions,
    /// Labels of the image's record.
    pub labels: Labels,
    /// How many layers are fetched at once; 3 by default, at least 1.
    pub max_concurrent_downloads: usize,
    /// Is told how it goes. It is called on the path of the work, so it must not block.
    pub progress: Option<Arc<dyn Fn(PullEvent) + Send + Sync>>,
    /// Fired, the pull undoes what is half done and then fails with `Canceled`. Dropping the pull stops it as well, but
    /// then nobody waits for that.
    pub cancellation: CancellationToken,
}

impl Default for PullOptions {
    fn default() -> Self {
        PullOptions {
            platform: PlatformMatcher::host(),
            snapshotter: None,
            unpack: false,
            registry: RegistryOptions::default(),
            labels: Labels::new(),
            // Source: the original's default `max_concurrent_downloads`.
            max_concurrent_downloads: 3,
            progress: None,
            cancellation: CancellationToken::new(),
        }
    }
}

/// What a piece of an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PullItem {
    /// An index.
    Index,
    /// A manifest.
    Manifest,
    /// A configuration.
    Config,
    /// A layer.
    Layer,
}

/// How a pull goes.
#[derive(Clone, Debug, PartialEq)]
pub enum PullEvent {
    /// The name was resolved by `host`.
    Resolved {
        /// What it points at.
        target: Descriptor,
        /// Who said so.
        host: String,
    },
    /// A piece of the image is known.
    Found {
        /// What it is.
        item: PullItem,
        /// Its digest.
        digest: Digest,
        /// Its size.
        total_bytes: u64,
    },
    /// Part of a piece is there; what an earlier attempt left counts too.
    Progress {
        /// Its digest.
        digest: Digest,
        /// How much of it is there.
        done_bytes: u64,
    },
    /// A piece is stored.
    Fetched {
        /// Its digest.
        digest: Digest,
        /// Whether it had been there before.
        existed: bool,
    },
    /// A layer is being unpacked.
    Unpacking {
        /// Its digest.
        digest: Digest,
    },
    /// A layer is unpacked.
    Unpacked {
        /// Its digest.
        digest: Digest,
        /// The snapshot's name.
        chain_id: Digest,
        /// Whether it had been there before.
        existed: bool,
    },
}

/// One pull under way.
#[derive(Clone)]
struct Pull {
    client: Client,
    cx: Context,
    reference: Reference,
    options: PullOptions,
    progress: Progress,
}

impl Pull {
    fn tell(&self, event: PullEvent) {
        self.progress.tell(event);
    }
}

/// Whoever is told, if anybody is.
#[derive(Clone, Default)]
struct Progress(Option<Arc<dyn Fn(PullEvent) + Send + Sync>>);

impl Progress {
    fn tell(&self, event: PullEvent) {
        if let Some(progress) = &self.0 {
            progress(event);
        }
    }
}

pub(crate) async fn pull(
    client: &Client,
    reference: &Reference,
    options: PullOptions,
) -> Result<ImageRecord> {
    let cancellation = options.cancellation.child_token();
    let cx = client.context().with_cancellation(cancellation.clone());
    let (client, reference) = (client.clone(), reference.clone());
    // Its owner is this future: dropped, it cancels the job, which then only undoes what is half done.
    let _stop = cancellation.clone().drop_guard();
    let running = job::start(async move {
        let (cx, lease) = lease::protect(&client, &cx).await?;
        let progress = Progress(options.progress.clone());
        let pull = Pull { client, cx, reference, options, progress };
        let result = pull.run().await;
        lease.end().await;
        result
    });
    running.await.map_err(|error| Error::with_source(ErrorKind::Internal, error))?
}

impl Pull {
    async fn run(&self) -> Result<ImageRecord> {
        let stopped = self.cx.cancellation().cancelled();
        let fetch = async {
            let registry = Registry::new(self.options.registry.clone());
            let repository = registry.repository(&self.reference).await?;
            let resolved = repository.resolve().await?;
            self.tell(PullEvent::Resolved {
                target: resolved.descriptor.clone(),
                host: resolved.host.clone(),
            });
            let documents = self.documents(&repository, &resolved).await?;
            Ok::<_, Error>((repository, resolved.descriptor, documents))
        };
        let (repository, target, documents) = tokio::select! {
            () = stopped => return Err(Error::canceled("pull")),
            result = fetch => result?,
        };
        if self.options.unpack {
            let name = self.client.snapshotter_name(self.options.snapshotter.as_deref()).await?;
            let layers = Layers::pair(&documents.manifest, &documents.config)?;
            let (fetched, arrivals) = unpack::arrivals(documents.manifest.layers.len());
            let extraction = unpack::Extraction::new(&self.client, &self.cx, &name)?;
            let work = async {
                tokio::try_join!(
                    self.layers(&repository, &documents.manifest, fetched),
                    extraction.run(&layers, arrivals, &self.progress),
                )
                .map(|_| ())
            };
            let done = tokio::select! {
                () = self.cx.cancellation().cancelled() => Err(Error::canceled("pull")),
                result = work => result,
            };
            if let Err(error) = done {
                extraction.undo().await;
                return Err(error);
            }
            extraction.mark_config(&documents.manifest.config.descriptor.digest, &layers).await?;
        } else {
            let (fetched, _arrivals) = unpack::arrivals(documents.manifest.layers.len());
            tokio::select! {
                () = self.cx.cancellation().cancelled() => return Err(Error::canceled("pull")),
                result = self.layers(&repository, &documents.manifest, fetched) => result?,
            }
        }
        self.record(target).await
    }

    /// Creates the image's record, or points the one that is there at `target`.
    async fn record(&self, target: Descriptor) -> Result<ImageRecord> {
        let images = &self.client.services().images;
        let image = ImageRecord {
            name: self.reference.to_string(),
            labels: self.options.labels.clone(),
            target,
            created_at: std::time::UNIX_EPOCH,
            updated_at: std::time::UNIX_EPOCH,
        };
        let mut mask = vec!["target".to_owned()];
        mask.extend(image.labels.keys().map(|key| format!("labels.{key}")));
        let mask = FieldMask::new(mask);
        let mut tries = 0;
        loop {
            match images.create(&self.cx, image.clone(), None).await {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                other => return other.context("store the image"),
            }
            match images.update(&self.cx, image.clone().into(), &mask, None).await {
                // Somebody removed it between the two calls.
                Err(error) if error.kind() == ErrorKind::NotFound && tries < 3 => tries += 1,
                other => return other.context("update the image"),
            }
        }
    }
}

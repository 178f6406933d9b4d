//! Making a container: snapshot, spec and record, in this order.

use std::path::Path;

use gantry_core::containers::{Container as ContainerRecord, ContainerRuntime};
use gantry_core::mount::Mount;
use gantry_core::snapshots::NewSnapshot;
use gantry_core::wire_names::{LABEL_STOP_SIGNAL, TYPE_SPEC};
use gantry_core::{
    Any, ContainerId, Context, Error, ErrorKind, Labels, Result, ResultExt, SnapshotKey, labels,
};
use gantry_oci::rootfs::Rootfs;
use gantry_oci::runtime::Spec;
use gantry_oci::{ImageConfig, PlatformMatcher, SpecOptions, spec, user};

use crate::client::Client;
use crate::container::Container;
use crate::image::Image;
use crate::lease;
use crate::runc_options::RuncOptions;

/// Changes a finished spec.
pub type EditSpec = Box<dyn FnOnce(&mut Spec) -> Result<()> + Send>;

/// What a container is made from. All of it is optional.
pub struct ContainerOptions {
    /// The image that its snapshot, spec and labels come from.
    pub image: Option<Image>,
    /// Which platform's image; this host's by default.
    pub platform: PlatformMatcher,
    /// The snapshotter, the namespace's default if absent.
    pub snapshotter: Option<String>,
    /// The snapshot's key, the container's id if absent. Without image the snapshot must be there already.
    pub snapshot_key: Option<String>,
    /// What its spec is made from. The image's configuration is added if there is none yet.
    pub spec: SpecOptions,
    /// Changes the finished spec.
    pub edit_spec: Option<EditSpec>,
    /// The runtime's name, the namespace's default if absent.
    pub runtime: Option<String>,
    /// Options of that runtime.
    pub runtime_options: Option<RuncOptions>,
    /// Its labels, besides the image's. These win.
    pub labels: Labels,
}

impl Default for ContainerOptions {
    fn default() -> Self {
        ContainerOptions {
            image: None,
            platform: PlatformMatcher::host(),
            snapshotter: None,
            snapshot_key: None,
            spec: SpecOptions::default(),
            edit_spec: None,
            runtime: None,
            runtime_options: None,
            labels: Labels::new(),
        }
    }
}

pub(crate) async fn create(
    client: &Client,
    id: ContainerId,
    mut options: ContainerOptions,
) -> Result<Container> {
    // A snapshot that nobody refers to yet must not be collected meanwhile.
    let (cx, lease) = lease::protect(client, &client.context()).await?;
    let edit = options.edit_spec.take();
    let made = make(client, &cx, &id, options, edit).await;
    lease.end().await;
    made.map(|()| Container::new(client.clone(), id))
}

async fn make(
    client: &Client,
    cx: &Context,
    id: &ContainerId,
    options: ContainerOptions,
    edit: Option<EditSpec>,
) -> Result<()> {
    let mut record = ContainerRecord::new(id.clone(), client.runtime_name(options.runtime.as_deref()).await?);
    record.runtime = ContainerRuntime {
        name: record.runtime.name,
        options: options.runtime_options.as_ref().map(RuncOptions::to_any),
    };
    let mut spec_options = options.spec;
    let mut prepared = None;
    let mut mounts = Vec::new();
    if let Some(image) = &options.image {
        let config = image.config(&options.platform).await?;
        record.image = image.name().to_owned();
        record.labels = image_labels(&config);
        let snapshotter = client.snapshotter_name(options.snapshotter.as_deref()).await?;
        let key = SnapshotKey::parse(options.snapshot_key.unwrap_or_else(|| id.to_string()))?;
        let parent = match config.diff_ids.is_empty() {
            true => None,
            false => Some(SnapshotKey::parse(config.chain_id()?.into_string())?),
        };
        let new = NewSnapshot { key: key.clone(), parent, labels: Labels::new() };
        mounts = client.snapshotter(&snapshotter)?.prepare(cx, new).await.map_err(|error| {
            let hint = match error.kind() {
                ErrorKind::NotFound => format!(" (is image {:?} unpacked into it?)", image.name()),
                _ => String::new(),
            };
            error.context(format!("prepare snapshot {key:?} in {snapshotter}{hint}"))
        })?;
        record.snapshot_key = key.to_string();
        record.snapshotter.clone_from(&snapshotter);
        prepared = Some((snapshotter, key));
        spec_options.image.get_or_insert(config);
    } else if let Some(key) = options.snapshot_key {
        record.snapshotter = client.snapshotter_name(options.snapshotter.as_deref()).await?;
        let key = SnapshotKey::parse(key)?;
        mounts = client.snapshotter(&record.snapshotter)?.mounts(cx, &key).await?;
        record.snapshot_key = key.into_string();
    }
    record.labels.extend(options.labels);
    let rest = async {
        let mut spec =
            build_spec(client.namespace().to_string(), id.to_string(), spec_options, mounts).await?;
        if let Some(edit) = edit {
            edit(&mut spec).context("edit the spec")?;
        }
        record.spec = Some(Any::new(TYPE_SPEC, spec::to_bytes(&spec)?));
        client.services().containers.create(cx, record).await
    };
    if let Err(error) = rest.await {
        if let Some((snapshotter, key)) = prepared
            && let Err(error) = client.snapshotter(&snapshotter)?.remove(cx, &key).await
        {
            tracing::warn!(%key, %error, "removing the snapshot of a container that failed");
        }
        return Err(error);
    }
    Ok(())
}

/// The labels of an image that its containers get: none that mean something to containerd or to CRI (S23), and none
/// that cannot be stored.
fn image_labels(config: &ImageConfig) -> Labels {
    let mut copied: Labels = config
        .execution
        .labels
        .iter()
        .filter(|(key, value)| {
            !labels::is_reserved(key) && *key != LABEL_STOP_SIGNAL && labels::validate(key, value).is_ok()
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !config.execution.stop_signal.is_empty() {
        copied.insert(LABEL_STOP_SIGNAL.to_owned(), config.execution.stop_signal.clone());
    }
    copied
}

/// Builds the spec, looking users up in the snapshot: without mounting it where that can be done.
async fn build_spec(namespace: String, id: String, options: SpecOptions, mounts: Vec<Mount>) -> Result<Spec> {
    let work = move || {
        if mounts.is_empty() {
            return options.build(&namespace, &id, None);
        }
        with_rootfs(&mounts, needs_lookup(&options), |rootfs| options.build(&namespace, &id, rootfs))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::with_source(ErrorKind::Internal, error))?
        .context("build the spec")
}

/// Whether the user, or a group, is a name.
fn needs_lookup(options: &SpecOptions) -> bool {
    let image = options.image.as_ref().map_or("", |image| image.execution.user.as_str());
    let who = options.user.as_deref().unwrap_or(image);
    let name = !who.is_empty() && !matches!(user::resolve_numbers(who), Ok(Some(_)));
    name || options.additional_groups.iter().any(|group| group.parse::<u32>().is_err())
}

/// Gives `work` the root file system that `mounts` make: read in place, else mounted for a moment. If neither can be
/// done by this user, and nothing must be looked up, it gets none.
pub(crate) fn with_rootfs<T>(
    mounts: &[Mount],
    required: bool,
    work: impl Fn(Option<&Rootfs>) -> Result<T>,
) -> Result<T> {
    let in_place = match Rootfs::from_mounts(mounts) {
        Ok(Some(rootfs)) => match work(Some(&rootfs)) {
            Err(error) if error.kind() == ErrorKind::Unimplemented => None,
            done => Some(done),
        },
        Ok(None) => None,
        Err(error) if !required && error.kind() == ErrorKind::PermissionDenied => Some(work(None)),
        Err(error) => Some(Err(error)),
    };
    if let Some(done) = in_place {
        return done;
    }
    let dir = std::env::temp_dir().join("gantry-mounts");
    let looked = gantry_mount::with_temp_mount(&dir, &gantry_mount::read_only(mounts)?, |path: &Path| {
        work(Some(&Rootfs::open(path)?))
    });
    match looked {
        Err(error) if !required && error.kind() == ErrorKind::PermissionDenied => work(None),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s23_reserved_labels_of_an_image_are_not_copied() {
        let mut config = ImageConfig::default();
        for key in ["containerd.io/gc.root", "io.cri-containerd.kind", LABEL_STOP_SIGNAL, "maintainer"] {
            config.execution.labels.insert(key.to_owned(), "x".to_owned());
        }
        config.execution.labels.insert("long".to_owned(), "x".repeat(5000));
        assert_eq!(image_labels(&config).into_keys().collect::<Vec<_>>(), ["maintainer"]);
        config.execution.stop_signal = "SIGQUIT".to_owned();
        assert_eq!(image_labels(&config)[LABEL_STOP_SIGNAL], "SIGQUIT");
    }

    #[test]
    fn only_names_need_looking_up() {
        let with = |user: &str| SpecOptions { user: Some(user.to_owned()), ..SpecOptions::default() };
        for plain in ["", "0", "1000:1000"] {
            assert!(!needs_lookup(&with(plain)), "{plain:?}");
        }
        for name in ["nobody", "0:adm"] {
            assert!(needs_lookup(&with(name)), "{name:?}");
        }
    }
}

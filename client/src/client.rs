//! [`Client`], the way to everything else.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use gantry_core::snapshots::Snapshotter;
use gantry_core::wire_names::{
    DEFAULT_RUNTIME, DEFAULT_SNAPSHOTTER, LABEL_DEFAULT_RUNTIME, LABEL_DEFAULT_SNAPSHOTTER,
};
use gantry_core::{ContainerId, Context, ErrorKind, Namespace, Result, ResultExt};
use gantry_oci::Reference;

use crate::container::Container;
use crate::image::Image;
use crate::new_container::{self, ContainerOptions};
use crate::pull::{self, PullOptions};
use crate::services::{DaemonVersion, Services};

/// A daemon's services, used in one namespace. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    services: Arc<Services>,
    namespace: Namespace,
}

impl Client {
    /// A client of `services`, which may be in this process, in `namespace`.
    pub fn from_services(services: Services, namespace: Namespace) -> Self {
        Client { services: Arc::new(services), namespace }
    }

    /// The same client in another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: Namespace) -> Self {
        Client { services: Arc::clone(&self.services), namespace }
    }

    /// The services, for what has no verb here.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The surroundings of a call in the client's namespace.
    pub fn context(&self) -> Context {
        Context::new(self.namespace.clone())
    }

    /// The daemon's version.
    ///
    /// # Errors
    /// `Unavailable` if the daemon does not answer.
    pub async fn version(&self) -> Result<DaemonVersion> {
        self.services.version.version().await
    }

    /// The snapshotter `name`.
    ///
    /// # Errors
    /// `NotFound` if it is known not to be there.
    pub fn snapshotter(&self, name: &str) -> Result<Arc<dyn Snapshotter>> {
        self.services.snapshotters.by_name(name)
    }

    /// `chosen`, or the namespace's default snapshotter, or overlayfs.
    ///
    /// # Errors
    /// Those of asking for the namespace's labels.
    pub async fn snapshotter_name(&self, chosen: Option<&str>) -> Result<String> {
        self.chosen_or_default(chosen, LABEL_DEFAULT_SNAPSHOTTER, DEFAULT_SNAPSHOTTER).await
    }

    pub(crate) async fn runtime_name(&self, chosen: Option<&str>) -> Result<String> {
        self.chosen_or_default(chosen, LABEL_DEFAULT_RUNTIME, DEFAULT_RUNTIME).await
    }

    async fn chosen_or_default(&self, chosen: Option<&str>, label: &str, default: &str) -> Result<String> {
        if let Some(chosen) = chosen {
            return Ok(chosen.to_owned());
        }
        match self.services.namespaces.labels(&self.context(), self.namespace.as_str()).await {
            Ok(labels) => Ok(labels.get(label).cloned().unwrap_or_else(|| default.to_owned())),
            // A namespace is there from the first write on.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(default.to_owned()),
            Err(error) => Err(error.context(format!("labels of namespace {:?}", self.namespace))),
        }
    }

    /// Fetches the image that `reference` names and, if asked to, unpacks it; returns it as stored. When this fails, or
    /// is dropped, no snapshot and no lock is left; what was fetched of a blob is, for the next attempt.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad reference; those of the registry, of the stores, and of applying layers.
    pub async fn pull(&self, reference: &Reference, options: PullOptions) -> Result<Image> {
        let record = pull::pull(self, reference, options)
            .await
            .with_context(|| format!("pull {:?}", reference.to_string()))?;
        Ok(Image::new(self.clone(), record))
    }

    /// The image named `name`.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn image(&self, name: &str) -> Result<Image> {
        let record = self.services.images.get(&self.context(), name).await;
        Ok(Image::new(self.clone(), record.with_context(|| format!("image {name:?}"))?))
    }

    /// The images that any of `filters` matches, all without filters, in the order of their names.
    ///
    /// # Errors
    /// `InvalidArgument` for a filter that does not parse.
    pub async fn images(&self, filters: &[String]) -> Result<Vec<Image>> {
        let list = async {
            let records = self.services.images.list(&self.context(), filters).await?;
            records.map_ok(|record| Image::new(self.clone(), record)).try_collect().await
        };
        list.await.context("list images")
    }

    /// Stores a new container with its snapshot and spec. When this fails, nothing of it is left.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` if the image is not unpacked; `InvalidArgument` for options that cannot be.
    pub async fn new_container(&self, id: ContainerId, options: ContainerOptions) -> Result<Container> {
        let step = format!("create container {id:?}");
        new_container::create(self, id, options).await.context(step)
    }

    /// The container `id`, which must be stored.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn load_container(&self, id: &str) -> Result<Container> {
        let record = self.services.containers.get(&self.context(), id).await;
        Ok(Container::new(self.clone(), record.with_context(|| format!("container {id:?}"))?.id))
    }
}

//! A server on a Unix socket, and small in-memory stores behind it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use gantry_core::containers::{Container, ContainerStore};
use gantry_core::field_mask::FieldMask;
use gantry_core::filters::Filters;
use gantry_core::{Context, Error, ItemStream, Namespace, Result};
use gantry_rpc::{JobSet, Services};
use tonic::transport::Channel;

pub struct Daemon {
    pub channel: Channel,
    pub jobs: JobSet,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    serving: tokio::task::JoinHandle<Result<()>>,
    _dir: Option<tempfile::TempDir>,
}

impl Daemon {
    pub fn start(services: Services) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Self::start_in(dir.path(), services);
        Daemon { _dir: Some(dir), ..daemon }
    }

    /// The same, in a directory of somebody else's.
    pub fn start_in(dir: &std::path::Path, services: Services) -> Self {
        let path = dir.join("s.sock");
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
        Daemon { channel, jobs, stop: Some(stop), serving, _dir: None }
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

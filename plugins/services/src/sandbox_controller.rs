//! Controllers of sandboxes: what was made and begun is told.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_core::events::{Event, EventPublisher};
use gantry_core::platforms::Platform;
use gantry_core::sandbox_controller::{
    NewSandbox, SandboxController, SandboxExit, SandboxInstance, SandboxStatus,
};
use gantry_core::sandboxes::Sandbox;
use gantry_core::tasks::Metric;
use gantry_core::{Context, Result};

/// A controller whose sandboxes' beginnings are published. Their ends are told by the controller, which alone learns of one
/// that nobody waits for.
pub struct SandboxControllerService {
    controller: Arc<dyn SandboxController>,
    events: Arc<dyn EventPublisher>,
}

impl SandboxControllerService {
    /// Publishes on `events` what `controller` did.
    pub fn new(controller: Arc<dyn SandboxController>, events: Arc<dyn EventPublisher>) -> Self {
        SandboxControllerService { controller, events }
    }
}

#[async_trait]
impl SandboxController for SandboxControllerService {
    async fn create(&self, cx: &Context, new: NewSandbox) -> Result<()> {
        let sandbox_id = new.sandbox.id.to_string();
        self.controller.create(cx, new).await?;
        self.events.publish(cx, Event::SandboxCreate { sandbox_id }).await;
        Ok(())
    }

    async fn start(&self, cx: &Context, id: &str) -> Result<SandboxInstance> {
        let begun = self.controller.start(cx, id).await?;
        self.events.publish(cx, Event::SandboxStart { sandbox_id: id.to_owned() }).await;
        Ok(begun)
    }

    async fn platform(&self, cx: &Context, id: &str) -> Result<Platform> {
        self.controller.platform(cx, id).await
    }

    async fn stop(&self, cx: &Context, id: &str, patience: Duration) -> Result<()> {
        self.controller.stop(cx, id, patience).await
    }

    async fn wait(&self, cx: &Context, id: &str) -> Result<SandboxExit> {
        self.controller.wait(cx, id).await
    }

    async fn status(&self, cx: &Context, id: &str, verbose: bool) -> Result<SandboxStatus> {
        self.controller.status(cx, id, verbose).await
    }

    async fn shutdown(&self, cx: &Context, id: &str) -> Result<()> {
        self.controller.shutdown(cx, id).await
    }

    async fn metrics(&self, cx: &Context, id: &str) -> Result<Option<Metric>> {
        self.controller.metrics(cx, id).await
    }

    async fn update(&self, cx: &Context, id: &str, changed: Sandbox, fields: Vec<String>) -> Result<()> {
        self.controller.update(cx, id, changed, fields).await
    }
}

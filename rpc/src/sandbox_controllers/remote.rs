//! A controller of sandboxes elsewhere: of a daemon, or a proxy plugin.

use std::time::Duration;

use gantry_api::containerd::services::sandbox::v1 as pb;
use gantry_core::platforms::Platform;
use gantry_core::sandbox_controller::{
    NewSandbox, SandboxController, SandboxExit, SandboxInstance, SandboxStatus,
};
use gantry_core::sandboxes::Sandbox;
use gantry_core::tasks::Metric;
use gantry_core::{Context, Result};
use tonic::transport::Channel;

use super::convert::{exit_from_proto, instance_from_proto, new_to_proto, status_from_proto};
use crate::remote::{answered, ask};
use crate::sandboxes::convert;
use crate::tasks::convert::metric_from_proto;
use crate::{MAX_MESSAGE_BYTES, platform};

/// One controller elsewhere.
#[derive(Clone, Debug)]
pub struct RemoteSandboxController {
    client: pb::controller_client::ControllerClient<Channel>,
    name: String,
}

impl RemoteSandboxController {
    /// Calls the controller `name` over `channel`.
    pub fn new(channel: Channel, name: impl Into<String>) -> Self {
        let client = pb::controller_client::ControllerClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        RemoteSandboxController { client, name: name.into() }
    }

    fn sandboxer(&self) -> String {
        self.name.clone()
    }
}

#[async_trait::async_trait]
impl SandboxController for RemoteSandboxController {
    async fn create(&self, cx: &Context, new: NewSandbox) -> Result<()> {
        ask!(self.create(cx, new_to_proto(new, self.sandboxer())));
        Ok(())
    }

    async fn start(&self, cx: &Context, id: &str) -> Result<SandboxInstance> {
        let request = pb::ControllerStartRequest { sandbox_id: id.to_owned(), sandboxer: self.sandboxer() };
        instance_from_proto(ask!(self.start(cx, request)))
    }

    async fn platform(&self, cx: &Context, id: &str) -> Result<Platform> {
        let request =
            pb::ControllerPlatformRequest { sandbox_id: id.to_owned(), sandboxer: self.sandboxer() };
        let answer = ask!(self.platform(cx, request));
        Ok(platform::from_proto(answered(answer.platform, "platform")?))
    }

    async fn stop(&self, cx: &Context, id: &str, patience: Duration) -> Result<()> {
        let request = pb::ControllerStopRequest {
            sandbox_id: id.to_owned(),
            timeout_secs: u32::try_from(patience.as_secs()).unwrap_or(u32::MAX),
            sandboxer: self.sandboxer(),
        };
        ask!(self.stop(cx, request));
        Ok(())
    }

    async fn wait(&self, cx: &Context, id: &str) -> Result<SandboxExit> {
        let request = pb::ControllerWaitRequest { sandbox_id: id.to_owned(), sandboxer: self.sandboxer() };
        exit_from_proto(ask!(self.wait(cx, request)))
    }

    async fn status(&self, cx: &Context, id: &str, verbose: bool) -> Result<SandboxStatus> {
        let request =
            pb::ControllerStatusRequest { sandbox_id: id.to_owned(), verbose, sandboxer: self.sandboxer() };
        status_from_proto(ask!(self.status(cx, request)))
    }

    async fn shutdown(&self, cx: &Context, id: &str) -> Result<()> {
        let request =
            pb::ControllerShutdownRequest { sandbox_id: id.to_owned(), sandboxer: self.sandboxer() };
        ask!(self.shutdown(cx, request));
        Ok(())
    }

    async fn metrics(&self, cx: &Context, id: &str) -> Result<Option<Metric>> {
        let request = pb::ControllerMetricsRequest { sandbox_id: id.to_owned(), sandboxer: self.sandboxer() };
        Ok(ask!(self.metrics(cx, request)).metrics.map(metric_from_proto))
    }

    async fn update(&self, cx: &Context, id: &str, changed: Sandbox, fields: Vec<String>) -> Result<()> {
        let request = pb::ControllerUpdateRequest {
            sandbox_id: id.to_owned(),
            sandboxer: self.sandboxer(),
            sandbox: Some(convert::to_proto(changed)),
            fields,
        };
        ask!(self.update(cx, request));
        Ok(())
    }
}

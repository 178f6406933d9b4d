//! The daemon's half of the sandbox service.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use gantry_api::containerd::runtime::sandbox::v1 as wire;
use gantry_core::mount::Mount;
use gantry_core::{Any, Result, wire_names};
use gantry_ttrpc::{CallOptions, Client, Metadata};
use prost::Message;

use crate::convert;
use crate::sandbox::SERVICE;

/// What makes a sandbox, as a shim is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewSandbox {
    /// Required: its id.
    pub id: String,
    /// Required: its bundle's directory.
    pub bundle: String,
    /// The root file system's mounts; empty means none.
    pub rootfs: Vec<Mount>,
    /// The controller's options.
    pub options: Option<Any>,
    /// The network namespace; empty means none.
    pub netns: String,
    /// Notes of the caller's.
    pub annotations: BTreeMap<String, String>,
}

/// A sandbox that began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StartedSandbox {
    /// Its process, or 0.
    pub pid: u32,
    /// When it began; `None` if the shim does not say.
    pub created_at: Option<SystemTime>,
    /// What the shim made of its specification.
    pub spec: Option<Any>,
}

/// What a sandbox does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SandboxState {
    /// Its id.
    pub id: String,
    /// Its process, or 0.
    pub pid: u32,
    /// `SANDBOX_READY` or another name.
    pub state: String,
    /// What a verbose answer adds.
    pub info: BTreeMap<String, String>,
    /// When it began.
    pub created_at: Option<SystemTime>,
    /// When it ended.
    pub exited_at: Option<SystemTime>,
    /// More of it.
    pub extra: Option<Any>,
}

/// Calls the sandbox service of one shim. Clones share the connection.
///
/// Every call fails with `Unimplemented` if the shim has no such service, `Unavailable` if it is gone, and
/// `DeadlineExceeded` after the timeout.
#[derive(Clone, Debug)]
pub struct SandboxClient {
    client: Client,
    namespace: String,
    timeout: Option<Duration>,
}

impl SandboxClient {
    /// A client on an existing connection, acting in `namespace`. Each call but [`SandboxClient::wait`] gives up after
    /// `timeout`.
    pub fn new(client: Client, namespace: &str, timeout: Option<Duration>) -> SandboxClient {
        SandboxClient { client, namespace: namespace.to_owned(), timeout }
    }

    /// The connection, for other services of the same shim.
    pub fn connection(&self) -> &Client {
        &self.client
    }

    /// The same client with another deadline for its calls.
    #[must_use]
    pub fn with_timeout(&self, timeout: Option<Duration>) -> SandboxClient {
        SandboxClient { timeout, ..self.clone() }
    }

    async fn call<Q: Message, P: Message + Default>(
        &self,
        method: &str,
        request: Q,
        timeout: Option<Duration>,
    ) -> Result<P> {
        let metadata = Metadata::new().with(wire_names::TTRPC_NAMESPACE_HEADER, &self.namespace);
        self.client.call(SERVICE, method, &request, CallOptions { timeout, metadata }).await
    }

    /// Makes the sandbox.
    ///
    /// # Errors
    /// `AlreadyExists`; and those of every call.
    pub async fn create(&self, new: NewSandbox) -> Result<()> {
        let request = wire::CreateSandboxRequest {
            sandbox_id: new.id,
            bundle_path: new.bundle,
            rootfs: new.rootfs.into_iter().map(convert::mount_to_proto).collect(),
            options: new.options.map(convert::any_to_proto),
            netns_path: new.netns,
            annotations: new.annotations,
        };
        let _: wire::CreateSandboxResponse = self.call("CreateSandbox", request, self.timeout).await?;
        Ok(())
    }

    /// Begins it.
    ///
    /// # Errors
    /// `NotFound`; and those of every call.
    pub async fn start(&self, id: &str) -> Result<StartedSandbox> {
        let request = wire::StartSandboxRequest { sandbox_id: id.into() };
        let started: wire::StartSandboxResponse = self.call("StartSandbox", request, self.timeout).await?;
        Ok(StartedSandbox {
            pid: started.pid,
            created_at: convert::time_from_proto(started.created_at),
            spec: started.spec.map(convert::any_from_proto),
        })
    }

    /// What it runs on: operating system, architecture, variant.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn platform(&self, id: &str) -> Result<(String, String, String)> {
        let request = wire::PlatformRequest { sandbox_id: id.into() };
        let found: wire::PlatformResponse = self.call("Platform", request, self.timeout).await?;
        let platform = found.platform.unwrap_or_default();
        Ok((platform.os, platform.architecture, platform.variant))
    }

    /// Ends it and what runs in it, giving that `patience`.
    ///
    /// # Errors
    /// `NotFound`; and those of every call.
    pub async fn stop(&self, id: &str, patience: Duration) -> Result<()> {
        let timeout_secs = u32::try_from(patience.as_secs()).unwrap_or(u32::MAX);
        let request = wire::StopSandboxRequest { sandbox_id: id.into(), timeout_secs };
        // The shim needs its patience and the call its time.
        let timeout = self.timeout.map(|timeout| timeout.saturating_add(patience));
        let _: wire::StopSandboxResponse = self.call("StopSandbox", request, timeout).await?;
        Ok(())
    }

    /// Waits until it has ended; without deadline.
    ///
    /// # Errors
    /// `NotFound`; and those of every call.
    pub async fn wait(&self, id: &str) -> Result<(u32, Option<SystemTime>)> {
        let request = wire::WaitSandboxRequest { sandbox_id: id.into() };
        let ended: wire::WaitSandboxResponse = self.call("WaitSandbox", request, None).await?;
        Ok((ended.exit_status, convert::time_from_proto(ended.exited_at)))
    }

    /// What it does.
    ///
    /// # Errors
    /// `NotFound`; and those of every call.
    pub async fn status(&self, id: &str, verbose: bool) -> Result<SandboxState> {
        let request = wire::SandboxStatusRequest { sandbox_id: id.into(), verbose };
        let found: wire::SandboxStatusResponse = self.call("SandboxStatus", request, self.timeout).await?;
        Ok(SandboxState {
            id: found.sandbox_id,
            pid: found.pid,
            state: found.state,
            info: found.info,
            created_at: convert::time_from_proto(found.created_at),
            exited_at: convert::time_from_proto(found.exited_at),
            extra: found.extra.map(convert::any_from_proto),
        })
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// `NotFound`; and those of every call.
    pub async fn ping(&self, id: &str) -> Result<()> {
        let _: wire::PingResponse =
            self.call("PingSandbox", wire::PingRequest { sandbox_id: id.into() }, self.timeout).await?;
        Ok(())
    }

    /// Asks the shim to end.
    ///
    /// # Errors
    /// Those of every call, but that the shim is gone already is success.
    pub async fn shutdown(&self, id: &str) -> Result<()> {
        let request = wire::ShutdownSandboxRequest { sandbox_id: id.into() };
        match self.call::<_, wire::ShutdownSandboxResponse>("ShutdownSandbox", request, self.timeout).await {
            Err(error) if error.kind() == gantry_core::ErrorKind::Unavailable => Ok(()),
            answered => answered.map(drop),
        }
    }

    /// Its figures, if it has any of its own.
    ///
    /// # Errors
    /// `NotFound`; and those of every call.
    pub async fn metrics(&self, id: &str) -> Result<Option<Any>> {
        let request = wire::SandboxMetricsRequest { sandbox_id: id.into() };
        let found: wire::SandboxMetricsResponse = self.call("SandboxMetrics", request, self.timeout).await?;
        Ok(found.metrics.and_then(|metric| metric.data).map(convert::any_from_proto))
    }
}

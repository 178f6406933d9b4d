//! The sandbox service of a shim.
//!
//! ```text
//!   (nothing) ──create──► created ──start──► ready ──stop──► not ready ──shutdown──► the shim ends
//! ```
//!
//! A sandbox of runc's kind has no process: what a pod shares are namespaces, which its containers join by path, and
//! this shim, which owns them all. Stopping it ends its containers; their tasks stay to be deleted.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use gantry_api::containerd::runtime::sandbox::v1 as wire;
use gantry_api::containerd::types::{Metric, Platform};
use gantry_core::identifiers::validate_identifier;
use gantry_core::{Error, Result, ResultExt};
use gantry_ttrpc::service::{decode, encode, no_method};
use gantry_ttrpc::{CallContext, Service};
use tokio::sync::watch;

use crate::convert;
use crate::shim::Shim;

/// The service's name. Source: `containerd.runtime.sandbox.v1`.
pub const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// Source: the names of CRI's `PodSandboxState`, which the original's controllers answer.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// How long stopping waits for containers to end if the caller does not say.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a shutdown waits for them: whoever asks for one has less patience. Source: the original's
/// `io.containerd.timeout.shim.shutdown` is 3 s.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves the one sandbox that a shim may be.
#[derive(Debug)]
pub struct SandboxService {
    shim: Arc<Shim>,
    sandbox: Mutex<Option<Sandbox>>,
    /// When it was stopped.
    stopped: watch::Sender<Option<SystemTime>>,
}

#[derive(Clone, Debug)]
struct Sandbox {
    id: String,
    started: Option<SystemTime>,
}

impl SandboxService {
    /// The sandbox of `shim`, not created yet.
    pub fn new(shim: Arc<Shim>) -> SandboxService {
        SandboxService { shim, sandbox: Mutex::new(None), stopped: watch::Sender::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Sandbox>> {
        // Nothing panics while holding it; a poisoned sandbox is still whole.
        self.sandbox.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Result<Sandbox> {
        let sandbox = self.lock().clone();
        sandbox.filter(|sandbox| sandbox.id == id).ok_or_else(|| Error::not_found(format!("sandbox {id:?}")))
    }

    fn create(&self, id: String) -> Result<()> {
        validate_identifier(&id).context("sandbox id")?;
        let mut sandbox = self.lock();
        if sandbox.is_some() {
            return Err(Error::already_exists(format!("sandbox {id:?}")));
        }
        *sandbox = Some(Sandbox { id, started: None });
        self.shim.become_sandbox();
        Ok(())
    }

    fn start(&self, id: &str) -> Result<SystemTime> {
        self.get(id)?;
        if self.stopped.borrow().is_some() {
            return Err(Error::failed_precondition(format!("sandbox {id:?} was stopped")));
        }
        let mut sandbox = self.lock();
        let started = sandbox.as_mut().map(|sandbox| *sandbox.started.get_or_insert_with(SystemTime::now));
        started.ok_or_else(|| Error::not_found(format!("sandbox {id:?}")))
    }

    async fn stop(&self, id: &str, timeout_secs: u32) -> Result<()> {
        self.get(id)?;
        let patience = match timeout_secs {
            0 => STOP_TIMEOUT,
            seconds => Duration::from_secs(seconds.into()),
        };
        let ended = tokio::time::timeout(patience, self.shim.kill_all()).await;
        ended.map_err(|_| Error::deadline_exceeded(format!("stop sandbox {id:?}")))??;
        self.stopped.send_if_modified(|stopped| {
            let first = stopped.is_none();
            *stopped = stopped.or_else(|| Some(SystemTime::now()));
            first
        });
        Ok(())
    }

    /// Ends the shim, and what still runs in it.
    async fn shutdown(&self, id: &str) -> Result<()> {
        if self.lock().is_none() {
            self.shim.shutdown();
            return Ok(());
        }
        self.get(id)?;
        if let Err(error) = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.stop(id, 0)).await.unwrap_or(Ok(())) {
            tracing::warn!(%error, sandbox_id = id, "the shim of a sandbox ends before its tasks");
        }
        self.shim.abandon();
        Ok(())
    }

    async fn wait(&self, id: &str) -> Result<SystemTime> {
        self.get(id)?;
        let mut stopped = self.stopped.subscribe();
        loop {
            if let Some(at) = *stopped.borrow_and_update() {
                return Ok(at);
            }
            // The sender lives as long as this service.
            let _ = stopped.changed().await;
        }
    }

    fn status(&self, id: &str) -> Result<wire::SandboxStatusResponse> {
        let sandbox = self.get(id)?;
        let stopped = *self.stopped.borrow();
        let ready = sandbox.started.is_some() && stopped.is_none();
        Ok(wire::SandboxStatusResponse {
            sandbox_id: sandbox.id,
            pid: std::process::id(),
            state: if ready { READY } else { NOT_READY }.to_owned(),
            created_at: convert::time_to_proto(sandbox.started),
            exited_at: convert::time_to_proto(stopped),
            ..Default::default()
        })
    }
}

/// The platform of this program, in the names of images.
fn platform() -> Platform {
    // Source: Go's names of architectures, which OCI uses.
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    };
    Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), ..Default::default() }
}

#[async_trait]
impl Service for SandboxService {
    // As for tasks: what changes something runs to its end, waits are dropped.
    async fn call(&self, method: &str, payload: Bytes, cx: CallContext) -> Result<Bytes> {
        match method {
            "CreateSandbox" => {
                let request: wire::CreateSandboxRequest = decode(payload)?;
                self.create(request.sandbox_id)?;
                Ok(encode(&wire::CreateSandboxResponse::default()))
            }
            "StartSandbox" => {
                let request: wire::StartSandboxRequest = decode(payload)?;
                let started = self.start(&request.sandbox_id)?;
                Ok(encode(&wire::StartSandboxResponse {
                    pid: std::process::id(),
                    created_at: convert::time_to_proto(Some(started)),
                    ..Default::default()
                }))
            }
            "Platform" => {
                let _: wire::PlatformRequest = decode(payload)?;
                Ok(encode(&wire::PlatformResponse { platform: Some(platform()) }))
            }
            "StopSandbox" => {
                let request: wire::StopSandboxRequest = decode(payload)?;
                Box::pin(self.stop(&request.sandbox_id, request.timeout_secs)).await?;
                Ok(encode(&wire::StopSandboxResponse::default()))
            }
            "WaitSandbox" => {
                let request: wire::WaitSandboxRequest = decode(payload)?;
                let at = cx.while_wanted(self.wait(&request.sandbox_id)).await?;
                let exited_at = convert::time_to_proto(Some(at));
                Ok(encode(&wire::WaitSandboxResponse { exit_status: 0, exited_at }))
            }
            "SandboxStatus" => {
                let request: wire::SandboxStatusRequest = decode(payload)?;
                Ok(encode(&self.status(&request.sandbox_id)?))
            }
            "PingSandbox" => {
                let request: wire::PingRequest = decode(payload)?;
                self.get(&request.sandbox_id)?;
                Ok(encode(&wire::PingResponse::default()))
            }
            "ShutdownSandbox" => {
                let request: wire::ShutdownSandboxRequest = decode(payload)?;
                Box::pin(self.shutdown(&request.sandbox_id)).await?;
                Ok(encode(&wire::ShutdownSandboxResponse::default()))
            }
            "SandboxMetrics" => {
                let request: wire::SandboxMetricsRequest = decode(payload)?;
                let sandbox = self.get(&request.sandbox_id)?;
                let metric = Metric {
                    timestamp: convert::time_to_proto(Some(SystemTime::now())),
                    id: sandbox.id,
                    data: None,
                };
                Ok(encode(&wire::SandboxMetricsResponse { metrics: Some(metric) }))
            }
            _ => Err(no_method(method)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publisher::{Daemon, Publisher};
    use gantry_core::ErrorKind;

    fn service() -> (Arc<Shim>, SandboxService) {
        let shim = Shim::new("ns", Publisher::new(Daemon::Nobody, "ns"));
        (Arc::clone(&shim), SandboxService::new(shim))
    }

    #[tokio::test]
    async fn a_sandbox_is_ready_from_start_to_stop() {
        let (shim, service) = service();
        assert_eq!(service.status("pod").unwrap_err().kind(), ErrorKind::NotFound);
        service.create("pod".into()).unwrap();
        assert_eq!(service.create("pod".into()).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(service.status("pod").unwrap().state, NOT_READY);
        let started = service.start("pod").unwrap();
        assert_eq!(service.start("pod").unwrap(), started);
        assert_eq!(service.status("pod").unwrap().state, READY);
        let (waited, stopped) = tokio::join!(service.wait("pod"), service.stop("pod", 1));
        stopped.unwrap();
        assert_eq!(service.wait("pod").await.unwrap(), waited.unwrap());
        assert_eq!(service.status("pod").unwrap().state, NOT_READY);
        assert_eq!(service.start("pod").unwrap_err().kind(), ErrorKind::FailedPrecondition);
        shim.shutdown();
        let ended = tokio::time::timeout(Duration::from_millis(10), shim.ended()).await;
        assert!(ended.is_err(), "a sandbox needs no task to live");
        let shut_down = |id: &str| encode(&wire::ShutdownSandboxRequest { sandbox_id: id.into() });
        let other = service.call("ShutdownSandbox", shut_down("other"), CallContext::local()).await;
        assert_eq!(other.unwrap_err().kind(), ErrorKind::NotFound);
        service.call("ShutdownSandbox", shut_down("pod"), CallContext::local()).await.unwrap();
        shim.ended().await;
    }

    #[tokio::test]
    async fn a_bad_id_and_an_unknown_method_are_refused() {
        let (_, service) = service();
        assert_eq!(service.create("../x".into()).unwrap_err().kind(), ErrorKind::InvalidArgument);
        let unknown = service.call("Dance", Bytes::new(), CallContext::local()).await.unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::Unimplemented);
    }
}

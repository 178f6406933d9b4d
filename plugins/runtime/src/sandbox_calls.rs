//! The `shim` controller of sandboxes: most calls go to the sandbox's shim.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use gantry_core::platforms::Platform;
use gantry_core::sandbox_controller::{
    NewSandbox, SandboxController, SandboxExit, SandboxInstance, SandboxStatus,
};
use gantry_core::sandboxes::Sandbox as Record;
use gantry_core::tasks::Metric;
use gantry_core::{Context, Error, ErrorKind, Result, ResultExt};

use crate::sandbox::Sandbox;
use crate::sandboxes::{Inner, ShimSandboxes, ask};

impl ShimSandboxes {
    async fn known(&self, cx: &Context, id: &str) -> Result<Arc<Sandbox>> {
        self.inner.find(cx, id).await?.ok_or_else(|| Error::not_found(format!("sandbox {id:?}")))
    }
}

impl Inner {
    async fn start(&self, cx: &Context, id: &str) -> Result<SandboxInstance> {
        // Source: the original's text and class.
        let missing = || Error::unknown(format!("unable to find sandbox {id:?}"));
        let sandbox = self.find(cx, id).await?.ok_or_else(missing)?;
        let _ending = sandbox.ending.lock().await;
        if sandbox.is_gone() {
            return Err(missing());
        }
        let begun = match sandbox.client().start(id).await {
            Ok(begun) => begun,
            Err(error) => {
                // One that began earlier is none of this start's to undo.
                if !sandbox.is_started() {
                    sandbox.take_down(self).await;
                }
                return Err(error.context(format!("start sandbox {id:?}")));
            }
        };
        let (noted, pid) = (Arc::clone(&sandbox), begun.pid);
        let _ = tokio::task::spawn_blocking(move || noted.started(pid)).await;
        let (address, version) = sandbox.address();
        Ok(SandboxInstance {
            id: id.to_owned(),
            pid,
            // Source: the original reads an absent time as the epoch.
            created_at: begun.created_at.or(Some(SystemTime::UNIX_EPOCH)),
            spec: begun.spec,
            address,
            version,
            ..SandboxInstance::default()
        })
    }

    async fn shutdown(&self, cx: &Context, id: &str) -> Result<()> {
        let missing = || Error::not_found(format!("sandbox {id:?}"));
        let sandbox = self.find(cx, id).await?.ok_or_else(missing)?;
        let _ending = sandbox.ending.lock().await;
        if sandbox.is_gone() {
            return Err(missing());
        }
        sandbox.take_down(self).await;
        Ok(())
    }
}

#[async_trait]
impl SandboxController for ShimSandboxes {
    async fn create(&self, cx: &Context, new: NewSandbox) -> Result<()> {
        let (inner, cx) = (Arc::clone(&self.inner), cx.clone());
        self.inner.jobs.finish(async move { inner.create(&cx, new).await }).await
    }

    async fn start(&self, cx: &Context, id: &str) -> Result<SandboxInstance> {
        let (inner, cx, id) = (Arc::clone(&self.inner), cx.clone(), id.to_owned());
        self.inner.jobs.finish(async move { inner.start(&cx, &id).await }).await
    }

    async fn platform(&self, cx: &Context, id: &str) -> Result<Platform> {
        let sandbox = self.known(cx, id).await?;
        let step = || format!("platform of sandbox {id:?}");
        let (os, architecture, variant) =
            ask(&self.inner, &sandbox, |client| async move { client.platform(id).await })
                .await
                .with_context(step)?;
        Ok(Platform { os, architecture, variant, ..Platform::default() })
    }

    async fn stop(&self, cx: &Context, id: &str, patience: Duration) -> Result<()> {
        let Some(sandbox) = self.inner.find(cx, id).await? else { return Ok(()) };
        let stopped =
            ask(&self.inner, &sandbox, |client| async move { client.stop(id, patience).await }).await;
        match stopped {
            // Source: the original: a sandbox that its shim does not know has stopped.
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) => {
                Err(error.context(format!("stop sandbox {id:?}")))
            }
            _ => Ok(()),
        }
    }

    async fn wait(&self, cx: &Context, id: &str) -> Result<SandboxExit> {
        let sandbox = self.known(cx, id).await?;
        let mut phase = sandbox.phase();
        let known = phase.wait_for(|phase| phase.exit.is_some() || phase.gone || phase.unknown.is_some());
        let missing = || Error::not_found(format!("sandbox {id:?}"));
        let phase = known.await.map_err(|_| missing())?.clone();
        match (phase.exit, phase.unknown) {
            (Some(exit), _) => Ok(exit),
            (None, Some((kind, why))) => {
                Err(Error::unknown(why).with_kind(kind).context(format!("wait for sandbox {id:?}")))
            }
            // It was shut down before it began.
            (None, None) => Err(missing()),
        }
    }

    async fn status(&self, cx: &Context, id: &str, verbose: bool) -> Result<SandboxStatus> {
        let nobody = || SandboxStatus {
            id: id.to_owned(),
            exited_at: Some(SystemTime::now()),
            ..SandboxStatus::default()
        };
        let Some(sandbox) = self.inner.find(cx, id).await? else { return Ok(nobody()) };
        let patience = Some(self.inner.config.timeouts.state);
        let state = ask(&self.inner, &sandbox, |client| async move {
            client.with_timeout(patience).status(id, verbose).await
        });
        let state = match state.await {
            Ok(state) => state,
            Err(error) if error.kind() == ErrorKind::NotFound && sandbox.is_gone() => return Ok(nobody()),
            Err(error) => return Err(error.context(format!("status of sandbox {id:?}"))),
        };
        let (address, version) = sandbox.address();
        Ok(SandboxStatus {
            id: state.id,
            pid: state.pid,
            state: state.state,
            info: state.info,
            // Source: as for the start.
            created_at: state.created_at.or(Some(SystemTime::UNIX_EPOCH)),
            exited_at: state.exited_at.or(Some(SystemTime::UNIX_EPOCH)),
            extra: state.extra,
            address,
            version,
        })
    }

    async fn shutdown(&self, cx: &Context, id: &str) -> Result<()> {
        let (inner, cx, id) = (Arc::clone(&self.inner), cx.clone(), id.to_owned());
        self.inner.jobs.finish(async move { inner.shutdown(&cx, &id).await }).await
    }

    async fn metrics(&self, cx: &Context, id: &str) -> Result<Option<Metric>> {
        let sandbox = self.known(cx, id).await?;
        let patience = Some(self.inner.config.timeouts.state);
        let data =
            ask(
                &self.inner,
                &sandbox,
                |client| async move { client.with_timeout(patience).metrics(id).await },
            );
        let data = data.await.with_context(|| format!("metrics of sandbox {id:?}"))?;
        Ok(Some(Metric { timestamp: SystemTime::now(), id: id.to_owned(), data }))
    }

    // Source: the original's shims have no such call, and its controller answers that all is well.
    async fn update(&self, cx: &Context, _: &str, _: Record, _: Vec<String>) -> Result<()> {
        cx.namespace().map(drop)
    }
}

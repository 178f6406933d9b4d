//! One sandbox, as the daemon knows it: its bundle, its shim's connection, and how it ended.
//!
//! ```text
//!   making ──▶ created ──start──▶ started ──▶ ended ──▶ gone
//!     │          ▲   └──────────────────────────────────▲
//!     └ failed   └── recovering    a bundle found at start
//! ```
//!
//! It ends when its shim says so, and is gone when it was shut down or its shim died.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use gantry_core::events::Event;
use gantry_core::sandbox_controller::SandboxExit;
use gantry_core::{Context, ErrorKind, Result};
use gantry_shim::bootstrap::Answer;
use gantry_shim::sandbox_client::SandboxClient;
use gantry_sys::pidfd::Pidfd;
use gantry_ttrpc::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bundle::Bundle;
use crate::config::Timeouts;
use crate::sandboxes::Inner;
use crate::{bootstrap, dead_shim};

/// Source: signal(7).
const SIGKILL: i32 = 9;

#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) bundle: Bundle,
    pub(crate) binary: PathBuf,
    pub(crate) answer: Answer,
    client: Mutex<SandboxClient>,
    phase: watch::Sender<Phase>,
    /// The process that the shim calls the sandbox's: what is killed if the shim does not answer.
    process: Mutex<Option<Pidfd>>,
    /// Held by whoever starts or ends it.
    pub(crate) ending: tokio::sync::Mutex<()>,
    /// Held while its end is told, so that it is told once.
    telling: tokio::sync::Mutex<()>,
    /// Fired when it is gone; its jobs end then.
    pub(crate) over: CancellationToken,
}

/// What those who wait look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phase {
    /// How many connections there were.
    pub(crate) connections: u64,
    pub(crate) started: bool,
    /// How it ended, once the world has been told.
    pub(crate) exit: Option<SandboxExit>,
    /// Why its shim cannot say when it ends.
    pub(crate) unknown: Option<(ErrorKind, String)>,
    pub(crate) gone: bool,
}

impl Sandbox {
    pub(crate) fn new(
        bundle: Bundle,
        binary: PathBuf,
        answer: Answer,
        client: SandboxClient,
        over: CancellationToken,
    ) -> Sandbox {
        Sandbox {
            bundle,
            binary,
            answer,
            client: Mutex::new(client),
            phase: watch::Sender::new(Phase::default()),
            process: Mutex::default(),
            ending: tokio::sync::Mutex::new(()),
            telling: tokio::sync::Mutex::new(()),
            over,
        }
    }

    pub(crate) fn id(&self) -> &str {
        self.bundle.id.as_str()
    }

    pub(crate) fn client(&self) -> SandboxClient {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, SandboxClient> {
        // Nothing panics while holding it.
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.phase.borrow().gone
    }

    pub(crate) fn is_started(&self) -> bool {
        self.phase.borrow().started
    }

    /// It has begun, with `pid` as its process if that is not 0.
    pub(crate) fn started(&self, pid: u32) {
        self.bundle.note_started();
        // The first process would not be a sandbox's.
        let process = i32::try_from(pid).ok().filter(|pid| *pid > 1).and_then(|pid| Pidfd::open(pid).ok());
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
        self.phase.send_modify(|phase| phase.started = true);
    }

    fn reconnected(&self, client: SandboxClient) {
        *self.lock() = client;
        self.phase.send_modify(|phase| phase.connections += 1);
    }

    /// Its address, as clients are told. Source: the original's `<protocol>+<address>`.
    pub(crate) fn address(&self) -> (String, u32) {
        let protocol = match self.answer.protocol.as_str() {
            "" => "ttrpc",
            protocol => protocol,
        };
        (format!("{protocol}+{}", self.answer.address), u32::try_from(self.answer.version).unwrap_or(0))
    }

    /// Tells the world how it ended, once.
    async fn tell(&self, inner: &Inner, exit: SandboxExit) {
        let _telling = self.telling.lock().await;
        if self.phase.borrow().exit.is_some() {
            return;
        }
        let bundle = self.bundle.clone();
        let told = tokio::task::spawn_blocking(move || bundle.is_exit_told()).await.unwrap_or(false);
        if !told {
            let event = Event::SandboxExit {
                sandbox_id: self.id().to_owned(),
                exit_status: exit.status,
                exited_at: Some(exit.exited_at),
            };
            inner.events.publish(&Context::new(self.bundle.namespace.clone()), event).await;
            let bundle = self.bundle.clone();
            let _ = tokio::task::spawn_blocking(move || bundle.note_exit_told()).await;
        }
        self.phase.send_modify(|phase| phase.exit = Some(exit));
    }

    /// Follows it until its connection is lost, and tells of its end.
    async fn follow(&self, inner: &Inner, client: &SandboxClient) {
        let ended = async {
            let mut phase = self.phase();
            // One that was not begun cannot end, though some shims would say so.
            if !phase.wait_for(|phase| phase.started).await.is_ok_and(|phase| phase.exit.is_none()) {
                std::future::pending::<()>().await;
            }
            client.wait(self.id()).await
        };
        // What is dropped of the wait is asked again over the next connection. Telling is never dropped half-way: the world would be
        // told twice.
        let ended = tokio::select! {
            () = client.connection().closed() => return,
            ended = ended => ended,
        };
        match ended {
            Ok((status, exited_at)) => {
                let exited_at = exited_at.unwrap_or_else(SystemTime::now);
                self.tell(inner, SandboxExit { status, exited_at }).await;
            }
            // The connection is lost.
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) => {
                let unknown = Some((error.kind(), error.message()));
                self.phase.send_modify(|phase| phase.unknown = unknown);
            }
        }
        client.connection().closed().await;
    }

    /// Ends its shim, by force if need be, and removes what is left of it. The caller holds `ending`.
    pub(crate) async fn take_down(&self, inner: &Inner) {
        let (namespace, sandbox_id) = (&self.bundle.namespace, self.id());
        let patience = inner.config.timeouts.shutdown;
        let client = self.client().with_timeout(Some(patience));
        let died = client.connection().is_closed();
        let ended = !died && {
            let asked = client.shutdown(sandbox_id).await;
            if let Err(error) = &asked {
                tracing::warn!(%error, %namespace, sandbox_id, "a sandbox is not shut down");
            }
            asked.is_ok() && tokio::time::timeout(patience, client.connection().closed()).await.is_ok()
        };
        let mut status = 0;
        if ended {
            dead_shim::remove_socket(&inner.config, &self.bundle);
            self.bundle.delete_or_log().await;
        } else {
            tracing::warn!(%namespace, sandbox_id, died, "cleaning up after the shim of a sandbox");
            self.kill();
            let exit = dead_shim::clean_up(&inner.config, &self.bundle, Some(&self.binary)).await;
            status = exit.status;
        }
        inner.shims.remove(&self.bundle);
        if self.is_started() {
            self.tell(inner, SandboxExit { status, exited_at: SystemTime::now() }).await;
        }
        self.phase.send_modify(|phase| phase.gone = true);
        self.over.cancel();
    }

    fn kill(&self) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(process) = process
            && let Err(error) = process.kill(SIGKILL)
        {
            tracing::debug!(%error, sandbox_id = self.id(), "the sandbox's process is gone already");
        }
    }
}

/// Follows `sandbox` until it is gone: connects anew if its shim still listens, and cleans up if not.
pub(crate) async fn watch(inner: Arc<Inner>, sandbox: Arc<Sandbox>) {
    loop {
        let client = sandbox.client();
        // Both may be dropped at any time.
        tokio::select! {
            () = sandbox.over.cancelled() => return,
            () = sandbox.follow(&inner, &client) => {}
        }
        let _ending = sandbox.ending.lock().await;
        if sandbox.is_gone() || inner.jobs.is_closed() {
            return;
        }
        if let Some(client) = reconnect(&inner, &sandbox).await {
            sandbox.reconnected(client);
            continue;
        }
        sandbox.take_down(&inner).await;
        return;
    }
}

/// Cleans up after a shim that died while no daemon looked, and tells of its sandbox's end.
pub(crate) async fn bury(inner: &Inner, bundle: &Bundle, binary: &Path) {
    let tell = bundle.is_started() && !bundle.is_exit_told();
    let exit = dead_shim::clean_up(&inner.config, bundle, Some(binary)).await;
    if tell {
        let event = Event::SandboxExit {
            sandbox_id: bundle.id.to_string(),
            exit_status: exit.status,
            exited_at: Some(exit.exited_at),
        };
        inner.events.publish(&Context::new(bundle.namespace.clone()), event).await;
    }
}

/// Another connection, if the shim lives and still has the sandbox.
async fn reconnect(inner: &Inner, sandbox: &Sandbox) -> Option<SandboxClient> {
    let timeouts = &inner.config.timeouts;
    let client = connect(&sandbox.answer, &sandbox.bundle, timeouts).await.ok()?;
    match client.with_timeout(Some(timeouts.load)).status(sandbox.id(), false).await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) => None,
        // A slow shim is a living one.
        _ => Some(client),
    }
}

/// Connects to the shim that answered `answer`.
///
/// # Errors
/// `Unimplemented` for what this daemon cannot speak; `NotFound` and `Unavailable` if the shim is not there.
pub(crate) async fn connect(answer: &Answer, bundle: &Bundle, timeouts: &Timeouts) -> Result<SandboxClient> {
    let path: PathBuf = bootstrap::socket(answer)?;
    let connection = Client::connect(Path::new(&path)).await?;
    Ok(SandboxClient::new(connection, bundle.namespace.as_str(), Some(timeouts.call)))
}

//! The shim itself: one thread that waits for calls, exits and output.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_core::{Result, ResultExt};
use gantry_sys::reaper::Reaper;
use gantry_sys::{attributes, socket};
use gantry_ttrpc::{Server, ServerConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Level;

use crate::bootstrap::Told;
use crate::client::TaskVersion;
use crate::command_line::Arguments;
use crate::log::LineLog;
use crate::publisher::Publisher;
use crate::sandbox::{self, SandboxService};
use crate::service::TaskService;
use crate::shim::Shim;
use crate::start::{self, LISTENER};

/// How often the shim looks whether anybody can still need it.
const LOOK_AROUND: Duration = Duration::from_secs(30);

/// How long calls under way may go on once the shim is to end.
const GRACE: Duration = Duration::from_secs(2);

/// How long nothing must have been asked before the shim counts as resting.
const QUIET: Duration = Duration::from_secs(2);

/// How many daemons and tools may be connected at once.
const MAX_CONNECTIONS: usize = 256;

/// Runs the shim until it is told to shut down with no task left, or nobody can need it any more.
///
/// # Errors
/// If it cannot begin to serve.
pub fn serve(arguments: &Arguments) -> Result<()> {
    let told = Told::new(arguments, b"", |name| std::env::var(name).ok());
    let bundle = start::bundle_dir(arguments)?;
    let level = if arguments.debug { Level::DEBUG } else { Level::INFO };
    if let Ok(log) = LineLog::open(&bundle.join("log"), level) {
        // Set once, at the start of the program.
        let _ = tracing::subscriber::set_global_default(log);
    }
    if std::env::var_os("SCHED_CORE").is_some_and(|value| !value.is_empty()) {
        // Source: features I19.
        attributes::new_core_scheduling_cookie()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // For mounting, forking and reading the runtime's answers; idle ones go at once.
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_millis(100))
        .thread_stack_size(512 << 10)
        .build()
        .context("make a runtime")?;
    let served = runtime.block_on(run(arguments, &told, bundle));
    // Nothing that still blocks may hold up the end.
    runtime.shutdown_background();
    served
}

async fn run(arguments: &Arguments, told: &Told, bundle: PathBuf) -> Result<()> {
    let listener = match socket::inherited(LISTENER) {
        Ok(fd) => gantry_ttrpc::socket::listener(fd.into())?,
        Err(_) if !arguments.socket.as_os_str().is_empty() => gantry_ttrpc::socket::bind(&arguments.socket)?,
        Err(error) => return Err(error.context("find the listening socket")),
    };
    let over = CancellationToken::new();
    let mut jobs = JoinSet::new();
    let reaper = Reaper::new()?;
    let reaping = over.clone();
    jobs.spawn(async move {
        if let Err(error) = reaper.run(reaping.cancelled_owned()).await {
            tracing::error!(%error, "no more exits are taken");
        }
    });
    let events = Publisher::new(told.daemon(), &arguments.namespace);
    let publishing = events.clone();
    jobs.spawn(async move { publishing.run().await });
    let shim = Shim::new(&arguments.namespace, events);
    let looking = Arc::clone(&shim);
    jobs.spawn(async move { look_around(looking, bundle).await });
    let resting = Arc::clone(&shim);
    jobs.spawn(async move { rest(resting).await });
    let asked = Arc::clone(&shim);
    jobs.spawn(async move {
        if let Err(error) = obey_signals(&asked).await {
            tracing::error!(%error, "signals are not heard");
        }
    });
    let service = Arc::new(TaskService::new(Arc::clone(&shim)));
    let config = ServerConfig { grace: GRACE, max_connections: MAX_CONNECTIONS, ..ServerConfig::default() };
    let server = Server::new(config)
        .with(TaskVersion::Two.service(), service.clone())
        .with(TaskVersion::Three.service(), service)
        .with(sandbox::SERVICE, Arc::new(SandboxService::new(Arc::clone(&shim))));
    tracing::debug!(namespace = %arguments.namespace, id = %arguments.id, "the shim serves");
    let ending = Arc::clone(&shim);
    let path = arguments.socket.clone();
    let served = server
        .run(listener, async move {
            ending.ended().await;
            // While we still listen, nobody else can have made this name theirs.
            remove(&path);
        })
        .await;
    shim.close().await;
    over.cancel();
    jobs.shutdown().await;
    served
}

fn remove(path: &Path) {
    if !path.as_os_str().is_empty()
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::debug!(%error, ?path, "the socket is gone already");
    }
}

/// Ends the shim when its bundles are gone and nothing of it runs: then no daemon will ever ask for it.
async fn look_around(shim: Arc<Shim>, bundle: PathBuf) {
    loop {
        tokio::time::sleep(LOOK_AROUND).await;
        if shim.is_abandoned(&bundle) {
            tracing::info!("the bundle is gone; the shim ends");
            shim.abandon();
        }
    }
}

/// Lets go of what only the work of a moment needed: most of a shim's life is waiting, and its code is counted.
async fn rest(shim: Arc<Shim>) {
    loop {
        shim.settled(QUIET).await;
        if let Err(error) = gantry_sys::memory::forget_code() {
            tracing::debug!(%error, "code is kept in memory");
        }
    }
}

/// A shim that is asked to end does so only if it has no task: containers outlive whoever stops services.
async fn obey_signals(shim: &Shim) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    loop {
        // Receiving a signal loses nothing when dropped.
        tokio::select! {
            _ = terminate.recv() => shim.shutdown(),
            _ = interrupt.recv() => shim.shutdown(),
        }
    }
}

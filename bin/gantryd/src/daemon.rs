//! The daemon's life: directories, plugins, servers, the end.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_core::{Error, Result, ResultExt as _};
use gantry_failpoint::{Point, reach};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, GrpcServerSection, TtrpcServerSection};
use crate::plugins::{self, Parts};
use crate::{notify, plugins::Jobs, takeover};

/// How long calls and jobs that are under way may take at the end.
const GRACE: Duration = Duration::from_secs(10);
/// Threads for blocking work: walking, hashing, unpacking, database reads. They end when idle.
const BLOCKING_THREADS: usize = 64;

/// How often the daemon looks whether it has come to rest.
const LOOK: Duration = Duration::from_secs(5);
/// So little CPU time between two looks is rest.
const RESTING: Duration = Duration::from_millis(5);
/// So much CPU time since the last tidying makes another one worth while.
const WORKED: Duration = Duration::from_millis(20);

/// Runs until a signal says otherwise.
///
/// # Errors
/// Whatever keeps the daemon from serving.
pub(crate) fn run(config: Config, takeover: &takeover::Options) -> Result<()> {
    let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
        .context("start the runtime")?;
    let outcome = runtime.block_on(serve(config, takeover));
    // What still blocks after the grace period does not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn serve(config: Config, takeover: &takeover::Options) -> Result<()> {
    let begun = Instant::now();
    let stop = CancellationToken::new();
    let jobs = Jobs { tracker: TaskTracker::new(), stop: stop.clone() };
    // Before the plugins: their start may take long, and a signal ends it cleanly all the same.
    let mut signals = Signals::listen()?;
    prepare_directories(&config)?;
    // Held until the end, so that no containerd writes to this root beside us.
    let _taken = tokio::select! {
        taken = takeover::run(&config, takeover) => taken?,
        () = signals.wait() => {
            tracing::info!("told to stop while starting");
            return Ok(());
        }
    };
    clear_temporary_mounts(&config)?;
    if config.oom_score != 0
        && let Err(error) =
            gantry_sys::attributes::set_oom_score_adj(std::process::id().cast_signed(), config.oom_score)
    {
        tracing::warn!(%error, "set the daemon's own oom_score");
    }
    let config = Arc::new(config);
    let starting = tokio::task::spawn_blocking({
        let (config, jobs) = (Arc::clone(&config), jobs.clone());
        move || plugins::start(&config, &jobs)
    });
    let parts = tokio::select! {
        started = starting => started.map_err(|_| Error::internal("starting the plugins panicked"))??,
        () = signals.wait() => {
            tracing::info!("told to stop while starting");
            return Ok(());
        }
    };
    reach(Point::DaemonStarted);
    let outcome = listen_and_wait(&config, &parts, &jobs, &mut signals, begun).await;
    notify::tell("STOPPING=1");
    stop.cancel();
    jobs.tracker.close();
    if tokio::time::timeout(GRACE, jobs.tracker.wait()).await.is_err() {
        tracing::warn!("jobs are still under way at the end of the grace period");
    }
    reach(Point::DaemonStopping);
    let closed = parts.close(GRACE).await;
    outcome.and(closed)
}

async fn listen_and_wait(
    config: &Config,
    parts: &Parts,
    jobs: &Jobs,
    signals: &mut Signals,
    begun: Instant,
) -> Result<()> {
    let grpc: GrpcServerSection = config.section("io.containerd.server.v1.grpc")?;
    let ttrpc = ttrpc_section(config, &grpc)?;
    let main = bind(&grpc.address, grpc.uid, grpc.gid).await?;
    let shims = bind(&ttrpc.address, ttrpc.uid, ttrpc.gid).await?;
    let mut ended = tokio::task::JoinSet::new();
    ended.spawn(parts.servers.grpc(main, GRACE, jobs.stop.clone().cancelled_owned()));
    ended.spawn(parts.servers.ttrpc(shims, GRACE, jobs.stop.clone().cancelled_owned()));
    if let Some(metrics) = &parts.servers.metrics {
        let listener = metrics.bind().await?;
        ended.spawn(metrics.serve(listener, jobs.stop.clone().cancelled_owned()));
    }
    let stop = jobs.stop.clone();
    jobs.tracker.spawn(async move {
        tokio::select! {
            () = rest() => {}
            () = stop.cancelled() => {}
        }
    });
    reach(Point::DaemonServing);
    notify::tell("READY=1");
    tracing::info!(address = grpc.address, "serving...");
    // Source: features C27.
    tracing::info!("containerd successfully booted in {:.6}s", begun.elapsed().as_secs_f64());
    let outcome = tokio::select! {
        () = signals.wait() => Ok(()),
        Some(result) = ended.join_next() => match result {
            Ok(result) => result.and_then(|()| Err(Error::internal("a server ended by itself"))),
            Err(_) => Err(Error::internal("a server panicked")),
        },
    };
    tracing::info!("stopping");
    jobs.stop.cancel();
    let rest = async { while ended.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, rest).await.is_err() {
        tracing::warn!("calls are still under way at the end of the grace period");
    }
    for address in [&grpc.address, &ttrpc.address] {
        // A socket that nobody listens on only misleads clients; one that is gone already is fine.
        let _ = std::fs::remove_file(address);
    }
    outcome
}

/// Lets go of what only the start, or work that is over, needed: free memory, and code, which is most of what a resting
/// daemon holds. The kernel's cache keeps the code, and brings back what is used again.
async fn rest() {
    let used = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
    };
    let (mut tidied, mut before) = (Duration::ZERO, Duration::ZERO);
    loop {
        tokio::time::sleep(LOOK).await;
        let now = used();
        if now.saturating_sub(before) < RESTING && now.saturating_sub(tidied) > WORKED {
            gantry_sys::memory::return_free_memory();
            if let Err(error) = gantry_sys::memory::forget_code() {
                tracing::debug!(%error, "code is kept in memory");
            }
            tidied = used();
        }
        before = now;
    }
}

/// The shims' socket: its own section, or beside the main one with the same owner.
///
/// # Errors
/// As [`Config::section`].
pub(crate) fn ttrpc_section(config: &Config, grpc: &GrpcServerSection) -> Result<TtrpcServerSection> {
    let mut ttrpc: TtrpcServerSection = config.section("io.containerd.server.v1.ttrpc")?;
    if ttrpc.address.is_empty() {
        ttrpc = TtrpcServerSection {
            address: format!("{}{}", grpc.address, gantry_core::wire_names::TTRPC_SUFFIX),
            uid: grpc.uid,
            gid: grpc.gid,
        };
    }
    Ok(ttrpc)
}

/// Makes root and state, closed as the original has them. Source: features C15 and C45; security S05 and S18.
fn prepare_directories(config: &Config) -> Result<()> {
    for (path, mode) in [(&config.root, 0o700), (&config.state, 0o711)] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
            .with_context(|| format!("create {}", path.display()))?;
    }
    Ok(())
}

/// Takes away what an earlier daemon had mounted for a moment. Source: features C28.
fn clear_temporary_mounts(config: &Config) -> Result<()> {
    let mounts = config.root.join("tmpmounts");
    if mounts.exists() { gantry_mount::clear_temp_mounts(&mounts) } else { Ok(()) }
}

/// Listens on the Unix socket `address`. A stale socket is replaced, a living daemon's is not.
async fn bind(address: &str, uid: u32, gid: u32) -> Result<UnixListener> {
    let path = PathBuf::from(address.strip_prefix("unix://").unwrap_or(address));
    let step = || format!("listen on {}", path.display());
    if !path.is_absolute() {
        return Err(Error::invalid_argument("the socket's path must be absolute").context(step()));
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        // Source: features C29.
        std::fs::DirBuilder::new().recursive(true).mode(0o770).create(parent).with_context(step)?;
    }
    if path.exists() {
        let probe = path.clone();
        let alive = tokio::task::spawn_blocking(move || gantry_sys::socket::connect(&probe).is_ok()).await;
        if alive.unwrap_or(false) {
            return Err(Error::failed_precondition("another daemon answers on this socket; stop it first")
                .context(step()));
        }
        std::fs::remove_file(&path).with_context(step)?;
    }
    let listener = gantry_sys::socket::listen(&path, 0o660)?;
    own(&path, uid, gid)?;
    listener.set_nonblocking(true).with_context(step)?;
    UnixListener::from_std(listener).with_context(step)
}

fn own(path: &Path, uid: u32, gid: u32) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    std::os::unix::fs::chown(path, Some(uid), Some(gid))
        .with_context(|| format!("change the owner of {}", path.display()))
}

/// The signals that end the daemon.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
        })
    }

    async fn wait(&mut self) {
        // Receiving a signal loses nothing when dropped.
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

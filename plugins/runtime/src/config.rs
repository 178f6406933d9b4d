//! What the daemon tells this crate.

use std::path::PathBuf;
use std::time::Duration;

/// Directories, addresses and patience.
#[derive(Clone, Debug)]
pub struct ShimTasksConfig {
    /// Where work directories are kept over a reboot, for example `/var/lib/containerd`.
    pub root: PathBuf,
    /// Where bundles are, for example `/run/containerd`.
    pub state: PathBuf,
    /// The daemon's gRPC socket, as shims are told.
    pub address: String,
    /// The daemon's ttrpc socket, where shims send events.
    pub ttrpc_address: String,
    /// The program that shims may run to publish an event: the daemon itself.
    pub publish_binary: PathBuf,
    /// Where shims make their sockets; `None` leaves it to them.
    pub socket_dir: Option<PathBuf>,
    /// Added to the environment of shims, `KEY=VALUE`. Default: nothing.
    pub env: Vec<(String, String)>,
    /// Whether shims are asked to log more. Default: no.
    pub debug: bool,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

impl Default for ShimTasksConfig {
    fn default() -> Self {
        use gantry_core::wire_names;
        ShimTasksConfig {
            root: wire_names::DEFAULT_ROOT.into(),
            state: wire_names::DEFAULT_STATE.into(),
            address: wire_names::DEFAULT_ADDRESS.into(),
            ttrpc_address: format!("{}{}", wire_names::DEFAULT_ADDRESS, wire_names::TTRPC_SUFFIX),
            publish_binary: PathBuf::new(),
            socket_dir: None,
            env: Vec::new(),
            debug: false,
            timeouts: Timeouts::default(),
        }
    }
}

/// How long to wait for a shim. Waiting for an exit has no end.
///
/// Source: the original's `io.containerd.timeout.shim.*`, `io.containerd.timeout.task.state` and
/// `io.containerd.timeout.metrics.shimstats`, but for `start` and `call`, which it leaves to the caller.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Reaching a shim that was there before the daemon. Default: 5 s.
    pub load: Duration,
    /// Cleaning up after a shim that died. Default: 5 s.
    pub cleanup: Duration,
    /// The end of a shim after its last task. Default: 3 s.
    pub shutdown: Duration,
    /// The state of a process. Default: 2 s.
    pub state: Duration,
    /// The figures of a task. Default: 2 s.
    pub stats: Duration,
    /// A shim's `start` command. Default: 30 s.
    pub start: Duration,
    /// Every other call. Default: 2 min.
    pub call: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            load: Duration::from_secs(5),
            cleanup: Duration::from_secs(5),
            shutdown: Duration::from_secs(3),
            state: Duration::from_secs(2),
            stats: Duration::from_secs(2),
            start: Duration::from_secs(30),
            call: Duration::from_secs(120),
        }
    }
}

//! The one interface of every OCI runtime, and what goes in and out of it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use async_trait::async_trait;
use gantry_core::Result;
use gantry_sys::Stdio;

/// What a process is given as its standard streams.
#[derive(Debug)]
pub enum Io {
    /// Three streams.
    Streams([Stdio; 3]),
    /// A terminal, which the runtime makes; its master comes back in [`Made::console`]. Must agree with
    /// `process.terminal` of the specification.
    Terminal,
}

/// A container to create.
#[derive(Debug)]
pub struct NewContainer {
    /// Required: the container's id.
    pub id: String,
    /// Required: the directory with `config.json`.
    pub bundle: PathBuf,
    /// Required: its standard streams.
    pub io: Io,
    /// Move the root instead of pivoting, for a root on a RAM disk. Default no.
    pub no_pivot_root: bool,
    /// Keep the session keyring of the caller. Default no.
    pub no_new_keyring: bool,
}

/// A process to add to a running container.
#[derive(Debug)]
pub struct NewProcess {
    /// Required: the container's id.
    pub id: String,
    /// Required: the name of the process; used in file names.
    pub exec_id: String,
    /// Required: the OCI `process` object, as JSON.
    pub process: Vec<u8>,
    /// Required: its standard streams.
    pub io: Io,
}

/// A process that a runtime made.
#[derive(Debug)]
pub struct Made {
    /// Its process id, in the caller's pid namespace. It is, or is about to become, a child of the
    /// nearest subreaper.
    pub pid: i32,
    /// The terminal's master, if a terminal was asked for.
    pub console: Option<OwnedFd>,
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is being made.
    Creating,
    /// Init waits to be started.
    Created,
    /// Init runs.
    Running,
    /// Frozen.
    Paused,
    /// Init has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// What a runtime knows of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// What it does.
    pub status: Status,
    /// Its init; 0 once that has ended.
    pub pid: i32,
    /// Its bundle.
    pub bundle: PathBuf,
}

/// A checkpoint to write.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// Required: the directory for the images.
    pub image_path: PathBuf,
    /// Where logs and temporary files go. Default the image path.
    pub work_path: Option<PathBuf>,
    /// The images of an earlier pre-dump to build on.
    pub parent_path: Option<PathBuf>,
    /// Let the container run on. Default no.
    pub leave_running: bool,
    /// Allow open TCP connections.
    pub allow_open_tcp: bool,
    /// Allow external Unix sockets.
    pub allow_external_unix_sockets: bool,
    /// Allow terminals.
    pub allow_terminal: bool,
    /// Handle file locks.
    pub file_locks: bool,
    /// How cgroups are handled: `soft`, `full`, `strict`. Default the runtime's own.
    pub cgroups_mode: String,
    /// Namespaces whose contents are left out: `network`.
    pub empty_namespaces: Vec<String>,
    /// Only write memory, and let the container run on.
    pub pre_dump: bool,
}

/// A container to make from a checkpoint. It runs at once.
#[derive(Debug)]
pub struct Restore {
    /// What is made.
    pub container: NewContainer,
    /// Which checkpoint, and what it may hold.
    pub checkpoint: Checkpoint,
}

/// An OCI runtime: makes containers and acts on them.
///
/// A container is *created* (its init waits), *started*, may be *paused*, and is *stopped* once init
/// has ended; only *delete* forgets it. Every call has a timeout of its own and may be dropped, upon
/// which what it started is killed. After a create or exec that failed nothing of it is left.
///
/// Texts: an error says what the runtime itself gave as the reason.
#[async_trait]
pub trait OciRuntime: Send + Sync + fmt::Debug {
    /// What runs: `builtin`, or the path of the binary.
    fn name(&self) -> &str;

    /// Makes a container whose init waits to be started.
    ///
    /// # Errors
    /// `InvalidArgument` for a specification that can never run; `AlreadyExists` if the id is taken;
    /// `FailedPrecondition` if the runtime lacks a feature that the specification needs;
    /// `DeadlineExceeded`; otherwise `Unknown` with the runtime's reason.
    async fn create(&self, new: NewContainer) -> Result<Made>;

    /// Lets a created container's init run.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` with the runtime's reason.
    async fn start(&self, id: &str) -> Result<()>;

    /// Runs one more process in a running container.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a process that can never run; `Unknown` with the runtime's
    /// reason.
    async fn exec(&self, new: NewProcess) -> Result<Made>;

    /// Sends `signal` to init, or with `all` to every process of the container.
    ///
    /// # Errors
    /// `NotFound` if the container does not exist or (without `all`) init has ended.
    async fn kill(&self, id: &str, signal: u32, all: bool) -> Result<()>;

    /// Removes a stopped container: its cgroups and its state; with `force` it is killed first. The
    /// bundle and the root file system stay.
    ///
    /// # Errors
    /// `NotFound` if the container does not exist; `FailedPrecondition` if it runs, without `force`.
    async fn delete(&self, id: &str, force: bool) -> Result<()>;

    /// What a container does.
    ///
    /// # Errors
    /// `NotFound`.
    async fn state(&self, id: &str) -> Result<State>;

    /// Freezes a container.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` unless it runs.
    async fn pause(&self, id: &str) -> Result<()>;

    /// Thaws a container.
    ///
    /// # Errors
    /// `NotFound`; `FailedPrecondition` unless it is paused.
    async fn resume(&self, id: &str) -> Result<()>;

    /// Every process of a container.
    ///
    /// # Errors
    /// `NotFound`.
    async fn ps(&self, id: &str) -> Result<Vec<i32>>;

    /// Changes a container's resources: `resources` is the OCI `linux.resources` object, as JSON.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` if it does not parse; `Unknown` with the runtime's reason.
    async fn update(&self, id: &str, resources: &[u8]) -> Result<()>;

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// `NotFound`; `Unimplemented` if the runtime cannot; `Unknown` with the runtime's reason.
    async fn checkpoint(&self, id: &str, checkpoint: Checkpoint) -> Result<()>;

    /// Makes a container from a checkpoint; it runs at once.
    ///
    /// # Errors
    /// `Unimplemented` if the runtime cannot; otherwise as [`create`](Self::create).
    async fn restore(&self, restore: Restore) -> Result<Made>;

    /// The OCI `features` document, as JSON; empty if the runtime has none.
    ///
    /// # Errors
    /// `Unknown` with the runtime's reason.
    async fn features(&self) -> Result<Vec<u8>>;
}

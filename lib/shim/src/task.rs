//! One task: a container's init, its execs, its cgroups and its root file system.
//!
//! What may happen in which state is decided here; `process.rs` draws the states. Source for the texts and for which
//! kind an error is: semantics, "Tasks", and the original's answers.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use gantry_api::containerd::runc::v1::{Options, ProcessDetails};
use gantry_core::events::Event;
use gantry_core::tasks::{ExecTask, ProcessInfo, TaskStatus};
use gantry_core::{Any, Error, ErrorKind, Result, ResultExt};
use gantry_mount::Busy;
use gantry_runtime::{NewContainer, NewProcess, OciRuntime};
use gantry_sys::children::{Expectation, Follow};
use prost::Message;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::bundle::{self, Notes, SpecHead};
use crate::cgroup::Cgroups;
use crate::cgroup::oom::OomWatch;
use crate::convert::ShimCreate;
use crate::execs::Execs;
use crate::process::{Ended, Process, already_finished};
use crate::publisher::Publisher;
use crate::runtime;
use crate::stdio::{Owner, Plumbing, readers};

/// How long a deleted init's output may stay open. Source: the original's 10 s.
const INIT_IO_PATIENCE: Duration = Duration::from_secs(10);

/// How long a deleted exec's output may stay open. Source: the original's 2 s.
const EXEC_IO_PATIENCE: Duration = Duration::from_secs(2);

/// How long an init's exit is held back for the exits of its execs, which die with it.
const EXECS_PATIENCE: Duration = Duration::from_secs(10);

/// SIGKILL. Source: signal(7).
pub(crate) const KILL: u32 = 9;

/// What all tasks of a shim share.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) namespace: String,
    pub(crate) events: Publisher,
    /// Jobs that wait for exits.
    pub(crate) jobs: TaskTracker,
}

/// One task.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    surroundings: Arc<Surroundings>,
    runtime: Arc<dyn OciRuntime>,
    /// Whose pipes and loggers.
    owner: Owner,
    /// Whether this shim mounted the root file system.
    mounted: bool,
    outlives_init: bool,
    init: Arc<Process>,
    execs: Execs,
    cgroups: Option<Cgroups>,
    oom: Option<OomWatch>,
    deleted: AtomicBool,
}

impl Task {
    /// Makes a task: mounts, pipes, container. What fails undoes what was done, in reverse.
    ///
    /// # Errors
    /// `InvalidArgument` for bad options; `Unknown` for what the runtime refuses.
    pub(crate) async fn create(
        surroundings: Arc<Surroundings>,
        new: ShimCreate,
        readers_until: Instant,
    ) -> Result<Arc<Task>> {
        if !new.checkpoint.is_empty() {
            return Err(Error::unimplemented("restore from a checkpoint"));
        }
        let bundle = PathBuf::from(&new.bundle);
        let options = bundle::options_from_any(new.options.as_ref())?;
        let head = SpecHead::read(&bundle)?;
        let runtime = runtime::for_new(&options, &surroundings.namespace, &bundle).await?;
        Notes::write(&bundle, &options)?;
        let readers = readers::wait(&new.io, readers_until).await;
        let mounted = !new.rootfs.is_empty();
        if mounted {
            mount(&bundle, &new).await?;
        }
        let owner = Owner {
            container_id: new.id.clone(),
            namespace: surroundings.namespace.clone(),
            uid: options.io_uid,
            gid: options.io_gid,
        };
        let made = Self::run_runtime(&runtime, &options, &new, &owner, &bundle).await;
        drop(readers);
        let (follow, process) = match made {
            Ok(made) => made,
            Err(error) => {
                if mounted {
                    let undone = unmount(bundle).await;
                    undone.unwrap_or_else(|error| tracing::warn!(%error, "undo a failed create"));
                }
                return Err(error);
            }
        };
        let cgroups =
            Cgroups::of(process.pid()).inspect_err(|error| tracing::debug!(%error, "no cgroups")).ok();
        let oom = cgroups.as_ref().and_then(|cgroups| {
            OomWatch::new(cgroups).inspect_err(|error| tracing::debug!(%error, "no OOM events")).ok()
        });
        let task = Arc::new(Task {
            id: new.id,
            bundle,
            surroundings,
            runtime,
            owner,
            mounted,
            outlives_init: head.outlives_init(),
            init: process,
            execs: Execs::default(),
            cgroups,
            oom,
            deleted: AtomicBool::new(false),
        });
        task.publish(Event::TaskCreate {
            container_id: task.id.clone(),
            bundle: new.bundle,
            rootfs: new.rootfs,
            io: Some(new.io),
            checkpoint: new.checkpoint,
            pid: task.pid(),
        });
        task.watch_init(follow);
        Ok(task)
    }

    /// Runs the runtime's create and takes hold of what it made.
    async fn run_runtime(
        runtime: &Arc<dyn OciRuntime>,
        options: &Options,
        new: &ShimCreate,
        owner: &Owner,
        bundle: &Path,
    ) -> Result<(Arc<Follow>, Arc<Process>)> {
        let process = Arc::new(Process::new("", new.io.clone()));
        let (io, plumbing) = Plumbing::open(&new.io, owner).await?;
        // From before the runtime starts, so that an init which ends at once is not missed.
        let expected = Expectation::begin();
        let container = NewContainer {
            id: new.id.clone(),
            bundle: bundle.to_owned(),
            io,
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
        };
        let made = runtime.create(container).await?;
        let held = (|| {
            let follow = Arc::new(expected.register(made.pid)?);
            Notes::write_pid(bundle, made.pid.unsigned_abs())?;
            process.attach(Arc::clone(&follow), plumbing.run(made.console)?);
            Ok(follow)
        })();
        match held {
            Ok(follow) => Ok((follow, process)),
            Err(error) => {
                let undone = runtime.delete(&new.id, true).await;
                undone.unwrap_or_else(|error| tracing::warn!(%error, "undo a failed create"));
                Err(error)
            }
        }
    }

    fn publish(&self, event: Event) {
        self.surroundings.events.publish(event);
    }

    /// The pid of init.
    pub(crate) fn pid(&self) -> u32 {
        self.init.pid()
    }

    /// The process of an exec id; init without one.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        match exec_id {
            "" => Ok(Arc::clone(&self.init)),
            _ => self.execs.process(exec_id),
        }
    }

    /// Whether no process of the task runs.
    pub(crate) fn is_over(&self) -> bool {
        self.init.status() == TaskStatus::Stopped
    }

    /// Begins a process.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` in any other state than created, or if the runtime fails.
    pub(crate) async fn start(self: &Arc<Self>, exec_id: &str, readers_until: Instant) -> Result<u32> {
        if !exec_id.is_empty() {
            return self.start_exec(exec_id, readers_until).await;
        }
        let _turn = self.init.turn.lock().await;
        match self.init.status() {
            TaskStatus::Created => {}
            TaskStatus::Stopped => return Err(Error::unknown("cannot start a stopped process")),
            TaskStatus::Paused | TaskStatus::Pausing => {
                return Err(Error::unknown("cannot start a paused process"));
            }
            _ => return Err(Error::unknown("cannot start a running process")),
        }
        self.runtime.start(&self.id).await?;
        self.init.set_status(TaskStatus::Running);
        let pid = self.pid();
        self.publish(Event::TaskStart { container_id: self.id.clone(), pid });
        Ok(pid)
    }

    async fn start_exec(self: &Arc<Self>, exec_id: &str, readers_until: Instant) -> Result<u32> {
        let process = self.process(exec_id)?;
        // Before its turn, which the end of init waits for.
        let readers = match process.status() {
            TaskStatus::Created => readers::wait(&process.io, readers_until).await,
            _ => [None, None],
        };
        let _turn = process.turn.lock().await;
        match process.status() {
            TaskStatus::Created => {}
            TaskStatus::Stopped => return Err(Error::unknown("cannot start a stopped process")),
            _ => return Err(Error::unknown("cannot start a running process")),
        }
        // It may have been deleted meanwhile.
        let spec = self.execs.spec(&process)?;
        let (io, plumbing) = Plumbing::open(&process.io, &self.owner).await?;
        let expected = Expectation::begin();
        let new =
            NewProcess { id: self.id.clone(), exec_id: exec_id.to_owned(), process: spec.value.to_vec(), io };
        let made = self.runtime.exec(new).await?;
        drop(readers);
        let follow = Arc::new(expected.register(made.pid)?);
        match plumbing.run(made.console) {
            Ok(io) => process.attach(Arc::clone(&follow), io),
            Err(error) => {
                let _ = follow.kill(KILL.cast_signed());
                return Err(error);
            }
        }
        self.execs.begun(&process);
        process.set_status(TaskStatus::Running);
        let pid = process.pid();
        self.publish(Event::TaskExecStarted {
            container_id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            pid,
        });
        self.watch_exec(Arc::clone(&process), follow);
        Ok(pid)
    }

    /// Waits for init's end, and tells it last.
    fn watch_init(self: &Arc<Self>, follow: Arc<Follow>) {
        let task = Arc::clone(self);
        self.surroundings.jobs.spawn(async move {
            let oom = async {
                if let Some(oom) = &task.oom {
                    while oom.next().await.is_some() {
                        task.publish(Event::TaskOom { container_id: task.id.clone() });
                    }
                }
                std::future::pending::<Infallible>().await
            };
            // A want of memory under way is asked for again below.
            let exit = tokio::select! {
                exit = follow.wait_async() => exit,
                never = oom => match never {},
            };
            let ended = match exit {
                Ok(exit) => Ended::from(exit),
                Err(error) => {
                    tracing::error!(%error, container_id = %task.id, "the exit of a container is lost");
                    // Source: the original reports 255 for an unknown exit.
                    Ended { status: 255, at: SystemTime::now() }
                }
            };
            // Apart, so that waiting for the end takes little memory.
            Box::pin(task.end_init(ended)).await;
        });
    }

    async fn end_init(&self, ended: Ended) {
        if self.outlives_init {
            // What shares its pid namespace with others does not die with init.
            let killed = self.runtime.kill(&self.id, KILL, true).await;
            killed.unwrap_or_else(
                |error| tracing::debug!(%error, container_id = %self.id, "kill what init left"),
            );
        }
        let all = async {
            for exec in self.execs.processes() {
                // A start under way comes to its end, or fails, first.
                drop(exec.turn.lock().await);
                if exec.status() == TaskStatus::Running {
                    exec.wait().await;
                }
            }
        };
        if tokio::time::timeout(EXECS_PATIENCE, all).await.is_err() {
            tracing::warn!(container_id = %self.id, "execs outlive their container's init");
        }
        let _turn = self.init.turn.lock().await;
        if self.oom.as_ref().is_some_and(OomWatch::check) {
            self.publish(Event::TaskOom { container_id: self.id.clone() });
        }
        self.init.end(ended);
        self.publish_exit(&self.init, ended);
    }

    fn watch_exec(self: &Arc<Self>, process: Arc<Process>, follow: Arc<Follow>) {
        let task = Arc::clone(self);
        self.surroundings.jobs.spawn(async move {
            let ended = match follow.wait_async().await {
                Ok(exit) => Ended::from(exit),
                Err(error) => {
                    tracing::error!(%error, container_id = %task.id, exec_id = %process.exec_id, "an exit is lost");
                    Ended { status: 255, at: SystemTime::now() }
                }
            };
            let _turn = process.turn.lock().await;
            process.end(ended);
            task.publish_exit(&process, ended);
        });
    }

    fn publish_exit(&self, process: &Process, ended: Ended) {
        let exit = process.exit_record(&self.id, ended);
        self.publish(Event::TaskExit {
            container_id: self.id.clone(),
            id: exit.id,
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: Some(exit.exited_at),
        });
    }

    /// Deletes a process; without exec id the whole task.
    ///
    /// # Errors
    /// `NotFound`; `Unknown` while it runs.
    pub(crate) async fn delete(&self, exec_id: &str) -> Result<(u32, Option<Ended>)> {
        let process = self.process(exec_id)?;
        if !exec_id.is_empty() {
            let _turn = process.turn.lock().await;
            refuse_unless_over(process.status())?;
            process.close_io(EXEC_IO_PATIENCE).await;
            self.execs.remove(exec_id);
            return Ok((process.pid(), process.ended()));
        }
        let mut turn = process.turn.lock().await;
        refuse_unless_over(process.status())?;
        if self.deleted.load(Ordering::Relaxed) {
            return Err(Error::not_found("container not created"));
        }
        let started = process.status() == TaskStatus::Stopped;
        match self.runtime.delete(&self.id, !started).await {
            // A delete that failed later is tried again.
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if !started {
            // The delete killed it; its end takes its turn, and is told before its deletion.
            drop(turn);
            process.wait().await;
            turn = process.turn.lock().await;
        }
        let ended = process.wait().await;
        process.close_io(INIT_IO_PATIENCE).await;
        for exec in self.execs.take() {
            exec.close_io(Duration::ZERO).await;
        }
        if self.mounted {
            unmount(self.bundle.clone()).await?;
        }
        if self.deleted.swap(true, Ordering::Relaxed) {
            return Err(Error::not_found("container not created"));
        }
        drop(turn);
        let pid = process.pid();
        self.publish(Event::TaskDelete {
            container_id: self.id.clone(),
            pid,
            exit_status: ended.status,
            exited_at: Some(ended.at),
            id: String::new(),
        });
        Ok((pid, Some(ended)))
    }

    /// Adds a process.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` if its spec is no JSON object; `Unknown` unless the task can run it;
    /// `ResourceExhausted` if there are too many.
    pub(crate) fn exec(&self, new: ExecTask) -> Result<()> {
        match self.init.status() {
            TaskStatus::Stopped => return Err(Error::unknown("cannot exec in a stopped state")),
            TaskStatus::Paused | TaskStatus::Pausing => {
                return Err(Error::unknown("cannot exec in a paused state"));
            }
            _ => {}
        }
        let exec_id = new.exec_id.to_string();
        if let Some(forgotten) = self.execs.add(new)? {
            self.surroundings.jobs.spawn(async move { forgotten.close_io(Duration::ZERO).await });
        }
        self.publish(Event::TaskExecAdded { container_id: self.id.clone(), exec_id });
        Ok(())
    }

    /// Sends a signal to a process; with `all` to every process of the container.
    ///
    /// # Errors
    /// `NotFound` if it has ended; `FailedPrecondition` for an exec that has not begun.
    pub(crate) async fn kill(&self, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        if !exec_id.is_empty() {
            return self.process(exec_id)?.signal(signal);
        }
        if self.init.status() == TaskStatus::Stopped {
            return Err(already_finished());
        }
        self.runtime.kill(&self.id, signal, all).await
    }

    /// Freezes the task.
    ///
    /// # Errors
    /// `Unknown` unless it runs.
    pub(crate) async fn pause(&self) -> Result<()> {
        let _turn = self.init.turn.lock().await;
        let what = match self.init.status() {
            TaskStatus::Running => None,
            TaskStatus::Created => Some("cannot pause task in created state"),
            TaskStatus::Paused | TaskStatus::Pausing => Some("cannot pause a paused container"),
            _ => Some("cannot pause a stopped container"),
        };
        if let Some(what) = what {
            return Err(Error::unknown(what));
        }
        self.init.set_status(TaskStatus::Pausing);
        let paused = self.runtime.pause(&self.id).await;
        self.init.set_status(if paused.is_ok() { TaskStatus::Paused } else { TaskStatus::Running });
        paused?;
        self.publish(Event::TaskPaused { container_id: self.id.clone() });
        Ok(())
    }

    /// Thaws the task.
    ///
    /// # Errors
    /// `Unknown` unless it is paused.
    pub(crate) async fn resume(&self) -> Result<()> {
        let _turn = self.init.turn.lock().await;
        let what = match self.init.status() {
            TaskStatus::Paused => None,
            TaskStatus::Created => Some("cannot resume task in created state"),
            TaskStatus::Stopped => Some("cannot resume a stopped container"),
            _ => Some("cannot resume a running process"),
        };
        if let Some(what) = what {
            return Err(Error::unknown(what));
        }
        self.runtime.resume(&self.id).await?;
        self.init.set_status(TaskStatus::Running);
        self.publish(Event::TaskResumed { container_id: self.id.clone() });
        Ok(())
    }

    /// Changes the task's resources.
    ///
    /// # Errors
    /// `InvalidArgument`; `Unknown` once it has ended.
    pub(crate) async fn update(&self, resources: Any) -> Result<()> {
        let _turn = self.init.turn.lock().await;
        if self.init.status() == TaskStatus::Stopped {
            return Err(Error::unknown("cannot update a stopped container"));
        }
        self.runtime.update(&self.id, &resources.value).await
    }

    /// Writes a checkpoint into `path`.
    ///
    /// # Errors
    /// `Unknown` unless it runs; `Unimplemented` if the runtime cannot.
    pub(crate) async fn checkpoint(&self, path: String, options: Option<Any>) -> Result<()> {
        let _turn = self.init.turn.lock().await;
        match self.init.status() {
            TaskStatus::Running | TaskStatus::Paused => {}
            TaskStatus::Created => return Err(Error::unknown("cannot checkpoint a task in created state")),
            _ => return Err(Error::unknown("cannot checkpoint a stopped container")),
        }
        let wanted = runtime::checkpoint(Path::new(&path), options.as_ref())?;
        self.runtime.checkpoint(&self.id, wanted).await?;
        self.publish(Event::TaskCheckpointed { container_id: self.id.clone(), checkpoint: path });
        Ok(())
    }

    /// The task's processes, the execs among them by name.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn pids(&self) -> Result<Vec<ProcessInfo>> {
        let Some(cgroups) = self.cgroups.as_ref().filter(|_| !self.is_over()) else { return Ok(Vec::new()) };
        let info = |pid: u32| {
            let info = self.execs.id_of(pid).map(|exec_id| {
                let details = ProcessDetails { exec_id };
                // Source: `containerd.runc.v1.ProcessDetails`.
                Any::new("containerd.runc.v1.ProcessDetails", details.encode_to_vec())
            });
            ProcessInfo { pid, info }
        };
        Ok(cgroups.pids()?.into_iter().map(info).collect())
    }

    /// The task's figures.
    ///
    /// # Errors
    /// `NotFound` if it has no cgroups.
    pub(crate) fn stats(&self) -> Result<Any> {
        self.cgroups.as_ref().ok_or_else(|| Error::not_found("cgroup does not exist"))?.metrics()
    }
}

fn refuse_unless_over(status: TaskStatus) -> Result<()> {
    match status {
        TaskStatus::Running => Err(Error::unknown("cannot delete a running process")),
        TaskStatus::Paused | TaskStatus::Pausing => Err(Error::unknown("cannot delete a paused process")),
        _ => Ok(()),
    }
}

/// Mounts the root file system into the bundle.
async fn mount(bundle: &Path, new: &ShimCreate) -> Result<()> {
    let (mounts, target) = (new.rootfs.clone(), bundle::rootfs(bundle));
    let work = move || {
        std::fs::create_dir_all(&target).with_context(|| format!("make {target:?}"))?;
        gantry_mount::mount_all(&mounts, &target)
    };
    blocking(work).await.context("mount the root file system")
}

/// Unmounts what is mounted at the bundle's root file system. Doing it twice is harmless.
async fn unmount(bundle: PathBuf) -> Result<()> {
    let target = bundle::rootfs(&bundle);
    blocking(move || gantry_mount::unmount_recursive(&target, Busy::Detach))
        .await
        .context("unmount the root file system")
}

/// Runs what may wait for a disk or the kernel apart from everything else.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal(format!("a job did not finish: {error}")))?
}

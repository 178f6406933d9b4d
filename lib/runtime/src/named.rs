//! A runtime by name: any binary with runc's command line.

mod command;
mod needs;
mod probe;
mod reason;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gantry_core::{Error, ErrorKind, Result, ResultExt};
use gantry_sys::{Spawn, Stdio};
use serde::Deserialize;

use crate::console::ConsoleSocket;
use crate::select::RuntimeConfig;
use crate::spec::{self, Spec};
use crate::{
    Checkpoint, Io, Made, NewContainer, NewProcess, OciRuntime, Restore, State, Status, devices, guard,
    limits,
};
use command::Call;
use probe::Probe;
pub(crate) use probe::find;

/// The most that is read of a list of processes.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// A runtime's binary, and how to call it.
#[derive(Debug)]
pub(crate) struct NamedRuntime {
    name: String,
    path: PathBuf,
    bundle: PathBuf,
    state_dir: PathBuf,
    systemd_cgroup: bool,
    timeout: Duration,
}

impl NamedRuntime {
    /// The runtime whose binary is `name`, a file name or a path, for the container of `bundle`.
    ///
    /// # Errors
    /// `NotFound` if it is not installed.
    pub(crate) fn open(config: &RuntimeConfig, name: &str, bundle: &Path) -> Result<NamedRuntime> {
        let path = find(name)?;
        Ok(NamedRuntime {
            name: path.display().to_string(),
            path,
            bundle: bundle.to_owned(),
            state_dir: config.state_dir(),
            systemd_cgroup: config.systemd_cgroup,
            timeout: config.timeout.max(Duration::from_secs(1)),
        })
    }

    async fn probe(&self) -> Result<Arc<Probe>> {
        probe::of(&self.path, self.timeout).await
    }

    /// A call of the runtime, with its log beside the containers' state.
    fn call(&self, verb: &'static str) -> Result<Call> {
        Call::new(&self.path, &self.state_dir, self.systemd_cgroup, verb, self.timeout)
    }

    /// Fails naming what the specification needs and this binary lacks; otherwise writes a version that it accepts.
    ///
    /// # Errors
    /// `FailedPrecondition`.
    pub(crate) async fn prepare(&self, spec: &mut Spec) -> Result<()> {
        let probe = self.probe().await?;
        needs::adapt(&mut spec.root, &probe).with_context(|| format!("runtime {:?}", self.name))
    }

    /// Runs a call that makes a process, and finds out which.
    async fn make(&self, mut call: Call, io: Io, pid_file: &Path, rest: Vec<String>) -> Result<Made> {
        let socket = match &io {
            Io::Terminal => Some(ConsoleSocket::listen()?),
            Io::Streams(_) => None,
        };
        if let Some(socket) = &socket {
            call = call.arg("--console-socket").arg(socket.path());
        }
        call = call.args(rest);
        match std::fs::remove_file(pid_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(error).context(format!("remove {pid_file:?}")));
            }
            _ => {}
        }
        let console = self.run_with_io(call, io, socket.as_ref()).await?;
        let text = spec::read_bounded(pid_file)?;
        let pid =
            std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()).filter(|pid| *pid > 0);
        let pid = pid.ok_or_else(|| Error::internal(format!("{pid_file:?} holds no process id")))?;
        Ok(Made { pid, console })
    }

    async fn run_with_io(
        &self,
        call: Call,
        io: Io,
        socket: Option<&ConsoleSocket>,
    ) -> Result<Option<OwnedFd>> {
        let streams = match io {
            Io::Streams(streams) => streams,
            Io::Terminal => [Stdio::Null, Stdio::Null, Stdio::Null],
        };
        let Some(socket) = socket else {
            call.run_on(streams).await?;
            return Ok(None);
        };
        let master = socket.receive();
        let running = call.run_on(streams);
        tokio::pin!(master, running);
        // Neither may be dropped before both are done, but for a failure of the other: a runtime without its console
        // is killed by being dropped, a console without its runtime will not come.
        tokio::select! {
            done = &mut running => {
                done?;
                let wait = tokio::time::timeout(Duration::from_secs(5), master).await;
                wait.map_err(|_| Error::unknown("the runtime sent no console"))?.map(Some)
            }
            received = &mut master => {
                let received = received?;
                running.await?;
                Ok(Some(received))
            }
        }
    }

    /// A file for one call, in the directory of the namespace's containers.
    fn scratch(&self, what: &str, id: &str) -> Result<Scratch> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        make_private(&self.state_dir)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Not in the container's own directory, which its deletion removes. No id begins with a dot.
        Ok(Scratch(self.state_dir.join(format!(".{what}-{id}-{}-{number}", std::process::id()))))
    }
}

/// A file that is removed in the end.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes a directory for root's eyes only.
pub(crate) fn make_private(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("make directory {dir:?}"))
}

/// What `runc state` prints. Source: the OCI runtime specification, "State".
#[derive(Debug, Deserialize)]
struct StateAnswer {
    status: String,
    #[serde(default)]
    pid: i32,
    #[serde(default)]
    bundle: PathBuf,
}

#[async_trait]
impl OciRuntime for NamedRuntime {
    fn name(&self) -> &str {
        &self.name
    }

    async fn create(&self, new: NewContainer) -> Result<Made> {
        guard::id(&new.id)?;
        let mut spec = Spec::read(&new.bundle)?;
        guard::container(&spec, &new.bundle)?;
        self.prepare(&mut spec).await?;
        if spec.root["linux"].is_object() {
            devices::deny_unless_allowed(&mut spec.root["linux"]);
        }
        limits::cap(&mut spec.root["process"]);
        spec.save()?;
        let pid_file = new.bundle.join("init.pid");
        let mut call = self.call("create")?.arg("--bundle").arg(&new.bundle).arg("--pid-file").arg(&pid_file);
        if new.no_pivot_root {
            call = call.arg("--no-pivot");
        }
        if new.no_new_keyring {
            call = call.arg("--no-new-keyring");
        }
        let made = self.make(call, new.io, &pid_file, vec![new.id.clone()]).await;
        if made.as_ref().is_err_and(|error| error.kind() == ErrorKind::DeadlineExceeded) {
            // It was killed at work, and could not clean up behind itself.
            let undone = self.delete(&new.id, true).await;
            undone.unwrap_or_else(|error| tracing::warn!(%error, container_id = new.id, "undo a create"));
        }
        made
    }

    async fn start(&self, id: &str) -> Result<()> {
        guard::id(id)?;
        self.call("start")?.arg(id).run().await
    }

    async fn exec(&self, new: NewProcess) -> Result<Made> {
        guard::id(&new.id)?;
        let mut process = spec::parse(&new.process).context("process")?;
        guard::exec(&process, &self.bundle)?;
        limits::cap(&mut process);
        let file = self.scratch("process", &new.id)?;
        spec::write_new(&file.0, process.to_string().as_bytes())?;
        let pid_file = self.scratch("pid", &new.id)?;
        let call = self
            .call("exec")?
            .arg("--process")
            .arg(&file.0)
            .arg("--detach")
            .arg("--pid-file")
            .arg(&pid_file.0);
        self.make(call, new.io, &pid_file.0, vec![new.id]).await
    }

    async fn kill(&self, id: &str, signal: u32, all: bool) -> Result<()> {
        guard::id(id)?;
        if !(1..=64).contains(&signal) {
            return Err(Error::invalid_argument(format!("signal {signal}")));
        }
        let mut call = self.call("kill")?;
        if all {
            call = call.arg("--all");
        }
        call.arg(id).arg(signal.to_string()).run().await
    }

    async fn delete(&self, id: &str, force: bool) -> Result<()> {
        guard::id(id)?;
        let mut call = self.call("delete")?;
        if force {
            call = call.arg("--force");
        }
        call.arg(id).run().await
    }

    async fn state(&self, id: &str) -> Result<State> {
        guard::id(id)?;
        let text = self.call("state")?.arg(id).output(MAX_ANSWER_BYTES).await?;
        let answer: StateAnswer = serde_json::from_slice(&text)
            .map_err(|error| Error::unknown(format!("what {:?} says of a container: {error}", self.name)))?;
        let status = match answer.status.as_str() {
            "creating" => Status::Creating,
            "created" => Status::Created,
            "running" => Status::Running,
            "paused" | "pausing" => Status::Paused,
            "stopped" => Status::Stopped,
            other => return Err(Error::unknown(format!("container status {other:?}"))),
        };
        let pid = if status == Status::Stopped { 0 } else { answer.pid };
        Ok(State { status, pid, bundle: answer.bundle })
    }

    async fn pause(&self, id: &str) -> Result<()> {
        guard::id(id)?;
        self.call("pause")?.arg(id).run().await
    }

    async fn resume(&self, id: &str) -> Result<()> {
        guard::id(id)?;
        self.call("resume")?.arg(id).run().await
    }

    async fn ps(&self, id: &str) -> Result<Vec<i32>> {
        guard::id(id)?;
        let text = self.call("ps")?.arg("--format").arg("json").arg(id).output(MAX_ANSWER_BYTES).await?;
        let pids: Option<Vec<i32>> = serde_json::from_slice(&text)
            .map_err(|error| Error::unknown(format!("the processes that {:?} names: {error}", self.name)))?;
        Ok(pids.unwrap_or_default())
    }

    async fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        guard::id(id)?;
        let resources = spec::parse(resources).context("resources")?;
        let file = self.scratch("resources", id)?;
        spec::write_new(&file.0, resources.to_string().as_bytes())?;
        self.call("update")?.arg("--resources").arg(&file.0).arg(id).run().await
    }

    async fn checkpoint(&self, id: &str, checkpoint: Checkpoint) -> Result<()> {
        guard::id(id)?;
        let mut call = self.call("checkpoint")?;
        for flag in checkpoint_flags(&checkpoint) {
            call = call.arg(flag);
        }
        if checkpoint.leave_running {
            call = call.arg("--leave-running");
        }
        if checkpoint.pre_dump {
            call = call.arg("--pre-dump");
        }
        if let Some(parent) = &checkpoint.parent_path {
            call = call.arg("--parent-path").arg(parent);
        }
        call.arg(id).run().await
    }

    async fn restore(&self, restore: Restore) -> Result<Made> {
        let Restore { container: new, checkpoint } = restore;
        guard::id(&new.id)?;
        let mut spec = Spec::read(&new.bundle)?;
        guard::container(&spec, &new.bundle)?;
        self.prepare(&mut spec).await?;
        spec.save()?;
        let pid_file = new.bundle.join("init.pid");
        let mut call = self
            .call("restore")?
            .arg("--detach")
            .arg("--bundle")
            .arg(&new.bundle)
            .arg("--pid-file")
            .arg(&pid_file);
        for flag in checkpoint_flags(&checkpoint) {
            call = call.arg(flag);
        }
        if new.no_pivot_root {
            call = call.arg("--no-pivot");
        }
        self.make(call, new.io, &pid_file, vec![new.id]).await
    }

    async fn features(&self) -> Result<Vec<u8>> {
        Ok(self.probe().await?.document.clone())
    }
}

/// The flags that checkpoint and restore share. Source: `runc checkpoint --help`.
fn checkpoint_flags(checkpoint: &Checkpoint) -> Vec<std::ffi::OsString> {
    let mut flags: Vec<std::ffi::OsString> = vec!["--image-path".into(), (&checkpoint.image_path).into()];
    if let Some(work) = &checkpoint.work_path {
        flags.extend(["--work-path".into(), work.into()]);
    }
    let switches = [
        (checkpoint.allow_open_tcp, "--tcp-established"),
        (checkpoint.allow_external_unix_sockets, "--ext-unix-sk"),
        (checkpoint.allow_terminal, "--shell-job"),
        (checkpoint.file_locks, "--file-locks"),
    ];
    flags.extend(switches.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag.into()));
    if !checkpoint.cgroups_mode.is_empty() {
        flags.extend(["--manage-cgroups-mode".into(), checkpoint.cgroups_mode.clone().into()]);
    }
    for namespace in &checkpoint.empty_namespaces {
        flags.extend(["--empty-ns".into(), namespace.clone().into()]);
    }
    flags
}

/// A spawn with the environment that runtimes need, but for what belongs to the caller alone.
fn spawn(path: &Path) -> Spawn {
    // systemd's are for this process: a runtime would pass them on to the container.
    let ours = |name: &std::ffi::OsStr| {
        ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"].iter().any(|own| name == *own)
    };
    Spawn::new(path).envs(std::env::vars_os().filter(|(name, _)| !ours(name)))
}

//! The built-in runtime, as seen by its caller.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use gantry_core::{Error, ErrorKind, Result, ResultExt};
use gantry_sys::Stdio;
use gantry_sys::pty::{Size, set_size};
use serde_json::Value;

use super::caller::{Helper, Place};
use super::cgroup;
use super::helper::{Create, Exec, Hooks, Request};
use super::record::{self, Record};
use super::{normalise, supported, update, users};
use crate::console::ConsoleSocket;
use crate::select::{BUILTIN, RuntimeConfig};
use crate::spec::{self, Spec, text};
use crate::{
    Checkpoint, Io, Made, NewContainer, NewProcess, OciRuntime, Restore, State, Status, guard, limits, named,
};

/// Source: `libcontainer` 0.7, where an init waits to be started.
const NOTIFY: &str = "notify.sock";

/// Makes containers with `libcontainer`.
#[derive(Debug)]
pub(crate) struct BuiltinRuntime {
    state_dir: PathBuf,
    systemd_cgroup: bool,
    timeout: Duration,
    helper: Option<PathBuf>,
}

impl BuiltinRuntime {
    pub(crate) fn new(config: &RuntimeConfig) -> Self {
        BuiltinRuntime {
            state_dir: config.state_dir(),
            systemd_cgroup: config.systemd_cgroup,
            timeout: config.timeout.max(Duration::from_secs(1)),
            helper: config.helper.clone(),
        }
    }

    fn dir(&self, id: &str) -> Result<PathBuf> {
        guard::id(id)?;
        Ok(self.state_dir.join(id))
    }

    fn record(&self, id: &str) -> Result<(PathBuf, Record)> {
        let dir = self.dir(id)?;
        let record = Record::read(&dir).map_err(|error| match error.kind() {
            // Source: runc's text.
            ErrorKind::NotFound => Error::not_found("container does not exist"),
            _ => error,
        })?;
        Ok((dir, record))
    }

    async fn make(
        &self,
        new: &NewContainer,
        cwd: &str,
        streams: [Stdio; 3],
        console: Option<&ConsoleSocket>,
    ) -> Result<i32> {
        let request = Request::Create(Create {
            id: new.id.clone(),
            bundle: new.bundle.clone(),
            cwd: cwd.to_owned(),
            state_dir: self.state_dir.clone(),
            console_socket: console.map(|socket| socket.path().to_owned()),
            systemd_cgroup: self.systemd_cgroup,
            no_pivot_root: new.no_pivot_root,
            no_new_keyring: new.no_new_keyring,
        });
        let helper = Helper::start(self.helper.as_deref(), &request, streams, Place::Here).await?;
        helper.finish(self.timeout).await
    }

    /// Removes what a failed create left.
    async fn undo(&self, id: &str, cgroups_path: &str) {
        let undo = async {
            let groups = cgroup::at(cgroups_path);
            cgroup::kill_until_empty(&groups).await?;
            cgroup::remove(&groups).await?;
            remove_dir(&self.dir(id)?)
        };
        undo.await.unwrap_or_else(|error| tracing::warn!(%error, container_id = id, "undo a failed create"));
    }

    async fn run_hooks(&self, dir: &Path, which: &str) -> Result<()> {
        let request = Request::Hooks(Hooks { dir: dir.to_owned(), which: which.to_owned() });
        let streams = [Stdio::Null, Stdio::Null, Stdio::Null];
        let helper = Helper::start(self.helper.as_deref(), &request, streams, Place::Here).await?;
        helper.finish(self.timeout).await.map(drop)
    }
}

fn remove_dir(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(error).context(format!("remove {dir:?}")))
        }
        _ => Ok(()),
    }
}

fn lacks(feature: &str) -> Error {
    Error::failed_precondition(format!("the built-in runtime does not support {feature}"))
}

fn status(dir: &Path, record: &Record) -> Status {
    if record.init().is_none() {
        Status::Stopped
    } else if !record::is_started(dir) {
        Status::Created
    } else if cgroup::is_frozen(&record.groups) {
        Status::Paused
    } else {
        Status::Running
    }
}

/// Source: the OCI runtime specification, `process.consoleSize`.
fn resize(process: &Value, console: Option<&std::os::fd::OwnedFd>) {
    let number =
        |at: &str| process.pointer(at).and_then(Value::as_u64).and_then(|number| u16::try_from(number).ok());
    if let (Some(console), Some(width), Some(height)) =
        (console, number("/consoleSize/width"), number("/consoleSize/height"))
    {
        // A terminal takes any size.
        let _ = set_size(console, Size { width, height });
    }
}

/// Gives a terminal to the container's user, who may want to open `/dev/stdout`: `libcontainer` leaves it to its root.
fn own_terminal(spec: &Value, console: &std::os::fd::OwnedFd) {
    let uid =
        spec.pointer("/process/user/uid").and_then(Value::as_u64).and_then(|uid| u32::try_from(uid).ok());
    // Its streams work without.
    if let Some(owner) = users::host_uid(spec, uid.unwrap_or(0))
        && let Ok(slave) = gantry_sys::pty::slave(console)
    {
        let _ = rustix::fs::fchown(slave, Some(rustix::fs::Uid::from_raw(owner)), None);
    }
}

fn agrees(process: &Value, io: &Io) -> Result<()> {
    let terminal = process.get("terminal") == Some(&Value::Bool(true));
    if terminal == matches!(io, Io::Terminal) {
        Ok(())
    } else {
        Err(Error::invalid_argument("process.terminal does not agree with the streams"))
    }
}

#[async_trait]
impl OciRuntime for BuiltinRuntime {
    fn name(&self) -> &str {
        BUILTIN
    }

    async fn create(&self, mut new: NewContainer) -> Result<Made> {
        let dir = self.dir(&new.id)?;
        let mut spec = Spec::read(&new.bundle)?;
        guard::container(&spec, &new.bundle)?;
        agrees(&spec.root["process"], &new.io)?;
        supported::supports(&spec.root, self.systemd_cgroup).map_err(|feature| lacks(&feature))?;
        if dir.exists() {
            return Err(Error::already_exists(format!("container {:?}", new.id)));
        }
        normalise::container(&mut spec.root, &new.id);
        // Whoever is there would be taken for the container's, and be killed with it.
        let cgroups_path = text(&spec.root, "/linux/cgroupsPath").unwrap_or_default();
        if cgroup::is_populated(&cgroup::at(cgroups_path))? {
            return Err(Error::failed_precondition(format!("cgroup {cgroups_path:?} is in use")));
        }
        limits::cap(&mut spec.root["process"]);
        spec.save()?;
        named::make_private(&self.state_dir)?;
        let io = std::mem::replace(&mut new.io, Io::Terminal);
        let cwd = text(&spec.root, "/process/cwd").unwrap_or_default();
        let made = match io {
            Io::Streams(streams) => {
                self.make(&new, cwd, streams, None).await.map(|pid| Made { pid, console: None })
            }
            Io::Terminal => {
                let socket = ConsoleSocket::listen()?;
                let streams = [Stdio::Null, Stdio::Null, Stdio::Null];
                let made = self.make(&new, cwd, streams, Some(&socket)).await;
                match made {
                    Err(error) => Err(error),
                    // It was sent before init was ready.
                    Ok(pid) => match tokio::time::timeout(self.timeout, socket.receive()).await {
                        Ok(Ok(console)) => Ok(Made { pid, console: Some(console) }),
                        Ok(Err(error)) => Err(error),
                        Err(_) => Err(Error::deadline_exceeded("the built-in runtime sent no console")),
                    },
                }
            }
        };
        match made {
            Ok(made) => {
                if let Some(console) = &made.console {
                    own_terminal(&spec.root, console);
                    resize(&spec.root["process"], Some(console));
                }
                Ok(made)
            }
            Err(error) => {
                if error.kind() != ErrorKind::AlreadyExists {
                    self.undo(&new.id, text(&spec.root, "/linux/cgroupsPath").unwrap_or_default()).await;
                }
                Err(error.context("OCI runtime create failed"))
            }
        }
    }

    async fn start(&self, id: &str) -> Result<()> {
        let (dir, record) = self.record(id)?;
        let failed = |what: &'static str| Error::unknown(what).context("OCI runtime start failed");
        match status(&dir, &record) {
            Status::Created => {}
            // Source: runc's texts.
            Status::Stopped => return Err(failed("cannot start a container that has stopped")),
            _ => return Err(failed("cannot start an already running container")),
        }
        let mut stream =
            gantry_sys::socket::connect(&dir.join(NOTIFY)).context("OCI runtime start failed")?;
        record::set_started(&dir)?;
        // Source: `libcontainer` 0.7; it waits for the end of the stream, and the text does not matter.
        stream.write_all(b"start container").context("OCI runtime start failed")?;
        drop(stream);
        if record.poststart
            && let Err(error) = self.run_hooks(&dir, "poststart").await
        {
            // Source: the OCI runtime specification, "Lifecycle": a warning, and life goes on.
            tracing::warn!(%error, container_id = id, "poststart hooks");
        }
        Ok(())
    }

    async fn exec(&self, new: NewProcess) -> Result<Made> {
        let (dir, record) = self.record(&new.id)?;
        let mut process = spec::parse(&new.process).context("process")?;
        guard::exec(&process, &record.bundle)?;
        agrees(&process, &new.io)?;
        supported::process_is_supported(&process).map_err(|feature| lacks(&feature))?;
        normalise::process(&mut process);
        limits::cap(&mut process);
        let step = "OCI runtime exec failed: exec failed: unable to start container process";
        let init = record
            .init()
            .ok_or_else(|| Error::unknown("cannot exec in a stopped container").context(step))?;
        if status(&dir, &record) == Status::Paused {
            return Err(Error::unknown("cannot exec in a paused container").context(step));
        }
        let spec = Spec::read(&record.bundle)?;
        let seccomp = spec.root.pointer("/linux/seccomp").filter(|value| !value.is_null()).cloned();
        let terminal = matches!(new.io, Io::Terminal);
        let streams = match new.io {
            Io::Streams(streams) => streams,
            Io::Terminal => [Stdio::Null, Stdio::Null, Stdio::Null],
        };
        let uid = process.pointer("/user/uid").and_then(Value::as_u64).unwrap_or(0);
        let request = Request::Exec(Exec {
            id: new.id,
            process: process.clone(),
            seccomp,
            user_namespace: users::has_namespace(&spec.root),
            owner: u32::try_from(uid).ok().and_then(|uid| users::host_uid(&spec.root, uid)),
            terminal,
            no_new_keyring: false,
        });
        let groups = cgroup::to_join(&record.groups, record.pid);
        let mut helper =
            Helper::start(self.helper.as_deref(), &request, streams, Place::Inside(init, groups))
                .await
                .context(step)?;
        let pid = helper.pid();
        helper.becomes(self.timeout).await.context(step)?;
        let console = helper.take_console();
        if terminal && console.is_none() {
            return Err(Error::internal("an exec sent no terminal"));
        }
        if let Some(console) = &console {
            gantry_sys::pty::clear_onlcr(console).context("set up the terminal")?;
        }
        resize(&process, console.as_ref());
        Ok(Made { pid, console })
    }

    async fn kill(&self, id: &str, signal: u32, all: bool) -> Result<()> {
        let number = i32::try_from(signal).ok().filter(|signal| (1..=64).contains(signal));
        let signal = number.ok_or_else(|| Error::invalid_argument(format!("signal {signal}")))?;
        let (_, record) = self.record(id)?;
        if all {
            return cgroup::signal_all(&record.groups, signal).await;
        }
        // Source: containerd's text.
        let finished = || Error::not_found("process already finished");
        record.init().ok_or_else(finished)?.kill(signal).map_err(|error| match error.kind() {
            ErrorKind::NotFound => finished(),
            _ => error,
        })?;
        // On version 1 the frozen do not even die.
        if signal == 9 && cgroup::is_frozen(&record.groups) {
            cgroup::thaw(&record.groups)?;
        }
        Ok(())
    }

    async fn delete(&self, id: &str, force: bool) -> Result<()> {
        let (dir, record) = match self.record(id) {
            Ok(found) => found,
            // One that died while it was made.
            Err(error) if error.kind() == ErrorKind::NotFound && force && self.dir(id)?.exists() => {
                return remove_dir(&self.dir(id)?);
            }
            Err(error) => return Err(error),
        };
        let step = "OCI runtime delete failed";
        match status(&dir, &record) {
            Status::Stopped | Status::Created => {}
            status if !force => {
                let text = format!("cannot delete container {id} that is not stopped: {status}");
                return Err(Error::failed_precondition(text).context(step));
            }
            _ => {}
        }
        cgroup::kill_until_empty(&record.groups).await.context(step)?;
        if let Some(init) = record.init() {
            // It had no cgroup of its own to be found in.
            init.kill(9)?;
            let ended = tokio::time::timeout(self.timeout, init.ended()).await;
            ended.unwrap_or_else(|_| Err(Error::deadline_exceeded("init does not die"))).context(step)?;
        }
        cgroup::remove(&record.groups).await.context(step)?;
        if record.poststop
            && let Err(error) = self.run_hooks(&dir, "poststop").await
        {
            // Source: the OCI runtime specification, "Lifecycle".
            tracing::warn!(%error, container_id = id, "poststop hooks");
        }
        remove_dir(&dir)
    }

    async fn state(&self, id: &str) -> Result<State> {
        let (dir, record) = self.record(id)?;
        let status = status(&dir, &record);
        let pid = if status == Status::Stopped { 0 } else { record.pid };
        Ok(State { status, pid, bundle: record.bundle })
    }

    async fn pause(&self, id: &str) -> Result<()> {
        let (dir, record) = self.record(id)?;
        match status(&dir, &record) {
            Status::Running | Status::Created => cgroup::freeze(&record.groups).await,
            status => Err(Error::failed_precondition(format!("container is {status}, not running"))),
        }
        .context("OCI runtime pause failed")
    }

    async fn resume(&self, id: &str) -> Result<()> {
        let (_, record) = self.record(id)?;
        if cgroup::is_frozen(&record.groups) {
            cgroup::thaw(&record.groups)
        } else {
            Err(Error::failed_precondition("container is not paused"))
        }
        .context("OCI runtime resume failed")
    }

    async fn ps(&self, id: &str) -> Result<Vec<i32>> {
        let (_, record) = self.record(id)?;
        cgroup::pids(&record.groups)
    }

    async fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let (_, record) = self.record(id)?;
        let resources = spec::parse(resources).context("resources")?;
        update::apply(&record.groups, &resources).context("OCI runtime update failed")
    }

    async fn checkpoint(&self, _: &str, _: Checkpoint) -> Result<()> {
        Err(Error::unimplemented("checkpoint with the built-in runtime; name an installed runc"))
    }

    async fn restore(&self, _: Restore) -> Result<Made> {
        Err(Error::unimplemented("restore with the built-in runtime; name an installed runc"))
    }

    async fn features(&self) -> Result<Vec<u8>> {
        let features = serde_json::json!({
            "ociVersionMin": "1.0.0",
            "ociVersionMax": "1.3.0",
            "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
            "linux": {
                "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
                "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": false},
                "seccomp": {"enabled": true},
                "apparmor": {"enabled": true},
                "selinux": {"enabled": false},
                "mountExtensions": {"idmap": {"enabled": false}},
            },
        });
        Ok(features.to_string().into_bytes())
    }
}

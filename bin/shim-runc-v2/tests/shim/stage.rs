//! Bundles, a daemon that only listens to events, and the shim program.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_api::containerd::runtime::bootstrap::v1::BootstrapParams;
use gantry_api::containerd::services::events::ttrpc::v1::ForwardRequest;
use gantry_core::events::Event;
use gantry_core::mount::Mount;
use gantry_core::tasks::{ExecTask, TaskIo};
use gantry_core::{Any, ExecId, Result};
use gantry_shim::bootstrap::Answer;
use gantry_shim::client::{TaskClient, TaskVersion};
use gantry_shim::convert::{self, ShimCreate};
use gantry_testkit::{eventually, find_in_path};
use gantry_ttrpc::{CallContext, Server, ServerConfig, Service};
use prost::Message;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "test";

/// What a daemon heard.
#[derive(Default)]
pub(crate) struct Ears {
    events: Mutex<Vec<Event>>,
    more: Notify,
}

#[async_trait]
impl Service for Ears {
    async fn call(&self, _method: &str, payload: Bytes, _cx: CallContext) -> Result<Bytes> {
        let request: ForwardRequest = gantry_ttrpc::service::decode(payload)?;
        let envelope = convert::envelope_from_proto(request.envelope.unwrap())?;
        assert_eq!(envelope.namespace, NAMESPACE);
        let event = envelope.payload.event().unwrap().clone();
        assert_eq!(envelope.topic, event.topic());
        self.events.lock().unwrap().push(event);
        self.more.notify_waiters();
        Ok(Bytes::new())
    }
}

impl Ears {
    /// The topics heard about a container, in order.
    pub(crate) fn topics(&self, id: &str) -> Vec<&'static str> {
        let events = self.events.lock().unwrap();
        events.iter().filter(|event| event.container_id() == Some(id)).map(Event::topic).collect()
    }

    /// Waits for an event and gives it.
    pub(crate) async fn wait_for(&self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        let found = async {
            loop {
                let more = self.more.notified();
                if let Some(event) = self.events.lock().unwrap().iter().find(|event| wanted(event)) {
                    return event.clone();
                }
                more.await;
            }
        };
        let found = tokio::time::timeout(gantry_testkit::limit(), found).await;
        found.unwrap_or_else(|_| panic!("no {what} in {:?}", self.events.lock().unwrap()))
    }

    /// Whose exit was told last.
    pub(crate) fn last_exit(&self, container: &str) -> String {
        let events = self.events.lock().unwrap();
        let last = events.iter().rev().find_map(|event| match event {
            Event::TaskExit { container_id, id, .. } if container_id == container => Some(id.clone()),
            _ => None,
        });
        last.expect("an exit was told")
    }

    pub(crate) async fn exit(&self, id: &str) -> u32 {
        let exit =
            self.wait_for("exit", |event| matches!(event, Event::TaskExit { id: of, .. } if of == id)).await;
        let Event::TaskExit { exit_status, .. } = exit else { unreachable!() };
        exit_status
    }
}

/// A directory with everything, and the daemon's listening socket.
pub(crate) struct Stage {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) ears: Arc<Ears>,
    listening: Option<(CancellationToken, JoinSet<Result<()>>)>,
}

impl Stage {
    pub(crate) fn new() -> Stage {
        let mut stage = Stage { dir: tempfile::tempdir().unwrap(), ears: Arc::default(), listening: None };
        let rootfs = stage.dir.path().join("image");
        for dir in ["bin", "dev", "proc", "tmp"] {
            fs::create_dir_all(rootfs.join(dir)).unwrap();
        }
        fs::copy(find_in_path("busybox").expect("busybox is installed"), rootfs.join("bin/busybox")).unwrap();
        for applet in ["sh", "sleep", "echo", "cat", "true", "stty", "dd"] {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        stage.listen();
        stage
    }

    fn address(&self) -> PathBuf {
        self.dir.path().join("d.sock")
    }

    fn ttrpc_address(&self) -> PathBuf {
        self.dir.path().join("d.sock.ttrpc")
    }

    /// Begins to listen to events.
    pub(crate) fn listen(&mut self) {
        let listener = gantry_ttrpc::socket::bind(&self.ttrpc_address()).unwrap();
        let config = ServerConfig { grace: Duration::from_millis(10), ..ServerConfig::default() };
        let server =
            Server::new(config).with("containerd.services.events.ttrpc.v1.Events", self.ears.clone());
        let stop = CancellationToken::new();
        let mut job = JoinSet::new();
        let stopped = stop.clone();
        job.spawn(async move { server.run(listener, stopped.cancelled_owned()).await });
        self.listening = Some((stop, job));
    }

    /// The daemon goes away.
    pub(crate) async fn hush(&mut self) {
        let (stop, mut job) = self.listening.take().unwrap();
        stop.cancel();
        job.join_next().await.unwrap().unwrap().unwrap();
        fs::remove_file(self.ttrpc_address()).unwrap();
    }

    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        self.dir.path().join("bundles").join(id)
    }

    /// Writes a bundle whose init is a shell that runs `script`.
    pub(crate) fn make_bundle(
        &self,
        id: &str,
        script: &str,
        change: impl FnOnce(&mut serde_json::Value),
    ) -> PathBuf {
        let bundle = self.bundle(id);
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        let mut spec = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/bin"],
                "cwd": "/",
                "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
            },
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "cgroupsPath": format!("/shim-test/{id}"),
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            },
        });
        change(&mut spec);
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        bundle
    }

    /// Runs the shim program in a bundle.
    pub(crate) fn run(&self, id: &str, args: &[&str], input: &[u8]) -> (bool, Vec<u8>, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_containerd-shim-runc-v2"))
            .args(["-namespace", NAMESPACE, "-id", id, "-address"])
            .arg(self.address())
            .args(args)
            .env("TTRPC_ADDRESS", self.ttrpc_address())
            .current_dir(self.bundle(id))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.success(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Starts a shim by the new protocol and gives its address.
    pub(crate) fn start_shim(&self, id: &str) -> Answer {
        let params = BootstrapParams {
            instance_id: id.into(),
            namespace: NAMESPACE.into(),
            containerd_ttrpc_address: self.ttrpc_address().display().to_string(),
            containerd_grpc_address: self.address().display().to_string(),
            ..BootstrapParams::default()
        };
        let (success, answer, said) = self.run(id, &["start"], &params.encode_to_vec());
        assert!(success, "{said}");
        Answer::parse(&answer).unwrap()
    }

    pub(crate) async fn client(&self, answer: &Answer) -> TaskClient {
        let version = TaskVersion::from_bootstrap(answer.version).unwrap();
        let path = gantry_ttrpc::socket::path_of(&answer.address);
        TaskClient::connect(path, version, NAMESPACE, Some(gantry_testkit::limit())).await.unwrap()
    }

    /// A shim and its client for a bundle that is there.
    pub(crate) async fn shim(&self, id: &str) -> TaskClient {
        self.client(&self.start_shim(id)).await
    }

    /// What makes the task of a bundle: the image is bound to its root.
    pub(crate) fn new_task(&self, id: &str, io: TaskIo) -> ShimCreate {
        ShimCreate {
            id: id.into(),
            bundle: self.bundle(id).display().to_string(),
            rootfs: vec![Mount {
                kind: "bind".into(),
                source: self.dir.path().join("image").display().to_string(),
                target: String::new(),
                options: vec!["rbind".into(), "rw".into()],
            }],
            io,
            ..ShimCreate::default()
        }
    }

    pub(crate) fn fifo(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        gantry_sys::fifo::make(&path, 0o600).unwrap();
        path.display().to_string()
    }

    /// Reads a fifo to its end, beside everything else.
    pub(crate) fn read(&self, fifo: &str) -> tokio::task::JoinHandle<String> {
        let fifo = fifo.to_owned();
        tokio::task::spawn_blocking(move || fs::read_to_string(fifo).unwrap())
    }

    /// Whether anything is mounted below the bundles.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let bundles = self.dir.path().join("bundles").display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().filter(|line| line.contains(&bundles)).map(str::to_owned).collect()
    }
}

/// An exec of a shell that runs `script`.
pub(crate) fn exec(id: &str, exec_id: &str, script: &str, io: TaskIo) -> ExecTask {
    let process = serde_json::json!({
        "terminal": io.terminal,
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
    });
    ExecTask {
        container_id: id.into(),
        exec_id: ExecId::parse(exec_id).unwrap(),
        io,
        spec: Any::new(gantry_core::wire_names::TYPE_PROCESS, process.to_string()),
    }
}

/// Whether a process exists and is no zombie.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Waits until a process has ended.
pub(crate) fn gone(pid: u32) {
    eventually(&format!("process {pid} to end"), || (!runs(pid)).then_some(()));
}

/// Ends a task and its shim, whatever the task does.
pub(crate) async fn clear(client: &TaskClient, id: &str) {
    let _ = client.kill(id, "", 9, true).await;
    client.wait(id, "").await.unwrap();
    client.delete(id, "").await.unwrap();
    let _ = client.shutdown(id, false).await;
    client.connection().closed().await;
}

/// The path of a socket.
pub(crate) fn socket(answer: &Answer) -> &Path {
    gantry_ttrpc::socket::path_of(&answer.address)
}

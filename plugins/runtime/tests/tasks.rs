//! Whole lives of tasks, with the machine's Go shim of the old protocol and with ours.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test serves events beside itself")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gantry_core::events::{Envelope, Event, EventPublisher};
use gantry_core::tasks::{ExecTask, RuntimeCreate, TaskIo, TaskRuntime, TaskStatus};
use gantry_core::{Any, Context, ErrorKind, ExecId, Namespace, Result, wire_names};
use gantry_shim::client::{TaskClient, TaskVersion};
use gantry_task_runtime::{EVENTS_SERVICE, ShimTasks, ShimTasksConfig};
use gantry_testkit::{eventually, find_in_path, limit, root};

/// Remembers the events of tasks.
#[derive(Default)]
struct Recorder(Mutex<Vec<Event>>);

#[async_trait]
impl EventPublisher for Recorder {
    async fn publish(&self, _: &Context, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    async fn forward(&self, envelope: Envelope) -> Result<()> {
        self.0.lock().unwrap().extend(envelope.payload.event().cloned());
        Ok(())
    }
}

impl Recorder {
    fn count(&self, id: &str, topic: &str) -> usize {
        let events = self.0.lock().unwrap();
        let of_init = |event: &&Event| match event {
            Event::TaskExit { container_id, id, .. } | Event::TaskDelete { container_id, id, .. } => {
                id.is_empty() || id == container_id
            }
            _ => true,
        };
        let events = events.iter().filter(|event| event.container_id() == Some(id) && event.topic() == topic);
        events.filter(of_init).count()
    }

    async fn wait(&self, id: &str, topic: &str) {
        let seen = async {
            while self.count(id, topic) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let seen = tokio::time::timeout(limit(), seen).await;
        assert!(seen.is_ok(), "{topic} of {id} never came: {:?}", self.0.lock().unwrap());
    }
}

/// A daemon's worth of this crate, and the machine around it.
struct Host {
    dir: tempfile::TempDir,
    events: Arc<Recorder>,
    shim: PathBuf,
}

struct Running {
    tasks: ShimTasks,
    stop: tokio_util::sync::CancellationToken,
    server: tokio::task::JoinHandle<Result<()>>,
}

impl Host {
    fn new(shim: PathBuf) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("rootfs/bin");
        for name in ["bin", "proc", "dev", "tmp"] {
            std::fs::create_dir_all(dir.path().join("rootfs").join(name)).unwrap();
        }
        std::fs::copy(find_in_path("busybox").unwrap(), bin.join("busybox")).unwrap();
        for applet in ["sh", "sleep", "true"] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        Host { dir, events: Arc::default(), shim }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self) -> Running {
        let address = self.path("c.sock");
        let ttrpc = self.path("c.sock.ttrpc");
        let _ = std::fs::remove_file(&ttrpc);
        let config = ShimTasksConfig {
            root: self.path("root"),
            state: self.path("state"),
            address: address.display().to_string(),
            ttrpc_address: ttrpc.display().to_string(),
            ..ShimTasksConfig::default()
        };
        let tasks = ShimTasks::open(config, self.events.clone()).unwrap();
        let listener = gantry_ttrpc::socket::bind(&ttrpc).unwrap();
        let server =
            gantry_ttrpc::Server::new(Default::default()).with(EVENTS_SERVICE, tasks.events_service());
        let stop = tokio_util::sync::CancellationToken::new();
        let server = tokio::spawn(server.run(listener, stop.clone().cancelled_owned()));
        Running { tasks, stop, server }
    }

    fn new_task(&self, id: &str, args: &[&str]) -> RuntimeCreate {
        let spec = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": {"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
            "root": {"path": self.path("rootfs")},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "cgroupsPath": format!("/gantry-test-{id}"),
                "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            },
        });
        self.with_spec(id, serde_json::to_vec(&spec).unwrap())
    }

    fn with_spec(&self, id: &str, spec: Vec<u8>) -> RuntimeCreate {
        RuntimeCreate {
            id: id.to_owned(),
            spec: Some(Any::new(wire_names::TYPE_SPEC, spec)),
            runtime: wire_names::DEFAULT_RUNTIME.to_owned(),
            runtime_path: self.shim.display().to_string(),
            options: None,
            sandbox_id: String::new(),
            rootfs: Vec::new(),
            io: TaskIo::default(),
            checkpoint: String::new(),
        }
    }

    /// That no bundle, work directory or shim's socket is left.
    fn assert_clean(&self) {
        for base in ["state", "root"] {
            let dir = self.path(base).join("io.containerd.runtime.v2.task/test");
            let left: Vec<_> = std::fs::read_dir(dir).map(|dir| dir.flatten().collect()).unwrap_or_default();
            assert!(left.is_empty(), "{left:?}");
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "{mounts}");
        // It answers before it ends.
        eventually("the shim to end", || shims(&self.shim).is_empty().then_some(()));
        let sockets = std::fs::read_dir(wire_names::DEFAULT_SHIM_SOCKET_DIR);
        let sockets: Vec<_> = sockets.map(|dir| dir.flatten().collect()).unwrap_or_default();
        assert!(sockets.is_empty(), "{sockets:?}");
    }
}

impl Running {
    async fn stop(self) {
        self.tasks.close().await;
        self.stop.cancel();
        self.server.await.unwrap().unwrap();
    }
}

/// The processes that run the program `shim`, by pid.
fn shims(shim: &Path) -> Vec<i32> {
    let numbers = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == shim)).collect()
}

fn cx() -> Context {
    Context::new(Namespace::parse("test").unwrap())
}

fn go_shim() -> PathBuf {
    PathBuf::from("/usr/bin/containerd-shim-runc-v2")
}

/// Ours, if it was built.
fn our_shim() -> Option<PathBuf> {
    let path = gantry_testkit::bin_dir().join(wire_names::SHIM_RUNC_BINARY);
    path.is_file().then(|| path.canonicalize().unwrap())
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(limit() * 2, test).await.expect("the test ends") });
}

async fn whole_life(shim: PathBuf) {
    let host = Host::new(shim);
    let daemon = host.start();
    let tasks = &daemon.tasks;
    let pid = tasks.create(&cx(), host.new_task("web", &["sleep", "1000"])).await.unwrap();
    let again = tasks.create(&cx(), host.new_task("web", &["true"])).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert_eq!(tasks.get(&cx(), "web", "").await.unwrap().status, TaskStatus::Created);
    assert_eq!(tasks.start(&cx(), "web", "").await.unwrap(), pid);
    assert_eq!(tasks.list(&cx()).await.unwrap()[0].status, TaskStatus::Running);
    assert_eq!(tasks.delete(&cx(), "web", "").await.unwrap_err().kind(), ErrorKind::Unknown);

    let process = serde_json::json!({"args": ["sh", "-c", "exit 7"], "cwd": "/", "env": ["PATH=/bin"]});
    let exec = ExecTask {
        container_id: "web".into(),
        exec_id: ExecId::parse("more").unwrap(),
        io: TaskIo::default(),
        spec: Any::new(wire_names::TYPE_PROCESS, serde_json::to_vec(&process).unwrap()),
    };
    tasks.exec(&cx(), exec).await.unwrap();
    tasks.start(&cx(), "web", "more").await.unwrap();
    assert_eq!(tasks.wait(&cx(), "web", "more").await.unwrap().status, 7);
    assert_eq!(tasks.delete(&cx(), "web", "more").await.unwrap().status, 7);

    tasks.kill(&cx(), "web", "", 9, true).await.unwrap();
    assert_eq!(tasks.wait(&cx(), "web", "").await.unwrap().status, 137);
    assert_eq!(tasks.delete(&cx(), "web", "").await.unwrap().status, 137);
    assert_eq!(tasks.get(&cx(), "web", "").await.unwrap_err().kind(), ErrorKind::NotFound);
    for topic in ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"] {
        host.events.wait("web", topic).await;
        assert_eq!(host.events.count("web", topic), 1, "{topic}");
    }
    host.assert_clean();
    daemon.stop().await;
}

async fn found_again(shim: PathBuf) {
    let host = Host::new(shim);
    let daemon = host.start();
    let pid = daemon.tasks.create(&cx(), host.new_task("stays", &["sleep", "1000"])).await.unwrap();
    daemon.tasks.start(&cx(), "stays", "").await.unwrap();
    let ends = daemon.tasks.create(&cx(), host.new_task("ends", &["sleep", "1000"])).await.unwrap();
    daemon.tasks.start(&cx(), "ends", "").await.unwrap();
    let dies = daemon.tasks.create(&cx(), host.new_task("dies", &["sleep", "1000"])).await.unwrap();
    daemon.tasks.start(&cx(), "dies", "").await.unwrap();
    let dies_shim = parent(dies);
    daemon.stop().await;
    kill(ends, 15);
    kill(ends, 9);
    kill(dies_shim, 9);
    while Path::new(&format!("/proc/{ends}/root/bin")).exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let daemon = host.start();
    let tasks = &daemon.tasks;
    // A call that comes before the recovery waits for it.
    let (found, ()) = tokio::join!(async { tasks.get(&cx(), "stays", "").await }, tasks.recover());
    let found = found.unwrap();
    assert_eq!((found.pid, found.status), (pid, TaskStatus::Running));
    let ended = tasks.get(&cx(), "ends", "").await.unwrap();
    assert_eq!((ended.status, ended.exit_status), (TaskStatus::Stopped, 137));
    host.events.wait("ends", "/tasks/exit").await;
    assert_eq!(tasks.get(&cx(), "dies", "").await.unwrap_err().kind(), ErrorKind::NotFound);
    host.events.wait("dies", "/tasks/delete").await;
    assert_eq!(tasks.delete(&cx(), "ends", "").await.unwrap().status, 137);
    tasks.kill(&cx(), "stays", "", 9, true).await.unwrap();
    assert_eq!(tasks.wait(&cx(), "stays", "").await.unwrap().status, 137);
    tasks.delete(&cx(), "stays", "").await.unwrap();
    for id in ["stays", "ends", "dies"] {
        host.events.wait(id, "/tasks/delete").await;
        assert_eq!(host.events.count(id, "/tasks/exit"), 1, "{id}");
        assert_eq!(host.events.count(id, "/tasks/delete"), 1, "{id}");
    }
    host.assert_clean();
    daemon.stop().await;
}

async fn killed_shim(shim: PathBuf) {
    let host = Host::new(shim);
    let daemon = host.start();
    let tasks = &daemon.tasks;
    let pid = tasks.create(&cx(), host.new_task("web", &["sleep", "1000"])).await.unwrap();
    tasks.start(&cx(), "web", "").await.unwrap();
    let waiting = cx();
    let (ended, ()) = tokio::join!(tasks.wait(&waiting, "web", ""), async { kill(parent(pid), 9) });
    assert_eq!(ended.unwrap().status, 137);
    host.events.wait("web", "/tasks/delete").await;
    assert_eq!(host.events.count("web", "/tasks/exit"), 1);
    assert_eq!(host.events.count("web", "/tasks/delete"), 1);
    assert_eq!(tasks.get(&cx(), "web", "").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!Path::new(&format!("/proc/{pid}/root/bin")).exists(), "the container outlived its shim");
    tasks.create(&cx(), host.new_task("web", &["true"])).await.unwrap();
    tasks.start(&cx(), "web", "").await.unwrap();
    tasks.wait(&cx(), "web", "").await.unwrap();
    tasks.delete(&cx(), "web", "").await.unwrap();
    host.assert_clean();
    daemon.stop().await;
}

async fn deleted_by_another(shim: PathBuf) {
    let host = Host::new(shim);
    let daemon = host.start();
    let tasks = &daemon.tasks;
    for asked in ["get", "list", "delete"] {
        tasks.create(&cx(), host.new_task(asked, &["true"])).await.unwrap();
        tasks.start(&cx(), asked, "").await.unwrap();
        tasks.wait(&cx(), asked, "").await.unwrap();
        let sockets = std::fs::read_dir(wire_names::DEFAULT_SHIM_SOCKET_DIR).unwrap();
        let socket = sockets.flatten().next().unwrap().path();
        // As a daemon does that is killed before it has the answer.
        let other = TaskClient::connect(&socket, TaskVersion::Two, "test", None).await.unwrap();
        other.delete(asked, "").await.unwrap();
        match asked {
            "list" => assert_eq!(tasks.list(&cx()).await.unwrap(), []),
            "get" => {
                let error = tasks.get(&cx(), asked, "").await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            }
            _ => {
                let error = tasks.delete(&cx(), asked, "").await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            }
        }
        for topic in ["/tasks/exit", "/tasks/delete"] {
            host.events.wait(asked, topic).await;
            assert_eq!(host.events.count(asked, topic), 1, "{topic}");
        }
        host.assert_clean();
    }
    daemon.stop().await;
}

async fn refused(shim: PathBuf) {
    let host = Host::new(shim);
    let daemon = host.start();
    let tasks = &daemon.tasks;
    let mut unknown = host.new_task("a", &["true"]);
    (unknown.runtime, unknown.runtime_path) = ("io.containerd.none.v9".into(), String::new());
    let missing = host.new_task("b", &["no-such-program"]);
    let broken = host.with_spec("c", b"{\"ociVersion\":".to_vec());
    for (new, part) in [
        (unknown, "runtime \"io.containerd.none.v9\" binary not installed"),
        (missing, "no-such-program"),
        (broken, ""),
    ] {
        let id = new.id.clone();
        let error = tasks.create(&cx(), new).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(tasks.get(&cx(), &id, "").await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    let hostile = host.new_task("../up", &["true"]);
    assert_eq!(tasks.create(&cx(), hostile).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    host.assert_clean();
    daemon.stop().await;
}

fn parent(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

fn kill(pid: u32, signal: i32) {
    let held = gantry_sys::pidfd::Pidfd::open(pid.cast_signed()).unwrap();
    held.kill(signal).unwrap();
}

macro_rules! with_each_shim {
    ($($story:ident: $old:ident, $ours:ident;)*) => {$(
        #[test]
        fn $old() {
            root!();
            run($story(go_shim()));
        }

        #[test]
        fn $ours() {
            root!();
            let Some(shim) = our_shim() else { gantry_testkit::skip!("our shim is not built") };
            run($story(shim));
        }
    )*};
}

with_each_shim! {
    whole_life: a_task_lives_under_the_old_shim, a_task_lives_under_our_shim;
    found_again: tasks_under_the_old_shim_are_found_again, tasks_under_our_shim_are_found_again;
    killed_shim: a_killed_old_shim_is_cleaned_up_after, a_killed_shim_of_ours_is_cleaned_up_after;
    deleted_by_another: what_an_old_shim_has_deleted_is_let_go, what_our_shim_has_deleted_is_let_go;
    refused: what_the_old_shim_refuses_leaves_nothing, what_our_shim_refuses_leaves_nothing;
}

#[test]
fn a_group_shares_one_shim_until_its_last_task() {
    root!();
    run(async {
        let host = Host::new(go_shim());
        let daemon = host.start();
        let tasks = &daemon.tasks;
        let grouped = |id: &str| {
            let mut new = host.new_task(id, &["sleep", "1000"]);
            let mut spec: serde_json::Value = serde_json::from_slice(&new.spec.unwrap().value).unwrap();
            spec["annotations"] = serde_json::json!({wire_names::ANNOTATION_SHIM_GROUP: "pod"});
            new.spec = Some(Any::new(wire_names::TYPE_SPEC, serde_json::to_vec(&spec).unwrap()));
            new
        };
        for id in ["one", "two"] {
            tasks.create(&cx(), grouped(id)).await.unwrap();
            tasks.start(&cx(), id, "").await.unwrap();
        }
        assert_eq!(shims(&host.shim).len(), 1);
        for id in ["one", "two"] {
            tasks.kill(&cx(), id, "", 9, true).await.unwrap();
            assert_eq!(tasks.wait(&cx(), id, "").await.unwrap().status, 137);
            tasks.delete(&cx(), id, "").await.unwrap();
            host.events.wait(id, "/tasks/delete").await;
            assert_eq!(host.events.count(id, "/tasks/delete"), 1);
        }
        host.assert_clean();
        daemon.stop().await;
    });
}

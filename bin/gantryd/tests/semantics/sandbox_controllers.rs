//! The controllers of sandboxes, with our own shim as the sandbox. 1.6 has none.

use std::path::Path;
use std::time::{Duration, Instant};

use gantry_api::Any;
use gantry_api::containerd::events::SandboxExit;
use gantry_api::containerd::services::containers::v1::Container;
use gantry_api::containerd::services::sandbox::v1::controller_client::ControllerClient;
use gantry_api::containerd::services::sandbox::v1::{
    ControllerCreateRequest, ControllerMetricsRequest, ControllerPlatformRequest, ControllerShutdownRequest,
    ControllerStartRequest, ControllerStartResponse, ControllerStatusRequest, ControllerStatusResponse,
    ControllerStopRequest, ControllerUpdateRequest, ControllerWaitRequest, ControllerWaitResponse,
};
use gantry_api::containerd::services::tasks::v1::{DeleteTaskRequest, WaitRequest};
use gantry_api::containerd::types::Sandbox;
use gantry_api::containerd::types::sandbox::Runtime;
use gantry_api::containerd::v1::types::Status as TaskStatus;
use gantry_core::wire_names::TYPE_SPEC;
use gantry_testkit::{eventually, limit, root};
use prost::Message as _;
use rustix::process::Signal;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::running::{run, runnable, send, task_status};
use crate::subscription::Subscription;
use crate::support::{GO_ZERO, Wire, code, in_test, refused};

const RUNTIME: &str = "io.containerd.runc.v2";
/// Passes what is told of sandboxes.
const SANDBOXES: &str = "topic~=\"^/sandboxes/\"";

fn controllers(wire: &Wire) -> ControllerClient<Channel> {
    ControllerClient::new(wire.channel.clone())
}

fn new(id: &str, runtime: &str) -> ControllerCreateRequest {
    let sandbox = Sandbox {
        sandbox_id: id.into(),
        runtime: Some(Runtime { name: runtime.into(), options: None }),
        sandboxer: "shim".into(),
        ..Default::default()
    };
    let sandboxer = "shim".to_owned();
    ControllerCreateRequest { sandbox_id: id.into(), sandbox: Some(sandbox), sandboxer, ..Default::default() }
}

async fn create(wire: &Wire, id: &str) -> Result<(), Status> {
    controllers(wire).create(in_test(new(id, RUNTIME))).await.map(drop)
}

async fn start(wire: &Wire, id: &str) -> Result<ControllerStartResponse, Status> {
    let request = ControllerStartRequest { sandbox_id: id.into(), sandboxer: "shim".into() };
    controllers(wire).start(in_test(request)).await.map(tonic::Response::into_inner)
}

async fn status(wire: &Wire, id: &str) -> Result<ControllerStatusResponse, Status> {
    let request = ControllerStatusRequest { sandbox_id: id.into(), verbose: true, sandboxer: "shim".into() };
    controllers(wire).status(in_test(request)).await.map(tonic::Response::into_inner)
}

async fn stop(wire: &Wire, id: &str) -> Result<(), Status> {
    let request = ControllerStopRequest { sandbox_id: id.into(), timeout_secs: 10, sandboxer: "shim".into() };
    controllers(wire).stop(in_test(request)).await.map(drop)
}

async fn wait(wire: &Wire, id: &str) -> Result<ControllerWaitResponse, Status> {
    let request = ControllerWaitRequest { sandbox_id: id.into(), sandboxer: "shim".into() };
    let answer = tokio::time::timeout(limit(), controllers(wire).wait(in_test(request))).await;
    answer.expect("the wait ends").map(tonic::Response::into_inner)
}

async fn shutdown(wire: &Wire, id: &str) -> Result<(), Status> {
    let request = ControllerShutdownRequest { sandbox_id: id.into(), sandboxer: "shim".into() };
    controllers(wire).shutdown(in_test(request)).await.map(drop)
}

/// Creates and starts a task in `sandbox`, and gives its pid.
async fn run_in(wire: &Wire, id: &str, sandbox: &str) -> Result<u32, Status> {
    run(wire, Container { sandbox: sandbox.into(), ..runnable(wire, id, &["/bin/sleep", "1000"]) }).await
}

async fn delete_task(wire: &Wire, id: &str) -> Result<u32, Status> {
    let request = in_test(DeleteTaskRequest { container_id: id.into() });
    wire.tasks().delete(request).await.map(|answer| answer.into_inner().exit_status)
}

fn parent(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    parent.trim().parse().unwrap()
}

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// The ends that were told, by id and status.
async fn exits(seen: &mut Subscription, wire: &Wire) -> Vec<(String, u32)> {
    let events = seen.so_far(wire).await.into_iter().filter(|event| event.topic == "/sandboxes/exit");
    let decode = |event: gantry_api::containerd::types::Envelope| {
        let exit = SandboxExit::decode(&*event.event.unwrap().value).unwrap();
        assert!(exit.exited_at.is_some());
        (exit.sandbox_id, exit.exit_status)
    };
    events.map(decode).collect()
}

#[tokio::test]
async fn a_sandbox_and_the_tasks_in_its_shim_outlive_the_daemon() {
    root!();
    let mut wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let mut seen = Subscription::start(&wire, &[SANDBOXES]).await;
    create(&wire, "pod").await.unwrap();
    let before = status(&wire, "pod").await.unwrap();
    assert_eq!((before.state.as_str(), before.sandbox_id.as_str()), ("SANDBOX_NOTREADY", "pod"));
    let begun = start(&wire, "pod").await.unwrap();
    assert_eq!((begun.sandbox_id.as_str(), begun.version), ("pod", 3));
    assert!(begun.address.starts_with("ttrpc+unix:///run/containerd/s/"), "{}", begun.address);
    assert!(begun.created_at.is_some_and(|at| at.seconds > 0));
    let first = run_in(&wire, "first", "pod").await.unwrap();
    assert_eq!(parent(first), begun.pid, "the sandbox's shim has the task");
    let topics = seen.topics(&wire).await;
    assert_eq!(topics, ["test /sandboxes/create", "test /sandboxes/start"]);

    wire.daemon.kill();
    wire.daemon.start();
    wire.reconnect();
    let mut seen = Subscription::start(&wire, &[SANDBOXES]).await;
    let found = status(&wire, "pod").await.unwrap();
    assert_eq!((found.state.as_str(), found.pid), ("SANDBOX_READY", begun.pid));
    assert_eq!((found.address, found.created_at), (begun.address, begun.created_at));
    let second = run_in(&wire, "second", "pod").await.unwrap();
    assert_eq!(parent(second), begun.pid, "after the restart too");
    assert_eq!(task_status(&wire, "first").await.unwrap(), TaskStatus::Running);
    assert_eq!(code(create(&wire, "pod").await), Code::AlreadyExists);
    let metrics = ControllerMetricsRequest { sandbox_id: "pod".into(), sandboxer: "shim".into() };
    let metrics = controllers(&wire).metrics(in_test(metrics)).await.unwrap().into_inner().metrics.unwrap();
    assert_eq!(metrics.id, "pod");

    let (waited, stopped) = tokio::join!(wait(&wire, "pod"), stop(&wire, "pod"));
    stopped.unwrap();
    let waited = waited.unwrap();
    assert_eq!(waited, wait(&wire, "pod").await.unwrap(), "an end stays the same");
    assert_eq!(exits(&mut seen, &wire).await, [("pod".to_owned(), waited.exit_status)]);
    let ended = status(&wire, "pod").await.unwrap();
    assert_eq!((ended.state.as_str(), ended.exited_at), ("SANDBOX_NOTREADY", waited.exited_at));
    for id in ["first", "second"] {
        assert_eq!(task_status(&wire, id).await.unwrap(), TaskStatus::Stopped);
        assert_eq!(delete_task(&wire, id).await.unwrap(), 137);
    }
    assert!(runs(begun.pid), "the shim ends with the sandbox, not with its last task");
    wire.restart();
    let mut seen = Subscription::start(&wire, &[SANDBOXES]).await;
    assert_eq!(wait(&wire, "pod").await.unwrap(), waited, "nor with the daemon");
    shutdown(&wire, "pod").await.unwrap();
    assert!(!runs(begun.pid));
    assert!(exits(&mut seen, &wire).await.is_empty(), "its end was told before");
    assert_eq!(code(shutdown(&wire, "pod").await), Code::NotFound);
    create(&wire, "pod").await.expect("the id is free again");
    shutdown(&wire, "pod").await.unwrap();
    assert!(exits(&mut seen, &wire).await.is_empty(), "what did not begin does not end");
    wire.daemon.leftovers().assert_none();
}

#[tokio::test]
async fn the_death_of_a_shim_ends_its_sandbox_and_is_told_once() {
    root!();
    let mut wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let mut seen = Subscription::start(&wire, &[SANDBOXES]).await;
    create(&wire, "pod").await.unwrap();
    let shim = start(&wire, "pod").await.unwrap().pid;
    let task = run_in(&wire, "first", "pod").await.unwrap();
    let killed = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        send(shim, Signal::KILL);
    };
    let (waited, ()) = tokio::join!(wait(&wire, "pod"), killed);
    assert_eq!(waited.unwrap().exit_status, 137);
    assert_eq!(exits(&mut seen, &wire).await, [("pod".to_owned(), 137)]);
    let gone = status(&wire, "pod").await.unwrap();
    assert_eq!((gone.state.as_str(), gone.created_at), ("", Some(GO_ZERO)));
    eventually("the end of what ran in it", || (!runs(task)).then_some(()));
    wire.daemon.leftovers().assert_none();

    // The same while no daemon looks.
    create(&wire, "pod").await.unwrap();
    let shim = start(&wire, "pod").await.unwrap().pid;
    let task = run_in(&wire, "second", "pod").await.unwrap();
    wire.daemon.kill();
    send(shim, Signal::KILL);
    wire.daemon.start();
    wire.reconnect();
    assert_eq!(status(&wire, "pod").await.unwrap().state, "");
    assert_eq!(code(wait(&wire, "pod").await), Code::NotFound);
    assert!(wire.daemon.log().contains("the shim of a sandbox died meanwhile"));
    eventually("the end of what ran in it", || (!runs(task)).then_some(()));
    wire.daemon.leftovers().assert_none();
}

#[tokio::test]
async fn a_shim_that_hangs_costs_a_deadline_and_is_shut_down_by_force() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    create(&wire, "pod").await.unwrap();
    let shim = start(&wire, "pod").await.unwrap().pid;
    let task = run_in(&wire, "first", "pod").await.unwrap();
    send(shim, Signal::STOP);
    let asked = Instant::now();
    assert_eq!(code(status(&wire, "pod").await), Code::DeadlineExceeded);
    assert!(asked.elapsed() < limit());
    create(&wire, "other").await.expect("another sandbox does not wait");
    let (waited, ended) = tokio::join!(wait(&wire, "pod"), shutdown(&wire, "pod"));
    ended.unwrap();
    assert!(!runs(shim));
    assert_eq!(waited.unwrap().exit_status, 137);
    shutdown(&wire, "other").await.unwrap();
    eventually("the end of what ran in it", || (!runs(task)).then_some(()));
    wire.daemon.leftovers().assert_none();
}

#[tokio::test]
async fn what_runs_in_a_sandbox_ends_with_its_shutdown() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let mut seen = Subscription::start(&wire, &[SANDBOXES]).await;
    create(&wire, "pod").await.unwrap();
    start(&wire, "pod").await.unwrap();
    let task = run_in(&wire, "first", "pod").await.unwrap();
    let request = WaitRequest { container_id: "first".into(), ..Default::default() };
    let mut tasks = wire.tasks();
    let (waited, ended) = tokio::join!(tasks.wait(in_test(request)), shutdown(&wire, "pod"));
    ended.unwrap();
    assert!(!runs(task));
    assert_eq!(waited.unwrap().into_inner().exit_status, 137);
    assert_eq!(exits(&mut seen, &wire).await.len(), 1);
    wire.daemon.leftovers().assert_none();
}

/// A shim that does what `script` says.
fn strange(dir: &Path, name: &str, script: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_made_leaves_nothing() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let mut seen = Subscription::start(&wire, &[SANDBOXES]).await;
    let dir = wire.daemon.dir().to_path_buf();
    let strangers = [
        "io.containerd.imaginary.v9".to_owned(),
        String::new(),
        "../../bin/sh".to_owned(),
        strange(&dir, "fails", "echo broken >&2; exit 3"),
        strange(&dir, "babbles", "echo what else"),
        strange(&dir, "nobody", "printf unix:///run/nobody-listens"),
        strange(&dir, "endless", "exec cat /dev/zero"),
    ];
    for runtime in strangers {
        let refused = controllers(&wire).create(in_test(new("pod", &runtime))).await;
        let refused = refused.expect_err(&runtime);
        assert_ne!(refused.code(), Code::Ok);
        assert!(refused.message().contains("shim") || refused.message().contains("runtime"), "{refused}");
    }
    let mut grpc = new("pod", RUNTIME);
    grpc.sandbox.as_mut().unwrap().spec = Some(Any { type_url: TYPE_SPEC.into(), value: b"{".to_vec() });
    assert!(controllers(&wire).create(in_test(grpc)).await.is_err(), "a spec that is no JSON");
    create(&wire, "pod").await.expect("the id is free");
    shutdown(&wire, "pod").await.unwrap();
    assert_eq!(seen.topics(&wire).await, ["test /sandboxes/create"]);
    wire.daemon.leftovers().assert_none();
}

#[tokio::test]
async fn unknown_names_have_the_answers_of_containerd() {
    root!();
    let wire = Wire::start();
    if !wire.since_2() {
        return;
    }
    let mut controllers = controllers(&wire);
    for (sandboxer, expected) in [("", Code::InvalidArgument), ("podman", Code::NotFound)] {
        let request = ControllerCreateRequest { sandboxer: sandboxer.into(), ..new("pod", RUNTIME) };
        assert_eq!(code(controllers.create(in_test(request)).await), expected, "{sandboxer:?}");
        let request = ControllerStatusRequest { sandboxer: sandboxer.into(), ..Default::default() };
        assert_eq!(code(controllers.status(in_test(request)).await), expected, "{sandboxer:?}");
    }
    let platform = ControllerPlatformRequest { sandboxer: "shim".into(), ..Default::default() };
    assert_eq!(code(controllers.platform(in_test(platform)).await), Code::Unimplemented);
    stop(&wire, "none").await.expect("what is not there has stopped");
    let unknown = status(&wire, "none").await.unwrap();
    assert_eq!((unknown.sandbox_id.as_str(), unknown.created_at), ("none", Some(GO_ZERO)));
    assert!(unknown.exited_at.is_some_and(|at| at.seconds > 0));
    refused(start(&wire, "none").await, Code::Unknown, "unable to find sandbox \"none\"");
    assert_eq!(code(wait(&wire, "none").await), Code::NotFound);
    assert_eq!(code(shutdown(&wire, "none").await), Code::NotFound);
    let metrics = ControllerMetricsRequest { sandboxer: "shim".into(), sandbox_id: "none".into() };
    assert_eq!(code(controllers.metrics(in_test(metrics)).await), Code::NotFound);
    let update = ControllerUpdateRequest {
        sandboxer: "shim".into(),
        sandbox: new("none", RUNTIME).sandbox,
        ..Default::default()
    };
    controllers.update(in_test(update)).await.expect("the original does nothing either");
    for id in ["", "../pod", "a--b", &"i".repeat(77)] {
        assert_eq!(code(create(&wire, id).await), Code::InvalidArgument, "{id:?}");
        assert_eq!(code(shutdown(&wire, id).await), Code::NotFound, "{id:?}");
    }
    refused(run_in(&wire, "lost", "none").await, Code::Unknown, "can't find sandbox none");
    wire.daemon.leftovers().assert_none();
}

//! A shim's own life: how it starts, with whom it is shared, when it ends, and what is left of it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use gantry_api::containerd::task::v3::DeleteResponse;
use gantry_core::tasks::TaskIo;
use gantry_shim::bootstrap::Answer;
use gantry_shim::sandbox_client::{NewSandbox, SandboxClient};
use gantry_testkit::root;
use prost::Message;

use crate::stage::{Stage, clear, gone, runs, socket};

#[test]
fn it_tells_its_version_and_refuses_nonsense() {
    let run = |args: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_containerd-shim-runc-v2")).args(args).output().unwrap()
    };
    assert!(String::from_utf8(run(&["-v"]).stdout).unwrap().contains(env!("CARGO_PKG_VERSION")));
    assert!(!run(&["-bogus"]).status.success());
    assert!(!run(&["-namespace", "a/../b", "-id", "x", "start"]).status.success());
}

#[tokio::test]
async fn its_socket_is_closed_to_everybody_else() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "true", |_| ());
    let answer = stage.start_shim("web");
    let path = socket(&answer);
    assert_eq!(path.parent().unwrap(), std::path::Path::new("/run/containerd/s"));
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    assert!(!sockets.lines().any(|line| line.contains('@') && line.contains("containerd")), "{sockets}");
    let client = stage.client(&answer).await;
    client.shutdown("web", false).await.unwrap();
    client.connection().closed().await;
}

#[tokio::test]
async fn an_old_daemon_gets_a_bare_address_and_the_second_version() {
    root!();
    let stage = Stage::new();
    let bundle = stage.make_bundle("web", "true", |_| ());
    let (success, answer, said) = stage.run("web", &["start"], b"");
    assert!(success, "{said}");
    assert!(answer.starts_with(b"unix:///run/containerd/s/"), "{answer:?}");
    assert_eq!(fs::read(bundle.join("address")).unwrap(), answer);
    let answer = Answer::parse(&answer).unwrap();
    assert_eq!(answer.version, 2);
    let client = stage.client(&answer).await;
    client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    clear(&client, "web").await;
}

#[tokio::test]
async fn a_group_shares_one_shim_until_its_last_task_is_gone() {
    root!();
    let stage = Stage::new();
    let in_pod = |spec: &mut serde_json::Value| {
        spec["annotations"] = serde_json::json!({"io.kubernetes.cri.sandbox-id": "pod"});
    };
    stage.make_bundle("pod", "sleep 1000", in_pod);
    stage.make_bundle("app", "sleep 1000", in_pod);
    stage.make_bundle("alone", "sleep 1000", |_| ());
    let first = stage.start_shim("pod");
    let second = stage.start_shim("app");
    let third = stage.start_shim("alone");
    assert_eq!(first.address, second.address);
    assert_ne!(first.address, third.address);
    let client = stage.client(&first).await;
    for id in ["pod", "app"] {
        client.create(stage.new_task(id, TaskIo::default())).await.unwrap();
        client.start(id, "").await.unwrap();
    }
    let shim = client.connect_task("pod").await.unwrap().shim_pid;
    assert_eq!(client.connect_task("app").await.unwrap().shim_pid, shim);
    client.kill("pod", "", 9, false).await.unwrap();
    client.wait("pod", "").await.unwrap();
    client.delete("pod", "").await.unwrap();
    client.shutdown("pod", true).await.unwrap();
    assert!(client.connect_task("app").await.is_ok(), "a shim with a task goes on");
    clear(&client, "app").await;
    gone(shim);
    assert!(!socket(&first).exists());
    let alone = stage.client(&third).await;
    alone.shutdown("alone", false).await.unwrap();
    alone.connection().closed().await;
}

#[tokio::test]
async fn sigterm_ends_only_a_shim_without_tasks() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "sleep 1000", |_| ());
    let client = stage.shim("web").await;
    client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    let shim = client.connect_task("web").await.unwrap().shim_pid;
    let pid = rustix::process::Pid::from_raw(shim.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    client.state("web", "").await.unwrap();
    client.kill("web", "", 9, true).await.unwrap();
    client.wait("web", "").await.unwrap();
    client.delete("web", "").await.unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    gone(shim);
}

#[tokio::test]
async fn delete_cleans_up_after_a_shim_that_was_killed() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "sleep 1000", |_| ());
    let answer = stage.start_shim("web");
    let client = stage.client(&answer).await;
    let init = client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    client.start("web", "").await.unwrap();
    let shim = client.connect_task("web").await.unwrap().shim_pid;
    let pid = rustix::process::Pid::from_raw(shim.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    client.connection().closed().await;
    assert!(runs(init), "a container outlives its shim");
    for _ in 0..2 {
        let bundle = stage.bundle("web").display().to_string();
        let (success, output, said) = stage.run("web", &["-bundle", &bundle, "delete"], b"");
        assert!(success, "{said}");
        let deleted = DeleteResponse::decode(&output[..]).unwrap();
        assert_eq!((deleted.pid, deleted.exit_status), (init, 137));
    }
    gone(init);
    assert_eq!(stage.mounts(), Vec::<String>::new());
    assert!(!socket(&answer).exists());
}

#[tokio::test]
async fn a_sandbox_ends_with_the_tasks_in_it() {
    root!();
    let stage = Stage::new();
    fs::create_dir_all(stage.bundle("pod")).unwrap();
    let answer = stage.start_shim("pod");
    let client = stage.client(&answer).await;
    let sandbox = SandboxClient::new(client.connection().clone(), "test", Some(gantry_testkit::limit()));
    let new = NewSandbox {
        id: "pod".into(),
        bundle: stage.bundle("pod").display().to_string(),
        ..NewSandbox::default()
    };
    assert_eq!(sandbox.ping("pod").await.unwrap_err().kind(), gantry_core::ErrorKind::NotFound);
    sandbox.create(new).await.unwrap();
    let started = sandbox.start("pod").await.unwrap();
    stage.make_bundle("app", "sleep 1000", |_| ());
    client.create(stage.new_task("app", TaskIo::default())).await.unwrap();
    client.start("app", "").await.unwrap();
    assert_eq!(client.connect_task("app").await.unwrap().shim_pid, started.pid);
    assert_eq!(sandbox.status("pod", false).await.unwrap().state, "SANDBOX_READY");
    assert_eq!(sandbox.platform("pod").await.unwrap().0, "linux");
    let patience = std::time::Duration::from_secs(10);
    let (ended, stopped) = tokio::join!(sandbox.wait("pod"), sandbox.stop("pod", patience));
    stopped.unwrap();
    assert!(ended.unwrap().1.is_some());
    assert_eq!(client.delete("app", "").await.unwrap().status, 137);
    sandbox.shutdown("pod").await.unwrap();
    gone(started.pid);
}

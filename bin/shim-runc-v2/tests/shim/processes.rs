//! Execs, terminals, signals and input.

use gantry_core::tasks::{TaskIo, TaskStatus};
use gantry_core::{Any, ErrorKind};
use gantry_testkit::root;

use crate::stage::{Stage, clear, exec};

#[tokio::test]
async fn an_exec_runs_beside_init_under_its_own_name() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "sleep 1000", |_| ());
    let client = stage.shim("web").await;
    client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    client.start("web", "").await.unwrap();
    let io = TaskIo { stdin: stage.fifo("in"), stdout: stage.fifo("out"), ..TaskIo::default() };
    let out = stage.read(&io.stdout);
    client.exec(exec("web", "job", "echo begin; cat; exit 5", io.clone())).await.unwrap();
    let twice = client.exec(exec("web", "job", "true", TaskIo::default())).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::AlreadyExists);
    assert_eq!(client.state("web", "job").await.unwrap().status, TaskStatus::Created);
    let early = client.kill("web", "job", 9, false).await.unwrap_err();
    assert_eq!(early.kind(), ErrorKind::FailedPrecondition);
    let pid = client.start("web", "job").await.unwrap();
    let running = client.state("web", "job").await.unwrap();
    assert_eq!((running.id.as_str(), running.pid, running.status), ("job", pid, TaskStatus::Running));
    let pids = client.pids("web").await.unwrap();
    let named = pids.iter().find(|process| process.pid == pid).unwrap();
    assert!(named.info.as_ref().is_some_and(|info| info.type_name() == "containerd.runc.v1.ProcessDetails"));
    assert_eq!(client.delete("web", "job").await.unwrap_err().kind(), ErrorKind::Unknown);
    let input = io.stdin.clone();
    tokio::task::spawn_blocking(move || std::fs::write(input, "typed").unwrap()).await.unwrap();
    client.close_io("web", "job", true).await.unwrap();
    assert_eq!(client.wait("web", "job").await.unwrap().status, 5);
    let late = client.kill("web", "job", 9, false).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::NotFound);
    let deleted = client.delete("web", "job").await.unwrap();
    assert_eq!((deleted.id.as_str(), deleted.pid, deleted.status), ("job", pid, 5));
    assert_eq!(out.await.unwrap(), "begin\ntyped");
    assert_eq!(client.state("web", "job").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(stage.ears.exit("job").await, 5);
    clear(&client, "web").await;
    assert_eq!(
        stage.ears.topics("web"),
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/exit",
            "/tasks/exit",
            "/tasks/delete"
        ]
    );
}

#[tokio::test]
async fn an_exec_that_cannot_start_stays_created_and_can_be_deleted() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "sleep 1000", |_| ());
    let client = stage.shim("web").await;
    client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    client.start("web", "").await.unwrap();
    let mut bad = exec("web", "bad", "", TaskIo::default());
    let process = serde_json::json!({
        "args": ["/no/such/program"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]
    });
    bad.spec = Any::new(gantry_core::wire_names::TYPE_PROCESS, process.to_string());
    client.exec(bad.clone()).await.unwrap();
    let error = client.start("web", "bad").await.unwrap_err();
    assert!(error.message().contains("/no/such/program"), "{error}");
    assert_eq!(client.state("web", "bad").await.unwrap().status, TaskStatus::Created);
    assert_eq!(client.delete("web", "bad").await.unwrap().pid, 0);
    bad.spec.value = "not json".into();
    assert_eq!(client.exec(bad).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(client.start("web", "none").await.unwrap_err().kind(), ErrorKind::NotFound);
    clear(&client, "web").await;
}

#[tokio::test]
async fn the_exits_of_execs_are_told_before_inits() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "sleep 1000", |_| ());
    let client = stage.shim("web").await;
    client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    client.start("web", "").await.unwrap();
    for exec_id in ["a", "b"] {
        client.exec(exec("web", exec_id, "sleep 1000", TaskIo::default())).await.unwrap();
        client.start("web", exec_id).await.unwrap();
    }
    client.kill("web", "", 9, false).await.unwrap();
    for exec_id in ["", "a", "b"] {
        assert_eq!(client.wait("web", exec_id).await.unwrap().status, 137);
    }
    clear(&client, "web").await;
    let exits = stage.ears.topics("web").iter().filter(|topic| **topic == "/tasks/exit").count();
    assert_eq!((exits, stage.ears.last_exit("web").as_str()), (3, "web"));
}

#[tokio::test]
async fn a_terminal_is_typed_on_and_resized() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "read line; stty size; echo got $line; exit 6", |spec| {
        spec["process"]["terminal"] = true.into();
        spec["mounts"].as_array_mut().unwrap().extend([
            serde_json::json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}),
            serde_json::json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                               "options": ["newinstance", "ptmxmode=0666"]}),
        ]);
    });
    let client = stage.shim("web").await;
    let io =
        TaskIo { stdin: stage.fifo("in"), stdout: stage.fifo("out"), stderr: String::new(), terminal: true };
    let out = stage.read(&io.stdout);
    client.create(stage.new_task("web", io.clone())).await.unwrap();
    client.resize_pty("web", "", 77, 33).await.unwrap();
    client.start("web", "").await.unwrap();
    let input = io.stdin.clone();
    tokio::task::spawn_blocking(move || std::fs::write(input, "typed\n").unwrap()).await.unwrap();
    assert_eq!(client.wait("web", "").await.unwrap().status, 6);
    clear(&client, "web").await;
    let screen = out.await.unwrap();
    assert!(screen.contains("33 77") && screen.contains("got typed"), "{screen:?}");
}

#[tokio::test]
async fn signals_reach_one_process_or_all() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "trap 'exit 9' TERM; echo ready; while true; do sleep 0.05; done", |_| ());
    let client = stage.shim("web").await;
    let io = TaskIo { stdout: stage.fifo("out"), ..TaskIo::default() };
    let path = io.stdout.clone();
    let ready = tokio::task::spawn_blocking(move || {
        use std::io::BufRead;
        let mut line = String::new();
        std::io::BufReader::new(std::fs::File::open(path).unwrap()).read_line(&mut line).unwrap();
        line
    });
    client.create(stage.new_task("web", io)).await.unwrap();
    client.start("web", "").await.unwrap();
    assert_eq!(ready.await.unwrap(), "ready\n");
    client.kill("web", "", 15, false).await.unwrap();
    assert_eq!(client.wait("web", "").await.unwrap().status, 9);
    clear(&client, "web").await;
}

#[tokio::test]
async fn resources_can_be_changed_while_it_runs() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "sleep 1000", |_| ());
    let client = stage.shim("web").await;
    client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    client.start("web", "").await.unwrap();
    let resources = |text: &str| Any::new(gantry_core::wire_names::TYPE_LINUX_RESOURCES, text.to_owned());
    let limit: u64 = 64 << 20;
    let change = format!(r#"{{"memory":{{"limit":{limit}}}}}"#);
    client.update("web", resources(&change), Default::default()).await.unwrap();
    let pid = client.state("web", "").await.unwrap().pid;
    let stats = client.stats("web").await.unwrap().unwrap();
    let seen = if stats.type_name() == gantry_core::wire_names::TYPE_CGROUP1_METRICS {
        use gantry_api::io::containerd::cgroups::v1::Metrics;
        prost::Message::decode(stats.value).map(|read: Metrics| read.memory.unwrap().usage.unwrap().limit)
    } else {
        use gantry_api::io::containerd::cgroups::v2::Metrics;
        prost::Message::decode(stats.value).map(|read: Metrics| read.memory.unwrap().usage_limit)
    };
    assert_eq!(seen.unwrap(), limit, "of process {pid}");
    assert!(client.update("web", resources("not json"), Default::default()).await.is_err());
    clear(&client, "web").await;
}

#[tokio::test]
async fn an_exec_that_ends_at_once_is_never_missed() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "sleep 1000", |_| ());
    let client = stage.shim("web").await;
    client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    client.start("web", "").await.unwrap();
    for round in 0..50 {
        let exec_id = format!("quick{round}");
        client.exec(exec("web", &exec_id, "exit 3", TaskIo::default())).await.unwrap();
        client.start("web", &exec_id).await.unwrap();
        assert_eq!(client.wait("web", &exec_id).await.unwrap().status, 3);
        client.delete("web", &exec_id).await.unwrap();
    }
    clear(&client, "web").await;
}

//! A task's life, and what a daemon hears of it.

use gantry_core::ErrorKind;
use gantry_core::events::Event;
use gantry_core::tasks::{TaskIo, TaskStatus};
use gantry_testkit::root;

use crate::stage::{Stage, clear, exec, gone};

#[tokio::test]
async fn a_task_lives_from_create_to_delete_and_every_event_is_told_in_order() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "echo out; echo err >&2; read line; echo got $line; exit 7", |_| ());
    let client = stage.shim("web").await;
    let io = TaskIo {
        stdin: stage.fifo("in"),
        stdout: stage.fifo("out"),
        stderr: stage.fifo("err"),
        terminal: false,
    };
    let (out, err) = (stage.read(&io.stdout), stage.read(&io.stderr));
    let pid = client.create(stage.new_task("web", io.clone())).await.unwrap();
    let created = client.state("web", "").await.unwrap();
    assert_eq!((created.status, created.pid, created.exited_at), (TaskStatus::Created, pid, None));
    assert_eq!(created.io, io);
    assert_eq!(
        client.create(stage.new_task("web", io.clone())).await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(client.start("web", "").await.unwrap(), pid);
    assert_eq!(client.state("web", "").await.unwrap().status, TaskStatus::Running);
    assert_eq!(client.pids("web").await.unwrap()[0].pid, pid);
    assert!(client.stats("web").await.unwrap().unwrap().type_name().contains("Metrics"));
    let waiting = client.wait("web", "");
    let input = io.stdin.clone();
    let typing = tokio::task::spawn_blocking(move || std::fs::write(input, "line\n").unwrap());
    let ended = waiting.await.unwrap();
    typing.await.unwrap();
    assert_eq!(ended.status, 7);
    assert_eq!(client.wait("web", "").await.unwrap(), ended, "waiting answers again");
    let stopped = client.state("web", "").await.unwrap();
    assert_eq!(
        (stopped.status, stopped.exit_status, stopped.exited_at),
        (TaskStatus::Stopped, 7, Some(ended.exited_at))
    );
    assert!(client.pids("web").await.unwrap().is_empty());
    let deleted = client.delete("web", "").await.unwrap();
    assert_eq!((deleted.pid, deleted.status, deleted.exited_at), (pid, 7, ended.exited_at));
    assert_eq!(out.await.unwrap(), "out\ngot line\n");
    assert_eq!(err.await.unwrap(), "err\n");
    assert_eq!(client.state("web", "").await.unwrap_err().kind(), ErrorKind::NotFound);
    client.shutdown("web", false).await.unwrap();
    client.connection().closed().await;
    let told = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"];
    assert_eq!(stage.ears.topics("web"), told);
    assert_eq!(stage.mounts(), Vec::<String>::new());
}

#[tokio::test]
async fn an_init_that_ends_at_once_is_never_missed() {
    root!();
    let stage = Stage::new();
    for round in 0..10 {
        let id = format!("quick{round}");
        stage.make_bundle(&id, "exit 3", |_| ());
        let client = stage.shim(&id).await;
        client.create(stage.new_task(&id, TaskIo::default())).await.unwrap();
        client.start(&id, "").await.unwrap();
        assert_eq!(client.wait(&id, "").await.unwrap().status, 3);
        client.delete(&id, "").await.unwrap();
        client.shutdown(&id, false).await.unwrap();
        client.connection().closed().await;
        let told = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"];
        assert_eq!(stage.ears.topics(&id), told);
    }
}

#[tokio::test]
async fn a_task_that_was_never_started_can_be_killed_and_deleted() {
    root!();
    let stage = Stage::new();
    for id in ["killed", "deleted"] {
        stage.make_bundle(id, "true", |_| ());
        let client = stage.shim(id).await;
        client.create(stage.new_task(id, TaskIo::default())).await.unwrap();
        if id == "killed" {
            client.kill(id, "", 9, false).await.unwrap();
            assert_eq!(client.wait(id, "").await.unwrap().status, 137);
            assert_eq!(client.start(id, "").await.unwrap_err().kind(), ErrorKind::Unknown);
        }
        assert_eq!(client.delete(id, "").await.unwrap().status, 137);
        client.shutdown(id, false).await.unwrap();
        client.connection().closed().await;
        assert_eq!(stage.ears.topics(id), ["/tasks/create", "/tasks/exit", "/tasks/delete"]);
    }
    assert_eq!(stage.mounts(), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_state_does_not_allow_is_refused_by_its_kind() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "sleep 1000", |_| ());
    let client = stage.shim("web").await;
    assert_eq!(client.state("web", "").await.unwrap_err().kind(), ErrorKind::NotFound);
    client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    let unknown =
        |result: gantry_core::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::Unknown);
    unknown(client.pause("web").await);
    unknown(client.resume("web").await);
    client.start("web", "").await.unwrap();
    unknown(client.start("web", "").await.map(drop));
    unknown(client.delete("web", "").await.map(drop));
    unknown(client.resume("web").await);
    client.pause("web").await.unwrap();
    assert_eq!(client.state("web", "").await.unwrap().status, TaskStatus::Paused);
    unknown(client.pause("web").await);
    unknown(client.exec(exec("web", "e", "true", TaskIo::default())).await);
    client.resume("web").await.unwrap();
    assert_eq!(client.state("web", "").await.unwrap().status, TaskStatus::Running);
    client.kill("web", "", 9, false).await.unwrap();
    client.wait("web", "").await.unwrap();
    unknown(client.start("web", "").await.map(drop));
    unknown(client.pause("web").await);
    unknown(client.exec(exec("web", "e", "true", TaskIo::default())).await);
    assert_eq!(client.kill("web", "", 9, false).await.unwrap_err().kind(), ErrorKind::NotFound);
    clear(&client, "web").await;
    let told =
        ["/tasks/create", "/tasks/start", "/tasks/paused", "/tasks/resumed", "/tasks/exit", "/tasks/delete"];
    assert_eq!(stage.ears.topics("web"), told);
}

#[tokio::test]
async fn what_the_runtime_refuses_leaves_nothing_behind() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "", |spec| spec["process"]["args"] = serde_json::json!(["/no/such/program"]));
    let client = stage.shim("web").await;
    let error = match client.create(stage.new_task("web", TaskIo::default())).await {
        Err(error) => error,
        // Some runtimes look for the program only when they start it.
        Ok(_) => {
            let error = client.start("web", "").await.unwrap_err();
            client.delete("web", "").await.unwrap();
            error
        }
    };
    assert!(error.message().contains("/no/such/program"), "{error}");
    assert_eq!(client.state("web", "").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(stage.mounts(), Vec::<String>::new());
    stage.make_bundle("web", "exit 4", |_| ());
    client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    client.start("web", "").await.unwrap();
    assert_eq!(client.wait("web", "").await.unwrap().status, 4);
    clear(&client, "web").await;
}

#[tokio::test]
async fn an_exit_waits_for_a_daemon_that_is_away() {
    root!();
    let mut stage = Stage::new();
    stage.make_bundle("web", "sleep 1000", |_| ());
    let client = stage.shim("web").await;
    let pid = client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    client.start("web", "").await.unwrap();
    stage.ears.wait_for("start", |event| matches!(event, Event::TaskStart { .. })).await;
    stage.hush().await;
    client.kill("web", "", 9, false).await.unwrap();
    client.wait("web", "").await.unwrap();
    assert_eq!(stage.ears.topics("web").len(), 2);
    stage.listen();
    assert_eq!(stage.ears.exit("web").await, 137);
    assert_eq!(client.delete("web", "").await.unwrap().pid, pid);
    client.shutdown("web", false).await.unwrap();
    client.connection().closed().await;
    assert_eq!(stage.ears.topics("web"), ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
}

#[tokio::test]
async fn want_of_memory_is_told_before_the_exit() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "exec dd if=/dev/zero of=/dev/null bs=64M count=1", |spec| {
        spec["linux"]["resources"] = serde_json::json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
        spec["mounts"].as_array_mut().unwrap().push(serde_json::json!(
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}
        ));
    });
    let client = stage.shim("web").await;
    client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    client.start("web", "").await.unwrap();
    assert_eq!(client.wait("web", "").await.unwrap().status, 137);
    clear(&client, "web").await;
    let told = stage.ears.topics("web");
    let at = |topic: &str| told.iter().position(|heard| *heard == topic);
    assert!(at("/tasks/oom").is_some() && at("/tasks/oom") < at("/tasks/exit"), "{told:?}");
}

#[tokio::test]
async fn what_shares_its_pid_namespace_ends_with_init() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "sleep 1000 & sleep 1001 & read forever", |spec| {
        spec["linux"]["namespaces"] = serde_json::json!([{"type": "mount"}, {"type": "ipc"}]);
    });
    let client = stage.shim("web").await;
    let io = TaskIo { stdin: stage.fifo("in"), ..TaskIo::default() };
    client.create(stage.new_task("web", io)).await.unwrap();
    client.start("web", "").await.unwrap();
    let pids = loop {
        let pids = client.pids("web").await.unwrap();
        if pids.len() == 3 {
            break pids;
        }
        tokio::task::yield_now().await;
    };
    client.kill("web", "", 9, false).await.unwrap();
    client.wait("web", "").await.unwrap();
    for process in pids {
        gone(process.pid);
    }
    clear(&client, "web").await;
}

//! Fifos whose readers come late, or never.

use std::time::{Duration, Instant};

use gantry_core::ErrorKind;
use gantry_core::tasks::{TaskIo, TaskStatus};
use gantry_testkit::root;

use crate::stage::{Stage, clear, exec};

/// How long a reader that comes late lets others wait.
const LATE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_process_begins_only_when_its_output_is_read() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "echo all of it", |_| ());
    let client = stage.shim("web").await;
    let io = TaskIo { stdout: stage.fifo("out"), stderr: stage.fifo("err"), ..TaskIo::default() };
    let (creating, task) = (client.clone(), stage.new_task("web", io.clone()));
    let created = tokio::spawn(async move { creating.create(task).await });
    tokio::time::sleep(LATE).await;
    let out = stage.read(&io.stdout);
    tokio::time::sleep(LATE).await;
    assert!(!created.is_finished(), "nobody reads errors yet");
    let err = stage.read(&io.stderr);
    created.await.unwrap().unwrap();
    client.start("web", "").await.unwrap();
    client.wait("web", "").await.unwrap();
    clear(&client, "web").await;
    assert_eq!((out.await.unwrap().as_str(), err.await.unwrap().as_str()), ("all of it\n", ""));
}

#[tokio::test]
async fn an_exec_begins_only_when_its_output_is_read() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "sleep 1000", |_| ());
    let client = stage.shim("web").await;
    client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    client.start("web", "").await.unwrap();
    let io = TaskIo { stdout: stage.fifo("out"), ..TaskIo::default() };
    client.exec(exec("web", "job", "echo all of it", io.clone())).await.unwrap();
    let starting = client.clone();
    let started = tokio::spawn(async move { starting.start("web", "job").await });
    tokio::time::sleep(LATE).await;
    assert_eq!(client.state("web", "job").await.unwrap().status, TaskStatus::Created);
    let out = stage.read(&io.stdout);
    started.await.unwrap().unwrap();
    client.wait("web", "job").await.unwrap();
    client.delete("web", "job").await.unwrap();
    assert_eq!(out.await.unwrap(), "all of it\n");
    clear(&client, "web").await;
}

#[tokio::test]
async fn an_output_that_nobody_reads_stops_nobody() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "echo unheard; exit 7", |_| ());
    let client = stage.shim("web").await;
    let io = TaskIo { stdout: stage.fifo("out"), ..TaskIo::default() };
    let hurried = client.with_timeout(Some(Duration::from_secs(4)));
    hurried.create(stage.new_task("web", io)).await.unwrap();
    client.start("web", "").await.unwrap();
    assert_eq!(client.wait("web", "").await.unwrap().status, 7);
    clear(&client, "web").await;
}

#[tokio::test]
async fn an_exec_that_waits_for_its_reader_holds_up_no_end() {
    root!();
    let stage = Stage::new();
    stage.make_bundle("web", "sleep 1000", |_| ());
    let client = stage.shim("web").await;
    client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    client.start("web", "").await.unwrap();
    let io = TaskIo { stdout: stage.fifo("out"), ..TaskIo::default() };
    client.exec(exec("web", "ended", "true", io.clone())).await.unwrap();
    client.exec(exec("web", "deleted", "true", io.clone())).await.unwrap();
    let starting = client.clone();
    let started = tokio::spawn(async move {
        tokio::join!(starting.start("web", "ended"), starting.start("web", "deleted"))
    });
    tokio::time::sleep(LATE).await;
    client.delete("web", "deleted").await.unwrap();
    let killed = Instant::now();
    client.kill("web", "", 9, false).await.unwrap();
    client.wait("web", "").await.unwrap();
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    let out = stage.read(&io.stdout);
    let (ended, deleted) = started.await.unwrap();
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(deleted.unwrap_err().kind(), ErrorKind::NotFound);
    clear(&client, "web").await;
    out.await.unwrap();
}

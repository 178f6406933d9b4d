//! Outputs whose readers come late, never, or do not end.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use gantry_core::ErrorKind;
use gantry_core::tasks::{TaskIo, TaskStatus};
use gantry_shim::client::TaskClient;
use gantry_testkit::{eventually, root};

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
    let out = stage.read(&io.stdout);
    let create = client.create(stage.new_task("web", io.clone()));
    tokio::pin!(create);
    let early = tokio::time::timeout(LATE, &mut create).await;
    let err = stage.read(&io.stderr);
    // Failing before both are read would leave a thread that reads for ever.
    assert!(early.is_err(), "created while nobody read errors");
    create.await.unwrap();
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
    let start = client.start("web", "job");
    tokio::pin!(start);
    assert!(tokio::time::timeout(LATE, &mut start).await.is_err(), "nobody reads yet");
    assert_eq!(client.state("web", "job").await.unwrap().status, TaskStatus::Created);
    let out = stage.read(&io.stdout);
    start.await.unwrap();
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
    let start = async { tokio::join!(client.start("web", "ended"), client.start("web", "deleted")) };
    tokio::pin!(start);
    assert!(tokio::time::timeout(LATE, &mut start).await.is_err(), "nobody reads yet");
    client.delete("web", "deleted").await.unwrap();
    let killed = Instant::now();
    client.kill("web", "", 9, false).await.unwrap();
    client.wait("web", "").await.unwrap();
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    let out = stage.read(&io.stdout);
    let (ended, deleted) = start.await;
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(deleted.unwrap_err().kind(), ErrorKind::NotFound);
    clear(&client, "web").await;
    out.await.unwrap();
}

/// A running container, for execs.
async fn running(stage: &Stage) -> TaskClient {
    stage.make_bundle("web", "sleep 1000", |_| ());
    let client = stage.shim("web").await;
    client.create(stage.new_task("web", TaskIo::default())).await.unwrap();
    client.start("web", "").await.unwrap();
    client
}

#[tokio::test]
async fn a_grandchild_that_holds_the_output_holds_up_neither_exit_nor_delete() {
    root!();
    let stage = Stage::new();
    let client = running(&stage).await;
    let io = TaskIo { stdout: stage.fifo("out"), ..TaskIo::default() };
    let out = stage.read(&io.stdout);
    client.exec(exec("web", "job", "sleep 1000 & echo said; exit 4", io)).await.unwrap();
    let begun = Instant::now();
    client.start("web", "job").await.unwrap();
    assert_eq!(client.wait("web", "job").await.unwrap().status, 4);
    assert_eq!(stage.ears.exit("job").await, 4);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    client.delete("web", "job").await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(out.await.unwrap(), "said\n");
    clear(&client, "web").await;
}

/// A logger of `protocol` that notes what it reads in a file `log`, and does `end` then.
fn logger(stage: &Stage, protocol: &str, ready: &str, end: &str) -> TaskIo {
    let log = stage.dir.path().join("log").display().to_string();
    let path = stage.dir.path().join("logger");
    let text = format!("#!/bin/sh\ntrap '' TERM\n{ready}\nexec 5>&-\ncat <&3 >{log}\n{end}\n");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    TaskIo { stdout: format!("{protocol}://{}", path.display()), ..TaskIo::default() }
}

#[tokio::test]
async fn a_logger_that_reads_for_ever_is_ended() {
    root!();
    let stage = Stage::new();
    let client = running(&stage).await;
    let io = logger(&stage, "binary", "", "exec sleep 1000");
    client.exec(exec("web", "job", "sleep 1000 & echo said", io)).await.unwrap();
    client.start("web", "job").await.unwrap();
    client.wait("web", "job").await.unwrap();
    let begun = Instant::now();
    client.delete("web", "job").await.unwrap();
    // 3 s to end by itself, and 12 s after it was asked to.
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    assert_eq!(std::fs::read_to_string(stage.dir.path().join("log")).unwrap(), "said\n");
    let shim = client.connect_task("web").await.unwrap().shim_pid;
    eventually("the logger to be gone", || {
        let children = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
        (children.split_whitespace().count() == 1).then_some(())
    });
    clear(&client, "web").await;
}

#[tokio::test]
async fn the_second_kind_of_logger_must_say_that_it_is_ready() {
    root!();
    let stage = Stage::new();
    let client = running(&stage).await;
    client.exec(exec("web", "mute", "true", logger(&stage, "binary-v2", "", ""))).await.unwrap();
    let error = client.start("web", "mute").await.unwrap_err();
    assert!(error.message().contains("ended before it was ready"), "{error}");
    client.delete("web", "mute").await.unwrap();
    client
        .exec(exec("web", "job", "echo said", logger(&stage, "binary-v2", "printf x >&5", "")))
        .await
        .unwrap();
    client.start("web", "job").await.unwrap();
    client.wait("web", "job").await.unwrap();
    client.delete("web", "job").await.unwrap();
    assert_eq!(std::fs::read_to_string(stage.dir.path().join("log")).unwrap(), "said\n");
    clear(&client, "web").await;
}

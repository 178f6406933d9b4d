//! The restart monitor. 1.6 has one too, with fewer policies.

use std::time::Duration;

use gantry_api::containerd::services::containers::v1::{
    Container, GetContainerRequest, UpdateContainerRequest,
};
use gantry_api::containerd::v1::types::Status as TaskStatus;
use gantry_testkit::{limit, root};
use rustix::process::Signal;
use tonic::Code;

use crate::running::{run, runnable, send, task, task_status};
use crate::support::{Wire, code, in_test, mask};

/// Looks often. The name is that of files of version 2.
const OFTEN: &str = "[plugins.\"io.containerd.internal.v1.restart\"]\n  interval = \"100ms\"";
const SLEEP: &[&str] = &["/bin/sleep", "1000"];

fn labelled(wire: &Wire, id: &str, args: &[&str], labels: &[(&str, &str)]) -> Container {
    let full = |(key, value): &(&str, &str)| (format!("containerd.io/restart.{key}"), (*value).to_owned());
    Container { labels: labels.iter().map(full).collect(), ..runnable(wire, id, args) }
}

/// Runs `container`, and asks for its running only then: with so short an interval the monitor would be there first.
async fn start(wire: &Wire, container: Container) {
    let id = container.id.clone();
    run(wire, container).await.unwrap();
    set_label(wire, &id, "status", "running").await;
}

async fn label(wire: &Wire, id: &str, key: &str) -> Option<String> {
    let request = GetContainerRequest { id: id.into() };
    let container = wire.containers().get(in_test(request)).await.unwrap().into_inner().container.unwrap();
    container.labels.get(&format!("containerd.io/restart.{key}")).cloned()
}

async fn set_label(wire: &Wire, id: &str, key: &str, value: &str) {
    let key = format!("containerd.io/restart.{key}");
    let labels = [(key.clone(), value.to_owned())].into();
    let request = UpdateContainerRequest {
        container: Some(Container { id: id.into(), labels, ..Default::default() }),
        update_mask: mask(&[&format!("labels.{key}")]),
    };
    wire.containers().update(in_test(request)).await.unwrap();
}

/// The pid of the task that runs now instead of `before`.
async fn next(wire: &Wire, id: &str, before: u32) -> u32 {
    let come_back = async {
        loop {
            if let Ok(process) = task(wire, id).await
                && process.status() == TaskStatus::Running
                && process.pid != before
            {
                return process.pid;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(limit(), come_back).await.unwrap_or_else(|_| panic!("{id} does not come back"))
}

/// Waits until the monitor has looked at everything after this call: it brings back what is killed for that.
async fn looked(wire: &Wire, id: &str) {
    let before = task(wire, id).await.unwrap().pid;
    send(before, Signal::KILL);
    next(wire, id, before).await;
}

async fn kill_and_wait(wire: &Wire, id: &str) {
    let request = gantry_api::containerd::services::tasks::v1::WaitRequest {
        container_id: id.into(),
        ..Default::default()
    };
    let pid = task(wire, id).await.unwrap().pid;
    send(pid, Signal::KILL);
    wire.tasks().wait(in_test(request)).await.unwrap();
}

#[tokio::test]
async fn a_killed_container_comes_back_and_one_that_was_stopped_does_not() {
    root!();
    let mut wire = Wire::start_with(OFTEN);
    if !wire.is_gantry() {
        return;
    }
    let log = wire.daemon.dir().join("always.log");
    let uri = format!("file://{}", log.display());
    let new = |id, policy, more: &[(&str, &str)]| {
        let labels = [&[("policy", policy)], more].concat();
        labelled(&wire, id, &["/bin/sh", "-c", "echo began; sleep 1000"], &labels)
    };
    let containers = [
        new("always", "always", &[("loguri", &uri)]),
        new("stopped", "unless-stopped", &[]),
        new("never", "no", &[]),
        new("twice", "on-failure:1", &[]),
        new("odd", "sometimes", &[]),
    ];
    for container in containers {
        start(&wire, container).await;
    }
    start(&wire, labelled(&wire, "beacon", SLEEP, &[])).await;
    assert_eq!(label(&wire, "always", "count").await, None, "what runs is left alone");

    set_label(&wire, "stopped", "explicitly-stopped", "true").await;
    let before = task(&wire, "always").await.unwrap().pid;
    for id in ["stopped", "never", "odd"] {
        kill_and_wait(&wire, id).await;
    }
    send(before, Signal::KILL);
    let twice = task(&wire, "twice").await.unwrap().pid;
    send(twice, Signal::KILL);
    next(&wire, "always", before).await;
    assert_eq!(label(&wire, "always", "count").await.as_deref(), Some("1"));
    next(&wire, "twice", twice).await;
    kill_and_wait(&wire, "twice").await;
    looked(&wire, "beacon").await;
    for id in ["stopped", "never", "odd", "twice"] {
        assert_eq!(task_status(&wire, id).await.unwrap(), TaskStatus::Stopped, "{id}");
    }
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "began\n", "its output, once started by the monitor");

    // One that ended while no daemon looked comes back as well, but not what was stopped.
    let before = task(&wire, "always").await.unwrap().pid;
    wire.daemon.kill();
    send(before, Signal::KILL);
    wire.daemon.start();
    wire.reconnect();
    next(&wire, "always", before).await;
    assert_eq!(label(&wire, "always", "count").await.as_deref(), Some("2"));
    looked(&wire, "beacon").await;
    for id in ["stopped", "never", "odd", "twice"] {
        assert_eq!(task_status(&wire, id).await.unwrap(), TaskStatus::Stopped, "{id}");
    }
    set_label(&wire, "stopped", "explicitly-stopped", "false").await;
    next(&wire, "stopped", 0).await;

    // What is to be stopped is.
    for id in ["always", "stopped", "twice", "beacon"] {
        set_label(&wire, id, "status", "stopped").await;
    }
    let ended = async {
        for id in ["always", "stopped", "beacon"] {
            while code(task_status(&wire, id).await) != Code::NotFound {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(limit(), ended).await.expect("they end");
    let ctr = wire.daemon.ctr().in_namespace(crate::support::TEST);
    for id in ["never", "odd", "twice"] {
        ctr.ok(&["tasks", "rm", id]);
    }
    wire.daemon.leftovers().assert_none();
}

#[tokio::test]
async fn one_that_cannot_run_waits_longer_each_time_and_holds_nobody_up() {
    root!();
    let wire = Wire::start_with(OFTEN);
    if !wire.is_gantry() {
        return;
    }
    let running = ("status", "running");
    let broken = labelled(&wire, "broken", &["/bin/imaginary"], &[running]);
    assert!(run(&wire, broken).await.is_err());
    start(&wire, labelled(&wire, "lost", SLEEP, &[("loguri", "no URI")])).await;
    kill_and_wait(&wire, "lost").await;
    start(&wire, labelled(&wire, "short", &["/bin/sleep", "0"], &[])).await;
    start(&wire, labelled(&wire, "beacon", SLEEP, &[])).await;
    looked(&wire, "beacon").await;
    let counted =
        || async { label(&wire, "short", "count").await.and_then(|count| count.parse().ok()).unwrap_or(0) };
    let several = async {
        while counted().await < 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(limit(), several).await.expect("it is started again and again");
    // After its fifth start it waits 8 times the interval and more; without back-off there would be one each time.
    let before = counted().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let after = counted().await;
    assert!(after - before <= 2, "from {before} to {after} in fifteen intervals");
    assert_eq!(task_status(&wire, "lost").await.unwrap(), TaskStatus::Stopped);
    for id in ["short", "broken", "lost", "beacon"] {
        set_label(&wire, id, "status", "stopped").await;
    }
    let ended = async {
        while code(task_status(&wire, "beacon").await) != Code::NotFound {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(limit(), ended).await.expect("it ends");
    let ctr = wire.daemon.ctr().in_namespace(crate::support::TEST);
    for id in ["short", "lost"] {
        let _ = ctr.run(&["tasks", "rm", id]);
    }
    wire.daemon.leftovers().assert_none();
}

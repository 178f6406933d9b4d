//! The endpoint of metrics, asked over TCP.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use gantry_api::containerd::services::tasks::v1::{DeleteTaskRequest, KillRequest, WaitRequest};
use gantry_testkit::{eventually, limit, root};
use rustix::process::Signal;

use crate::running::{run, runnable, send};
use crate::support::{Wire, in_test};

/// Every test has a network of its own.
const ADDRESS: &str = "127.0.0.1:1338";

fn request(text: &str) -> String {
    let mut stream = TcpStream::connect(ADDRESS).unwrap();
    stream.set_read_timeout(Some(limit())).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn page() -> String {
    let answer = request("GET /v1/metrics HTTP/1.1\r\nHost: test\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
    body.to_owned()
}

/// The value of a metric of the container `id`.
fn value(page: &str, name: &str, id: &str) -> Option<u64> {
    let wanted =
        format!("{name}{{container_id=\"{id}\",namespace=\"test\",runtime=\"io.containerd.runc.v2\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&wanted)?.parse().ok())
}

async fn end(wire: &Wire, id: &str) {
    let kill = KillRequest { container_id: id.into(), signal: 9, all: true, ..Default::default() };
    wire.tasks().kill(in_test(kill)).await.unwrap();
    wire.tasks().wait(in_test(WaitRequest { container_id: id.into(), ..Default::default() })).await.unwrap();
    wire.tasks().delete(in_test(DeleteTaskRequest { container_id: id.into() })).await.unwrap();
}

#[tokio::test]
async fn tasks_show_the_figures_of_their_cgroups() {
    root!();
    // The section is that of files before version 4.
    let wire = Wire::start_with(&format!("[metrics]\n  address = \"{ADDRESS}\"\n"));
    if !wire.is_gantry() {
        return;
    }
    assert!(page().contains("containerd_build_info_total{revision="));
    assert!(!page().contains("container_"), "nothing runs");
    let busy = "i=0; while true; do i=$((i+1)); done";
    run(&wire, runnable(&wire, "busy", &["/bin/sh", "-c", busy])).await.unwrap();
    let idle = run(&wire, runnable(&wire, "idle", &["/bin/sleep", "1000"])).await.unwrap();
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let (cpu, memory) = match unified {
        true => ("container_cpu_usage_usec_microseconds", "container_memory_usage_bytes"),
        false => ("container_cpu_total_nanoseconds", "container_memory_usage_usage_bytes"),
    };
    for id in ["busy", "idle"] {
        // What started it may still be there for a moment.
        let alone = |page: &String| value(page, "container_pids_current", id) == Some(1);
        eventually("one process in it", || Some(page()).filter(alone));
    }
    let first = page();
    for id in ["busy", "idle"] {
        assert!(value(&first, memory, id).is_some_and(|bytes| bytes > 0), "{first}");
        assert_eq!(value(&first, "container_memory_oom_total", id), Some(0), "{first}");
    }
    assert_eq!(first.matches(&format!("# TYPE {cpu} gauge\n")).count(), 1, "one head for both");
    let before = value(&first, cpu, "busy").unwrap();
    eventually("more CPU time", || value(&page(), cpu, "busy").filter(|after| *after > before));

    // A shim that hangs costs the page a deadline, and itself its place.
    let status = std::fs::read_to_string(format!("/proc/{idle}/status")).unwrap();
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    send(shim, Signal::STOP);
    let without = page();
    assert!(value(&without, cpu, "busy").is_some() && value(&without, cpu, "idle").is_none(), "{without}");
    send(shim, Signal::CONT);
    eventually("its figures again", || value(&page(), cpu, "idle"));

    assert!(request("GET /debug HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(ADDRESS).unwrap()).collect();
    assert!(value(&page(), cpu, "busy").is_some(), "clients that say nothing are no hindrance");
    drop(silent);
    end(&wire, "busy").await;
    end(&wire, "idle").await;
    assert!(!page().contains("container_"), "what is gone is not shown");
    wire.daemon.leftovers().assert_none();
}

#[tokio::test]
async fn without_an_address_there_is_no_endpoint_and_figures_can_be_left_out() {
    root!();
    let wire = Wire::start();
    if !wire.is_gantry() {
        return;
    }
    assert!(TcpStream::connect_timeout(&ADDRESS.parse().unwrap(), Duration::from_secs(5)).is_err());
    drop(wire);
    let config = format!(
        "[metrics]\n  address = \"{ADDRESS}\"\n[plugins.\"io.containerd.monitor.v1.cgroups\"]\n  no_prometheus = true\n"
    );
    let wire = Wire::start_with(&config);
    run(&wire, runnable(&wire, "idle", &["/bin/sleep", "1000"])).await.unwrap();
    assert!(page().contains("containerd_build_info_total") && !page().contains("container_"));
    end(&wire, "idle").await;
    wire.daemon.leftovers().assert_none();
}

//! The endpoint of metrics: names and labels are containerd's, on either version of cgroups.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use gantry_testkit::{Daemon, DaemonOptions, Program, busybox_image, eventually, limit, root};

use crate::stage::BUSYBOX;

/// Every test has a network of its own.
const ADDRESS: &str = "127.0.0.1:1338";

fn page() -> String {
    let mut stream = TcpStream::connect(ADDRESS).unwrap();
    stream.set_read_timeout(Some(limit())).unwrap();
    // Of version 1.0, so that the answer comes in one piece.
    stream.write_all(b"GET /v1/metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.lines().next().is_some_and(|line| line.ends_with(" 200 OK")), "{answer}");
    answer
}

/// The task metrics of a page, each as its name and the names of its labels. Those of devices are there only if the kernel has
/// counted something for one.
fn shapes(page: &str) -> BTreeSet<String> {
    let of_tasks = page.lines().filter(|line| line.starts_with("container_"));
    let lasting =
        of_tasks.filter(|line| !line.starts_with("container_blkio") && !line.starts_with("container_io_"));
    lasting
        .map(|line| {
            let (name, labels) = line.split_once('{').expect("labels");
            let keys = labels.split("\",").map(|pair| pair.split_once('=').expect("a label").0);
            format!("{name} {}", keys.collect::<Vec<_>>().join(","))
        })
        .collect()
}

fn figure(page: &str, name: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(&format!("{name}{{")))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// What the daemon shows of a container that is busy.
fn shown(mut daemon: Daemon) -> BTreeSet<String> {
    let ctr = daemon.ctr();
    let archive = daemon.dir().join("busybox.tar");
    busybox_image().write_oci_archive(&archive, BUSYBOX);
    ctr.ok(&["images", "import", &archive.to_string_lossy()]);
    assert!(shapes(&page()).is_empty(), "nothing runs");
    let busy = "while true; do true; done";
    ctr.ok(&["run", "-d", BUSYBOX, "busy", "/bin/sh", "-c", busy]);
    let cpu = ["container_cpu_total_nanoseconds", "container_cpu_usage_usec_microseconds"];
    let used = |page: &str| cpu.iter().find_map(|name| figure(page, name));
    let before = eventually("a figure of CPU time", || used(&page()));
    let page = eventually("more CPU time", || {
        let page = page();
        used(&page).filter(|after| *after > before).map(|_| page)
    });
    assert!(figure(&page, "container_pids_current").is_some_and(|pids| pids >= 1.0), "{page}");
    assert!(page.contains("container_id=\"busy\",namespace=\"default\""), "{page}");
    let shapes = shapes(&page);
    daemon.clear("default");
    daemon.leftovers().assert_none();
    daemon.stop();
    shapes
}

#[test]
fn metrics_of_tasks_have_the_names_and_labels_of_containerd() {
    root!();
    let start = |program| {
        DaemonOptions::new(program).config(&format!("[metrics]\n  address = \"{ADDRESS}\"\n")).start()
    };
    let program = Program::under_test();
    let is_peer = program.is_containerd();
    let ours = shown(start(program));
    if is_peer {
        return;
    }
    let theirs = shown(start(Program::containerd()));
    let missing: Vec<_> = theirs.difference(&ours).collect();
    assert!(missing.is_empty(), "containerd has {missing:#?}\nours: {ours:#?}");
    assert!(theirs.len() > 20, "{theirs:#?}");
}

//! `kill -9` of the daemon under load.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gantry_testkit::{Ctr, Daemon, busybox_image, eventually, root};

use crate::stage::BUSYBOX;

const COUNT: usize = 20;

fn id(number: usize) -> String {
    format!("c{number}")
}

fn log_of(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("{}.log", id(number)))
}

fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |meta| meta.len())
}

/// Pid and status of each task.
fn tasks(ctr: &Ctr) -> BTreeMap<String, (u32, String)> {
    let table = ctr.ok(&["tasks", "ls"]);
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.map(|row| (row[0].to_owned(), (row[1].parse().unwrap(), row[2].to_owned()))).collect()
}

fn daemon_with_busybox() -> Daemon {
    let daemon = Daemon::under_test();
    let archive = daemon.dir().join("busybox.tar");
    busybox_image().write_oci_archive(&archive, BUSYBOX);
    daemon.ctr().ok(&["images", "import", &archive.to_string_lossy()]);
    daemon
}

#[test]
fn twenty_containers_survive_the_daemon_and_are_known_again() {
    root!();
    let mut daemon = daemon_with_busybox();
    let ctr = daemon.ctr();
    let dir = daemon.dir().to_path_buf();
    let script = "trap 'exit 7' TERM; while true; do echo line; sleep 0.2; done";
    for number in 0..COUNT {
        let uri = format!("file://{}", log_of(&dir, number).display());
        ctr.ok(&["run", "-d", "--log-uri", &uri, BUSYBOX, &id(number), "/bin/sh", "-c", script]);
    }
    let before = tasks(&ctr);
    assert_eq!(before.len(), COUNT);

    daemon.kill();
    let sizes: Vec<u64> = (0..COUNT).map(|number| size(&log_of(&dir, number))).collect();
    for (number, old) in sizes.iter().enumerate() {
        eventually(&format!("more output of {}", id(number)), || {
            (size(&log_of(&dir, number)) > *old).then_some(())
        });
    }
    for (id, (pid, _)) in &before {
        assert!(Path::new(&format!("/proc/{pid}")).exists(), "{id} is gone");
    }

    daemon.start();
    let after = eventually("all tasks to be known", || {
        let now = tasks(&ctr);
        (now.len() == COUNT).then_some(now)
    });
    assert_eq!(before, after);
    let mut events = ctr.spawn(&["events"]);
    eventually("the subscription", || {
        ctr.ok(&["namespaces", "label", "default", "a=b"]);
        events.stdout().contains("/namespaces/update").then_some(())
    });
    for number in 0..COUNT {
        let printed = ctr.ok(&["tasks", "exec", "--exec-id", "after", &id(number), "/bin/echo", "known"]);
        assert_eq!(printed, "known\n");
    }
    for number in 0..COUNT {
        ctr.ok(&["tasks", "kill", "-s", "SIGTERM", &id(number)]);
    }
    for number in 0..COUNT {
        let exit = format!(r#""container_id":"{0}","id":"{0}""#, id(number));
        events.wait_for_output(&exit);
    }
    let text = events.stdout();
    for number in 0..COUNT {
        let exit = format!(r#""container_id":"{0}","id":"{0}""#, id(number));
        let line = text.lines().find(|line| line.contains("/tasks/exit") && line.contains(&exit));
        let line = line.unwrap_or_else(|| panic!("no exit of {} in {text}", id(number)));
        assert!(line.contains(r#""exit_status":7"#), "{line}");
    }
    drop(events);
    daemon.clear("default");
    daemon.leftovers().assert_none();
}

#[test]
fn an_end_while_the_daemon_is_down_is_known_afterwards() {
    root!();
    let mut daemon = daemon_with_busybox();
    let ctr = daemon.ctr();
    let pid_file = daemon.dir().join("pid");
    ctr.ok(&[
        "run",
        "-d",
        "--pid-file",
        &pid_file.to_string_lossy(),
        BUSYBOX,
        "c1",
        "/bin/sh",
        "-c",
        "trap 'exit 9' TERM; while true; do sleep 0.1; done",
    ]);
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    daemon.kill();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    eventually("the process to end", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    daemon.start();
    let now = eventually("the task to be known as ended", || {
        tasks(&ctr).get("c1").filter(|(_, status)| status == "STOPPED").cloned()
    });
    assert_eq!(now.0, u32::try_from(pid).unwrap());
    let output = ctr.run(&["tasks", "rm", "c1"]);
    // ctr passes the status of the deleted task on.
    assert!(output.code == 9 || output.code == 0, "{output:?}");
    ctr.ok(&["containers", "rm", "c1"]);
    daemon.clear("default");
    daemon.leftovers().assert_none();
}

#[test]
fn a_shim_that_is_killed_takes_its_task_and_nothing_else() {
    root!();
    let daemon = daemon_with_busybox();
    let ctr = daemon.ctr();
    for id in ["c1", "c2"] {
        ctr.ok(&["run", "-d", BUSYBOX, id, "/bin/sleep", "1000"]);
    }
    let mut events = ctr.spawn(&["events"]);
    eventually("the subscription", || {
        ctr.ok(&["namespaces", "label", "default", "a=b"]);
        events.stdout().contains("/namespaces/update").then_some(())
    });
    let pid = tasks(&ctr)["c1"].0;
    let shim: i32 = parent_of(pid);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(shim).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    events.wait_for_output("/tasks/exit");
    assert!(events.stdout().contains(r#""exit_status":137"#), "{}", events.stdout());
    eventually("the task to vanish", || (!tasks(&ctr).contains_key("c1")).then_some(()));
    assert_eq!(tasks(&ctr)["c2"].1, "RUNNING");
    eventually("its process to be killed", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    ctr.ok(&["tasks", "start", "-d", "c1"]);
    assert_eq!(tasks(&ctr)["c1"].1, "RUNNING");
    drop(events);
    daemon.clear("default");
    // A client removes its fifos when it deletes the task, and this one vanished; the shim could not remove its socket.
    let own = ["socket ", "fifo "];
    let left = daemon.leftovers().list();
    let left: Vec<&String> =
        left.iter().filter(|line| !own.iter().any(|kind| line.starts_with(kind))).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn parent_of(pid: u32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

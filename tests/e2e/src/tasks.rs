//! `ctr tasks`.

use gantry_testkit::{eventually, root};

use crate::stage::{BUSYBOX, Stage, same_on_both};

fn running(s: &mut Stage, id: &str) {
    s.import_busybox();
    // A shell that answers to SIGTERM and writes for ever.
    let script = "trap 'exit 3' TERM; while true; do sleep 0.1; done";
    s.ok(&["run", "-d", BUSYBOX, id, "/bin/sh", "-c", script]);
}

#[test]
fn tasks_run_more_processes() {
    root!();
    same_on_both(|s, _| {
        running(s, "web");
        let printed = s.ok(&[
            "tasks",
            "exec",
            "--exec-id",
            "e1",
            "web",
            "/bin/sh",
            "-c",
            "echo in $(hostname | wc -c); ps | grep -q trap && echo with its neighbours",
        ]);
        assert!(printed.starts_with("in "), "{printed}");
        let output = s.any(&[
            "tasks",
            "exec",
            "--exec-id",
            "e2",
            "web",
            "/bin/sh",
            "-c",
            "echo out; echo err >&2; exit 9",
        ]);
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (9, "out\n", "err\n"));
        let output = s.any(&[
            "tasks",
            "exec",
            "--exec-id",
            "e3",
            "--user",
            "1000:50",
            "--cwd",
            "/tmp",
            "web",
            "/bin/sh",
            "-c",
            "id; pwd",
        ]);
        assert!(output.stdout.contains("uid=1000"), "{output:?}");
        let output = s.ctr.run(&["tasks", "exec", "--exec-id", "e4", "web", "/bin/missing"]);
        assert!(output.code != 0 && output.stderr.contains("no such file"), "{output:?}");
        // One exec after another under the same name.
        for _ in 0..3 {
            s.ok(&["tasks", "exec", "--exec-id", "again", "web", "/bin/true"]);
        }
        let mut terminal = s.on_terminal(&["tasks", "exec", "--exec-id", "e5", "-t", "web", "/bin/sh"]);
        terminal.wait_for("#");
        terminal.type_until("stty size\n", "30 100\n");
        terminal.type_text("exit 6\n");
        assert_eq!(terminal.wait(), 6, "{}", terminal.screen());
        s.table(&["tasks", "ls"], &["PID"]);
        s.ok(&["tasks", "kill", "-s", "SIGKILL", "web"]);
    });
}

#[test]
fn tasks_list_their_processes() {
    root!();
    same_on_both(|s, _| {
        running(s, "web");
        let mut exec = s.spawn(&["tasks", "exec", "--exec-id", "long", "web", "/bin/sleep", "999"]);
        let listed = eventually("the exec to show", || {
            let listed = s.ctr.ok(&["tasks", "ps", "web"]);
            listed.contains("long").then_some(listed)
        });
        assert!(listed.starts_with("PID"), "{listed}");
        s.ok(&["tasks", "kill", "--exec-id", "long", "-s", "9", "web"]);
        assert_eq!(exec.wait().code, 137);
        s.ok(&["tasks", "kill", "--all", "-s", "SIGKILL", "web"]);
    });
}

#[test]
fn tasks_are_paused_and_resumed() {
    root!();
    same_on_both(|s, _| {
        running(s, "web");
        s.ok(&["tasks", "pause", "web"]);
        let listed = s.table(&["tasks", "ls"], &["PID"]);
        assert!(listed.contains("PAUSED"), "{listed}");
        s.ok(&["tasks", "resume", "web"]);
        let listed = s.table(&["tasks", "ls"], &["PID"]);
        assert!(listed.contains("RUNNING"), "{listed}");
        s.ok(&["tasks", "exec", "--exec-id", "e1", "web", "/bin/true"]);
        s.ok(&["tasks", "kill", "-s", "KILL", "web"]);
    });
}

#[test]
fn tasks_that_are_signalled_end_as_they_like() {
    root!();
    same_on_both(|s, _| {
        running(s, "web");
        s.any(&["tasks", "rm", "web"]);
        s.any(&["tasks", "start", "web"]);
        s.ok(&["tasks", "kill", "-s", "SIGTERM", "web"]);
        eventually("the task to stop", || s.ctr.ok(&["tasks", "ls"]).contains("STOPPED").then_some(()));
        s.any(&["tasks", "kill", "web"]);
        assert_eq!(s.any(&["tasks", "rm", "web"]).code, 0);
        // The container remains, and can be started anew.
        s.ok(&["tasks", "start", "-d", "web"]);
        s.table(&["tasks", "ls"], &["PID"]);
        let mut attached = s.spawn(&["tasks", "attach", "web"]);
        s.ok(&["tasks", "kill", "-s", "SIGTERM", "web"]);
        assert_eq!(attached.wait().code, 3);
        // The attached client has deleted it.
        s.any(&["tasks", "kill", "web"]);
        s.any(&["tasks", "rm", "web"]);
        s.ok(&["containers", "rm", "web"]);
    });
}

#[test]
fn tasks_tell_their_metrics() {
    root!();
    same_on_both(|s, _| {
        running(s, "web");
        // Values differ from moment to moment; names and their order do not.
        let printed = s.viewed(&["tasks", "metrics", "web"], |text| {
            let name = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
            text.lines().map(|line| name(line) + "\n").collect()
        });
        assert!(printed.contains("memory") && printed.contains("pids.current"), "{printed}");
        let json = s.ctr.ok(&["tasks", "metrics", "--format", "json", "web"]);
        let metrics: serde_json::Value = serde_json::from_str(&json).unwrap();
        let pids = metrics["pids"]["current"].as_u64().unwrap();
        assert!((1..=3).contains(&pids), "{json}");
        s.ok(&["tasks", "kill", "-s", "9", "web"]);
    });
}

#[test]
fn tasks_share_nothing_between_namespaces() {
    root!();
    same_on_both(|s, _| {
        running(s, "web");
        let other = s.ctr.in_namespace("other");
        assert!(other.names(&["tasks", "ls"]).is_empty());
        assert!(other.names(&["images", "ls"]).is_empty());
        let refused = other.fails(&["tasks", "kill", "web"]);
        assert!(refused.contains("not found"), "{refused}");
        s.ok(&["tasks", "kill", "-s", "9", "web"]);
    });
}

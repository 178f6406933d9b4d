//! From `gantry run` over `ps`, `exec`, `logs`, `pause` and `kill` to `gantry rm`.

use std::fs;
use std::path::Path;

use gantry_testkit::{DaemonOptions, Program, eventually, root};
use rustix::process::Signal;

use super::{Cli, on_each};
use crate::stage::BUSYBOX;

#[test]
fn gantry_run_d_is_listed_entered_read_and_removed() {
    root!();
    on_each(|daemon| {
        let ordered = !daemon.program().is_containerd();
        let cli = Cli::with_busybox(daemon);
        let script =
            "echo to the log; echo and errors >&2; while [ ! -e /end ]; do sleep 0.1; done; echo the end";
        let run =
            ["run", "-d", "--env", "COLOUR=green", "-l", "tier=web", BUSYBOX, "web", "/bin/sh", "-c", script];
        assert_eq!(cli.ok(&run), "web\n");
        let listed = cli.ok(&["ps"]);
        let row: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((row[0], row[1], row[3], row[4]), ("web", "running", BUSYBOX, "io.containerd.runc.v2"));
        assert!(Path::new("/proc").join(row[2]).exists(), "{listed}");
        assert_eq!(cli.ok(&["ps", "-q", "labels.tier==web"]), "web\n");
        assert_eq!(cli.ok(&["ps", "-q", "labels.tier==db"]), "");

        let exec = ["exec", "-w", "/tmp", "-e", "SIZE=big", "-u", "1000", "web", "/bin/sh", "-c"];
        let printed = cli.ok(&[&exec[..], &["pwd; id -u; echo $COLOUR $SIZE"]].concat());
        assert_eq!(printed, "/tmp\n1000\ngreen big\n");
        let output = cli.run(&["exec", "web", "/bin/sh", "-c", "echo out; echo err >&2; exit 3"]);
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (3, "out\n", "err\n"));
        assert_eq!(cli.run(&["exec", "web", "/bin/sh", "-c", "kill -9 $$"]).code, 137);
        assert!(cli.ok(&["inspect", "web"]).contains("\"COLOUR=green\""));

        eventually("the log", || cli.ok(&["logs", "web"]).contains("and errors").then_some(()));
        let mut follower = cli.spawn(&["logs", "-f", "web"]);
        follower.wait_for_output("to the log");
        cli.ok(&["exec", "-d", "web", "/bin/touch", "/end"]);
        let logged = follower.wait().expect_success("logs -f");
        // The original's shim copies output and errors apart from each other, so that either may come first.
        assert!(
            logged == "to the log\nand errors\nthe end\n"
                || (!ordered && logged == "and errors\nto the log\nthe end\n"),
            "{logged}"
        );
        eventually("the end", || cli.ok(&["ps"]).contains("stopped (0)").then_some(()));
        assert_eq!(cli.ok(&["rm", "web"]), "web\n");
        assert_eq!(cli.ok(&["ps", "-q"]), "");
        cli.close();
    });
}

#[test]
fn gantry_kill_ends_what_runs_and_rm_refuses_it_before() {
    root!();
    on_each(|daemon| {
        let cli = Cli::with_busybox(daemon);
        let log = cli.daemon.dir().join("web.log");
        let log_flag = log.to_string_lossy().into_owned();
        cli.ok(&[
            "run",
            "-d",
            "--log-file",
            &log_flag,
            BUSYBOX,
            "web",
            "/bin/sh",
            "-c",
            "echo hi; sleep 1000",
        ]);
        cli.ok(&["run", "-d", BUSYBOX, "db", "/bin/sleep", "1000"]);
        let refused = cli.fails(&["rm", "web"]);
        let wanted = "gantry: remove container \"web\": its task still runs: failed precondition\n\
                      hint: gantry kill web ends it; gantry rm -f web ends and removes it\n";
        assert_eq!(refused, wanted);
        assert_eq!(cli.ok(&["pause", "web"]), "web\n");
        assert!(cli.ok(&["ps"]).contains("paused"));
        assert_eq!(cli.ok(&["resume", "web"]), "web\n");
        assert_eq!(cli.ok(&["kill", "web"]), "web\n");
        assert!(cli.ok(&["ps"]).contains("stopped (137)"));
        // Every object is tried, and every failure named.
        let output = cli.run(&["rm", "-f", "imaginary", "web", "db"]);
        assert_eq!((output.code, output.stdout.as_str()), (1, "web\ndb\n"), "{output:?}");
        assert!(output.stderr.contains("\"imaginary\""), "{output:?}");
        // The file that the caller named is the caller's.
        assert_eq!(fs::read_to_string(&log).unwrap(), "hi\n");
        cli.close();
    });
}

#[test]
fn gantry_logs_reads_over_rotations_and_rm_removes_every_file() {
    root!();
    let cli = Cli::with_busybox(DaemonOptions::new(Program::gantryd()).start());
    // 3,000 lines of 7 bytes, of which three files of 4,096 bytes hold the last.
    let script = "while [ ! -e /begin ]; do sleep 0.1; done; i=0; while [ $i -lt 3000 ]; do printf '%06d\\n' $i; i=$((i+1)); done";
    let log = cli.daemon.dir().join("web.log");
    let log_flag = log.to_string_lossy().into_owned();
    let limits = ["--log-max-size", "4k", "--log-max-files", "3"];
    let run =
        [&["run", "-d", "--log-file", &log_flag], &limits[..], &[BUSYBOX, "web", "/bin/sh", "-c", script]];
    cli.ok(&run.concat());
    cli.ok(&["exec", "web", "/bin/touch", "/begin"]);
    eventually("the end", || cli.ok(&["ps"]).contains("stopped (0)").then_some(()));
    let kept =
        eventually("the log", || Some(cli.ok(&["logs", "web"])).filter(|text| text.ends_with("002999\n")));
    let lines: Vec<usize> = kept.lines().map(|line| line.parse().unwrap()).collect();
    assert!(lines.len() > 4096 * 2 / 7 && lines.is_sorted_by(|a, b| a + 1 == *b), "{lines:?}");
    let sizes = ["", ".1", ".2"].map(|end| fs::metadata(format!("{log_flag}{end}")).unwrap().len());
    assert!(sizes.iter().all(|size| *size <= 4096) && sizes[2] > 4000, "{sizes:?}");
    assert!(!Path::new(&format!("{log_flag}.3")).exists());
    // By default, they lie where they are removed with the container.
    let run = [
        &["run", "-d"],
        &limits[..],
        &[BUSYBOX, "db", "/bin/sh", "-c", "head -c 10000 /dev/zero | tr '\\0' x"],
    ];
    cli.ok(&run.concat());
    let labels = cli.ok(&["inspect", "db"]);
    let start = labels.find("/var/lib/gantry/logs").unwrap();
    let path = labels[start..].split('"').next().unwrap();
    eventually("the rotation", || Path::new(&format!("{path}.2")).exists().then_some(()));
    eventually("the end", || (!cli.ok(&["ps"]).contains("running")).then_some(()));
    cli.ok(&["rm", "-f", "web", "db"]);
    assert!(!Path::new(path).parent().unwrap().exists());
    let output = cli.run(&["run", "-d", "--log-max-files", "1000", BUSYBOX, "many", "/bin/true"]);
    assert!(output.code != 0 && output.stderr.contains("log-max-files"), "{output:?}");
    assert_eq!(cli.ok(&["ps", "-q"]), "");
    cli.close();
}

#[test]
fn gantry_rm_f_removes_what_is_frozen() {
    root!();
    on_each(|daemon| {
        let cli = Cli::with_busybox(daemon);
        cli.ok(&["run", "-d", BUSYBOX, "web", "/bin/sleep", "1000"]);
        cli.ok(&["pause", "web"]);
        assert_eq!(cli.ok(&["rm", "-f", "web"]), "web\n");
        cli.close();
    });
}

#[test]
fn gantry_passes_signals_on_and_ends_what_ignores_them() {
    root!();
    on_each(|daemon| {
        let cli = Cli::with_busybox(daemon);
        let script = "trap 'echo caught; exit 5' TERM; echo ready; while true; do sleep 0.1; done";
        let mut polite = cli.spawn(&["run", "--rm", BUSYBOX, "c1", "/bin/sh", "-c", script]);
        polite.wait_for_output("ready");
        polite.signal(Signal::TERM);
        let output = polite.wait();
        assert_eq!((output.code, output.stdout.as_str()), (5, "ready\ncaught\n"), "{output:?}");
        cli.assert_no_container();

        // The first process of a container is not ended by a signal that it does not ask for.
        let mut deaf =
            cli.spawn(&["run", "--rm", BUSYBOX, "c2", "/bin/sh", "-c", "echo ready; exec sleep 1000"]);
        deaf.wait_for_output("ready");
        // Signals that come too fast become one.
        eventually("the process to be given up", || {
            deaf.signal(Signal::INT);
            deaf.try_wait()
        });
        assert!(deaf.stderr().contains("once more ends it by the signal KILL"), "{}", deaf.stderr());
        assert_eq!(deaf.wait().code, 137);
        cli.close();
    });
}

//! `ctr run`.

use std::fs;

use gantry_testkit::{Compression, ImageBuilder, busybox_layer, eventually, root};

use crate::stage::{BUSYBOX, same_on_both};

#[test]
fn run_rm_prints_and_returns_what_the_process_does() {
    root!();
    same_on_both(|s, _| {
        s.import_busybox();
        let printed = s.ok(&["run", "--rm", BUSYBOX, "c1", "/bin/echo", "hello"]);
        assert_eq!(printed, "hello\n");
        let output =
            s.any(&["run", "--rm", BUSYBOX, "c2", "/bin/sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (7, "out\n", "err\n"));
        s.table(&["containers", "ls"], &[]);
        s.table(&["tasks", "ls"], &[]);
        s.table(&["snapshots", "ls"], &[]);
    });
}

#[test]
fn run_rm_takes_input_and_much_output() {
    root!();
    same_on_both(|s, _| {
        use std::io::Write;
        s.import_busybox();
        let mut cat = s.ctr.spawn_with_input(&["run", "--rm", BUSYBOX, "c1", "/bin/cat"]);
        cat.stdin().write_all(b"one\ntwo\n").unwrap();
        cat.wait_for_output("two");
        cat.stdin().write_all(b"three\n").unwrap();
        cat.close_stdin();
        assert_eq!(cat.wait().expect_success("cat"), "one\ntwo\nthree\n");
        let printed = s.ctr.ok(&["run", "--rm", BUSYBOX, "c2", "/bin/seq", "200000"]);
        assert_eq!(printed.lines().count(), 200_000);
        assert!(printed.ends_with("\n200000\n"));
    });
}

#[test]
fn run_uses_environment_user_and_directory_of_the_image_and_of_the_command_line() {
    root!();
    same_on_both(|s, _| {
        let image = ImageBuilder::new()
            .layer(busybox_layer(), Compression::Gzip)
            .env("PATH=/bin")
            .env("FROM_IMAGE=yes")
            .user("user")
            .workdir("/home/user")
            .entrypoint(&["/bin/sh", "-c"])
            .cmd(&["id; pwd; env | sort"])
            .build();
        s.import(&image, "example.org/configured:1");
        let printed = s.ok(&["run", "--rm", "example.org/configured:1", "c1"]);
        assert!(
            printed.contains("uid=1000")
                && printed.contains("/home/user\n")
                && printed.contains("FROM_IMAGE=yes"),
            "{printed}"
        );
        let printed = s.ok(&[
            "run",
            "--rm",
            "--env",
            "GIVEN=1",
            "--cwd",
            "/tmp",
            "example.org/configured:1",
            "c2",
            "/bin/sh",
            "-c",
            "pwd; env | sort",
        ]);
        assert!(printed.contains("/tmp\n") && printed.contains("GIVEN=1"), "{printed}");
    });
}

#[test]
fn run_mounts_limits_and_confines() {
    root!();
    same_on_both(|s, _| {
        s.import_busybox();
        let shared = s.daemon.dir().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join("file"), "from outside\n").unwrap();
        let mount = format!("type=bind,src={},dst=/shared,options=rbind:ro", shared.display());
        let output = s.ctr.run(&[
            "run",
            "--rm",
            "--mount",
            &mount,
            BUSYBOX,
            "c1",
            "/bin/sh",
            "-c",
            "cat /shared/file; echo x > /shared/new",
        ]);
        assert!(output.stdout.contains("from outside") && output.stderr.contains("Read-only"), "{output:?}");
        let output = s.any(&["run", "--rm", "--read-only", BUSYBOX, "c2", "/bin/sh", "-c", "echo x > /new"]);
        assert!(output.code != 0 && output.stderr.contains("Read-only"), "{output:?}");
        // The built-in runtime names the link to /proc/kcore `kcore`, runc `core` (docs/decisions.md).
        let status = "grep -E 'Cap(Eff|Bnd|Prm|Inh|Amb)|NoNewPrivs|Seccomp:' /proc/self/status; cat /proc/self/oom_score_adj; ls /dev | sed s/^kcore/core/ | sort; hostname";
        s.ok(&["run", "--rm", BUSYBOX, "c3", "/bin/sh", "-c", status]);
        s.ok(&[
            "run",
            "--rm",
            "--cap-add",
            "CAP_SYS_ADMIN",
            "--cap-drop",
            "CAP_CHOWN",
            "--allow-new-privs",
            BUSYBOX,
            "c4",
            "/bin/sh",
            "-c",
            status,
        ]);
        let output = s.any(&[
            "run",
            "--rm",
            "--seccomp",
            BUSYBOX,
            "c5",
            "/bin/sh",
            "-c",
            "grep Seccomp: /proc/self/status; unshare -U true",
        ]);
        assert!(output.stdout.contains('2') && output.stderr.contains("not permitted"), "{output:?}");
        // The three of every process, and the one that lists them.
        assert_eq!(s.ok(&["run", "--rm", BUSYBOX, "fds", "/bin/ls", "/proc/self/fd"]), "0\n1\n2\n3\n");
        s.ok(&["run", "-d", "--memory-limit", "67108864", BUSYBOX, "c6", "/bin/sleep", "1000"]);
        let limits = ["memory/default/c6/memory.limit_in_bytes", "default/c6/memory.max"];
        let limit = limits.iter().find_map(|file| fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok());
        assert_eq!(limit.as_deref(), Some("67108864\n"));
        s.ok(&["tasks", "kill", "-s", "9", "c6"]);
        s.ok(&[
            "run",
            "--rm",
            BUSYBOX,
            "c7",
            "/bin/sh",
            "-c",
            "cut -d ' ' -f 2- /proc/mounts | sed 's/lowerdir=.*//' | sort",
        ]);
    });
}

#[test]
fn run_d_leaves_a_task_that_is_found_and_ended() {
    root!();
    same_on_both(|s, _| {
        s.import_busybox();
        let file = s.daemon.dir().join("pid");
        s.ok(&[
            "run",
            "-d",
            "--label",
            "a=b",
            "--pid-file",
            &file.to_string_lossy(),
            BUSYBOX,
            "web",
            "/bin/sleep",
            "1000",
        ]);
        let pid: u32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let listed = s.table(&["tasks", "ls"], &["PID"]);
        assert!(listed.contains(&pid.to_string()) && listed.contains("RUNNING"), "{listed}");
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert_eq!(line, "/bin/sleep\x001000\x00");
        s.ok(&["tasks", "kill", "--signal", "SIGKILL", "web"]);
        eventually("the task to stop", || s.ctr.ok(&["tasks", "ls"]).contains("STOPPED").then_some(()));
        s.table(&["tasks", "ls"], &["PID"]);
        // ctr passes the exit status of the task on.
        assert_eq!(s.any(&["tasks", "rm", "web"]).code, 0);
        s.table(&["tasks", "ls"], &["PID"]);
        s.ok(&["containers", "rm", "web"]);
        s.table(&["containers", "ls"], &[]);
        s.table(&["snapshots", "ls"], &[]);
    });
}

#[test]
fn run_t_gives_a_terminal_with_the_clients_size() {
    root!();
    same_on_both(|s, _| {
        s.import_busybox();
        let mut terminal = s.on_terminal(&["run", "--rm", "-t", BUSYBOX, "c1", "/bin/sh"]);
        terminal.wait_for("#");
        terminal.type_text("tty; echo $((40 + 2))\n");
        terminal.wait_for("42\n");
        let screen = terminal.screen();
        assert!(screen.contains("/dev/pts/0") || screen.contains("/dev/console"), "{screen}");
        terminal.type_until("stty size\n", "30 100\n");
        terminal.resize(120, 40);
        terminal.type_until("stty size\n", "40 120\n");
        terminal.type_text("exit 5\n");
        assert_eq!(terminal.wait(), 5, "{}", terminal.screen());
    });
}

#[test]
fn run_with_the_hosts_network_sees_the_hosts_interfaces() {
    root!();
    same_on_both(|s, _| {
        s.import_busybox();
        let command = ["/bin/sh", "-c", "ip -o link | wc -l; readlink /proc/self/ns/net"];
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let inside = |s: &mut crate::stage::Stage, args: &[&str]| {
            s.ctr.ok(&[&["run", "--rm"], args, &command].concat())
        };
        let shared = inside(s, &["--net-host", BUSYBOX, "c1"]);
        assert!(shared.contains(&*own.to_string_lossy()), "{shared}");
        let private = inside(s, &[BUSYBOX, "c2"]);
        assert!(!private.contains(&*own.to_string_lossy()), "{private}");
    });
}

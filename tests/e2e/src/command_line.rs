//! `gantry`, the command line, on both daemons.

mod errors;
mod lives;
mod maintenance;
mod pulls;
mod terminals;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use gantry_testkit::{
    Background, Compression, Ctr, Daemon, DaemonOptions, ImageBuilder, Output, Program, Pty, Registry,
    bin_dir, busybox_image, busybox_layer, eventually, root, run,
};

use crate::stage::BUSYBOX;

/// Our command line, bound to one daemon.
struct Cli {
    daemon: Daemon,
    ctr: Ctr,
}

impl Cli {
    fn on(daemon: Daemon) -> Cli {
        let ctr = daemon.ctr();
        Cli { daemon, ctr }
    }

    /// With busybox imported as [`BUSYBOX`].
    fn with_busybox(daemon: Daemon) -> Cli {
        let cli = Self::on(daemon);
        let archive = cli.daemon.dir().join("busybox.tar");
        busybox_image().write_oci_archive(&archive, BUSYBOX);
        cli.ctr.ok(&["images", "import", &archive.to_string_lossy()]);
        cli
    }

    fn command(&self, args: &[&str]) -> Command {
        command(&self.daemon.address(), args)
    }

    fn run(&self, args: &[&str]) -> Output {
        run(&mut self.command(args))
    }

    /// Standard output of a run that must succeed and say nothing on standard error.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "gantry {}: {output:?}", args.join(" "));
        output.stdout
    }

    /// Standard error of a run that must fail with an error of ours, and print nothing else.
    fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "gantry {}: {output:?}", args.join(" "));
        output.stderr
    }

    fn spawn(&self, args: &[&str]) -> Background {
        Background::spawn(&mut self.command(args))
    }

    fn on_terminal(&self, args: &[&str]) -> Pty {
        Pty::spawn(&mut self.command(args), 100, 30)
    }

    /// Nothing is left of any container.
    fn assert_no_container(&self) {
        for noun in ["tasks", "containers", "leases"] {
            assert!(self.ctr.names(&[noun, "ls"]).is_empty(), "{noun}: {}", self.ctr.ok(&[noun, "ls"]));
        }
        let snapshots = self.ctr.ok(&["snapshots", "ls"]);
        assert!(!snapshots.contains("Active"), "{snapshots}");
    }

    /// Nothing is left at all, once the images are removed.
    fn close(&self) {
        self.assert_no_container();
        for image in self.ctr.names(&["images", "ls"]) {
            self.ok(&["rmi", &image]);
        }
        for noun in ["snapshots", "content"] {
            assert!(self.ctr.names(&[noun, "ls"]).is_empty(), "{noun}: {}", self.ctr.ok(&[noun, "ls"]));
        }
        self.daemon.leftovers().assert_none();
    }
}

fn command(address: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(bin_dir().join("gantry"));
    command.arg("--address").arg(address).args(args);
    for variable in ["CONTAINERD_ADDRESS", "CONTAINERD_NAMESPACE", "CONTAINERD_SNAPSHOTTER", "DOCKER_CONFIG"]
    {
        command.env_remove(variable);
    }
    command
}

/// Plays `story` on the daemon under test and, if that is ours, on containerd.
fn on_each(story: impl Fn(Daemon)) {
    let under_test = Program::under_test();
    let is_peer = under_test.is_containerd();
    story(DaemonOptions::new(under_test).start());
    if !is_peer {
        story(DaemonOptions::new(Program::containerd()).start());
    }
}

#[test]
fn gantry_run_rm_prints_and_returns_what_the_process_does_and_leaves_nothing() {
    root!();
    on_each(|daemon| {
        let cli = Cli::with_busybox(daemon);
        assert_eq!(cli.ok(&["run", "--rm", BUSYBOX, "c1", "/bin/echo", "hello"]), "hello\n");
        // A short name will do, and an id is made up.
        assert_eq!(cli.ok(&["run", "--rm", "busybox"]), "");
        let output =
            cli.run(&["run", "--rm", BUSYBOX, "c2", "/bin/sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (7, "out\n", "err\n"));
        cli.close();
    });
}

#[test]
fn gantry_run_passes_input_on_where_asked_to() {
    root!();
    on_each(|daemon| {
        use std::io::Write;
        let cli = Cli::with_busybox(daemon);
        let mut cat = Background::spawn_with(
            &mut cli.command(&["run", "--rm", "-i", BUSYBOX, "c1", "/bin/cat"]),
            Stdio::piped(),
        );
        cat.stdin().write_all(b"one\n").unwrap();
        cat.wait_for_output("one");
        cat.stdin().write_all(b"two\n").unwrap();
        cat.close_stdin();
        assert_eq!(cat.wait().expect_success("cat"), "one\ntwo\n");
        // Without -i there is none, although somebody offers some.
        let mut cat = Background::spawn_with(
            &mut cli.command(&["run", "--rm", BUSYBOX, "c2", "/bin/cat"]),
            Stdio::piped(),
        );
        cat.stdin().write_all(b"lost\n").unwrap();
        assert_eq!(cat.wait().expect_success("cat"), "");
        assert_eq!(cli.ok(&["run", "--rm", BUSYBOX, "c3", "/bin/seq", "100000"]).lines().count(), 100_000);
        cli.close();
    });
}

#[test]
fn gantry_run_uses_mounts_environment_user_and_directory() {
    root!();
    on_each(|daemon| {
        let cli = Cli::on(daemon);
        let image = ImageBuilder::new()
            .layer(busybox_layer(), Compression::Gzip)
            .env("PATH=/bin")
            .env("FROM_IMAGE=yes")
            .user("user")
            .workdir("/home/user")
            .cmd(&["/bin/sh", "-c", "id -u; pwd"])
            .build();
        let archive = cli.daemon.dir().join("image.tar");
        image.write_oci_archive(&archive, "example.org/configured:1");
        cli.ctr.ok(&["images", "import", &archive.to_string_lossy()]);
        assert_eq!(cli.ok(&["run", "--rm", "example.org/configured:1", "c1"]), "1000\n/home/user\n");

        let shared = cli.daemon.dir().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join("file"), "from outside\n").unwrap();
        let env_file = cli.daemon.dir().join("env");
        fs::write(&env_file, "# a comment\nFROM_FILE=a b\n").unwrap();
        let (volume, mount) = (
            format!("{}:/volume:ro", shared.display()),
            format!("type=bind,src={},dst=/mount,options=rbind", shared.display()),
        );
        let script = "id -u; pwd; echo $FROM_IMAGE/$FROM_FILE/$GIVEN; cat /volume/file; echo new > /mount/new; \
                      echo x > /volume/x; echo x > /x; exit 0";
        let output = cli.run(&[
            "run",
            "--rm",
            "--read-only",
            "-v",
            &volume,
            "--mount",
            &mount,
            "--env-file",
            &env_file.to_string_lossy(),
            "-e",
            "GIVEN=1",
            "-e",
            "FROM_IMAGE",
            "-u",
            "0",
            "-w",
            "/tmp",
            "example.org/configured:1",
            "c2",
            "/bin/sh",
            "-c",
            script,
        ]);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (0, "0\n/tmp\n/a b/1\nfrom outside\n"),
            "{output:?}"
        );
        assert_eq!(output.stderr.matches("Read-only file system").count(), 2, "{output:?}");
        assert_eq!(fs::read_to_string(shared.join("new")).unwrap(), "new\n");
        cli.close();
    });
}

/// The first of `files` below the cgroup file systems that exists.
fn cgroup_file(files: &[&str]) -> String {
    let found = files.iter().find_map(|file| fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok());
    found.unwrap_or_else(|| panic!("none of {files:?}")).trim().to_owned()
}

#[test]
fn gantry_runs_limits_reach_the_cgroup() {
    root!();
    on_each(|daemon| {
        let cli = Cli::with_busybox(daemon);
        let limits = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "42"];
        cli.ok(&[&["run", "-d"], &limits[..], &[BUSYBOX, "limited", "/bin/sleep", "1000"]].concat());
        let memory = ["memory/default/limited/memory.limit_in_bytes", "default/limited/memory.max"];
        assert_eq!(cgroup_file(&memory), "67108864");
        let pids = ["pids/default/limited/pids.max", "default/limited/pids.max"];
        assert_eq!(cgroup_file(&pids), "42");
        let cpu = [
            "cpu,cpuacct/default/limited/cpu.cfs_quota_us",
            "cpu/default/limited/cpu.cfs_quota_us",
            "default/limited/cpu.max",
        ];
        assert_eq!(cgroup_file(&cpu).split(' ').next(), Some("50000"));
        cli.ok(&["rm", "-f", "limited"]);
        cli.close();
    });
}

#[test]
fn gantry_events_plugins_and_version_tell_of_the_daemon() {
    root!();
    on_each(|daemon| {
        let cli = Cli::with_busybox(daemon);
        let mut events = cli.spawn(&["events"]);
        // Until the first event is there, nobody knows that they are listened to.
        eventually("an event", || {
            cli.ctr.ok(&["namespaces", "label", "default", "a=b"]);
            (!events.stdout().is_empty()).then_some(())
        });
        cli.ok(&["run", "--rm", BUSYBOX, "c1", "/bin/true"]);
        events.wait_for_output(" default /containers/delete {\"id\":\"c1\"}\n");
        let seen = events.stdout();
        let exit = seen.lines().find(|line| line.contains(" default /tasks/exit ")).expect("an exit");
        let (time, rest) = exit.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.len() == "2026-01-01T00:00:00.000000000Z".len(), "{exit}");
        let fields: serde_json::Value = serde_json::from_str(rest.splitn(3, ' ').nth(2).unwrap()).unwrap();
        assert_eq!((&fields["container_id"], &fields["id"]), (&"c1".into(), &"c1".into()));
        events.kill();

        let plugins = cli.ok(&["plugins"]);
        assert!(plugins.starts_with("TYPE "), "{plugins}");
        let native = plugins.lines().find(|line| line.contains("native")).expect("the native snapshotter");
        assert!(native.contains("io.containerd.snapshotter.v1") && native.ends_with("ok"), "{native}");
        assert_eq!(cli.ok(&["plugins", "id==native"]).lines().count(), 2);

        let version = cli.ok(&["version"]);
        assert!(version.starts_with("Client:\n  Version:  ") && version.contains("\nServer:\n"), "{version}");
        cli.close();
    });
}

#[test]
fn gantry_pulls_the_image_that_run_misses_in_another_namespace() {
    root!();
    let registry = Registry::start();
    let reference = registry.push(&busybox_image(), "library/busybox:1");
    on_each(|daemon| {
        let cli = Cli::on(daemon);
        let run = |flags: &[&str], id: &str| {
            cli.run(&[&["-n", "other", "run", "--rm"], flags, &[&reference, id, "/bin/echo", "hi"]].concat())
        };
        let refused = run(&["--pull", "never"], "c0");
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.starts_with(&format!("gantry: image {reference:?}: ")), "{refused:?}");
        assert!(
            refused.stderr.ends_with(&format!(": not found\nhint: gantry pull {reference}\n")),
            "{refused:?}"
        );
        let first = run(&[], "c1");
        assert_eq!((first.code, first.stdout.as_str()), (0, "hi\n"), "{first:?}");
        assert!(first.stderr.contains("layer sha256:") && first.stderr.contains("unpacked\n"), "{first:?}");
        let second = run(&[], "c2");
        assert_eq!((second.code, second.stderr.as_str()), (0, ""), "{second:?}");
        // The image is there, but not in this snapshotter.
        let third = run(&["--snapshotter", "native"], "c3");
        assert_eq!((third.code, third.stdout.as_str()), (0, "hi\n"), "{third:?}");
        assert_eq!(cli.ok(&["images"]), "NAME  DIGEST  SIZE  UPDATED\n");
        cli.ok(&["-n", "other", "rmi", &reference]);
        cli.daemon.leftovers().assert_none();
    });
}

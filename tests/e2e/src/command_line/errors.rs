//! What `gantry` says when something is wrong: step and object on one line, advice on the next.

use std::net::TcpListener;
use std::path::Path;

use gantry_testkit::{FakeRegistry, Fault, busybox_image, root, run};

use super::{Cli, command, on_each};
use crate::stage::BUSYBOX;

/// Checks that `said` is one line of error with all of `wanted`, and one of advice with `hint`.
fn check(said: &str, wanted: &[&str], hint: &str) {
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "a line of error and one of advice: {said}");
    assert!(lines[0].starts_with("gantry: ") && lines[1].starts_with("hint: "), "{said}");
    for text in wanted {
        assert!(lines[0].contains(text), "no {text:?} in: {said}");
    }
    assert!(lines[1].contains(hint), "no {hint:?} in: {said}");
}

#[test]
fn gantry_says_that_no_daemon_answers() {
    root!();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    let output = run(&mut command(&socket, &["ps"]));
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
    check(&output.stderr, &["connect to ", "none.sock"], "is gantryd running?");
    // Nobody listens any more.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let output = run(&mut command(&socket, &["version"]));
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stdout.starts_with("Client:\n"), "what it knows of itself: {output:?}");
    check(&output.stderr, &["connect to ", "none.sock"], "is gantryd running?");
}

#[test]
fn gantry_says_which_image_is_missing_and_why() {
    root!();
    let registry = FakeRegistry::start();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    on_each(|daemon| {
        let cli = Cli::on(daemon);
        let unknown = format!("{}/no/such:1", registry.address());
        for verb in [&["pull"][..], &["run", "--rm"]] {
            let said = cli.fails(&[verb, &["--plain-http", &unknown]].concat());
            check(&said, &["pull ", "no/such:1", "not found"], "check name and tag");
            let down = format!("{free}/team/app:1");
            let said = cli.fails(&[verb, &["--plain-http", &down]].concat());
            check(&said, &["pull ", &free, "refused"], "can ");
        }
        let said = cli.fails(&["run", "--pull", "never", "imaginary", "c1"]);
        check(&said, &["docker.io/library/imaginary:latest", "not found"], "gantry pull imaginary");
        let said = cli.fails(&["rmi", "imaginary"]);
        check(&said, &["imaginary", "not found"], "gantry images");
        let said = cli.fails(&["pull", "NotAName"]);
        check(&said, &["NotAName", "lowercase"], "small letters");
        cli.close();
    });
}

#[test]
fn gantry_says_that_a_registry_wants_credentials_and_takes_them_from_where_docker_left_them() {
    root!();
    let registry = FakeRegistry::start();
    let reference = registry.offer(&busybox_image(), "team/app:1");
    registry.set_fault(Some(Fault::Unauthorized));
    on_each(|daemon| {
        let cli = Cli::on(daemon);
        let said = cli.fails(&["pull", "--plain-http", &reference]);
        check(&said, &["pull ", "team/app:1", "401"], "docker login");
        let said = cli.fails(&["pull", "--plain-http", "--user", "me:hunter2", &reference]);
        assert!(!said.contains("hunter2"), "{said}");
        // A configuration that cannot be read is named, rather than passed over.
        let config = cli.daemon.dir().join("docker");
        std::fs::create_dir(&config).unwrap();
        std::fs::write(config.join("config.json"), "{").unwrap();
        let output = run(cli.command(&["pull", "--plain-http", &reference]).env("DOCKER_CONFIG", &config));
        assert!(output.code == 1 && output.stderr.contains("docker/config.json"), "{output:?}");
        cli.close();
    });
}

#[test]
fn gantry_says_which_container_is_missing() {
    root!();
    on_each(|daemon| {
        let cli = Cli::with_busybox(daemon);
        for args in [
            &["exec", "imaginary", "/bin/true"][..],
            &["kill", "imaginary"],
            &["rm", "imaginary"],
            &["logs", "imaginary"],
            &["inspect", "imaginary"],
            &["pause", "imaginary"],
        ] {
            check(&cli.fails(args), &["container \"imaginary\"", "not found"], "gantry ps");
        }
        cli.ctr.ok(&["containers", "create", BUSYBOX, "idle", "/bin/true"]);
        check(
            &cli.fails(&["exec", "idle", "/bin/true"]),
            &["task", "\"idle\"", "not found"],
            "gantry rm idle",
        );
        check(&cli.fails(&["logs", "idle"]), &["\"idle\"", "log file"], "run -d");
        cli.ok(&["rm", "idle"]);
        cli.close();
    });
}

#[test]
fn gantry_says_why_a_container_cannot_run_and_leaves_nothing_of_it() {
    root!();
    on_each(|daemon| {
        let cli = Cli::with_busybox(daemon);
        for mode in ["--rm", "-d", "--read-only"] {
            let said = cli.fails(&["run", mode, BUSYBOX, "c1", "/bin/imaginary"]);
            check(&said, &["\"c1\"", "/bin/imaginary"], "is /bin/imaginary in the image");
            cli.assert_no_container();
            let runtime =
                ["run", mode, "--runtime", "io.containerd.imaginary.v1", BUSYBOX, "c1", "/bin/true"];
            check(&cli.fails(&runtime), &["container \"c1\"", "imaginary"], "installed");
            cli.assert_no_container();
            let said = cli.fails(&["run", mode, "--user", "nobody-here", BUSYBOX, "c1", "/bin/true"]);
            assert!(
                said.starts_with("gantry: create container \"c1\"") && said.contains("nobody-here"),
                "{said}"
            );
            cli.assert_no_container();
            let mount = "type=bind,src=/imaginary/source,dst=/x,options=rbind";
            let said = cli.fails(&["run", mode, "--mount", mount, BUSYBOX, "c1", "/bin/true"]);
            assert!(said.contains("/imaginary/source"), "{said}");
            cli.assert_no_container();
        }
        assert!(!has_logs(&cli), "no log file stays");
        cli.ok(&["run", "-d", BUSYBOX, "web", "/bin/sleep", "1000"]);
        assert!(has_logs(&cli));
        let said = cli.fails(&["run", "--rm", BUSYBOX, "web", "/bin/true"]);
        check(&said, &["create container \"web\"", "already exists"], "gantry rm web");
        assert!(cli.ok(&["ps"]).contains("running"), "the other one is as it was");
        let said = cli.fails(&["exec", "web", "/bin/imaginary"]);
        check(&said, &["\"web\"", "/bin/imaginary"], "is /bin/imaginary in the image");
        cli.ok(&["rm", "-f", "web"]);
        assert!(!has_logs(&cli), "no log file stays");
        cli.close();
    });
}

/// Whether there is a log file of this daemon's where they are by default.
fn has_logs(cli: &Cli) -> bool {
    let version = cli.ok(&["version"]);
    let uuid = version.lines().find_map(|line| line.trim().strip_prefix("UUID:")).expect("the daemon's id");
    Path::new("/var/lib/gantry/logs").join(uuid.trim()).exists()
}

#[test]
fn gantry_refuses_arguments_that_cannot_be() {
    root!();
    let nowhere = Path::new("/imaginary/d.sock");
    for (args, wanted) in [
        (&["run", "--memory", "64x", "debian", "c1"][..], "64x"),
        (&["run", "--cpus", "0", "debian", "c1"], "processors"),
        (&["run", "-v", "data:/data", "debian", "c1"], "named volumes"),
        (&["run", "-d", "--rm", "debian", "c1"], "--rm"),
        (&["run"], "IMAGE"),
        (&["kill", "--signal", "NONSENSE", "c1"], "NONSENSE"),
        (&["exec", "c1"], "COMMAND"),
        (&["rm"], "ID"),
        (&["imaginary"], "imaginary"),
    ] {
        let output = run(&mut command(nowhere, args));
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{args:?}: {output:?}");
        assert!(output.stderr.contains(wanted), "no {wanted:?} in: {}", output.stderr);
    }
    on_each(|daemon| {
        let cli = Cli::with_busybox(daemon);
        let output = cli.run(&["run", BUSYBOX, "../c1", "/bin/true"]);
        assert_eq!(output.code, 2, "{output:?}");
        check(&output.stderr, &["container id", "../c1"], "flags go before the image");
        check(&cli.fails(&["run", "-t", "-i", BUSYBOX, "c1"]), &["no terminal"], "leave out -t");
        cli.close();
    });
}

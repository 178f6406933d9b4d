//! Two daemons on one root, and sockets that nobody listens on.

use std::os::unix::net::UnixListener;

use gantry_testkit::{Background, DaemonOptions, Program, root};

#[test]
fn a_second_daemon_on_a_root_is_refused_and_the_first_goes_on() {
    root!();
    let program = Program::under_test();
    if program.is_containerd() {
        // It waits for the lock on its database and says nothing; ours refuses at once (DESIGN.md section 1).
        return;
    }
    let first = DaemonOptions::new(program.clone()).start();
    first.ctr().ok(&["leases", "create", "--id", "before"]);
    let second = DaemonOptions::new(program).root(first.root()).prepare();
    let output = Background::spawn(&mut second.command()).wait();
    assert_ne!(output.code, 0);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains(&first.pid().to_string()), "names the pid of the first: {said}");
    assert!(said.contains(&*first.root().to_string_lossy()), "names the root: {said}");
    assert_eq!(first.ctr().names(&["leases", "ls"]), ["before"]);
}

#[test]
fn a_second_daemon_on_a_socket_does_not_take_it_over() {
    root!();
    let program = Program::under_test();
    if program.is_containerd() {
        // It removes the socket under the first one, which then cannot be reached any more.
        return;
    }
    let first = DaemonOptions::new(program.clone()).start();
    let second = DaemonOptions::new(program).prepare();
    let mut command = second.command();
    command.arg("--address").arg(first.address());
    let output = Background::spawn(&mut command).wait();
    assert_ne!(output.code, 0);
    first.ctr().ok(&["version"]);
}

#[test]
fn a_stale_socket_is_replaced() {
    root!();
    let mut daemon = DaemonOptions::new(Program::under_test()).prepare();
    drop(UnixListener::bind(daemon.address()).unwrap());
    assert!(daemon.address().exists());
    daemon.start();
    daemon.ctr().ok(&["version"]);
    daemon.kill();
    assert!(daemon.address().exists(), "a kill leaves the socket");
    daemon.start();
    daemon.ctr().ok(&["namespaces", "ls"]);
    daemon.stop();
}

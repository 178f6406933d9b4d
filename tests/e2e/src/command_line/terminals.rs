//! `gantry run -t` and `gantry exec -t`.

use gantry_testkit::root;

use super::{Cli, on_each};
use crate::stage::BUSYBOX;

#[test]
fn gantry_run_t_gives_a_terminal_with_the_clients_size() {
    root!();
    on_each(|daemon| {
        let cli = Cli::with_busybox(daemon);
        let mut terminal = cli.on_terminal(&["run", "--rm", "-t", "-i", BUSYBOX, "c1", "/bin/sh"]);
        terminal.wait_for("#");
        terminal.type_text("tty; echo $((40 + 2))\n");
        terminal.wait_for("42\n");
        let screen = terminal.screen();
        assert!(screen.contains("/dev/pts/0") || screen.contains("/dev/console"), "{screen}");
        terminal.type_until("stty size\n", "30 100\n");
        terminal.resize(120, 40);
        terminal.type_until("stty size\n", "40 120\n");
        // A key that means something to a terminal goes to the process, not to us.
        terminal.type_text("sleep 1000\n");
        terminal.type_until("\u{3}", "^C");
        terminal.type_text("\nexit 5\n");
        assert_eq!(terminal.wait(), 5, "{}", terminal.screen());
        cli.close();
    });
}

#[test]
fn gantry_exec_t_gives_a_terminal_of_its_own() {
    root!();
    on_each(|daemon| {
        let cli = Cli::with_busybox(daemon);
        cli.ok(&["run", "-d", BUSYBOX, "web", "/bin/sleep", "1000"]);
        let mut terminal = cli.on_terminal(&["exec", "-t", "-i", "web", "/bin/sh"]);
        terminal.wait_for("#");
        terminal.type_until("stty size\n", "30 100\n");
        terminal.type_text("exit 4\n");
        assert_eq!(terminal.wait(), 4, "{}", terminal.screen());
        cli.ok(&["rm", "-f", "web"]);
        cli.close();
    });
}

#[test]
fn gantry_run_t_without_input_shows_and_returns_what_the_process_does() {
    root!();
    on_each(|daemon| {
        let cli = Cli::with_busybox(daemon);
        let script = "trap 'echo caught; exit 6' INT; stty size; while true; do sleep 0.1; done";
        let mut terminal = cli.on_terminal(&["run", "--rm", "-t", BUSYBOX, "c1", "/bin/sh", "-c", script]);
        terminal.wait_for("30 100");
        cli.ctr.ok(&["tasks", "kill", "-s", "SIGINT", "c1"]);
        assert_eq!(terminal.wait(), 6, "{}", terminal.screen());
        cli.close();
    });
}

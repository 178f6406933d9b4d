//! A tour: daemon and command line on private directories, with a local registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use gantry_testkit::isolate::{Isolated, inside};
use gantry_testkit::{Background, Daemon, DaemonOptions, Program, Pty, Registry, bin_dir};

use crate::debian_image;
use crate::programs::build;
use crate::setup::{NEEDED, setup};
use crate::step::{Result, at, need_root, run, say};

const DEBIAN: &str = "docker.io/library/debian:latest";
const BUSYBOX: &str = "docker.io/library/busybox:latest";
/// How wide the terminal is.
const COLUMNS: u16 = 110;

/// `demo [--online]`.
pub(crate) fn demo(args: &[&str]) -> Result<()> {
    let online = match args {
        [] => false,
        ["--online"] => true,
        _ => return Err("demo takes --online and nothing else".to_owned()),
    };
    if inside() {
        return tour(online);
    }
    need_root("cargo xtask demo")?;
    setup(NEEDED)?;
    build(false)?;
    debian_image::storage()?;
    let started = Instant::now();
    let exe = std::env::current_exe().map_err(|error| format!("where is this program: {error}"))?;
    let mut isolated = Isolated::new("demo", &exe);
    isolated.command.arg("demo").args(args).env("GANTRY_BIN_DIR", bin_dir());
    if online {
        isolated.share_network();
    }
    run(&mut isolated.command)?;
    say(&format!("the tour took {:.1} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// The command line, bound to one daemon.
struct Cli {
    address: PathBuf,
    hosts: Option<PathBuf>,
}

impl Cli {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(bin_dir().join("gantry"));
        command.arg("--address").arg(&self.address).args(args);
        command
    }

    /// Runs it, shows its output, and wants success.
    fn show(&self, args: &[&str]) -> Result<String> {
        println!("\n$ gantry {}", args.join(" "));
        let output = gantry_testkit::run(&mut self.command(args));
        for line in output.stdout.lines().chain(output.stderr.lines()) {
            println!("  {line}");
        }
        if output.success() {
            Ok(output.stdout)
        } else {
            Err(format!("gantry {} ended with {}", args.join(" "), output.code))
        }
    }

    /// Runs it on a terminal, types `typed`, and shows what was on the screen at the end.
    fn show_on_terminal(&self, args: &[&str], typed: &[(&str, &str)]) -> Result<String> {
        println!("\n$ gantry {}        (on a terminal)", args.join(" "));
        let mut terminal = Pty::spawn(&mut self.command(args), COLUMNS, 30);
        for (prompt, text) in typed {
            terminal.wait_for(prompt);
            terminal.type_text(text);
        }
        let code = terminal.wait();
        let screen = last_screen(&terminal.screen(), COLUMNS.into());
        for line in screen.lines() {
            println!("  {line}");
        }
        if code == 0 { Ok(screen) } else { Err(format!("gantry {} ended with {code}", args.join(" "))) }
    }

    /// Pulls `reference`, through the mirror if there is one.
    fn pull<'a>(&'a self, reference: &'a str) -> Vec<&'a str> {
        let mut args = vec!["pull"];
        if let Some(hosts) = &self.hosts {
            args.extend(["--hosts-dir", hosts.to_str().unwrap_or_default()]);
        }
        args.push(reference);
        args
    }
}

/// What a terminal of `columns` shows in the end: of a line that was drawn several times, only the last drawing.
fn last_screen(text: &str, columns: usize) -> String {
    let mut rows: Vec<String> = vec![String::new()];
    let mut row = 0usize;
    let mut chars = text.chars();
    while let Some(character) = chars.next() {
        match character {
            '\n' => row += 1,
            // A control sequence: `ESC [ number letter`.
            '\u{1b}' => {
                let mut number = String::new();
                let letter = chars.by_ref().find(|c| match c {
                    '0'..='9' => {
                        number.push(*c);
                        false
                    }
                    other => other.is_ascii_alphabetic(),
                });
                let count: usize = number.parse().unwrap_or(1);
                match letter {
                    Some('A') => row = row.saturating_sub(count),
                    Some('B') => row += count,
                    Some('K' | 'M') => rows[row].clear(),
                    _ => {}
                }
            }
            _ => {
                // A full line goes on in the next one.
                if rows[row].chars().count() == columns {
                    row += 1;
                }
                if rows.len() <= row {
                    rows.resize(row + 1, String::new());
                }
                rows[row].push(character);
            }
        }
        if rows.len() <= row {
            rows.resize(row + 1, String::new());
        }
    }
    let rows: Vec<&str> = rows.iter().map(|row| row.trim_end()).collect();
    rows.join("\n").trim_end().to_owned()
}

/// A certs.d that sends docker.io to `registry`. Source: containerd's docs/hosts.md.
fn mirror(dir: &Path, registry: &Registry) -> Result<PathBuf> {
    let hosts = dir.join("certs.d");
    let host = hosts.join("docker.io");
    fs::create_dir_all(&host).map_err(at(&host))?;
    let text = format!(
        "server = \"https://registry-1.docker.io\"\n\n[host.\"http://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
        registry.address()
    );
    let file = host.join("hosts.toml");
    fs::write(&file, &text).map_err(at(&file))?;
    say(&format!("a mirror for docker.io, {}:", file.display()));
    for line in text.lines() {
        println!("  {line}");
    }
    Ok(hosts)
}

fn tour(online: bool) -> Result<()> {
    let dir = tempfile::tempdir().map_err(|error| format!("a temporary directory: {error}"))?;
    // The daemon finds our shim, and no runtime.
    let empty = dir.path().join("no-runtimes");
    fs::create_dir(&empty).map_err(at(&empty))?;
    let mut daemon = DaemonOptions::new(Program::gantryd()).dir(dir.path()).search_path(&empty).start();
    say(&format!("gantryd serves at {}; no runc and no crun on its search path", daemon.address().display()));

    let registry = match online {
        true => None,
        false => Some(Registry::start_with_storage(&debian_image::storage()?)),
    };
    let hosts = registry.as_ref().map(|registry| mirror(dir.path(), registry)).transpose()?;
    let cli = Cli { address: daemon.address(), hosts };
    let mut events = Background::spawn(&mut cli.command(&["events"]));

    cli.show(&["version"])?;
    cli.show(&["plugins"])?;
    let screen = cli.show_on_terminal(&cli.pull(DEBIAN), &[])?;
    expect(&screen, "debian", "the pull names its image")?;
    cli.show(&cli.pull(BUSYBOX))?;
    cli.show(&["images"])?;

    let printed = cli.show(&["run", "--rm", DEBIAN, "hello", "cat", "/etc/os-release"])?;
    expect(&printed, "Debian GNU/Linux", "a real Debian")?;
    cli.show(&[
        "run",
        "-d",
        "--env",
        "COLOUR=green",
        "--memory",
        "64m",
        BUSYBOX,
        "web",
        "/bin/sleep",
        "1000",
    ])?;
    cli.show(&["ps"])?;
    let printed = cli.show(&["exec", "web", "/bin/sh", "-c", "echo in the container: $COLOUR; ps"])?;
    expect(&printed, "in the container: green", "the environment")?;
    let typed = [("#", "tty; stty size\n"), ("110", "exit\n")];
    let screen = cli.show_on_terminal(&["run", "--rm", "-t", "-i", DEBIAN, "shell", "bash"], &typed)?;
    expect(&screen, "30 110", "the terminal's size")?;

    cli.show(&["kill", "--signal", "KILL", "web"])?;
    cli.show(&["rm", "web"])?;
    cli.show(&["rmi", DEBIAN, BUSYBOX])?;
    cli.show(&["ps"])?;
    events.wait_for_output("/images/delete");
    println!("\n$ gantry events        (ran beside all this)");
    for line in events.stdout().lines() {
        println!("  {line}");
    }
    events.kill();

    leftovers(&mut daemon)
}

fn expect(printed: &str, wanted: &str, what: &str) -> Result<()> {
    if printed.contains(wanted) { Ok(()) } else { Err(format!("{what}: no {wanted:?} in what was printed")) }
}

/// Lists what is left when the daemon has stopped; it must be nothing.
fn leftovers(daemon: &mut Daemon) -> Result<()> {
    let ctr = daemon.ctr();
    let mut left = Vec::new();
    for (what, args) in [
        ("task", ["tasks", "ls"]),
        ("container", ["containers", "ls"]),
        ("image", ["images", "ls"]),
        ("snapshot", ["snapshots", "ls"]),
        ("content", ["content", "ls"]),
        ("lease", ["leases", "ls"]),
    ] {
        left.extend(ctr.names(&args).into_iter().map(|name| format!("{what} {name}")));
    }
    daemon.stop();
    left.extend(daemon.leftovers().list());
    say(
        "left behind: tasks, containers, images, snapshots, content, leases, mounts, processes, cgroups, bundles, fifos",
    );
    for line in &left {
        println!("  {line}");
    }
    println!("  ({} in all)", left.len());
    if left.is_empty() { Ok(()) } else { Err("something was left behind".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::last_screen;

    #[test]
    fn a_line_that_was_drawn_again_is_shown_once() {
        let text = "first 10%\nsecond 20%\n\u{1b}[2A\u{1b}[2Kfirst 100%\n\u{1b}[2Ksecond 100%\ndone";
        assert_eq!(last_screen(text, 80), "first 100%\nsecond 100%\ndone");
    }

    #[test]
    fn a_line_that_is_full_goes_on_below() {
        let text = "one  two  \u{1b}[1A\u{1b}[2K\u{1b}[1B\u{1b}[2K\u{1b}[1A1    2    \nend";
        assert_eq!(last_screen(text, 5), "1\n2\nend");
    }
}

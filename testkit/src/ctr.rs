//! Debian's `ctr`, a client that knows nothing of gantry.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::binaries::find_in_path;
use crate::command::{Background, Output, Pty, run};

/// A `ctr` bound to one daemon and one namespace.
#[derive(Clone, Debug)]
pub struct Ctr {
    program: PathBuf,
    address: PathBuf,
    namespace: String,
}

impl Ctr {
    /// The installed `ctr`, for the daemon at the socket `address`.
    #[must_use]
    pub fn new(address: &Path, namespace: &str) -> Ctr {
        let program = find_in_path("ctr").expect("ctr is installed (package containerd)");
        Ctr { program, address: address.to_path_buf(), namespace: namespace.to_owned() }
    }

    /// The same client in another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Ctr {
        Ctr { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// The same arguments given to another build of `ctr`.
    #[must_use]
    pub fn with_program(&self, program: &Path) -> Ctr {
        Ctr { program: program.to_path_buf(), ..self.clone() }
    }

    /// The command line of `ctr` with `args`.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--address").arg(&self.address).args(["--namespace", &self.namespace]).args(args);
        command.env_remove("CONTAINERD_SNAPSHOTTER").env_remove("CONTAINERD_NAMESPACE");
        command
    }

    /// Runs it with `args` to its end.
    ///
    /// When the process that it runs ends before `ctr` has opened the process's fifos, `ctr` gives up opening them and
    /// its output is lost (seen once in some 500 runs of 1.6.20 on a busy machine, with containerd itself as the daemon).
    /// So a run that printed nothing at all, where something was to be expected, is repeated, saying so, at most twice.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        let mut output = run(&mut self.command(args));
        for _ in 0..2 {
            if !output.stdout.is_empty() || !output.stderr.is_empty() || !prints(args) {
                break;
            }
            eprintln!("NO OUTPUT, once more: ctr {}", args.join(" "));
            output = run(&mut self.command(args));
        }
        output
    }

    /// Standard output of a run that must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        self.run(args).expect_success(&format!("ctr {}", args.join(" ")))
    }

    /// Standard error of a run that must fail.
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.success(), "ctr {} succeeded:\n{}{}", args.join(" "), output.stdout, output.stderr);
        output.stderr
    }

    /// Starts it beside the test.
    #[must_use]
    pub fn spawn(&self, args: &[&str]) -> Background {
        Background::spawn(&mut self.command(args))
    }

    /// Starts it beside the test, with a pipe as standard input.
    #[must_use]
    pub fn spawn_with_input(&self, args: &[&str]) -> Background {
        Background::spawn_with(&mut self.command(args), Stdio::piped())
    }

    /// Starts it on a terminal of 100 columns and 30 rows.
    #[must_use]
    pub fn on_terminal(&self, args: &[&str]) -> Pty {
        Pty::spawn(&mut self.command(args), 100, 30)
    }

    /// The first column of a table that it prints, without the heading.
    pub fn names(&self, args: &[&str]) -> Vec<String> {
        let table = self.ok(args);
        table.lines().skip(1).filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
    }
}

/// Whether `args` run a process in the foreground that is to be expected to print something.
fn prints(args: &[&str]) -> bool {
    let runs = matches!(args, ["run", ..] | ["tasks", "exec", ..]);
    runs && !args
        .iter()
        .any(|arg| matches!(*arg, "-d" | "--null-io" | "/bin/true" | "/bin/test" | "/bin/sleep"))
}

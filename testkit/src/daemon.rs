//! A daemon to start, kill, restart and stop.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::binaries::{bin_dir, find_in_path};
use crate::command::{Output, run};
use crate::ctr::Ctr;
use crate::eventually::{eventually, limit, scaled};
use crate::leftovers::Leftovers;

/// Which program serves as daemon, and where it finds its shim.
#[derive(Clone, Debug)]
pub struct Program {
    /// What tests call it: `gantryd`, `containerd`, or a path.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// A directory that comes first on its search path.
    pub shims: Option<PathBuf>,
}

impl Program {
    /// Our daemon with our shim, from the target directory.
    #[must_use]
    pub fn gantryd() -> Program {
        let dir = bin_dir();
        let path = dir.join("gantryd");
        assert!(path.exists(), "{} is missing: cargo xtask e2e builds it", path.display());
        Program { name: "gantryd".to_owned(), path, shims: Some(dir) }
    }

    /// The installed containerd with its own shim.
    #[must_use]
    pub fn containerd() -> Program {
        let path = find_in_path("containerd").expect("containerd is installed");
        Program { name: "containerd".to_owned(), path, shims: None }
    }

    /// The daemon that `GANTRY_E2E_DAEMON` asks for: `gantryd` (the default), `containerd`, or a path.
    #[must_use]
    pub fn under_test() -> Program {
        match std::env::var("GANTRY_E2E_DAEMON").as_deref() {
            Err(_) | Ok("" | "gantryd") => Program::gantryd(),
            Ok("containerd") => Program::containerd(),
            Ok(path) => Program { name: path.to_owned(), path: PathBuf::from(path), shims: Some(bin_dir()) },
        }
    }

    /// Whether this is not ours.
    #[must_use]
    pub fn is_containerd(&self) -> bool {
        self.name == "containerd"
    }

    /// The same program, with shims looked for in `dir` first.
    #[must_use]
    pub fn with_shims(mut self, dir: &Path) -> Program {
        self.shims = Some(dir.to_path_buf());
        self
    }
}

/// How to start a daemon.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    program: Program,
    dir: Option<PathBuf>,
    root: Option<PathBuf>,
    log_level: &'static str,
    config: String,
    path: Option<OsString>,
    env: Vec<(String, String)>,
    arguments: Vec<String>,
}

impl DaemonOptions {
    /// `program` on directories of its own.
    #[must_use]
    pub fn new(program: Program) -> DaemonOptions {
        DaemonOptions {
            program,
            dir: None,
            root: None,
            log_level: "debug",
            config: String::new(),
            path: None,
            env: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// Keeps everything below `dir`, which outlives the daemon, instead of a temporary directory.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_path_buf());
        self
    }

    /// Puts the root directory (content, snapshots, database) at `root`.
    #[must_use]
    pub fn root(mut self, root: &Path) -> Self {
        self.root = Some(root.to_path_buf());
        self
    }

    /// What it logs, instead of everything.
    #[must_use]
    pub fn log_level(mut self, level: &'static str) -> Self {
        self.log_level = level;
        self
    }

    /// Appends lines to the configuration file.
    #[must_use]
    pub fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }

    /// The whole search path of the daemon, instead of the test's.
    #[must_use]
    pub fn search_path(mut self, path: impl Into<OsString>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Sets a variable in the daemon's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds an argument to its command line.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts it and waits until it answers.
    #[must_use]
    pub fn start(self) -> Daemon {
        let mut daemon = self.prepare();
        daemon.start();
        daemon
    }

    /// Writes its configuration and makes its directories, but does not start it.
    #[must_use]
    pub fn prepare(self) -> Daemon {
        let temporary = self.dir.is_none().then(|| tempfile::tempdir().expect("a temporary directory"));
        let dir = match (&self.dir, &temporary) {
            (Some(dir), _) => dir.clone(),
            (None, Some(temporary)) => temporary.path().to_path_buf(),
            (None, None) => unreachable!("one of the two is set"),
        };
        let root = self.root.clone().unwrap_or_else(|| dir.join("root"));
        let state = dir.join("state");
        fs::create_dir_all(&dir).expect("create the daemon's directory");
        let daemon = Daemon { options: self, _temporary: temporary, root, state, dir, child: None };
        daemon.write_config();
        daemon
    }
}

/// A daemon with directories and a socket of its own. It is killed when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    options: DaemonOptions,
    _temporary: Option<tempfile::TempDir>,
    dir: PathBuf,
    root: PathBuf,
    state: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// Starts the daemon that is under test with nothing special.
    #[must_use]
    pub fn under_test() -> Daemon {
        DaemonOptions::new(Program::under_test()).start()
    }

    /// The program that it is.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.options.program
    }

    /// Its socket.
    #[must_use]
    pub fn address(&self) -> PathBuf {
        self.dir.join("d.sock")
    }

    /// Its root directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its state directory.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The directory that holds all of it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A `ctr` for it, in the namespace `default`.
    #[must_use]
    pub fn ctr(&self) -> Ctr {
        Ctr::new(&self.address(), "default")
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// Everything that it has logged, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("log")).unwrap_or_default()).into_owned()
    }

    fn write_config(&self) {
        // Our own plugin names and containerd's agree, so one file fits both. CRI needs a CNI and a
        // network that a test does not have.
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\n[grpc]\n  address = {:?}\n\n[debug]\n  level = {:?}\n\n{}",
            self.root,
            self.state,
            self.address(),
            self.options.log_level,
            self.options.config
        );
        fs::write(self.dir.join("config.toml"), text).expect("write the daemon's configuration");
    }

    /// The command that starts it, for those who want to see it fail.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.options.program.path);
        command.arg("--config").arg(self.dir.join("config.toml")).args(&self.options.arguments);
        command.env("PATH", self.search_path());
        command.envs(self.options.env.iter().map(|(name, value)| (name, value)));
        command
    }

    fn search_path(&self) -> OsString {
        let given = self.options.path.clone();
        let rest = given
            .or_else(|| std::env::var_os("PATH"))
            .unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        let mut dirs: Vec<PathBuf> = self.options.program.shims.iter().cloned().collect();
        dirs.extend(std::env::split_paths(&rest));
        std::env::join_paths(dirs).expect("directories without colons")
    }

    /// Starts it, again or for the first time, and waits until it answers.
    pub fn start(&mut self) {
        self.launch();
        self.wait_until_it_answers();
    }

    /// Starts it without waiting for anything.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "the daemon runs already");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .expect("open the log");
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("start {}: {error}", self.program().name));
        self.child = Some(child);
    }

    /// Waits until a call over its socket is answered.
    pub fn wait_until_it_answers(&mut self) {
        let ctr = self.ctr();
        let deadline = Instant::now() + limit();
        loop {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                panic!("{} ended at once, {status}:\n{}", self.program().name, self.log());
            }
            let answer = self.address().exists().then(|| ctr.run(&["--connect-timeout", "2s", "version"]));
            if answer.as_ref().is_some_and(Output::success) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{} does not answer, {answer:?}:\n{}",
                self.program().name,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
        }
    }

    /// Asks it to stop and waits for its end; kills it when it does not end in 20 seconds.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("pids fit")).expect("pids are positive");
        kill_process(pid, Signal::TERM).expect("a child takes a signal");
        let deadline = Instant::now() + scaled(Duration::from_secs(20));
        while child.try_wait().expect("a child can be waited for").is_none() {
            if Instant::now() > deadline {
                child.kill().expect("a child can be killed");
                child.wait().expect("a child can be waited for");
                panic!("{} did not stop:\n{}", self.program().name, self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// What to look through for leftovers of this daemon; it and the test's own children do not count.
    #[must_use]
    pub fn leftovers(&self) -> Leftovers {
        let own: Vec<u32> = self.child.iter().map(Child::id).collect();
        Leftovers::of(&self.root, &self.state, &own)
    }

    /// Removes all tasks, containers, images and snapshots of `namespace`, as a tidy user would.
    pub fn clear(&self, namespace: &str) {
        let ctr = self.ctr().in_namespace(namespace);
        for task in ctr.names(&["tasks", "ls"]) {
            let _ = run(&mut ctr.command(&["tasks", "rm", "--force", &task]));
        }
        for container in ctr.names(&["containers", "ls"]) {
            ctr.ok(&["containers", "rm", &container]);
        }
        for image in ctr.names(&["images", "ls"]) {
            ctr.ok(&["images", "rm", "--sync", &image]);
        }
        // A child goes before its parent; the order of the list knows nothing of it.
        eventually("the snapshots to go", || {
            let left = ctr.names(&["snapshots", "ls"]);
            for snapshot in &left {
                let _ = ctr.run(&["snapshots", "rm", snapshot]);
            }
            left.is_empty().then_some(())
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the end of {}'s log ---", self.program().name);
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

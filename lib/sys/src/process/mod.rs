//! Starting a program: [`Spawn`] says how, [`Child`] is what comes of it.
//!
//! The one way to start a process in gantry. Nothing is inherited unasked: no environment, no
//! descriptor, no signal mask or handler. The standard streams are `/dev/null` unless set.

mod clone;
mod exec;
mod lasting;
mod output;

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use gantry_core::{Error, ErrorKind, Result, ResultExt};

use crate::children::{Follow, Forking};
use exec::{Image, Plan, Step};
pub use output::{Capture, Output};

/// A child that was started, followed by its pidfd.
///
/// Dropping one neither kills nor waits; its exit is taken later by whatever this crate does next.
pub type Child = Follow;

/// Where a standard stream of a new process leads.
#[derive(Debug, Default)]
pub enum Stdio {
    /// To `/dev/null`.
    #[default]
    Null,
    /// To the same place as this process's own.
    Inherit,
    /// To this descriptor.
    Fd(OwnedFd),
}

impl<T: Into<OwnedFd>> From<T> for Stdio {
    fn from(fd: T) -> Self {
        Stdio::Fd(fd.into())
    }
}

#[derive(Debug)]
enum Program {
    Path(PathBuf),
    Fd(OwnedFd),
}

/// How to start a program. Building one does nothing; [`spawn`](Spawn::spawn) does.
#[derive(Debug)]
pub struct Spawn {
    program: Program,
    name: OsString,
    args: Vec<OsString>,
    env: Vec<OsString>,
    cwd: Option<PathBuf>,
    streams: [Stdio; 3],
    descriptors: Vec<(OwnedFd, i32)>,
    cgroups: Vec<PathBuf>,
    oom_score_adj: Option<i32>,
    session: bool,
    terminal: bool,
    group: Option<i32>,
    death_signal: Option<i32>,
}

impl Spawn {
    /// Starts the program at `path`. A name without a slash is looked up in this process's `PATH`; a
    /// relative path counts from the new directory, if one is set.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        Self::of(path.clone().into_os_string(), Program::Path(path))
    }

    /// Starts the program that `executable` is open on, called `name` (its `argv[0]`).
    ///
    /// The descriptor is closed when the program starts, so it must be a binary and not a script.
    pub fn from_fd(executable: OwnedFd, name: impl Into<OsString>) -> Self {
        Self::of(name.into(), Program::Fd(executable))
    }

    fn of(name: OsString, program: Program) -> Self {
        Spawn {
            program,
            name,
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            streams: Default::default(),
            descriptors: Vec::new(),
            cgroups: Vec::new(),
            oom_score_adj: None,
            session: false,
            terminal: false,
            group: None,
            death_signal: None,
        }
    }

    /// What the program sees as `argv[0]`; by default the path it was found by.
    #[must_use]
    pub fn arg0(mut self, name: impl Into<OsString>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets one variable of the environment, in place of an earlier one of that name.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let mut prefix = key.as_ref().as_bytes().to_vec();
        prefix.push(b'=');
        self.env.retain(|old| !old.as_bytes().starts_with(&prefix));
        prefix.extend_from_slice(value.as_ref().as_bytes());
        self.env.push(OsString::from_vec(prefix));
        self
    }

    /// Sets variables of the environment.
    #[must_use]
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(self, vars: impl IntoIterator<Item = (K, V)>) -> Self {
        vars.into_iter().fold(self, |spawn, (key, value)| spawn.env(key, value))
    }

    /// Copies this process's environment.
    #[must_use]
    pub fn inherit_env(self) -> Self {
        self.envs(std::env::vars_os())
    }

    /// The program's working directory; by default this process's.
    #[must_use]
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Where the standard input comes from.
    #[must_use]
    pub fn stdin(mut self, from: impl Into<Stdio>) -> Self {
        self.streams[0] = from.into();
        self
    }

    /// Where the standard output goes.
    #[must_use]
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Self {
        self.streams[1] = to.into();
        self
    }

    /// Where the standard error goes.
    #[must_use]
    pub fn stderr(mut self, to: impl Into<Stdio>) -> Self {
        self.streams[2] = to.into();
        self
    }

    /// Gives the program `fd` as its descriptor `number`, which is 3 or more.
    #[must_use]
    pub fn descriptor(mut self, fd: impl Into<OwnedFd>, number: i32) -> Self {
        self.descriptors.push((fd.into(), number));
        self
    }

    /// Starts a new session, which the program leads.
    #[must_use]
    pub fn new_session(mut self) -> Self {
        self.session = true;
        self
    }

    /// Starts a new session with the standard input, a terminal, as its controlling terminal.
    #[must_use]
    pub fn controlling_terminal(mut self) -> Self {
        self.session = true;
        self.terminal = true;
        self
    }

    /// Puts the program into process group `group`; 0 means a new one of its own. A new session has
    /// a new group anyway.
    #[must_use]
    pub fn process_group(mut self, group: i32) -> Self {
        self.group = Some(group);
        self
    }

    /// Sends the program `signal` when this process ends.
    ///
    /// The kernel means the forking *thread*, so the fork happens on a thread that never ends. It
    /// belongs to the namespaces, and has the directory, of the thread that first asked for this.
    #[must_use]
    pub fn parent_death_signal(mut self, signal: i32) -> Self {
        self.death_signal = Some(signal);
        self
    }

    /// Puts the program into the cgroup at directory `dir` before it starts. On cgroup v1, once for
    /// each hierarchy. On version 2 it is born there, which spares the wait of a move.
    #[must_use]
    pub fn cgroup(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cgroups.push(dir.into());
        self
    }

    /// Sets the program's `oom_score_adj`, from -1000 to 1000.
    #[must_use]
    pub fn oom_score_adj(mut self, score: i32) -> Self {
        self.oom_score_adj = Some(score);
        self
    }

    /// What errors call the program.
    fn label(&self) -> String {
        match &self.program {
            Program::Path(path) => format!("{:?}", path),
            Program::Fd(_) => format!("{:?}", self.name),
        }
    }

    /// Forks and executes. Returns once the program runs; blocks this thread until then, usually for
    /// a millisecond.
    ///
    /// # Errors
    /// `InvalidArgument` for strings with a zero byte and impossible descriptors; otherwise the
    /// system's error, with the step that failed: `start "/bin/x": exec: No such file ...`.
    pub fn spawn(self) -> Result<Child> {
        if self.death_signal.is_some() {
            return lasting::spawn(self);
        }
        self.spawn_here()
    }

    /// As [`spawn`](Self::spawn), on tokio's blocking pool.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub async fn spawn_async(self) -> Result<Child> {
        tokio::task::spawn_blocking(move || self.spawn())
            .await
            .map_err(|error| Error::with_source(ErrorKind::Internal, error).context("start a process"))?
    }

    fn spawn_here(self) -> Result<Child> {
        keep_exits();
        let label = self.label();
        let (plan, _open) = self.plan().with_context(|| format!("start {label}"))?;
        let mut busy = 0;
        loop {
            let forking = Forking::begin();
            let forked = exec::fork(&plan)
                .map_err(|(step, error)| Error::io(error).context(step).context(format!("start {label}")))?;
            let child = forking.adopt(forked.pid, forked.pidfd);
            let Some((step, error)) = forked.failure else { return Ok(child) };
            child.wait()?;
            // Another thread's child may hold, for a moment, a copy of the descriptor through which
            // we wrote this program.
            if step == Step::Exec && error.raw_os_error() == Some(libc::ETXTBSY) && busy < 5 {
                std::thread::sleep(Duration::from_millis(1 << busy));
                busy += 1;
                continue;
            }
            return Err(Error::io(error).context(step.name()).context(format!("start {label}")));
        }
    }

    /// Checks and opens everything, and says what must stay open until the fork.
    fn plan(self) -> Result<(Plan, Vec<OwnedFd>)> {
        let image = match self.program {
            Program::Path(path) => Image::Path(c_string(find(&path)?.into_os_string())?),
            Program::Fd(fd) => Image::Fd(fd),
        };
        let argv = std::iter::once(self.name).chain(self.args).map(c_string).collect::<Result<_>>()?;
        let envp = self.env.into_iter().map(c_string).collect::<Result<_>>()?;
        let mut open = Vec::new();
        let mut descriptors = Vec::new();
        for (number, stream) in (0..).zip(self.streams) {
            let from = match stream {
                Stdio::Inherit => number,
                Stdio::Fd(fd) => keep(&mut open, fd),
                Stdio::Null => {
                    let null = File::options().read(true).write(true).open("/dev/null");
                    keep(&mut open, null.context("open /dev/null")?.into())
                }
            };
            descriptors.push((from, number));
        }
        for (fd, number) in self.descriptors {
            if number < 3 || descriptors.iter().any(|(_, taken)| *taken == number) {
                return Err(Error::invalid_argument(format!("descriptor number {number}")));
            }
            descriptors.push((keep(&mut open, fd), number));
        }
        let (mut cgroups, mut birthplace) = (Vec::new(), None);
        for dir in &self.cgroups {
            let procs = dir.join("cgroup.procs");
            let file = File::options().write(true).open(&procs);
            let file = file.map(OwnedFd::from).with_context(|| format!("open {procs:?}"))?;
            if birthplace.is_none() && crate::cgroup::is_v2(dir) {
                let dir = File::open(dir).with_context(|| format!("open {dir:?}"))?;
                birthplace = Some((dir.into(), file));
            } else {
                cgroups.push(file);
            }
        }
        let plan = Plan {
            image,
            argv,
            envp,
            cwd: self.cwd.map(|dir| c_string(dir.into_os_string())).transpose()?,
            descriptors,
            cgroups,
            birthplace,
            oom_score_adj: self.oom_score_adj.map(|score| c_string(score.to_string().into())).transpose()?,
            session: self.session,
            terminal: self.terminal,
            group: self.group,
            death_signal: self.death_signal,
        };
        Ok((plan, open))
    }
}

/// A pipe: what is written to the second can be read from the first. Neither is inherited unasked.
///
/// # Errors
/// When this process or the system has no descriptors left.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

fn keep(open: &mut Vec<OwnedFd>, fd: OwnedFd) -> i32 {
    let number = fd.as_raw_fd();
    open.push(fd);
    number
}

fn c_string(text: OsString) -> Result<CString> {
    CString::new(text.into_vec()).map_err(|error| {
        let text = error.into_vec();
        Error::invalid_argument(format!("zero byte in {:?}", String::from_utf8_lossy(&text)))
    })
}

/// The file that `program` names: itself, or the first executable of that name in `PATH`.
fn find(program: &Path) -> Result<PathBuf> {
    let name = program.as_os_str();
    if name.as_bytes().contains(&b'/') {
        return Ok(program.to_owned());
    }
    let executable =
        |path: &Path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        // An empty or relative entry would run whatever lies in the current directory.
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|candidate| !name.is_empty() && executable(candidate))
        .ok_or_else(|| Error::not_found(format!("executable {program:?} in PATH")))
}

/// Makes sure that exits can be learned: a process may be born with SIGCHLD ignored, and then the
/// kernel throws away its children's.
fn keep_exits() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: sigaction is plain data for which all zeroes is a valid value.
        let mut current: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: only asks, into a valid place.
        let asked = unsafe { libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut current) };
        if asked == 0 && current.sa_sigaction == libc::SIG_IGN {
            // SAFETY: nobody's handler is replaced; the signal was ignored.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        }
    });
}

#[cfg(test)]
mod tests;

//! From a plan to a running program: the fork, and what the child does until it execs.
//!
//! The child shares this process's memory and the forking thread stands still until the child has
//! exec'd or ended (`CLONE_VM | CLONE_VFORK`), as in `posix_spawn`: nothing is copied, however large
//! the daemon is. So the child may only make system calls on what was prepared before the fork; no
//! allocation, no lock, no signal handler. What goes wrong it writes into the plan.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use super::clone::clone;

/// Where the child stopped. The names appear in errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Step {
    Descriptors = 1,
    Cgroup,
    OomScore,
    Session,
    Group,
    Directory,
    Terminal,
    DeathSignal,
    Signals,
    Exec,
}

impl Step {
    const ALL: [(Step, &'static str); 10] = [
        (Step::Descriptors, "pass descriptors"),
        (Step::Cgroup, "enter the cgroup"),
        (Step::OomScore, "set oom_score_adj"),
        (Step::Session, "start a session"),
        (Step::Group, "set the process group"),
        (Step::Directory, "change directory"),
        (Step::Terminal, "take the controlling terminal"),
        (Step::DeathSignal, "set the parent's death signal"),
        (Step::Signals, "reset signals"),
        (Step::Exec, "exec"),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(step, _)| *step == self).map_or("exec", |(_, name)| name)
    }

    fn from_raw(raw: i32) -> Option<Step> {
        Self::ALL.iter().map(|(step, _)| *step).find(|step| *step as i32 == raw)
    }
}

/// What to execute.
pub(super) enum Image {
    Path(CString),
    Fd(OwnedFd),
}

/// Everything the child needs, prepared before the fork.
pub(super) struct Plan {
    pub(super) image: Image,
    pub(super) argv: Vec<CString>,
    pub(super) envp: Vec<CString>,
    pub(super) cwd: Option<CString>,
    /// Which descriptor of ours becomes which number of the child's. Targets are distinct.
    pub(super) descriptors: Vec<(c_int, c_int)>,
    /// Open `cgroup.procs` files.
    pub(super) cgroups: Vec<OwnedFd>,
    /// A cgroup of version 2 to be born in: its directory, and its `cgroup.procs` for kernels that cannot.
    pub(super) birthplace: Option<(OwnedFd, OwnedFd)>,
    pub(super) oom_score_adj: Option<CString>,
    pub(super) session: bool,
    pub(super) terminal: bool,
    pub(super) group: Option<c_int>,
    pub(super) death_signal: Option<c_int>,
}

/// What the child reads and writes.
struct Shared<'a> {
    plan: &'a Plan,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// Room for the descriptors' places above all targets, one each, and one for the image.
    scratch: Vec<AtomicI32>,
    /// The first number above all targets.
    floor: c_int,
    parent: libc::pid_t,
    /// The child was not born in its cgroup.
    moves: AtomicBool,
    failed_step: AtomicI32,
    errno: AtomicI32,
}

/// A child that was made, and the step at which it failed to become the program, if it did.
pub(super) struct Forked {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) failure: Option<(Step, io::Error)>,
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Forks, and execs in the child.
pub(super) fn fork(plan: &Plan) -> Result<Forked, (&'static str, io::Error)> {
    let highest = plan.descriptors.iter().map(|(_, to)| *to).max().unwrap_or(2).max(2);
    let shared = Shared {
        plan,
        argv: pointers(&plan.argv),
        envp: pointers(&plan.envp),
        scratch: (0..=plan.descriptors.len()).map(|_| AtomicI32::new(-1)).collect(),
        floor: highest + 1,
        parent: rustix::process::getpid().as_raw_pid(),
        moves: AtomicBool::new(false),
        failed_step: AtomicI32::new(0),
        errno: AtomicI32::new(0),
    };
    let birthplace = plan.birthplace.as_ref().map(|(dir, _)| dir.as_fd());
    // No handler of ours may run in the child: it would run on our memory.
    let mask = block_signals().map_err(|error| ("block signals", error))?;
    let fork = |birthplace| {
        // SAFETY: `shared` outlives the child's use of it, since it lives until the call returns; `child` only makes
        // system calls.
        unsafe { clone(child, (&raw const shared).cast_mut().cast::<c_void>(), birthplace) }
    };
    let mut forked = fork(birthplace);
    if forked.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Unsupported) {
        shared.moves.store(true, Ordering::Release);
        forked = fork(None);
    }
    restore_signals(&mask);
    let (pid, pidfd) = match (forked, birthplace) {
        (Ok(forked), _) => forked,
        (Err(error), None) => return Err(("fork", error)),
        (Err(error), Some(_)) => return Err(("fork into the cgroup", error)),
    };
    let failure = Step::from_raw(shared.failed_step.load(Ordering::Acquire))
        .map(|step| (step, io::Error::from_raw_os_error(shared.errno.load(Ordering::Acquire))));
    Ok(Forked { pid, pidfd, failure })
}

fn block_signals() -> io::Result<libc::sigset_t> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut old = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `all` is a valid place for a signal set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: `all` was filled above and `old` is a valid place for a signal set.
    let failed = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr()) };
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed));
    }
    // SAFETY: the call succeeded, so it wrote the old mask.
    Ok(unsafe { old.assume_init() })
}

fn restore_signals(mask: &libc::sigset_t) {
    // SAFETY: `mask` is a signal set from pthread_sigmask, and the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

/// The child's whole life before exec.
extern "C" fn child(shared: *mut c_void) -> c_int {
    // SAFETY: `fork` passes a `Shared` that lives until this child has exec'd or ended, and the only
    // thread that could change it stands still.
    let shared = unsafe { &*shared.cast_const().cast::<Shared<'_>>() };
    let (step, errno) = become_program(shared);
    shared.errno.store(errno, Ordering::Release);
    shared.failed_step.store(step as i32, Ordering::Release);
    // SAFETY: ends the child at once, without running anything of this process's.
    unsafe { libc::_exit(127) }
}

/// A failing call's step and error number.
type Failed = (Step, c_int);

fn last_errno() -> c_int {
    // SAFETY: the address of this thread's errno is always valid; the parent thread, whose it is, waits.
    unsafe { *libc::__errno_location() }
}

fn check(step: Step, result: c_int) -> Result<c_int, Failed> {
    if result < 0 { Err((step, last_errno())) } else { Ok(result) }
}

fn errno_at(step: Step) -> impl Fn(rustix::io::Errno) -> Failed {
    move |error| (step, error.raw_os_error())
}

fn become_program(shared: &Shared<'_>) -> Failed {
    match prepare(shared) {
        Err(failed) => failed,
        Ok(image) => (Step::Exec, exec(shared, image)),
    }
}

fn prepare(shared: &Shared<'_>) -> Result<c_int, Failed> {
    let plan = shared.plan;
    let birthplace = plan.birthplace.iter().map(|(_, procs)| procs);
    for procs in plan.cgroups.iter().chain(birthplace.filter(|_| shared.moves.load(Ordering::Acquire))) {
        rustix::io::write(procs, b"0").map_err(errno_at(Step::Cgroup))?;
    }
    if let Some(score) = &plan.oom_score_adj {
        let file = rustix::fs::open(
            c"/proc/self/oom_score_adj",
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(errno_at(Step::OomScore))?;
        rustix::io::write(&file, score.to_bytes()).map_err(errno_at(Step::OomScore))?;
    }
    if plan.session {
        rustix::process::setsid().map_err(errno_at(Step::Session))?;
    } else if let Some(group) = plan.group {
        // SAFETY: setpgid takes two numbers.
        check(Step::Group, unsafe { libc::setpgid(0, group) })?;
    }
    if let Some(cwd) = &plan.cwd {
        rustix::process::chdir(cwd.as_c_str()).map_err(errno_at(Step::Directory))?;
    }
    let image = pass_descriptors(shared)?;
    if plan.terminal {
        // SAFETY: TIOCSCTTY takes a number.
        check(Step::Terminal, unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
    }
    if let Some(signal) = plan.death_signal {
        // SAFETY: PR_SET_PDEATHSIG takes a number.
        check(Step::DeathSignal, unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) })?;
        // A parent that ended before the call above would never cause the signal.
        // SAFETY: getppid only returns a number.
        if unsafe { libc::getppid() } != shared.parent {
            return Err((Step::DeathSignal, libc::ESRCH));
        }
    }
    reset_signals()?;
    Ok(image)
}

/// Puts every descriptor at its number and marks all others to be closed by exec. Returns where the
/// image's descriptor is now, if the image is one.
fn pass_descriptors(shared: &Shared<'_>) -> Result<c_int, Failed> {
    let step = Step::Descriptors;
    let flags = libc::CLOSE_RANGE_CLOEXEC as c_int;
    // SAFETY: marks this process's descriptors; the parent's table is not shared (no CLONE_FILES).
    check(step, unsafe { libc::close_range(0, libc::c_uint::MAX, flags) })?;
    // First everything goes above all targets, so that no target overwrites a source.
    let raise = |from: c_int| -> Result<c_int, Failed> {
        if from >= shared.floor {
            return Ok(from);
        }
        // SAFETY: duplicates a descriptor number; fails with EBADF if it is not open.
        check(step, unsafe { libc::fcntl(from, libc::F_DUPFD_CLOEXEC, shared.floor) })
    };
    let descriptors = &shared.plan.descriptors;
    for ((from, _), place) in descriptors.iter().zip(&shared.scratch) {
        place.store(raise(*from)?, Ordering::Relaxed);
    }
    let image = match &shared.plan.image {
        Image::Path(_) => -1,
        Image::Fd(fd) => raise(std::os::fd::AsRawFd::as_raw_fd(fd))?,
    };
    for ((_, to), place) in descriptors.iter().zip(&shared.scratch) {
        // SAFETY: both numbers are of this process; the copy is not close-on-exec.
        check(step, unsafe { libc::dup2(place.load(Ordering::Relaxed), *to) })?;
    }
    Ok(image)
}

/// Every signal to its default, and none blocked, as a new program expects.
fn reset_signals() -> Result<(), Failed> {
    // The kernel's struct sigaction, all zero: SIG_DFL. Its size differs, but never exceeds this.
    let default = [0u64; 8];
    for signal in 1..=64 {
        // Not libc's function, which refuses the two signals that libc keeps for itself. KILL and
        // STOP fail, and cannot have been changed.
        // SAFETY: the table of handlers is the child's own (no CLONE_SIGHAND); `default` is longer than
        // what the kernel reads, and the old action is not asked for.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, std::ptr::null::<u8>(), 8)
        };
    }
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `none` is a valid place for a signal set.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: `none` was filled above, and the old mask is not asked for.
    let failed = unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
    check(Step::Signals, failed).map(drop)
}

/// Returns only on failure.
fn exec(shared: &Shared<'_>, image: c_int) -> c_int {
    const EMPTY: &CStr = c"";
    let (argv, envp) = (shared.argv.as_ptr(), shared.envp.as_ptr());
    match &shared.plan.image {
        Image::Path(path) => {
            // SAFETY: path, argv and envp are null-terminated and live in the plan.
            unsafe { libc::execve(path.as_ptr(), argv, envp) };
        }
        Image::Fd(_) => {
            // SAFETY: as above; the empty path with AT_EMPTY_PATH means the descriptor itself.
            unsafe {
                libc::syscall(libc::SYS_execveat, image, EMPTY.as_ptr(), argv, envp, libc::AT_EMPTY_PATH)
            };
        }
    }
    last_errno()
}

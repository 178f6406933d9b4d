//! Settings of this process: what it leaves readable, when it dies, what it may lose.

use std::fs;
use std::io;

use gantry_core::{Error, ErrorKind, Result, ResultExt};
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{CapabilitySet, CoreSchedulingScope};

/// Lets, or forbids, other processes of this user to attach to this one and read its `/proc` files.
///
/// # Errors
/// When the kernel refuses, which it does not.
pub fn set_dumpable(yes: bool) -> io::Result<()> {
    let behavior = if yes { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    Ok(rustix::process::set_dumpable_behavior(behavior)?)
}

/// Asks for `signal` when the thread that started this process ends; `None` takes that back.
///
/// # Errors
/// `EINVAL` if there is no such signal.
pub fn set_parent_death_signal(signal: Option<i32>) -> io::Result<()> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let signal = signal.map(|signal| Signal::from_named_raw(signal).ok_or_else(invalid)).transpose()?;
    Ok(rustix::process::set_parent_process_death_signal(signal)?)
}

/// Gives this process group a core scheduling cookie of its own: no processor core runs it beside
/// anybody else's process. Children inherit it.
///
/// # Errors
/// `Unimplemented` if the kernel or the machine lacks core scheduling.
pub fn new_core_scheduling_cookie() -> Result<()> {
    let group = rustix::process::getpgrp();
    rustix::thread::create_core_scheduling_cookie(group, CoreSchedulingScope::ProcessGroup).map_err(|error| {
        let error = io::Error::from(error);
        let kind = match error.raw_os_error() {
            Some(libc::EINVAL | libc::ENODEV) => ErrorKind::Unimplemented,
            _ => ErrorKind::from_io(&error),
        };
        Error::with_source(kind, error).context("create a core scheduling cookie")
    })
}

/// Sets the file mode creation mask of this whole process and returns the old one.
pub fn set_umask(mask: u32) -> u32 {
    rustix::process::umask(Mode::from_raw_mode(mask)).as_raw_mode()
}

/// Lets SIGPIPE end this process again: Rust programs start with it ignored, and what they execute
/// would inherit that.
pub fn default_broken_pipe() {
    // SAFETY: no handler of ours is involved; the default action replaces ignoring.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Gives this process, and what it executes, a new session keyring called `name`: the keys of the
/// caller's are out of reach.
///
/// # Errors
/// `InvalidArgument` for a name with a zero byte; `Unimplemented` if the kernel has no keyrings;
/// otherwise the system's error, for example when the user's quota of keys is used up.
pub fn new_session_keyring(name: &str) -> Result<()> {
    /// Source: `KEYCTL_JOIN_SESSION_KEYRING` of the kernel's `linux/keyctl.h`.
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    let name = std::ffi::CString::new(name).map_err(|_| Error::invalid_argument("keyring name"))?;
    // SAFETY: the name is a string that ends with a zero byte and outlives the call.
    let made = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    if made >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    let kind = match error.raw_os_error() {
        Some(libc::ENOSYS) => ErrorKind::Unimplemented,
        _ => ErrorKind::from_io(&error),
    };
    Err(Error::with_source(kind, error).context("join a new session keyring"))
}

/// Whether this thread has CAP_SYS_RESOURCE, which raising limits and protecting from the OOM killer need.
pub fn may_raise_limits() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
}

/// The `oom_score_adj` of process `pid`.
///
/// # Errors
/// `NotFound` if there is no such process.
pub fn oom_score_adj(pid: i32) -> Result<i32> {
    let path = oom_path(pid);
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    text.trim().parse().map_err(|_| Error::internal(format!("{path} holds {text:?}")))
}

/// Sets the `oom_score_adj` of process `pid`, from -1000 to 1000.
///
/// # Errors
/// `PermissionDenied`, naming the missing capability, if the score would become lower than this
/// process may make it; `NotFound` if there is no such process; `InvalidArgument` for other scores.
pub fn set_oom_score_adj(pid: i32, score: i32) -> Result<()> {
    if !(-1000..=1000).contains(&score) {
        return Err(Error::invalid_argument(format!("oom_score_adj {score} is not in -1000 to 1000")));
    }
    let path = oom_path(pid);
    fs::write(&path, score.to_string()).map_err(|error| {
        let reason = match error.raw_os_error() {
            // The kernel says no more than "permission denied".
            Some(libc::EACCES | libc::EPERM) if !may_raise_limits() => match oom_score_adj(pid) {
                Ok(now) => format!("lowering oom_score_adj from {now} to {score} needs CAP_SYS_RESOURCE"),
                Err(_) => format!("lowering oom_score_adj to {score} needs CAP_SYS_RESOURCE"),
            },
            _ => format!("write {path}"),
        };
        Error::io(error).context(reason)
    })
}

/// Sets the `oom_score_adj` of process `pid`, or, where that is not allowed, the lowest score that
/// is: its present one. Returns what was set, so that the caller can say so.
///
/// # Errors
/// As [`set_oom_score_adj`], but for the missing capability.
pub fn set_oom_score_adj_as_allowed(pid: i32, score: i32) -> Result<i32> {
    match set_oom_score_adj(pid, score) {
        Ok(()) => Ok(score),
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !may_raise_limits() => {
            let now = oom_score_adj(pid)?;
            // Never higher than asked: the process may be less exposed already.
            if score < now { Ok(now) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}

fn oom_path(pid: i32) -> String {
    format!("/proc/{pid}/oom_score_adj")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Spawn;

    #[test]
    fn a_refused_oom_score_names_the_capability() {
        let child = Spawn::new("/bin/sleep").arg("1000").spawn().unwrap();
        set_oom_score_adj(child.pid(), 500).unwrap();
        assert_eq!(oom_score_adj(child.pid()).unwrap(), 500);
        let lowered = set_oom_score_adj(child.pid(), -999);
        if may_raise_limits() {
            lowered.unwrap();
        } else {
            let error = lowered.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert!(error.to_string().contains("from 500 to -999 needs CAP_SYS_RESOURCE"), "{error}");
            assert_eq!(set_oom_score_adj_as_allowed(child.pid(), -999).unwrap(), 500);
        }
        assert_eq!(set_oom_score_adj(child.pid(), 1001).unwrap_err().kind(), ErrorKind::InvalidArgument);
        child.kill(libc::SIGKILL).unwrap();
        child.wait().unwrap();
        assert_eq!(oom_score_adj(i32::MAX).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_death_signal_must_exist() {
        assert!(set_parent_death_signal(Some(99)).is_err());
        set_parent_death_signal(Some(libc::SIGTERM)).unwrap();
        set_parent_death_signal(None).unwrap();
    }
}

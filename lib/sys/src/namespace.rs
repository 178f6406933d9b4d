//! Working in other kernel namespaces, on threads that end afterwards.
//!
//! A thread that has entered a namespace, or has a directory of its own, must not do anybody else's
//! work again. So each function here starts a thread, runs the closure on it, and lets it end.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;

use gantry_core::{Error, Result, ResultExt};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space,
    move_into_thread_name_spaces, unshare_unsafe,
};

/// A kind of kernel namespace that a single thread can enter or leave.
///
/// User namespaces are missing: a process with several threads cannot enter one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Mounts.
    Mount,
    /// Network devices, addresses, ports.
    Network,
    /// System V and POSIX message queues, semaphores, shared memory.
    Ipc,
    /// Host and domain name.
    Uts,
    /// The root of the cgroup tree.
    Cgroup,
    /// Process ids; of the children that the thread starts.
    Pid,
}

impl Kind {
    fn link(self) -> LinkNameSpaceType {
        match self {
            Kind::Mount => LinkNameSpaceType::Mount,
            Kind::Network => LinkNameSpaceType::Network,
            Kind::Ipc => LinkNameSpaceType::InterProcessCommunication,
            Kind::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
            Kind::Cgroup => LinkNameSpaceType::ControlGroup,
            Kind::Pid => LinkNameSpaceType::ProcessID,
        }
    }

    fn unshare(self) -> UnshareFlags {
        match self {
            Kind::Mount => UnshareFlags::NEWNS,
            Kind::Network => UnshareFlags::NEWNET,
            Kind::Ipc => UnshareFlags::NEWIPC,
            Kind::Uts => UnshareFlags::NEWUTS,
            Kind::Cgroup => UnshareFlags::NEWCGROUP,
            Kind::Pid => UnshareFlags::NEWPID,
        }
    }

    fn thread(self) -> ThreadNameSpaceType {
        match self {
            Kind::Mount => ThreadNameSpaceType::MOUNT,
            Kind::Network => ThreadNameSpaceType::NETWORK,
            Kind::Ipc => ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
            Kind::Uts => ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
            Kind::Cgroup => ThreadNameSpaceType::CONTROL_GROUP,
            Kind::Pid => ThreadNameSpaceType::PROCESS_ID,
        }
    }

    /// Its name below `/proc/<pid>/ns`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Mount => "mnt",
            Kind::Network => "net",
            Kind::Ipc => "ipc",
            Kind::Uts => "uts",
            Kind::Cgroup => "cgroup",
            Kind::Pid => "pid",
        }
    }
}

/// Runs `work` on a new thread, which then ends, and waits for it. Blocks this thread.
///
/// # Errors
/// What `work` returns; `Internal` if it panicked.
pub fn on_fresh_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespace".into()).spawn_scoped(scope, work);
        let thread = thread.context("start a thread")?;
        thread.join().unwrap_or_else(|_| Err(Error::internal("work on a thread of its own panicked")))
    })
}

/// Runs `work` on a thread that has new namespaces of `kinds` of its own. A new mount namespace is
/// private to it: what is mounted there is not seen outside, nor the other way round.
///
/// # Errors
/// `PermissionDenied` without CAP_SYS_ADMIN; otherwise what `work` returns.
pub fn in_new<T: Send>(kinds: &[Kind], work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_fresh_thread(|| {
        let flags = kinds.iter().fold(UnshareFlags::empty(), |flags, kind| flags | kind.unshare());
        unshare(flags).context("create namespaces")?;
        if kinds.contains(&Kind::Mount) {
            let private =
                rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private)
                .map_err(io::Error::from)
                .context("make mounts private")?;
        }
        work()
    })
}

/// Runs `work` on a thread inside the namespace that `link` is open on, a file like `/proc/1/ns/net`.
///
/// # Errors
/// `InvalidArgument` if `link` is no namespace of that kind; otherwise what `work` returns.
pub fn in_existing<T: Send>(
    link: BorrowedFd<'_>,
    kind: Kind,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    on_fresh_thread(|| {
        detach_directory(kind)?;
        move_into_link_name_space(link, Some(kind.link())).map_err(|error| enter_error(error, kind))?;
        work()
    })
}

/// Runs `work` on a thread inside the namespaces of `kinds` of the process that `pidfd` holds.
///
/// # Errors
/// `NotFound` if that process has ended; otherwise what `work` returns.
pub fn in_process<T: Send>(
    pidfd: BorrowedFd<'_>,
    kinds: &[Kind],
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    on_fresh_thread(|| {
        let mut all = ThreadNameSpaceType::empty();
        for kind in kinds {
            detach_directory(*kind)?;
            all |= kind.thread();
        }
        move_into_thread_name_spaces(pidfd, all).map_err(|error| match error {
            rustix::io::Errno::SRCH => Error::not_found("process whose namespaces to enter"),
            error => Error::io(error.into()).context("enter the namespaces of a process"),
        })?;
        work()
    })
}

/// Runs `work` on a thread whose current directory is `dir`, without changing anybody else's.
///
/// # Errors
/// When `dir` cannot be entered; otherwise what `work` returns.
pub fn in_directory<T: Send>(dir: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_fresh_thread(|| {
        unshare(UnshareFlags::FS).context("unshare the current directory")?;
        rustix::process::chdir(dir).map_err(io::Error::from).with_context(|| format!("enter {dir:?}"))?;
        work()
    })
}

/// Opens the namespace of `kind` that the calling thread is in.
///
/// # Errors
/// When `/proc` is missing or no descriptor is left.
pub fn current(kind: Kind) -> Result<OwnedFd> {
    let path = format!("/proc/thread-self/ns/{}", kind.name());
    File::open(&path).map(OwnedFd::from).with_context(|| format!("open {path}"))
}

/// Whether both descriptors are open on the same namespace (or the same file).
///
/// # Errors
/// When the kernel refuses to look at one.
pub fn same(a: impl AsFd, b: impl AsFd) -> io::Result<bool> {
    let (a, b) = (rustix::fs::fstat(a)?, rustix::fs::fstat(b)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

fn detach_directory(kind: Kind) -> Result<()> {
    if kind == Kind::Mount {
        // The kernel lets only a thread with a root and directory of its own change its mounts.
        unshare(UnshareFlags::FS).context("unshare the current directory")?;
    }
    Ok(())
}

fn enter_error(error: rustix::io::Errno, kind: Kind) -> Error {
    let step = format!("enter a {} namespace", kind.name());
    match error {
        rustix::io::Errno::INVAL => Error::invalid_argument("not such a namespace").context(step),
        error => Error::io(error.into()).context(step),
    }
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: descriptors stay shared; only that flag would make the call unsafe.
    Ok(unsafe { unshare_unsafe(flags) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_changed_for_one_thread_only() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let before = std::env::current_dir().unwrap();
        let inside = in_directory(&dir, || std::env::current_dir().context("current directory")).unwrap();
        assert_eq!(inside, dir);
        assert_eq!(std::env::current_dir().unwrap(), before);
    }

    #[test]
    fn a_panic_on_the_thread_becomes_an_error() {
        let error = on_fresh_thread::<()>(|| panic!("expected by the test")).unwrap_err();
        assert_eq!(error.kind(), gantry_core::ErrorKind::Internal);
    }

    #[test]
    fn namespaces_are_entered_and_left_behind() {
        gantry_testkit::root!();
        let outside = current(Kind::Network).unwrap();
        let inside = in_new(&[Kind::Network, Kind::Mount], || current(Kind::Network)).unwrap();
        assert!(!same(&outside, &inside).unwrap());
        assert!(same(&outside, current(Kind::Network).unwrap()).unwrap());
        let again = in_existing(inside.as_fd(), Kind::Network, || current(Kind::Network)).unwrap();
        assert!(same(&inside, &again).unwrap());
        let error = in_existing(inside.as_fd(), Kind::Uts, || Ok(())).unwrap_err();
        assert_eq!(error.kind(), gantry_core::ErrorKind::InvalidArgument);
        let own = crate::pidfd::Pidfd::open(rustix::process::getpid().as_raw_pid()).unwrap();
        let kinds = [Kind::Network, Kind::Mount, Kind::Ipc];
        let back = in_process(own.as_fd(), &kinds, || current(Kind::Network)).unwrap();
        assert!(same(&outside, &back).unwrap());
    }
}

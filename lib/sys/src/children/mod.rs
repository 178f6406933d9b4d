//! The one book of this process's children: who waits for which pid.
//!
//! Every take of an exit status (`waitid` without `WNOWAIT`) happens under one lock, together with
//! the change to the book. A pid can be reused only after its status was taken, so an entry of the
//! book always means the process that it was made for.
//!
//! A fork does not hold the lock, since an exec can hang on a slow disk. Exits that nobody is known
//! to wait for are kept while a fork or an [`Expectation`] is under way, and the pidfd that came
//! with the fork tells whether a kept exit is really that child's.

mod follow;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gantry_core::{Error, ErrorKind, Result, ResultExt};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::sync::watch;

use crate::exit::{Exit, ExitStatus};
use crate::pidfd;
pub use follow::Follow;

/// How many exits of unknown children are kept; the oldest go first. Generous: they are kept only
/// while somebody is about to claim one.
const MAX_UNCLAIMED: usize = 1024;

static BOOK: Mutex<Book> =
    Mutex::new(Book { watched: None, unclaimed: VecDeque::new(), claimants: 0, orphans: Vec::new() });

struct Book {
    /// Children whose end somebody waits for. `None` until the first.
    watched: Option<HashMap<i32, Arc<Watch>>>,
    /// Exits taken by the reaper that nobody had registered for, oldest first.
    unclaimed: VecDeque<Unclaimed>,
    /// Forks and expectations under way. At zero, unknown exits are dropped.
    claimants: usize,
    /// Spawned children that their owner dropped without waiting; reaped on the way.
    orphans: Vec<Arc<Watch>>,
}

struct Unclaimed {
    pid: i32,
    exit: Exit,
    taken: Instant,
}

fn book() -> MutexGuard<'static, Book> {
    // Every change below is complete before anything that can panic.
    BOOK.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Book {
    fn watched(&mut self) -> &mut HashMap<i32, Arc<Watch>> {
        self.watched.get_or_insert_with(HashMap::new)
    }

    fn take_unclaimed(&mut self, pid: i32) -> Option<Unclaimed> {
        // The newest counts: an older process of the same pid was gone before it.
        let at = self.unclaimed.iter().rposition(|entry| entry.pid == pid)?;
        let taken = self.unclaimed.remove(at);
        self.unclaimed.retain(|entry| entry.pid != pid);
        taken
    }

    fn claimant_left(&mut self) {
        self.claimants -= 1;
        if self.claimants == 0 {
            self.unclaimed = VecDeque::new();
        }
    }

    /// Keeps an exit for whoever is about to claim it.
    fn keep(&mut self, pid: i32, exit: Exit) {
        if self.claimants == 0 {
            return;
        }
        if self.unclaimed.len() == MAX_UNCLAIMED {
            self.unclaimed.pop_front();
        }
        self.unclaimed.push_back(Unclaimed { pid, exit, taken: Instant::now() });
    }

    /// Records that `watch` ended, and forgets its pid.
    fn ended(&mut self, watch: &Arc<Watch>, exit: Exit) {
        // Whoever holds an expectation may still register a child that this process spawned itself.
        self.keep(watch.pid, exit);
        watch.exit.send_replace(Some(exit));
        if let Some(watched) = &mut self.watched
            && watched.get(&watch.pid).is_some_and(|known| Arc::ptr_eq(known, watch))
        {
            watched.remove(&watch.pid);
        }
    }

    /// Takes the exits of dropped children that have ended.
    fn sweep(&mut self) {
        for watch in std::mem::take(&mut self.orphans) {
            match take_by_pidfd(watch.pidfd.as_fd()) {
                Ok(Some(status)) => self.ended(&watch, Exit::now(status)),
                Ok(None) => self.orphans.push(watch),
                Err(_) => {
                    // Taken already: by the reaper.
                    if let Some(watched) = &mut self.watched
                        && watched.get(&watch.pid).is_some_and(|known| Arc::ptr_eq(known, &watch))
                    {
                        watched.remove(&watch.pid);
                    }
                }
            }
        }
    }
}

/// One child and the place its exit will be written to.
#[derive(Debug)]
pub(crate) struct Watch {
    pid: i32,
    pidfd: OwnedFd,
    exit: watch::Sender<Option<Exit>>,
}

impl Watch {
    /// Whether somebody has taken the exit, so that the number is free for another process.
    fn is_reaped(&self) -> bool {
        !pidfd::exists(self.pidfd.as_fd())
    }
}

fn take_by_pidfd(pidfd: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    let taken = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
    Ok(taken.map(|info| status_of(&info)))
}

fn status_of(info: &rustix::process::WaitIdStatus) -> ExitStatus {
    match (info.exit_status(), info.terminating_signal()) {
        (_, Some(signal)) if info.dumped() => ExitStatus::from_siginfo(libc::CLD_DUMPED, signal),
        (_, Some(signal)) => ExitStatus::killed(signal),
        (code, None) => ExitStatus::from_siginfo(libc::CLD_EXITED, code.unwrap_or(0)),
    }
}

/// A fork under way: exits of unknown children are kept until it is adopted or dropped.
pub(crate) struct Forking(());

impl Forking {
    pub(crate) fn begin() -> Self {
        let mut book = book();
        book.sweep();
        book.claimants += 1;
        Forking(())
    }

    /// The child that the fork made, followed from now on even if it has ended already.
    pub(crate) fn adopt(self, pid: i32, pidfd: OwnedFd) -> Follow {
        let mut book = book();
        let (sender, _) = watch::channel(None);
        let watch = Arc::new(Watch { pid, pidfd, exit: sender });
        let kept = book.take_unclaimed(pid);
        match waitid(
            WaitId::PidFd(watch.pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT,
        ) {
            // Not our child any more: the reaper took its exit, so the kept one is this child's.
            Err(_) => {
                if let Some(kept) = kept {
                    watch.exit.send_replace(Some(kept.exit));
                    // Whoever holds an expectation may still register it.
                    book.keep(pid, kept.exit);
                }
            }
            // Running, or ended and not yet taken: a kept exit was of an earlier process of that pid.
            Ok(_) => {
                book.watched().insert(pid, Arc::clone(&watch));
            }
        }
        drop(book);
        Follow { watch, spawned: true }
    }
}

impl Drop for Forking {
    fn drop(&mut self) {
        book().claimant_left();
    }
}

/// The promise that somebody will soon [`register`](Expectation::register) a child that it did not
/// start itself: a container's init, whose pid is learned only after the OCI runtime has returned.
///
/// Hold one from before the runtime is started. While it lives, the reaper keeps the exits of
/// unknown children, so that an init that ended at once is not missed.
#[derive(Debug)]
pub struct Expectation {
    since: Instant,
}

impl Expectation {
    /// Begins to keep the exits of unknown children.
    pub fn begin() -> Self {
        let since = Instant::now();
        book().claimants += 1;
        Expectation { since }
    }

    /// Follows the process `pid`, which became, or is about to become, a child of this process.
    ///
    /// # Errors
    /// `NotFound` if no such process exists and no exit of it was kept; `InvalidArgument` for a number
    /// that is no process id.
    pub fn register(&self, pid: i32) -> Result<Follow> {
        let mut book = book();
        if let Some(watch) = book.watched().get(&pid).filter(|watch| !watch.is_reaped()).cloned() {
            // It still holds its number, so it is the same process.
            return Ok(Follow { watch, spawned: false });
        }
        let pidfd = pidfd::open(pid);
        let kept = book.take_unclaimed(pid).filter(|kept| kept.taken >= self.since);
        let (sender, _) = watch::channel(None);
        match (pidfd, kept) {
            (Ok(pidfd), kept) => {
                let ours = waitid(
                    WaitId::PidFd(pidfd.as_fd()),
                    WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT,
                )
                .is_ok();
                let watch = Arc::new(Watch { pid, pidfd, exit: sender });
                match kept {
                    // The process that lives under this pid is a stranger: ours ended meanwhile.
                    Some(kept) if !ours => {
                        watch.exit.send_replace(Some(kept.exit));
                    }
                    _ => {
                        book.watched().insert(pid, Arc::clone(&watch));
                    }
                }
                Ok(Follow { watch, spawned: false })
            }
            (Err(_), Some(kept)) => {
                sender.send_replace(Some(kept.exit));
                // A descriptor that is always readable stands in for the pidfd that cannot be had.
                let pidfd = ended_stand_in()?;
                Ok(Follow { watch: Arc::new(Watch { pid, pidfd, exit: sender }), spawned: false })
            }
            (Err(error), None) => {
                let kind = match error.raw_os_error() {
                    Some(libc::ESRCH) => ErrorKind::NotFound,
                    Some(libc::EINVAL) => ErrorKind::InvalidArgument,
                    _ => ErrorKind::from_io(&error),
                };
                Err(Error::with_source(kind, error).context(format!("follow process {pid}")))
            }
        }
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        book().claimant_left();
    }
}

fn ended_stand_in() -> Result<OwnedFd> {
    rustix::event::eventfd(1, rustix::event::EventfdFlags::CLOEXEC)
        .map_err(io::Error::from)
        .context("open an event descriptor")
}

/// Takes every exit there is, hands each to whoever follows that pid, and keeps or drops the rest.
/// Returns how many it took.
pub(crate) fn reap() -> io::Result<usize> {
    let mut reaped = 0;
    loop {
        // One exit a turn, so that a crowd of them does not hold up everybody else.
        let mut book = book();
        let Some(pid) = peek()? else {
            book.orphans.retain(|watch| watch.exit.borrow().is_none());
            return Ok(reaped);
        };
        if let Some(watch) = book.watched().remove(&pid)
            && let Ok(Some(status)) = take_by_pidfd(watch.pidfd.as_fd())
        {
            reaped += 1;
            let exit = Exit::now(status);
            watch.exit.send_replace(Some(exit));
            book.keep(pid, exit);
            continue;
        }
        // Nobody's, or that of a newer process than the one that somebody follows by this number.
        let raw = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        let taken = waitid(WaitId::Pid(raw), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
        let Some(info) = taken else { continue };
        reaped += 1;
        book.keep(pid, Exit::now(status_of(&info)));
    }
}

/// The pid of some child that has ended and whose exit was not taken.
fn peek() -> io::Result<Option<i32>> {
    // SAFETY: siginfo_t is plain data for which all zeroes is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // rustix's waitid does not tell the pid, so this is libc's.
    // SAFETY: `info` is a valid siginfo_t that outlives the call.
    let done =
        unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) };
    if done != 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ECHILD) => Ok(None),
            Some(libc::EINTR) => peek(),
            _ => Err(error),
        };
    }
    // SAFETY: waitid fills the child fields of siginfo_t, and leaves the pid 0 if nothing has ended.
    let pid = unsafe { info.si_pid() };
    Ok((pid != 0).then_some(pid))
}

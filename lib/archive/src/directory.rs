//! One directory of the tree that is being written.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{Timespec, Timestamps};

/// Which lower layers show through a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Below {
    /// Layers that are not known yet.
    Unknown,
    /// These, newest first; none for a directory of this layer alone.
    Known(Vec<u16>),
}

impl Below {
    pub(crate) fn nothing() -> Below {
        Below::Known(Vec::new())
    }

    /// Whether anything of a lower layer may show in this directory.
    pub(crate) fn shows(&self) -> bool {
        *self != Below::Known(Vec::new())
    }
}

/// A directory of the tree, known by its path without links.
pub(crate) struct Dir {
    /// The path from the root; empty for the root.
    pub(crate) path: Vec<u8>,
    state: RefCell<State>,
}

struct State {
    fd: Option<Rc<OwnedFd>>,
    below: Below,
    times: Option<Timestamps>,
}

impl Dir {
    pub(crate) fn new(path: Vec<u8>, fd: Option<OwnedFd>, below: Below) -> Rc<Dir> {
        Rc::new(Dir { path, state: RefCell::new(State { fd: fd.map(Rc::new), below, times: None }) })
    }

    /// The directory that is written to; `None` while only lower layers have it.
    pub(crate) fn fd(&self) -> Option<Rc<OwnedFd>> {
        self.state.borrow().fd.clone()
    }

    pub(crate) fn set_fd(&self, fd: OwnedFd) -> Rc<OwnedFd> {
        let fd = Rc::new(fd);
        self.state.borrow_mut().fd = Some(Rc::clone(&fd));
        fd
    }

    pub(crate) fn below(&self) -> Below {
        self.state.borrow().below.clone()
    }

    pub(crate) fn set_below(&self, below: Below) {
        self.state.borrow_mut().below = below;
    }

    /// Whether it is known which times it shall have in the end.
    pub(crate) fn has_times(&self) -> bool {
        self.state.borrow().times.is_some()
    }

    /// The times it shall have when everything in it is written.
    pub(crate) fn set_times(&self, times: Timestamps) {
        self.state.borrow_mut().times = Some(times);
    }

    /// Sets the times it shall have: writing into it has changed them.
    pub(crate) fn settle(&self) -> rustix::io::Result<()> {
        let state = self.state.borrow();
        match (&state.fd, &state.times) {
            (Some(fd), Some(times)) => rustix::fs::futimens(fd, times),
            _ => Ok(()),
        }
    }
}

/// The times of a file as `stat` tells them.
pub(crate) fn times_of(stat: &rustix::fs::Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

//! User namespaces as maps of ids: made for a mount to refer to, with nobody living in them.

use std::ffi::{c_int, c_void};
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use gantry_core::{Error, Result, ResultExt};

use crate::children::Forking;

/// The most ranges that the kernel takes for one map.
///
/// Source: user_namespaces(7).
const MAX_RANGES: usize = 340;

/// The child's stack. It makes three system calls.
const STACK_BYTES: usize = 32 * 1024;

/// A range of ids inside a user namespace and the ids they are outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id inside.
    pub inside: u32,
    /// The first id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Makes a user namespace with these maps and returns a descriptor of it, which is all that keeps it.
///
/// # Errors
/// `InvalidArgument` for maps that are empty, too long, or overlap; `PermissionDenied` without the
/// right to map these ids.
pub fn create(uids: &[IdRange], gids: &[IdRange]) -> Result<OwnedFd> {
    let (uids, gids) = (map_text("user", uids)?, map_text("group", gids)?);
    let (theirs, ours) = crate::process::pipe().context("open a pipe")?;
    let forking = Forking::begin();
    let (pid, pidfd) = fork_waiting(&theirs).context("create a user namespace")?;
    let child = forking.adopt(pid, pidfd);
    let made = (|| {
        write_map(pid, "uid_map", &uids)?;
        write_map(pid, "gid_map", &gids)?;
        let path = format!("/proc/{pid}/ns/user");
        File::open(&path).map(OwnedFd::from).with_context(|| format!("open {path}"))
    })();
    // The child ends at the end of the pipe.
    drop(ours);
    child.wait()?;
    made
}

fn map_text(whose: &str, ranges: &[IdRange]) -> Result<String> {
    let sound = |range: &IdRange| {
        range.count > 0
            && range.inside.checked_add(range.count - 1).is_some()
            && range.outside.checked_add(range.count - 1).is_some()
    };
    if ranges.is_empty() || ranges.len() > MAX_RANGES || !ranges.iter().all(sound) {
        return Err(Error::invalid_argument(format!("map of {whose} ids")));
    }
    let line = |range: &IdRange| format!("{} {} {}\n", range.inside, range.outside, range.count);
    Ok(ranges.iter().map(line).collect())
}

fn write_map(pid: i32, name: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{name}");
    fs::write(&path, text).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => Error::invalid_argument(format!("{name} {text:?}")),
        _ => Error::io(error).context(format!("write {path}")),
    })
}

/// Forks a child in a new user namespace that waits for the end of the pipe.
fn fork_waiting(theirs: &OwnedFd) -> io::Result<(i32, OwnedFd)> {
    let pipe = theirs.as_raw_fd();
    let mut stack: Vec<MaybeUninit<u128>> = Vec::with_capacity(STACK_BYTES / 16);
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_NEWUSER | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the child has a copy of this memory (no CLONE_VM), so stack and pipe are its own; it
    // only makes system calls.
    let pid = unsafe {
        libc::clone(wait_for_end, top.cast(), flags, (&raw const pipe).cast_mut().cast(), &raw mut pidfd)
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: clone succeeded with CLONE_PIDFD, so it stored a new descriptor that nobody owns yet.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// The child's whole life.
extern "C" fn wait_for_end(pipe: *mut c_void) -> c_int {
    // SAFETY: `fork_waiting` passes a descriptor, of which this process has a copy.
    let theirs = unsafe { *pipe.cast_const().cast::<c_int>() };
    let number = theirs.unsigned_abs();
    if number > 0 {
        // Everything else goes: the other end of the pipe, and what others wait to see closed.
        // SAFETY: the descriptors are this process's copies, and nothing else here uses them.
        unsafe { libc::close_range(0, number - 1, 0) };
    }
    // SAFETY: as above.
    unsafe { libc::close_range(number + 1, libc::c_uint::MAX, 0) };
    let mut byte = 0u8;
    // SAFETY: `byte` is one valid byte. Whatever comes, even an error, ends the wait.
    unsafe { libc::read(theirs, (&raw mut byte).cast(), 1) };
    // SAFETY: ends the child at once, without running anything of this process's.
    unsafe { libc::_exit(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_core::ErrorKind;

    const RANGE: IdRange = IdRange { inside: 0, outside: 100_000, count: 65_536 };

    #[test]
    fn a_namespace_with_maps_is_made_and_nobody_stays_in_it() {
        gantry_testkit::root!();
        let namespace = create(&[RANGE], &[RANGE]).unwrap();
        let own = File::open("/proc/self/ns/user").unwrap();
        assert!(!crate::namespace::same(&namespace, &own).unwrap());
        let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        assert_eq!(children, "");
    }

    #[test]
    fn maps_that_make_no_sense_are_refused() {
        gantry_testkit::root!();
        let twice = create(&[RANGE, RANGE], &[RANGE]).unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::InvalidArgument);
        let over = IdRange { inside: u32::MAX, outside: 0, count: 2 };
        for ranges in [&[] as &[IdRange], &[over], &[RANGE; 341], &[IdRange { count: 0, ..RANGE }]] {
            assert_eq!(create(ranges, &[RANGE]).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
    }
}

//! Executables that nobody can change: a program started from one of these cannot be overwritten
//! through `/proc/<pid>/exe` by what it runs (CVE-2019-5736).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use gantry_core::{Result, ResultExt};
use rustix::fs::{CWD, MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use crate::mount::{Attributes, set_attributes};

/// This program's own executable, protected, for [`Spawn::from_fd`](crate::Spawn::from_fd).
///
/// Where allowed it is a read-only mount of the file that exists nowhere but in the descriptor, which
/// costs no memory; otherwise a sealed copy in memory.
///
/// # Errors
/// When neither can be made.
pub fn protected_self() -> Result<OwnedFd> {
    protected(Path::new("/proc/self/exe"))
}

/// The executable at `path`, protected as [`protected_self`].
///
/// # Errors
/// `NotFound` if there is no such file; otherwise when neither way works.
pub fn protected(path: &Path) -> Result<OwnedFd> {
    match read_only_mount(path) {
        Ok(fd) => Ok(fd),
        // Without CAP_SYS_ADMIN, on an old kernel, or under a filter of system calls.
        Err(_) => {
            let file = File::open(path).with_context(|| format!("open {path:?}"))?;
            sealed_copy(&file, "executable").with_context(|| format!("copy {path:?}"))
        }
    }
}

/// The file at `path` through a detached, read-only mount.
fn read_only_mount(path: &Path) -> io::Result<OwnedFd> {
    // Of the file alone: a clone of its directory would show the files beside it.
    let fd = open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    let attributes = Attributes { set: MountAttrFlags::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    set_attributes(fd.as_fd(), &attributes, false)?;
    Ok(fd)
}

/// A copy of `file` in memory that can never be changed, resized or unsealed.
///
/// # Errors
/// When reading fails or memory is short.
pub fn sealed_copy(mut file: &File, name: &str) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Newer kernels warn when it is not said whether the copy is to be executable.
    let memory = memfd_create(name, flags | MemfdFlags::EXEC).or_else(|error| match error {
        rustix::io::Errno::INVAL => memfd_create(name, flags),
        error => Err(error),
    });
    let mut memory = File::from(memory.map_err(io::Error::from).context("create a file in memory")?);
    io::copy(&mut file, &mut memory).context("fill a file in memory")?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&memory, seals).map_err(io::Error::from).context("seal a file in memory")?;
    // Executing needs no write access, and a file open for writing cannot be executed.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory));
    Ok(File::open(&path).context("reopen a file in memory")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Spawn, pipe};
    use std::io::Read;

    /// What a shell, started from `fd`, says after it tried to write its own executable.
    fn overwrite_itself(fd: OwnedFd) -> String {
        let (ours, theirs) = pipe().unwrap();
        let script = "exe=/proc/$$/exe; echo started; exec 3>>$exe && echo overwritten";
        let child = Spawn::from_fd(fd, "sh").args(["-c", script]).stdout(theirs).spawn().unwrap();
        let mut text = String::new();
        File::from(ours).read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        text
    }

    #[test]
    fn a_sealed_copy_runs_and_cannot_be_written() {
        let fd = sealed_copy(&File::open("/bin/sh").unwrap(), "sh").unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        let again = File::options().write(true).open(path).unwrap();
        assert!(rustix::io::write(&again, b"x").is_err());
        drop(again);
        assert_eq!(overwrite_itself(fd), "started\n");
    }

    #[test]
    fn a_read_only_mount_runs_and_cannot_be_written() {
        gantry_testkit::root!();
        // A copy that nobody runs: the mount has to refuse, and not the file's being busy.
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("sh");
        std::fs::copy("/bin/sh", &copy).unwrap();
        let fd = read_only_mount(&copy).unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        let error = File::options().write(true).open(path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        assert_eq!(overwrite_itself(fd), "started\n");
    }

    #[test]
    fn this_program_can_be_protected() {
        let child = Spawn::from_fd(protected_self().unwrap(), "self").arg("--list").spawn().unwrap();
        assert!(child.wait().unwrap().status.success());
    }
}
